package main

import (
	"errors"
	"time"
)

// Why a session reads no more.
var (
	errOver     = errors.New("the session is over")
	errDraining = errors.New("the proxy is stopping")
	errAttack   = errors.New("a browser was made to connect here")
)

// maxAhead bounds what is read from a client while its session waits for replies.
const maxAhead = 32 << 10

// An input is what a session reads from its client. The parser reads from it when it holds no further
// whole command, which is the time to send what was collected.
type input struct {
	s     *session
	ahead []byte      // what was read while the session waited
	err   error       // what ended the client's input
	grace *time.Timer // ends the session some time after that, if the client has ended its input
}

// Read reads for the parser.
func (in *input) Read(b []byte) (int, error) {
	if err := in.s.flushLinks(); err != nil {
		return 0, err
	}
	if len(in.ahead) > 0 {
		n := copy(b, in.ahead)
		in.ahead = in.ahead[n:]
		return n, nil
	}
	in.ahead = nil
	if in.err != nil {
		return 0, in.err
	}
	return in.receive(b)
}

// receive reads from the connection. Other goroutines interrupt it by a deadline in the past; why they
// did so stands in the session.
func (in *input) receive(b []byte) (int, error) {
	s := in.s
	for {
		n, err := s.conn.Read(b)
		if s.timed {
			s.received = time.Since(s.start)
		}
		if s.idle > 0 {
			s.active.Store(int64(time.Since(s.start)))
		}
		if n > 0 || err == nil {
			return n, nil
		}
		if !isTimeout(err) {
			in.noteEnd(err)
			return 0, in.err
		}
		s.mu.Lock()
		if in.err = s.inputEnd; in.err == nil { // awake has set the deadline: if there is a wait, it looks again
			s.conn.SetReadDeadline(time.Time{})
		}
		waiting := s.reading
		s.mu.Unlock()
		if in.err == errDraining {
			s.beginDrain()
		}
		if in.err != nil || waiting {
			return 0, in.err
		}
	}
}

// noteEnd notes that the client sends nothing more. It still gets the replies that are due, if they come
// soon.
func (in *input) noteEnd(err error) {
	in.err = err
	in.grace = time.AfterFunc(replyGrace, in.s.abort)
}

// open reports whether more can be read ahead.
func (in *input) open() bool { return in.err == nil && len(in.ahead) < maxAhead }

// readAhead reads once, so that the end of the client is noticed, or returns because the session's
// wait is over.
func (in *input) readAhead() {
	used := len(in.ahead)
	if cap(in.ahead) < maxAhead {
		in.ahead = append(make([]byte, 0, maxAhead), in.ahead...)
	}
	n, _ := in.receive(in.ahead[used:maxAhead])
	in.ahead = in.ahead[:used+n]
}
