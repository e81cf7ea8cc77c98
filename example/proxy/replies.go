package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
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
//     calls and replies are not matched any more for as long as the connection lasts. All else
//     holds there too; only latency is not measured, and what is in flight when the upstream is
//     lost gets no error of its own.

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

// replies is the part of a session that the replies' goroutine owns.
type replies struct {
	toClient *bufio.Writer
	lost     error  // of writing to it
	taken    []call // from the queue; those from next on are in flight
	next     int
	done     int  // answered, but the queue has not been told
	free     bool // replies cannot be told apart any more
	left     int  // confirmations due to the call that is next, if some have come
	subs     [3]int
	resp3    bool
	closing  bool          // the last reply says that the upstream will close
	over     bool          // the last reply has been sent: the one to what was no command
	now      time.Duration // since start: when the replies at hand were read
	before   time.Duration // when those before were
	slowest  slowest
}

// fromUpstream reads for the parser, which does so when it holds no further whole reply: the time to
// send what was collected.
type fromUpstream struct{ *session }

func (s fromUpstream) Read(b []byte) (n int, err error) {
	if s.lost = s.toClient.Flush(); s.lost != nil {
		return 0, s.lost
	}
	if s.done > 0 {
		s.calls.remove(s.done)
		s.done, s.before = 0, s.now
		s.slowest.log(s.session.log)
	}
	n, err = s.upstream.Read(b)
	if s.timed {
		s.now = time.Since(s.start)
	}
	return n, err
}

// reply passes replies to the client until one of the two connections ends.
func (s *session) reply() {
	parser := redisproto.NewReplyParser(fromUpstream{s})
	// What the upstream may send is its own affair.
	parser.SetLimits(redisproto.Limits{Bulk: math.MaxInt, Total: math.MaxInt, Depth: 1 << 20})
	for {
		r, err := parser.ReadReply()
		if err != nil {
			if s.lost == nil {
				s.upstreamLost(err)
			}
			return
		}
		raw := r.Raw()
		s.closing = false
		if r.Kind() == redisproto.SimpleError {
			raw = s.errorText(raw)
		}
		if !s.free {
			s.match(r)
		}
		if _, s.lost = s.toClient.Write(raw); s.lost != nil || s.over {
			return
		}
	}
}

// errorText returns what to send in place of an error of the upstream.
func (s *session) errorText(raw []byte) []byte {
	if text := s.denial(raw); text != nil {
		return text
	}
	if bytes.HasPrefix(raw, []byte("-ERR Protocol error")) {
		head := s.head()
		if fault := s.fault.Load(); fault != nil && (head == nil || head.kind == malformed) {
			s.over = true
			return *fault
		}
		s.closing = true
	}
	return raw
}

// head returns the call in flight whose reply is due, or nil if there is none.
func (s *session) head() *call {
	if s.next == len(s.taken) && !s.free {
		s.taken, s.next = s.calls.take(s.taken), 0
	}
	if s.free || s.next == len(s.taken) {
		return nil
	}
	c := &s.taken[s.next]
	if c.last {
		c.calls.Add(1)
		s.free = true
		return nil
	}
	return c
}

// match finds the call that r answers, if any.
func (s *session) match(r redisproto.Reply) {
	c, kind := s.head(), r.Kind()
	waiting := c != nil && c.kind == subscribe
	inRESP2 := kind == redisproto.Array && !s.resp3 && (waiting || s.subs != [3]int{})
	if kind == redisproto.Push || inRESP2 {
		what := r.At(0).Bytes()
		if set, ok := confirmations[string(what)]; ok {
			waiting = waiting && bytes.EqualFold(what, []byte(c.name))
			if waiting && s.left == 0 {
				s.left = c.channels
				if s.left == 0 {
					s.left = max(1, s.subs[set])
				}
			}
			s.subscribed(set, r)
			if waiting {
				if s.left--; s.left == 0 {
					s.answered(c, r)
				}
			}
			return
		}
		if kind == redisproto.Push || isMessage(what) {
			return
		}
	}
	if c == nil {
		return // said unasked: that there are too many clients, say
	}
	switch c.kind {
	case hello:
		s.resp3 = kind == redisproto.Map || s.resp3 && kind != redisproto.Array
	case reset:
		if kind == redisproto.SimpleString {
			s.resp3, s.subs = false, [3]int{}
		}
	case leave:
		s.closing = kind == redisproto.SimpleString
	}
	s.left = 0
	s.answered(c, r)
}

// subscribed keeps count of the subscriptions. A confirmation has the sum of channels and patterns,
// or the number of shard channels.
func (s *session) subscribed(set int, r redisproto.Reply) {
	n, _ := r.At(2).Int()
	switch set {
	case channels:
		n -= int64(s.subs[patterns])
	case patterns:
		n -= int64(s.subs[channels])
	}
	s.subs[set] = max(0, int(n))
}

func isMessage(what []byte) bool {
	return string(what) == "message" || string(what) == "pmessage" || string(what) == "smessage"
}

// answered ends the call that is next, with its last reply.
func (s *session) answered(c *call, r redisproto.Reply) {
	s.next++
	s.done++
	k, failed := c.command, r.Kind() == redisproto.SimpleError || r.Kind() == redisproto.BulkError
	if !k.known.Load() {
		if failed && bytes.HasPrefix(r.Bytes(), []byte("ERR unknown command")) {
			return // names that clients invent are not kept
		}
		k = s.add(k)
	}
	if failed {
		k.errors.Add(1)
	}
	if !s.timed {
		k.calls.Add(1)
		return
	}
	// The upstream began with this one when it was done with those before; but of those that it
	// answered together, there is no telling which one took the time.
	took := s.now - max(c.received, s.before)
	k.answered(took)
	if s.slow > 0 && took >= s.slow {
		s.slowest.add(took, c)
	}
}

// slowest are the slow commands that were answered together.
type slowest struct {
	took    time.Duration // the longest
	count   int
	args    []string // of the first of them
	blocked bool     // one of them waited for others, and the rest for that
}

func (l *slowest) add(took time.Duration, c *call) {
	const most = 8
	l.took = max(l.took, took)
	l.blocked = l.blocked || c.blocking
	if l.count++; len(l.args) < most {
		l.args = append(l.args, c.args)
	}
}

func (l *slowest) log(log *slog.Logger) {
	switch {
	case l.count == 1 && !l.blocked:
		log.Warn("slow command", "took", l.took, "command", l.args[0])
	case l.count > 1 && !l.blocked:
		log.Warn("slow commands, answered together", "took", l.took, "count", l.count, "commands", strings.Join(l.args, " | "))
	}
	*l = slowest{}
}

// upstreamLost answers what is in flight with an error each: it may have been executed, so it is not
// sent again. The client's connection cannot go on, as the upstream has forgotten it.
func (s *session) upstreamLost(err error) {
	c := s.head()
	if s.closing || s.ended.Load() || c != nil && c.kind == leave {
		return
	}
	if c == nil {
		s.log.Debug("upstream closed the connection", "err", err)
		return
	}
	why := "closed the connection"
	if errors.Is(err, os.ErrDeadlineExceeded) {
		why = "did not answer before the proxy stopped"
	}
	n := 0
	for ; c != nil; c = s.head() {
		if c.kind == malformed {
			s.toClient.Write(*s.fault.Load())
			break
		}
		if s.left == 0 {
			c.errors.Add(1)
			n++
			fmt.Fprintf(s.toClient, "-ERR upstream %s %s; the command may have been executed\r\n", s.addr, why)
		}
		s.left = 0
		s.next++
	}
	s.failures.Add(1)
	s.log.Warn("upstream lost", "unanswered", n, "err", err)
}

// A queue holds the calls in flight, in order.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond // fewer are in flight, or closed
	calls   []call    // not taken yet
	flying  int       // these and those taken, but not removed
	closed  bool
}

// add adds calls. It waits while too many are in flight. It reports false when there is nobody any
// more to take them.
func (q *queue) add(calls []call) (ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(calls) > 0 && q.flying >= maxInFlight && !q.closed {
		q.changed.Wait()
	}
	q.calls = append(q.calls, calls...)
	q.flying += len(calls)
	return !q.closed
}

// take returns all calls that were added and not taken, in place of those that were taken before.
func (q *queue) take(old []call) []call {
	q.mu.Lock()
	defer q.mu.Unlock()
	if cap(old) > maxInFlight/16 {
		old = nil
	}
	old, q.calls = q.calls, old[:0]
	return old
}

// remove notes that n calls are answered, and that the client has been sent the answers.
func (q *queue) remove(n int) {
	q.mu.Lock()
	q.flying -= n
	q.changed.Signal()
	q.mu.Unlock()
}

// drained waits until no call is in flight.
func (q *queue) drained() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.flying > 0 && !q.closed {
		q.changed.Wait()
	}
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.changed.Signal()
	q.mu.Unlock()
}
