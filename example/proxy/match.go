package main

import (
	"bytes"
	"errors"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

// Replies come in the order of the commands, one for each, but for this:
//
//   - A push of RESP3 may come at any time and is no reply, unless it confirms a subscription. In
//     RESP2, where messages are arrays, they come only while there is a subscription.
//   - SUBSCRIBE and the like are confirmed once for each channel; UNSUBSCRIBE without one, once for
//     each that there is, but once at least. The confirmations say how many there are.
//   - After CLIENT REPLY OFF or SKIP, and MONITOR, and where MULTI puts off what changes the rules,
//     calls and replies are not matched any more for as long as the link lasts. All else holds there
//     too; only latency is not measured, and what is in flight when the link is lost gets no error.
//
// None of this happens on a shared link, since no such command is ever sent on it.

// channel kinds, which are counted apart.
const (
	channels = iota
	patterns
	shards
)

// confirmations says what a reply that begins so confirms.
var confirmations = map[string]int{
	"subscribe": channels, "psubscribe": patterns, "ssubscribe": shards,
	"unsubscribe": channels, "punsubscribe": patterns, "sunsubscribe": shards,
}

// A matcher finds the call that a reply belongs to. Only the reader of its link uses it, except for its
// atomic fields.
type matcher struct {
	link      *link
	holds     *session // whose mutex the reader holds
	taken     []*call  // from the link; those from next on are in flight
	next      int
	unmatched atomic.Bool            // the replies are passed on without being matched with calls
	fault     atomic.Pointer[string] // the error that the client gets in place of that for what was no command

	left     int // confirmations due to the call that is next, if some have come
	subs     [3]int
	speaks3  bool // what the connection speaks
	leaving  bool // the last reply says that the upstream will close
	now      time.Duration
	before   time.Duration // when the replies before those at hand were read
	slowest  slowLog
	loggedIn atomic.Bool   // the client has authenticated
	state    atomic.Uint32 // what stays behind on the connection, for the session's goroutine
}

// What stays behind on a connection, in matcher.state.
const (
	stateMulti = 1 << iota
	stateWatch
	stateChannels // subscriptions of channels or patterns
	stateShards   // subscriptions of shard channels
	stateForever  // something that the proxy cannot undo: no other session may use the link

	stateSubscribed = stateChannels | stateShards
)

var (
	errUnasked = errors.New("the upstream has sent a reply that nobody asked for")
	errSlow    = errors.New("the upstream did not answer in time")
	errAnswer  = errors.New("the client has sent a malformed command, and was answered")

	errStopped = errors.New("the proxy stopped")
	// The client knows nothing of slots, so it has to be disconnected to subscribe again: it would hear
	// nothing any more.
	errShardMoved = errors.New("the slot of a shard channel has moved to another node")

	errUnblocked = errors.New("the proxy is stopping, and the upstream cannot be asked to unblock the client")
)

func (m *matcher) isUnmatched() bool { return m.unmatched.Load() }

// head returns the call in flight whose reply is due, or nil if there is none.
func (m *matcher) head() *call {
	if m.next == len(m.taken) {
		l := m.link
		l.mu.Lock()
		clear(m.taken)
		if cap(m.taken) > 32<<10 {
			m.taken = nil
		}
		m.taken, l.sent, m.next = l.sent, m.taken[:0], 0
		l.mu.Unlock()
		if len(m.taken) == 0 {
			return nil
		}
	}
	return m.taken[m.next]
}

// expected returns the call whose reply is due. It returns nil if there is none, or if replies are not
// matched with calls any more: they are not from the reply to a call on that ends matching.
func (m *matcher) expected() *call {
	if m.isUnmatched() {
		return nil
	}
	c := m.head()
	if c != nil && c.endsMatching {
		c.cmd.calls.Add(1)
		m.next++
		m.unmatched.Store(true)
		return nil
	}
	return c
}

// due is how many of calls, which were sent, are to be answered. Behind the last one that can be told apart
// there may be no reply.
func due(calls []*call) int {
	n := len(calls)
	if n > 0 && calls[n-1].endsMatching {
		n--
	}
	return n
}

// take takes one reply. An error says that the link cannot go on.
func (l *link) take(r reply) error {
	raw, kind := r.Raw(), r.Kind()
	if !l.shared {
		return l.takeOwn(r, raw, kind)
	}
	if kind == redisproto.Push {
		return nil
	}
	c := l.head()
	if c == nil {
		return errUnasked
	}
	if !r.Whole() {
		return l.takeLargeShared(c, r)
	}
	if kind == redisproto.SimpleError && l.proxy.cluster != nil {
		var again bool
		if raw, again = l.redirected(c, raw); again {
			l.next++
			return nil
		}
	}
	l.answered(c, r, raw)
	return nil
}

// takeOwn takes a reply on a link that one session uses.
func (l *link) takeOwn(r reply, raw []byte, kind redisproto.Kind) error {
	s := l.owner.Load()
	if s == nil { // it is in a pool
		return errUnasked
	}
	l.leaving = false
	if !r.Whole() {
		return l.takeLarge(s, r)
	}
	c := l.expected()
	if kind == redisproto.SimpleError {
		if text := l.proxy.rules.restore(raw); text != nil {
			raw = text
		} else if bytes.HasPrefix(raw, []byte("-ERR Protocol error")) {
			if fault := l.fault.Load(); fault != nil {
				s.passOn(l, []byte(*fault))
				l.unlockSession()
				s.flush(l)
				return errAnswer
			}
			l.leaving = true
		}
	}
	if l.isUnmatched() {
		s.passOn(l, raw)
		return nil
	}
	if l.isPush(c, r, kind) {
		l.push(c, r, raw)
		return nil
	}
	if c == nil { // said unasked: that there are too many clients, say
		s.passOn(l, raw)
		return nil
	}
	if kind == redisproto.SimpleError && l.proxy.cluster != nil {
		var again bool
		if raw, again = l.redirected(c, raw); again {
			l.next++
			return nil
		}
	}
	l.note(c, r, kind)
	l.left = 0
	l.answered(c, r, raw)
	return nil
}

// isPush reports whether a reply is a message or a confirmation.
func (m *matcher) isPush(c *call, r reply, kind redisproto.Kind) bool {
	if kind == redisproto.Push {
		return true
	}
	if kind != redisproto.Array || m.speaks3 {
		return false
	}
	what := r.At(0).Bytes()
	if _, ok := confirmations[string(what)]; ok {
		return c != nil && c.cmd.kind == subscribe || m.subs != [3]int{}
	}
	return m.subs != [3]int{} && (string(what) == "message" || string(what) == "pmessage" || string(what) == "smessage")
}

// push takes a message or a confirmation, of which the last one of several is the last reply to c.
func (l *link) push(c *call, r reply, raw []byte) {
	what := r.At(0).Bytes()
	set, ok := confirmations[string(what)]
	if !ok {
		l.owner.Load().passOn(l, raw)
		return
	}
	mine := c != nil && c.cmd.kind == subscribe && bytes.EqualFold(what, []byte(c.cmd.name))
	if mine && l.left == 0 {
		l.left = c.channels
		if l.left == 0 {
			l.left = max(1, l.subs[set])
		}
	}
	l.subscribed(set, r)
	if !mine && l.proxy.cluster != nil && string(what) == "sunsubscribe" {
		l.close(errShardMoved)
		return
	}
	if !mine {
		l.owner.Load().passOn(l, raw)
		return
	}
	if l.left--; l.left == 0 {
		l.answered(c, r, raw)
	} else {
		c.more(l, raw)
	}
}

// subscribed keeps count of the subscriptions. A confirmation has the sum of channels and patterns,
// or the number of shard channels.
func (m *matcher) subscribed(set int, r reply) {
	n, _ := r.At(2).Int()
	switch set {
	case channels:
		n -= int64(m.subs[patterns])
	case patterns:
		n -= int64(m.subs[channels])
	}
	m.subs[set] = max(0, int(n))
	m.set(stateChannels, m.subs[channels]+m.subs[patterns] > 0)
	m.set(stateShards, m.subs[shards] > 0)
}

// note keeps what the reply to c says of the connection.
func (m *matcher) note(c *call, r reply, kind redisproto.Kind) {
	failed := kind == redisproto.SimpleError
	switch c.cmd.kind {
	case auth:
		if !failed {
			m.loggedIn.Store(true)
		}
	case hello:
		if !failed {
			m.loggedIn.Store(true)
		}
		m.speaks3 = kind == redisproto.Map || m.speaks3 && kind != redisproto.Array
	case reset:
		if !failed {
			m.speaks3, m.subs = false, [3]int{}
			m.loggedIn.Store(false)
			m.set(^uint32(stateForever), false)
		}
	case quit:
		m.leaving = !failed
	case multi:
		if !failed {
			m.set(stateMulti, true)
		}
	case endMulti:
		if !failed || bytes.HasPrefix(r.Bytes(), []byte("EXECABORT")) {
			m.set(stateMulti|stateWatch, false)
		}
	case watch:
		if string(r.Bytes()) == "OK" { // not QUEUED
			m.set(stateWatch, c.cmd.name == "WATCH")
		}
	}
}

// set adds states to what stays behind on the connection, or takes them away.
func (m *matcher) set(states uint32, on bool) {
	if on {
		m.state.Or(states)
	} else {
		m.state.And(^states)
	}
}

// answered ends the call that is next, with its last reply.
func (l *link) answered(c *call, r reply, raw []byte) {
	l.next++
	kind := r.Kind()
	cmd := c.cmd
	cmd.calls.Add(1)
	if kind == redisproto.SimpleError || kind == redisproto.BulkError {
		cmd.errors.Add(1)
	}
	if l.proxy.timed && c.session != nil {
		// The upstream began with this one when it was done with those before; but of those that it
		// answered together, there is no telling which one took the time.
		took := l.now - max(c.received, l.before)
		cmd.observe(took)
		if slow := l.proxy.slow; slow > 0 && took >= slow && (c.args != "" || cmd.blocking) {
			l.slowest.add(took, c)
		}
	}
	if s := c.session; s != nil {
		l.lockSession(s)
		c.end(raw)
		s.touch(l)
	}
}

// lockSession has the reader hold the mutex of a session until it takes a reply for another one, or reads, so
// that it need not lock it for each reply.
func (l *link) lockSession(s *session) {
	if l.holds != s {
		l.unlockSession()
		s.mu.Lock()
		l.holds = s
	}
}

// unlockSession releases the mutex that the reader holds. All that may wait, or lock, is done without it.
func (l *link) unlockSession() {
	if l.holds != nil {
		l.holds.mu.Unlock()
		l.holds = nil
	}
}
