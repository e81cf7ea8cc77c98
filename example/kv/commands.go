package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"math"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/secmask/go-redisproto"
)

// version is that of the Redis whose replies these are: CLIENT SETINFO, and doubles in the shortest form
// that reads back the same, came with it.
const version = "7.2.0"

// A command is an entry of the table. Either data or conn handles it: data runs under the server's
// lock and has no connection to wait for; conn writes its reply itself.
type command struct {
	name  string // as error texts have it
	arity int    // arguments with the name; -n is n or more
	data  func(*db, *redisproto.Command) reply
	conn  func(*client, *redisproto.Command) error

	most int                 // arguments with the name, if arity says only how few
	keys [3]int              // first, last and step, for COMMAND
	open bool                // also before AUTH
	push bool                // also for a subscriber in RESP2
	sub  map[string]*command // CLIENT ID and so on, by the second word
}

// commands is the table, by the name in capitals. COMMAND reads it, hence init.
var commands map[string]*command

func init() {
	one, all := [3]int{1, 1, 1}, [3]int{1, -1, 1}
	commands = table([]*command{
		{name: "ping", arity: -1, most: 2, conn: ping, push: true},
		{name: "echo", arity: 2, conn: echo},
		{name: "hello", arity: -1, conn: hello, open: true},
		{name: "auth", arity: -2, conn: auth, open: true},
		{name: "quit", arity: -1, conn: quit, open: true, push: true},
		{name: "reset", arity: 1, conn: reset, open: true, push: true},
		{name: "select", arity: 2, conn: selectDB},
		{name: "client", arity: -2, sub: table([]*command{
			{name: "client|id", arity: 2, conn: clientID},
			{name: "client|setname", arity: 3, conn: clientSetName},
			{name: "client|getname", arity: 2, conn: clientGetName},
			{name: "client|setinfo", arity: 4, conn: clientSetInfo},
		})},
		{name: "command", arity: -1, conn: commandList, sub: table([]*command{
			{name: "command|count", arity: 2, conn: commandCount},
			{name: "command|docs", arity: -2, conn: commandDocs},
		})},
		{name: "config", arity: -2, sub: table([]*command{
			{name: "config|get", arity: -3, conn: configGet},
		})},
		{name: "info", arity: -1, conn: info},
		{name: "dbsize", arity: 1, data: dbsize},
		{name: "flushall", arity: -1, conn: flushAll},

		{name: "set", arity: -3, data: setText, keys: one},
		{name: "get", arity: 2, data: get, keys: one},
		{name: "mget", arity: -2, data: mget, keys: all},
		{name: "mset", arity: -3, data: mset, keys: [3]int{1, -1, 2}},
		{name: "incr", arity: 2, data: incr, keys: one},
		{name: "incrby", arity: 3, data: incrby, keys: one},
		{name: "decr", arity: 2, data: decr, keys: one},
		{name: "append", arity: 3, data: appendText, keys: one},
		{name: "strlen", arity: 2, data: strlen, keys: one},
		{name: "del", arity: -2, data: del, keys: all},
		{name: "exists", arity: -2, data: exists, keys: all},
		{name: "type", arity: 2, data: typeOf, keys: one},
		{name: "expire", arity: -3, data: expire, keys: one},
		{name: "pexpire", arity: -3, data: pexpire, keys: one},
		{name: "ttl", arity: 2, data: ttl, keys: one},
		{name: "pttl", arity: 2, data: pttl, keys: one},
		{name: "persist", arity: 2, data: persist, keys: one},

		{name: "lpush", arity: -3, data: lpush, keys: one},
		{name: "rpush", arity: -3, data: rpush, keys: one},
		{name: "lpop", arity: -2, most: 3, data: lpop, keys: one},
		{name: "rpop", arity: -2, most: 3, data: rpop, keys: one},
		{name: "llen", arity: 2, data: size[*list], keys: one},
		{name: "lrange", arity: 4, data: lrange, keys: one},
		{name: "sadd", arity: -3, data: sadd, keys: one},
		{name: "srem", arity: -3, data: remove[*set], keys: one},
		{name: "spop", arity: -2, data: spop, keys: one},
		{name: "scard", arity: 2, data: size[*set], keys: one},
		{name: "sismember", arity: 3, data: sismember, keys: one},
		{name: "smembers", arity: 2, data: smembers, keys: one},
		{name: "hset", arity: -4, data: hset, keys: one},
		{name: "hget", arity: 3, data: hget, keys: one},
		{name: "hdel", arity: -3, data: remove[hash], keys: one},
		{name: "hlen", arity: 2, data: size[hash], keys: one},
		{name: "hgetall", arity: 2, data: hgetall, keys: one},
		{name: "zadd", arity: -4, data: zadd, keys: one},
		{name: "zscore", arity: 3, data: zscore, keys: one},
		{name: "zcard", arity: 2, data: size[*zset], keys: one},
		{name: "zrange", arity: -4, data: zrange, keys: one},
		{name: "zrem", arity: -3, data: remove[*zset], keys: one},
		{name: "zpopmin", arity: -2, data: zpopmin, keys: one},

		{name: "subscribe", arity: -2, conn: subscribe, push: true},
		{name: "unsubscribe", arity: -1, conn: unsubscribe, push: true},
		{name: "publish", arity: 3, conn: publish},
	})
}

func table(list []*command) map[string]*command {
	m := map[string]*command{}
	for _, k := range list {
		m[strings.ToUpper(k.name[strings.LastIndexByte(k.name, '|')+1:])] = k
	}
	return m
}

// execute answers one command. Its error ends the connection.
func (c *client) execute(cmd *redisproto.Command) error {
	k := commands[string(cmd.Name())] // no allocation: the compiler sees that the string is not kept
	if k == nil {
		return c.unknown(cmd)
	}
	n := cmd.ArgCount()
	if k.sub != nil && n > 1 {
		sub := k.sub[strings.ToUpper(string(cmd.Get(1)))]
		if sub == nil {
			name := cut(cmd.Get(1), 128)
			return c.w.WriteError("ERR unknown subcommand '" + name + "'. Try " + strings.ToUpper(k.name) + " HELP.")
		}
		k = sub
	}
	switch {
	case k.arity > 0 && n != k.arity, n < -k.arity, k.most > 0 && n > k.most:
		return c.w.WriteError(wrongArity(k.name).text)
	case c.locked && !k.open:
		return c.w.WriteError("NOAUTH Authentication required.")
	case len(c.subs) > 0 && !k.push && c.w.Protocol() == 2:
		return c.w.WriteError("ERR Can't execute '" + k.name + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context")
	case k.data == nil:
		return k.conn(c, cmd)
	}
	c.srv.mu.Lock()
	r := k.data(&c.srv.dbs[c.db], cmd)
	c.srv.mu.Unlock()
	return r.write(c.w)
}

// unknown answers a command that is not in the table.
func (c *client) unknown(cmd *redisproto.Command) error {
	switch string(cmd.Name()) {
	case "POST", "HOST:": // a web page made a browser connect here: not a word, as Redis
		c.log.Warn("possible attack: an HTTP request")
		return errDrop
	}
	var args []byte
	for i := 1; i < cmd.ArgCount() && len(args) < 128; i++ {
		args = fmt.Appendf(args, "'%s' ", cut(cmd.Get(i), 128-len(args)))
	}
	return c.w.WriteError("ERR unknown command '" + cut(cmd.Get(0), 128) + "', with args beginning with: " + string(args))
}

// cut gives the first n bytes of b, as far as C sees them: up to a NUL.
func cut(b []byte, n int) string {
	b, _, _ = bytes.Cut(b[:min(n, len(b))], []byte{0})
	return string(b)
}

func ping(c *client, cmd *redisproto.Command) error {
	switch {
	case len(c.subs) > 0 && c.w.Protocol() == 2:
		return c.w.WriteBulks([]byte("pong"), append([]byte{}, cmd.Get(1)...))
	case cmd.ArgCount() == 2:
		return c.w.WriteBulk(cmd.Get(1))
	}
	return c.w.WriteSimpleString("PONG")
}

func echo(c *client, cmd *redisproto.Command) error { return c.w.WriteBulk(cmd.Get(1)) }

func quit(c *client, cmd *redisproto.Command) error {
	c.w.WriteSimpleString("OK")
	return errQuit
}

func reset(c *client, cmd *redisproto.Command) error {
	c.srv.pubsub.leaveAll(c)
	c.deliver()
	c.w.SetProtocol(2)
	c.db, c.name = 0, ""
	c.lock(c.srv.password != "")
	return c.w.WriteSimpleString("RESET")
}

// authenticate checks the password of the one user that there is. The comparison takes the same
// time wherever the two differ, and whatever their lengths.
func (c *client) authenticate(user, password []byte) bool {
	ok := string(user) == "default"
	if c.srv.password != "" {
		got, want := sha256.Sum256(password), sha256.Sum256([]byte(c.srv.password))
		ok = subtle.ConstantTimeCompare(got[:], want[:]) == 1 && ok
	}
	if ok {
		c.lock(false)
	} else {
		c.log.Warn("authentication failed")
	}
	return ok
}

const wrongPassword = "WRONGPASS invalid username-password pair or user is disabled."

func auth(c *client, cmd *redisproto.Command) error {
	user, password := []byte("default"), cmd.Get(1)
	switch {
	case cmd.ArgCount() > 3:
		return c.w.WriteError("ERR syntax error")
	case cmd.ArgCount() == 3:
		user, password = cmd.Get(1), cmd.Get(2)
	case c.srv.password == "":
		return c.w.WriteError("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	}
	if !c.authenticate(user, password) {
		return c.w.WriteError(wrongPassword)
	}
	return c.w.WriteSimpleString("OK")
}

func hello(c *client, cmd *redisproto.Command) error {
	protocol := c.w.Protocol()
	if cmd.ArgCount() > 1 {
		v, ok := cmd.Int(1)
		if !ok {
			return c.w.WriteError("ERR Protocol version is not an integer or out of range")
		}
		if v != 2 && v != 3 {
			return c.w.WriteError("NOPROTO unsupported protocol version")
		}
		protocol = int(v)
	}
	for i := 2; i < cmd.ArgCount(); i++ {
		option, more := strings.ToUpper(string(cmd.Get(i))), cmd.ArgCount()-1-i
		switch {
		case option == "AUTH" && more >= 2:
			if !c.authenticate(cmd.Get(i+1), cmd.Get(i+2)) {
				return c.w.WriteError(wrongPassword)
			}
			i += 2
		case option == "SETNAME" && more >= 1:
			if !plain(cmd.Get(i + 1)) {
				return c.w.WriteError(badName)
			}
			c.name = string(cmd.Get(i + 1))
			i++
		default:
			return c.w.WriteError("ERR Syntax error in HELLO option '" + cut(cmd.Get(i), math.MaxInt) + "'")
		}
	}
	if c.locked {
		return c.w.WriteError("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
	}
	c.w.SetProtocol(protocol)
	c.w.WriteMapHeader(7)
	c.writeTexts("server", "redis", "version", version, "proto")
	c.w.WriteInt(int64(protocol))
	c.writeTexts("id")
	c.w.WriteInt(c.id)
	c.writeTexts("mode", "standalone", "role", "master", "modules")
	return c.w.WriteArrayHeader(0)
}

func (c *client) writeTexts(texts ...string) (err error) {
	for _, s := range texts {
		err = c.w.WriteBulkString(s)
	}
	return err
}

func selectDB(c *client, cmd *redisproto.Command) error {
	n, ok := cmd.Int(1)
	if !ok {
		return c.w.WriteError(notInt.text)
	}
	if n < 0 || n >= int64(len(c.srv.dbs)) {
		return c.w.WriteError("ERR DB index is out of range")
	}
	c.db = int(n)
	return c.w.WriteSimpleString("OK")
}

const badName = "ERR Client names cannot contain spaces, newlines or special characters."

// plain reports whether b may be a client's name.
func plain(b []byte) bool {
	return !slices.ContainsFunc(b, func(ch byte) bool { return ch < '!' || ch > '~' })
}

func clientID(c *client, cmd *redisproto.Command) error { return c.w.WriteInt(c.id) }

func clientSetName(c *client, cmd *redisproto.Command) error {
	if !plain(cmd.Get(2)) {
		return c.w.WriteError(badName)
	}
	c.name = string(cmd.Get(2))
	return c.w.WriteSimpleString("OK")
}

func clientGetName(c *client, cmd *redisproto.Command) error {
	if c.name == "" {
		return c.w.WriteNull()
	}
	return c.w.WriteBulkString(c.name)
}

// clientSetInfo is of Redis 7.2. What clients say there is for people to look at, and not kept.
func clientSetInfo(c *client, cmd *redisproto.Command) error {
	attr := strings.ToLower(string(cmd.Get(2)))
	switch {
	case attr != "lib-name" && attr != "lib-ver":
		return c.w.WriteError("ERR Unrecognized option '" + cut(cmd.Get(2), math.MaxInt) + "'")
	case !plain(cmd.Get(3)):
		return c.w.WriteError("ERR " + attr + " cannot contain spaces, newlines or special characters.")
	}
	return c.w.WriteSimpleString("OK")
}

// commandList tells clients which arguments are keys; the rest of what Redis tells is left empty.
func commandList(c *client, cmd *redisproto.Command) error {
	err := c.w.WriteArrayHeader(len(commands))
	for _, k := range commands {
		c.w.WriteArrayHeader(10)
		c.w.WriteBulkString(k.name)
		c.w.WriteInt(int64(k.arity))
		c.w.WriteSetHeader(0) // flags
		for _, n := range k.keys {
			c.w.WriteInt(int64(n))
		}
		for range 3 { // ACL categories, tips, key specifications
			c.w.WriteSetHeader(0)
		}
		err = c.w.WriteArrayHeader(0) // subcommands
	}
	return err
}

func commandCount(c *client, cmd *redisproto.Command) error {
	return c.w.WriteInt(int64(len(commands)))
}

// commandDocs has none.
func commandDocs(c *client, cmd *redisproto.Command) error { return c.w.WriteMapHeader(0) }

// configGet shows what there is to configure, and what tools ask for.
func configGet(c *client, cmd *redisproto.Command) error {
	settings := map[string]string{
		"appendonly":  "no",
		"databases":   strconv.Itoa(len(c.srv.dbs)),
		"maxclients":  strconv.Itoa(c.srv.maxClients),
		"requirepass": c.srv.password,
		"save":        "",
		"timeout":     strconv.Itoa(int(c.srv.timeout / time.Second)),
	}
	found := map[string]string{}
	for _, arg := range cmd.Args()[2:] {
		pattern := strings.ToLower(string(arg))
		for name, value := range settings {
			if pattern == name {
				found[string(arg)] = value // by the name as it was asked for
			} else if ok, _ := path.Match(pattern, name); ok {
				found[name] = value
			}
		}
	}
	err := c.w.WriteMapHeader(len(found))
	for name, value := range found {
		err = c.writeTexts(name, value)
	}
	return err
}

func info(c *client, cmd *redisproto.Command) error {
	var parts []string
	for _, section := range c.srv.info() {
		title, _, _ := strings.Cut(section[2:], "\r\n")
		wanted := func(arg []byte) bool {
			return slices.Contains([]string{"all", "default", "everything", strings.ToLower(title)}, strings.ToLower(string(arg)))
		}
		if cmd.ArgCount() == 1 || slices.ContainsFunc(cmd.Args()[1:], wanted) {
			parts = append(parts, section)
		}
	}
	return c.w.WriteVerbatim("txt", strings.Join(parts, "\r\n"))
}

func (s *server) info() (sections []string) {
	s.clientsMu.Lock()
	clients := len(s.clients)
	s.clientsMu.Unlock()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	keyspace := "# Keyspace\r\n"
	s.mu.Lock()
	for i, d := range s.dbs {
		if len(d.keys) > 0 {
			keyspace += fmt.Sprintf("db%d:keys=%d,expires=%d,avg_ttl=0\r\n", i, len(d.keys), d.expiring.size())
		}
	}
	s.mu.Unlock()
	return []string{
		fmt.Sprintf("# Server\r\nredis_version:%s\r\nredis_mode:standalone\r\nuptime_in_seconds:%d\r\n", version, time.Since(s.started)/time.Second),
		fmt.Sprintf("# Clients\r\nconnected_clients:%d\r\n", clients),
		fmt.Sprintf("# Memory\r\nused_memory:%d\r\n", mem.HeapAlloc+mem.StackInuse),
		fmt.Sprintf("# Stats\r\nrejected_connections:%d\r\n", s.refused.Load()),
		"# Replication\r\nrole:master\r\n",
		"# Cluster\r\ncluster_enabled:0\r\n",
		keyspace,
	}
}

func dbsize(d *db, cmd *redisproto.Command) reply { return integer(len(d.keys)) }

func flushAll(c *client, cmd *redisproto.Command) error {
	if mode := strings.ToUpper(string(cmd.Get(1))); cmd.ArgCount() > 2 || cmd.ArgCount() == 2 && mode != "SYNC" && mode != "ASYNC" {
		return c.w.WriteError(badSyntax.text)
	}
	c.srv.mu.Lock()
	for i := range c.srv.dbs {
		c.srv.dbs[i].clear()
	}
	c.srv.mu.Unlock()
	return c.w.WriteSimpleString("OK")
}
