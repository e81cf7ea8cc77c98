package main

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// TestRedirectedCallIsWaitedFor has a key whose slot is moved to another node and back. A client sets it
// twice, the second time while the first SET has been redirected and is not answered. Nothing new may
// be sent then, since it would go to the node that serves the slot, and overtake.
func TestRedirectedCallIsWaitedFor(t *testing.T) {
	const key = "k"
	slot := keySlot([]byte(key))
	for _, row := range []struct {
		redirect, second, shared string
		told                     bool // each node has to remember something of the client's connection
	}{
		{"MOVED", "SET k 2", "1", false},
		{"ASK", "SET k 2", "1", false},
		{"MOVED", "MSET k 2 {k}2 2", "1", false},
		{"ASK", "MSET k 2 elsewhere 2", "1", false}, // is split
		{"MOVED", "SET k 2", "1", true},
		{"ASK", "SET k 2", "1", true},
		{"MOVED", "SET k 2", "0", false},
		{"ASK", "SET k 2", "0", false},
	} {
		t.Run(fmt.Sprintf("%s, then %s, -shared %s, told=%v", row.redirect, row.second, row.shared, row.told), func(t *testing.T) {
			t.Parallel()
			old, other := startTwoNodes(t, slotCount)
			var mu sync.Mutex
			var executed []string // by the old node: the values of the key
			count := func() int {
				mu.Lock()
				defer mu.Unlock()
				return len(executed)
			}
			redirected := false
			old.answer = func(c *redisproto.Command) string {
				mu.Lock()
				defer mu.Unlock()
				if string(c.Get(1)) != key {
					return "+OK\r\n"
				}
				if !redirected {
					redirected = true
					return fmt.Sprintf("-%s %d %s\r\n", row.redirect, slot, other.addr)
				}
				executed = append(executed, string(c.Get(2)))
				return "+OK\r\n"
			}
			arrived, release := make(chan struct{}), make(chan struct{})
			releaseOnce := sync.OnceFunc(func() { close(release) })
			t.Cleanup(releaseOnce) // before the node ends
			other.answer = func(c *redisproto.Command) string {
				close(arrived)
				<-release
				return fmt.Sprintf("-MOVED %d %s\r\n", slot, old.addr)
			}
			p := startProxyWith(t, "-cluster", old.addr, "-shared", row.shared)
			logFailure(t, p)
			k := way{p, "2", row.told}.dial(t)
			keepRoutes(t, p, old, other)
			k.send("GET {k}none")
			k.want("+OK\r\n")
			k.send("SET k 1")
			<-arrived
			k.send(row.second)
			waitFor(t, "the session waits, or the second command has been sent", func() bool { return isAwaiting(p) || count() > 0 })
			releaseOnce()
			k.want("+OK\r\n", "+OK\r\n")
			if want := []string{"1", "2"}; !slices.Equal(executed, want) {
				t.Errorf("the key was set to %s, want %s", strings.Join(executed, ", "), strings.Join(want, ", "))
			}
		})
	}
}

// isAwaiting reports whether a session waits until nothing is in flight.
func isAwaiting(p *testProxy) bool {
	return anySession(p, func(s *session) bool { return s.awaiting && s.enough == 0 })
}

// anySession reports whether that is so of a session, whose mutex is held.
func anySession(p *testProxy, is func(s *session) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		s.mu.Lock()
		so := is(s)
		s.mu.Unlock()
		if so {
			return true
		}
	}
	return false
}

// TestNewMemberIsNotOvertaken redirects two commands to a node that has joined a moment ago. The first one
// waits until it is known, and the second one must not be sent before it.
func TestNewMemberIsNotOvertaken(t *testing.T) {
	for _, own := range []bool{false, true} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			old, joined := startFakeNode(t), startFakeNode(t)
			slots, nodes := slotsReply(rangeOf(0, slotCount-1, old.addr)), nodesOf(old.addr)
			both := nodesOf(old.addr, joined.addr)
			for _, n := range []*fakeNode{old, joined} {
				n.slots.Store(&slots)
				n.nodes.Store(&nodes)
			}
			slot := keySlot([]byte("k"))
			p := startProxyWith(t, "-cluster", old.addr)
			n := 0
			old.answer = func(c *redisproto.Command) string {
				if n++; n == 2 {
					waitFor(t, "the node is known", func() bool { return p.cluster.isMember(joined.addr) })
				}
				return fmt.Sprintf("-MOVED %d %s\r\n", slot, joined.addr)
			}
			var mu sync.Mutex
			var got []string
			joined.answer = func(c *redisproto.Command) string {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, string(c.Get(2)))
				return "+OK\r\n"
			}
			k := way{p, "2", own}.dial(t)
			old.nodes.Store(&both)
			k.send("SET k 1", "SET k 2")
			k.want("+OK\r\n", "+OK\r\n")
			if strings.Join(got, " ") != "1 2" {
				t.Errorf("the new node was sent %v", got)
			}
		})
	}
}

// TestLinkOfResentCallDoesNotOvertake has a large reply dropped, so that its command is sent again on a link of
// the session's own. The client's next command goes to that link, too, and must not overtake what is still in
// flight on the shared one.
func TestLinkOfResentCallDoesNotOvertake(t *testing.T) {
	t.Parallel()
	node, _ := startTwoNodes(t, slotCount)
	big := wireOf(strings.Repeat("x", 2*maxWhole))[len("*1\r\n"):]
	set := make(chan struct{})
	node.answer = func(c *redisproto.Command) string {
		switch {
		case string(c.Get(1)) == "big":
			return big
		case string(c.Name()) == "SET":
			close(set)
			return "+OK\r\n"
		}
		select {
		case <-set:
			return "+overtaken\r\n"
		case <-time.After(200 * time.Millisecond):
			return "+first\r\n"
		}
	}
	p := startProxyWith(t, "-cluster", node.addr)
	k := dial(t, p.addr, nil)
	keepRoutes(t, p, node)
	k.send("GET big", "GET k")
	k.want(big)
	k.send("SET k 1")
	k.want("+first\r\n", "+OK\r\n")
}

// TestLostLinkKeepsOrder loses a shared link to which a command was given that is not written yet. The client's
// next command finds the link lost before that command is sent again, and must not overtake it.
func TestLostLinkKeepsOrder(t *testing.T) {
	for _, second := range []string{"SET k 2", "MSET k 2 elsewhere 2"} {
		t.Run(second, func(t *testing.T) {
			node, _ := startTwoNodes(t, slotCount)
			var executed []string // the values of the key
			node.answer = func(c *redisproto.Command) string {
				if string(c.Get(1)) == "k" {
					executed = append(executed, string(c.Get(2)))
				}
				return "+OK\r\n"
			}
			p := startProxyWith(t, "-cluster", node.addr)
			k := dial(t, p.addr, nil)
			keepRoutes(t, p, node)
			k.send("SET k 0")
			k.want("+OK\r\n")
			l := p.cluster.nodeAt(node.addr).links.shared[0][0].Load()
			isSo := func(is func() bool) func() bool {
				return func() bool {
					l.mu.Lock()
					defer l.mu.Unlock()
					return is()
				}
			}
			l.wmu.Lock() // nothing is written, and nothing that was given to the link is sent again
			k.send("SET k 1")
			waitFor(t, "the link has the command", isSo(func() bool { return len(l.unsent) == 1 }))
			l.conn.Close()
			waitFor(t, "the link is lost", isSo(func() bool { return l.err != nil }))
			k.send(second)
			waitFor(t, "the second command is in flight", func() bool {
				return anySession(p, func(s *session) bool { return s.flying.calls > 1 })
			})
			time.Sleep(10 * time.Millisecond) // for it to go wrong
			l.wmu.Unlock()
			k.want("+OK\r\n", "+OK\r\n")
			if got := strings.Join(executed, " "); got != "0 1 2" {
				t.Errorf("the key was set to %s, want 0 1 2", got)
			}
		})
	}
}

// TestPartsAreRedirectedOnOwnLinks redirects the parts of a command that is split.
func TestPartsAreRedirectedOnOwnLinks(t *testing.T) {
	old, other := startTwoNodes(t, slotCount)
	old.answer = func(c *redisproto.Command) string {
		return fmt.Sprintf("-MOVED %d %s\r\n", keySlot(c.Get(1)), other.addr)
	}
	k := dial(t, startProxyWith(t, "-cluster", old.addr, "-shared", "0").addr, nil)
	k.send("MSET "+keyOf(0)+" 1 "+keyOf(2)+" 2", "PING")
	k.want("+OK\r\n", "+PONG\r\n")
}

// TestRedirectDuringUpload redirects a command while a large one is sent behind it. The redirected one is
// answered only after the large one has been received, so that neither may wait for the other.
func TestRedirectDuringUpload(t *testing.T) {
	t.Parallel()
	old, other := startTwoNodes(t, slotCount)
	uploaded := make(chan struct{})
	uploadedOnce := sync.OnceFunc(func() { close(uploaded) })
	t.Cleanup(uploadedOnce) // before the nodes end
	old.answer = func(c *redisproto.Command) string {
		if c.ArgCount() == 2 {
			return fmt.Sprintf("-MOVED %d %s\r\n", keySlot(c.Get(1)), other.addr)
		}
		if len(c.Get(2)) > maxWhole {
			uploadedOnce()
		}
		return "+OK\r\n"
	}
	other.answer = func(*redisproto.Command) string {
		<-uploaded
		return "+redirected\r\n"
	}
	p := startProxyWith(t, "-cluster", old.addr, "-shared", "0")
	k := dial(t, p.addr, nil)
	k.send("SET x 1")
	k.want("+OK\r\n")
	keepRoutes(t, p, old, other)
	const size = 1 << 20
	fmt.Fprintf(k.Conn, "*2\r\n$3\r\nGET\r\n$1\r\na\r\n*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$%d\r\n%s", size, strings.Repeat("x", maxWhole+1))
	waitFor(t, "the command is redirected", func() bool { return other.calls.Load() > 0 })
	io.WriteString(k.Conn, strings.Repeat("x", size-maxWhole-1)+"\r\n")
	k.want("+redirected\r\n", "+OK\r\n")
}

// TestRedirectBetweenAnswersOfTheProxy redirects a command while its session takes many that the proxy
// answers itself and others in turn. To have that happen in the middle, the test keeps the session's mutex.
func TestRedirectBetweenAnswersOfTheProxy(t *testing.T) {
	t.Parallel()
	old, other := startTwoNodes(t, slotCount)
	arrived, release := make(chan struct{}), make(chan struct{})
	old.answer = func(c *redisproto.Command) string {
		if string(c.Get(1)) != "k" {
			return "+old\r\n"
		}
		arrived <- struct{}{}
		<-release
		return fmt.Sprintf("-MOVED %d %s\r\n", keySlot([]byte("k")), other.addr)
	}
	p := startProxyWith(t, "-cluster", old.addr, "-deny", "FLUSHALL")
	k := dial(t, p.addr, nil)
	k.send("GET a")
	k.want("+old\r\n")
	keepRoutes(t, p, old, other)
	const pairs = 2000
	commands := bytes.Repeat(appendCommand(appendCommand(nil, "GET", "a"), "FLUSHALL"), pairs)
	for range 5 {
		k.send("SET k 1")
		<-arrived
		k.Conn.Write(commands)
		for caught := false; !caught && p.clients.Load() > 0; {
			caught = anySession(p, func(s *session) bool {
				if s.flying.calls == 1 {
					return false
				}
				release <- struct{}{}
				time.Sleep(5 * time.Millisecond) // the link's reader and the session wait for the mutex now
				return true
			})
		}
		k.want("+OK\r\n")
		for range pairs {
			k.want("+old\r\n", denied)
		}
	}
}

// TestLargeRepliesInReverse has a command redirected to the node that has sent a large reply to the next one
// already, on the same link.
func TestLargeRepliesInReverse(t *testing.T) {
	t.Parallel()
	old, other := startTwoNodes(t, slotCount/2)
	large := func(key string) string {
		return fmt.Sprintf("$%d\r\n%s\r\n", len(key)*maxWhole, strings.Repeat(key, maxWhole))
	}
	other.answer = func(c *redisproto.Command) string { return large(string(c.Get(1))) }
	old.answer = func(c *redisproto.Command) string {
		waitFor(t, "the other node is asked again on a link of the session's own", func() bool { return other.calls.Load() >= 2 })
		time.Sleep(20 * time.Millisecond) // the reader of that link has the beginning of the reply
		return fmt.Sprintf("-MOVED %d %s\r\n", keySlot(c.Get(1)), other.addr)
	}
	p := startProxyWith(t, "-cluster", old.addr)
	logFailure(t, p)
	k := dial(t, p.addr, nil)
	k.send("PING")
	k.want("+PONG\r\n")
	keepRoutes(t, p, old, other)
	k.send("GET "+keyOf(0), "GET "+keyOf(2))
	for _, key := range []string{keyOf(0), keyOf(2)} {
		if got := k.read(); got != large(key) {
			t.Errorf("got %.40q, %d bytes, want %.40q", got, len(got), large(key))
		}
	}
}

// TestNewLinkDoesNotOvertake loses a shared link while a command waits there to be written. What the session
// sends next must not arrive first, on the link that takes its place.
func TestNewLinkDoesNotOvertake(t *testing.T) {
	t.Parallel()
	node, _ := startTwoNodes(t, slotCount)
	var mu sync.Mutex
	var got []string
	node.answer = func(c *redisproto.Command) string {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(c.Get(2)))
		return "+OK\r\n"
	}
	p := startProxyWith(t, "-cluster", node.addr, "-shared", "1")
	k := dial(t, p.addr, nil)
	k.send("SET k 0")
	k.want("+OK\r\n")
	keepRoutes(t, p, node)
	k.send("SET k 1")
	k.want("+OK\r\n")
	var shared *link
	for _, n := range p.nodes() {
		for _, l := range n.links.all() {
			if n.addr == node.addr && l.shared {
				shared = l
			}
		}
	}
	shared.wmu.Lock() // as if a write went on
	k.send("SET k 2")
	waitFor(t, "the link has the command", func() bool {
		shared.mu.Lock()
		defer shared.mu.Unlock()
		return len(shared.unsent) == 1
	})
	shared.close(errSlow)
	k.send("SET k 3")
	waitFor(t, "the session has the next one", func() bool {
		return anySession(p, func(s *session) bool { return s.flying.calls == 2 })
	})
	time.Sleep(50 * time.Millisecond) // it could be sent now
	shared.wmu.Unlock()
	k.want("+OK\r\n", "+OK\r\n")
	if want := []string{"0", "1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("the key was set to %v, want %v", got, want)
	}
}

// TestSplitCommandIsNotOvertaking has a slot whose node changes while a client sends a large command that is
// split. Its parts must not overtake what is in flight to the node that the slot had before.
func TestSplitCommandIsNotOvertaking(t *testing.T) {
	t.Parallel()
	old, other := startFakeNode(t), startFakeNode(t)
	nodes := []*fakeNode{old, other}
	setCluster(nodes, slotsReply(rangeOf(0, slotCount-1, old.addr)), old.addr, other.addr)
	arrived, release := make(chan struct{}), make(chan struct{})
	arrive, releaseOnce := sync.OnceFunc(func() { close(arrived) }), sync.OnceFunc(func() { close(release) })
	t.Cleanup(releaseOnce) // before the node ends
	moved := func(c *redisproto.Command) string {
		return fmt.Sprintf("-MOVED %d %s\r\n", keySlot(c.Get(1)), other.addr)
	}
	old.answer = func(c *redisproto.Command) string {
		arrive()
		<-release
		return moved(c)
	}
	var mu sync.Mutex
	var executed []string
	other.answer = func(c *redisproto.Command) string {
		mu.Lock()
		defer mu.Unlock()
		if string(c.Get(1)) == "k" {
			executed = append(executed, string(c.Get(2)))
		}
		return "+OK\r\n"
	}
	p := startProxyWith(t, "-cluster", old.addr)
	k := dial(t, p.addr, nil)
	k.send("SET k 1")
	<-arrived
	wire := wireOf("MSET", "k", "2", "elsewhere", strings.Repeat("x", 2*maxWhole))
	io.WriteString(k.Conn, wire[:maxWhole])
	time.Sleep(100 * time.Millisecond) // the proxy has begun with it
	setCluster(nodes, slotsReply(rangeOf(0, slotCount-1, other.addr)), old.addr, other.addr)
	before := p.cluster.current()
	p.cluster.refresh("")
	waitFor(t, "there is a new topology", func() bool { return p.cluster.current() != before })
	io.WriteString(k.Conn, wire[maxWhole:])
	time.Sleep(100 * time.Millisecond) // its parts have been sent
	releaseOnce()
	k.want("+OK\r\n", "+OK\r\n")
	if want := []string{"1", "2"}; !slices.Equal(executed, want) {
		t.Errorf("the key was set to %v, want %v", executed, want)
	}
}
