package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// modes are the ways to stand in front of one Redis.
var modes = []struct {
	name  string
	flags []string
}{
	{"own links", nil},
	{"shared links", []string{"-shared", "1"}},
}

// forEachMode runs a test in each way to stand in front of one Redis.
func forEachMode(t *testing.T, test func(t *testing.T, flags []string)) {
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) { test(t, m.flags) })
	}
}

// Redis 7.0 compares names up to a NUL, so that some names with a NUL run a command that is refused.
func TestNamesWithControlCharacters(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-deny", "FLUSHALL,CONFIG|SET", "-slowlog", "1ns", "-slowlog-values")...)
		c := dial(t, p.addr, nil)
		c.call("SET a 1")
		names := []string{"FLUSHALL\x00", "flushall\x01", "\x1fPING"}
		for i := range 1000 { // the server takes about one in a few hundred for the command
			for _, name := range []string{"FLUSHALL", "CONFIG", "SYNC", "AUTH"} {
				names = append(names, fmt.Sprintf("%s\x00%d", name, i))
			}
		}
		for _, name := range names {
			c.WriteCommand(name, "secret")
		}
		for i := range 500 {
			c.WriteCommand("CONFIG", fmt.Sprintf("SET\x00%d", i), "maxmemory", "1gb")
		}
		c.Flush()
		for i := range len(names) + 500 {
			if got := c.read(); !strings.HasPrefix(got, "-ERR a command with a control character in its name is denied") {
				t.Fatalf("name %d: got %q", i, got)
			}
		}
		if got := c.call("GET a"); got != "1" {
			t.Errorf("GET: got %q, want 1", got)
		}
		if got := c.call("CONFIG SET maxmemory 1gb"); !strings.Contains(got, "'config|set' is denied") {
			t.Errorf("CONFIG SET: got %q", got)
		}
		c.send("CONFIG GET maxmemory")
		c.want("*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n")
		c.Close()
		p.stop()
		<-p.done
		if strings.Contains(p.log.String(), "secret") {
			t.Errorf("an argument of a command with a wrong name is logged:\n%s", &p.log)
		}
	})
}

// Before AUTH a client is held to what Redis allows then, at once.
func TestUnauthenticated(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"a large argument", "*2\r\n$4\r\nAUTH\r\n$100000\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"},
		{"many arguments", "*100\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"},
		{"a command", "PING\r\nGET a\r\n", "-NOAUTH Authentication required.\r\n-NOAUTH Authentication required.\r\n"},
		{"a wrong password", "AUTH wrong\r\n*100\r\n", "-WRONGPASS invalid username-password pair or user is disabled.\r\n-ERR Protocol error: unauthenticated multibulk length\r\n"},
		{"the right password", "AUTH secret\r\n*13\r\n" + strings.Repeat("$6\r\nEXISTS\r\n", 13), "+OK\r\n:0\r\n"},
		{"user and password", "AUTH default secret\r\n*13\r\n" + strings.Repeat("$6\r\nEXISTS\r\n", 13), "+OK\r\n:0\r\n"},
		{"RESET", "AUTH secret\r\nPING\r\nRESET\r\n*100\r\n", "+OK\r\n+PONG\r\n+RESET\r\n-ERR Protocol error: unauthenticated multibulk length\r\n"},
		{"HELLO", "HELLO 3\r\n", "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n"},
		{"HELLO with a wrong password", "HELLO 3 AUTH default no\r\n", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"},
		{"HELLO with the right password", "HELLO 2 AUTH default secret SETNAME me\r\nCLIENT GETNAME\r\n", "$2\r\nme\r\n"},
	}
	redis := startRedis(t, "--requirepass", "secret")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	forEachMode(t, func(t *testing.T, flags []string) {
		if flags != nil {
			flags = append(flags, "-requirepass-file", file, "-upstream-password-file", file)
		}
		p := startProxy(t, redis.addr, flags...)
		for _, tt := range tests {
			for _, via := range []string{redis.addr, p.addr} {
				c := dial(t, via, nil)
				io.WriteString(c.Conn, tt.in)
				closeWrite(c.Conn)
				if got := c.rest(); !strings.HasSuffix(got, tt.want) || strings.HasPrefix(tt.want, "-") && got != tt.want {
					t.Errorf("%s, at %s: got %q, want %q", tt.name, map[bool]string{true: "redis-server", false: "the proxy"}[via == redis.addr], got, tt.want)
				}
			}
		}
	})
}

// Whether a password is demanded is found out on each new connection, since CONFIG SET can change it.
func TestPasswordSetLater(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr)
	c := dial(t, p.addr, nil)
	if got := c.call("CONFIG SET requirepass secret"); got != "OK" {
		t.Fatal(got)
	}
	c = dial(t, p.addr, nil)
	io.WriteString(c.Conn, "*100\r\n")
	if got, want := c.rest(), "-ERR Protocol error: unauthenticated multibulk length\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAllow(t *testing.T) {
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		c := dial(t, startProxy(t, redis.addr, append(flags, "-allow", "get,set,config|get,multi,exec", "-deny", "set")...).addr, nil)
		for _, row := range []struct{ in, want string }{
			{"GET none", "$-1\r\n"},
			{"SET a 1", "-ERR command 'set' is denied by the proxy\r\n"},
			{"DEL a", "-ERR command 'del' is denied by the proxy\r\n"},
			{"NOSUCH a", "-ERR a command of this name is denied by the proxy\r\n"},
			{"CONFIG GET port-none", "*0\r\n"},
			{"CONFIG SET a b", "-ERR command 'config|set' is denied by the proxy\r\n"},
			{"MULTI", "+OK\r\n"},
			{"DEL a", "-ERR command 'del' is denied by the proxy\r\n"},
			{"EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"},
			{"QUIT", "+OK\r\n"},
		} {
			c.send(row.in)
			if got := c.read(); got != row.want {
				t.Errorf("%s: got %q, want %q", row.in, got, row.want)
			}
		}
	})
}

// What -deny and -allow say holds also while the upstream has not told its commands.
func TestRulesWithoutTable(t *testing.T) {
	tests := []struct{ deny, allow, in, want string }{
		{"flushall,config|set", "", "FLUSHALL", "flushall"},
		{"flushall,config|set", "", "CONFIG SET a b", "config|set"},
		{"flushall,config|set", "", "CONFIG GET a", ""},
		{"flushall,config|set", "", "GET a", ""},
		{"", "", "PSYNC ? -1", "psync"},
		{"", "get,config|get", "GET a", ""},
		{"", "get,config|get", "CONFIG GET a", ""},
		{"", "get,config|get", "CONFIG SET a b", "config"},
		{"", "get,config|get", "DEL a", "of this name"},
		{"config", "get,config|get", "CONFIG GET a", "config"},
		{"config|get", "config", "CONFIG GET a", "config|get"},
		{"config|get", "config", "CONFIG SET a b", ""},
	}
	for _, tt := range tests {
		r, err := parseRules(tt.deny, tt.allow)
		if err != nil {
			t.Fatal(err)
		}
		c := commandOf(t, strings.Fields(tt.in)...)
		if got := r.refusal(newVocabulary(nil, r, nil).find(c.Name()), c); got != tt.want {
			t.Errorf("-deny %q -allow %q, %s: got %q, want %q", tt.deny, tt.allow, tt.in, got, tt.want)
		}
	}
}

// A part of a WAIT must not be sent: the node would take what comes next for the rest of it, and a value
// could hold a command that is refused.
func TestLargeWait(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		c := dial(t, startProxy(t, redis.addr, append(flags, "-deny", "FLUSHALL")...).addr, nil)
		c.call("SET a 1")
		const size = maxWhole + 100
		c.send("WAIT 0 "+strings.Repeat("x", size), "SET k "+strings.Repeat("x", maxWhole-100))
		value := strings.Repeat("x", 1000)
		missing := size - len(wireOf("SET", "k", strings.Repeat("x", maxWhole-100)))
		missing -= len(wireOf("SET", "k", value)) - len(value) - 2
		value = value[:missing] + "\r\n*1\r\n$8\r\nFLUSHALL\r\n" + value[missing+22:]
		c.WriteCommand("SET", "k", value)
		c.send("GET a")
		if got := c.read(); got[0] != '-' {
			t.Errorf("WAIT: got %q", got)
		}
		c.want("+OK\r\n", "+OK\r\n", "$1\r\n1\r\n")
	})
}

// A command of many arguments is judged by its name even if that comes later than their number, and the
// name, which may end at a NUL, even if it is too large to be held.
func TestNamesThatComeLate(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-deny", "DEL,CONFIG|SET")...)
		c, other := dial(t, p.addr, nil), dial(t, p.addr, nil)
		c.call("SET a 1")
		inPieces := func(name string) {
			wire := wireOf(strings.Fields(name + strings.Repeat(" a", maxWhole/8))...)
			n := strings.Index(wire, "\n") + 1
			io.WriteString(c.Conn, wire[:n])
			time.Sleep(50 * time.Millisecond) // the proxy has read that
			io.WriteString(c.Conn, wire[n:])
		}
		inPieces("DEL")
		c.want("-ERR command 'del' is denied by the proxy\r\n")
		inPieces("WATCH") // its link must not become another client's
		c.want("+OK\r\n")
		if got := c.call("GET a"); got != "1" {
			t.Errorf("GET: got %q, want 1", got)
		}
		c.call("SET a 2")
		other.send("MULTI", "PING", "EXEC")
		other.want("+OK\r\n", "+QUEUED\r\n", "*1\r\n+PONG\r\n")
		for i := range 60 { // the server takes about one in a few for the subcommand
			c.WriteCommand("CONFIG", fmt.Sprintf("SET\x00%d%s", i, strings.Repeat("x", maxWhole)), "maxmemory", "1gb")
			c.Flush()
			if got := c.read(); !strings.HasPrefix(got, "-ERR a command with so long a name is denied") {
				t.Fatalf("got %q", got)
			}
		}
	})
}

// What the proxy answers itself is refused too, while a client monitors a node of a cluster.
func TestDeniedWhileMonitoring(t *testing.T) {
	t.Parallel()
	n := startFakeNode(t)
	n.answer = func(c *redisproto.Command) string { return "+OK\r\n" }
	setCluster([]*fakeNode{n}, slotsReply(rangeOf(0, slotCount-1, n.addr)), n.addr)
	c := dial(t, startProxyWith(t, "-cluster", n.addr, "-deny", "CLIENT|KILL").addr, nil)
	c.send("MONITOR")
	c.want("+OK\r\n")
	c.send("CLIENT KILL ID 1")
	c.want("-ERR command 'client|kill' is denied by the proxy\r\n")
}
