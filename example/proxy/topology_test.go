package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

var noLog = slog.New(slog.NewTextHandler(io.Discard, nil))

// slotRange is one entry of a reply to CLUSTER SLOTS: a range, the host and the port of its master.
type slotRange struct {
	first, last int
	host        string
	port        int
}

// slotsReply is a reply to CLUSTER SLOTS. Each master has a replica, which must not be taken for one.
func slotsReply(ranges ...slotRange) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(ranges))
	for _, r := range ranges {
		host := fmt.Sprintf("$%d\r\n%s\r\n", len(r.host), r.host)
		if r.host == "null" {
			host = "$-1\r\n"
		}
		fmt.Fprintf(&b, "*4\r\n:%d\r\n:%d\r\n*4\r\n%s:%d\r\n$1\r\na\r\n*0\r\n*4\r\n$7\r\nreplica\r\n:1\r\n$1\r\nb\r\n*0\r\n",
			r.first, r.last, host, r.port)
	}
	return b.String()
}

// nodesReply is a reply to CLUSTER NODES that says nothing of slots.
const nodesReply = "+id 10.9.9.9:9@99 myself,master - 0 0 1 connected\r\n"

func TestParseSlots(t *testing.T) {
	for _, row := range []struct {
		name     string
		ranges   []slotRange
		masters  string
		complete bool
		owners   map[int]string
	}{
		{"one master", []slotRange{{0, 16383, "10.0.0.1", 7000}}, "10.0.0.1:7000", true,
			map[int]string{0: "10.0.0.1:7000", 16383: "10.0.0.1:7000"}},
		{"several ranges of one master, and a gap", []slotRange{{0, 99, "b", 1}, {200, 16383, "b", 1}, {100, 100, "a", 2}},
			"a:2 b:1", false, map[int]string{99: "b:1", 100: "a:2", 101: "", 199: "", 200: "b:1"}},
		{"the address asked", []slotRange{{0, 1, "", 7001}, {2, 3, "?", 7002}, {4, 16383, "null", 7003}},
			"asked:7001 asked:7002 asked:7003", true, map[int]string{0: "asked:7001", 3: "asked:7002", 4: "asked:7003"}},
		{"IPv6", []slotRange{{0, 16383, "2001:db8::1", 7000}}, "[2001:db8::1]:7000", true, nil},
		{"no port of this kind", []slotRange{{0, 1, "a", 0}, {2, 16383, "b", 1}}, "b:1", false, map[int]string{0: ""}},
	} {
		c := newCluster(nil, nil, noLog)
		topo, err := c.parseSlots(parseReply(t, slotsReply(row.ranges...)), "asked:1")
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		var masters []string
		for _, n := range topo.masters {
			masters = append(masters, n.addr)
			if c.nodeAt(n.addr) != n {
				t.Errorf("%s: there are two nodes at %s", row.name, n.addr)
			}
		}
		if got := strings.Join(masters, " "); got != row.masters || topo.complete() != row.complete {
			t.Errorf("%s: masters %q, complete %v; want %q, %v", row.name, got, topo.complete(), row.masters, row.complete)
		}
		for slot, want := range row.owners {
			got := ""
			if n := topo.node(slot); n != nil {
				got = n.addr
			}
			if got != want {
				t.Errorf("%s: slot %d is served by %q, want %q", row.name, slot, got, want)
			}
		}
	}
}

func TestParseSlotsErrors(t *testing.T) {
	good := slotsReply(slotRange{0, 16383, "a", 1})
	for _, row := range []struct{ name, wire string }{
		{"an error", "-ERR This instance has cluster support disabled\r\n"},
		{"no slot", "*0\r\n"},
		{"a string", "+OK\r\n"},
		{"an entry that is no array", "*1\r\n:1\r\n"},
		{"an entry without a node", "*1\r\n*2\r\n:0\r\n:1\r\n"},
		{"a slot too high", strings.Replace(good, ":16383", ":16384", 1)},
		{"a negative slot", strings.Replace(good, ":0", ":-1", 1)},
		{"a range that ends before it begins", slotsReply(slotRange{5, 4, "a", 1})},
		{"a port too high", slotsReply(slotRange{0, 1, "a", 65536})},
	} {
		if topo, err := newCluster(nil, nil, noLog).parseSlots(parseReply(t, row.wire), "asked:1"); err == nil {
			t.Errorf("%s: no error, and %d slots", row.name, topo.served)
		}
	}
}

func TestParseRedirect(t *testing.T) {
	for _, row := range []struct {
		line string
		kind redirect
		slot int
		addr string
	}{
		{"-MOVED 3999 127.0.0.1:6381\r\n", moved, 3999, "127.0.0.1:6381"},
		{"-ASK 0 127.0.0.1:6381\r\n", ask, 0, "127.0.0.1:6381"},
		{"-MOVED 16383 :6381\r\n", moved, 16383, "asked:6381"},
		{"-MOVED 1 ?:6381\r\n", moved, 1, "asked:6381"},
		{"-MOVED 1 2001:db8::1:6381\r\n", moved, 1, "[2001:db8::1]:6381"},
		{"-MOVED 1 host.example:6381\r\n", moved, 1, "host.example:6381"},
		{"-TRYAGAIN Multiple keys request during rehashing of slot\r\n", tryAgain, 0, ""},
		{"-MOVED 16384 127.0.0.1:6381\r\n", misdirected, 0, ""},
		{"-MOVED x 127.0.0.1:6381\r\n", misdirected, 0, ""},
		{"-MOVED 1\r\n", misdirected, 0, ""},
		{"-MOVED 1 nowhere\r\n", misdirected, 0, ""},
		{"-MOVED\r\n", misdirected, 0, ""},
		{"-ASK\r\n", misdirected, 0, ""},
		{"-ASKING is unknown\r\n", notRedirected, 0, ""},
		{"-ERR MOVED 1 127.0.0.1:6381\r\n", notRedirected, 0, ""},
		{"+MOVED 1 127.0.0.1:6381\r\n", notRedirected, 0, ""},
	} {
		kind, slot, addr := parseRedirect([]byte(row.line), "asked:1")
		if kind != row.kind || slot != row.slot || addr != row.addr {
			t.Errorf("%q: %d, %d, %q; want %d, %d, %q", row.line, kind, slot, addr, row.kind, row.slot, row.addr)
		}
	}
}

// fakeNodes answer CLUSTER SLOTS, each with a text of its own; no text means that the node is away.
type fakeNodes struct {
	mu      sync.Mutex
	replies map[string]string
	asked   []string
}

func (f *fakeNodes) set(addr, reply string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replies[addr] = reply
}

func (f *fakeNodes) dial(_ context.Context, addr string) (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, addr)
	reply := f.replies[addr]
	if reply == "" {
		return nil, fmt.Errorf("%s is away", addr)
	}
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		parser := redisproto.NewParser(far)
		for _, answer := range []struct{ command, reply string }{
			{wireOf("CLUSTER", "SLOTS"), reply}, {wireOf("CLUSTER", "NODES"), nodesReply},
		} {
			if c, err := parser.ReadCommand(); err != nil || string(c.Raw()) != answer.command {
				return
			}
			io.WriteString(far, answer.reply)
		}
	}()
	return near, nil
}

// runCluster runs a cluster until the test ends.
func runCluster(t *testing.T, c *cluster) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		c.run(ctx)
		close(done)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// TestRefresh takes a cluster through what can happen to its nodes.
func TestRefresh(t *testing.T) {
	t.Parallel()
	both := slotsReply(slotRange{0, 99, "a", 1}, slotRange{100, 16383, "b", 2})
	nodes := &fakeNodes{replies: map[string]string{"seed:2": both}}
	c := newCluster([]string{"seed:1", "seed:2"}, nodes.dial, noLog)
	if c.current() != nil {
		t.Error("there is a topology before a node was asked")
	}
	runCluster(t, c)
	waitFor(t, "there is a topology", func() bool { return c.current() != nil })
	first := c.current()
	if len(first.masters) != 2 || first.node(99).addr != "a:1" || first.node(100).addr != "b:2" {
		t.Errorf("the seeds give %v", first.masters)
	}

	// A node that is pointed to is asked first, and its word holds.
	nodes.set("b:2", slotsReply(slotRange{0, 16383, "b", 2}))
	c.refresh("b:2")
	waitFor(t, "node b has all slots", func() bool { return c.current() != first })
	if second := c.current(); len(second.masters) != 1 || second.node(0) != first.node(100) {
		t.Errorf("node b gives %v, and is another node than before", second.masters)
	}

	// One that is no member is not.
	c.refresh("stranger:1")
	refreshes := c.refreshes.Load()
	waitFor(t, "another refresh is done", func() bool { return c.refreshes.Load() > refreshes })
	nodes.mu.Lock()
	if slices.Contains(nodes.asked, "stranger:1") {
		t.Error("a node that is no member of the cluster was asked")
	}
	nodes.mu.Unlock()

	// Nodes that know nothing or are away change nothing.
	nodes.set("b:2", "*0\r\n")
	nodes.set("seed:1", "-ERR no\r\n")
	nodes.set("seed:2", "")
	last := c.current()
	c.refresh("")
	waitFor(t, "a refresh fails", func() bool { return c.failures.Load() > 0 })
	if c.current() != last {
		t.Error("a refresh that failed changed the topology")
	}
	nodes.mu.Lock()
	asked := slices.Clone(nodes.asked)
	nodes.mu.Unlock()
	for _, addr := range []string{"b:2", "seed:1", "seed:2"} {
		if !slices.Contains(asked, addr) {
			t.Errorf("%s was not asked", addr)
		}
	}

	// It heals by itself.
	nodes.set("seed:1", both)
	waitFor(t, "a is back", func() bool { return c.current().node(0).addr == "a:1" })
}

// TestRefreshesAreOne asks for many refreshes at once, and checks that there are few.
func TestRefreshesAreOne(t *testing.T) {
	nodes := &fakeNodes{replies: map[string]string{"seed:1": slotsReply(slotRange{0, 16383, "seed", 1})}}
	c := newCluster([]string{"seed:1"}, nodes.dial, noLog)
	for range 1000 {
		c.refresh("")
	}
	runCluster(t, c)
	waitFor(t, "there is a topology", func() bool { return c.current() != nil })
	waitFor(t, "the refresh that was asked for is done", func() bool { return len(c.wake) == 0 })
	if n := c.refreshes.Load(); n > 3 {
		t.Errorf("%d refreshes for 1000 wishes at once", n)
	}
}

func TestUnusedNodes(t *testing.T) {
	var gone []string
	c := newCluster(nil, nil, noLog)
	c.gone = func(n *node) { gone = append(gone, n.addr) }
	old := c.nodeAt("old:1")
	old.used = old.used.Add(-time.Hour)
	used := c.nodeAt("used:1")
	c.removeUnused(time.Now())
	if !slices.Equal(gone, []string{"old:1"}) || c.nodeAt("used:1") != used || c.nodeAt("old:1") == old {
		t.Errorf("removed %v, want the old node", gone)
	}
	for i := range 2 * maxNodes {
		c.nodeAt(fmt.Sprintf("invented:%d", i))
	}
	if len(c.nodes) > maxNodes || c.nodeAt("one more:1") != nil || c.nodeAt("used:1") != used {
		t.Errorf("there are %d nodes", len(c.nodes))
	}
}
