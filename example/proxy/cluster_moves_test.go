package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// testHalfMovedSlot has a slot of which some keys have moved and others have not.
func testHalfMovedSlot(t *testing.T, c *redisCluster, w way) {
	key := keyOf(0)
	slot := keySlot([]byte(key))
	here, there := "{"+key+"}here", "{"+key+"}there"
	k := w.dial(t)
	k.send("FLUSHALL", "SET "+there+" 1")
	k.want("+OK\r\n", "+OK\r\n")
	from, to := c.fromTo(slot)
	c.beginMove(slot, from, to)
	c.moveKeys(slot, 10, from, to)
	other := w.dial(t)
	other.send("SET "+there+" 2", "GET "+there, "SET {"+key+"}new 1", "DEL {"+key+"}new") // by way of ASK
	other.want("+OK\r\n", "$1\r\n2\r\n", "+OK\r\n", ":1\r\n")
	from.want("OK", "CLUSTER SETSLOT "+fmt.Sprint(slot)+" STABLE") // so that a key can be made on the old node
	from.want("OK", "SET "+here+" 1")
	from.want("OK", fmt.Sprintf("CLUSTER SETSLOT %d MIGRATING %s", slot, to.id))

	// Both keys at once are to be had only after the move. The client waits, others go on.
	k.send("MGET "+here+" "+there, "PING")
	waitFor(t, "the node says TRYAGAIN", func() bool { return w.redirects.Load() > 0 })
	other.send("GET "+keyOf(2), "GET "+there)
	other.wantIn(w.hello, "$-1\r\n", "$1\r\n2\r\n")
	for c.moveKeys(slot, 10, from, to) {
	}
	c.endMove(slot, from, to)
	k.want("*2\r\n$1\r\n1\r\n$1\r\n2\r\n", "+PONG\r\n")
}

// testBlockedWhileSlotMoves has clients that wait for a key whose slot moves. Redis ends their
// waiting with MOVED; they go on to wait at the new node.
func testBlockedWhileSlotMoves(t *testing.T, c *redisCluster, w way) {
	key := keyOf(0)
	slot := keySlot([]byte(key))
	list, stream, other := w.dial(t), w.dial(t), w.dial(t)
	other.send("FLUSHALL")
	other.want("+OK\r\n")
	list.send("BLPOP {" + key + "}list 30")
	stream.send("XREAD BLOCK 30000 STREAMS {" + key + "}stream $")
	untilBlocked(t, c, 2)
	from, to := c.fromTo(slot)
	c.move(slot, from, to)
	waitFor(t, "they wait at the new node", func() bool { return strings.Contains(to.call("INFO clients"), "blocked_clients:2\r") })
	other.send("RPUSH {"+key+"}list element", "XADD {"+key+"}stream 1-1 f v")
	other.want(":1\r\n", "$3\r\n1-1\r\n")
	name := "{" + key + "}list"
	list.want(fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$7\r\nelement\r\n", len(name), name))
	if got := stream.read(); !strings.Contains(got, "1-1") {
		t.Errorf("XREAD: %q", got)
	}
}

// testTransactionsWhileSlotMoves runs transactions on a slot that moves back and forth. Each is
// executed as a whole or not at all.
func testTransactionsWhileSlotMoves(t *testing.T, c *redisCluster, p *testProxy) {
	key := keyOf(0)
	slot := keySlot([]byte(key))
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex
	executed, errs := 0, map[string]int{}
	for id := range 8 {
		k := dial(t, p.addr, nil)
		clients.Add(1)
		go func() {
			defer clients.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				done, text, err := transaction2(k, key, id%2 == 0)
				if err != nil {
					t.Errorf("client %d: %v", id, err)
					return
				}
				mu.Lock()
				executed += done
				errs[text]++
				mu.Unlock()
			}
		}()
	}
	for range 20 {
		from, to := c.fromTo(slot)
		c.beginMove(slot, from, to)
		time.Sleep(5 * time.Millisecond) // clients meet the slot as it is being moved
		for c.moveKeys(slot, 1, from, to) {
			time.Sleep(5 * time.Millisecond)
		}
		c.endMove(slot, from, to)
		time.Sleep(20 * time.Millisecond)
	}
	close(stop)
	clients.Wait()
	k := dial(t, p.addr, nil)
	want := fmt.Sprint(executed)
	if a, b := k.call("GET {"+key+"}a"), k.call("GET {"+key+"}b"); a != want || b != want {
		t.Errorf("%s transactions were executed; the counters are %s and %s", want, a, b)
	}
	if executed == 0 {
		t.Error("no transaction was executed")
	}
	t.Logf("%d executed; errors: %v", executed, errs)
}

// transaction2 increments two keys in one transaction, and returns 1 if that was executed, and else
// the text of the error.
func transaction2(k *conn, key string, watch bool) (done int, text string, err error) {
	k.SetDeadline(time.Now().Add(20 * time.Second))
	sent := 4
	if watch {
		k.WriteBulkStrings([]string{"WATCH", "{" + key + "}never"})
		sent++
	}
	k.WriteBulkStrings([]string{"MULTI"})
	k.WriteBulkStrings([]string{"INCR", "{" + key + "}a"})
	k.WriteBulkStrings([]string{"INCR", "{" + key + "}b"})
	k.WriteBulkStrings([]string{"EXEC"})
	if err := k.Flush(); err != nil {
		return 0, "", err
	}
	var replies []string
	for range sent {
		r, err := readRaw(k)
		if err != nil {
			return 0, "", err
		}
		if strings.HasPrefix(r, "-MOVED") || strings.HasPrefix(r, "-ASK") || strings.HasPrefix(r, "-TRYAGAIN") {
			return 0, "", fmt.Errorf("got %q", r)
		}
		if r[0] == '-' {
			text = r
		}
		replies = append(replies, r)
	}
	last := replies[len(replies)-1]
	switch {
	case strings.HasPrefix(last, "*2\r\n:") && text == "":
		return 1, "", nil
	case last[0] == '-' || last == "*-1\r\n":
		return 0, text, nil
	default:
		return 0, "", fmt.Errorf("the replies do not go together: %q", replies)
	}
}

// TestClusterSubscriptionsEnd takes the node of subscriptions away. Its clients have to be
// disconnected, so that they subscribe again.
func TestClusterSubscriptionsEnd(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	p := startProxyWith(t, "-cluster", c.seeds())
	logFailure(t, p)
	sub, pattern, shard, other := dial(t, p.addr, nil), dial(t, p.addr, nil), dial(t, p.addr, nil), dial(t, p.addr, nil)
	sub.send("SUBSCRIBE a")
	sub.read()
	pattern.send("PSUBSCRIBE ?")
	pattern.read()
	other.send("PUBLISH a message")
	other.want(":2\r\n")
	sub.read()
	pattern.read()
	var node, replica *clusterNode
	for i, n := range c.nodes[:mastersOfCluster] {
		if n.call("PUBSUB NUMPAT") == "1" {
			node, replica = n, c.nodes[mastersOfCluster+i]
			shard.send("SSUBSCRIBE " + keyOf(i))
			shard.read()
		}
	}
	node.kill()
	for name, k := range map[string]*conn{"SUBSCRIBE": sub, "PSUBSCRIBE": pattern, "SSUBSCRIBE": shard} {
		if b, err := io.ReadAll(k.Conn); err != nil || len(b) > 0 {
			t.Errorf("the client of %s gets %q, %v; want the end of the connection", name, b, err)
		}
	}
	sub, pattern = dial(t, p.addr, nil), dial(t, p.addr, nil)
	sub.send("SUBSCRIBE a")
	sub.want("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
	pattern.send("PSUBSCRIBE ?")
	pattern.want("*3\r\n$10\r\npsubscribe\r\n$1\r\n?\r\n:1\r\n")
	other.send("PUBLISH a message")
	other.want(":2\r\n")
	waitFor(t, "the replica takes over", func() bool { return strings.HasPrefix(replica.call("ROLE"), "*3\r\n$6\r\nmaster") })
	other.send("PUBLISH a message")
	other.want(":2\r\n")
}

// testShardSubscriptionMoves moves the slot of a shard channel. Its subscriber has to get what
// is published then, or to be disconnected.
func testShardSubscriptionMoves(t *testing.T, c *redisCluster, p *testProxy) {
	key := keyOf(0)
	slot := keySlot([]byte(key))
	sub, other := dial(t, p.addr, nil), dial(t, p.addr, nil)
	sub.send("SSUBSCRIBE " + key)
	sub.read()
	from, to := c.fromTo(slot)
	c.move(slot, from, to)
	waitFor(t, "the message reaches the subscriber, or it is gone", func() bool {
		other.send("SPUBLISH " + key + " message")
		if other.read() == ":1\r\n" {
			return true
		}
		sub.SetDeadline(time.Now().Add(20 * time.Millisecond))
		_, err := sub.ReadReply()
		return errors.Is(err, io.EOF)
	})
}

// TestClusterStopsMaster stops a master until its replica has taken over, and lets it go on: it is a
// master that does not know yet that it is none.
func TestClusterStopsMaster(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	p := startProxyWith(t, "-cluster", c.seeds(), "-answer", "500ms", "-connect", "500ms")
	logFailure(t, p)
	stop := make(chan struct{})
	workers, finish := runWorkers(t, p.addr, 10, true, keysOfSlots(0, 3), stop)
	waitFor(t, "the clients work", func() bool { return workers[0].rounds.Load() > 3 })
	stopped, replica := c.nodes[0], c.nodes[mastersOfCluster]
	stopped.pause()
	defer stopped.resume()
	waitFor(t, "the replica takes over", func() bool { return strings.HasPrefix(replica.call("ROLE"), "*3\r\n$6\r\nmaster") })
	done := workers[0].rounds.Load()
	waitFor(t, "the clients work again", func() bool { return workers[0].rounds.Load() > done+3 })
	stopped.resume()
	waitFor(t, "the old master is a replica", func() bool { return strings.HasPrefix(stopped.call("ROLE"), "*5\r\n$5\r\nslave") })
	done = workers[0].rounds.Load()
	waitFor(t, "the clients go on", func() bool { return workers[0].rounds.Load() > done+3 })
	close(stop)
	finish()
	checkBooks(t, p.addr, workers, true)
}
