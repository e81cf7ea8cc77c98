package main

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// A redisCluster is a Redis Cluster of three masters, each with a replica, on free ports of the
// loopback interface. Nothing is saved, and all of it ends with the test.
type redisCluster struct {
	t     testing.TB
	nodes []*clusterNode // at first the masters, then their replicas in the same order
}

// A clusterNode is a redis-server of a cluster.
type clusterNode struct {
	t    testing.TB
	addr string
	bus  string // the port of the cluster bus
	id   string
	dir  string
	pid  int
	end  func()
}

const mastersOfCluster = 3

// startCluster skips the test if there is no redis-server.
func startCluster(t testing.TB) *redisCluster {
	t.Helper()
	c := &redisCluster{t: t}
	for range 2 * mastersOfCluster {
		c.nodes = append(c.nodes, startNode(t))
	}
	c.join()
	return c
}

// startNode starts one node, which belongs to no cluster yet.
func startNode(t testing.TB) *clusterNode {
	t.Helper()
	n := &clusterNode{t: t, dir: t.TempDir(), end: func() {}}
	t.Cleanup(func() { n.end() })
	for range 5 { // another process may take a port first
		n.addr = freeAddr(t)
		_, n.bus, _ = net.SplitHostPort(freeAddr(t))
		if n.start() {
			n.id = n.call("CLUSTER MYID")
			return n
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

// start runs the server on its address, and reports whether it takes connections. A node that was
// killed finds its cluster again by what it wrote to its directory.
func (n *clusterNode) start() (ready bool) {
	_, port, _ := net.SplitHostPort(n.addr)
	n.pid, n.end, ready = runRedis(n.t, "--port", port, "--dir", n.dir, "--cluster-enabled", "yes", "--cluster-port", n.bus,
		"--cluster-node-timeout", "2000", "--cluster-replica-validity-factor", "0",
		"--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
	return ready
}

// join makes a cluster of the nodes, and returns when all of them say that it is complete.
func (c *redisCluster) join() {
	c.t.Helper()
	for i, n := range c.nodes {
		n.want("OK", fmt.Sprintf("CLUSTER SET-CONFIG-EPOCH %d", i+1))
		if i < mastersOfCluster {
			first, last := i*slotCount/mastersOfCluster, (i+1)*slotCount/mastersOfCluster-1
			n.want("OK", fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", first, last))
		}
		if i > 0 {
			c.meet(n)
		}
	}
	for i, n := range c.nodes {
		waitFor(c.t, "a node knows the others", func() bool {
			return strings.Contains(n.call("CLUSTER INFO"), fmt.Sprintf("cluster_known_nodes:%d\r", len(c.nodes)))
		})
		if i >= mastersOfCluster {
			n.want("OK", "CLUSTER REPLICATE "+c.nodes[i-mastersOfCluster].id)
		}
	}
	c.waitComplete()
}

// meet makes n known to the cluster.
func (c *redisCluster) meet(n *clusterNode) {
	c.t.Helper()
	_, port, _ := net.SplitHostPort(n.addr)
	c.nodes[0].want("OK", "CLUSTER MEET 127.0.0.1 "+port+" "+n.bus)
}

// waitComplete returns when every node sees all slots served, and every replica has its master's
// data.
func (c *redisCluster) waitComplete() {
	c.t.Helper()
	for _, n := range c.nodes {
		waitFor(c.t, "the cluster is complete for each node", func() bool {
			replicas := strings.Count(n.call("CLUSTER NODES"), "slave")
			role := n.call("INFO replication")
			return strings.Contains(n.call("CLUSTER INFO"), "cluster_state:ok") && replicas == mastersOfCluster &&
				(strings.Contains(role, "role:master") || strings.Contains(role, "master_link_status:up"))
		})
	}
}

// seeds are addresses of nodes, for the proxy.
func (c *redisCluster) seeds() string { return c.nodes[0].addr + "," + c.nodes[1].addr }

// call sends one command to the node over a connection of its own, and returns the text of the reply,
// or "" if the node is away.
func (n *clusterNode) call(command string) string {
	n.t.Helper()
	return n.callWords(strings.Fields(command)...)
}

func (n *clusterNode) callWords(words ...string) string {
	n.t.Helper()
	conn, err := net.DialTimeout("tcp", n.addr, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, wireOf(words...)); err != nil {
		return ""
	}
	r, err := redisproto.NewReplyParser(conn).ReadReply()
	if err != nil {
		return ""
	}
	if r.Kind() == '*' {
		return string(r.Raw())
	}
	return string(r.Bytes())
}

// want sends a command whose reply must be this one.
func (n *clusterNode) want(reply, command string) {
	n.t.Helper()
	if got := n.call(command); got != reply {
		n.t.Fatalf("%s at %s: %q, want %q", command, n.addr, got, reply)
	}
}

// kill ends the process at once, as a power cut does. start begins it anew.
func (n *clusterNode) kill() { n.end() }

// pause stops the process: its connections stay, and nothing answers. resume lets it go on.
func (n *clusterNode) pause()  { pauseProcess(n.t, n.pid) }
func (n *clusterNode) resume() { resumeProcess(n.t, n.pid) }

// node returns the node with an ID.
func (c *redisCluster) node(id string) *clusterNode {
	c.t.Helper()
	for _, n := range c.nodes {
		if n.id == id {
			return n
		}
	}
	c.t.Fatalf("there is no node %s", id)
	return nil
}

// owner returns the master that serves a slot, as the node at says.
func (c *redisCluster) owner(at *clusterNode, slot int) *clusterNode {
	c.t.Helper()
	view, ok := parseNodes(at.call("CLUSTER NODES"), at.addr)
	if !ok {
		c.t.Fatalf("%s does not say what it knows of the cluster", at.addr)
	}
	return c.node(view.owner(slot))
}

// masters returns the nodes that serve slots, as the node at says.
func (c *redisCluster) masters(at *clusterNode) (masters []*clusterNode) {
	c.t.Helper()
	view, _ := parseNodes(at.call("CLUSTER NODES"), at.addr)
	for id := range view.ranges {
		masters = append(masters, c.node(id))
	}
	return masters
}

// beginMove makes a slot one that is being moved.
func (c *redisCluster) beginMove(slot int, from, to *clusterNode) {
	c.t.Helper()
	to.want("OK", fmt.Sprintf("CLUSTER SETSLOT %d IMPORTING %s", slot, from.id))
	from.want("OK", fmt.Sprintf("CLUSTER SETSLOT %d MIGRATING %s", slot, to.id))
}

// moveKeys moves at most n keys of a slot, and reports whether there are more.
func (c *redisCluster) moveKeys(slot, n int, from, to *clusterNode) (more bool) {
	c.t.Helper()
	keys := from.callWords("CLUSTER", "GETKEYSINSLOT", strconv.Itoa(slot), strconv.Itoa(n))
	r := parseReply(c.t, keys)
	if r.Len() == 0 {
		return false
	}
	_, port, _ := net.SplitHostPort(to.addr)
	words := []string{"MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS"}
	for key := range r.All() {
		words = append(words, string(key.Bytes()))
	}
	if got := from.callWords(words...); got != "OK" && got != "NOKEY" {
		c.t.Fatalf("MIGRATE: %q", got)
	}
	return true
}

// endMove gives a slot that has been moved to its new node. The others hear of it one after the other.
func (c *redisCluster) endMove(slot int, from, to *clusterNode) {
	c.t.Helper()
	command := fmt.Sprintf("CLUSTER SETSLOT %d NODE %s", slot, to.id)
	to.want("OK", command)
	from.want("OK", command)
	for _, n := range c.masters(to) {
		if n != to && n != from {
			n.want("OK", command)
		}
	}
}

// move moves a slot with all its keys.
func (c *redisCluster) move(slot int, from, to *clusterNode) {
	c.t.Helper()
	c.beginMove(slot, from, to)
	for c.moveKeys(slot, 10, from, to) {
	}
	c.endMove(slot, from, to)
}

// fromTo returns the master that serves a slot, and another one that it can be moved to.
func (c *redisCluster) fromTo(slot int) (from, to *clusterNode) {
	c.t.Helper()
	from = c.owner(c.nodes[0], slot)
	if from == c.nodes[0] {
		return from, c.nodes[1]
	}
	return from, c.nodes[0]
}

// failover makes a replica the master, while its master is there.
func (c *redisCluster) failover(replica *clusterNode) {
	c.t.Helper()
	replica.want("OK", "CLUSTER FAILOVER")
	waitFor(c.t, "the replica is a master", func() bool {
		return strings.HasPrefix(replica.call("ROLE"), "*3\r\n$6\r\nmaster")
	})
}

// keyOf returns a key whose slot is served by the i-th master of a cluster as it starts.
func keyOf(i int) string {
	for n := 0; ; n++ {
		if key := fmt.Sprintf("key%d", n); keySlot([]byte(key))*mastersOfCluster/slotCount == i {
			return key
		}
	}
}

// TestClusterHarness checks that the cluster of these tests does what the tests need. That a master which
// is killed is replaced, and comes back as a replica, TestClusterLosesMaster waits for.
func TestClusterHarness(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	first, second := c.nodes[0], c.nodes[1]
	key := keyOf(0)
	slot := keySlot([]byte(key))
	if got := c.owner(first, slot); got != first {
		t.Errorf("slot %d is at %s", slot, got.addr)
	}
	first.want("OK", "SET "+key+" value")
	c.beginMove(slot, first, second)
	if got := first.call("GET {" + key + "}none"); got != fmt.Sprintf("ASK %d %s", slot, second.addr) {
		t.Errorf("while the slot is being moved: %q", got)
	}
	for c.moveKeys(slot, 1, first, second) {
	}
	c.endMove(slot, first, second)
	second.want("value", "GET "+key)
	if got := first.call("GET " + key); got != fmt.Sprintf("MOVED %d %s", slot, second.addr) {
		t.Errorf("after the slot was moved: %q", got)
	}

	replica := c.nodes[mastersOfCluster+1]
	c.failover(replica)
	replica.want("value", "GET "+key)

	// A master that is stopped, and goes on before anybody replaces it.
	second.pause()
	second.resume()
	second.want("PONG", "PING")
}
