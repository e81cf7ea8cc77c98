package main

import "sync"

// Replies for a client are collected in a buffer and written when the link that brought them has no
// further whole reply. A link of the client's own waits for it to read: what it has not read then is
// the upstream's to hold. A shared link must not wait. It tries, and leaves to a goroutine of the
// session what the client does not take at once.

// buffers keeps buffers for all sessions, since most have nothing to write at any one time.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, chunk); return &b }}

func putBuffer(b *[]byte) {
	if cap(*b) <= 2*chunk {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}

// put adds bytes to what goes to the client. s.mu is held.
func (s *session) put(raw []byte) {
	if s.out == nil {
		s.out = buffers.Get().(*[]byte)
	}
	*s.out = append(*s.out, raw...)
	if s.writing && s.sharing {
		s.checkOutput()
	}
}

// checkOutput closes the client if too many bytes of replies wait for it, or for their turn. s.mu is
// held.
func (s *session) checkOutput() {
	waiting := s.held
	if s.out != nil {
		waiting += len(*s.out)
	}
	if waiting <= s.maxOutput || s.over {
		return
	}
	s.log.Warn("client closed: too many bytes of replies wait for it", "waiting", waiting)
	s.closedSlow.Add(1)
	s.end()
	s.conn.Close()
}

// touch notes that l is going to flush what goes to the client, unless some link is already. s.mu is
// held.
func (s *session) touch(l *link) {
	if !s.dirty {
		s.dirty = true
		l.dirty = append(l.dirty, s)
	}
}

// flush writes what goes to the client. For a link of the session's own it returns when that is done.
// Otherwise it does not wait for the client.
func (s *session) flush(l *link) error {
	wait := l != nil && !l.shared
	s.mu.Lock()
	defer s.mu.Unlock()
	if l != nil {
		s.dirty = false
	}
	for s.writing && wait && !s.over {
		s.changed.Wait()
	}
	if s.out == nil || s.writing {
		return nil
	}
	if s.over {
		return errOver
	}
	s.writing = true
	var err error
	for s.out != nil && err == nil {
		b := s.out
		s.out = nil
		s.mu.Unlock()
		n := 0
		if wait {
			_, err = s.conn.Write(*b)
		} else if n, err = tryWrite(s.conn, *b); n < len(*b) && err == nil {
			go s.flushSlowly(b, n)
			s.mu.Lock()
			return nil
		}
		putBuffer(b)
		s.mu.Lock()
	}
	s.wrote(err)
	return err
}

// wrote ends a turn of writing. s.mu is held.
func (s *session) wrote(err error) {
	s.writing = false
	s.changed.Broadcast()
	if err != nil {
		s.end()
	}
}

// flushSlowly writes b from byte n on, and all that is added meanwhile, waiting for the client.
func (s *session) flushSlowly(b *[]byte, n int) {
	for {
		_, err := s.conn.Write((*b)[n:])
		putBuffer(b)
		n = 0
		s.mu.Lock()
		if s.out == nil || err != nil {
			s.wrote(err)
			s.mu.Unlock()
			return
		}
		b, s.out = s.out, nil
		s.mu.Unlock()
	}
}

// flushAll writes all that goes to the client, and waits for that.
func (s *session) flushAll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing {
		s.changed.Wait()
	}
	if s.out == nil {
		return nil
	}
	b := s.out
	s.out, s.writing = nil, true
	s.mu.Unlock()
	_, err := s.conn.Write(*b)
	s.mu.Lock()
	s.wrote(err)
	return err
}

// passOn passes what is no reply to a call to the client.
func (s *session) passOn(l *link, raw []byte) {
	l.lockSession(s)
	s.put(raw)
	s.touch(l)
}
