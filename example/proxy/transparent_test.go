package main

import (
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A script is sent over one connection, as one pipeline and then command by command. "~want command"
// is no part of it: another client repeats that command until it has that reply.
var scripts = []struct {
	name     string
	commands []string
}{
	{"values", []string{"SET k v", "GET k", "GET none", "HSET h a 1 b 2", "HGETALL h", "ZADD z 1.5 a", "ZSCORE z a",
		"RPUSH l 1 2 3", "LRANGE l 0 -1", "LPUSH k x", "NOSUCH a b", "GET", "PING", "ECHO hi", "OBJECT ENCODING k"}},
	{"types", []string{"DEBUG PROTOCOL string", "DEBUG PROTOCOL integer", "DEBUG PROTOCOL double", "DEBUG PROTOCOL null",
		"DEBUG PROTOCOL array", "DEBUG PROTOCOL set", "DEBUG PROTOCOL map", "DEBUG PROTOCOL attrib", "DEBUG PROTOCOL push",
		"DEBUG PROTOCOL verbatim", "DEBUG PROTOCOL true", "DEBUG PROTOCOL false", "DEBUG PROTOCOL bignum"}},
	{"scripts", []string{"EVAL return{1,{2,{3}},'x'} 0", "EVAL return{ok='fine'} 0", "EVAL return{err='BAD'} 0",
		"EVAL return{double=1.5} 0", "EVAL return{map={a=1}} 0", "EVAL return{big_number='hello'} 0", "EVAL return(redis.call('nosuch')) 0", "EVALSHA 00 0"}},
	{"nested", []string{"EVAL local_t={}_for_i=1,500_do_t={t}_end_return_t 0", "PING"}},
	{"transaction", []string{"MULTI", "SET k 1", "INCR k", "LPUSH k x", "EXEC", "MULTI", "SET k 2", "DISCARD", "GET k", "EXEC"}},
	{"transaction with an error", []string{"MULTI", "SET k 1", "NOSUCH", "EXEC", "EXEC", "GET k"}},
	{"watch, unchanged", []string{"WATCH k", "MULTI", "SET k 1", "EXEC", "GET k"}},
	{"watch, changed", []string{"WATCH k", "SET here 1", "~1 GET here", "~OK SET k 2", "MULTI", "GET k", "EXEC", "UNWATCH"}},
	{"blocking, then given", []string{"BLPOP q 0", "PING", "~1 LPUSH q x"}},
	{"blocking, in vain", []string{"BLPOP q 0.01", "BRPOPLPUSH q r 0.01", "PING"}},
	{"blocking, there", []string{"RPUSH q a b", "BLPOP q 0", "BLMPOP 0 1 q LEFT", "XADD s 1-1 a b", "XREAD BLOCK 10 STREAMS s 0"}},
	{"subscribe", []string{"SUBSCRIBE c", "~1 PUBLISH c hi", "SUBSCRIBE c d", "PSUBSCRIBE p*", "~1 PUBLISH pp ho", "PING", "PING x",
		"GET k", "UNSUBSCRIBE c", "UNSUBSCRIBE none", "SUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "GET k"}},
	{"unsubscribe from all", []string{"SET k 1", "SUBSCRIBE c d", "UNSUBSCRIBE", "UNSUBSCRIBE", "LPUSH k x", "GET k"}},
	{"shards", []string{"SSUBSCRIBE s t", "~1 SPUBLISH s hi", "SUNSUBSCRIBE", "GET k"}},
	{"subscribe and reset", []string{"SUBSCRIBE c d", "~1 PUBLISH c hi", "RESET", "UNSUBSCRIBE", "GET k", "LRANGE none 0 -1"}},
	{"a reply that looks like a message", []string{"RPUSH message message c hi", "SUBSCRIBE c", "LRANGE message 0 -1",
		"UNSUBSCRIBE", "LRANGE message 0 -1", "EVAL return{'subscribe','c',7} 0", "UNSUBSCRIBE", "GET k"}},
	{"subscribe in a transaction", []string{"MULTI", "SUBSCRIBE c", "SET k 1", "SUBSCRIBE d e", "EXEC", "PING", "UNSUBSCRIBE", "GET k"}},
	{"publish to itself", []string{"HELLO 3", "SUBSCRIBE c", "PUBLISH c hi", "GET k", "HELLO 2", "PING", "~1 PUBLISH c ho"}},
	{"hello", []string{"HELLO 2", "HELLO 3", "HELLO 4", "HELLO", "HELLO 3 SETNAME me", "CLIENT GETNAME", "HELLO 2 AUTH no one", "HGETALL h"}},
	{"no replies", []string{"CLIENT REPLY OFF", "SET k 1", "INCR k", "NOSUCH", "CLIENT REPLY ON", "GET k"}},
	{"skipped replies", []string{"CLIENT REPLY SKIP", "SET k 1", "GET k", "CLIENT REPLY SKIP", "NOSUCH", "INCR k", "CLIENT REPLY ON"}},
	{"skipped replies in a row", []string{"CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "GET k", "SET k 1", "CLIENT REPLY SKIP", "CLIENT REPLY ON",
		"CLIENT REPLY SKIP", "RESET", "GET k"}},
	{"CLIENT REPLY with errors on a link of its own", []string{"SELECT", "CLIENT REPLY OFF", "CLIENT REPLY", "CLIENT REPLY ON", "CLIENT REPLY",
		"CLIENT REPLY SKIP", "CLIENT REPLY", "CLIENT REPLY OFF x", "GET k"}},
	{"no replies, reset", []string{"CLIENT REPLY OFF", "SET k 1", "RESET", "GET k"}},
	{"no replies in a transaction", []string{"MULTI", "SET k 1", "CLIENT REPLY OFF", "GET k", "EXEC", "GET k", "CLIENT REPLY ON", "GET k"}},
	{"CLIENT REPLY with errors", []string{"CLIENT REPLY MAYBE", "CLIENT REPLY", "CLIENT REPLY ON", "CLIENT NOSUCH", "GET k"}},
	// Monitors are not shown ACL, so it can tell that MONITOR has come.
	{"monitor", []string{"MONITOR", "PING", "ACL SETUSER m +@all", "~OK ACL DRYRUN m PING", "~OK SET k 1", "GET k", "ACL DELUSER m"}},
	{"monitor, reset", []string{"MONITOR", "PING", "RESET", "GET k"}},
	{"invalidation", []string{"CLIENT TRACKING on", "SET k 1", "GET k", "SET here 1", "~1 GET here", "~OK SET k 2",
		"~0 EXISTS later", "GET k"}},
	{"errors of a subscribed client", []string{"HELLO 2", "SUBSCRIBE c", "HELLO 3", "HELLO", "CLIENT GETNAME", "CLIENT SETNAME me", "SELECT 0",
		"AUTH default x", "PING", "UNSUBSCRIBE", "CLIENT GETNAME", "GET k"}},
	{"reset with an argument", []string{"MULTI", "RESET x", "EXEC", "CLIENT SETNAME me", "RESET x", "CLIENT GETNAME", "READONLY x"}},
	{"select", []string{"SELECT 1", "SET k other", "SELECT 0", "GET k", "SELECT 99"}},
	{"what comes after QUIT", []string{"GET k", "QUIT", "GET k", "GET k"}},
	{"killed", []string{"GET k", "CLIENT KILL TYPE normal SKIPME no"}},
	{"too long a name", []string{strings.Repeat("x", 200) + " a b", "GET k"}},
}

// unlike are the parts of a reply that are not the same twice.
var unlike = regexp.MustCompile(`(\r\nid\r\n:\d+|\d+\.\d+ \[\d 127\.0\.0\.1:\d+\])`)

// runScript gives all that a server says to a script.
func runScript(t *testing.T, redis *redisServer, addr, hello string, commands []string, atOnce bool) string {
	other := dial(t, redis.addr, nil)
	other.send("FLUSHALL")
	other.want("+OK\r\n")
	other.untilIdle() // those of the last script have gone
	c := dial(t, addr, nil)
	var pending []string
	for _, command := range append([]string{hello}, commands...) {
		if want, command, ok := strings.Cut(command, " "); ok && want[0] == '~' {
			c.send(pending...)
			pending = nil
			other.until(want[1:], command)
			continue
		}
		pending = append(pending, command)
		if !atOnce {
			c.send(pending...)
			pending = nil
		}
	}
	c.send(append(pending, "QUIT")...)
	got := c.rest()
	other.Close()
	c.Close()
	if strings.Contains(strings.Join(commands, " "), "KILL") { // the reply counts those killed, shared links too
		got = strings.TrimRight(got, ":0123456789\r\n")
	}
	return unlike.ReplaceAllString(got, "...")
}

// closes says that the server closes in the middle of a script.
var closes = regexp.MustCompile("QUIT|KILL")

// The proxy is transparent: what a client gets through it is what it gets without it, to the byte.
func TestTransparent(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	plain, timed := startProxy(t, redis.addr), startProxy(t, redis.addr, "-slowlog", "1h")
	shared := startProxy(t, redis.addr, "-shared", "1")
	for _, s := range scripts {
		for _, hello := range []string{"HELLO 2", "HELLO 3"} {
			for _, atOnce := range []bool{true, false} {
				if !atOnce && closes.MatchString(strings.Join(s.commands, " ")) {
					continue // no more can be sent then
				}
				name := fmt.Sprintf("%s, %s, at once %v", s.name, hello, atOnce)
				want := runScript(t, redis, redis.addr, hello, s.commands, atOnce)
				if !strings.Contains(want, "proto") { // of the answer to HELLO
					t.Errorf("%s: without the proxy, got %q", name, want)
				}
				for _, p := range []*testProxy{plain, timed, shared} {
					if p == shared && (s.name == "killed" || s.name == "publish to itself") {
						continue // the first is about a connection; in the second the other client overtakes
					}
					if got := runScript(t, redis, p.addr, hello, s.commands, atOnce); got != want {
						t.Errorf("%s:\n got %q\nwant %q", name, got, want)
					}
				}
			}
		}
	}
}

// Where commands and replies are matched, each call and each error is counted as often as the server
// itself says, and each call has its latency.
func TestCounts(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	// The server counts a command of a transaction when that is executed.
	skip := regexp.MustCompile("CLIENT REPLY|MONITOR|MULTI|" + closes.String())
	for _, s := range scripts {
		all := strings.Join(s.commands, " ")
		if skip.MatchString(all) {
			continue
		}
		for _, hello := range []string{"HELLO 2", "HELLO 3"} {
			p := startProxy(t, redis.addr, "-slowlog", "1h")
			other := dial(t, redis.addr, nil)
			other.call("CONFIG RESETSTAT")
			other.Close()
			runScript(t, redis, p.addr, hello, s.commands, true)
			p.stop()
			<-p.done
			other = dial(t, redis.addr, nil)
			want := commandStats(other.call("INFO commandstats"))
			other.Close()
			got := map[string][2]int64{}
			for _, c := range p.vocabulary.Load().all() {
				if n := c.calls.Load(); n > 0 {
					got[c.label()] = [2]int64{n, c.errors.Load()}
				}
				if got, want := c.timedCalls(), c.calls.Load(); got != want {
					t.Errorf("%s, %s: %s has %d latencies, want %d", s.name, hello, c.label(), got, want)
				}
			}
			for _, m := range regexp.MustCompile(`~\w* (\w+)`).FindAllStringSubmatch(all+" ~ FLUSHALL ~ INFO ~ CONFIG ~ PING ~ CLIENT ~ COMMAND", -1) {
				delete(want, strings.ToLower(m[1])) // not all through the proxy
				delete(got, strings.ToLower(m[1]))
			}
			delete(got, "other")
			if !maps.Equal(got, want) {
				t.Errorf("%s, %s: calls and errors:\n got %v\nwant %v", s.name, hello, got, want)
			}
		}
	}
}

func (c *stats) timedCalls() (n int64) {
	for i := range c.slots {
		n += c.slots[i].Load()
	}
	return n
}

// commandStats gives the calls and the errors by command, of what INFO says.
func commandStats(info string) map[string][2]int64 {
	stats := map[string][2]int64{}
	for _, m := range regexp.MustCompile(`cmdstat_([^:|]*).*:calls=(\d+),.*rejected_calls=(\d+),failed_calls=(\d+)`).FindAllStringSubmatch(info, -1) {
		calls, _ := strconv.ParseInt(m[2], 10, 64)
		rejected, _ := strconv.ParseInt(m[3], 10, 64)
		failed, _ := strconv.ParseInt(m[4], 10, 64)
		s := stats[m[1]]
		stats[m[1]] = [2]int64{s[0] + calls + rejected, s[1] + rejected + failed}
	}
	return stats
}
