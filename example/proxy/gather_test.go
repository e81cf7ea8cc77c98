package main

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	table := recordedTable(t)
	for _, row := range []struct {
		command string
		parts   []string // the parts, and after a colon the places of their keys
	}{
		{"MGET foo bar {foo}2", []string{"MGET foo {foo}2: 0 2", "MGET bar: 1"}},
		{"mget bar bar", []string{"mget bar bar: 0 1"}},
		{"MSET foo 1 bar 2 foo 3", []string{"MSET foo 1 foo 3: 0 2", "MSET bar 2: 1"}},
		{"DEL foo bar", []string{"DEL foo: 0", "DEL bar: 1"}},
		{"MSET foo 1 bar", nil}, // the server says what is wrong
	} {
		c := commandOf(t, strings.Fields(row.command)...)
		info := table.lookup(c)
		positions, _ := info.keys(c, nil)
		if !info.splits() {
			t.Errorf("%s is said not to split", row.command)
			continue
		}
		var got []string
		for _, p := range info.split(c, positions) {
			words := []string{}
			part := commandOf(t, p.words(t)...)
			for _, arg := range part.Args() {
				words = append(words, string(arg))
			}
			if slot := keySlot(part.Get(1)); p.slot != slot || p.node != nil {
				t.Errorf("%s: the slot of %s is %d, want %d", row.command, words, p.slot, slot)
			}
			got = append(got, strings.Join(words, " ")+strings.Trim(fmt.Sprintf(": %v", p.places), "]"))
		}
		for i := range got {
			got[i] = strings.Replace(got[i], "[", "", 1)
		}
		if fmt.Sprint(got) != fmt.Sprint(row.parts) {
			t.Errorf("%s becomes %q, want %q", row.command, got, row.parts)
		}
	}
}

// words returns the arguments of the command of a part.
func (p part) words(t *testing.T) (words []string) {
	t.Helper()
	r := parseReply(t, string(p.raw)) // a command has the form of a reply
	for word := range r.All() {
		words = append(words, string(word.Bytes()))
	}
	return words
}

// TestWhatSplits lists all commands of Redis 7.0 that are split.
func TestWhatSplits(t *testing.T) {
	want := map[string]bool{"MGET": true, "MSET": true, "DEL": true, "UNLINK": true, "EXISTS": true, "TOUCH": true}
	for name, info := range recordedTable(t).commands {
		if info.splits() != want[name] {
			t.Errorf("%s splits: %v", name, info.splits())
		}
	}
}

func TestGather(t *testing.T) {
	table := recordedTable(t)
	for _, row := range []struct {
		name, command string
		replies       []string
		want          string
	}{
		{"values in order", "MGET foo bar {foo}2 none", []string{"*2\r\n$1\r\n1\r\n$-1\r\n", "*1\r\n$3\r\na\r\n\r\n", "*1\r\n_\r\n"},
			"*4\r\n$1\r\n1\r\n$3\r\na\r\n\r\n$-1\r\n_\r\n"},
		{"sums", "DEL foo bar none", []string{":1\r\n", ":0\r\n", ":2\r\n"}, ":3\r\n"},
		{"all succeeded", "MSET foo 1 bar 2", []string{"+OK\r\n", "+OK\r\n"}, "+OK\r\n"},
		{"an error wins", "MSET foo 1 bar 2", []string{"+OK\r\n", "-OOM no\r\n"}, "-OOM no\r\n"},
		{"the first error wins", "MGET foo bar none", []string{"*1\r\n$-1\r\n", "-ERR 1\r\n", "-ERR 2\r\n"}, "-ERR 1\r\n"},
		{"a bulk error wins", "DEL foo bar", []string{"!5\r\nERR 1\r\n", ":1\r\n"}, "!5\r\nERR 1\r\n"},
		{"too few values", "MGET foo bar {foo}2", []string{"*1\r\n$1\r\n1\r\n", "*1\r\n$-1\r\n"}, errUnexpected},
		{"a value that is no array", "MGET foo bar", []string{"+OK\r\n", "*1\r\n$-1\r\n"}, errUnexpected},
		{"a sum of what is no integer", "DEL foo bar", []string{"+OK\r\n", ":1\r\n"}, errUnexpected},

		{"keys", "KEYS *", []string{"*1\r\n$1\r\na\r\n", "*0\r\n", "*2\r\n$1\r\nb\r\n$1\r\nc\r\n"},
			"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"},
		{"no keys", "KEYS *", []string{"*0\r\n", "*0\r\n"}, "*0\r\n"},
		{"sets and maps", "KEYS *", []string{"%1\r\n+a\r\n+b\r\n", "%1\r\n+c\r\n+d\r\n"}, "%2\r\n+a\r\n+b\r\n+c\r\n+d\r\n"},
		{"different kinds", "KEYS *", []string{"*1\r\n+a\r\n", "~1\r\n+b\r\n"}, errUnexpected},
		{"no arrays", "KEYS *", []string{"+a\r\n", "+b\r\n"}, errUnexpected},
		{"size", "DBSIZE", []string{":7\r\n", ":0\r\n", ":5\r\n"}, ":12\r\n"},
		{"flush", "FLUSHALL", []string{"+OK\r\n", "+OK\r\n"}, "+OK\r\n"},
		{"scripts", "SCRIPT EXISTS a b c", []string{"*3\r\n:1\r\n:1\r\n:0\r\n", "*3\r\n:1\r\n:0\r\n:0\r\n"}, "*3\r\n:1\r\n:0\r\n:0\r\n"},
		{"one script is less", "SCRIPT EXISTS a b", []string{"*2\r\n:1\r\n:1\r\n", "*1\r\n:1\r\n"}, errUnexpected},
		{"the smallest", "WAIT 1 0", []string{":2\r\n", ":1\r\n", ":3\r\n"}, ":1\r\n"},
		{"one killed", "FUNCTION KILL", []string{"-NOTBUSY no\r\n", "+OK\r\n", "-NOTBUSY no\r\n"}, "+OK\r\n"},
		{"none killed", "FUNCTION KILL", []string{"-NOTBUSY 1\r\n", "-NOTBUSY 2\r\n"}, "-NOTBUSY 1\r\n"},
		{"no general rule", "INFO", []string{"$1\r\na\r\n", "$1\r\nb\r\n"}, "$1\r\na\r\n"},
	} {
		c := commandOf(t, strings.Fields(row.command)...)
		info := table.lookup(c)
		parts := make([]part, len(row.replies))
		if positions, _ := info.keys(c, nil); len(positions) > 0 {
			parts = info.split(c, positions)
		}
		if got := gatherIn(t, gather(info, parts), row.replies); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
	for _, row := range []struct {
		policy responsePolicy
		want   string
	}{
		{aggMax, ":7\r\n"}, {aggMin, ":0\r\n"}, {aggSum, ":9\r\n"}, {logicalAnd, ":0\r\n"}, {logicalOr, ":1\r\n"},
	} {
		g := gather(&commandInfo{response: row.policy}, make([]part, 3))
		if got := gatherIn(t, g, []string{":2\r\n", ":7\r\n", ":0\r\n"}); got != row.want {
			t.Errorf("policy %d: %q, want %q", row.policy, got, row.want)
		}
		one := gather(&commandInfo{response: logicalAnd}, make([]part, 2))
		if got := gatherIn(t, one, []string{"*2\r\n#t\r\n#f\r\n", "*2\r\n#t\r\n#t\r\n"}); got != "*2\r\n#t\r\n#f\r\n" {
			t.Errorf("booleans: %q", got)
		}
	}
}

// gatherIn gives replies in random order, and checks that none of their bytes are kept.
func gatherIn(t *testing.T, g *gathering, replies []string) string {
	t.Helper()
	for _, n := range rand.Perm(len(replies)) {
		raw := []byte(replies[n])
		g.add(n, raw)
		clear(raw)
	}
	if more := g.next(); more != nil {
		t.Errorf("another round is due: %v", more)
	}
	reply := string(g.append([]byte("before")))
	return strings.TrimPrefix(reply, "before")
}

// TestSplitAndGather splits random commands, answers each part as a server would, and checks that
// the reply is that of one server.
func TestSplitAndGather(t *testing.T) {
	table := recordedTable(t)
	random := rand.New(rand.NewSource(1))
	for range 200 {
		words, want := []string{"MGET"}, strings.Builder{}
		n := 1 + random.Intn(50)
		fmt.Fprintf(&want, "*%d\r\n", n)
		for range n {
			key := fmt.Sprint("key", random.Intn(60))
			words = append(words, key)
			fmt.Fprintf(&want, "$%d\r\n%s\r\n", len(key), key)
		}
		c := commandOf(t, words...)
		info := table.lookup(c)
		positions, _ := info.keys(c, nil)
		parts := info.split(c, positions)
		var replies []string
		for _, p := range parts { // each key's value is its name
			for _, key := range p.words(t)[1:] {
				if slot := keySlot([]byte(key)); slot != p.slot {
					t.Fatalf("%q: the part of slot %d has %s of slot %d", words, p.slot, key, slot)
				}
			}
			replies = append(replies, wireOf(p.words(t)[1:]...))
		}
		if got := gatherIn(t, gather(info, parts), replies); got != want.String() {
			t.Fatalf("%q: %q, want %q", words, got, want.String())
		}
	}
}

func TestRandomKey(t *testing.T) {
	topo := newFakeCluster(t, 3).current()
	const null, a, b, failure = "$-1\r\n", "$1\r\na\r\n", "$1\r\nb\r\n", "-ERR no\r\n"
	for _, row := range []struct {
		replies []string
		want    []string // one of these
	}{
		{[]string{null, null, null}, []string{null}},
		{[]string{"_\r\n", "_\r\n", "_\r\n"}, []string{"_\r\n"}},
		{[]string{null, a, null}, []string{a}},
		{[]string{a, null, failure}, []string{a}},
		{[]string{failure, null, null}, []string{failure}},
		{[]string{null, null, failure}, []string{failure}},
		{[]string{a, null, b}, []string{a, b}},
	} {
		given := map[string]bool{}
		for range 200 {
			r, parts := newRandomKey(topo)
			if len(parts) != len(row.replies) || string(parts[0].raw) != wireOf("RANDOMKEY") {
				t.Fatalf("the parts are %v", parts)
			}
			for n, reply := range row.replies {
				raw := []byte(reply)
				r.add(n, raw)
				clear(raw)
			}
			given[string(r.append(nil))] = true
		}
		for _, want := range row.want {
			if !given[want] || len(given) != len(row.want) {
				t.Errorf("%q gives %v, want each of %q", row.replies, given, row.want)
			}
		}
	}
}

// The sum of booleans is an integer, and one among integers is no reason to panic.
func TestGatherBooleans(t *testing.T) {
	for _, row := range []struct {
		policy responsePolicy
		reply  string // of each of two nodes
		want   string
	}{
		{aggSum, "#t\r\n", ":2\r\n"},
		{aggSum, "#f\r\n", "#f\r\n"},
		{aggMax, "*2\r\n#t\r\n:-5\r\n", "*2\r\n#t\r\n:-5\r\n"},
	} {
		g := gather(&commandInfo{response: row.policy}, make([]part, 2))
		g.add(0, []byte(row.reply))
		g.add(1, []byte(row.reply))
		if got := string(g.append(nil)); got != row.want {
			t.Errorf("%q: got %q, want %q", row.reply, got, row.want)
		}
	}
}
