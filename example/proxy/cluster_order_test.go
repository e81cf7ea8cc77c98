package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

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
			old, other := startFakeNode(t), startFakeNode(t)
			setCluster([]*fakeNode{old, other}, slotsReply(rangeOf(0, slotCount-1, old.addr)), old.addr, other.addr)
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
			// From now on the nodes do not tell who serves the slots: with a new topology the session would wait
			// in any case.
			lie := "-ERR no\r\n"
			old.slots.Store(&lie)
			other.slots.Store(&lie)
			failures := p.cluster.failures.Load()
			p.cluster.refresh("")
			waitFor(t, "a refresh has failed", func() bool { return p.cluster.failures.Load() > failures })
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
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		s.mu.Lock()
		awaiting := s.awaiting && s.enough == 0
		s.mu.Unlock()
		if awaiting {
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
