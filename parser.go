// Package redisproto reads and writes RESP, the protocol of Redis, without copying and without
// garbage.
//
// A [Parser] reads commands from a connection; the arguments of a [Command] are views into the
// parser's buffer. A [Writer] writes replies through a bufio.Writer. For the other end of the
// connection, [Writer.WriteCommand] writes commands and [Parser.ReadReply] reads replies. Requests
// are read as Redis reads them, to the byte; where this package is stricter, the errors say so.
package redisproto

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"math"
	"math/bits"
	"slices"
	"weak"
)

// This file, from the outside in:
//
//	Parser    owns the buffer: reads into it, moves it, grows it, gives it back
//	Command   owns the state of one command: parse goes on where it stopped
//	bulks, parseHeader, ...  look at bytes and say what they found; they keep nothing
//
// The Parser's buffer, of which a command is never moved while a view of it is alive:
//
//	buf:  | used up | last command | what is to come | free  |
//	      0                        r                 w       len(buf)
//
// Two Commands take turns: one is the caller's, the other is parsed ahead from r when IsLast asks,
// and by ReadCommand otherwise. Positions in a Command count from its first byte, so that the
// buffer can move under a command that is not whole yet. Replies, of reply.go, are read into the
// same buffer, by one record that is in use instead.

// Defaults of [Limits]: what a zero field means. A Parser reads them in NewParser, in Reset and when
// its Limits have changed, and [Command.Parse] at each call: set them before the first is made.
var (
	MaxNumArg     = math.MaxInt32 // arguments in a command, as in Redis
	MaxBulkSize   = 512 << 20     // bytes in an argument: Redis's proto-max-bulk-len
	MaxTelnetLine = maxLine       // bytes in the line of an inline command, without its LF
)

const (
	maxLine  = 64 << 10 // bytes of a header line without its end, as in Redis
	maxTotal = 1 << 30  // bytes in a command: Redis's client-query-buffer-limit

	maxDepthRead = 128 // aggregates within each other

	unauthenticatedArgs = 10       // what Redis holds a client to before AUTH
	unauthenticatedBulk = 16 << 10 // bytes
)

// Limits bound what a peer may send. They are checked when a length is read, before any memory is
// sought for it. A zero field means the default. They may be changed between two calls of
// ReadCommand or ReadReply, and hold from the next command or reply on; for one that is received
// in part they hold from its start.
type Limits struct {
	Args   int // arguments in a multibulk command; elements in a reply, nested ones too; default MaxNumArg
	Bulk   int // bytes in one argument of a multibulk command, or one string of a reply; default MaxBulkSize
	Inline int // bytes in an inline command without its LF; default MaxTelnetLine; negative refuses them
	Total  int // bytes of one command or reply as it is on the wire; default 1 GiB, at most 2 GiB - 2
	Depth  int // aggregates within each other in a reply; default 128

	// Unauthenticated holds a multibulk command to 10 arguments of 16 KiB each, with an error
	// text of its own, as Redis does before AUTH when a password is required.
	Unauthenticated bool
}

// equal is ==, which the compiler makes a call of.
func (l *Limits) equal(m *Limits) bool {
	return l.Args == m.Args && l.Bulk == m.Bulk && l.Inline == m.Inline && l.Total == m.Total &&
		l.Depth == m.Depth && l.Unauthenticated == m.Unauthenticated
}

// bounds are Limits with their defaults filled in, and what they come to.
type bounds struct {
	Limits
	args, bulk int    // Args and Bulk, or less before AUTH
	of         Limits // what they were made of
}

func (l Limits) bounds() bounds {
	b := bounds{Limits: l, of: l}
	b.Args = cmp.Or(l.Args, MaxNumArg)
	b.Bulk = cmp.Or(l.Bulk, MaxBulkSize)
	b.Total = max(1, min(cmp.Or(l.Total, maxTotal), math.MaxInt32-1)) // so that one byte more is an int32 too
	b.Inline = min(cmp.Or(l.Inline, MaxTelnetLine), b.Total)
	b.Depth = cmp.Or(l.Depth, maxDepthRead)
	b.args, b.bulk = b.Args, b.Bulk
	if l.Unauthenticated {
		b.args, b.bulk = min(b.args, unauthenticatedArgs), min(b.bulk, unauthenticatedBulk)
	}
	return b
}

// A span is where an argument stands, counted from the first byte of its base.
type span struct{ start, end uint32 }

// A partial is what is known of a command or a reply of which a part is there. All positions count
// from its first byte, so that the bytes can move.
type partial struct {
	found []span // so far
	left  int    // arguments, or elements of an aggregate, still to come; 0 before the count is known
	pos   int    // of the CR LF that ends what was parsed last
	bulk  int    // of the payload being waited for; 0 for none
	need  int    // bytes from the first one without which nothing more can be said
	seen  int    // bytes searched for the end of a line
}

// awaitBulk takes the bulk of length bytes whose header's CR LF is at end, or waits for it. It
// reports whether the bulk is whole.
func (t *partial) awaitBulk(b []byte, end, length int) (ok bool) {
	t.bulk = end + 2
	t.need = t.bulk + length + 2
	if len(b) < t.need {
		return false
	}
	t.takeBulk()
	return true
}

// takeBulk takes the bulk that was waited for.
func (t *partial) takeBulk() {
	t.pos = t.need - 2
	t.found = append(t.found, span{uint32(t.bulk), uint32(t.pos)})
	t.left--
	t.bulk = 0
}

// A Command is one command of a client: its name and arguments.
//
// One that a [Parser] returned, and each view of its bytes, is valid until the parser's next
// ReadCommand, ReadReply or Reset; Clone makes a copy to keep. Every method may be called on a nil
// *Command: it has no arguments and is the last one. Args and Name write to memory of the Command,
// so they are not for several goroutines at once.
type Command struct {
	partial         // where the arguments are in base: one is base[start:end]
	n       int     // arguments; 0 until all are there
	base    []byte  // the command as it came, or line where an inline command had quotes
	raw     []byte  // in that case, the command as it came
	p       *Parser // whose command it is
	last    bool    // without p: what IsLast answers
	skip    int     // Parse: bytes of empty commands before this one

	line  []byte   // an inline command with its quotes taken out
	views [][]byte // what Args returned
	name  [32]byte // what Name returned, if it had to be changed
}

// Get returns argument i, or nil where there is none; 0 is the command's name. The view is valid
// until the parser's next read or Reset; Clone the command to keep it.
func (c *Command) Get(i int) []byte {
	if c == nil || uint(i) >= uint(c.n) {
		return nil
	}
	s := c.found[i]
	return c.base[s.start:s.end:s.end]
}

// ArgCount returns how many arguments there are, the command's name included.
func (c *Command) ArgCount() int {
	if c == nil {
		return 0
	}
	return c.n
}

// Args returns all arguments, the command's name first. The slice and the views in it are valid
// until the parser's next read or Reset; Clone the command to keep them.
func (c *Command) Args() [][]byte {
	if c == nil {
		return nil
	}
	c.views = slices.Grow(c.views[:0], c.n)
	for _, s := range c.found[:c.n] {
		c.views = append(c.views, c.base[s.start:s.end:s.end])
	}
	return c.views
}

// Name returns argument 0 with the letters a to z in upper case, for a switch on string(c.Name()).
// The command itself stays as it came. It allocates only for a name of more than 32 bytes with a
// small letter in it. The view is valid until the next call of Name, or the parser's next read or
// Reset; Clone the command to keep it.
func (c *Command) Name() []byte {
	name := c.Get(0)
	for i, ch := range name {
		if 'a' <= ch && ch <= 'z' {
			return c.upper(name, i)
		}
	}
	return name
}

// upper copies name with the letters from byte i on in upper case.
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
// whole command and no protocol error, so that replies should be flushed before the next read.
// A part of a command does not count: its sender may be waiting for the replies. It does no I/O.
func (c *Command) IsLast() bool {
	if c == nil || c.p == nil {
		return c == nil || c.last
	}
	return c.p.r == c.p.w || !c.p.ahead()
}

// Raw returns the command as it came, to be passed on: from its first byte to its last line's end.
// The view is valid until the parser's next read or Reset; Clone the command to keep it.
func (c *Command) Raw() []byte {
	if c == nil {
		return nil
	}
	if len(c.line) > 0 {
		return c.raw
	}
	return c.base
}

// Clone returns a copy that owns its bytes and stays valid. Its IsLast stays at what it is now.
func (c *Command) Clone() *Command {
	if c == nil {
		return nil
	}
	k := &Command{line: bytes.Clone(c.line), last: c.IsLast()}
	k.found = slices.Clone(c.found[:c.n])
	k.commit(bytes.Clone(c.Raw()))
	return k
}

// Parse reads one command from the front of b, for programs that own their buffers, as event loops
// do. It returns how many bytes of b the command took, empty commands before it included. When n is
// 0 and err is nil the command is not whole: call again with the same bytes and more after them,
// and it goes on where it stopped. After an error, a *ProtocolError, the next call starts afresh.
//
// It keeps to the package's limits: [MaxNumArg], [MaxBulkSize], [MaxTelnetLine], and 1 GiB in all. A
// b of nothing but empty commands gives 0 too, so set a bound of your own to what you hold for a
// connection. c holds the command until the next call; its views are into b and valid as long as b is
// unchanged. There is no pipeline that c knows of, so IsLast is true. c is the zero Command at first,
// and again for another stream; it is never one that a Parser returned.
func (c *Command) Parse(b []byte) (n int, err error) {
	if c == nil {
		return 0, errors.New("redisproto: Parse of a nil *Command")
	}
	c.last = true
	if cap(c.found) > maxKept && c.need == 0 {
		c.found, c.views = nil, nil
	}
	if n = c.parseSimple(b, MaxNumArg, MaxBulkSize, maxTotal); n > 0 {
		c.commit(b[:n:n])
		return n, nil
	}
	return c.parseNext(b)
}

// parseNext is Parse for any command.
func (c *Command) parseNext(b []byte) (n int, err error) {
	c.end()
	lim := Limits{}.bounds()
	for c.skip < len(b) {
		n, err := c.parse(b[c.skip:], &lim)
		switch {
		case err != nil:
			err.Offset += int64(c.skip)
			c.restart()
			c.skip = 0
			return 0, err
		case n == 0:
			return 0, nil
		case len(c.found) > 0:
			n += c.skip
			c.commit(b[c.skip:n:n])
			c.skip = 0
			return n, nil
		}
		c.skip += n
	}
	return 0, nil
}

// commit makes what was found the command, whose bytes are raw.
func (c *Command) commit(raw []byte) {
	c.n, c.base = len(c.found), raw
	if len(c.line) > 0 {
		c.base, c.raw = c.line, raw
	}
}

// end ends the command's views.
func (c *Command) end() { c.n, c.base, c.raw = 0, nil, nil }

// restart forgets a command that is not whole.
func (c *Command) restart() {
	c.left, c.bulk, c.need, c.seen = 0, 0, 0, 0
}

// parseSimple parses a command that has up to nine arguments of less than 1,000 bytes, is whole and
// within the limits, and has not been begun: nearly all commands are such. n is 0 for any other.
func (c *Command) parseSimple(b []byte, maxArgs, maxBulk, maxTotal int) (n int) {
	if len(b) < 4 || c.need > 0 || c.skip > 0 {
		return 0
	}
	x := binary.LittleEndian.Uint32(b)
	count := int(x>>8&0xff) - '0'
	if x&^0xff00 != '*'|'\r'<<16|'\n'<<24 || count < 1 || count > min(9, maxArgs, cap(c.found)) {
		return 0
	}
	found := c.found[:count]
	got, end := bulks(b, 2, maxBulk, found)
	if got < count || !crlf(b[end:]) || end+2 > maxTotal {
		return 0
	}
	c.found, c.line = found, c.line[:0]
	return end + 2
}

// parse goes on with the command at the front of b, of which earlier calls have seen a part or
// nothing. n bytes were the command, with its arguments in found: none for an empty one. Or n is 0
// and the command is not whole.
func (c *Command) parse(b []byte, lim *bounds) (n int, err *ProtocolError) {
	if len(b) < c.need {
		return 0, nil
	}
	if len(b) <= lim.Total {
		return c.parseWithin(b, lim)
	}
	n, err = c.parseWithin(b[:lim.Total], lim)
	if n == 0 && err == nil {
		err = ErrTooBig.at(0)
	}
	return n, err
}

// parseWithin is parse for a b that is not longer than a command may be.
func (c *Command) parseWithin(b []byte, lim *bounds) (n int, err *ProtocolError) {
	switch {
	case c.bulk > 0:
		c.takeBulk()
	case c.left == 0:
		c.found, c.line = c.found[:0], c.line[:0]
		if b[0] != '*' {
			return c.parseInline(b, lim)
		}
		if n, err := c.parseCount(b, lim); c.left == 0 {
			return n, err
		}
	}
	for {
		free := c.found[len(c.found):min(len(c.found)+c.left, cap(c.found))]
		n, end := bulks(b, c.pos, lim.bulk, free)
		c.found, c.pos, c.left = c.found[:len(c.found)+n], end, c.left-n
		if c.left == 0 {
			break
		}
		if n == len(free) {
			c.found = slices.Grow(c.found, min(c.left, max(8, len(c.found))))
			continue
		}
		if ok, err := c.parseBulk(b, lim); !ok {
			return 0, err
		}
	}
	if !crlf(b[c.pos:]) {
		return 0, ErrCRLF.at(c.pos)
	}
	c.need, c.seen = 0, 0
	return c.pos + 2, nil
}

// parseCount parses the line "*count". If it is whole and the command is not empty, the count goes
// to left; otherwise n and err are what parse is to return.
func (c *Command) parseCount(b []byte, lim *bounds) (n int, err *ProtocolError) {
	count, end, err := c.parseHeader(b, 0, ErrMultibulkLength, ErrCountTooLong)
	switch {
	case end == 0:
		return 0, err
	case count > int64(lim.Args):
		return 0, ErrMultibulkLength.at(0)
	case count > int64(lim.args):
		return 0, ErrUnauthenticatedCount.at(0)
	case !crlf(b[end:]):
		return 0, ErrCRLF.at(end)
	case count <= 0:
		c.restart()
		return end + 2, nil
	}
	c.left, c.pos = int(count), end
	return 0, nil
}

// bulks parses whole arguments of up to 999 bytes, which is to say nearly all that there are, for as
// long as they come and found has room. At b[pos] stands the CR LF that ends what was before; one
// load has that, the '$', the length and its CR LF, and b always has the eight bytes when the
// argument is whole. What does not look as it should is left to parseBulk.
func bulks(b []byte, pos, limit int, found []span) (n, end int) {
	const last = '0' | '\r'<<8 | '\n'<<16 // the last digit and its CR LF, less the digit
	for i := range found {
		if pos > len(b)-8 {
			return i, pos
		}
		x := binary.LittleEndian.Uint64(b[pos:])
		if x&0xffffff != '\r'|'\n'<<8|'$'<<16 {
			return i, pos
		}
		var size, width int
		d0, d1 := x>>24&0xff-'0', x>>32&0xff-'0'
		if d := x>>24&0xffffff - last; d <= 9 {
			size, width = int(d), 1
		} else if d := x>>32&0xffffff - last; d <= 9 && d0-1 <= 8 {
			size, width = int(d0*10+d), 2
		} else if d := x>>40 - last; d <= 9 && d0-1 <= 8 && d1 <= 9 {
			size, width = int(d0*100+d1*10+d), 3
		} else {
			return i, pos
		}
		start := pos + 5 + width
		if size > limit || start+size > len(b)-2 {
			return i, pos
		}
		pos = start + size
		found[i] = span{uint32(start), uint32(pos)}
	}
	return len(found), pos
}

// parseBulk parses one argument of any length, and says what is wrong with it. It reports whether
// the argument is whole.
func (c *Command) parseBulk(b []byte, lim *bounds) (ok bool, err *ProtocolError) {
	start := c.pos + 2
	if !crlf(b[c.pos:]) {
		return false, ErrCRLF.at(c.pos)
	}
	length, end, err := c.parseHeader(b, start, ErrBulkLength, ErrLengthTooLong)
	switch {
	case end == 0:
		return false, err
	case length < 0 || length > int64(lim.Bulk):
		return false, ErrBulkLength.at(start)
	case length > int64(lim.bulk):
		return false, ErrUnauthenticatedLength.at(start)
	case !crlf(b[end:]):
		return false, ErrCRLF.at(end)
	case int64(end)+2+length+2 > int64(lim.Total):
		return false, ErrTooBig.at(0)
	}
	return c.awaitBulk(b, end, int(length)), nil
}

// parseHeader parses a line that begins at start: '*' or '$' and a number. end is where its CR is,
// and one byte more is there too; it is 0 if the line is not whole or wrong. Errors are found in
// the order in which Redis finds them: the line's end first.
func (c *Command) parseHeader(b []byte, start int, invalid, tooLong *ProtocolError) (n int64, end int, err *ProtocolError) {
	end = max(start, c.seen)
	for ; end < len(b) && b[end] != '\r'; end++ {
		if end-start == maxLine {
			return 0, 0, tooLong.at(start)
		}
		if b[end] == 0 { // it would hide the line's end from Redis
			break
		}
	}
	c.seen, c.need = end, len(b)+1
	if end == len(b) || b[end] == '\r' && end+1 == len(b) {
		return 0, 0, nil
	}
	if tooLong == ErrLengthTooLong && b[start] != '$' && b[start] != 0 {
		return 0, 0, expectedBulk(b[start], start)
	}
	n, ok := parseInt(b[min(start+1, end):end])
	if !ok || b[end] == 0 {
		return 0, 0, invalid.at(start)
	}
	return n, end, nil
}

// parseInt parses a decimal int64 as Redis does: no sign but '-', no leading zero, no "-0".
func parseInt(b []byte) (n int64, ok bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 || b[0] == '0' && (neg || len(b) > 1) {
		return 0, false
	}
	var u uint64
	for _, ch := range b {
		if ch < '0' || ch > '9' {
			return 0, false
		}
		u = u*10 + uint64(ch-'0')
	}
	if neg {
		return -int64(u), u <= 1<<63
	}
	return int64(u), u < 1<<63
}

// crlf reports whether b begins with CR LF. It has two bytes at least.
func crlf(b []byte) bool { return b[0] == '\r' && b[1] == '\n' }

// parseInline parses an inline command: a line of arguments with blanks between.
func (c *Command) parseInline(b []byte, lim *bounds) (n int, err *ProtocolError) {
	if lim.Inline < 0 && !blankLine(b) {
		return 0, ErrInlineRefused.at(0)
	}
	limit := max(lim.Inline, 1)
	fresh := b[min(c.seen, limit+1):min(len(b), limit+1)] // Parse may find the limit lower than it was
	lf := bytes.IndexByte(fresh, '\n')
	if lf >= 0 {
		fresh = fresh[:lf]
	}
	if i := bytes.IndexByte(fresh, 0); i >= 0 && c.seen+i < limit {
		return 0, ErrInlineNUL.at(0)
	}
	end := c.seen + len(fresh)
	switch {
	case lf < 0 && end > limit:
		return 0, ErrInlineTooLong.at(0)
	case lf < 0:
		c.seen, c.need = end, len(b)+1
		return 0, nil
	case !c.split(bytes.TrimSuffix(b[:end], []byte{'\r'})):
		return 0, ErrUnbalancedQuotes.at(0)
	}
	c.restart()
	return end + 1, nil
}

// blankLine reports whether b is the beginning of an empty line.
func blankLine(b []byte) bool {
	return b[0] == '\n' || b[0] == '\r' && (len(b) == 1 || b[1] == '\n')
}

// split finds the arguments of an inline command. If there are quotes it goes on in a copy of the
// line, where they are taken out. It reports false for a quote that is left open, or closed in the
// middle of an argument.
func (c *Command) split(line []byte) (ok bool) {
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return true
		}
		start := i
		for i < len(line) && !endsWord(line[i]) {
			i++
		}
		end := i
		if i < len(line) && (line[i] == '"' || line[i] == '\'') {
			if len(c.line) == 0 {
				c.line = append(c.line, line...)
				line = c.line
			}
			if end, i, ok = unquote(line, i); !ok {
				return false
			}
		}
		c.found = append(c.found, span{uint32(start), uint32(end)})
	}
}

// isSpace: the blanks that may stand before an argument and behind a quote.
func isSpace(ch byte) bool { return ch == ' ' || '\t' <= ch && ch <= '\r' }

// endsWord: what ends an argument outside quotes, or begins the quoted part of it.
func endsWord(ch byte) bool {
	return ch == ' ' || ch == '\t' || ch == '\r' || ch == '"' || ch == '\''
}

// unquote decodes the quoted part that begins at line[i], in place. It ends at end, and the line
// goes on at next.
func unquote(line []byte, i int) (end, next int, ok bool) {
	quote := line[i]
	end = i
	for i++; i < len(line); i++ {
		ch := line[i]
		switch {
		case ch == quote:
			return end, i + 1, i+1 == len(line) || isSpace(line[i+1])
		case ch == '\\' && i+1 < len(line) && quote == '"':
			ch, i = unescape(line, i+1)
		case ch == '\\' && i+1 < len(line) && line[i+1] == quote:
			ch, i = quote, i+1
		}
		line[end] = ch
		end++
	}
	return 0, 0, false
}

// unescape decodes what stands behind a backslash in double quotes, and gives its last byte's place.
func unescape(line []byte, i int) (ch byte, last int) {
	switch line[i] {
	case 'n':
		return '\n', i
	case 'r':
		return '\r', i
	case 't':
		return '\t', i
	case 'b':
		return '\b', i
	case 'a':
		return '\a', i
	case 'x':
		if i+2 < len(line) {
			if n, err := hex.Decode(line[i:i+1], line[i+1:i+3]); n == 1 && err == nil {
				return line[i], i + 2
			}
		}
	}
	return line[i], i
}

// A Parser reads commands, or replies, from a connection. NewParser makes one, or Reset of a zero
// one. It is not safe for concurrent use, and must not be copied.
type Parser struct {
	// Limits hold for what is read from now on.
	Limits Limits

	rd   io.Reader
	buf  []byte // home or large.buf
	r, w int    // what is to come is buf[r:w]

	next  int        // bytes of the command that was parsed ahead, at r; 0 for none
	turn  int        // the one of cmds that is parsed next; the other is the caller's
	cmds  [2]Command // taking turns
	lim   bounds
	fault error // found at r, to be returned by the next read; then ErrBroken
	rdErr error // of rd, to be returned when the bytes that came with it are used up

	reply   *record // made by the first ReadReply
	replies bool    // what is read, and was last, is a reply
	quick   bool    // likewise, and the next one can be read without further thought

	home   []byte // small, kept
	filled bool   // the last read left no room
	moved  int64  // stream offset of buf[0]

	large *large              // in use
	spare weak.Pointer[large] // for the next large command, unless the collector takes it
}

const (
	minHome = 1 << 10  // bytes: the buffer at first
	maxHome = 32 << 10 // bytes: what a connection may keep
	maxKept = 4 << 10  // arguments: likewise
)

// large is memory that only a large command needs. Between such commands the Parser has but a weak
// pointer to it, so that a stream of them allocates nothing and an idle connection holds nothing.
type large struct {
	buf   []byte
	found []span
	views [][]byte
}

// NewParser returns a Parser that reads from r, with a buffer of its own; do not put a bufio.Reader
// between. The buffer has 1 KiB at first, up to 32 KiB if reads fill it, and more only for a
// command that needs it, as its bytes arrive.
func NewParser(r io.Reader) *Parser {
	p := new(Parser)
	p.Reset(r)
	return p
}

// Reset makes p read from r as if it were new, with the buffers and Limits that it has. Every view
// that p gave ends.
func (p *Parser) Reset(r io.Reader) {
	p.r, p.w, p.next = 0, 0, 0
	for i := range p.cmds {
		p.cmds[i].restart()
		p.cmds[i].p = p
	}
	p.readCommands()
	p.expire()
	p.rd, p.filled, p.moved = r, false, 0
	p.lim = p.Limits.bounds()
	p.fault, p.rdErr = nil, nil
}

// Buffered returns how many bytes were read and do not belong to a command or reply returned so far.
func (p *Parser) Buffered() int { return p.w - p.r }

// Commands returns the commands of the connection, for a range loop that is the whole server loop.
// The last pair has the error that ended it in place of a command, which is nil then, but for io.EOF
// between two commands, which just ends the loop. A command is valid until the loop goes on; Clone
// it to keep it.
func (p *Parser) Commands() iter.Seq2[*Command, error] {
	return func(yield func(*Command, error) bool) {
		for {
			c, err := p.ReadCommand()
			if err == io.EOF || !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// ReadCommand returns the next command. Empty commands are passed over, as Redis does. The command
// and its views are valid until the next ReadCommand, ReadReply or Reset; Clone it to keep it.
//
// The error is a *ProtocolError if the peer sent what is no command: answer its text, flush, close.
// After that it is ErrBroken. At the end of input it is io.EOF, or io.ErrUnexpectedEOF in the middle
// of a command. Any other error is the reader's own; nothing is lost by it, and the next call goes
// on where this one stopped.
func (p *Parser) ReadCommand() (*Command, error) {
	if raceEnabled || p.large != nil || p.replies || cap(p.cmds[p.turn^1].found) > maxKept {
		p.expire()
		p.readCommands()
	}
	for !p.ahead() {
		if err := p.fill(); err != nil {
			return nil, err
		}
	}
	if err := p.fault; err != nil {
		p.fault = ErrBroken
		return nil, err
	}
	c := &p.cmds[p.turn]
	p.turn ^= 1
	end := p.r + p.next
	c.commit(p.buf[p.r:end:end])
	p.r, p.next = end, 0
	return c, nil
}

// ahead reports whether the buffer holds a whole command or a protocol error, and parses up to there.
func (p *Parser) ahead() bool {
	if p.r == p.w {
		return false
	}
	if !p.Limits.equal(&p.lim.of) {
		p.relimit()
	}
	if p.next > 0 || p.fault != nil {
		return true
	}
	c := &p.cmds[p.turn]
	if p.next = c.parseSimple(p.buf[p.r:p.w], p.lim.args, p.lim.bulk, p.lim.Total); p.next > 0 {
		return true
	}
	for p.r < p.w {
		n, err := c.parse(p.buf[p.r:p.w], &p.lim)
		if err != nil {
			err.Offset += p.moved + int64(p.r)
			p.fault = err
			return true
		}
		if n == 0 {
			return false
		}
		if len(c.found) > 0 {
			p.next = n
			return true
		}
		p.r += n // an empty command
	}
	return false
}

// relimit has the bytes that were parsed ahead parsed again under the limits that hold now.
func (p *Parser) relimit() {
	p.lim = p.Limits.bounds()
	p.forget()
}

// forget gives up what was parsed of what is to come.
func (p *Parser) forget() {
	if p.fault != ErrBroken {
		p.fault = nil
	}
	p.next = 0
	p.cmds[p.turn].restart()
	if p.reply != nil {
		p.reply.restart()
	}
}

// fill reads once, and gives an error if that brought no bytes.
func (p *Parser) fill() error {
	if p.rdErr == nil {
		p.makeRoom()
	}
	for range 100 { // as bufio: a reader may return nothing for a while
		if err := p.rdErr; err != nil {
			p.rdErr = nil
			if err == io.EOF && p.r < p.w {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		n, err := p.rd.Read(p.buf[p.w:])
		if n < 0 || n > len(p.buf)-p.w {
			return errors.New("redisproto: reader returned an impossible count from Read")
		}
		if err != nil {
			p.rdErr = err
		}
		if n > 0 {
			p.w += n
			p.filled = p.w == len(p.buf)
			return nil
		}
	}
	return io.ErrNoProgress
}

// makeRoom moves what is to come to the front of the buffer, and gives it a larger one if it is full.
func (p *Parser) makeRoom() {
	p.moved += int64(p.r)
	if p.r == p.w {
		p.w = 0
	} else if p.r > 0 {
		p.w = copy(p.buf, p.buf[p.r:p.w])
	}
	p.r = 0
	if p.filled && len(p.buf) < maxHome || p.w == len(p.buf) {
		p.grow()
	}
}

// grow doubles the buffer, or takes what the argument that is being received needs once a quarter
// of that is there: memory follows the bytes that came, not a length that was declared.
func (p *Parser) grow() {
	c, last := p.reading()
	have := len(p.buf)
	size := max(2*min(have, maxHome), minHome)
	if have >= maxHome { // one byte over Total tells that it is too big; min, since 2*have may be over an int32
		size = have + min(have, p.lim.Total+1-have)
	}
	if c.bulk > 0 && c.need > have && (c.need-c.bulk)/4 <= have && (last || c.need > size) {
		size = c.need
	}
	if size <= maxHome {
		size = 1 << bits.Len(uint(size-1))
		p.home = make([]byte, size)
		copy(p.home, p.buf[:p.w])
		p.buf = p.home
		return
	}
	l := p.spare.Value()
	if l == nil || len(l.buf) < size || last && c.bulk > 0 && len(l.buf)/8 > c.need {
		l = &large{buf: make([]byte, size)}
	}
	if cap(l.found) > cap(c.found) {
		c.found, l.found = append(l.found[:0], c.found...), c.found
	}
	if cmd := &p.cmds[p.turn]; !p.replies && cap(l.views) > cap(cmd.views) {
		cmd.views, l.views = l.views[:0], cmd.views
	}
	copy(l.buf, p.buf[:p.w])
	p.large, p.buf = l, l.buf
}

// reading returns what is being read, and whether what it waits for is the last of it.
func (p *Parser) reading() (t *partial, last bool) {
	if p.replies {
		return &p.reply.partial, p.reply.left == 1 && len(p.reply.open) <= 1
	}
	t = &p.cmds[p.turn].partial
	return t, t.left == 1
}

// expire ends the views of the last command or reply, and leaves the large buffer once little of it
// is still to come.
func (p *Parser) expire() {
	past := &p.cmds[p.turn^1]
	if raceEnabled {
		poison(past.Raw())
		poison(past.line)
	}
	past.end()
	clear(past.views)
	if p.reply != nil {
		p.reply.end()
	}
	rest := p.w - p.r
	if p.large != nil && rest >= len(p.home) && rest > len(p.buf)/8 {
		return
	}
	p.shed(past)
	if c := &p.cmds[p.turn]; p.next == 0 && c.need == 0 {
		p.shed(c)
	}
	if p.large != nil {
		p.leave(rest)
	}
}

// leave gives up the large buffer for one that suits the rest bytes to come.
func (p *Parser) leave(rest int) {
	if p.reply != nil {
		p.reply.shed(p.large)
	}
	p.spare = weak.Make(p.large)
	p.large = nil
	from := p.buf[p.r:p.w]
	switch {
	case rest < len(p.home):
		p.buf = p.home
	case rest < maxHome:
		p.home = make([]byte, maxHome)
		p.buf = p.home
	default:
		p.large = &large{buf: make([]byte, 2*rest)}
		p.buf = p.large.buf
	}
	p.moved += int64(p.r)
	p.r, p.w = 0, copy(p.buf, from)
}

// shed takes from c, which is not in use, what only a command of many arguments needs. The large
// buffer, if there is one, keeps it for the next such command.
func (p *Parser) shed(c *Command) {
	l := p.large
	if l == nil {
		l = new(large)
	}
	if cap(c.found) > maxKept {
		c.found, l.found = smallerFirst(l.found, c.found)
	}
	if cap(c.views) > maxKept {
		c.views, l.views = smallerFirst(l.views, c.views)
	}
	if cap(c.line) > maxHome {
		c.line = nil
	}
}

// smallerFirst orders two slices by capacity; what is too large to be kept comes back nil.
func smallerFirst[T any](a, b []T) (small, big []T) {
	if cap(a) > cap(b) {
		a, b = b, a
	}
	if cap(a) > maxKept {
		a = nil
	}
	return a, b
}

// poison overwrites what no view may look at any more.
func poison(b []byte) {
	for i := range b {
		b[i] = '?'
	}
}
