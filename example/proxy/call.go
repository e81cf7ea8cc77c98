package main

import (
	"os"
	"time"

	"github.com/secmask/go-redisproto"
)

// reply is a reply of the library.
type reply = redisproto.Reply

// A call is one command in flight: from when its session gives it to a link until its last reply has
// been put among what goes to the client.
//
// A call belongs to its session's goroutine until it is given to a link, and then to that link's
// reader, which answers it or gives it to another link. Its place in the order of the session, and
// what it was answered, are guarded by the session's mutex.
type call struct {
	cmd      *command
	session  *session // whose it is; nil if nobody waits for the reply
	next     *call    // in the order of the session, or among those to be used again
	received time.Duration
	size     int // bytes that it counts among those that its session has in flight

	done         bool
	silent       bool // the client has said that it wants no reply
	endsMatching bool // from its reply on, the link no longer matches replies with calls
	blocks       bool // it may wait for others
	moved        bool // it was redirected, and its session waits for it
	asking       bool // the node is told that it has been asked for by another
	own          bool // it needs a link of its session's own, if it is sent again

	reply    []byte // what came while earlier calls were not answered
	args     string // for the slow log
	channels int    // of a SUBSCRIBE or the like, as given

	// For being sent again.
	raw      []byte        // the command; nil if it must not be sent again
	node     *node         // where it was sent last, if that is by a shared link
	slot     int           // of its keys; noSlot if it has none
	attempts int           // how often it was sent again
	tryUntil time.Duration // since the proxy's start: how long to try after TRYAGAIN

	// A part of a gathered call has no place in the order; it hands its reply to the call that it is a
	// part of.
	whole *call // of which this is part number part
	part  int
	parts gatherer // of which this is the whole
	left  int      // of them, that are not answered
	held  int      // bytes of the replies to the others
}

// begin makes the next call of the session, which publish puts in flight.
func (s *session) begin(cmd *command, size int) *call {
	c := s.spare
	if c == nil {
		s.mu.Lock()
		c, s.free = s.free, nil
		s.mu.Unlock()
	}
	if c == nil {
		c = new(call)
	} else {
		s.spare = c.next
		*c = call{raw: c.raw[:0], reply: c.reply[:0]}
	}
	c.cmd, c.session, c.received, c.size, c.silent = cmd, s, s.received, size, s.silent || s.skipping
	s.fresh.add(queue{c, c, 1, size})
	return c
}

// maxKept is how many bytes of a call's command or reply are kept for the session's next call.
const maxKept = 1 << 10

// recycle takes a call that is over out of what is in flight. s.mu is held.
func (s *session) recycle(c *call) {
	s.flying.calls--
	s.flying.bytes -= c.size
	if cap(c.raw) > maxKept {
		c.raw = nil
	}
	if cap(c.reply) > maxKept {
		c.reply = nil
	}
	c.next, s.free = s.free, c
}

// more takes a reply to c that is not the last one, as the confirmation of one of several channels.
func (c *call) more(l *link, raw []byte) {
	l.lockSession(c.session)
	c.put(raw)
	c.session.touch(l)
}

// put adds a reply to what goes to the client, or keeps it until it is c's turn. s.mu is held.
func (c *call) put(raw []byte) {
	if c.silent || len(raw) == 0 {
		return
	}
	if c == c.session.flying.head {
		c.session.put(raw)
	} else {
		c.reply = append(c.reply, raw...)
		c.session.held += len(raw)
		c.session.checkOutput()
	}
}

// answer takes the last reply to c. What goes to the client is to be flushed.
func (c *call) answer(raw []byte) {
	if c.session != nil {
		c.session.mu.Lock()
		defer c.session.mu.Unlock()
		c.end(raw)
	}
}

// end takes the last reply to c. The mutex of its session is held.
func (c *call) end(raw []byte) {
	s := c.session
	if c.moved {
		c.moved = false
		s.moved--
	}
	if c.blocks {
		s.blocked--
	}
	if c.whole != nil {
		if c, raw = s.joinPart(c, raw); c == nil {
			s.awake()
			return
		}
	}
	c.put(raw)
	c.done = true
	s.advance()
}

// beginGather puts a call in flight whose reply comes of n parts. The error says that the session is
// over.
func (s *session) beginGather(cmd *command, g gatherer, n, size int) (*call, error) {
	c := s.begin(cmd, size)
	c.parts, c.left = g, n
	return c, s.sendBatches()
}

// beginPart makes a call that is part number i of whole.
func (s *session) beginPart(whole *call, i int) *call {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying.calls++
	return &call{cmd: partCommand, session: s, received: whole.received, whole: whole, part: i}
}

// partCommand is the command of all parts. They are not counted; the whole is.
var partCommand = &command{stats: &stats{}}

// dropped is a call of the proxy's own, whose reply nobody waits for.
var dropped = &call{cmd: partCommand}

// joinPart takes the reply to a part. It returns the whole and the reply to it when that was the last
// part. s.mu is held.
func (s *session) joinPart(c *call, raw []byte) (whole *call, reply []byte) {
	whole = c.whole
	if whole.held+len(raw) > s.maxOutput {
		raw = []byte(tooLargeReply)
	}
	whole.held += len(raw)
	s.held += len(raw)
	s.checkOutput()
	whole.parts.add(c.part, raw)
	s.recycle(c)
	if whole.left--; whole.left > 0 {
		return nil, nil
	}
	if next := whole.parts.next(); len(next) > 0 {
		whole.left = len(next)
		go s.sendParts(whole, next, s.cluster.current())
		return nil, nil
	}
	reply = whole.parts.append(nil)
	whole.parts = nil
	s.held -= whole.held
	whole.cmd.calls.Add(1)
	if len(reply) > 0 && reply[0] == '-' {
		whole.cmd.errors.Add(1)
	}
	if s.timed {
		whole.cmd.observe(time.Since(s.start) - whole.received)
	}
	return whole, reply
}

// advance moves the head of the order behind all calls that are done, and puts the replies that were
// kept for their turn among what goes to the client. s.mu is held.
func (s *session) advance() {
	f := &s.flying
	for f.head != nil && f.head.done {
		c := f.head
		f.head = c.next
		if f.head == nil {
			f.tail = nil
		}
		s.recycle(c)
		if f.head != nil && len(f.head.reply) > 0 {
			s.held -= len(f.head.reply)
			s.put(f.head.reply)
			f.head.reply = f.head.reply[:0]
		}
	}
	if s.queued > 0 {
		s.changed.Broadcast()
	}
	s.awake()
}

// fail answers c with an error of the proxy's own.
func (c *call) fail(text string) {
	if c.session == nil {
		return
	}
	c.cmd.errors.Add(1)
	c.answer([]byte(text))
}

// awake lets the session's goroutine know that fewer calls are in flight, if it waits for that. s.mu
// is held.
func (s *session) awake() {
	if s.awaiting && s.isCalm(s.enough) {
		s.awaiting = false
		s.changed.Broadcast()
		if s.reading {
			s.conn.SetReadDeadline(past)
		}
	}
}

// isCalm reports whether no more than n calls are in flight, and few bytes of commands. s.mu is held.
func (s *session) isCalm(n int) bool {
	return s.flying.calls <= n && s.flying.bytes <= maxFlyingBytes/2
}

// await sends what was collected, and returns when no more than n calls of s are in flight, with few bytes
// of commands. The error says that the session is over.
func (s *session) await(n int) error {
	if err := s.flushLinks(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wait(n)
}

// wait is await for what is in flight. What the client sends meanwhile is read, up to a bound, so that
// its end is noticed. s.mu is held, but not while it waits.
func (s *session) wait(n int) error {
	for !s.isCalm(n) {
		if s.over {
			return errOver
		}
		s.awaiting, s.enough = true, n
		if !s.in.open() {
			if s.inputEnd == errDraining { // which the session notices only here, since it does not read
				s.beginDrain()
			}
			s.changed.Wait()
			continue
		}
		s.reading = true
		s.mu.Unlock()
		s.in.readAhead()
		s.mu.Lock()
		s.reading = false
	}
	s.awaiting = false
	s.measure()
	if s.over {
		return errOver
	}
	return nil
}

// past is a deadline that makes a read return at once.
var past = time.Unix(1, 0)

func isTimeout(err error) bool { return os.IsTimeout(err) }
