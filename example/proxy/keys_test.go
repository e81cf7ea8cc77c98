package main

import (
	"strings"
	"testing"

	"github.com/secmask/go-redisproto"
)

// keysOf returns the keys of a command as the table finds them.
func keysOf(t testing.TB, info *commandInfo, c *redisproto.Command) (keys []string) {
	t.Helper()
	positions, arrived := info.keys(c, nil)
	if !arrived {
		t.Errorf("%q: the keys are said not to have arrived", c.Args())
	}
	for _, at := range positions {
		keys = append(keys, string(c.Get(at)))
	}
	return keys
}

// keyRows are commands and their keys, as Redis 7.0's COMMAND GETKEYS has them: "-" is an error of
// that, or no key. "”" is an empty argument.
var keyRows = []keyRow{
	// One key at a fixed place, or none.
	{"GET a", "a", ""},
	{"get a b", "-", ""},
	{"SET a b EX 10", "a", ""},
	{"HSET h f v", "h", ""},
	{"DBSIZE", "-", ""},
	{"PING a", "-", ""},
	{"CONFIG GET a", "-", ""},
	{"OBJECT ENCODING a", "a", ""},
	{"OBJECT HELP", "-", ""},
	{"MEMORY USAGE a SAMPLES 5", "a", ""},
	{"XINFO STREAM a FULL", "a", ""},
	{"XINFO GROUPS a", "a", ""},
	{"XGROUP CREATE k g $", "k", ""},
	{"DEBUG OBJECT a", "-", ""},
	{"PFDEBUG GETREG a", "a", ""},
	{"RESTORE a 0 x", "a", ""},

	// Ranges.
	{"MGET a b c", "a b c", ""},
	{"MSET a 1 b 2", "a b", ""},
	{"MSETNX a 1 b 2", "a b", ""},
	{"MSET a 1 b", "a b", ""},
	{"DEL a", "a", ""},
	{"EXISTS a a b", "a a b", ""},
	{"BLPOP a b c 0", "a b c", ""},
	{"BRPOPLPUSH a b 0", "a b", ""},
	{"LMOVE a b LEFT RIGHT", "a b", ""},
	{"RENAME a b", "a b", ""},
	{"COPY a b REPLACE", "a b", ""},
	{"BITOP AND d a b", "d a b", ""},
	{"BITOP NOT d a", "d a", ""},
	{"PFCOUNT a b", "a b", ""},
	{"PFMERGE d a b", "d a b", ""},
	{"PFMERGE d", "d", "-"},
	{"SINTERSTORE d a b", "d a b", ""},
	{"SDIFF a b", "a b", ""},
	{"SMOVE a b m", "a b", ""},
	{"ZRANGESTORE d a 0 -1", "d a", ""},
	{"BZPOPMIN a b 1", "a b", ""},
	{"WATCH a b", "a b", ""},
	{"GEOSEARCHSTORE d a FROMMEMBER m BYRADIUS 1 m", "d a", ""},
	{"LCS a b LEN", "a b", ""},

	// A number of keys.
	{"EVAL s 0", "-", ""},
	{"EVAL s 0 a b", "-", ""},
	{"EVAL s 2 a b c", "a b", ""},
	{"EVALSHA s 1 a", "a", ""},
	{"EVAL_RO s 1 a", "a", ""},
	{"EVALSHA_RO s 1 a b", "a", ""},
	{"EVAL s 3 a", "-", ""},
	{"EVAL s -1 a", "-", ""},
	{"EVAL s +1 a", "-", "a"},
	{"EVAL s 01 a", "-", "a"},
	{"EVAL s x a", "-", ""},
	{"EVAL s ” a", "-", ""},
	{"EVAL s 99999999999999999999 a", "-", ""},
	{"FCALL f 1 a b", "a", ""},
	{"FCALL_RO f 2 a b", "a b", ""},
	{"LMPOP 2 a b LEFT", "a b", ""},
	{"BLMPOP 0 2 a b LEFT COUNT 3", "a b", ""},
	{"ZMPOP 1 a MIN", "a", ""},
	{"BZMPOP 0 2 a b MAX", "a b", ""},
	{"SINTERCARD 2 a b LIMIT 1", "a b", ""},
	{"ZINTERCARD 2 a b LIMIT 1", "a b", ""},
	{"ZUNION 2 a b WITHSCORES", "a b", ""},
	{"ZINTER 2 a b", "a b", ""},
	{"ZDIFF 2 a b", "a b", ""},
	{"ZDIFFSTORE d 2 a b", "d a b", ""},
	{"ZINTERSTORE d 2 a b WEIGHTS 1 2", "d a b", ""},
	{"ZUNIONSTORE d 1 a", "d a", ""},
	{"ZUNIONSTORE d 0 a", "d", "-"},
	{"ZUNIONSTORE d 2 a", "d", "-"},
	{"ZUNIONSTORE d x a", "d", "-"},

	// Keywords.
	{"XREAD STREAMS a b 0 0", "a b", ""},
	{"XREAD BLOCK 0 COUNT 2 STREAMS x y 1 2", "x y", ""},
	{"xread count 2 streams x 1", "x", ""},
	{"XREAD STREAMS a b 0", "a", ""},
	{"XREAD COUNT 1 BLOCK 0", "-", ""},
	{"XREAD STREAMS STREAMS a 0 0", "STREAMS a", ""},
	{"XREADGROUP GROUP g c STREAMS a >", "a", ""},
	{"XREADGROUP GROUP STREAMS c STREAMS a >", "a", ""},
	{"XREADGROUP GROUP g STREAMS NOACK STREAMS a b > >", "a b", ""},
	{"GEORADIUS a 1 2 3 m", "a", ""},
	{"GEORADIUS a 1 2 3 m STORE b", "a b", ""},
	{"GEORADIUS a 1 2 3 m COUNT 1 storedist b", "a b", ""},
	{"GEORADIUS a 1 2 3 m STORE b STOREDIST c", "a b c", ""},
	{"GEORADIUS STORE 1 2 3 m STORE b", "STORE b", ""},
	{"GEORADIUS a 1 2 3 m STORE", "a", ""},
	{"GEORADIUSBYMEMBER a m 3 m STORE b", "a b", ""},
	{"GEORADIUS_RO a 1 2 3 m STORE b", "a", ""},

	// What the server's specifications do not describe.
	{"SORT a", "a", ""},
	{"SORT a BY b STORE c", "a c", ""},
	{"SORT a STORE b STORE c", "a c", ""},
	{"SORT a LIMIT 0 STORE GET STORE store d", "a d", ""},
	{"SORT a STORE", "a", ""},
	{"SORT a DESC ALPHA STORE b", "a b", ""},
	{"SORT_RO a BY b", "a", ""},
	{"MIGRATE h 1 k 0 100", "k", ""},
	{"MIGRATE h 1 k 0 100 COPY REPLACE", "k", ""},
	{"MIGRATE h 1 ” 0 100 KEYS a b", "a b", ""},
	{"MIGRATE h 1 ” 0 100 COPY AUTH KEYS KEYS a b", "a b", ""},
	{"MIGRATE h 1 ” 0 100 AUTH2 u KEYS KEYS a", "a", ""},
	{"MIGRATE h 1 k 0 100 KEYS a b", "-", ""},
}

// A keyRow has a third column if COMMAND GETKEYS says something else. Those commands are wrong and
// Redis refuses them, but for PFMERGE, which it would run on whatever node it gets to.
type keyRow struct{ command, keys, redis string }

func rowWords(command string) []string {
	words := strings.Fields(command)
	for i := range words {
		if words[i] == "”" {
			words[i] = ""
		}
	}
	return words
}

func TestKeys(t *testing.T) {
	table := recordedTable(t)
	for _, row := range keyRows {
		c := commandOf(t, rowWords(row.command)...)
		info := table.lookup(c)
		if info == nil {
			t.Errorf("%s is not in the table", row.command)
			continue
		}
		got := strings.Join(keysOf(t, info, c), " ")
		if want := strings.TrimPrefix(row.keys, "-"); got != want {
			t.Errorf("%s has the keys %q, want %q", row.command, got, want)
		}
		if info.onlyKey > 0 && got != "" && got != string(c.Get(info.onlyKey)) {
			t.Errorf("%s: the only key is %q, want %q", row.command, c.Get(info.onlyKey), got)
		}
	}
}

// TestShardChannels checks the commands whose channels have a slot; COMMAND GETKEYS does not list
// them.
func TestShardChannels(t *testing.T) {
	table := recordedTable(t)
	for _, row := range []struct{ command, keys string }{
		{"SPUBLISH a message", "a"},
		{"SSUBSCRIBE a b", "a b"},
		{"SUNSUBSCRIBE a b", "a b"},
		{"SUNSUBSCRIBE", ""},
		{"SUBSCRIBE a b", ""},
	} {
		c := commandOf(t, strings.Fields(row.command)...)
		info := table.lookup(c)
		if got := strings.Join(keysOf(t, info, c), " "); got != row.keys || info.channels != strings.HasPrefix(row.command, "S") && row.command != "SUBSCRIBE a b" {
			t.Errorf("%s: channels %v, %q; want %q", row.command, info.channels, got, row.keys)
		}
	}
}

// TestKeysOfRedis lets a real server judge the rows, and that its table is the recorded one.
func TestKeysOfRedis(t *testing.T) {
	redis := dial(t, startRedis(t).addr, nil)
	redis.send("COMMAND")
	r, err := redis.ReadReply()
	if err != nil {
		t.Fatal(err)
	}
	live, err := parseTable(r)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(redis.call("INFO server"), "redis_version:7.0.15\r\n") {
		sameTable(t, live, recordedTable(t))
	}
	for _, row := range keyRows {
		words := rowWords(row.command)
		redis.WriteBulkStrings(append([]string{"COMMAND", "GETKEYS"}, words...))
		redis.Flush()
		r, err := redis.ReadReply()
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for key := range r.All() {
			keys = append(keys, string(key.Bytes()))
		}
		want := row.redis
		if want == "" {
			want = row.keys
		}
		if got := strings.Join(keys, " "); got != strings.TrimPrefix(want, "-") {
			t.Errorf("%s has the keys %q, Redis says %q", row.command, want, got)
		}
	}
}

func TestEveryCommandIsExact(t *testing.T) {
	var check func(map[string]*commandInfo)
	check = func(commands map[string]*commandInfo) {
		for _, info := range commands {
			if !info.exact {
				t.Errorf("the keys of %s are not known", info.name)
			}
			check(info.subs)
		}
	}
	check(recordedTable(t).commands)
}

// TestBackwardKeyword has a specification that looks for its keyword from the end of the arguments, as
// no command of Redis 7.0 needs it whose keys are found by specifications.
func TestBackwardKeyword(t *testing.T) {
	info := &commandInfo{arity: -2, specs: []keySpec{{index: -2, keyword: "KEYS", last: -1, step: 1}}}
	for _, row := range []struct{ command, keys string }{
		{"X a KEYS b KEYS c", "c"},
		{"X a keys b c", "b c"},
		{"X KEYS b c KEYS", "b c KEYS"}, // the search begins before the last argument
		{"KEYS a b", ""},
		{"X", ""},
	} {
		c := commandOf(t, strings.Fields(row.command)...)
		if got := strings.Join(keysOf(t, info, c), " "); got != row.keys {
			t.Errorf("%s has the keys %q, want %q", row.command, got, row.keys)
		}
	}
}

// TestKeysNotArrived has commands that stream, of which not all arguments are there yet.
func TestKeysNotArrived(t *testing.T) {
	table := recordedTable(t)
	long := strings.Repeat("x", 5000)
	for _, row := range []struct {
		words   []string
		arrived bool
	}{
		{[]string{"SET", "key", long}, true},
		{[]string{"SET", long, "value"}, false},
		{[]string{"APPEND", "key", long}, true},
		{[]string{"MSET", "a", "1", "b", long}, true},
		{[]string{"MSET", "a", long, "b", "1"}, false},
		{[]string{"EVAL", long, "1", "key"}, false},
		{[]string{"EVAL", "script", "1", "key", long}, true},
		{[]string{"XREAD", "COUNT", long, "STREAMS", "a", "0"}, false},
		{[]string{"SORT", "a", "BY", long, "STORE", "b"}, false},
		{[]string{"PING", long}, true},
	} {
		p := redisproto.NewParser(strings.NewReader(wireOf(row.words...)[:1000]))
		p.SetLimits(redisproto.Limits{Stream: 100})
		c, err := p.ReadCommand()
		if err != nil || c.Whole() {
			t.Fatalf("%.50q is whole, or %v", row.words, err)
		}
		if positions, arrived := table.lookup(c).keys(c, nil); arrived != row.arrived {
			t.Errorf("%.50q: arrived is %v, at %v", row.words, arrived, positions)
		}
	}
}
