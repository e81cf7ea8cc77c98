package main

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// A fakeNode is a node of a cluster that answers what a test wants it to.
type fakeNode struct {
	addr   string
	answer func(c *redisproto.Command) string // to what it does not answer by itself; "" closes the connection
	slots  atomic.Pointer[string]             // its reply to CLUSTER SLOTS
	nodes  atomic.Pointer[string]             // its reply to CLUSTER NODES

	commands atomic.Pointer[string] // its reply to COMMAND; that of Redis 7.0 if the test does not say
	calls    atomic.Int64           // of answer
}

// startFakeNode starts a node that ends with the test.
func startFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	commands := recordedCommands(t) // in RESP3, which is read as well
	n := new(fakeNode)
	n.commands.Store(&commands)
	n.addr = listenFake(t, n.serve)
	return n
}

func (n *fakeNode) serve(conn net.Conn) {
	parser := redisproto.NewParser(conn)
	for {
		c, err := parser.ReadCommand()
		if err != nil {
			return
		}
		var reply string
		switch name := string(c.Name()); name {
		case "PING":
			reply = "+PONG\r\n"
		case "HELLO":
			reply = "*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n"
		case "CLIENT":
			if reply = ":1\r\n"; !strings.EqualFold(string(c.Get(1)), "ID") {
				reply = "+OK\r\n"
			}
		case "ASKING":
			reply = "+OK\r\n"
		case "COMMAND":
			reply = *n.commands.Load()
		case "CLUSTER":
			if reply = *n.slots.Load(); strings.EqualFold(string(c.Get(1)), "NODES") {
				reply = *n.nodes.Load()
			}
		default:
			n.calls.Add(1)
			reply = n.answer(c)
		}
		if reply == "" {
			return
		}
		io.WriteString(conn, reply)
	}
}

// setCluster sets what nodes say of their cluster: its slots, and the addresses of its members.
func setCluster(nodes []*fakeNode, slots string, members ...string) {
	text := nodesOf(members...)
	for _, n := range nodes {
		n.slots.Store(&slots)
		n.nodes.Store(&text)
	}
}

// startTwoNodes starts a cluster of two nodes, of which the first one serves the slots below split. They
// answer +OK until the test says what else.
func startTwoNodes(t *testing.T, split int) (first, second *fakeNode) {
	t.Helper()
	first, second = startFakeNode(t), startFakeNode(t)
	ranges := []slotRange{rangeOf(0, split-1, first.addr)}
	if split < slotCount {
		ranges = append(ranges, rangeOf(split, slotCount-1, second.addr))
	}
	setCluster([]*fakeNode{first, second}, slotsReply(ranges...), first.addr, second.addr)
	first.answer = func(*redisproto.Command) string { return "+OK\r\n" }
	second.answer = first.answer
	return first, second
}

// keepRoutes has the nodes not tell any more who serves the slots, so that p stays with what it knows: with
// a new topology a session would wait in any case.
func keepRoutes(t *testing.T, p *testProxy, nodes ...*fakeNode) {
	t.Helper()
	lie := "-ERR no\r\n"
	for _, n := range nodes {
		n.slots.Store(&lie)
	}
	failures := p.cluster.failures.Load()
	p.cluster.refresh("")
	waitFor(t, "a refresh has failed", func() bool { return p.cluster.failures.Load() > failures })
}

// rangeOf is a range of slots of a node.
func rangeOf(first, last int, addr string) slotRange {
	host, port, _ := net.SplitHostPort(addr)
	var n int
	fmt.Sscan(port, &n)
	return slotRange{first, last, host, n}
}

// nodesOf is a reply to CLUSTER NODES of a cluster that has nodes with these addresses.
func nodesOf(addrs ...string) string {
	text, flags := "", "myself,master"
	for i, addr := range addrs {
		text += fmt.Sprintf("id%d %s@1 %s - 0 0 1 connected\n", i, addr, flags)
		flags = "master"
	}
	return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
}

// TestLyingNodes has a cluster of two nodes, of which the first answers to its keys what it must not.
// The client has to get an error in its place, and the other node's keys have to go on.
func TestLyingNodes(t *testing.T) {
	t.Parallel()
	key := keyOf(0)
	slot := keySlot([]byte(key))
	var invented atomic.Int64
	for _, row := range []struct {
		name     string
		lie      func(liar, honest string) string
		want     string // how the reply of the client begins
		commands int
	}{
		{"moved to itself for ever", func(liar, _ string) string { return fmt.Sprintf("-MOVED %d %s\r\n", slot, liar) }, beingMoved, 20},
		{"ask itself for ever", func(liar, _ string) string { return fmt.Sprintf("-ASK %d %s\r\n", slot, liar) }, beingMoved, 20},
		{"moved to where nobody is", func(_, _ string) string { return fmt.Sprintf("-MOVED %d 127.0.0.1:1\r\n", slot) }, "-ERR upstream is away", 20},
		{"moved to ever new addresses", func(_, _ string) string {
			return fmt.Sprintf("-MOVED %d 127.0.0.1:%d\r\n", slot, 1+invented.Add(1)%1000)
		}, beingMoved, 1},
		{"moved without an address", func(_, _ string) string { return "-MOVED\r\n" }, errUnexpected, 20},
		{"moved with a slot that is none", func(_, honest string) string { return "-MOVED 99999 " + honest + "\r\n" }, errUnexpected, 20},
		{"ask without a port", func(_, _ string) string { return fmt.Sprintf("-ASK %d 127.0.0.1\r\n", slot) }, errUnexpected, 20},
		{"moved with another slot", func(_, honest string) string { return "-MOVED 1 " + honest + "\r\n" }, errUnexpected, 20},
		{"no reply", func(_, _ string) string { return "" }, "-ERR upstream closed the connection", 20},
		{"no RESP", func(_, _ string) string { return "?\r\n" }, "-ERR upstream closed the connection", 20},
		{"try again for ever", func(_, _ string) string { return "-TRYAGAIN\r\n" }, beingMoved, 1},
		{"two replies", func(_, _ string) string { return "+a\r\n+b\r\n" }, "+a", 20},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			liar, honest := startFakeNode(t), startFakeNode(t)
			slots := slotsReply(rangeOf(0, slotCount/mastersOfCluster, liar.addr), rangeOf(slotCount/mastersOfCluster+1, slotCount-1, honest.addr))
			setCluster([]*fakeNode{liar, honest}, slots, honest.addr, liar.addr, "127.0.0.1:1")
			liar.answer = func(*redisproto.Command) string { return row.lie(liar.addr, honest.addr) }
			honest.answer = func(c *redisproto.Command) string { return "+" + string(c.Get(1)) + "\r\n" }
			p := startProxyWith(t, "-cluster", honest.addr)
			logFailure(t, p)
			k, other := dial(t, p.addr, nil), dial(t, p.addr, nil)
			good := keyOf(2)
			for range row.commands {
				k.send("GET " + key)
				if got := k.read(); !strings.HasPrefix(got, row.want) {
					t.Errorf("got %q, want %q", got, row.want)
				}
				other.send("GET " + good)
				other.want("+" + good + "\r\n")
			}
			if n := liar.calls.Load(); n > 20*(maxRedirects+1) {
				t.Errorf("the liar was asked %d times for 20 commands", n)
			}
			if len(p.nodes()) > 200 {
				t.Errorf("there are %d nodes", len(p.nodes()))
			}
		})
	}
}

// TestLyingTopology has a node that says of the cluster what cannot be. What was known before stays.
func TestLyingTopology(t *testing.T) {
	node := startFakeNode(t)
	setCluster([]*fakeNode{node}, slotsReply(rangeOf(0, slotCount-1, node.addr)), node.addr)
	node.answer = func(*redisproto.Command) string { return "+fine\r\n" }
	p := startProxyWith(t, "-cluster", node.addr)
	k := dial(t, p.addr, nil)
	for _, lie := range []string{"-ERR no\r\n", "*0\r\n", "+OK\r\n", "*1\r\n*3\r\n:5\r\n:4\r\n*2\r\n+a\r\n:1\r\n", "*1\r\n", "?\r\n"} {
		k.send("GET a")
		k.want("+fine\r\n")
		node.slots.Store(&lie)
		failures := p.cluster.failures.Load()
		p.cluster.refresh("")
		waitFor(t, "a refresh has failed", func() bool { return p.cluster.failures.Load() > failures })
	}
	k.send("GET a")
	k.want("+fine\r\n")
}

// TestUndescribedKeys has a command of a module whose keys the server does not describe. It goes to any
// node, which tells where it has to go.
func TestUndescribedKeys(t *testing.T) {
	first, second := startFakeNode(t), startFakeNode(t)
	slots := slotsReply(rangeOf(0, 99, first.addr), rangeOf(100, slotCount-1, second.addr))
	commands := "*1\r\n*10\r\n$5\r\nx.get\r\n:-2\r\n*1\r\n+movablekeys\r\n:0\r\n:0\r\n:0\r\n*0\r\n*0\r\n" +
		"*1\r\n*6\r\n$5\r\nflags\r\n*0\r\n$12\r\nbegin_search\r\n*2\r\n$4\r\ntype\r\n$7\r\nunknown\r\n" +
		"$9\r\nfind_keys\r\n*2\r\n$4\r\ntype\r\n$7\r\nunknown\r\n*0\r\n"
	nodes := []*fakeNode{first, second}
	setCluster(nodes, slots, first.addr, second.addr)
	for _, n := range nodes {
		n.commands.Store(&commands)
	}
	first.answer = func(*redisproto.Command) string { return "-MOVED 100 " + second.addr + "\r\n" }
	second.answer = func(*redisproto.Command) string { return "+second\r\n" }
	p := startProxyWith(t, "-cluster", first.addr)
	for range 4 { // clients have different nodes for what has no key
		k := dial(t, p.addr, nil)
		k.send("X.GET a", "X.GET b")
		k.want("+second\r\n", "+second\r\n")
	}
	if first.calls.Load() == 0 {
		t.Error("no command went to the first node, so the test shows nothing")
	}
}

// TestWaitaofOfOldServer has a client that has written to two nodes send WAITAOF, which they do not
// describe: it is passed on like any command that the proxy does not know.
func TestWaitaofOfOldServer(t *testing.T) {
	first, second := startTwoNodes(t, slotCount/2)
	unknown := func(c *redisproto.Command) string {
		if string(c.Name()) == "WAITAOF" {
			return "-ERR unknown command 'WAITAOF'\r\n"
		}
		return "+OK\r\n"
	}
	first.answer, second.answer = unknown, unknown
	k := dial(t, startProxyWith(t, "-cluster", first.addr).addr, nil)
	k.send("SET "+keyOf(0)+" 1", "SET "+keyOf(2)+" 1", "WAITAOF 1 1 10", "PING")
	k.want("+OK\r\n", "+OK\r\n", "-ERR unknown command 'WAITAOF'\r\n", "+PONG\r\n")
}

// TestTriesAreBounded checks that a call is redirected as often as it takes while TRYAGAIN has it wait, but
// not after that.
func TestTriesAreBounded(t *testing.T) {
	long := 2 * tryAgainFor
	for _, row := range []struct {
		name  string
		kinds []redirect
		pause time.Duration // behind the first one
		want  bool          // for the last one
	}{
		{"few redirects", slices.Repeat([]redirect{moved}, maxRedirects), 0, true},
		{"many redirects", slices.Repeat([]redirect{moved}, maxRedirects+1), 0, false},
		{"TRYAGAIN, then many redirects", append([]redirect{tryAgain}, slices.Repeat([]redirect{ask, moved}, maxRedirects)...), 0, true},
		{"TRYAGAIN, and much later many redirects", append([]redirect{tryAgain}, slices.Repeat([]redirect{ask, moved}, maxRedirects)...), long, false},
		{"TRYAGAIN, and again much later", []redirect{tryAgain, tryAgain}, long, false},
	} {
		p := &proxy{start: time.Now()}
		c := &call{session: &session{proxy: p}}
		var got bool
		for i, kind := range row.kinds {
			if got = c.mayTry(kind); i == 0 {
				p.start = p.start.Add(-row.pause)
			}
		}
		if got != row.want {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}

// testScriptedRedirects has scripts answer what looks like a redirect. The proxy must not connect to
// where they point, for it would show its password there.
func testScriptedRedirects(t *testing.T, _ *redisCluster, w way) {
	var connected atomic.Int64
	stranger := listenFake(t, func(net.Conn) { connected.Add(1) })
	k := w.dial(t)
	key := keyOf(0)
	slot := keySlot([]byte(key))
	for _, row := range []struct{ text, keys, want string }{
		{fmt.Sprintf("MOVED %d %s", slot, stranger), "1 " + key, beingMoved},
		{fmt.Sprintf("ASK %d %s", slot+1, stranger), "1 " + key, errUnexpected},
		{fmt.Sprintf("MOVED %d %s", slot, stranger), "0", errUnexpected},
		{"MOVED", "1 " + key, errUnexpected},
	} {
		k.send("EVAL return_{err=ARGV[1]} " + row.keys + " " + strings.ReplaceAll(row.text, " ", "_"))
		k.want(row.want)
	}
	if n := connected.Load(); n > 0 {
		t.Errorf("the proxy connected %d times to where a script pointed", n)
	}
}

// TestCommandsNotTold has a node that accepts connections and says nothing to COMMAND. Many clients wait
// for it; each gets an error after one attempt, and none keeps the proxy from stopping.
func TestCommandsNotTold(t *testing.T) {
	node := startFakeNode(t)
	setCluster([]*fakeNode{node}, slotsReply(rangeOf(0, slotCount-1, node.addr)), node.addr)
	silent := "*1\r\n"
	node.commands.Store(&silent)
	p := startProxyWith(t, "-cluster", node.addr, "-connect", "100ms", "-answer", "100ms")
	var clients []*conn
	for range 300 {
		k := dial(t, p.addr, nil)
		k.send("GET a")
		clients = append(clients, k)
	}
	for _, k := range clients {
		if got := k.read(); !strings.HasPrefix(got, "-ERR upstream is away") {
			t.Errorf("got %q", got)
		}
	}
	// When the node tells them, the clients go on.
	told := recordedCommands(t)
	node.commands.Store(&told)
	node.answer = func(*redisproto.Command) string { return "+fine\r\n" }
	clients[0].until("fine", "GET a")
}

// A session ends with its client although a node does not go on with a large message.
func TestStalledMessage(t *testing.T) {
	t.Parallel()
	n := startFakeNode(t)
	setCluster([]*fakeNode{n}, slotsReply(rangeOf(0, slotCount-1, n.addr)), n.addr)
	n.answer = func(c *redisproto.Command) string {
		return "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n" +
			"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$200000\r\n" + strings.Repeat("x", 100000)
	}
	p := startProxyWith(t, "-cluster", n.addr)
	c := dial(t, p.addr, nil)
	c.send("SUBSCRIBE a")
	io.ReadFull(c.Conn, make([]byte, 90000))
	c.Conn.Close()
	waitFor(t, "the session has ended", func() bool { return p.clients.Load() == 0 })
}
