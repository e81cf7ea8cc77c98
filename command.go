package redisproto

import (
	"bytes"
	"encoding/binary"
	"io"
)

// A Command is one command of a client: its name and its arguments.
//
// One that a [Parser] returned, and each view of its bytes, is valid until the next call that reads
// from the parser: ReadCommand, Parse or Reset. Clone makes a copy to keep. Every method may be called
// on a nil *Command: it has no arguments and is the last one.
//
// Args, Name, IsLast and Clone write to memory of the parser, so they must not be called by several
// goroutines at once. A clone may be read by several goroutines, but for Name.
type Command struct {
	partial
	n       int    // arguments that Get and Args show; 0 unless the command is the one returned last
	missing int    // arguments that had not arrived when the command was returned
	base    []byte // where the arguments are: the command as it came, or line
	raw     []byte // if that is line: the command as it came
	line    list[byte]
	name    [32]byte // the upper-case name, if the name was not

	// What IsLast and ReadCommand parse ahead of the caller.
	skip   int            // bytes of empty commands in front of this one
	parsed int            // bytes of this one; 0 until it is whole
	err    *ProtocolError // what there was instead

	buf     *buffer  // nil for a clone
	lim     *bounds  // of the parser
	partner *Command // the other Command of the parser, with which this one takes turns
	tail    *tail    // the rest of a command that was returned before it was whole, or nil
	last    bool     // what IsLast returns for a clone
}

func spareSpans(l *large) *[]span   { return &l.spans }
func spareViews(l *large) *[][]byte { return &l.views }
func spareLine(l *large) *[]byte    { return &l.line }

// Get returns argument i, or nil if there is none. Argument 0 is the command's name. The view is valid
// until the parser's next read; Clone the command to keep it.
func (c *Command) Get(i int) []byte {
	if c == nil || uint(i) >= uint(c.n) {
		return nil
	}
	s := c.found.s[i]
	return c.base[s.start:s.end:s.end]
}

// ArgCount returns how many arguments there are, the command's name included. For a command that is
// not whole it is the number that the client has declared.
func (c *Command) ArgCount() int {
	if c == nil {
		return 0
	}
	return c.n + c.missing
}

// Args returns all arguments, the command's name first. For a command that is not whole, it returns
// those that have arrived. The slice and the views in it are valid until the parser's next read;
// Clone the command to keep them. The slice of the parser's last Args is overwritten.
func (c *Command) Args() [][]byte {
	if c == nil || c.n == 0 {
		return nil
	}
	var views [][]byte
	if b := c.buf; b == nil {
		views = make([][]byte, 0, c.n)
	} else {
		if views = b.views.s[:0]; cap(views) < c.n {
			b.views.s = views
			grow(&b.views, c.n, b, spareViews)
			views = b.views.s
		}
	}
	views = views[:c.n]
	if c.buf != nil {
		c.buf.views.s = views
	}
	for i, s := range c.found.s[:c.n] {
		views[i] = c.base[s.start:s.end:s.end]
	}
	return views
}

// Int returns argument i as an integer, as Redis reads it: decimal, with no sign but '-', and
// without leading zeros or blanks. It reports false for anything else, and where there is no
// argument.
func (c *Command) Int(i int) (n int64, ok bool) { return parseInt(c.Get(i)) }

// Name returns argument 0 with the letters a to z in upper case, for a switch on string(c.Name()).
// The command itself stays as it came. Name allocates only for a name of more than 32 bytes with a
// small letter in it. The view is valid until the next call of Name or the parser's next read; Clone
// the command to keep it.
//
// A name may hold any byte. Redis 7.0 compares names only up to a NUL byte, so that it may run
// "FLUSHALL\x00285" as FLUSHALL. A program that decides by the name whether a command is passed on
// to a Redis must refuse a name with a NUL byte in it.
func (c *Command) Name() []byte {
	name := c.Get(0)
	for i, ch := range name {
		if 'a' <= ch && ch <= 'z' {
			return c.upper(name, i)
		}
	}
	return name
}

// upper returns a copy of name with the letters from byte i on in upper case.
func (c *Command) upper(name []byte, i int) []byte {
	up := append(c.name[:0], name...)
	for ; i < len(up); i++ {
		if ch := up[i]; 'a' <= ch && ch <= 'z' {
			up[i] = ch - ('a' - 'A')
		}
	}
	return up[:len(up):len(up)]
}

// IsLast reports whether the pipeline ends here for now: what has been received holds no further
// whole command and no protocol error, so that replies should be flushed before the next read. A part
// of a command does not count, since its sender may be waiting for the replies. IsLast does no I/O.
func (c *Command) IsLast() bool {
	switch {
	case c == nil:
		return true
	case c.buf == nil:
		return c.last
	}
	return c.buf.r == c.buf.w || c.n == 0 || c.tail != nil || !c.partner.parseAhead()
}

// Raw returns the command as it came, to be passed on: from its first byte to its last line's end.
// For a command that is not whole, it returns what is before the first byte that NextArg gives. The
// view is valid until the parser's next read; Clone the command to keep it.
func (c *Command) Raw() []byte {
	switch {
	case c == nil, c.n == 0 && c.tail == nil:
		return nil
	case len(c.line.s) > 0:
		return c.raw
	}
	return c.base
}

// Clone returns a copy that owns its bytes and stays valid. Its IsLast stays at what it is now. The
// clone of a command that is not whole is nil.
func (c *Command) Clone() *Command {
	if c == nil || c.tail != nil {
		return nil
	}
	k := &Command{last: c.IsLast()}
	k.found.s = append([]span(nil), c.found.s[:c.n]...)
	k.line.s = bytes.Clone(c.line.s)
	k.commit(bytes.Clone(c.Raw()))
	return k
}

// Whole reports whether all of the command had arrived when it was returned. If not, as may happen
// with [Limits].Stream, NextArg gives the arguments that had not, and WriteTo passes the command on.
// A command that is left alone, or read in part, is skipped by the next ReadCommand.
func (c *Command) Whole() bool { return c == nil || c.tail == nil }

// NextArg gives the arguments of a command that is not whole which had not arrived when it was
// returned: each in turn, as a reader and with its size in bytes. The reader ends at the argument's
// end. The next call of NextArg skips what is left of it, and ends the reader. After the last
// argument, and for a command that is whole, the error is io.EOF.
//
// Any other error is the connection's reader's own, and can be resumed from, or a *ProtocolError. The
// same holds for the errors of arg. After WriteTo has been used, NextArg is an error.
func (c *Command) NextArg() (arg io.Reader, size int64, err error) {
	if c.Whole() {
		return nil, 0, io.EOF
	}
	return c.tail.nextArg()
}

// WriteTo passes the command on to w as it came, from its first byte to its last. For a command that
// is not whole, it reads the rest on the way, and holds none of it. It returns how many bytes
// were written.
//
// If it fails the peer behind w has received a part of a command, and its connection cannot be used any
// more. If the command was not whole, neither can the parser's, and every read gives ErrBroken. After
// NextArg has been used, WriteTo is an error.
func (c *Command) WriteTo(w io.Writer) (int64, error) {
	if c.Whole() {
		return writeAll(w, c.Raw())
	}
	return c.tail.writeTo(w, c.base)
}

// commit makes what was found the command, whose bytes are raw.
func (c *Command) commit(raw []byte) {
	c.n, c.base = len(c.found.s), raw
	if len(c.line.s) > 0 {
		c.base, c.raw = c.line.s, raw
	}
	c.parsed, c.skip = 0, 0
}

// end makes the command one that is past: it has no arguments any more.
func (c *Command) end() {
	if raceEnabled {
		overwrite(c.line.s)
	}
	c.n, c.missing, c.base, c.raw, c.tail = 0, 0, nil, nil, nil
}

// giveBack gives back large memory. The command is past.
func (c *Command) giveBack() {
	giveBack(&c.found, c.buf, spareSpans)
	giveBack(&c.line, c.buf, spareLine)
}

// discard resets what was parsed ahead, so that the command is parsed again from its first byte.
func (c *Command) discard() {
	c.restart()
	c.skip, c.parsed, c.err = 0, 0, nil
}

// parseAhead parses what is unread, and reports whether that begins with a whole command, which
// is then in c, or with a protocol error, which is then in c.err.
func (c *Command) parseAhead() bool {
	if c.parsed > 0 || c.err != nil {
		return true
	}
	if c.skip == 0 {
		if c.parsed = c.parseSimple(c.buf.unread(), c.lim); c.parsed > 0 {
			return true
		}
	}
	return c.parseAny()
}

// parseAny is parseAhead for a command that is not simple, or has been begun.
func (c *Command) parseAny() bool {
	b := c.buf.unread()
	for c.skip < len(b) {
		n, err := c.parse(b[c.skip:], c.lim, c.buf)
		switch {
		case err != nil:
			err.Offset += c.buf.at(int64(c.skip))
			c.err = err
			return true
		case n == 0:
			return false
		case len(c.found.s) > 0:
			c.parsed = n
			return true
		}
		c.skip += n
	}
	return false
}

// parseSimple parses a command that has up to nine arguments of less than 1,000 bytes, is whole and
// within the limits, and has not been begun. Nearly all commands are such. It returns how many bytes
// the command has, or 0 for any other.
func (c *Command) parseSimple(b []byte, lim *bounds) (n int) {
	if len(b) < 4 || c.need > 0 {
		return 0
	}
	x := binary.LittleEndian.Uint32(b)
	count := int(x>>8&0xff) - '0'
	if x&^0xff00 != '*'|'\r'<<16|'\n'<<24 || count < 1 || count > min(9, lim.maxArgs, cap(c.found.s)) {
		return 0
	}
	found := c.found.s[:count]
	got, end := bulks(b, 2, lim.maxBulk, found)
	if got < count || !crlf(b[end:]) || end+2 > lim.Total {
		return 0
	}
	c.found.s, c.line.s = found, c.line.s[:0]
	return end + 2
}

// parse goes on with the command at the front of b, of which earlier calls have seen a part or
// nothing. n bytes are the command, and its arguments are in found: none for an empty command. Or n
// is 0, and the command is not whole. Large memory is that of buf.
func (c *Command) parse(b []byte, lim *bounds, buf *buffer) (n int, err *ProtocolError) {
	if len(b) < c.need {
		return 0, nil
	}
	n, err = c.parseWithin(b[:min(len(b), lim.Total)], lim, buf)
	if n == 0 && err == nil && len(b) > lim.Total {
		err = ErrTooBig.at(0)
	}
	return n, err
}

// parseWithin is parse for a b that is not longer than a command may be.
func (c *Command) parseWithin(b []byte, lim *bounds, buf *buffer) (n int, err *ProtocolError) {
	switch {
	case c.bulk > 0:
		c.takeBulk()
	case c.left == 0:
		c.found.s, c.line.s = c.found.s[:0], c.line.s[:0]
		if b[0] != '*' {
			return c.parseInline(b, lim, buf)
		}
		if n, err := c.parseCount(b, lim); c.left == 0 {
			return n, err
		}
	}
	for {
		free := c.room()
		n, end := bulks(b, c.pos, lim.maxBulk, free)
		c.found.s, c.pos, c.left = c.found.s[:len(c.found.s)+n], end, c.left-n
		if c.left == 0 {
			break
		}
		if n == len(free) {
			c.grow(c.left, buf)
			continue
		}
		h, err := c.parseArg(b, lim)
		switch {
		case h.end == 0:
			return 0, err
		case h.size > int64(lim.Total-h.end-4) && lim.Stream <= 0:
			return 0, ErrTooBig.at(0)
		case !c.awaitBulk(b, h.end, h.size):
			return 0, nil
		}
		if c.left == 0 {
			break
		}
	}
	if !crlf(b[c.pos:]) {
		return 0, ErrCRLF.at(c.pos)
	}
	c.need, c.seen = 0, 0
	return c.pos + 2, nil
}

// grow gives found room for some of the n elements to come: at most as many as there are already,
// since a declared number may be a lie.
func (t *partial) grow(n int, buf *buffer) {
	grow(&t.found, min(n, max(8, len(t.found.s))), buf, spareSpans)
}

// parseCount parses the line "*count". If it is whole and the command is not empty, the count goes
// to left. Otherwise n and err are what parse is to return.
func (c *Command) parseCount(b []byte, lim *bounds) (n int, err *ProtocolError) {
	count, end, err := c.parseHeader(b, 0, ErrMultibulkLength, ErrCountTooLong)
	switch {
	case end == 0:
		return 0, err
	case count > int64(lim.Args):
		return 0, ErrMultibulkLength.at(0)
	case count > int64(lim.maxArgs):
		return 0, ErrUnauthenticatedCount.at(0)
	case !crlf(b[end:]):
		return 0, ErrCRLF.at(end)
	case count <= 0:
		c.restart()
		return end + 2, nil
	}
	c.left, c.pos, c.seen = int(count), end, 0
	return 0, nil
}

// parseArg parses the header of an argument of any length, "$length", behind the CR LF at pos.
func (t *partial) parseArg(b []byte, lim *bounds) (h head, err *ProtocolError) {
	start := t.pos + 2
	if t.pos >= 0 && !crlf(b[t.pos:]) {
		return h, ErrCRLF.at(t.pos)
	}
	length, end, err := t.parseHeader(b, start, ErrBulkLength, ErrLengthTooLong)
	switch {
	case end == 0:
		return h, err
	case length < 0 || length > int64(lim.Bulk):
		return h, ErrBulkLength.at(start)
	case length > int64(lim.maxBulk):
		return h, ErrUnauthenticatedLength.at(start)
	case !crlf(b[end:]):
		return h, ErrCRLF.at(end)
	}
	t.seen = 0
	return head{end: end, size: length, count: -1}, nil
}

// parseHeader parses the line that begins at start: '*' or '$', and a number. end is where its CR is,
// and at least one byte is behind that. It is 0 if the line is not whole or is wrong. Errors are found
// in Redis's order: it looks for the line's end first.
func (t *partial) parseHeader(b []byte, start int, invalid, tooLong *ProtocolError) (n int64, end int, err *ProtocolError) {
	end = max(start, t.seen)
	for ; end < len(b) && b[end] != '\r'; end++ {
		if end-start == maxLine {
			return 0, 0, tooLong.at(start)
		}
		if b[end] == 0 { // it would hide the line's end from Redis
			break
		}
	}
	t.seen, t.need = end, len(b)+1
	if end == len(b) || b[end] == '\r' && end+1 == len(b) {
		return 0, 0, nil
	}
	if tooLong == ErrLengthTooLong && b[start] != '$' && b[start] != 0 {
		return 0, 0, ErrExpectedBulk.at(start).got(b[start])
	}
	n, ok := parseInt(b[min(start+1, end):end])
	if !ok || b[end] == 0 {
		return 0, 0, invalid.at(start)
	}
	return n, end, nil
}
