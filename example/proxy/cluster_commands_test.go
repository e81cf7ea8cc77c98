package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// A way is how a client uses a proxy in front of a cluster.
type way struct {
	*testProxy
	hello string // the version of the protocol
	told  bool   // each node has to remember something of the client's connection
}

// dial connects a client.
func (w way) dial(t testing.TB) *conn {
	t.Helper()
	k := dialHello(t, w.addr, w.hello)
	if w.told {
		k.send("CLIENT NO-EVICT ON")
		k.want("+OK\r\n")
	}
	return k
}

// inEachWay runs a test in front of one cluster: on shared links and on links of the client's own, in
// RESP2 and in RESP3.
func inEachWay(t *testing.T, shared, own *testProxy, test func(t *testing.T, w way)) {
	t.Helper()
	for _, row := range []struct {
		name string
		w    way
	}{
		{"shared/RESP2", way{shared, "2", false}},
		{"shared/RESP3", way{shared, "3", false}},
		{"own/RESP2", way{own, "2", false}},
		{"own/RESP3", way{own, "3", false}},
		{"told/RESP3", way{shared, "3", true}},
	} {
		t.Run(row.name, func(t *testing.T) { test(t, row.w) })
	}
}

// TestCluster runs the tests that leave a cluster as complete as it was. They share one.
func TestCluster(t *testing.T) {
	c := startCluster(t)
	redis := startRedis(t)
	p := startProxyWith(t, "-cluster", c.seeds(), "-output", "1048576")
	own := startProxyWith(t, "-cluster", c.seeds(), "-output", "1048576", "-shared", "0")
	logFailure(t, p)
	logFailure(t, own)
	onEmpty := func(t *testing.T, test func()) {
		k := dial(t, p.addr, nil)
		k.send("FLUSHALL")
		k.want("+OK\r\n")
		k.Conn.Close()
		test()
	}
	// This one compares what the process has in use, so that no other test may run beside it.
	t.Run("reshards", func(t *testing.T) { onEmpty(t, func() { testReshards(t, c, p) }) })
	t.Parallel()
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c *redisCluster, w way)
	}{
		{"families", func(t *testing.T, _ *redisCluster, w way) { testFamilies(t, redis, w) }},
		{"pipelines", testPipelines},
		{"transactions", testTransactions},
		{"blocking", testBlocking},
		{"wait", testWait},
		{"pubsub", testPubsub},
		{"scripts", testScripts},
		{"random key", testRandomKey},
		{"large values", testLargeValues},
		{"large commands", testLargeCommands},
		{"unblock and kill", testUnblockAndKill},
		{"half moved slot", testHalfMovedSlot},
		{"wrong order", func(t *testing.T, _ *redisCluster, w way) { testWrongOrder(t, redis, w) }},
		{"aborted transactions", testAbortedTransactions},
		{"large channel", testLargeChannel},
		{"blocked while a slot moves", testBlockedWhileSlotMoves},
		{"scripted redirects", testScriptedRedirects},
	} {
		t.Run(test.name, func(t *testing.T) {
			inEachWay(t, p, own, func(t *testing.T, w way) { onEmpty(t, func() { test.run(t, c, w) }) })
		})
	}
	for _, test := range []struct {
		name string
		run  func(t *testing.T, c *redisCluster, p *testProxy)
	}{
		{"redis-benchmark", testRedisBenchmark},
		{"transactions while a slot moves", testTransactionsWhileSlotMoves},
		{"a shard subscription moves", testShardSubscriptionMoves},
		{"scan", testScanWhileSlotsMove},
	} {
		t.Run(test.name, func(t *testing.T) { onEmpty(t, func() { test.run(t, c, p) }) })
	}
}

// logFailure shows what the proxy logged, if the test fails.
func logFailure(t *testing.T, p *testProxy) {
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.log.String())
		}
	})
}

// dialHello connects a client that speaks this version of the protocol.
func dialHello(t testing.TB, addr, hello string) *conn {
	t.Helper()
	k := dial(t, addr, nil)
	k.send("HELLO " + hello)
	if r := k.read(); r[0] == '-' {
		t.Fatalf("HELLO %s: %q", hello, r)
	}
	return k
}

// families are commands of every family whose replies must be those of one Redis, to the byte. After
// "~" the order of the elements is not defined. "_" is a space within an argument, "¶" the
// end of a line, and "”" an empty argument.
var families = [][]string{
	{ // strings
		"SET s value", "GET s", "SET s other NX", "SET s other GET", "SETNX n 1", "SETEX x 100 v", "PSETEX p 100000 v",
		"GETSET s third", "GETEX x PERSIST", "TTL x", "GETDEL n", "GET n", "APPEND s more", "STRLEN s", "SETRANGE s 2 XX",
		"GETRANGE s 0 -2", "SUBSTR s 0 1", "INCR i", "INCRBY i 10", "DECR i", "DECRBY i 3", "INCRBYFLOAT f 1.5", "INCR s",
		"SET {l}1 ohmytext", "SET {l}2 mynewtext", "LCS {l}1 {l}2", "LCS {l}1 {l}2 IDX", "SET s ”", "GET s", "SET s",
		"SETRANGE big 70000 x", "STRLEN big",
	},
	{ // several keys in several slots
		"MSET a 1 b 2 c 3 d 4", "MGET a b c d none a", "EXISTS a b c none a", "TOUCH a b none", "DEL a none b", "UNLINK c d c",
		"MGET a b c d", "DBSIZE", "MSET {t}1 x {t}2 y", "MGET {t}1 {t}2", "MSETNX {t}1 x {t}3 y", "DEL {t}1 {t}2", "MSET a",
		"MSET a 1 b", "MGET", "DEL", "EXISTS", "LPUSH a 1", "MGET a", "DEL a",
	},
	{ // bits
		"SETBIT b 7 1", "GETBIT b 7", "BITCOUNT b", "BITPOS b 1", "BITFIELD b SET u8 0 200 INCRBY u8 0 100 GET u4 0",
		"BITFIELD_RO b GET u8 0", "SET {b}1 abc", "SET {b}2 abd", "BITOP AND {b}d {b}1 {b}2", "BITOP NOT {b}d {b}1", "GET {b}d",
	},
	{ // lists
		"RPUSH l a b c d", "LPUSH l z", "LPUSHX none 1", "RPUSHX l e", "LRANGE l 0 -1", "LLEN l", "LINDEX l 1", "LINSERT l BEFORE b y",
		"LSET l 0 first", "LPOS l c", "LREM l 1 y", "LTRIM l 0 3", "LPOP l", "RPOP l 2", "RPUSH {l}1 a b c", "LMOVE {l}1 {l}2 LEFT RIGHT",
		"RPOPLPUSH {l}1 {l}2", "LMPOP 2 {l}1 {l}2 LEFT COUNT 2", "BLPOP {l}2 {l}3 1", "RPUSH {l}2 q", "BLMOVE {l}2 {l}3 LEFT LEFT 1",
		"BRPOPLPUSH {l}3 {l}4 1", "BLMPOP 1 2 {l}3 {l}4 LEFT", "BLPOP none 0.01", "BRPOP none 0.01",
	},
	{ // sets
		"SADD s 1 2 3", "SMEMBERS s", "SISMEMBER s 1", "SMISMEMBER s 1 9", "SCARD s", "SREM s 1", "SADD {s}1 1 2 3", "SADD {s}2 2 3 4",
		"SINTER {s}1 {s}2", "SUNION {s}1 {s}2", "SDIFF {s}1 {s}2", "SINTERSTORE {s}d {s}1 {s}2", "SUNIONSTORE {s}d {s}1 {s}2",
		"SDIFFSTORE {s}d {s}1 {s}2", "SINTERCARD 2 {s}1 {s}2 LIMIT 5", "SMOVE {s}1 {s}2 1", "SPOP {s}d 5", "SRANDMEMBER none", "SSCAN s 0",
		"SADD words a b c", "~SMEMBERS words",
	},
	{ // sorted sets
		"ZADD z 1 a 2 b 3.5 c", "ZRANGE z 0 -1 WITHSCORES", "ZSCORE z c", "ZMSCORE z a none", "ZINCRBY z 2 a", "ZRANK z b", "ZREVRANK z b",
		"ZCARD z", "ZCOUNT z 1 3", "ZLEXCOUNT z - +", "ZRANGEBYSCORE z 1 5 LIMIT 0 1", "ZREVRANGEBYSCORE z 5 1", "ZREVRANGE z 0 -1",
		"ZRANGEBYLEX z - +", "ZPOPMIN z", "ZPOPMAX z 1", "ZREM z a", "ZADD {z}1 1 a 2 b", "ZADD {z}2 3 b 4 c", "ZUNION 2 {z}1 {z}2 WITHSCORES",
		"ZINTER 2 {z}1 {z}2 WITHSCORES", "ZDIFF 2 {z}1 {z}2", "ZUNIONSTORE {z}d 2 {z}1 {z}2 WEIGHTS 1 2 AGGREGATE MAX", "ZINTERSTORE {z}d 2 {z}1 {z}2",
		"ZDIFFSTORE {z}d 2 {z}1 {z}2", "ZINTERCARD 2 {z}1 {z}2", "ZRANGESTORE {z}d {z}1 0 -1", "ZMPOP 2 {z}1 {z}2 MIN", "BZPOPMIN {z}1 {z}2 1",
		"BZPOPMAX {z}1 {z}2 1", "BZMPOP 1 2 {z}1 {z}2 MAX", "ZREMRANGEBYRANK {z}d 0 0", "ZREMRANGEBYSCORE {z}d 0 9", "ZSCAN {z}2 0", "ZADD z XX CH 1 q",
	},
	{ // hashes
		"HSET h f v g 1", "HGET h f", "HMGET h f none", "HGETALL h", "HKEYS h", "HVALS h", "HLEN h", "HEXISTS h f", "HSTRLEN h f", "HINCRBY h g 5",
		"HINCRBYFLOAT h g 0.5", "HSETNX h f w", "HMSET h i 9", "HDEL h f", "HSCAN h 0", "HRANDFIELD none", "HGETALL none", "HSET h f",
	},
	{ // streams
		"XADD x 1-1 f v", "XADD x 2-1 f w", "XLEN x", "XRANGE x - +", "XREVRANGE x + -", "XREAD COUNT 1 STREAMS x 0", "XREAD STREAMS {x}1 {x}2 0 0",
		"XGROUP CREATE x g 0", "XREADGROUP GROUP g c COUNT 1 STREAMS x >", "XPENDING x g", "XACK x g 1-1", "XCLAIM x g d 0 2-1 JUSTID",
		"XAUTOCLAIM x g d 0 0 JUSTID", "XINFO GROUPS x", "XGROUP DELCONSUMER x g c", "XSETID x 9-1", "XTRIM x MAXLEN 1", "XDEL x 2-1", "XINFO STREAM x",
		"XREAD BLOCK 10 STREAMS x $", "XGROUP DESTROY x g", "XADD x 1-1 f v",
	},
	{ // places, and counting
		"GEOADD g 13.361389 38.115556 P 15.087269 37.502669 C", "GEODIST g P C km", "GEOHASH g P", "GEOPOS g P none",
		"GEOSEARCH g FROMMEMBER P BYRADIUS 200 km ASC WITHDIST", "GEORADIUS g 15 37 200 km ASC", "GEORADIUSBYMEMBER g P 200 km STORE g",
		"GEOADD {g}1 13.361389 38.115556 P", "GEOSEARCHSTORE {g}2 {g}1 FROMMEMBER P BYRADIUS 1 km", "GEORADIUS {g}1 13 38 200 km STORE {g}3",
		"PFADD h a b c", "PFCOUNT h", "PFADD {h}1 a", "PFADD {h}2 b", "PFMERGE {h}d {h}1 {h}2", "PFCOUNT {h}1 {h}2",
	},
	{ // keys
		"SET k v", "TYPE k", "TYPE none", "EXPIRE k 100", "TTL k", "PERSIST k", "PEXPIRE k 100000", "EXPIREAT k 99999999999", "EXPIRETIME k",
		"PEXPIREAT k 99999999999000", "PEXPIRETIME k", "OBJECT ENCODING k", "OBJECT REFCOUNT k", "OBJECT HELP", "SET {k}1 v", "RENAME {k}1 {k}2",
		"RENAMENX {k}2 {k}3", "COPY {k}3 {k}4", "DUMP none", "RPUSH {k}l 3 1 2", "SORT {k}l", "SORT {k}l DESC LIMIT 0 2 STORE {k}s", "LRANGE {k}s 0 -1",
		"SORT_RO {k}l", "~KEYS *", "MEMORY USAGE none", "FLUSHALL", "KEYS *", "RANDOMKEY", "DBSIZE", "SCAN 0 COUNT x",
		"SCAN notacursor", "WAIT x 0", "DEBUG SLEEP 0",
	},
	{ // scripts and functions
		"EVAL return_{KEYS[1],ARGV[1],redis.call('incr',KEYS[1])} 1 n arg", "EVAL return_1 0", "EVAL_RO return_redis.call('get',KEYS[1]) 1 n",
		"EVALSHA ffffffffffffffffffffffffffffffffffffffff 0", "SCRIPT LOAD return_KEYS[1]", "EVALSHA 4a2267357833227dd98abdedb8cf24b15a986445 1 k1",
		"EVALSHA 4a2267357833227dd98abdedb8cf24b15a986445 1 k2", "EVALSHA_RO 4a2267357833227dd98abdedb8cf24b15a986445 1 k3",
		"SCRIPT EXISTS 4a2267357833227dd98abdedb8cf24b15a986445 ffffffffffffffffffffffffffffffffffffffff", "SCRIPT FLUSH",
		"SCRIPT EXISTS 4a2267357833227dd98abdedb8cf24b15a986445", "EVAL return_redis.error_reply('MY_error') 0", "EVAL return_#{1,2,3} 0",
		"EVAL return_{ok='fine'} 0", "EVAL return 2 k", "FUNCTION LOAD #!lua_name=lib¶redis.register_function('f',function(k,a)return_redis.call('incr',k[1])end)",
		"FCALL f 1 k1", "FCALL f 1 k2", "FCALL f 1 k1", "FCALL none 0", "FUNCTION LIST", "FUNCTION DELETE lib", "FUNCTION LIST", "FUNCTION FLUSH",
		"SCRIPT KILL", "FUNCTION KILL",
	},
	{ // the connection and the server
		"PING", "PING hello", "ECHO hello", "CLIENT SETNAME me", "CLIENT GETNAME", "SELECT 0", "SELECT 99", "COMMAND COUNT", "COMMAND GETKEYS GET a",
		"CONFIG GET maxmemory-samples", "CONFIG SET maxmemory-samples 6", "CONFIG GET maxmemory-samples", "CONFIG SET maxmemory-samples 5", "CONFIG SET nosuch 1",
		"SLOWLOG RESET", "SLOWLOG LEN", "LATENCY RESET", "ACL WHOAMI", "NOSUCH a b", "GET", "GET a b", "CONFIG NOSUCH", "CLUSTER INFO", "CLUSTER SLOTS",
		"READONLY", "ASKING", "MEMORY PURGE", "PUBSUB CHANNELS", "PUBSUB NUMSUB a", "PUBSUB NUMPAT", "PUBLISH channel message", "SPUBLISH channel message",
		"RESET",
	},
	{ // transactions
		"MULTI", "SET {t}1 1", "INCR {t}1", "GET {t}2", "EXEC", "MULTI", "SET k 1", "DISCARD", "GET k", "EXEC", "DISCARD", "MULTI", "MULTI", "EXEC",
		"MULTI", "NOSUCH", "SET k 1", "EXEC", "GET k", "WATCH {t}1 {t}2", "MULTI", "INCR {t}1", "EXEC", "WATCH {t}1", "SET {t}1 9", "MULTI", "INCR {t}1", "EXEC",
		"WATCH {t}1", "UNWATCH", "MULTI", "PING", "EXEC", "MULTI", "EXEC", "MULTI", "LPUSH {t}1 x", "INCR {t}1", "EXEC", "MULTI", "GET", "EXEC", "WATCH",
		"MULTI", "WATCH a", "SET k 1", "EXEC",
	},
}

// argsOf returns the arguments of a row of families.
func argsOf(row string) []string {
	words := rowWords(strings.TrimPrefix(row, "~"))
	for i := range words {
		words[i] = strings.NewReplacer("_", " ", "¶", "\n").Replace(words[i])
	}
	return words
}

// replyTo reads the reply to a row. The elements of an array are sorted after "~".
func (k *conn) replyTo(row string) string {
	k.t.Helper()
	r, err := k.ReadReply()
	if err != nil {
		k.t.Fatalf("%s: %v", row, err)
	}
	if !strings.HasPrefix(row, "~") {
		return string(r.Raw())
	}
	elements := []string{string(r.Kind())}
	for element := range r.All() {
		elements = append(elements, string(element.Raw()))
	}
	sort.Strings(elements)
	return strings.Join(elements, "")
}

// testFamilies runs commands of every family one after the other and as pipelines, and compares the
// replies to those of one Redis.
func testFamilies(t *testing.T, redis *redisServer, w way) {
	for _, rows := range families {
		for _, atOnce := range []bool{false, true} {
			dial(t, redis.addr, nil).call("FLUSHALL")
			dial(t, w.addr, nil).call("FLUSHALL")
			want, got := runRows(dialHello(t, redis.addr, w.hello), rows, atOnce), runRows(w.dial(t), rows, atOnce)
			for i, row := range rows {
				if got[i] != want[i] {
					t.Errorf("%s (in a pipeline: %v):\n%q, want\n%q", row, atOnce, got[i], want[i])
				}
			}
		}
	}
}

// runRows returns the replies to commands, which are sent at once or one after the other.
func runRows(k *conn, rows []string, atOnce bool) (replies []string) {
	k.t.Helper()
	for _, row := range rows {
		k.WriteBulkStrings(argsOf(row))
		if !atOnce {
			k.Flush()
			replies = append(replies, k.replyTo(row))
		}
	}
	k.Flush()
	for i := len(replies); i < len(rows); i++ {
		replies = append(replies, k.replyTo(rows[i]))
	}
	return replies
}

// testPipelines sends pipelines of thousands of commands over random keys. The replies have to come
// in the order of the commands.
func testPipelines(t *testing.T, _ *redisCluster, w way) {
	const clients, commands = 4, 2000
	done := make(chan error, clients)
	for client := range clients {
		k := w.dial(t)
		go func() { done <- randomPipeline(k, client, commands) }()
	}
	for range clients {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// randomPipeline sends commands on keys of its own, and checks the replies against what they have to
// be.
func randomPipeline(k *conn, client, commands int) error {
	random := rand.New(rand.NewSource(int64(client)))
	values := map[string]string{}
	var wants []string
	bulk := func(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }
	for n := range commands {
		key := fmt.Sprintf("%d:%d", client, random.Intn(1000))
		switch random.Intn(4) {
		case 0:
			values[key] = strings.Repeat(fmt.Sprint(n), 1+random.Intn(200))
			k.WriteBulkStrings([]string{"SET", key, values[key]})
			wants = append(wants, "+OK\r\n")
		case 1:
			k.WriteBulkStrings([]string{"ECHO", key})
			wants = append(wants, bulk(key))
		case 2:
			k.WriteBulkStrings([]string{"STRLEN", key})
			wants = append(wants, fmt.Sprintf(":%d\r\n", len(values[key])))
		default:
			other := fmt.Sprintf("%d:%d", client, random.Intn(1000))
			values[key], values[other] = fmt.Sprint(n), fmt.Sprint(n, "x")
			k.WriteBulkStrings([]string{"MSET", key, values[key], other, values[other]})
			k.WriteBulkStrings([]string{"MGET", other, key})
			wants = append(wants, "+OK\r\n", "*2\r\n"+bulk(values[other])+bulk(values[key]))
		}
	}
	sent := make(chan error, 1)
	go func() { sent <- k.Flush() }()
	for n, want := range wants {
		r, err := k.ReadReply()
		if err != nil {
			return fmt.Errorf("reply %d: %w", n, err)
		}
		if !bytes.Equal(r.Raw(), []byte(want)) {
			return fmt.Errorf("client %d, reply %d: %.100q, want %.100q", client, n, r.Raw(), want)
		}
	}
	return <-sent
}

// A link on which a transaction leaves something behind must not become another client's.
func TestTransactionLeavesSomethingBehind(t *testing.T) {
	t.Parallel()
	for _, commands := range [][]string{
		{"MULTI", "SET k v", "CLIENT NO-EVICT ON", "EXEC"},
		{"MULTI", "CLIENT NO-EVICT ON", "SET k v", "EXEC"},
	} {
		n := startFakeNode(t)
		n.answer = func(c *redisproto.Command) string { return "+OK\r\n" }
		setCluster([]*fakeNode{n}, slotsReply(rangeOf(0, slotCount-1, n.addr)), n.addr)
		p := startProxyWith(t, "-cluster", n.addr)
		k := dial(t, p.addr, nil)
		for _, command := range commands {
			k.call(command)
		}
		time.Sleep(20 * time.Millisecond) // the link could be given back
		k.call("GET k")
		for _, l := range p.cluster.nodeAt(n.addr).links.all() {
			if !l.shared {
				t.Errorf("%v: the link is in the pool", commands)
			}
		}
	}
}

// What a client wants its connections to remember is not kept as often as it says so.
func TestRememberIsBounded(t *testing.T) {
	var w said
	for range 10 {
		for _, command := range []string{"client tracking on optin", "CLIENT CACHING YES", "CLIENT NO-TOUCH ON", "CLIENT TRACKING OFF",
			"CLIENT NO-TOUCH OFF", "CLIENT TRACKING ON BCAST PREFIX a", "CLIENT NO-EVICT ON", "CLIENT TRACKING ON BCAST PREFIX b", "CLIENT TRACKING ON BCAST PREFIX a"} {
			w.remember(strings.Fields(command))
		}
	}
	var got []string
	for _, words := range w.setup {
		got = append(got, strings.Join(words, " "))
	}
	const want = "CLIENT TRACKING OFF, CLIENT NO-TOUCH OFF, CLIENT TRACKING ON BCAST PREFIX a, CLIENT NO-EVICT ON, CLIENT TRACKING ON BCAST PREFIX b"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s, want %s", strings.Join(got, ", "), want)
	}
}
