package main

import (
	"bytes"
	"time"

	"github.com/secmask/go-redisproto"
)

// redirected takes an error of a node of a cluster. If it is a redirect, the call is sent again, and not
// answered. Otherwise, or if it was sent again often enough, redirected returns the error that the
// client is to get.
//
// A redirected call was not executed. Until it is answered its session sends nothing new, so that
// nothing of the same client overtakes it.
//
// A client's script can make an error of any text. So a redirect is followed only if it concerns the
// slot of the call's keys, and only to a member of the cluster.
func (l *link) redirected(c *call, raw []byte) (text []byte, again bool) {
	l.letGo()
	p := l.proxy
	kind, slot, addr := parseRedirect(raw, l.node.addr)
	switch kind {
	case notRedirected:
		if bytes.HasPrefix(raw, []byte("-CLUSTERDOWN")) || bytes.HasPrefix(raw, []byte("-READONLY")) {
			p.cluster.refresh("")
		}
		return raw, false
	case misdirected:
		return []byte(errUnexpected), false
	}
	p.redirects.Add(1)
	if kind == moved {
		p.cluster.refresh(addr)
	}
	if c.session == nil || len(c.raw) == 0 { // part of a transaction, or too large to be held
		return []byte(beingMoved), false
	}
	if c.own || c.slot == noSlot {
		c.slot = p.slotOfRaw(c.raw, slot)
	}
	if kind != tryAgain && slot != c.slot || c.slot < 0 {
		return []byte(errUnexpected), false
	}
	n := c.redirectTo(kind, addr, p)
	if n == nil {
		return []byte(beingMoved), false
	}
	c.session.mu.Lock()
	c.hold()
	c.session.mu.Unlock()
	c.asking = kind == ask && n.addr == addr
	if kind == tryAgain || n.addr != addr {
		time.AfterFunc(c.pause(), func() { p.sendAgain(c, n) })
	} else {
		p.sendAgain(c, n)
	}
	return nil, true
}

// slotOfRaw returns the slot of the keys of a command, as slotOf does. If the upstream does not
// describe the keys of such commands in full, it is the one that a node has told.
func (p *proxy) slotOfRaw(raw []byte, told int) int {
	table := p.vocabulary.Load().table
	c, _, err := new(redisproto.Parser).Parse(raw)
	if err != nil || c == nil || table == nil {
		return noSlot
	}
	info := table.lookup(c)
	switch {
	case info == nil:
		return noSlot
	case !info.exact:
		return told
	}
	positions, _ := info.keys(c, nil)
	return slotOf(c, positions)
}

// redirectTo returns the node to which a call is sent again, or nil if it was sent often enough.
func (c *call) redirectTo(kind redirect, addr string, p *proxy) *node {
	c.attempts++
	if kind == tryAgain {
		now := time.Since(p.start)
		if c.tryUntil == 0 {
			c.tryUntil = now + tryAgainFor
			c.attempts = 1
		}
		if now > c.tryUntil {
			return nil
		}
		return p.cluster.current().node(c.slot)
	}
	if c.attempts > maxRedirects && c.tryUntil == 0 {
		return nil
	}
	if !p.cluster.isMember(addr) { // or has joined a moment ago; then the same will be said once more
		p.cluster.refresh("")
		return p.cluster.current().node(c.slot)
	}
	return p.cluster.nodeAt(addr)
}

// pause is how long to wait after TRYAGAIN.
func (c *call) pause() time.Duration {
	return min(10*time.Millisecond<<min(c.attempts, 5), 200*time.Millisecond)
}

// sendAgain sends a call that was not executed to a node.
func (p *proxy) sendAgain(c *call, n *node) {
	s := c.session
	if !c.own {
		s.giveTo(n, c)
		return
	}
	// Its link may have to be made, which must not keep the reader of another one waiting. One goroutine
	// does that for all calls of the session, so that they stay in their order.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.resent = append(s.resent, resending{c, n})
	if len(s.resent) == 1 {
		go s.resend()
	}
}

// A resending is a call that is to be sent on a link of its session's own to a node.
type resending struct {
	c *call
	n *node
}

// resend sends all calls in s.resent. It is over when there are none.
func (s *session) resend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.resent) > 0 {
		r := s.resent[0]
		s.mu.Unlock()
		s.sendOwn(r.c, r.n)
		s.mu.Lock()
		s.resent = s.resent[1:]
	}
	s.resent = nil
}

// sendOwn sends a call on the session's own link to a node, which is made if there is none.
func (s *session) sendOwn(c *call, n *node) {
	l := s.ownOn(n)
	if l == nil {
		var err error
		if l, err = s.openOwn(n, s); err != nil {
			c.fail(awayText(err))
			s.flush(nil)
			return
		}
		s.addOwn(l)
	}
	if !l.sendCall(c) {
		c.fail(awayText(nil))
	}
	l.flush()
	s.flush(nil)
}

// again routes a call that was given to a link and was not written when that was lost.
func (p *proxy) again(c *call) {
	s := c.session
	if s == nil {
		return
	}
	n := p.single
	if p.cluster != nil {
		p.cluster.refresh("")
		if n = c.node; c.slot >= 0 {
			n = p.cluster.current().node(c.slot)
		}
	}
	c.attempts++
	if n == nil || len(c.raw) == 0 || c.own || c.attempts > maxRedirects {
		c.fail("-ERR upstream closed the connection; the command was not executed\r\n")
		s.flush(nil)
		return
	}
	s.mu.Lock()
	c.hold()
	s.mu.Unlock()
	c.asking = false
	p.sendAgain(c, n)
}
