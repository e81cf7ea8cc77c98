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
	l.unlockSession()
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
	if !c.mayTry(kind) {
		return []byte(beingMoved), false
	}
	c.session.sendAgain(resending{c: c, kind: kind, addr: addr})
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

// mayTry reports whether a call may be sent again, and counts that.
func (c *call) mayTry(kind redirect) bool {
	c.attempts++
	now := time.Since(c.session.start)
	if kind != tryAgain {
		return c.attempts <= maxRedirects || now <= c.tryUntil
	}
	if c.tryUntil == 0 {
		c.tryUntil = now + tryAgainFor
		c.attempts = 1
	}
	return now <= c.tryUntil
}

// A resending is a call that was not executed, and where it is to be sent.
type resending struct {
	c    *call
	kind redirect
	addr string // after MOVED and ASK
	n    *node  // if it was not redirected
}

// sendAgain sends a call that was not executed. That may have to wait, which must not keep the reader of
// a link waiting. One goroutine does it for all calls of the session, so that they stay in their order.
// Until the call is answered, the session sends nothing new.
func (s *session) sendAgain(r resending) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.c.markMoved()
	s.resent = append(s.resent, r)
	if len(s.resent) == 1 {
		go s.resend()
	}
}

// resend sends all calls in s.resent. It is over when there are none.
func (s *session) resend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.resent) > 0 {
		r := s.resent[0]
		s.mu.Unlock()
		switch n := r.where(); {
		case n == nil:
			r.c.fail(beingMoved)
			s.flush(nil)
		case r.c.own:
			s.sendOwn(r.c, n)
		default:
			s.giveTo(n, r.c)
		}
		s.mu.Lock()
		s.resent = s.resent[1:]
	}
	s.resent = nil
}

// where waits until it is known to which node a call is to be sent. It returns nil if there is none.
func (r *resending) where() *node {
	cluster := r.c.session.cluster
	if r.kind == tryAgain || r.c.attempts > maxRedirects {
		time.Sleep(r.c.pause())
	}
	r.c.asking = r.kind == ask
	switch r.kind {
	case notRedirected:
		return r.n
	case tryAgain:
		return cluster.current().node(r.c.slot)
	}
	for pause := 10 * time.Millisecond; !cluster.isMember(r.addr); pause *= 2 { // it may have joined a moment ago
		if pause > 200*time.Millisecond {
			return nil
		}
		cluster.refresh("")
		time.Sleep(pause)
	}
	return cluster.nodeAt(r.addr)
}

// pause is how long to wait after TRYAGAIN, and after many redirects.
func (c *call) pause() time.Duration {
	return min(10*time.Millisecond<<min(c.attempts, 5), 200*time.Millisecond)
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
	s.sendAgain(resending{c: c, n: n})
}
