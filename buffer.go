package redisproto

import (
	"errors"
	"io"
	"math/bits"
	"runtime"
	"sync/atomic"
	"syscall"
)

// A buffer holds the part of a stream that has been read and not used up. It is the only place that
// reads, and that takes, moves and gives back memory. It knows nothing of RESP.
//
//	data:  | used up | unread | free |            0 ≤ r ≤ w ≤ len(data)
//	       0         r        w      len(data)
//
// How large data is:
//
//	at the first read                        1 KiB
//	a read has filled it, below 32 KiB       twice as large
//	it is full of unread bytes               twice as large, or as large as what is being received,
//	                                         once a fifth of that has arrived
//	a large command or reply is used up      at most 32 KiB, unless more than that is unread
//
// So memory follows the bytes that have arrived, never a declared length. What is beyond 32 KiB is
// large memory: see below.
type buffer struct {
	rd     io.Reader
	data   []byte
	r, w   int
	floor  int   // data[:floor] is kept where it is, since views of it are in use: see pin
	last   int   // data[last:r] was taken last
	offset int64 // data[i] is byte offset+i of the stream, for i from floor on
	filled bool  // the last read left no room
	limit  int   // how large data may become at most
	err    error // of the reader, to be returned when the bytes that came with it are used up

	home  []byte // the data that is kept, of at most 32 KiB
	views list[[]byte]
	large *large // nil if none is in use
	loans int    // lists that use large memory
	spare spare
}

const (
	minHome = 1 << 10
	maxHome = 32 << 10
	maxKept = 1 << 10 // elements: what a list may keep

	streamRoom = 16 << 10 // bytes that are free, at least, behind a pinned head
	minDirect  = 4 << 10  // bytes: a read of fewer goes through data
)

var (
	errNoReader  = errors.New("redisproto: read from a parser that has no reader")
	errHasReader = errors.New("redisproto: Parse of a parser that has a reader")
	errBadCount  = errors.New("redisproto: the reader returned an impossible count from Read")
)

// reset makes b read from rd. It gives back large memory.
func (b *buffer) reset(rd io.Reader) {
	b.poison()
	b.rd, b.err, b.filled, b.offset = rd, nil, false, 0
	b.r, b.w, b.floor, b.last = 0, 0, 0, 0
	b.release()
}

// unread returns the bytes that have been read and not taken.
func (b *buffer) unread() []byte { return b.data[b.r:b.w] }

// take takes the first n unread bytes. They are valid until the next fill.
func (b *buffer) take(n int) []byte {
	b.last = b.r
	b.r += n
	return b.data[b.last:b.r:b.r]
}

// at returns the place in the stream of the unread byte i.
func (b *buffer) at(i int64) int64 { return b.offset + int64(b.r) + i }

// fill reads once, and returns an error if that brought no bytes. size is how many bytes what is
// being received has in all, or 0 if that is not known. All views of b end, but for a pinned head.
func (b *buffer) fill(size int) error {
	if b.rd == nil {
		return errNoReader
	}
	if b.err == nil {
		b.makeRoom(size)
		free := b.data[b.w:]
		n, err := b.rd.Read(free)
		if uint(n) > uint(len(free)) || n == 0 && err == nil {
			n, err = b.readAgain(free, n)
		}
		b.w += n
		b.filled = n == len(free)
		if b.err = err; n > 0 {
			return nil
		}
	}
	err := b.err
	b.err = nil
	if err == io.EOF && b.r < b.w {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// readAgain deals with a read that gave n, which is 0 or cannot be.
func (b *buffer) readAgain(free []byte, n int) (int, error) {
	if n != 0 {
		return 0, errBadCount
	}
	return (&checkedReader{b.rd}).Read(free)
}

// read reads what comes next into p: the unread bytes, or, if there are none, from the reader itself.
func (b *buffer) read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	if b.r == b.w && b.err == nil && (len(p) < minDirect || b.rd == nil) {
		if err := b.fill(0); err != nil {
			return 0, err
		}
	}
	if b.r < b.w {
		n = copy(p, b.data[b.r:b.w])
		b.r += n
		return n, nil
	}
	if err, b.err = b.err, nil; err != nil {
		return 0, err
	}
	n, err = (&checkedReader{b.rd}).Read(p)
	b.offset += int64(n)
	return n, err
}

// copyTo writes n bytes of what comes next to w. It returns how many of them are still to be read, and
// how many were written: together they are fewer than n if w fails. Those that are not in b go straight
// from rd, which is b's reader in one form or another, to w. The error is the reader's,
// io.ErrUnexpectedEOF at its end, or w's.
func (b *buffer) copyTo(w io.Writer, n int64, rd io.Reader) (left, written int64, err error) {
	if have := min(n, int64(b.w-b.r)); have > 0 {
		written, err = writeAll(w, b.take(int(have)))
		if n -= have; err != nil || n == 0 {
			return n, written, err
		}
	}
	if err, b.err = b.err, nil; err == nil {
		var k int64
		from := io.LimitedReader{R: rd, N: n}
		k, err = io.CopyBuffer(w, &from, b.data[b.floor:]) // no byte of this is unread
		b.offset += n - from.N
		n, written = from.N, written+k
	}
	if n > 0 && (err == nil || err == io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, written, err
}

// writeAll writes p to w. It returns an error if w takes less than that, also if w returns none.
func writeAll(w io.Writer, p []byte) (n int64, err error) {
	k, err := w.Write(p)
	if err == nil && k < len(p) {
		err = io.ErrShortWrite
	}
	return int64(k), err
}

// source returns the reader for a copy that nothing comes after if it fails. A connection or a file is
// handed on as it is: package net knows it by its type, and has the operating system do the copying.
// If that fails, bytes that were read but not written are lost, and nobody knows how many.
func (b *buffer) source() io.Reader {
	if isSystem(b.rd) {
		return b.rd
	}
	return &checkedReader{b.rd}
}

// isSystem reports whether r is a connection or a file, which follows the rules of io.Reader.
func isSystem(r io.Reader) bool {
	_, ok := r.(syscall.Conn)
	return ok
}

// A checkedReader returns an error where r breaks the rules of io.Reader: for a count that cannot be, and
// if it has returned neither a byte nor an error a hundred times. Without it a copy could pass on
// bytes that r never gave, panic, or never end.
type checkedReader struct{ r io.Reader }

func (c *checkedReader) Read(p []byte) (n int, err error) {
	for range 100 {
		n, err = c.r.Read(p)
		if n < 0 || n > len(p) {
			return 0, errBadCount
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// makeRoom moves the unread bytes to the front, and gives b more memory if it is full.
func (b *buffer) makeRoom(size int) {
	if b.r == b.w && b.floor == 0 {
		b.offset += int64(b.r)
		b.r, b.w, b.last = 0, 0, 0
	} else {
		b.moveTo(b.data)
	}
	if b.filled && len(b.data) < maxHome || b.w == len(b.data) {
		b.grow(size)
	}
}

// moveTo moves the pinned and the unread bytes to the front of data, which is used from now on.
func (b *buffer) moveTo(data []byte) {
	if b.floor > 0 && len(data) != len(b.data) {
		copy(data, b.data[:b.floor])
	}
	n := b.floor
	if b.r < b.w && (b.r > b.floor || len(data) != len(b.data)) {
		n += copy(data[b.floor:], b.data[b.r:b.w])
	} else {
		n += b.w - b.r
	}
	b.offset += int64(b.r - b.floor)
	b.data, b.r, b.w, b.last = data, b.floor, n, b.floor
}

// grow gives b more memory. The unread bytes are at the front.
func (b *buffer) grow(size int) {
	have := len(b.data)
	want := max(minHome, have+min(have, max(b.limit, maxHome)-have))
	if size += b.floor; size > want && size/5 <= have {
		want = size
	}
	clear(b.views.s[:cap(b.views.s)]) // so that they do not keep the old data in memory
	if want <= maxHome {
		b.home = make([]byte, 1<<bits.Len(uint(want-1)))
		b.moveTo(b.home)
		return
	}
	// The spare is not used for what is known to need only a small part of it.
	l := b.borrow()
	if len(l.data) < want || size > b.floor && len(l.data)/8 > size {
		l.data = make([]byte, want)
	}
	b.moveTo(l.data)
}

// pin takes the first n unread bytes, and keeps them valid and where they are until unpin is
// called, while reading goes on behind them.
func (b *buffer) pin(n int) []byte {
	b.moveTo(b.data)
	b.take(n)
	b.floor = n
	for len(b.data)-n < streamRoom {
		b.grow(streamRoom)
	}
	return b.data[:n:n]
}

// unpin ends the views of the pinned bytes.
func (b *buffer) unpin() {
	if raceEnabled {
		overwrite(b.data[:b.floor])
	}
	b.floor = 0
}

// poison overwrites, in builds with the race detector, what was taken last, so that a view of it
// which is held too long shows.
func (b *buffer) poison() {
	if raceEnabled {
		overwrite(b.data[b.last:b.r])
		b.last = b.r // once is enough
	}
}

func overwrite(p []byte) {
	for i := range p {
		p[i] = '?'
	}
}

// A rest reads what is unread, and then from the reader.
type rest struct{ b *buffer }

func (r rest) Read(p []byte) (int, error) { return r.b.read(p) }

// WriteTo lets io.Copy go straight from the reader to w.
func (r rest) WriteTo(w io.Writer) (n int64, err error) {
	b := r.b
	if b.r < b.w {
		if n, err = writeAll(w, b.take(b.w-b.r)); err != nil {
			return n, err
		}
	}
	if err, b.err = b.err, nil; err != nil {
		if err == io.EOF {
			err = nil
		}
		return n, err
	}
	if b.rd == nil {
		return n, errNoReader
	}
	k, err := io.Copy(w, b.source())
	b.offset += k
	return n + k, err
}

// The memory that only large commands and replies need. Between them, the parser keeps it as a spare
// that the garbage collector takes: a stream of large commands allocates nothing, and a connection
// that waits holds nothing. No other connection ever gets it, so that a view which is held too long
// can show no other client's bytes.
type large struct {
	data  []byte
	spans []span
	views [][]byte
	line  []byte
}

// borrow returns the large memory, which is in use from now on.
func (b *buffer) borrow() *large {
	if b.large == nil {
		if b.large = b.spare.take(); b.large == nil {
			b.large = new(large)
		}
	}
	return b.large
}

// release gives back large memory if nothing of it is in use any more.
func (b *buffer) release() {
	if b.large == nil {
		return
	}
	clear(b.views.s[:cap(b.views.s)])
	giveBack(&b.views, b, func(l *large) *[][]byte { return &l.views })
	if len(b.data) > maxHome {
		n := b.w - b.r
		switch {
		case n >= len(b.home) && n > len(b.data)/8:
			return
		case n < len(b.home):
			b.moveTo(b.home)
		case n < maxHome:
			b.home = make([]byte, maxHome)
			b.moveTo(b.home)
		default:
			b.spare.keep(b.large)
			b.large = &large{data: make([]byte, 2*n)}
			b.moveTo(b.large.data)
			return
		}
	}
	if b.loans == 0 {
		b.spare.keep(b.large)
		b.large = nil
	}
}

// A list is a slice whose memory is kept if it has at most maxKept elements. A longer one is large
// memory, on loan until it is given back.
type list[T any] struct {
	s    []T // the elements
	kept []T // memory
}

// grow gives l room for n more elements. of returns the place of such lists in the large memory.
func grow[T any](l *list[T], n int, b *buffer, of func(*large) *[]T) {
	want := len(l.s) + n
	if want <= maxKept {
		l.kept = append(make([]T, 0, 1<<bits.Len(uint(max(want, 8)-1))), l.s...)
		l.s = l.kept
		return
	}
	if cap(l.s) <= maxKept {
		b.loans++
	}
	spare := of(b.borrow())
	if cap(*spare) < want {
		*spare = make([]T, 0, want+len(l.s)/4) // so that growing costs linear time, however small n is
	}
	l.s, *spare = append((*spare)[:0], l.s...), nil
}

// giveBack makes l empty, and gives back what was on loan.
func giveBack[T any](l *list[T], b *buffer, of func(*large) *[]T) {
	if cap(l.s) > maxKept {
		if spare := of(b.borrow()); cap(*spare) < cap(l.s) {
			*spare = l.s
		}
		b.loans--
	}
	l.s = l.kept[:0]
}

// A spare keeps large memory until it is taken, or until the garbage collector has run.
type spare struct{ shelf *shelf }

// A shelf is an object of its own, so that the finalizer, which refers to it, does not keep the buffer in
// memory.
type shelf struct {
	large   atomic.Pointer[large]
	watched atomic.Bool
}

// A watcher is an object that nothing refers to, so that the collector finds it at its next run.
type watcher struct{ shelf *shelf }

func (s *spare) take() *large {
	if s.shelf == nil {
		return nil
	}
	return s.shelf.large.Swap(nil)
}

func (s *spare) keep(l *large) {
	if s.shelf == nil {
		s.shelf = new(shelf)
	}
	s.shelf.large.Store(l)
	if !s.shelf.watched.Swap(true) {
		runtime.SetFinalizer(&watcher{s.shelf}, (*watcher).collected)
	}
}

// collected runs after the collector has. It clears watched first, so that whatever is kept at the
// same time is watched by a new watcher or is cleared here.
func (w *watcher) collected() {
	w.shelf.watched.Store(false)
	w.shelf.large.Store(nil)
}
