package main

import (
	"fmt"
	"strings"
	"testing"
)

// testUnblockAndKill checks that clients find each other by the numbers that CLIENT ID tells them.
func testUnblockAndKill(t *testing.T, c *redisCluster, w way) {
	a, b := w.dial(t), w.dial(t)
	id := b.call("CLIENT ID")
	a.send("CLIENT UNBLOCK "+id, "CLIENT UNBLOCK 0", "CLIENT UNBLOCK x", "CLIENT UNBLOCK "+id+" NOW", "CLIENT KILL ID 0")
	a.want(":0\r\n", ":0\r\n", "-ERR value is not an integer or out of range\r\n",
		"-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n", "-ERR client-id should be greater than 0\r\n")
	for reason, reply := range map[string]string{
		"":         "*-1\r\n",
		" timeout": "*-1\r\n",
		" ERROR":   "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
	} {
		b.send("BLPOP " + keyOf(1) + " 0")
		a.until("1", "CLIENT UNBLOCK "+id+reason)
		b.wantIn(w.hello, reply)
	}
	b.send("BLPOP " + keyOf(2) + " 0")
	untilBlocked(t, c, 1)
	a.until("1", "CLIENT KILL ID "+id)
	if got := b.rest(); got != "" {
		t.Errorf("the client that was killed got %q", got)
	}
	a.send("PING", "CLIENT KILL ID "+id, "CLIENT KILL ID "+a.call("CLIENT ID"))
	a.want("+PONG\r\n", ":0\r\n", ":1\r\n")
	if got := a.rest(); got != "" {
		t.Errorf("the client that killed itself got %q", got)
	}
}

// testLargeCommands sends commands that are larger than what is held of one that goes to one node, to
// several nodes, and in a transaction whose node is not known yet.
func testLargeCommands(t *testing.T, c *redisCluster, w way) {
	k := w.dial(t)
	large := strings.Repeat("*", 100_000)
	script := "return " + strings.Repeat("1", 100_000) + "-" + strings.Repeat("1", 100_000)
	k.WriteBulkStrings([]string{"SCRIPT", "LOAD", script})
	k.Flush()
	r, err := k.ReadReply()
	if err != nil || r.Err() != nil {
		t.Fatal(err, r.Err())
	}
	sha := string(r.Bytes())
	for i := range mastersOfCluster {
		k.send("EVALSHA " + sha + " 1 " + keyOf(i))
		k.read()
	}
	k.send("MSET a 1 b 2", "KEYS "+large, "SCAN 0 COUNT 1000 MATCH a"+large, "INFO "+large, "ECHO "+large)
	k.want("+OK\r\n")
	if r := k.read(); !strings.HasPrefix(r, "*2\r\n") {
		t.Errorf("KEYS: %q", r)
	}
	if r := k.read(); !strings.HasSuffix(r, "*1\r\n$1\r\na\r\n") && !strings.HasSuffix(r, "*0\r\n") {
		t.Errorf("SCAN: %q", r)
	}
	k.read()
	bulk := fmt.Sprintf("$%d\r\n%s\r\n", len(large), large)
	k.want(bulk)
	key := keyOf(2)
	k.send("MULTI", "ECHO "+large, "SET "+key+" "+large, "STRLEN "+key, "EXEC", "PING")
	k.want("+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*3\r\n"+bulk+"+OK\r\n:100000\r\n", "+PONG\r\n")

	// More than -output before the first key is refused.
	k.send("MULTI")
	k.want("+OK\r\n")
	for range 10 {
		k.send("ECHO " + large)
		k.want("+QUEUED\r\n")
	}
	k.send("ECHO "+large, "EXEC", "PING")
	k.want("-ERR too much is queued before the first key of a transaction, see -output\r\n",
		"-EXECABORT Transaction discarded because of previous errors.\r\n", "+PONG\r\n")
}
