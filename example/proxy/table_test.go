package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/secmask/go-redisproto"
)

// recordedTable is the table of Redis 7.0.15, from its reply to COMMAND in RESP3. The notes of the
// key specifications, which are text for people, were removed from the recording.
func recordedTable(t testing.TB) *table {
	t.Helper()
	table, err := parseTable(parseReply(t, recordedCommands(t)))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func recordedCommands(t testing.TB) string {
	t.Helper()
	f, err := os.Open("testdata/command.resp3.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// parseReply returns a reply that stays valid.
func parseReply(t testing.TB, wire string) redisproto.Reply {
	t.Helper()
	r, err := redisproto.NewReplyParser(strings.NewReader(wire)).ReadReply()
	if err != nil {
		t.Fatalf("%.100q: %v", wire, err)
	}
	return r
}

// wireOf returns a command as clients send it.
func wireOf(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(word), word)
	}
	return b.String()
}

// commandOf returns a command that stays valid.
func commandOf(t testing.TB, words ...string) *redisproto.Command {
	t.Helper()
	c, err := redisproto.NewParser(strings.NewReader(wireOf(words...))).ReadCommand()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// inRESP2 returns a reply of RESP3 as a server says the same in RESP2.
func inRESP2(r redisproto.Reply) string {
	switch r.Kind() {
	case redisproto.Array, redisproto.Set, redisproto.Map:
		var b strings.Builder
		fmt.Fprintf(&b, "*%d\r\n", r.Len())
		for element := range r.All() {
			b.WriteString(inRESP2(element))
		}
		return b.String()
	default:
		return string(r.Raw())
	}
}

func TestParseTable(t *testing.T) {
	table := recordedTable(t)
	for _, row := range []struct {
		name string
		want commandInfo
	}{
		{"get", commandInfo{arity: 2, flags: flagReadonly, onlyKey: 1, exact: true}},
		{"SET", commandInfo{arity: -3, flags: flagWrite, onlyKey: 1, exact: true}},
		{"Mget", commandInfo{arity: -2, flags: flagReadonly, request: multiShard, exact: true}},
		{"mset", commandInfo{arity: -3, flags: flagWrite, request: multiShard, response: allSucceeded, exact: true}},
		{"del", commandInfo{arity: -2, flags: flagWrite, request: multiShard, response: aggSum, exact: true}},
		{"blpop", commandInfo{arity: -3, flags: flagWrite | flagBlocking | flagNoscript, exact: true}},
		{"xread", commandInfo{arity: -4, flags: flagReadonly | flagBlocking | flagMovableKeys, exact: true}},
		{"sort", commandInfo{arity: -2, flags: flagWrite | flagMovableKeys, rule: bySortRule, exact: true}},
		{"migrate", commandInfo{arity: -6, flags: flagWrite | flagMovableKeys, rule: byMigrateRule, exact: true}},
		{"subscribe", commandInfo{arity: -2, flags: flagPubsub | flagNoscript, exact: true}},
		{"spublish", commandInfo{arity: 3, flags: flagPubsub, channels: true, exact: true}},
		{"dbsize", commandInfo{arity: 1, flags: flagReadonly, request: allShards, response: aggSum, exact: true}},
		{"keys", commandInfo{arity: 2, flags: flagReadonly, request: allShards, exact: true}},
		{"scan", commandInfo{arity: -2, flags: flagReadonly, request: specialPolicy, exact: true}},
		{"script|exists", commandInfo{arity: -3, flags: flagNoscript, request: allShards, response: logicalAnd, exact: true}},
		{"Config|Set", commandInfo{arity: -4, flags: flagAdmin | flagNoscript, request: allNodes, response: allSucceeded, exact: true}},
		{"function|kill", commandInfo{arity: 2, flags: flagNoscript, request: allShards, response: oneSucceeded, exact: true}},
		{"memory|usage", commandInfo{arity: -3, flags: flagReadonly, onlyKey: 2, exact: true}},
		{"auth", commandInfo{arity: -2, flags: flagNoscript | flagNoAuth, exact: true}},
		{"watch", commandInfo{arity: -2, flags: flagNoscript, exact: true}},
		{"save", commandInfo{arity: 1, flags: flagAdmin | flagNoscript | flagNoMulti, exact: true}},
	} {
		info := table.named(row.name)
		if info == nil {
			t.Errorf("%s is not in the table", row.name)
			continue
		}
		got := *info
		got.specs, got.subs = nil, nil
		row.want.name = strings.ToUpper(row.name)
		if !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s is\n%+v, want\n%+v", row.name, got, row.want)
		}
	}
	for _, name := range []string{"", "nosuch", "config|nosuch", "get|set", "config|", "|set", strings.Repeat("x", 1000)} {
		if info := table.named(name); info != nil {
			t.Errorf("%.20q is taken for %s", name, info.name)
		}
	}
}

// TestTableInBothProtocols checks that RESP2 gives the same table as RESP3.
func TestTableInBothProtocols(t *testing.T) {
	want := recordedTable(t)
	got, err := parseTable(parseReply(t, inRESP2(parseReply(t, recordedCommands(t)))))
	if err != nil {
		t.Fatal(err)
	}
	sameTable(t, got, want)
}

func sameTable(t *testing.T, got, want *table) {
	t.Helper()
	var compare func(got, want map[string]*commandInfo)
	compare = func(got, want map[string]*commandInfo) {
		if len(got) != len(want) {
			t.Errorf("%d commands, want %d", len(got), len(want))
		}
		for name, w := range want {
			g := got[name]
			if g == nil {
				t.Errorf("%s is missing", w.name)
				continue
			}
			compare(g.subs, w.subs)
			a, b := *g, *w
			a.subs, b.subs = nil, nil
			if !reflect.DeepEqual(a, b) {
				t.Errorf("got %+v, want %+v", a, b)
			}
		}
	}
	compare(got.commands, want.commands)
}

func TestLookup(t *testing.T) {
	table := recordedTable(t)
	for _, row := range []struct{ command, want string }{
		{"get k", "GET"},
		{"GeT k", "GET"},
		{"config set a b", "CONFIG|SET"},
		{"CONFIG seT a b", "CONFIG|SET"},
		{"config", "CONFIG"},
		{"config nosuch", "CONFIG"},
		{"get set", "GET"},
		{"nosuch", ""},
		{"config|set a b", ""}, // Redis does not take it either
		{strings.Repeat("x", 65), ""},
		{"config " + strings.Repeat("x", 65), "CONFIG"},
		{"g\xc3\x84t", ""},
	} {
		got := ""
		if info := table.lookup(commandOf(t, strings.Fields(row.command)...)); info != nil {
			got = info.name
		}
		if got != row.want {
			t.Errorf("%.30q is %q, want %q", row.command, got, row.want)
		}
	}
	if table.lookup(commandOf(t, "get\x00x")) != nil {
		t.Error("a name with a NUL is taken for what stands before it")
	}
}

// TestParseTableErrors gives replies that are none of COMMAND.
func TestParseTableErrors(t *testing.T) {
	const get = "*6\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n"
	for _, row := range []struct{ name, wire string }{
		{"an error", "-NOAUTH Authentication required.\r\n"},
		{"a null", "*-1\r\n"},
		{"no command", "*0\r\n"},
		{"a string", "+OK\r\n"},
		{"an entry that is no array", "*1\r\n$3\r\nget\r\n"},
		{"an entry that is too short", "*1\r\n*5\r\n$3\r\nget\r\n:2\r\n*0\r\n:1\r\n:1\r\n"},
		{"no name", "*1\r\n" + strings.Replace(get, "$3\r\nget", "$0\r\n", 1)},
		{"an arity that is no number", "*1\r\n" + strings.Replace(get, ":2", "+two", 1)},
		{"an arity out of range", "*1\r\n" + strings.Replace(get, ":2", ":4294967298", 1)},
		{"a step that is no number", "*1\r\n" + strings.TrimSuffix(get, ":1\r\n") + "+x\r\n"},
		{"a key specification without a step", "*1\r\n*9" + strings.TrimPrefix(get, "*6") + "*0\r\n*0\r\n" +
			"*1\r\n*2\r\n$5\r\nflags\r\n*0\r\n"},
	} {
		if table, err := parseTable(parseReply(t, row.wire)); err == nil {
			t.Errorf("%s: no error, and %d commands", row.name, len(table.commands))
		}
	}
}

// TestOldTable reads a reply of servers before Redis 7.0, which has no key specifications.
func TestOldTable(t *testing.T) {
	table, err := parseTable(parseReply(t, "*4\r\n"+
		"*7\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*0\r\n"+
		"*6\r\n$4\r\nmset\r\n:-3\r\n*1\r\n+write\r\n:1\r\n:-1\r\n:2\r\n"+
		"*6\r\n$4\r\nping\r\n:-1\r\n*0\r\n:0\r\n:0\r\n:0\r\n"+
		"*6\r\n$4\r\neval\r\n:-3\r\n*1\r\n+movablekeys\r\n:0\r\n:0\r\n:0\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		command, keys string
		exact         bool
	}{
		{"get a", "a", true},
		{"mset a 1 b 2", "a b", true},
		{"ping a", "", true},
		{"eval s 1 a", "", false},
	} {
		c := commandOf(t, strings.Fields(row.command)...)
		info := table.lookup(c)
		if got := strings.Join(keysOf(t, info, c), " "); got != row.keys || info.exact != row.exact {
			t.Errorf("%s: keys %q, exact %v; want %q, %v", row.command, got, info.exact, row.keys, row.exact)
		}
	}
}

// TestLookupAllocs checks that finding a command and its key makes no garbage.
func TestLookupAllocs(t *testing.T) {
	table := recordedTable(t)
	var scratch [8]int
	for _, words := range []string{"get key", "SET key value", "config set a b", "mset a b c d", "eval s 2 a b",
		"xread count 5 streams a b 0 0", "sort a by b store c", "migrate h 1 k 0 100"} {
		c := commandOf(t, strings.Fields(words)...)
		n := testing.AllocsPerRun(100, func() {
			info := table.lookup(c)
			if positions, _ := info.keys(c, scratch[:]); len(positions) > 0 {
				slotOf(c, positions)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", words, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	table := recordedTable(b)
	var scratch [8]int
	for _, words := range []string{"GET key:000000000042", "set key:000000000042 value", "eval s 2 a b"} {
		name, _, _ := strings.Cut(words, " ")
		b.Run("command="+name, func(b *testing.B) {
			c := commandOf(b, strings.Fields(words)...)
			b.ReportAllocs()
			for range b.N {
				info := table.lookup(c)
				if info.onlyKey > 0 {
					keySlot(c.Get(info.onlyKey))
				} else {
					positions, _ := info.keys(c, scratch[:])
					slotOf(c, positions)
				}
			}
		})
	}
}
