package main

import (
	"bytes"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/secmask/go-redisproto"
)

// errQuit ends a session once all is answered.
var errQuit = errors.New("the client's last command was answered")

const notInTransaction = "not~in~transaction" // a stand-in's name, see rules.stand

// answerLocally answers what a shared link must not remember, so that no client notices.
func (s *session) answerLocally(cmd *command, c *redisproto.Command) (answered bool, err error) {
	switch cmd.kind {
	case hello, auth, reset, quit, client, selectDB:
	case ofCluster:
		if cmd.info != nil && !cmd.info.fits(c.ArgCount()) || s.cluster == nil && cmd.name == "CLUSTER" {
			return false, nil // the upstream says what is wrong; or it may itself be a node of a cluster
		}
		s.local(cmd, "-ERR This instance has cluster support disabled\r\n")
		return true, nil
	default:
		return false, nil
	}
	if !c.Whole() {
		s.local(cmd, "-ERR an argument is too large\r\n")
		return true, nil
	}
	// Nothing is in flight while what the client has said changes: it is known then what stays behind on its
	// links, and nothing is sent again.
	if err := s.await(0); err != nil {
		return true, err
	}
	if cmd.kind != quit && cmd.kind != reset && !s.said.resp3 && s.ownWith(stateSubscribed) != nil {
		return false, nil // the upstream refuses it
	}
	inMulti := s.txn.pending || s.ownWith(stateMulti) != nil
	switch cmd.kind {
	case quit:
		if cmd.name != "QUIT" {
			return false, nil
		}
		if err := s.syncOwn(); err != nil {
			return true, err
		}
		s.local(cmd, "+OK\r\n")
		return true, errQuit
	case reset:
		if c.ArgCount() != 1 {
			return false, nil
		}
		return true, s.answerReset(cmd)
	case auth:
		if inMulti {
			return true, s.refuse(cmd, c, notInTransaction)
		}
		s.local(cmd, s.answerAuth(c))
		return true, nil
	case hello:
		switch {
		case inMulti && (s.cluster != nil || s.password != ""):
			return true, s.refuse(cmd, c, notInTransaction)
		case inMulti:
			return false, nil
		}
		return true, s.answerHello(cmd, c)
	case client:
		return s.answerClient(cmd, c, inMulti)
	}
	return s.answerSelect(cmd, c, inMulti)
}

// syncOwn waits for what the session's own links have brought by now: messages, say.
func (s *session) syncOwn() error {
	for _, l := range s.owns {
		if l == s.passing() { // no reply to a PING could be told apart there
			l.finish()
			continue
		}
		s.tell(l, partCommand, appendCommand(nil, "PING"))
	}
	return s.await(0)
}

// answerReset forgets all that the client has said.
func (s *session) answerReset(cmd *command) error {
	if err := s.syncOwn(); err != nil {
		return err
	}
	s.mu.Lock()
	owns := s.owns
	s.setOwns(nil)
	s.seen = 0
	s.mu.Unlock()
	s.silent = false
	for _, l := range owns {
		l.owner.Store(nil)
		l.close(errOver)
	}
	s.said = said{user: s.password == ""}
	s.txn = transaction{}
	s.holdToLimits(!s.said.user)
	s.local(cmd, "+RESET\r\n")
	return nil
}

const wrongPassword = "-WRONGPASS invalid username-password pair or user is disabled.\r\n"

// answerAuth answers AUTH.
func (s *session) answerAuth(c *redisproto.Command) string {
	switch n := c.ArgCount(); {
	case n < 2:
		return "-ERR wrong number of arguments for 'auth' command\r\n"
	case n > 3:
		return "-ERR syntax error\r\n"
	case n == 2 && s.password == "":
		return "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n"
	case n == 3 && !s.login(c.Get(1), c.Get(2)) || n == 2 && !s.login([]byte("default"), c.Get(1)):
		return wrongPassword
	}
	return "+OK\r\n"
}

// login authenticates the client. As with Redis, any password is right for a default user without one.
func (s *session) login(user, password []byte) bool {
	right := s.password == "" || subtle.ConstantTimeCompare(password, []byte(s.password)) == 1
	if string(user) != "default" || !right {
		return false
	}
	s.said.user = true
	s.holdToLimits(false)
	return true
}

// answerHello answers HELLO, and has the session's own links speak what the client wants to.
func (s *session) answerHello(cmd *command, c *redisproto.Command) error {
	want := s.said
	if c.ArgCount() > 1 {
		version, ok := c.Int(1)
		if !ok {
			s.local(cmd, "-ERR Protocol version is not an integer or out of range\r\n")
			return nil
		}
		if version != 2 && version != 3 {
			s.local(cmd, "-NOPROTO unsupported protocol version\r\n")
			return nil
		}
		want.resp3 = version == 3
	}
	if text := s.helloOptions(c, &want); text != "" {
		s.local(cmd, text)
		return nil
	}
	s.said.resp3, s.said.name = want.resp3, want.name
	for _, l := range s.owns {
		version := "2"
		if want.resp3 {
			version = "3"
		}
		s.tell(l, helloCommand, appendCommand(nil, "HELLO", version))
		l.resp3 = want.resp3
	}
	s.local(cmd, s.helloText())
	return nil
}

// helloCommand is the HELLO that the proxy itself sends.
var helloCommand = &command{stats: &stats{}, kind: hello}

// helloOptions reads what stands behind the version. The text is the error to answer, if there is one.
func (s *session) helloOptions(c *redisproto.Command, want *said) (text string) {
	for i := 2; i < c.ArgCount(); i++ {
		switch left := c.ArgCount() - 1 - i; {
		case bytes.EqualFold(c.Get(i), []byte("AUTH")) && left >= 2:
			if !s.login(c.Get(i+1), c.Get(i+2)) {
				return wrongPassword
			}
			i += 2
		case bytes.EqualFold(c.Get(i), []byte("SETNAME")) && left >= 1:
			if !validName(c.Get(i + 1)) {
				return invalidName
			}
			want.name = string(c.Get(i + 1))
			i++
		default:
			return fmt.Sprintf("-ERR Syntax error in HELLO option '%s'\r\n", printable(c.Get(i)))
		}
	}
	if !s.said.user {
		return "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n"
	}
	return ""
}

// printable makes an argument fit for a line.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 {
			return ' '
		}
		return r
	}, string(b[:min(len(b), 128)]))
}

// helloText is the reply to HELLO: that of a Redis without cluster mode.
func (s *session) helloText() string {
	server := serverHello{name: "redis", version: "7.0.0"}
	if h := s.hello.Load(); h != nil {
		server = *h
	}
	head := byte('*')
	n, version := 14, 2
	if s.said.resp3 {
		head, n, version = '%', 7, 3
	}
	b := appendHeader(nil, head, n)
	for _, word := range []string{"server", server.name, "version", server.version, "proto"} {
		b = appendBulk(b, word)
	}
	b = fmt.Appendf(b, ":%d\r\n", version)
	b = fmt.Appendf(appendBulk(b, "id"), ":%d\r\n", s.id)
	for _, word := range []string{"mode", "standalone", "role", "master", "modules"} {
		b = appendBulk(b, word)
	}
	return string(append(b, "*0\r\n"...))
}

const invalidName = "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"

func validName(b []byte) bool {
	for _, ch := range b {
		if ch < '!' || ch > '~' {
			return false
		}
	}
	return true
}

// answerClient answers the subcommands of CLIENT that are about the connection.
func (s *session) answerClient(cmd *command, c *redisproto.Command, inMulti bool) (bool, error) {
	sub := string(bytes.ToUpper(short(c.Get(1))))
	if sub == "REPLY" && c.ArgCount() == 3 {
		switch {
		case inMulti && s.cluster != nil:
			return true, s.refuse(cmd, c, notInTransaction)
		case inMulti:
			return false, nil
		}
		s.answerReply(cmd, c)
		return true, nil
	}
	if inMulti {
		return false, nil
	}
	n := c.ArgCount()
	switch {
	case sub == "ID" && n == 2:
		s.local(cmd, ":"+strconv.FormatInt(s.id, 10)+"\r\n")
	case sub == "GETNAME" && n == 2:
		s.local(cmd, s.nameText())
	case sub == "SETNAME" && n == 3:
		if !validName(c.Get(2)) {
			s.local(cmd, invalidName)
			return true, nil
		}
		s.said.name = string(c.Get(2))
		s.tellOwn(appendCommand(nil, "CLIENT", "SETNAME", s.said.name))
		s.local(cmd, "+OK\r\n")
	case sub == "UNBLOCK" && (n == 3 || n == 4):
		s.local(cmd, s.answerUnblock(c))
	case sub == "KILL" && n == 4 && bytes.EqualFold(c.Get(2), []byte("ID")):
		return true, s.answerKill(cmd, c)
	case sub == "SETINFO" && n == 4 && cmd.info != nil && cmd.info.subs["SETINFO"] != nil:
		text := s.answerSetInfo(c)
		if text[0] == '+' {
			s.tellOwn(c.Raw())
		}
		s.local(cmd, text)
	default:
		return false, nil
	}
	return true, nil
}

// tellOwn tells the session's own links, too, what the client has said.
func (s *session) tellOwn(raw []byte) {
	for _, l := range s.owns {
		s.tell(l, partCommand, raw)
		l.setup = fold(s.said.commands()) // it waits in the pool for a session that has said the same
	}
}

// tell sends a command of the proxy's own on a link of the session's own. The client does not get the
// reply, but it counts as in flight, so that the link is nobody else's before it has come.
func (s *session) tell(l *link, cmd *command, raw []byte) {
	k := s.begin(cmd, 0)
	k.silent = true
	s.give(l, k, raw)
}

func (s *session) nameText() string {
	switch {
	case s.said.name != "":
		return string(appendBulk(nil, s.said.name))
	case s.said.resp3:
		return "_\r\n"
	}
	return "$-1\r\n"
}

// answerReply answers CLIENT REPLY.
func (s *session) answerReply(cmd *command, c *redisproto.Command) {
	switch string(bytes.ToUpper(short(c.Get(2)))) {
	case "ON":
		s.silent, s.skipping = false, false
		s.local(cmd, "+OK\r\n")
	case "OFF":
		s.silent = true
	case "SKIP":
		s.said.skip = !s.silent
	default:
		s.local(cmd, "-ERR syntax error\r\n")
	}
}

// answerSetInfo answers CLIENT SETINFO.
func (s *session) answerSetInfo(c *redisproto.Command) string {
	if !validName(c.Get(3)) {
		return "-ERR " + strings.ToLower(printable(c.Get(2))) + " cannot contain spaces, newlines or special characters.\r\n"
	}
	switch string(bytes.ToUpper(short(c.Get(2)))) {
	case "LIB-NAME":
		s.said.lib = string(c.Get(3))
	case "LIB-VER":
		s.said.ver = string(c.Get(3))
	default:
		return "-ERR Unrecognized option '" + printable(c.Get(2)) + "'\r\n"
	}
	return "+OK\r\n"
}

// answerSelect answers SELECT of database 0, which shared links use, and of any other of a cluster, which
// has none.
func (s *session) answerSelect(cmd *command, c *redisproto.Command, inMulti bool) (bool, error) {
	if inMulti || s.ownWith(stateForever) != nil {
		return false, nil
	}
	db, ok := c.Int(1)
	switch {
	case c.ArgCount() != 2 || !ok && s.cluster == nil:
		return false, nil
	case ok && db == 0:
		s.local(cmd, "+OK\r\n")
	case s.cluster == nil:
		return false, nil
	case !ok:
		s.local(cmd, "-ERR value is not an integer or out of range\r\n")
	default:
		s.local(cmd, "-ERR DB index is out of range\r\n")
	}
	return true, nil
}

// commands are those that a link of the session's own is told when it is taken.
func (w *said) commands() [][]string {
	var list [][]string
	if w.name != "" {
		list = append(list, []string{"CLIENT", "SETNAME", w.name})
	}
	if w.lib != "" {
		list = append(list, []string{"CLIENT", "SETINFO", "LIB-NAME", w.lib})
	}
	if w.ver != "" {
		list = append(list, []string{"CLIENT", "SETINFO", "LIB-VER", w.ver})
	}
	return append(list, w.setup...)
}
