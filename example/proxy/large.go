package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"time"

	"github.com/secmask/go-redisproto"
)

// Commands and replies that are larger than this are not held, but passed on while they arrive.
const maxWhole = 64 << 10

// On a link of its session's own, a large reply goes straight from the node to the client, at the pace of
// the slower one. On a shared link it must not keep others waiting for a slow client. If the command
// only reads, the reply is dropped, and the command is sent again on a link of the session's own.
// Otherwise the client gets some time to take it.

// stall bounds how long the reader of a shared link waits for one client, for a reply that cannot be asked
// for again, because its command may have changed something.
const stall = 2 * time.Second

var errTooSlow = errors.New("the client does not take a large reply in time")

// takeLarge takes a reply on a link of a session's own that is not whole yet.
func (l *link) takeLarge(s *session, r reply) error {
	l.unlockSession()
	kind := r.Kind()
	c := l.expected()
	if kind == redisproto.Push || kind == redisproto.Array && !l.speaks3 && l.subs != [3]int{} {
		c = nil // it is a message
	}
	if c != nil && (c.session == nil || c.whole != nil) {
		return l.takeLargePart(c, r)
	}
	err := s.passLarge(l, c, r)
	if err == errOutOfTurn {
		l.note(c, r, kind)
		return l.takeLargePart(c, r)
	}
	if err != nil || c == nil {
		return err
	}
	l.left = 0
	l.note(c, r, kind)
	l.answered(c, r, nil)
	return nil
}

// errOutOfTurn says that a large reply cannot wait for its turn.
var errOutOfTurn = errors.New("an earlier call is sent again")

// passLarge passes a reply on when it is its call's turn, behind what was put there before. If an earlier
// call is sent again, that may be on the same link, whose reader must not wait for it: the reply has to
// be held.
func (s *session) passLarge(l *link, c *call, r reply) error {
	if c != nil && c.silent {
		return nil // the next read of the link skips it
	}
	if err := l.settle(); err != nil {
		return err
	}
	s.mu.Lock()
	s.queued++
	for !s.over && (s.writing || c != nil && c != s.flying.head) {
		if c != nil && c != s.flying.head && (s.moved > 1 || s.moved == 1 && !c.moved) {
			s.queued--
			s.mu.Unlock()
			return errOutOfTurn
		}
		s.changed.Wait()
	}
	s.queued--
	for s.out != nil && !s.over {
		s.mu.Unlock()
		if s.flush(l) != nil {
			return errOver
		}
		s.mu.Lock()
	}
	if s.over {
		s.mu.Unlock()
		return errOver
	}
	s.writing = true
	s.mu.Unlock()
	_, err := r.WriteTo(s.conn)
	s.mu.Lock()
	s.wrote(err)
	s.mu.Unlock()
	if isWriteError(err) {
		return errOver // the client is gone, and the upstream is as it was
	}
	return err
}

// isWriteError reports whether an error of copying from one connection to another is one of writing.
func isWriteError(err error) bool {
	var inner *net.OpError
	for op := (*net.OpError)(nil); errors.As(err, &op); err = op.Err {
		inner = op
	}
	return inner != nil && inner.Op == "write"
}

// takeLargeShared takes a reply on a shared link that is not whole yet.
func (l *link) takeLargeShared(c *call, r reply) error {
	l.unlockSession()
	s := c.session
	if s == nil || c.whole != nil {
		return l.takeLargePart(c, r)
	}
	if s.holdReads(c) {
		l.next++
		s.large.Store(largeFor)
		c.own = true
		s.sendAgain(resending{c: c, n: l.node}) // and the next read of this link skips the reply
		return nil
	}
	if _, err := r.WriteTo(&slowClientWriter{s: s, c: c}); err != nil {
		return err // of reading from the link: slowClientWriter gives none
	}
	l.answered(c, r, nil)
	return nil
}

const tooLargeReply = "-ERR a reply of a node is larger than the proxy may hold, see -output\r\n"

// takeLargePart takes a reply that is to be put together with others, so that it must be held.
func (l *link) takeLargePart(c *call, r reply) error {
	held := &bounded{most: l.proxy.maxOutput, drop: true}
	if _, err := r.WriteTo(held); err != nil {
		return err
	}
	raw := held.Bytes()
	if held.over {
		raw = []byte(tooLargeReply)
	}
	l.answered(c, r, raw)
	return nil
}

// largeFor is for how many commands a session uses links of its own after it got a large reply.
const largeFor = 64

// holdReads has the session send nothing more until c is answered, if c, and all that is in flight behind
// it, only reads, so that c can be sent again behind the others without any difference.
func (s *session) holdReads(c *call) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := c; k != nil; k = k.next {
		if info := k.cmd.info; len(k.raw) == 0 || info == nil || !info.has(flagReadonly) {
			return false
		}
	}
	c.markMoved()
	return true
}

// markMoved has the session send nothing more until c is answered. The mutex of the session is held.
func (c *call) markMoved() {
	if !c.moved {
		c.moved = true
		c.session.moved++
		c.session.changed.Broadcast()
	}
}

// A slowClientWriter writes a large reply of a shared link to one client, and waits for that for up to stall.
// Write never fails, so that the rest of the reply is always read from the link.
type slowClientWriter struct {
	s      *session
	c      *call
	waited time.Duration
	gaveUp bool
}

func (p *slowClientWriter) Write(b []byte) (int, error) {
	if !p.gaveUp {
		p.gaveUp = !p.pass(b)
	}
	return len(b), nil
}

// pass puts b among what goes to the client, once that has taken what was put there before. It
// reports false if the client is closed.
func (p *slowClientWriter) pass(b []byte) bool {
	s := p.s
	s.mu.Lock()
	over := s.over
	if !over {
		p.c.put(b)
	}
	s.mu.Unlock()
	s.flush(nil)
	for begun := time.Now(); !over; {
		s.mu.Lock()
		over = s.over
		waiting := s.held
		if s.out != nil {
			waiting += len(*s.out)
		}
		s.mu.Unlock()
		if waiting < s.maxOutput/2 {
			return true
		}
		if p.waited+time.Since(begun) > stall {
			s.log.Warn("client closed", "err", errTooSlow)
			s.closedSlow.Add(1)
			s.abort()
			return false
		}
		time.Sleep(time.Millisecond)
		p.waited += time.Since(begun)
		begun = time.Now()
	}
	return false
}

// passLargeCommand sends a command that is not whole yet on a link of the session's own. k is nil if
// its reply cannot be told apart.
func (s *session) passLargeCommand(l *link, k *call, c *redisproto.Command) error {
	// All that was given to links before is sent now: while c is passed on, its reader must have none of
	// that to flush.
	if err := s.flushLinks(); err != nil {
		return errOver
	}
	err := l.writeLarge(k, c)
	switch {
	case err == nil, err == errOver:
	case isWriteError(err):
		l.conn.Close() // the reader sees to the rest
	default: // the client has sent a part of a command, so that the link is not of use any more
		if k != nil {
			s.mu.Lock()
			k.silent = true
			s.mu.Unlock()
		}
		l.finish() // but what was sent before it is answered
	}
	return err
}

// writeLarge writes a command while it arrives. It returns errOver if the link is lost.
func (l *link) writeLarge(k *call, c *redisproto.Command) error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.mu.Lock()
	lost := l.err
	if k != nil && lost == nil {
		l.sent = append(l.sent, k)
		l.uploading.Store(k)
	}
	l.mu.Unlock()
	if lost != nil {
		return errOver
	}
	n, err := c.WriteTo(uploader{l})
	l.conn.SetWriteDeadline(time.Time{})
	l.uploading.Store(nil)
	l.proxy.bytesUp.Add(n)
	return err
}

// An uploader writes a large command to its link. The node gets as much time for each part of it as for an
// answer, and the client gets all the time that it wants.
type uploader struct{ l *link }

func (u uploader) Write(b []byte) (int, error) {
	u.l.conn.SetWriteDeadline(time.Now().Add(u.l.proxy.answerTimeout))
	return u.l.conn.Write(b)
}

// readWhole returns a command that was not whole once it is, for one that must be looked at as a whole. It
// is valid until the parser's next read.
func (s *session) readWhole(c *redisproto.Command) (*redisproto.Command, error) {
	w := &bounded{most: s.maxOutput}
	if _, err := c.WriteTo(w); err != nil {
		return nil, err
	}
	var parser redisproto.Parser
	parser.SetLimits(redisproto.Limits{Bulk: w.most, Total: w.most})
	whole, _, err := parser.Parse(w.Bytes())
	if whole == nil && err == nil {
		err = io.ErrUnexpectedEOF
	}
	return whole, err
}

var errTooLarge = errors.New("a command is larger than the proxy may hold")

// bounded is a buffer of at most so many bytes.
type bounded struct {
	bytes.Buffer
	most int
	drop bool // what is too much is dropped, and is no error
	over bool // there was too much
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.over = b.over || b.Len()+len(p) > b.most; b.over {
		if b.Reset(); b.drop {
			return len(p), nil
		}
		return 0, errTooLarge
	}
	return b.Buffer.Write(p)
}
