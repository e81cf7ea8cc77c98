package main

import "sync"

// To put a call in flight takes two locks: that of its session, for its place in the order, and that of
// its link. So a session collects what it has for its links, and puts in flight at once what its client
// sent at once.

// A batch is what a session has for one link: calls, and their bytes.
type batch struct {
	link  *link
	calls []*call
	out   []byte
}

// batches keeps batches for all sessions, since most have nothing to send at any one time.
var batches = sync.Pool{New: func() any { return &batch{out: make([]byte, 0, chunk)} }}

// A queue is some calls of a session, in the order of its commands.
type queue struct {
	head, tail *call
	calls      int
	bytes      int // of their commands
}

// add puts calls behind those of the queue.
func (q *queue) add(more queue) {
	if q.tail == nil {
		q.head = more.head
	} else {
		q.tail.next = more.head
	}
	q.tail = more.tail
	q.calls += more.calls
	q.bytes += more.bytes
}

// give adds a command to the batch for l. k is nil if the link does not match replies with calls.
func (s *session) give(l *link, k *call, raw []byte) error {
	b := s.batchFor(l)
	if k != nil {
		b.calls = append(b.calls, k)
	}
	b.out = append(b.out, raw...)
	if len(b.out) < chunk {
		return nil
	}
	return s.sendBatches()
}

// batchFor returns the batch for l.
func (s *session) batchFor(l *link) *batch {
	for _, b := range s.batches {
		if b.link == l {
			return b
		}
	}
	b := batches.Get().(*batch)
	b.link = l
	s.batches = append(s.batches, b)
	return b
}

// flushLinks sends what was collected: the commands to the links, and the answers of the proxy's own to
// the client.
func (s *session) flushLinks() error {
	if err := s.sendBatches(); err != nil || !s.sharing {
		return err
	}
	s.flush(nil)
	return nil
}

// sendBatches puts in flight what was collected. An error says that the session is over.
func (s *session) sendBatches() error {
	err := s.publish()
	for i, b := range s.batches {
		if err == nil {
			err = s.sendBatch(b)
		}
		clear(b.calls)
		*b = batch{calls: b.calls[:0], out: b.out[:0]}
		if cap(b.out) <= 2*chunk {
			batches.Put(b)
		}
		s.batches[i] = nil
	}
	s.batches = s.batches[:0]
	return err
}

// sendBatch gives a batch to its link. If a shared link is lost, another one gets the calls.
func (s *session) sendBatch(b *batch) error {
	switch l := b.link; {
	case l.send(b.calls, b.out):
		return l.flush()
	case !l.shared:
		return errOver
	}
	<-b.link.done // so that the calls which the link still had are sent again before these
	for _, k := range b.calls {
		s.sendAgain(resending{c: k, n: k.node})
	}
	return nil
}

// publish puts the calls that were begun in the order of the session, where the links can answer them.
// While a call was redirected, this waits until nothing is in flight, so that nothing of the same client
// overtakes it. The error says that the session is over.
func (s *session) publish() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved > 0 && (s.fresh.head != nil || len(s.batches) > 0) {
		if err := s.wait(0); err != nil {
			return err
		}
	}
	if s.fresh.head != nil {
		s.flying.add(s.fresh)
		s.fresh = queue{}
	}
	s.measure()
	return nil
}

// measure notes how much more may be put in flight. s.mu is held.
func (s *session) measure() {
	s.room, s.roomBytes = s.maxFlying-s.flying.calls, maxFlyingBytes-s.flying.bytes
}

// isCrowded reports whether so much is in flight that no more is to be added.
func (s *session) isCrowded() bool { return s.fresh.calls >= s.room || s.fresh.bytes >= s.roomBytes }
