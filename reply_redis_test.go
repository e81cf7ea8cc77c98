package redisproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A redisClient is a connection to a real redis-server.
type redisClient struct {
	*Parser
	*Writer
	t *testing.T
}

func newRedisClient(t *testing.T, addr string, version int) *redisClient {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute)) // a hang ends with an error
	c := &redisClient{NewParser(conn), NewWriter(bufio.NewWriter(conn)), t}
	c.call("HELLO", version)
	return c
}

// read reads a reply.
func (c *redisClient) read() *Reply {
	c.t.Helper()
	r, err := c.ReadReply()
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// call sends a command and reads a reply.
func (c *redisClient) call(args ...any) *Reply {
	c.t.Helper()
	if err := errors.Join(c.WriteCommand(args...), c.Writer.Flush()); err != nil {
		c.t.Fatal(err)
	}
	return c.read()
}

// want checks a reply, in the notation of dump.
func (c *redisClient) want(r *Reply, want string) {
	c.t.Helper()
	if got := dump(c.t, r); got != want {
		c.t.Errorf("got %s, want %s", got, want)
	}
}

// Every type that Redis has, in both protocols.
func TestRedisReplyTypes(t *testing.T) {
	addr := startRedis(t, "--enable-debug-command", "yes")
	type row struct {
		args         []any
		resp2, resp3 string
	}
	debug := func(name, resp2, resp3 string) row {
		return row{[]any{"DEBUG", "PROTOCOL", name}, resp2, resp3}
	}
	eval := func(script, resp2, resp3 string) row {
		return row{[]any{"EVAL", "redis.setresp(3) " + script, 0}, resp2, resp3}
	}
	rows := []row{
		debug("string", `$"Hello World"`, `$"Hello World"`),
		debug("integer", ":12345", ":12345"),
		debug("double", `$"3.141"`, ",3.141"),
		debug("null", "_", "_"),
		debug("array", "*[:0 :1 :2]", "*[:0 :1 :2]"),
		debug("set", "*[:0 :1 :2]", "~[:0 :1 :2]"),
		debug("map", "*[:0 :0 :1 :1 :2 :0]", "%[:0 #false :1 #true :2 #false]"),
		debug("attrib", `$"Some real reply following the attribute"`,
			`|$"key-popularity" *[$"key:123" :90]|$"Some real reply following the attribute"`),
		debug("push", `-"ERR RESP2 is not supported by this command"`, `>[$"server-cpu-usage" :42]`), // a reply follows
		debug("verbatim", `$"This is a verbatim\nstring"`, `=txt"This is a verbatim\nstring"`),
		debug("true", ":1", "#true"),
		debug("false", ":0", "#false"),
		debug("bignum", `$"1234567999999999999999999999999999999"`, "(1234567999999999999999999999999999999"),

		eval("return {map={a={double=1.5}}}", `*[$"a" $"1.5"]`, `%[$"a" ,1.5]`),
		eval("return {set={x=true}}", `*[$"x"]`, `~[$"x"]`),
		eval("return {1, true, false, 'a', {ok='fine'}, {err='BAD thing'}}", `*[:1 :1 :0 $"a" +"fine" -"BAD thing"]`, `*[:1 #true #false $"a" +"fine" -"BAD thing"]`),
		eval("return {big_number='123456789012345678901234567890'}", `$"123456789012345678901234567890"`, "(123456789012345678901234567890"),
		eval("return {double=1/0}", `$"inf"`, ",+Inf"),
		eval("return {double=-1/0}", `$"-inf"`, ",-Inf"),
		eval("return {double=0/0}", `$"-nan"`, ",NaN"),
		{[]any{"HSET", "h", "f", 1}, ":1", ":0"},
		{[]any{"HGETALL", "h"}, `*[$"f" $"1"]`, `%[$"f" $"1"]`},
		{[]any{"ZADD", "z", 1.5, "a", "inf", "b"}, ":2", ":0"},
		{[]any{"ZRANGE", "z", 0, -1, "WITHSCORES"}, `*[$"a" $"1.5" $"b" $"inf"]`, `*[*[$"a" ,1.5] *[$"b" ,+Inf]]`},
		{[]any{"GET", "none"}, "_", "_"},
		{[]any{"BLPOP", "none", 0.01}, "_", "_"},
		{[]any{"NONE"}, "-\"ERR unknown command 'NONE', with args beginning with: \"", "-\"ERR unknown command 'NONE', with args beginning with: \""},
		{[]any{"MULTI"}, `+"OK"`, `+"OK"`},
		{[]any{"SUBSCRIBE", "c"}, `+"QUEUED"`, `+"QUEUED"`},
		{[]any{"EXEC"}, `*[*[$"subscribe" $"c" :1]]`, `*[>[$"subscribe" $"c" :1]]`},
	}
	for version := 2; version <= 3; version++ {
		c := newRedisClient(t, addr, version)
		for _, row := range rows {
			want := row.resp2
			if version == 3 {
				want = row.resp3
			}
			r := c.call(row.args...)
			if got := dump(t, r); got != want {
				t.Errorf("RESP%d, %v: got %s, want %s", version, row.args, got, want)
			}
			if r.Kind() == Push {
				c.want(c.read(), `$"Some real reply following the push reply"`)
			}
		}
	}
}

func TestRedisReplyDepth(t *testing.T) {
	const script = "local t = 1 for i = 1, tonumber(ARGV[1]) do t = {t} end return t"
	c := newRedisClient(t, startRedis(t), 3)
	nested := func(n int) string { return strings.Repeat("*[", n) + ":1" + strings.Repeat("]", n) }
	c.want(c.call("EVAL", script, 0, 128), nested(128))
	c.Limits.Depth = 500
	c.want(c.call("EVAL", script, 0, 500), nested(500))
	if err := errors.Join(c.WriteCommand("EVAL", script, 0, 501), c.Writer.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadReply(); !errors.Is(err, ErrReplyDepth) {
		t.Errorf("got %v, want %v", err, ErrReplyDepth)
	}
}

func TestRedisPushes(t *testing.T) {
	addr := startRedis(t)
	other := newRedisClient(t, addr, 2)
	for version, kind := range []string{2: "*", 3: ">"} {
		if kind == "" {
			continue
		}
		c := newRedisClient(t, addr, version)
		c.want(c.call("SUBSCRIBE", "a", "b"), kind+`[$"subscribe" $"a" :1]`)
		c.want(c.read(), kind+`[$"subscribe" $"b" :2]`)
		c.want(c.call("PSUBSCRIBE", "a*"), kind+`[$"psubscribe" $"a*" :3]`)
		other.want(other.call("PUBLISH", "a", "hi\r\n"), ":2")
		c.want(c.read(), kind+`[$"message" $"a" $"hi\r\n"]`)
		c.want(c.read(), kind+`[$"pmessage" $"a*" $"a" $"hi\r\n"]`)
		c.want(c.call("UNSUBSCRIBE", "a"), kind+`[$"unsubscribe" $"a" :2]`)
		c.want(c.call("PUNSUBSCRIBE", "a*"), kind+`[$"punsubscribe" $"a*" :1]`)
	}
	c := newRedisClient(t, addr, 3)
	c.want(c.call("CLIENT", "TRACKING", "ON"), `+"OK"`)
	c.want(c.call("GET", "k"), "_")
	other.want(other.call("SET", "k", "v"), `+"OK"`)
	c.want(c.read(), `>[$"invalidate" *[$"k"]]`)
	other.want(other.call("FLUSHALL"), `+"OK"`)
	c.want(c.read(), `>[$"invalidate" _]`)
}

func TestRedisLargeReplies(t *testing.T) {
	c := newRedisClient(t, startRedis(t), 3)
	value := bytes.Repeat([]byte("0123456789abcde\n"), 4<<20)
	c.want(c.call("SET", "big", value), `+"OK"`)
	if r := c.call("GET", "big"); !bytes.Equal(r.Bytes(), value) {
		t.Errorf("GET: got %d bytes that differ from the %d that were set", len(r.Bytes()), len(value))
	}
	const n = 1_000_000
	args := make([]any, 2, 1002)
	args[0], args[1] = "RPUSH", "list"
	for i := range n {
		if args = append(args, i); len(args) == cap(args) {
			if err := c.WriteCommand(args...); err != nil {
				t.Fatal(err)
			}
			args = args[:2]
		}
	}
	if err := c.Writer.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range n / 1000 {
		c.want(c.read(), fmt.Sprintf(":%d", 1000*(i+1)))
	}
	r := c.call("LRANGE", "list", 0, -1)
	if r.Len() != n {
		t.Fatalf("LRANGE: got %d elements, want %d", r.Len(), n)
	}
	i := int64(0)
	for e := range r.All() {
		if got, err := e.Int(); got != i || err != nil {
			t.Fatalf("element %d: got %q, %v", i, e.Bytes(), err)
		}
		i++
	}
}
