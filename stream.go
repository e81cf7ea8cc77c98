package redisproto

import (
	"bytes"
	"errors"
	"io"
)

// An input is what both parsers are made of: where they read from, within which limits, and what is
// left of a command or a reply that they returned before it was whole.
type input struct {
	buf    buffer
	lim    bounds
	limits Limits // what SetLimits was given
	tail   tail
	broken bool // a protocol error has been returned
	push   bool // Parse is used
}

// reset makes in read from r.
func (in *input) reset(r io.Reader) {
	in.buf.reset(r)
	in.tail.buf = &in.buf
	in.tail.end()
	in.broken, in.push = false, false
}

// setLimits makes l the limits.
func (in *input) setLimits(l Limits) {
	in.limits = l
	if in.push {
		l.Stream = 0
	}
	in.lim = l.bounds()
	in.buf.limit = in.lim.bufferLimit()
}

// Buffered returns how many bytes have been read that belong to nothing that was returned so far. What
// has not been read of a command or a reply that is not whole is counted too.
func (in *input) Buffered() int { return in.buf.w - in.buf.r }

// Rest returns a reader of the bytes that belong to nothing that was returned so far, even if IsLast
// has looked at them, and then of what the parser's own reader has. It is for leaving RESP on a
// connection: after an upgrade, or after PSYNC, whose reply is followed by a file. The parser must not
// be used any more, but for Reset. If what was returned last is not whole, read all of it first. After
// a protocol error, what was buffered is gone.
func (in *input) Rest() io.Reader { return rest{&in.buf} }

// fail makes err the last error before ErrBroken. What is unread is of no use any more.
func (in *input) fail(err error) error {
	in.broken = true
	in.buf.take(in.Buffered())
	return err
}

// finish passes over what is left of the tail, if there is one, and sets it to nil. After an error of
// the reader it can be called again.
func (in *input) finish(t **tail) error {
	if *t == nil {
		return nil
	}
	err := (*t).skip()
	if err != nil && (*t).broken == nil {
		return err
	}
	*t = nil
	if err != nil {
		return in.fail(err)
	}
	in.buf.unpin()
	return nil
}

// A tail is what is still to come of a command or a reply that was returned before it was whole. It
// is passed on, or skipped, without being held; its framing is checked on the way.
//
// The bytes that had arrived, its head, are pinned in the buffer. The embedded nest counts the
// elements to come. Its positions count from the first unread byte: pos is that of the CR LF which
// ends the last element, or -2 if that has been taken already.
type tail struct {
	nest
	buf  *buffer
	lim  bounds                                                         // those that held when it began
	next func(t *partial, b []byte, lim *bounds) (head, *ProtocolError) // parses an element's first line
	use  use

	length int64 // bytes of the string that is being passed, or was passed last
	rest   int64 // those that are still to come
	// arriving is true if the head ends with the header of a string, whose bytes come next, until
	// NextArg has returned that string.
	arriving bool
	text     int64 // bytes that have been passed of a line that is not whole, its type included; 0 for none
	reply    bool  // this is the rest of a reply, not of a command
	turn     int   // counts the strings, so that the reader of an earlier one ends
	done     bool
	broken   error // why nothing more can be read
}

// use says how the owner reads a tail.
type use int

const (
	unused  use = iota
	inParts     // NextArg or Body
	asOne       // WriteTo
)

var errMixedUse = errors.New("redisproto: WriteTo cannot be used together with NextArg or Body, and only once")

// begin starts t behind the first n unread bytes, which are pinned and returned.
func (t *tail) begin(n int, lim *bounds) (head []byte) {
	head = t.buf.pin(n)
	t.lim = *lim
	t.restart()
	t.pos, t.open, t.total = -2, t.open[:0], 0
	t.use, t.arriving, t.text, t.done, t.broken = unused, false, 0, false, nil
	t.length, t.rest = 0, 0
	t.turn++
	return head
}

// arrive says that the header of a string of size bytes has been passed.
func (t *tail) arrive(size int64) {
	t.left--
	t.pos, t.arriving = 0, true
	t.length, t.rest = size, size
}

// fail makes err the last thing that is read of the stream.
func (t *tail) fail(err error) error {
	t.broken = ErrBroken
	return err
}

// protocolError is fail for an error whose offset counts from the first unread byte.
func (t *tail) protocolError(err *ProtocolError) error {
	err.Offset += t.buf.at(0)
	if t.reply {
		err = replyError(err)
	}
	return t.fail(err)
}

// fill reads more.
func (t *tail) fill() error { return noEOF(t.buf.fill(0)) }

// noEOF returns err, or io.ErrUnexpectedEOF if it is io.EOF.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// writeTo writes head and passes the rest on.
func (t *tail) writeTo(w io.Writer, head []byte) (int64, error) {
	switch {
	case t.broken != nil:
		return 0, t.broken
	case t.use != unused:
		return 0, errMixedUse
	}
	t.use = asOne
	n, err := writeAll(w, head)
	if err == nil {
		var passed int64
		passed, err = t.pass(w)
		n += passed
	}
	if err != nil {
		t.broken = ErrBroken
	}
	return n, err
}

// end ends the readers of t, and lets nobody begin to read it.
func (t *tail) end() {
	t.use = asOne
	t.turn++
}

// skip passes over what is left. It can be called again after an error of the reader.
func (t *tail) skip() error {
	if t.broken != nil {
		return t.broken
	}
	t.end()
	_, err := t.pass(io.Discard)
	return err
}

// pass writes everything to w that is still to come.
func (t *tail) pass(w io.Writer) (n int64, err error) {
	for !t.done && err == nil {
		switch {
		case t.broken != nil:
			return n, t.broken
		case t.rest > 0:
			var written int64
			t.rest, written, err = t.buf.copyTo(w, t.rest, t.buf.source())
			n += written
			continue
		}
		k, perr := t.scan(t.buf.unread())
		if perr != nil {
			return n, t.protocolError(perr)
		}
		if k > 0 {
			var written int64
			written, err = writeAll(w, t.buf.take(k))
			n += written
			t.pos, t.seen = max(t.pos-k, -2), max(t.seen-k, 0)
		}
		if err == nil && !t.done && t.rest == 0 {
			err = t.fill()
		}
	}
	return n, err
}

// scan checks the framing of b, which is unread. n bytes of it can be passed on. Then either t is done, or
// rest bytes of a string come next, or more bytes are needed.
func (t *tail) scan(b []byte) (n int, err *ProtocolError) {
	for {
		if t.text > 0 {
			if more, err := t.scanText(b); more || err != nil {
				return max(t.pos, 0), err
			}
		}
		for t.left == 0 && len(t.open) > 0 {
			t.leave()
		}
		switch {
		case t.pos > len(b)-2:
			return max(t.pos, 0), nil
		case t.left == 0 && !crlf(b[t.pos:]):
			return 0, ErrCRLF.at(t.pos)
		case t.left == 0:
			t.done = true
			return t.pos + 2, nil
		}
		start := t.pos + 2
		h, err := t.next(&t.partial, b, &t.lim)
		switch {
		case err != nil:
			return 0, err
		case h.end == 0:
			return t.incomplete(b, start), nil
		}
		if !h.isAttribute {
			t.left--
		}
		t.pos, t.seen = h.end, 0
		switch {
		case h.count >= 0:
			if err := t.enter(h, start, 0, &t.lim); err != nil {
				return 0, err
			}
		case h.size > int64(len(b)-h.end-2):
			t.length, t.rest, t.pos = h.size, h.size, h.end+2
			return t.pos, nil
		case h.size >= 0:
			t.pos = h.end + 2 + int(h.size)
		}
	}
}

// incomplete returns how many bytes can be passed on if the line at start is not whole: those before
// it, or, if it is a line of text that is too long to be held, what has arrived of it.
func (t *tail) incomplete(b []byte, start int) (n int) {
	if !t.reply || t.seen-start < minDirect {
		return max(t.pos, 0)
	}
	t.text = int64(t.seen - start)
	t.pos = t.seen
	return t.seen
}

// scanText goes on with a line of text of which a part has been passed on. It reports whether more
// bytes are needed. Otherwise the line is whole, and pos is where its CR is.
func (t *tail) scanText(b []byte) (more bool, err *ProtocolError) {
	t.pos = lineEnd(b, 0)
	t.text += int64(t.pos)
	switch {
	case t.text-1 > int64(t.lim.Bulk):
		err = ErrBulkLength.at(t.pos)
		err.Offset -= t.text
		return false, err
	case t.pos >= len(b)-1:
		if t.pos == len(b)-1 && b[t.pos] == '\n' {
			return false, ErrCRLF.at(t.pos)
		}
		return true, nil
	case !crlf(b[t.pos:]):
		return false, ErrCRLF.at(t.pos)
	}
	t.text = 0
	t.left--
	return false, nil
}

// nextArg is NextArg of the command that t is the rest of.
func (t *tail) nextArg() (io.Reader, int64, error) {
	switch {
	case t.broken != nil:
		return nil, 0, t.broken
	case t.use == asOne:
		return nil, 0, errMixedUse
	}
	t.use = inParts
	t.turn++
	if t.arriving {
		t.arriving = false
		return &tailReader{t, t.turn}, t.length, nil
	}
	if t.rest > 0 {
		left, _, err := t.buf.copyTo(io.Discard, t.rest, t.buf.rd)
		if t.rest = left; err != nil {
			return nil, 0, err
		}
	}
	if t.left == 0 {
		return nil, 0, t.finish()
	}
	for {
		if b := t.buf.unread(); t.pos <= len(b)-2 {
			h, err := t.next(&t.partial, b, &t.lim)
			if err != nil {
				return nil, 0, t.protocolError(err)
			}
			if h.end > 0 {
				t.buf.take(h.end + 2)
				t.left--
				t.pos, t.length, t.rest = 0, h.size, h.size
				return &tailReader{t, t.turn}, h.size, nil
			}
		}
		if err := t.fill(); err != nil {
			return nil, 0, err
		}
	}
}

// finish takes the CR LF behind the last string, and returns io.EOF.
func (t *tail) finish() error {
	if t.done {
		return io.EOF
	}
	err := t.checkEnd()
	if err == io.EOF {
		t.buf.take(2)
		t.done = true
	}
	return err
}

// A tailReader reads one string of a tail.
type tailReader struct {
	*tail
	mine int // tail.turn while it is this string's
}

func (r *tailReader) Read(p []byte) (n int, err error) {
	t := r.tail
	switch {
	case t.turn != r.mine:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	case t.text > 0:
		return t.readText(p)
	case t.rest == 0:
		return 0, t.checkEnd()
	}
	n, err = t.buf.read(p[:min(int64(len(p)), t.rest)])
	t.rest -= int64(n)
	return n, noEOF(err)
}

// WriteTo lets io.Copy go on without a buffer of its own. It counts each byte that was read, so that what
// is left can be skipped if w fails.
func (r *tailReader) WriteTo(w io.Writer) (n int64, err error) {
	t := r.tail
	if t.turn != r.mine {
		return 0, nil
	}
	switch {
	case t.text > 0:
		return io.Copy(w, struct{ io.Reader }{r})
	case t.rest > 0:
		t.rest, n, err = t.buf.copyTo(w, t.rest, &checkedReader{t.buf.rd})
	}
	if err == nil {
		err = t.checkEnd()
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

// readText reads a part of a line of text.
func (t *tail) readText(p []byte) (n int, err error) {
	if t.broken != nil {
		return 0, t.broken
	}
	for len(t.buf.unread()) == 0 {
		if err := t.fill(); err != nil {
			return 0, err
		}
	}
	b := t.buf.unread()
	b = b[:min(len(b), len(p))]
	n = copy(p, b[:lineEnd(b, 0)])
	switch {
	case n == 0 && b[0] == '\n':
		return 0, t.protocolError(ErrCRLF.at(0))
	case n == 0:
		return 0, t.checkEnd()
	}
	if t.text += int64(n); t.text-1 > int64(t.lim.Bulk) {
		err := ErrBulkLength.at(n)
		err.Offset -= t.text
		return 0, t.protocolError(err)
	}
	t.buf.take(n)
	return n, nil
}

// checkEnd returns io.EOF if a CR LF follows the string that has been read.
func (t *tail) checkEnd() error {
	if t.broken != nil {
		return t.broken
	}
	for len(t.buf.unread()) < 2 {
		if err := t.fill(); err != nil {
			return err
		}
	}
	if !crlf(t.buf.unread()) {
		return t.protocolError(ErrCRLF.at(0))
	}
	return io.EOF
}

// body is Body of the reply that t is the rest of.
func (t *tail) body() io.Reader {
	switch {
	case t.broken != nil:
		return errorReader{t.broken}
	case t.use == asOne:
		return errorReader{errMixedUse}
	case !t.arriving && t.text == 0:
		return bytes.NewReader(nil)
	}
	t.use = inParts
	return &tailReader{t, t.turn}
}

// An errorReader reads nothing but an error.
type errorReader struct{ error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.error }
