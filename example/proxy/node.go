package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// maxIdle is how many links of one node wait in its pool for another session.
const maxIdle = 64

// nodeLinks are the links to one node.
type nodeLinks struct {
	shared [2][maxShared]atomic.Pointer[link] // to clients of RESP2 and of RESP3

	mu   sync.Mutex
	idle []*link // own links that no session has
	away bool    // the last attempt to connect has failed
}

// sharedLink returns the link to n that s shares with others. It may be in the making; what it is given
// is sent when it is there.
func (p *proxy) sharedLink(n *node, s *session) *link {
	protocol := 0
	if s.said.resp3 {
		protocol = 1
	}
	place, resp3 := &n.links.shared[protocol][s.id%int64(p.shared)], s.said.resp3
	for {
		if l := place.Load(); l != nil {
			return l
		}
		l := newLink(n, p, true)
		l.resp3, l.speaks3 = resp3, resp3
		if place.CompareAndSwap(nil, l) {
			go l.connect()
			return l
		}
	}
}

// connect makes the connection of a shared link and serves it.
func (l *link) connect() {
	conn, err := l.proxy.dial(l.node)
	if err == nil {
		if err = l.begin(conn, nil); err != nil {
			conn.Close()
			l.proxy.cannotConnect(l.node, err)
		}
	}
	if err != nil {
		l.abandon(err)
		return
	}
	go l.readLoop()
	l.writeLoop()
}

// abandon answers what was given to a link that could not be made.
func (l *link) abandon(err error) {
	l.close(err)
	l.node.links.forget(l)
	close(l.done)
	l.mu.Lock()
	calls := l.unsent
	l.unsent = nil
	l.mu.Unlock()
	if l.proxy.cluster != nil {
		l.proxy.cluster.refresh("")
	}
	for _, c := range calls {
		c.fail(awayText(err))
		if c.session != nil {
			c.session.flush(nil)
		}
	}
}

// openOwn takes a link of the session's own to n: from the pool, if one there was told the same as this
// one would be, or a new one.
func (p *proxy) openOwn(n *node, s *session) (*link, error) {
	setup := s.said.commands()
	if l := n.links.take(setup, s); l != nil {
		return l, nil
	}
	conn, err := p.dial(n)
	if err != nil {
		return nil, err
	}
	l := newLink(n, p, false)
	l.resp3, l.speaks3 = s.said.resp3, s.said.resp3
	if err = l.begin(conn, setup); err != nil {
		conn.Close()
		p.cannotConnect(n, err)
		return nil, err
	}
	l.setup = fold(setup)
	l.owner.Store(s)
	p.ownLinks.Add(1)
	go func() {
		l.readLoop()
		p.ownLinks.Add(-1)
	}()
	return l, nil
}

// begin says what is to be said first on a new connection, and puts it in use.
func (l *link) begin(conn net.Conn, setup [][]string) error {
	p := l.proxy
	var commands [][]string
	if p.upstreamPassword != "" {
		commands = append(commands, p.authCommand())
	}
	if l.resp3 {
		commands = append(commands, []string{"HELLO", "3"})
	}
	commands = append(commands, setup...)
	needed := len(commands)
	commands = append(commands, []string{"PING"}, []string{"CLIENT", "ID"})
	replies, err := handshake(conn, p.connectTimeout, commands...)
	if err != nil {
		return err
	}
	for _, r := range replies[:needed] {
		if r.err != nil {
			return r.err
		}
	}
	if ping := replies[needed]; ping.err != nil && strings.HasPrefix(ping.err.Error(), "NOAUTH") {
		l.needsPassword = true
		if p.sharing {
			return ping.err
		}
	}
	if id := replies[needed+1]; id.err == nil {
		l.id = id.text
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = newSocket(conn)
	return l.err
}

// authCommand is how the proxy authenticates to the upstream.
func (p *proxy) authCommand() []string {
	if p.upstreamUser == "" {
		return []string{"AUTH", p.upstreamPassword}
	}
	return []string{"AUTH", p.upstreamUser, p.upstreamPassword}
}

// fold makes one string of commands.
func fold(commands [][]string) string {
	var lines []string
	for _, c := range commands {
		lines = append(lines, strings.Join(c, "\x00"))
	}
	return strings.Join(lines, "\x01")
}

// take takes a link out of the pool for s.
func (n *nodeLinks) take(setup [][]string, s *session) *link {
	n.mu.Lock()
	defer n.mu.Unlock()
	want := fold(setup)
	for i, l := range slices.Backward(n.idle) {
		if l.setup == want && l.resp3 == s.said.resp3 {
			n.idle = slices.Delete(n.idle, i, i+1)
			if l.ownedBy(s) {
				return l
			}
		}
	}
	return nil
}

// ownedBy makes l a link of s, unless it is lost: its reader may not tell s so any more.
func (l *link) ownedBy(s *session) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.owner.Store(s)
	}
	return l.err == nil
}

// giveBack puts a link that its session needs no more into the pool. Nothing is in flight on it, and
// nothing stays behind.
func (n *nodeLinks) giveBack(l *link) {
	l.owner.Store(nil)
	n.mu.Lock()
	full := len(n.idle) >= maxIdle
	if !full {
		n.idle = append(n.idle, l)
	}
	n.mu.Unlock()
	l.mu.Lock()
	lost := l.err != nil
	l.mu.Unlock()
	if full || lost {
		n.forget(l)
		l.close(errOver)
	}
}

// forget has nobody take l any more.
func (n *nodeLinks) forget(l *link) {
	for protocol := range n.shared {
		for i := range n.shared[protocol] {
			n.shared[protocol][i].CompareAndSwap(l, nil)
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if i := slices.Index(n.idle, l); i >= 0 {
		n.idle = slices.Delete(n.idle, i, i+1)
	}
}

// all returns the shared links and those in the pool.
func (n *nodeLinks) all() []*link {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := slices.Clone(n.idle)
	for protocol := range n.shared {
		for i := range n.shared[protocol] {
			if l := n.shared[protocol][i].Load(); l != nil {
				list = append(list, l)
			}
		}
	}
	return list
}

// dial connects to a node.
func (p *proxy) dial(n *node) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.connectTimeout)
	defer cancel()
	conn, err := p.dialAddr(ctx, n.addr)
	if err != nil {
		p.cannotConnect(n, err)
		return nil, err
	}
	n.links.mu.Lock()
	back := n.links.away
	n.links.away = false
	n.links.mu.Unlock()
	if back {
		p.log.Info("upstream is back", "upstream", n.addr)
	}
	return conn, nil
}

func (p *proxy) dialAddr(ctx context.Context, addr string) (net.Conn, error) {
	d := &net.Dialer{}
	if p.tls == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: p.tls}).DialContext(ctx, "tcp", addr)
}

// cannotConnect counts a failed attempt to connect, and logs the first one since the last success.
func (p *proxy) cannotConnect(n *node, err error) {
	p.failures.Add(1)
	if outOfDescriptors(err) {
		p.log.Error("the proxy is out of file descriptors", "err", err)
		return
	}
	n.links.mu.Lock()
	known := n.links.away
	n.links.away = true
	n.links.mu.Unlock()
	if !known {
		p.log.Error("upstream is away", "upstream", n.addr, "err", err)
	}
}

func outOfDescriptors(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// awayText is what a client is told when there is no connection to the upstream. It does not get to
// know any address; the log has it.
func awayText(err error) string {
	switch {
	case outOfDescriptors(err):
		return "-ERR the proxy has no file descriptor left for a connection to the upstream\r\n"
	case errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded):
		return "-ERR upstream is away: no connection in time\r\n"
	}
	return "-ERR upstream is away\r\n"
}

func (n *nodeLinks) isAway() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.away
}

// setUpstream makes the node, or the cluster, that the flags name.
func (p *proxy) setUpstream(o *options) {
	if o.seeds == "" {
		p.single = &node{addr: o.upstream}
		return
	}
	p.cluster = newCluster(strings.Split(o.seeds, ","), p.dialReady, p.log)
	p.scanner = newScanner(p.cluster)
	p.cluster.gone = func(n *node) {
		for _, l := range n.links.all() {
			l.close(errOver)
		}
	}
}

// dialReady returns a connection that is authenticated.
func (p *proxy) dialReady(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := p.dialAddr(ctx, addr)
	if err != nil || p.upstreamPassword == "" {
		return conn, err
	}
	replies, err := handshake(conn, p.connectTimeout, p.authCommand())
	if err == nil {
		err = replies[0].err
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}
