package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

// A node is a server of the cluster. While it is in use there is one node for an address.
type node struct {
	addr  string
	links nodeLinks
	used  time.Time // when it was last in a topology, or asked for; guarded by the mutex of the cluster
}

// A topology says which master serves which slot. It does not change once it is made.
type topology struct {
	masters []*node           // sorted by address
	ids     map[string]*node  // the masters by the names that they have among themselves
	members map[string]bool   // the addresses of all nodes of the cluster
	slots   [slotCount]uint16 // one more than the index of its master, or 0; smaller than pointers, for the caches
	served  int               // how many slots have a master
}

// node returns the master that serves a slot, or nil if none does.
func (t *topology) node(slot int) *node {
	if i := t.slots[slot]; i > 0 {
		return t.masters[i-1]
	}
	return nil
}

// complete reports whether every slot has a master.
func (t *topology) complete() bool { return t.served == slotCount }

const (
	maxNodes   = 4096 // far more than a Redis Cluster can have
	nodeUnused = 30 * time.Second

	refreshInterval = 10 * time.Second
	refreshPause    = 50 * time.Millisecond  // between two refreshes at least
	refreshPatience = 200 * time.Millisecond // before another node is asked too
	refreshTimeout  = 3 * time.Second        // for one refresh
)

// A cluster knows the nodes of a Redis Cluster, and keeps its topology up to date.
type cluster struct {
	seeds []string
	dial  func(ctx context.Context, addr string) (net.Conn, error)
	gone  func(*node) // called for a node that is out of use; may be nil
	log   *slog.Logger

	snapshot  atomic.Pointer[topology]
	refreshes atomic.Int64 // successful ones
	failures  atomic.Int64 // refreshes that no node answered

	mu    sync.Mutex
	nodes map[string]*node
	hint  string        // the address that the next refresh asks first
	wake  chan struct{} // holds one element if a refresh has been asked for
}

// newCluster returns a cluster that begins with the addresses of some of its nodes. What dial
// returns is ready for commands: it speaks TLS and is authenticated as far as the cluster demands
// it.
func newCluster(seeds []string, dial func(ctx context.Context, addr string) (net.Conn, error), log *slog.Logger) *cluster {
	return &cluster{seeds: seeds, dial: dial, log: log,
		nodes: make(map[string]*node), wake: make(chan struct{}, 1)}
}

// current returns the last topology that a node gave, or nil if none has given one yet.
func (c *cluster) current() *topology { return c.snapshot.Load() }

// nodeAt returns the node with an address, whether or not it is in the current topology. It returns
// nil if there are too many already: a server invents addresses.
func (c *cluster) nodeAt(addr string) *node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.nodes[addr]
	if n == nil {
		if len(c.nodes) >= maxNodes {
			return nil
		}
		n = &node{addr: addr}
		c.nodes[addr] = n
	}
	n.used = time.Now()
	return n
}

// all returns all nodes that are in use.
func (c *cluster) all() []*node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Values(c.nodes))
}

// removeUnused forgets the nodes that were not in use for a while.
func (c *cluster) removeUnused(now time.Time) {
	var removed []*node
	c.mu.Lock()
	for addr, n := range c.nodes {
		if now.Sub(n.used) > nodeUnused {
			removed = append(removed, n)
			delete(c.nodes, addr)
		}
	}
	c.mu.Unlock()
	if c.gone != nil {
		for _, n := range removed {
			c.gone(n)
		}
	}
}

// isMember reports whether a node of the cluster has this address.
func (c *cluster) isMember(addr string) bool {
	t := c.current()
	return t != nil && t.members[addr]
}

// refresh makes run ask for the topology soon, and does not wait for that. If hint is the address of
// a member, that is asked first: a node that another one has pointed to knows what it serves.
func (c *cluster) refresh(hint string) {
	if c.isMember(hint) {
		c.mu.Lock()
		c.hint = hint
		c.mu.Unlock()
	}
	select {
	case c.wake <- struct{}{}:
	default: // one is due already, and has not begun
	}
}

// run keeps the topology up to date until ctx ends. It asks one node at a time: at once, whenever
// refresh says so, and else every 10 s, give or take a fifth, so that many proxies do not ask at the
// same time.
func (c *cluster) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := refreshInterval*4/5 + rand.N(refreshInterval*2/5)
		if err := c.update(ctx); err != nil && ctx.Err() == nil {
			c.failures.Add(1)
			c.log.Warn("the slots of the cluster cannot be had from any node", "err", err)
			wait = min(wait, time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(refreshPause):
		}
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		case <-time.After(wait):
		}
	}
}

// update asks nodes until one gives a topology, and makes that the current one. If none does, the
// current one stays, and the error is that of the last node.
//
// The nodes are asked one after the other, but a node that does not answer soon is not waited for
// before the next one is asked: it may have stopped, and this is when a new topology is needed most.
func (c *cluster) update(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	type answer struct {
		t   *topology
		err error
	}
	addrs := c.candidates()
	answers := make(chan answer, len(addrs))
	err := errors.New("no address of a node is known")
	for asked, answered := 0, 0; answered < len(addrs); {
		var patience <-chan time.Time
		if asked < len(addrs) {
			addr := addrs[asked]
			asked++
			go func() {
				t, err := c.ask(ctx, addr)
				if err != nil {
					c.log.Debug("a node does not give the slots of the cluster", "node", addr, "err", err)
				}
				answers <- answer{t, err}
			}()
			patience = time.After(refreshPatience)
		}
		select {
		case a := <-answers:
			answered++
			if a.err == nil {
				c.set(a.t)
				return nil
			}
			err = a.err
		case <-patience:
		}
	}
	return err
}

// set makes a topology the current one.
func (c *cluster) set(t *topology) {
	c.snapshot.Store(t)
	c.refreshes.Add(1)
	c.removeUnused(time.Now())
}

// candidates returns the addresses to ask, each once: the hint, the masters in random order, the
// seeds in random order.
func (c *cluster) candidates() []string {
	var addrs []string
	add := func(addr string) {
		if addr != "" && !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	c.mu.Lock()
	add(c.hint)
	c.hint = ""
	c.mu.Unlock()
	if t := c.current(); t != nil {
		for _, i := range rand.Perm(len(t.masters)) {
			add(t.masters[i].addr)
		}
	}
	for _, i := range rand.Perm(len(c.seeds)) {
		add(c.seeds[i])
	}
	return addrs
}

// ask asks the node with an address for the topology.
func (c *cluster) ask(ctx context.Context, addr string) (*topology, error) {
	conn, err := c.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	commands := appendCommand(appendCommand(nil, "CLUSTER", "SLOTS"), "CLUSTER", "NODES")
	if _, err := conn.Write(commands); err != nil {
		return nil, err
	}
	parser := redisproto.NewReplyParser(conn)
	r, err := parser.ReadReply()
	if err != nil {
		return nil, err
	}
	t, err := c.parseSlots(r, addr)
	if err != nil {
		return nil, err
	}
	if r, err = parser.ReadReply(); err != nil {
		return nil, err
	}
	view, ok := parseNodes(string(r.Bytes()), addr)
	if !ok {
		return nil, fmt.Errorf("CLUSTER NODES: %.100q is no list of nodes", r.Raw())
	}
	for _, addrs := range view.addrs {
		for _, member := range addrs {
			t.members[member] = true
		}
	}
	return t, nil
}

// parseSlots makes a topology of the reply to CLUSTER SLOTS of the node with the address asked.
// It is an error if no slot is served: a node that has been reset, or has joined no cluster yet,
// says so, and knows less than what is known already.
func (c *cluster) parseSlots(r redisproto.Reply, asked string) (*topology, error) {
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("CLUSTER SLOTS: %w", err)
	}
	t := &topology{ids: make(map[string]*node), members: make(map[string]bool)}
	owners := make([]*node, slotCount)
	for entry := range r.All() {
		first, errFirst := entry.At(0).Int()
		last, errLast := entry.At(1).Int()
		if errFirst != nil || errLast != nil || first < 0 || last < first || last >= slotCount {
			return nil, fmt.Errorf("CLUSTER SLOTS: %.100q is no range of slots and its nodes", entry.Raw())
		}
		master := entry.At(2)
		port, err := master.At(1).Int()
		if err != nil || port < 0 || port > 65535 {
			return nil, fmt.Errorf("CLUSTER SLOTS: %.100q is no range of slots and its nodes", entry.Raw())
		}
		if port == 0 {
			continue // such a node has no port of the kind asked for, TLS or not
		}
		n := c.nodeAt(joinAddr(string(master.At(0).Bytes()), strconv.FormatInt(port, 10), asked))
		if n == nil {
			return nil, fmt.Errorf("CLUSTER SLOTS: there are more than %d nodes", maxNodes)
		}
		if !slices.Contains(t.masters, n) {
			t.masters = append(t.masters, n)
		}
		t.ids[string(master.At(2).Bytes())] = n
		t.members[n.addr] = true
		for slot := first; slot <= last; slot++ {
			owners[slot] = n
		}
	}
	slices.SortFunc(t.masters, func(a, b *node) int { return cmp.Compare(a.addr, b.addr) })
	for slot, n := range owners {
		if n != nil {
			t.slots[slot] = uint16(slices.Index(t.masters, n) + 1)
			t.served++
		}
	}
	if t.served == 0 {
		return nil, errors.New("CLUSTER SLOTS: the node knows of no slot that is served")
	}
	return t, nil
}

// joinAddr returns the address of a node as the cluster gives it. A host that is empty or "?" means
// that of the address asked: the node does not know by what name it is reached.
func joinAddr(host, port, asked string) string {
	if host == "" || host == "?" {
		host, _, _ = net.SplitHostPort(asked)
	}
	return net.JoinHostPort(host, port)
}

// A redirect is an error by which a node of a cluster says that it did not execute a command, and
// why.
type redirect uint8

const (
	notRedirected redirect = iota
	misdirected            // it looks like a redirect, and is none
	moved                  // another node serves the slot
	ask                    // another node has the key, if there is one: the slot is being moved to it
	tryAgain               // the keys are on two nodes: the slot is being moved
)

// parseRedirect reads an error reply, which begins with "-". asked is the address of the node that
// gave it. The slot and the address are set for moved and ask.
func parseRedirect(line []byte, asked string) (kind redirect, slot int, addr string) {
	switch {
	case bytes.HasPrefix(line, []byte("-MOVED")):
		kind = moved
	case bytes.HasPrefix(line, []byte("-ASK ")), bytes.Equal(line, []byte("-ASK\r\n")):
		kind = ask
	case bytes.HasPrefix(line, []byte("-TRYAGAIN")):
		return tryAgain, 0, ""
	default:
		return notRedirected, 0, ""
	}
	words := bytes.Fields(line)
	if len(words) != 3 {
		return misdirected, 0, ""
	}
	slot, err := strconv.Atoi(string(words[1]))
	colon := bytes.LastIndexByte(words[2], ':') // an IPv6 address comes without brackets
	if err != nil || slot < 0 || slot >= slotCount || colon < 0 {
		return misdirected, 0, ""
	}
	host := bytes.Trim(words[2][:colon], "[]")
	return kind, slot, joinAddr(string(host), string(words[2][colon+1:]), asked)
}
