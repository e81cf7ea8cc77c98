package main

import (
	"fmt"
	"net"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// testTransactions runs transactions in conflict with other clients, and with keys of several
// slots.
func testTransactions(t *testing.T, c *redisCluster, w way) {
	a, b := w.dial(t), w.dial(t)
	for i := range mastersOfCluster { // on each node
		key := keyOf(i)
		a.send("SET "+key+" old", "WATCH "+key, "GET "+key)
		a.want("+OK\r\n", "+OK\r\n", "$3\r\nold\r\n")
		b.send("SET " + key + " theirs")
		b.want("+OK\r\n")
		a.send("MULTI", "SET "+key+" mine", "EXEC", "GET "+key)
		a.wantIn(w.hello, "+OK\r\n", "+QUEUED\r\n", "*-1\r\n", "$6\r\ntheirs\r\n")

		// Without a conflict.
		a.send("WATCH "+key, "MULTI", "SET "+key+" mine", "APPEND "+key+" x", "EXEC")
		a.want("+OK\r\n", "+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n:5\r\n")

		// What WATCH remembered is over after EXEC, DISCARD and UNWATCH.
		a.send("WATCH "+key, "UNWATCH")
		a.want("+OK\r\n", "+OK\r\n")
		b.send("SET " + key + " theirs")
		b.want("+OK\r\n")
		a.send("MULTI", "GET "+key, "EXEC")
		a.want("+OK\r\n", "+QUEUED\r\n", "*1\r\n$6\r\ntheirs\r\n")
	}
	// So it is after an EXEC that is wrong, also while another link is kept for subscriptions.
	subscribed := w.dial(t)
	subscribed.send("HELLO 3", "PSUBSCRIBE none*")
	subscribed.read()
	subscribed.read()
	for i := range mastersOfCluster {
		key := keyOf(i)
		subscribed.send("WATCH "+key, "EXEC x")
		subscribed.want("+OK\r\n", "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n")
		b.send("SET " + key + " theirs")
		b.want("+OK\r\n")
		subscribed.send("MULTI", "GET "+key, "EXEC")
		subscribed.want("+OK\r\n", "+QUEUED\r\n", "*1\r\n$6\r\ntheirs\r\n")
	}
	// A transaction has one node.
	a.send("MULTI", "SET "+keyOf(0)+" 1", "SET "+keyOf(1)+" 1", "EXEC", "GET "+keyOf(0))
	a.want("+OK\r\n", "+QUEUED\r\n", crossSlotText, "-EXECABORT Transaction discarded because of previous errors.\r\n",
		"$6\r\ntheirs\r\n")
	// Two clients with open transactions do not meet.
	key := keyOf(2)
	a.send("MULTI", "SET "+key+" a")
	b.send("MULTI", "SET "+key+" b", "EXEC")
	b.want("+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n")
	a.want("+OK\r\n", "+QUEUED\r\n")
	a.send("EXEC", "GET "+key)
	a.want("*1\r\n+OK\r\n", "$1\r\na\r\n")
}

// wantIn is want, but makes the null of RESP2 in an expected reply what RESP3 has.
func (k *conn) wantIn(hello string, replies ...string) {
	k.t.Helper()
	for _, reply := range replies {
		if hello == "3" {
			reply = strings.ReplaceAll(strings.ReplaceAll(reply, "$-1\r\n", "_\r\n"), "*-1\r\n", "_\r\n")
		}
		k.want(reply)
	}
}

// testBlocking has clients that wait on every node, while others go on and wake them.
func testBlocking(t *testing.T, c *redisCluster, w way) {
	other := w.dial(t)
	other.send("FLUSHALL")
	other.want("+OK\r\n")
	for i := range mastersOfCluster {
		key := keyOf(i)
		list, stream := w.dial(t), w.dial(t)
		list.send("BLPOP l{"+key+"} none{"+key+"} 20", "PING")
		stream.send("XREAD BLOCK 20000 STREAMS x{" + key + "} $")
		untilBlocked(t, c, 2)
		other.send("RPUSH l{"+key+"} element", "XADD x{"+key+"} 1-1 f v")
		other.want(":1\r\n", "$3\r\n1-1\r\n")
		name := "l{" + key + "}"
		list.want(fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$7\r\nelement\r\n", len(name), name), "+PONG\r\n")
		if got := stream.read(); !strings.Contains(got, "1-1") {
			t.Errorf("XREAD: %q", got)
		}
		list.send("BLPOP l{"+key+"} 0.01", "GET "+key)
		list.wantIn(w.hello, "*-1\r\n", "$-1\r\n")
	}
	other.send("BLPOP "+keyOf(0)+" "+keyOf(1)+" 1", "PING")
	other.want(crossSlotText, "+PONG\r\n")
}

// untilBlocked returns when so many clients of the nodes wait.
func untilBlocked(t testing.TB, c *redisCluster, n int) {
	t.Helper()
	waitFor(t, "clients are blocked", func() bool {
		blocked := 0
		for _, node := range c.nodes[:mastersOfCluster] {
			_, text, _ := strings.Cut(node.call("INFO clients"), "blocked_clients:")
			text, _, _ = strings.Cut(text, "\r")
			one, _ := strconv.Atoi(text)
			blocked += one
		}
		return blocked == n
	})
}

// testWait waits for replicas after writes to several nodes.
func testWait(t *testing.T, c *redisCluster, w way) {
	k := w.dial(t)
	k.send("SET "+keyOf(0)+" 1", "SET "+keyOf(1)+" 1", "SET "+keyOf(2)+" 1", "WAIT 1 10000", "GET "+keyOf(2))
	k.want("+OK\r\n", "+OK\r\n", "+OK\r\n", ":1\r\n", "$1\r\n1\r\n")
	// There is one replica, so two are not to be had; a replica that is stopped counts no more.
	k.send("SET "+keyOf(0)+" 1", "WAIT 2 50")
	k.want("+OK\r\n", ":1\r\n")
	replica := c.nodes[mastersOfCluster+1]
	replica.pause()
	defer replica.resume()
	k.send("SET "+keyOf(0)+" 1", "SET "+keyOf(1)+" 1", "WAIT 1 100")
	k.want("+OK\r\n", "+OK\r\n", ":0\r\n")
	replica.resume()
	k.send("WAIT 1 10000")
	k.want(":1\r\n")
}

// testPubsub subscribes in each of the three ways, and publishes from other clients.
func testPubsub(t *testing.T, c *redisCluster, w way) {
	array := "*"
	if w.hello == "3" {
		array = ">"
	}
	channels, patterns, shards, publisher := w.dial(t), w.dial(t), w.dial(t), w.dial(t)
	channels.send("SUBSCRIBE a b")
	channels.want(array+"3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", array+"3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n")
	patterns.send("PSUBSCRIBE ?")
	patterns.want(array + "3\r\n$10\r\npsubscribe\r\n$1\r\n?\r\n:1\r\n")
	for i := range mastersOfCluster {
		key := keyOf(i)
		publisher.send("SPUBLISH " + key + " nobody")
		publisher.want(":0\r\n")
	}
	key := keyOf(1)
	bulk := fmt.Sprintf("$%d\r\n%s\r\n", len(key), key)
	shards.send("SSUBSCRIBE " + key)
	shards.want(array + "3\r\n$10\r\nssubscribe\r\n" + bulk + ":1\r\n")

	publisher.send("PUBLISH a one", "PUBLISH none one", "SPUBLISH "+key+" two", "PUBSUB NUMSUB a none", "PUBSUB NUMPAT", "PUBSUB CHANNELS b")
	publisher.want(":2\r\n", ":0\r\n", ":1\r\n", "*4\r\n$1\r\na\r\n:1\r\n$4\r\nnone\r\n:0\r\n", ":1\r\n", "*1\r\n$1\r\nb\r\n")
	channels.want(array + "3\r\n$7\r\nmessage\r\n$1\r\na\r\n$3\r\none\r\n")
	patterns.want(array + "4\r\n$8\r\npmessage\r\n$1\r\n?\r\n$1\r\na\r\n$3\r\none\r\n")
	shards.want(array + "3\r\n$8\r\nsmessage\r\n" + bulk + "$3\r\ntwo\r\n")

	channels.send("UNSUBSCRIBE a b", "SET k v", "GET k")
	channels.want(array+"3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n", array+"3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:0\r\n",
		"+OK\r\n", "$1\r\nv\r\n")
	patterns.send("PUNSUBSCRIBE", "PING")
	patterns.want(array+"3\r\n$12\r\npunsubscribe\r\n$1\r\n?\r\n:0\r\n", "+PONG\r\n")
	shards.send("SUNSUBSCRIBE", "GET k")
	shards.want(array+"3\r\n$12\r\nsunsubscribe\r\n"+bulk+":0\r\n", "$1\r\nv\r\n")
	publisher.send("PUBLISH a three", "SPUBLISH "+key+" three")
	publisher.want(":0\r\n", ":0\r\n")
}

// testScripts loads scripts and functions, which every master then has.
func testScripts(t *testing.T, c *redisCluster, w way) {
	k := w.dial(t)
	k.send("SCRIPT LOAD return_redis.call('incr',KEYS[1])")
	r, err := k.ReadReply()
	if err != nil {
		t.Fatal(err)
	}
	sha := string(r.Bytes())
	k.WriteBulkStrings([]string{"FUNCTION", "LOAD", "REPLACE",
		"#!lua name=lib\nredis.register_function('f',function(k,a) return redis.call('incr',k[1]) end)"})
	k.Flush()
	k.want("$3\r\nlib\r\n")
	for i := range mastersOfCluster {
		key := keyOf(i)
		k.send("DEL "+key, "EVALSHA "+sha+" 1 "+key, "FCALL f 1 "+key, "EVAL return_redis.call('incr',KEYS[1]) 1 "+key,
			"EVAL return_#KEYS 2 "+keyOf(0)+" "+keyOf(1))
		k.read()
		k.want(":1\r\n", ":2\r\n", ":3\r\n", crossSlotText)
	}
}

// testLargeValues passes values on that are larger than what a session may hold, beside a
// client that does not read its own.
func testLargeValues(t *testing.T, c *redisCluster, w way) {
	value := strings.Repeat("0123456789abcdef", 512<<10) // 8 MiB
	k, lazy := w.dial(t), w.dial(t)
	key := keyOf(1)
	k.WriteBulkStrings([]string{"SET", key, value})
	k.send("STRLEN " + key)
	k.want("+OK\r\n", fmt.Sprintf(":%d\r\n", len(value)))
	lazy.send("GET "+key, "GET "+key)
	k.send("GET "+key, "PING", "GET "+keyOf(0))
	if got := k.read(); got != fmt.Sprintf("$%d\r\n%s\r\n", len(value), value) {
		t.Errorf("a value of %d bytes comes as %d bytes", len(value), len(got))
	}
	k.wantIn(w.hello, "+PONG\r\n", "$-1\r\n")
	lazy.Close()
	k.send("DEL " + key)
	k.want(":1\r\n")
}

// testRandomKey checks that RANDOMKEY finds the only key, on whatever node that is.
func testRandomKey(t *testing.T, c *redisCluster, w way) {
	k := w.dial(t)
	for i := range mastersOfCluster {
		key := keyOf(i)
		k.send("FLUSHALL", "RANDOMKEY", "SET "+key+" v", "RANDOMKEY", "RANDOMKEY", "SCAN 0 COUNT 100000 TYPE string MATCH key*")
		found := fmt.Sprintf("$%d\r\n%s\r\n", len(key), key)
		k.wantIn(w.hello, "+OK\r\n", "$-1\r\n", "+OK\r\n", found, found)
		for cursor := ""; cursor != "0"; k.send("SCAN " + cursor + " COUNT 100000") {
			r, err := k.ReadReply()
			if err != nil {
				t.Fatal(err)
			}
			cursor = string(r.At(0).Bytes())
		}
		k.read()
	}
}

// testRedisBenchmark runs Redis's own benchmark, which ends at the first error.
func testRedisBenchmark(t *testing.T, _ *redisCluster, p *testProxy) {
	path, err := exec.LookPath("redis-benchmark")
	if err != nil {
		t.Skip("redis-benchmark is not installed: ", err)
	}
	_, port, _ := net.SplitHostPort(p.addr)
	for _, pipeline := range []string{"1", "16"} {
		out, err := exec.Command(path, "-p", port, "-n", "200", "-c", "20", "-r", "1000", "-P", pipeline, "-q").CombinedOutput()
		if err != nil || strings.Count(string(out), "requests per second") < 18 || strings.Contains(string(out), "rror") {
			t.Errorf("with a pipeline of %s: %v\n%s", pipeline, err, out)
		}
	}
}

// monitored is what MONITOR shows of a command. Other tests use the cluster, too.
var monitored = regexp.MustCompile(`\+\d+\.\d+ \[.*\r\n`)

// What clients say in an order that makes no sense is answered as one Redis does, and leaves the session
// fit for what comes after it.
func testWrongOrder(t *testing.T, redis *redisServer, w way) {
	scripts := [][]string{
		{"MULTI x", "SUBSCRIBE c", "PING", "UNSUBSCRIBE", "GET k"},
		{"CLIENT REPLY", "CLIENT REPLY OFF x", "BLPOP none 0.01", "MONITOR x", "GET k"},
		{"MULTI", "EXEC x", "GET k", "EXEC"},
		{"MULTI", "SUBSTR", "EXEC x", "GET k", "EXEC"},
		{"MULTI", "NOSUCH", "MULTI", "WATCH k", "DISCARD x", "GET k", "EXEC", "GET k"},
		{"MULTI", "OBJECT NOSUCH", "NOSUCH", "GET", "GET k", "EXEC", "GET k"},
		{"MULTI", "RESET x", "EXEC", "GET k"},
		{"WATCH k", "MULTI", "MULTI x", "GET k", "EXEC", "GET k"},
		{"MONITOR", "QUIT"},
		{"MONITOR", "RESET", "GET k"},
	}
	if w.hello == "2" {
		scripts = append(scripts, []string{"SUBSCRIBE c", "HELLO 3", "CLIENT REPLY OFF", "MONITOR", "MULTI", "SUBSCRIBE d", "WATCH a", "WATCH b",
			"WATCH c", "GET a", "GET b", "GET c", "SPUBLISH a x", "SPUBLISH b x", "SPUBLISH c x", "SELECT 0", "UNSUBSCRIBE d c", "GET k"})
	}
	dial(t, redis.addr, nil).call("FLUSHALL")
	run := func(k *conn, commands []string) string {
		k.send(append(commands, "QUIT")...)
		return monitored.ReplaceAllString(k.rest(), "")
	}
	for _, commands := range scripts {
		want := run(dialHello(t, redis.addr, w.hello), commands)
		if got := run(w.dial(t), commands); got != want {
			t.Errorf("%q:\n got %q\nwant %q", commands, got, want)
		}
	}
}

// A transaction fails if the proxy itself refused a part of it, whatever comes behind that.
func testAbortedTransactions(t *testing.T, _ *redisCluster, w way) {
	for _, refused := range []string{"AUTH x", "KEYS *"} {
		k := w.dial(t)
		k.send("MULTI", refused, "NOSUCH", "SET k 1", "EXEC", "EXISTS k")
		k.want("+OK\r\n", refusalText(notInTransaction))
		k.read()
		k.want("+QUEUED\r\n", execAbort, ":0\r\n")
	}
}

// A channel whose confirmation could not be told apart is refused.
func testLargeChannel(t *testing.T, _ *redisCluster, w way) {
	k := w.dial(t)
	k.send("SUBSCRIBE "+strings.Repeat("x", maxWhole), "SUBSCRIBE c", "UNSUBSCRIBE", "EXISTS k")
	k.want("-ERR the name of a channel is too large\r\n")
	k.read()
	k.read()
	k.want(":0\r\n")
}
