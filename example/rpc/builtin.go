package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/secmask/go-redisproto"
)

// A builtin is a command that every server has, so that clients of Redis can connect and redis-cli
// can complete and explain the methods. It writes its reply; its error ends the connection.
type builtin func(*serverConn, *redisproto.Command) error

// builtins is the table, by the name in capitals. It is filled by init because COMMAND reads it.
var builtins map[string]builtin

func init() {
	builtins = map[string]builtin{
		"PING": ping, "HELLO": hello, "AUTH": auth, "QUIT": quit, "CLIENT": client, "COMMAND": command, "INFO": info,
	}
}

// executeBuiltin executes what is no method, or comes before the password.
func (c *serverConn) executeBuiltin(name []byte, cmd *redisproto.Command) error {
	switch f := builtins[string(name)]; {
	case string(name) == "POST", string(name) == "HOST:":
		c.log.Warn("an HTTP request: the connection is closed")
		return errQuit // without a reply, as Redis has it: a web page may have made a browser send this
	case !c.authenticated && string(name) != "AUTH" && string(name) != "HELLO" && string(name) != "QUIT":
		return c.replies.w.WriteError("NOAUTH Authentication required.")
	case f != nil:
		return f(c, cmd)
	}
	return c.replies.w.WriteError("ERR unknown command '" + clip(cmd.Get(0)) + "': there is no such method; COMMAND DOCS lists those that there are")
}

func (c *serverConn) wrongArgs(name string) error {
	return c.replies.w.WriteError("ERR wrong number of arguments for '" + name + "' command")
}

func ping(c *serverConn, cmd *redisproto.Command) error {
	switch cmd.ArgCount() {
	case 1:
		return c.replies.w.WriteSimpleString("PONG")
	case 2:
		return c.replies.w.WriteBulk(cmd.Get(1))
	}
	return c.wrongArgs("ping")
}

func quit(c *serverConn, cmd *redisproto.Command) error {
	c.replies.w.WriteSimpleString("OK")
	return errQuit
}

// authenticate checks the password of the one user that there is. The comparison takes the same time
// wherever the two differ, and whatever their lengths.
func (c *serverConn) authenticate(user, password []byte) bool {
	got, want := sha256.Sum256(password), sha256.Sum256([]byte(c.srv.opts.Password))
	same := subtle.ConstantTimeCompare(got[:], want[:]) == 1
	if string(user) != "default" || c.srv.opts.Password != "" && !same {
		c.log.Warn("authentication failed")
		return false
	}
	c.setAuthenticated(true)
	return true
}

const wrongPassword = "WRONGPASS invalid username-password pair or user is disabled."

func auth(c *serverConn, cmd *redisproto.Command) error {
	user, password := []byte("default"), cmd.Get(1)
	switch {
	case cmd.ArgCount() != 2 && cmd.ArgCount() != 3:
		return c.wrongArgs("auth")
	case cmd.ArgCount() == 3:
		user, password = cmd.Get(1), cmd.Get(2)
	case c.srv.opts.Password == "":
		return c.replies.w.WriteError("ERR AUTH was called, but this server has no password")
	}
	if !c.authenticate(user, password) {
		return c.replies.w.WriteError(wrongPassword)
	}
	return c.replies.w.WriteSimpleString("OK")
}

func hello(c *serverConn, cmd *redisproto.Command) error {
	w, protocol := c.replies.w, c.replies.w.Protocol()
	if cmd.ArgCount() > 1 {
		version := string(cmd.Get(1))
		if version != "2" && version != "3" {
			return w.WriteError("NOPROTO unsupported protocol version")
		}
		protocol = int(version[0] - '0')
	}
	for i := 2; i < cmd.ArgCount(); i++ {
		option, more := strings.ToUpper(string(cmd.Get(i))), cmd.ArgCount()-1-i
		switch {
		case option == "AUTH" && more >= 2:
			if !c.authenticate(cmd.Get(i+1), cmd.Get(i+2)) {
				return w.WriteError(wrongPassword)
			}
			i += 2
		case option == "SETNAME" && more >= 1:
			i++
		default:
			return w.WriteError("ERR Syntax error in HELLO option '" + clip(cmd.Get(i)) + "'")
		}
	}
	if !c.authenticated {
		return w.WriteError("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
	}
	w.SetProtocol(protocol)
	w.WriteMapHeader(7)
	writeTexts(w, "server", "redis", "version", "7.0.0", "proto") // what clients expect to see
	w.WriteInt(int64(protocol))
	writeTexts(w, "id")
	w.WriteInt(c.id)
	writeTexts(w, "mode", "standalone", "role", "master", "modules")
	return w.WriteArrayHeader(0)
}

func writeTexts(w *redisproto.Writer, texts ...string) (err error) {
	for _, s := range texts {
		err = w.WriteBulkString(s)
	}
	return err
}

// client accepts what clients tell of themselves. It is for people to look at, and is not kept.
func client(c *serverConn, cmd *redisproto.Command) error {
	sub := strings.ToUpper(string(cmd.Get(1)))
	switch {
	case sub == "SETINFO" && cmd.ArgCount() == 4, sub == "SETNAME" && cmd.ArgCount() == 3:
		return c.replies.w.WriteSimpleString("OK")
	case sub == "ID" && cmd.ArgCount() == 2:
		return c.replies.w.WriteInt(c.id)
	}
	return c.replies.w.WriteError("ERR unknown subcommand '" + clip(cmd.Get(1)) + "' of CLIENT, or wrong number of arguments")
}

// info has what clients look for before they send the first command.
func info(c *serverConn, cmd *redisproto.Command) error {
	return c.replies.w.WriteBulkString("# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\n# Persistence\r\nloading:0\r\n")
}

func command(c *serverConn, cmd *redisproto.Command) error {
	w, sub := c.replies.w, strings.ToUpper(string(cmd.Get(1)))
	switch {
	case cmd.ArgCount() == 1:
		w.WriteArrayHeader(len(c.srv.names))
		for _, name := range c.srv.names {
			writeCommand(w, c.srv.methods[name])
		}
		return nil
	case sub == "COUNT" && cmd.ArgCount() == 2:
		return w.WriteInt(int64(len(c.srv.names)))
	case sub == "DOCS":
		asked := c.srv.names
		if cmd.ArgCount() > 2 {
			asked = nil
			for _, arg := range cmd.Args()[2:] {
				if name := upper(string(arg)); c.srv.methods[name] != nil {
					asked = append(asked, name)
				}
			}
		}
		w.WriteMapHeader(len(asked))
		for _, name := range asked {
			writeDocs(w, c.srv.methods[name])
		}
		return nil
	}
	return w.WriteError("ERR unknown subcommand '" + clip(cmd.Get(1)) + "' of COMMAND, or wrong number of arguments")
}

// writeCommand writes a method's entry in the reply to COMMAND: its name and arity; it has no keys,
// and the rest of what Redis has there is empty.
func writeCommand(w *redisproto.Writer, m *method) {
	w.WriteArrayHeader(10)
	w.WriteBulkString(m.name)
	w.WriteInt(int64(-1 - m.args)) // so many with the name, or more, because of TIMEOUT
	w.WriteSetHeader(0)            // flags
	for range 3 {
		w.WriteInt(0) // no first, last and step of keys
	}
	for range 3 {
		w.WriteSetHeader(0) // ACL categories, tips, key specifications
	}
	w.WriteArrayHeader(0) // subcommands
}

// writeDocs writes a method's name and documentation as redis-cli reads them.
func writeDocs(w *redisproto.Writer, m *method) error {
	w.WriteBulkString(m.name)
	summary := m.summary
	if summary == "" {
		summary = "Takes " + m.expects + "."
	}
	w.WriteMapHeader(4)
	writeTexts(w, "summary", summary, "since", "1.0.0", "group", "rpc", "arguments")
	w.WriteArrayHeader(m.args + 1)
	for i := range m.args {
		if m.more && i == m.args-1 {
			w.WriteMapHeader(3)
			writeTexts(w, "flags")
			w.WriteSetHeader(1)
			w.WriteSimpleString("multiple")
		} else {
			w.WriteMapHeader(2)
		}
		writeTexts(w, "name", m.param, "type", "string")
	}
	w.WriteMapHeader(4)
	writeTexts(w, "name", "milliseconds", "type", "integer", "token", "TIMEOUT", "flags")
	w.WriteSetHeader(1)
	return w.WriteSimpleString("optional")
}
