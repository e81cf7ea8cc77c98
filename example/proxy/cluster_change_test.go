package main

import (
	"fmt"
	"math/rand"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// checkLinks checks that after the test's clients are gone the proxy has no session, and no more links
// than idle ones and shared ones.
func checkLinks(t *testing.T, p *testProxy) {
	t.Helper()
	waitFor(t, "the clients are gone", func() bool { return p.clients.Load() == 0 })
	waitFor(t, "the links of their own are closed or idle", func() bool {
		idle := 0
		for _, n := range p.nodes() {
			n.links.mu.Lock()
			idle += len(n.links.idle)
			n.links.mu.Unlock()
		}
		return p.ownLinks.Load() == int64(idle)
	})
}

// A usage is what the process has in use. Other tests must not run beside one that compares it.
type usage struct{ goroutines, descriptors, heap int }

func usageNow() usage {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	fds, _ := os.ReadDir("/proc/self/fd") // nothing where there is no such directory
	return usage{runtime.NumGoroutine(), len(fds), int(m.HeapAlloc)}
}

// testReshards moves slots back and forth under 50 clients.
func testReshards(t *testing.T, c *redisCluster, p *testProxy) {
	waitFor(t, "the clients of other tests are gone", func() bool { return p.clients.Load() == 0 })
	before := usageNow()
	redirects := p.redirects.Load()
	keys := keysOfSlots(0, 6)
	stop := make(chan struct{})
	workers, finish := runWorkers(t, p.addr, 50, false, keys, stop)
	for n := range 4 * len(keys) {
		slot := keySlot([]byte(keys[n%len(keys)]))
		from, to := c.fromTo(slot)
		c.beginMove(slot, from, to)
		for c.moveKeys(slot, 5, from, to) {
			time.Sleep(time.Millisecond) // clients meet the slot while it is on both nodes
		}
		c.endMove(slot, from, to)
	}
	close(stop)
	finish()
	checkBooks(t, p.addr, workers, false)
	for _, w := range workers {
		if len(w.refused) > 0 || len(w.maybe) > 0 {
			t.Errorf("client %d got errors: %v, and %v", w.id, w.refused, w.maybe)
		}
	}
	if p.redirects.Load() == redirects {
		t.Error("no command was redirected, so the test shows nothing")
	}
	checkLinks(t, p)
	waitFor(t, "the proxy uses no more than before", func() bool {
		now := usageNow()
		return now.goroutines <= before.goroutines+10 && now.descriptors <= before.descriptors+10 && now.heap < before.heap+8<<20
	})
}

// TestClusterLosesMaster kills a master under clients that have each write confirmed by a replica.
func TestClusterLosesMaster(t *testing.T) {
	t.Parallel() // most of it is waiting for the cluster
	c := startCluster(t)
	p := startProxyWith(t, "-cluster", c.seeds())
	logFailure(t, p)
	stop := make(chan struct{})
	keys := keysOfSlots(0, 3)
	workers, finish := runWorkers(t, p.addr, 10, true, keys, stop)
	elsewhere, finishOthers := runWorkers(t, p.addr, 10, false, keysOfSlots(1, 3), stop)
	waitFor(t, "the clients work", func() bool { return workers[0].rounds.Load() > 3 && elsewhere[0].rounds.Load() > 3 })

	lost, replica := c.nodes[0], c.nodes[mastersOfCluster]
	lost.kill()
	done := elsewhere[0].rounds.Load()
	waitFor(t, "the other nodes' clients go on, though the cluster says that it is down for a while", func() bool {
		return elsewhere[0].rounds.Load() > done+3
	})
	waitFor(t, "the replica takes over", func() bool { return strings.HasPrefix(replica.call("ROLE"), "*3\r\n$6\r\nmaster") })
	done = workers[0].rounds.Load()
	waitFor(t, "the clients work again", func() bool { return workers[0].rounds.Load() > done+3 })

	lost.start()
	waitFor(t, "the old master is a replica", func() bool { return strings.HasPrefix(lost.call("ROLE"), "*5\r\n$5\r\nslave") })
	done = workers[0].rounds.Load()
	waitFor(t, "the clients go on", func() bool { return workers[0].rounds.Load() > done+3 })
	close(stop)
	finish()
	finishOthers()
	checkBooks(t, p.addr, workers, true)
	checkBooks(t, p.addr, elsewhere, false)
	checkLinks(t, p)
}

// TestClusterFailsOver makes the replicas masters, one after the other, while all nodes are there.
// Nothing may get lost.
func TestClusterFailsOver(t *testing.T) {
	t.Parallel() // most of it is waiting for the cluster
	c := startCluster(t)
	p := startProxyWith(t, "-cluster", c.seeds())
	logFailure(t, p)
	stop := make(chan struct{})
	workers, finish := runWorkers(t, p.addr, 20, false, append(keysOfSlots(0, 2), keysOfSlots(1, 2)...), stop)
	waitFor(t, "the clients work", func() bool { return workers[0].rounds.Load() > 3 })
	k := dial(t, p.addr, nil)
	k.send("SET "+keyOf(0)+" 1", "SET "+keyOf(2)+" 1", "WAIT 1 5000")
	k.want("+OK\r\n", "+OK\r\n", ":1\r\n")
	for i := range 2 {
		c.failover(c.nodes[mastersOfCluster+i])
		done := workers[0].rounds.Load()
		waitFor(t, "the clients go on", func() bool { return workers[0].rounds.Load() > done+3 })
	}
	// What was written to a node that is no master any more cannot be confirmed; what comes then can.
	k.send("WAIT 1 5000", "SET "+keyOf(0)+" 1", "SET "+keyOf(2)+" 1", "WAIT 1 5000")
	k.want(":0\r\n", "+OK\r\n", "+OK\r\n", ":1\r\n")
	k.Conn.Close()
	close(stop)
	finish()
	checkBooks(t, p.addr, workers, false)
	checkLinks(t, p)
}

// TestClusterStopsNode stops a master for longer than the proxy waits for an answer, and lets it go
// on. Clients of the other nodes must not notice.
func TestClusterStopsNode(t *testing.T) {
	t.Parallel() // most of it is waiting for the cluster
	c := startCluster(t)
	for _, n := range c.nodes { // nobody takes over, and the others go on
		n.want("OK", "CONFIG SET cluster-node-timeout 60000")
	}
	p := startProxyWith(t, "-cluster", c.seeds(), "-answer", "500ms")
	logFailure(t, p)
	stop := make(chan struct{})
	workers, finish := runWorkers(t, p.addr, 10, false, keysOfSlots(0, 3), stop)
	elsewhere, finishOthers := runWorkers(t, p.addr, 10, false, keysOfSlots(1, 3), stop)
	waitFor(t, "the clients work", func() bool { return workers[0].rounds.Load() > 3 && elsewhere[0].rounds.Load() > 3 })
	stopped := c.nodes[0]
	stopped.pause()
	defer stopped.resume()
	time.Sleep(1500 * time.Millisecond) // the clients of the node get errors
	done := elsewhere[0].rounds.Load()
	waitFor(t, "the other clients go on", func() bool { return elsewhere[0].rounds.Load() > done+10 })
	stopped.resume()
	done = workers[0].rounds.Load()
	waitFor(t, "the clients of the node go on", func() bool { return workers[0].rounds.Load() > done+3 })
	close(stop)
	finish()
	finishOthers()
	checkBooks(t, p.addr, workers, false)
	checkBooks(t, p.addr, elsewhere, false)
	for _, w := range elsewhere {
		if len(w.refused) > 0 || len(w.maybe) > 0 {
			t.Errorf("client %d of another node got errors: %v, and %v", w.id, w.refused, w.maybe)
		}
	}
	checkLinks(t, p)
}

// testScanWhileSlotsMove scans 100,000 keys while others are added and slots move. Each key that is there all
// the time has to be seen.
func testScanWhileSlotsMove(t *testing.T, c *redisCluster, p *testProxy) {
	const keys, batch = 100_000, 10_000
	k := dial(t, p.addr, nil)
	for first := 0; first < keys; first += batch {
		for n := first; n < first+batch; n++ {
			k.WriteBulkStrings([]string{"SET", fmt.Sprintf("key:%d", n), "v"})
		}
		k.Flush()
		for range batch {
			k.want("+OK\r\n")
		}
	}
	stop, moved := make(chan struct{}), make(chan int)
	go func() {
		moves := 0
		random := rand.New(rand.NewSource(1))
		for {
			select {
			case <-stop:
				moved <- moves
				return
			default:
			}
			slot := random.Intn(slotCount)
			from := c.owner(c.nodes[0], slot)
			c.move(slot, from, c.nodes[(random.Intn(mastersOfCluster-1)+1+indexOf(c, from))%mastersOfCluster])
			moves++
		}
	}()
	adding := dial(t, p.addr, nil)
	seen := make(map[string]bool, keys)
	steps, cursor := 0, "0"
	for ; steps == 0 || cursor != "0"; steps++ {
		adding.send(fmt.Sprintf("SET new:%d v", steps))
		adding.want("+OK\r\n")
		k.SetDeadline(time.Now().Add(20 * time.Second))
		k.send("SCAN " + cursor + " COUNT 500")
		r, err := k.ReadReply()
		if err != nil || r.Err() != nil {
			t.Fatalf("SCAN %s: %v, %s", cursor, err, r.Raw())
		}
		cursor = string(r.At(0).Bytes())
		for key := range r.At(1).All() {
			seen[string(key.Bytes())] = true
		}
	}
	close(stop)
	t.Logf("%d steps, in which %d slots moved", steps, <-moved)
	missing := 0
	for n := range keys {
		if !seen[fmt.Sprintf("key:%d", n)] {
			missing++
		}
	}
	if missing > 0 {
		t.Errorf("%d of %d keys were not seen", missing, keys)
	}
}

// indexOf is the place of a node among those of its cluster.
func indexOf(c *redisCluster, n *clusterNode) int {
	for i := range c.nodes {
		if c.nodes[i] == n {
			return i
		}
	}
	return -1
}
