package redisproto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"math/big"
	"math/bits"
	"strconv"
	"strings"
)

// This file, from the outside in:
//
//	Parser.ReadReply  reads until a reply is whole, in the buffer that commands are read into
//	Reply             a place in a record: one value of a reply, and the API
//	record            owns the state of one reply: parse goes on where it stopped
//	isInteger, ...    look at the text of a value
//
// A record is flat. A value is a span of its text: the line without its type byte and CR LF, or
// what a bulk holds. The type is the byte before the text, or stands at the front of the line
// before it. An aggregate is two spans, its elements' spans behind them:
//
//	*2 CRLF :7 CRLF $2 CRLF hi CRLF     found: "2" {2, 4} "7" "hi"
//
// where {2, 4} says that it has 2 elements and that found[4] is behind the last. A map counts its
// keys and its values. Attributes stand before the value that they belong to.

// Kind is the type of a [Reply]: the byte that RESP begins it with. All nulls are of kind Null.
type Kind byte

const (
	SimpleString   Kind = '+'
	SimpleError    Kind = '-'
	Integer        Kind = ':'
	BulkString     Kind = '$'
	Array          Kind = '*'
	Null           Kind = '_'
	Boolean        Kind = '#'
	Double         Kind = ','
	BigNumber      Kind = '('
	BulkError      Kind = '!'
	VerbatimString Kind = '='
	Map            Kind = '%'
	Set            Kind = '~'
	Push           Kind = '>'

	attribute Kind = '|' // what Reply.Attributes walks over
)

// String returns the kind in words.
func (k Kind) String() string {
	switch k {
	case SimpleString:
		return "simple string"
	case SimpleError:
		return "simple error"
	case Integer:
		return "integer"
	case BulkString:
		return "bulk string"
	case Array:
		return "array"
	case Null:
		return "null"
	case Boolean:
		return "boolean"
	case Double:
		return "double"
	case BigNumber:
		return "big number"
	case BulkError:
		return "bulk error"
	case VerbatimString:
		return "verbatim string"
	case Map:
		return "map"
	case Set:
		return "set"
	case Push:
		return "push"
	}
	return "no reply"
}

// A Reply is one value that a server sent: a reply, or an element of one.
//
// One that a [Parser] returned, its elements, and each view of its bytes are valid until the
// parser's next ReadReply, ReadCommand or Reset; Clone makes a copy to keep. An element that is
// used for longer reads as no reply at all. Every method may be called on a nil *Reply, which is
// no reply as well: its Kind is 0, it is empty, and conversions give an error.
type Reply struct {
	rec    *record
	at     uint32 // of its span in rec.found
	before uint32 // of the first span of its attributes; at if it has none
	gen    uint32 // rec.gen while it is valid
}

// A ReplyError is an error that the server replied.
type ReplyError struct {
	Code    string // the first word, if it is in capitals as they are by convention: ERR, MOVED, ...; or ""
	Message string // the rest, or all
}

// Error returns the code and the message.
func (e *ReplyError) Error() string {
	if e.Code == "" || e.Message == "" {
		return e.Code + e.Message
	}
	return e.Code + " " + e.Message
}

// valid reports whether r is a value of a reply that may still be looked at.
func (r *Reply) valid() bool { return r != nil && r.rec != nil && r.gen == r.rec.gen }

// Kind returns the type of r, or 0 if it is no reply.
func (r *Reply) Kind() Kind {
	if !r.valid() {
		return 0
	}
	return r.rec.kind(r.at)
}

// IsNull reports whether r is a null of any form: "_", "$-1" or "*-1".
func (r *Reply) IsNull() bool { return r.Kind() == Null }

// Bytes returns the text of any value that is no aggregate, without its framing: a string or an
// error as it is, a number as it was written, "t" or "f". It is nil for a null and for an
// aggregate. The view is valid until the parser's next read or Reset; Clone the reply to keep it.
func (r *Reply) Bytes() []byte {
	switch k := r.Kind(); k {
	case 0, Null, Array, Map, Set, Push:
		return nil
	case VerbatimString:
		return r.text()[4:]
	}
	return r.text()
}

// Format returns the three letters that say what a verbatim string is, such as "txt" or "mkd", and
// nil for any other kind. The view is valid until the parser's next read or Reset; Clone the reply
// to keep it.
func (r *Reply) Format() []byte {
	if r.Kind() != VerbatimString {
		return nil
	}
	return r.text()[:3:3]
}

func (r *Reply) text() []byte {
	s := r.rec.found[r.at]
	return r.rec.base[s.start:s.end:s.end]
}

// Err returns a *[ReplyError] if the server replied an error, and nil otherwise. An element may be
// an error too, as those of EXEC's array.
func (r *Reply) Err() error {
	if k := r.Kind(); k != SimpleError && k != BulkError {
		return nil
	}
	text := string(r.text())
	code, message, _ := strings.Cut(text, " ")
	for _, ch := range []byte(code) {
		if (ch < 'A' || ch > 'Z') && (ch < '0' || ch > '9') && ch != '_' {
			return &ReplyError{Message: text}
		}
	}
	return &ReplyError{Code: code, Message: message}
}

// scalar returns the text of a value that can be converted. The error is the server's if it
// replied one.
func (r *Reply) scalar(want string) ([]byte, error) {
	if err := r.Err(); err != nil {
		return nil, err
	}
	b := r.Bytes()
	if b == nil {
		return nil, fmt.Errorf("redisproto: %v is not %s", r.Kind(), want)
	}
	return b, nil
}

// Int returns the value of an integer, or of a string that holds one, as after INCR. The error is a
// *[ReplyError] if the server replied one, here and in the conversions below.
func (r *Reply) Int() (int64, error) {
	b, err := r.scalar("an integer")
	if err != nil {
		return 0, err
	}
	n, ok := parseSigned(b)
	if !ok {
		return 0, notA("an integer", b)
	}
	return n, nil
}

// Float returns the value of a double or an integer, or of a string that holds one, which is what
// RESP2 has for a double. One that no float64 comes near is an error.
func (r *Reply) Float() (float64, error) {
	b, err := r.scalar("a double")
	if err != nil {
		return 0, err
	}
	switch {
	case !isDouble(b):
		return 0, notA("a double", b)
	case bytes.HasSuffix(b, []byte("nan")):
		return math.NaN(), nil
	}
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return 0, notA("a double within float64", b)
	}
	return f, nil
}

// Bool returns the value of a boolean, or of an integer that is 0 or 1, which is what RESP2 has in
// its place.
func (r *Reply) Bool() (bool, error) {
	b, err := r.scalar("a boolean")
	if err != nil {
		return false, err
	}
	switch k := r.Kind(); {
	case k == Boolean:
		return b[0] == 't', nil
	case k == Integer && len(b) == 1 && b[0]|1 == '1':
		return b[0] == '1', nil
	}
	return false, notA("a boolean", b)
}

// BigInt returns the value of a big number or an integer, or of a string that holds one, which is
// what RESP2 has for a big number. One of more than 65,536 bytes is an error.
func (r *Reply) BigInt() (*big.Int, error) {
	b, err := r.scalar("an integer")
	if err != nil {
		return nil, err
	}
	if len(b) > maxLine || !isInteger(b) { // the time that it takes grows faster than its length
		return nil, notA("an integer", b)
	}
	n, _ := new(big.Int).SetString(string(b), 10)
	return n, nil
}

// notA gives the error for a text that cannot be converted.
func notA(want string, b []byte) error {
	const most = 64 // bytes
	if len(b) > most {
		return fmt.Errorf("redisproto: %q... is not %s", b[:most], want)
	}
	return fmt.Errorf("redisproto: %q is not %s", b, want)
}

// Len returns how many elements an aggregate has: for a map its keys and its values, as in the
// array that RESP2 has in its place. It is 0 for any other kind.
func (r *Reply) Len() int {
	if !r.valid() || !r.rec.isAggregate(r.at) {
		return 0
	}
	return int(r.rec.found[r.at+1].start)
}

// At returns element i of an aggregate; in a map, a key is followed by its value. Where there is
// none it is no reply, of kind 0. It takes as long as passing over the elements before i does if
// there are aggregates among the elements: use All to walk over them. The element is valid until
// the parser's next read or Reset; Clone it to keep it.
func (r *Reply) At(i int) *Reply {
	e := r.element(i) // and At is inlined, so that e need not be on the heap
	return &e
}

func (r *Reply) element(i int) Reply {
	if uint(i) >= uint(r.Len()) {
		return Reply{}
	}
	t := r.rec
	own := t.found[r.at+1] // elements, and what is behind them
	at := r.at + 2
	if own.end-at == own.start { // a span for each
		return Reply{t, at + uint32(i), at + uint32(i), r.gen}
	}
	e := t.reply(at)
	for range i {
		e = e.next()
	}
	return e
}

// All returns the elements of an aggregate; in a map, a key is followed by its value. They are
// valid until the parser's next read or Reset; Clone them to keep them.
func (r *Reply) All() iter.Seq[Reply] {
	return func(yield func(Reply) bool) {
		e, n := r.first()
		for ; n > 0 && yield(e); n-- {
			e = e.next()
		}
	}
}

// Pairs returns the keys and values of a map, or of an array that holds them in turn, which is what
// RESP2 has for a map. A key at the end of an array without a value comes with no reply, of kind 0.
// They are valid until the parser's next read or Reset; Clone them to keep them.
func (r *Reply) Pairs() iter.Seq2[Reply, Reply] {
	return func(yield func(_, _ Reply) bool) {
		key, n := r.first()
		for ; n > 0; n -= 2 {
			var value Reply
			if n > 1 {
				value = key.next()
			}
			if !yield(key, value) {
				return
			}
			key = value.next()
		}
	}
}

// Attributes returns the keys and values of the attributes that the server sent before r, which
// are no part of it. They are valid until the parser's next read or Reset; Clone them to keep them.
func (r *Reply) Attributes() iter.Seq2[Reply, Reply] {
	return func(yield func(_, _ Reply) bool) {
		if !r.valid() {
			return
		}
		for at := r.before; at < r.at; at = r.rec.after(at) {
			set := Reply{r.rec, at, at, r.gen}
			for key, value := range set.Pairs() {
				if !yield(key, value) {
					return
				}
			}
		}
	}
}

// first returns the first element and how many there are.
func (r *Reply) first() (e Reply, n int) {
	if n = r.Len(); n > 0 {
		e = r.rec.reply(r.at + 2)
	}
	return e, n
}

// next returns the value behind r, if there is one.
func (r *Reply) next() (e Reply) {
	if r.valid() {
		if at := r.rec.after(r.at); int(at) < len(r.rec.found) {
			e = r.rec.reply(at)
		}
	}
	return e
}

// Raw returns the bytes of r as they came, its attributes first: what is to be passed on. The view
// is valid until the parser's next read or Reset; Clone the reply to keep it.
func (r *Reply) Raw() []byte {
	if !r.valid() {
		return nil
	}
	t := r.rec
	start, end := t.line(r.before), len(t.base)
	if next := t.after(r.at); int(next) < len(t.found) {
		end = t.line(next)
	}
	return t.base[start:end:end]
}

// Clone returns a copy that owns its bytes and stays valid, with the attributes that r has. It may be
// read by many at once.
func (r *Reply) Clone() *Reply {
	if !r.valid() {
		return new(Reply)
	}
	t, b := newRecord(), bytes.Clone(r.Raw())
	const most = math.MaxInt32
	t.parse(b, &bounds{Limits: Limits{Args: most, Bulk: most, Total: most, Depth: most}})
	return t.commit(b)
}

// ReadReply returns the next reply, of RESP2 or RESP3: what a server sends to its client. Pushes come
// as replies of their kind, in the order in which they were received. The reply and its views are
// valid until the next ReadReply, ReadCommand or Reset; Clone it to keep it.
//
// The error is a *ProtocolError if the peer sent what is no reply: close the connection. Errors are
// otherwise as those of [Parser.ReadCommand], and as resumable. An error that the server replied is
// no error here: see [Reply.Err].
func (p *Parser) ReadReply() (*Reply, error) {
	// A simple reply is within the limits if it is within these two.
	if p.quick && p.Limits.Bulk == p.lim.of.Bulk && p.Limits.Total == p.lim.of.Total {
		t, b := p.reply, p.buf[p.r:p.w]
		if n := t.parseSimple(b, p.lim.Bulk, p.lim.Total); n > 0 {
			p.r += n
			t.gen++
			t.base, t.top.at, t.top.gen = b[:n:n], 0, t.gen
			return &t.top, nil
		}
	}
	return p.readReply()
}

// readReply is ReadReply for any reply.
func (p *Parser) readReply() (*Reply, error) {
	p.expire()
	p.readReplies()
	for {
		if !p.Limits.equal(&p.lim.of) {
			p.relimit()
		}
		if p.fault != nil {
			return nil, p.fault
		}
		if p.r < p.w {
			n, err := p.reply.parse(p.buf[p.r:p.w], &p.lim)
			if err != nil {
				return nil, p.badReply(err)
			}
			if n > 0 {
				end := p.r + n
				r := p.reply.commit(p.buf[p.r:end:end])
				p.r, p.quick = end, p.large == nil && !raceEnabled
				return r, nil
			}
		}
		if err := p.fill(); err != nil {
			return nil, err
		}
	}
}

// badReply gives the error that ReadReply returns for err, which is found at r.
func (p *Parser) badReply(err *ProtocolError) error {
	p.fault = ErrBroken
	err.Offset += p.moved + int64(p.r)
	err.text = strings.Replace(err.text, "request", "reply", 1)
	return err
}

// readReplies makes p read replies. A command that is parsed ahead, or in part, was none.
func (p *Parser) readReplies() {
	p.quick = false
	if p.replies {
		return
	}
	if p.reply == nil {
		p.reply = newRecord()
	}
	p.replies = true
	p.forget()
	for i := range p.cmds {
		p.cmds[i].p, p.cmds[i].last = nil, true
	}
}

// readCommands makes p read commands. A reply that is parsed in part was none.
func (p *Parser) readCommands() {
	if !p.replies {
		return
	}
	p.replies, p.quick = false, false
	p.forget()
	for i := range p.cmds {
		p.cmds[i].p = p
	}
}

// A record holds what is known of a reply, whole or not.
type record struct {
	partial
	open  []level // aggregates that are not whole, outer ones first
	total int     // elements declared
	base  []byte  // the reply as it came; nil until it is whole
	gen   uint32  // changes when the views of a reply end
	top   Reply   // the reply
}

// A level is an aggregate whose elements are being parsed.
type level struct {
	at   uint32 // of its first span
	left int    // what partial.left is again behind it
}

const (
	maxNumber = 20       // bytes: an int64
	maxSpans  = 24 << 10 // what may be kept: the most that a reply of maxHome bytes has, and room
)

func newRecord() *record {
	t := new(record)
	t.found = make([]span, 0, 8)
	t.top.rec = t
	return t
}

// commit makes what was found the reply, whose bytes are raw.
func (t *record) commit(raw []byte) *Reply {
	t.base = raw
	t.top.at, t.top.gen = 0, t.gen
	if raw[0] == byte(attribute) {
		t.top.at = t.reply(0).at
	}
	return &t.top
}

// end ends the views of the reply.
func (t *record) end() {
	if raceEnabled {
		poison(t.base)
	}
	t.base = nil
	t.gen++
}

// restart forgets a reply that is not whole.
func (t *record) restart() {
	t.left, t.bulk, t.need, t.seen = 0, 0, 0, 0
}

// shed leaves to l what only a large reply needs, if t is not in use.
func (t *record) shed(l *large) {
	if t.need > 0 {
		return
	}
	if cap(t.found) > maxSpans {
		t.found, l.found = l.found, t.found
	}
	if cap(t.found) > maxSpans {
		t.found = nil
	}
	if cap(t.open) > maxKept {
		t.open = nil
	}
}

// reply returns the value at span i, or behind the attributes that are there.
func (t *record) reply(i uint32) Reply {
	r := Reply{t, i, i, t.gen}
	for t.isAttribute(r.at) {
		r.at = t.found[r.at+1].end
	}
	return r
}

func (t *record) isAttribute(i uint32) bool {
	return Kind(t.base[t.found[i].start-1]) == attribute
}

// line returns where the line of the value at span i begins in base.
func (t *record) line(i uint32) int {
	pos := int(t.found[i].start) - 1
	if t.base[pos] != '\n' {
		return pos
	}
	for pos -= 2; t.base[pos]-'0' <= 9; pos-- { // the length of a bulk
	}
	return pos
}

func (t *record) kind(i uint32) Kind {
	k := Kind(t.base[t.line(i)])
	if s := t.found[i]; k == BulkString && t.base[s.start-1] == '$' || k == Array && t.base[s.start] == '-' {
		return Null
	}
	return k
}

// isAggregate reports whether the value at span i has two spans, and elements.
func (t *record) isAggregate(i uint32) bool {
	s := t.found[i]
	switch Kind(t.base[s.start-1]) {
	case Array:
		return t.base[s.start] != '-'
	case Map, Set, Push, attribute:
		return true
	}
	return false
}

// after returns the span behind the value at span i.
func (t *record) after(i uint32) uint32 {
	if t.isAggregate(i) {
		return t.found[i+1].end
	}
	return i + 1
}

// parseSimple parses a reply that is a string or an integer, whole and within the limits, on a line of
// up to six bytes or behind such a header, and has not been begun. n is 0 for any other.
func (t *record) parseSimple(b []byte, maxBulk, maxTotal int) (n int) {
	if len(b) < 9 || cap(t.found) == 0 {
		return 0
	}
	x := binary.LittleEndian.Uint64(b[1:])
	var width int
	switch { // a branch is foreseen; what comes next would have to wait for a width that is found
	case uint16(x>>16) == crlf16:
		width = 2
	case uint16(x>>8) == crlf16:
		width = 1
	default:
		width = smallByte(x)
		if uint16(x>>(8*width&63)) != crlf16 {
			return 0
		}
	}
	start, end := 1, 1+width
	switch Kind(b[0]) {
	case SimpleString, SimpleError:
		if width > maxBulk || smallByte(x) < width {
			return 0
		}
	case Integer:
		if !isShortInteger(x, width) {
			return 0
		}
	case BulkString:
		size := 0
		for _, ch := range b[1:end] {
			if ch-'0' > 9 {
				return 0
			}
			size = size*10 + int(ch-'0')
		}
		start = end + 2
		end = start + size
		if width == 0 || b[1] == '0' || size > maxBulk || end > len(b)-2 || !crlf(b[end:]) {
			return 0
		}
	default:
		return 0
	}
	if end+2 > maxTotal {
		return 0
	}
	t.found = t.found[:1]
	t.found[0] = span{uint32(start), uint32(end)}
	return end + 2
}

// integers parses integers of up to six bytes for as long as they come and found has room, as bulks
// does bulks.
func integers(b []byte, pos int, found []span) (n, end int) {
	for i := range found {
		if pos > len(b)-11 || b[pos+2] != ':' || !crlf(b[pos:]) {
			return i, pos
		}
		x := binary.LittleEndian.Uint64(b[pos+3:])
		width := smallByte(x)
		if uint16(x>>(8*width&63)) != crlf16 || !isShortInteger(x, width) {
			return i, pos
		}
		found[i] = span{uint32(pos + 3), uint32(pos + 3 + width)}
		pos += 3 + width
	}
	return len(found), pos
}

const (
	crlf16 = '\r' | '\n'<<8 // as a load of two bytes has it
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
)

// smallByte returns which byte of x, the lowest first, is the first that may be CR or LF: 8 for none.
func smallByte(x uint64) int {
	return bits.TrailingZeros64((x-ones*('\r'+1))&^x&highs) / 8
}

// isShortInteger reports whether the low width bytes of x are a sign, if there is one, and digits.
func isShortInteger(x uint64, width int) bool {
	if ch := byte(x); ch == '-' || ch == '+' {
		x, width = x>>8, width-1
	}
	wrong := (x | (x + ones*(0x7f-'9')) | (x - ones*'0')) & highs
	return width > 0 && wrong<<(64-8*width) == 0
}

// parse goes on with the reply at the front of b, of which earlier calls have seen a part or
// nothing. n bytes were the reply, which is in found; or n is 0 and it is not whole.
func (t *record) parse(b []byte, lim *bounds) (n int, err *ProtocolError) {
	if len(b) < t.need {
		return 0, nil
	}
	whole := b
	if len(b) > lim.Total {
		whole = b[:lim.Total]
	}
	n, err = t.parseWithin(whole, lim)
	if n == 0 && err == nil && len(whole) < len(b) {
		err = ErrTooBig.at(0)
	}
	return n, err
}

// parseWithin is parse for a b that is not longer than a reply may be.
func (t *record) parseWithin(b []byte, lim *bounds) (n int, err *ProtocolError) {
	switch {
	case t.bulk > 0:
		t.takeBulk()
	case t.left == 0:
		t.found, t.open, t.total = t.found[:0], t.open[:0], 0
		t.left, t.pos = 1, -2 // as if a CR LF ended what was before
	}
	for {
		for t.left == 0 && len(t.open) > 0 {
			t.close()
		}
		if t.left == 0 {
			break
		}
		if t.pos >= 0 {
			have := len(t.found)
			free := t.found[have : have+min(t.left, cap(t.found)-have)]
			n, end := bulks(b, t.pos, lim.Bulk, free)
			if n == 0 {
				n, end = integers(b, t.pos, free)
			}
			t.found, t.pos, t.left = t.found[:have+n], end, t.left-n
			if n > 0 {
				continue
			}
			if !crlf(b[t.pos:]) {
				return 0, ErrCRLF.at(t.pos)
			}
		}
		if ok, err := t.parseValue(b, lim); !ok {
			return 0, err
		}
	}
	if !crlf(b[t.pos:]) {
		return 0, ErrCRLF.at(t.pos)
	}
	t.need, t.seen = 0, 0
	return t.pos + 2, nil
}

// parseValue parses one value of any kind, or the head of an aggregate, and says what is wrong with
// it. It reports whether that is whole.
func (t *record) parseValue(b []byte, lim *bounds) (ok bool, err *ProtocolError) {
	start := t.pos + 2
	if start >= len(b) {
		t.need = start + 1
		return false, nil
	}
	limit, invalid := maxLine, ErrReplyValue
	kind := Kind(b[start])
	switch kind {
	case SimpleString, SimpleError:
		limit, invalid = lim.Bulk, ErrBulkLength
	case BulkString, BulkError, VerbatimString:
		limit, invalid = maxNumber, ErrBulkLength
	case Array, Map, Set, Push, attribute:
		limit, invalid = maxNumber, ErrMultibulkLength
	case Integer, Double, BigNumber, Boolean, Null:
	default:
		return false, ErrReplyType.at(start).got(b[start])
	}
	end, err := t.parseLine(b, start, limit, invalid)
	if end == 0 {
		return false, err
	}
	text := b[start+1 : end]
	switch kind {
	case BulkString, BulkError, VerbatimString:
		return t.parseBulk(b, kind, end, text, lim)
	case Array, Map, Set, Push, attribute:
		return t.parseHead(kind, end, text, lim)
	case Integer:
		_, ok = parseSigned(text)
	case BigNumber:
		ok = isInteger(text)
	case Double:
		ok = isDouble(text)
	case Boolean:
		ok = len(text) == 1 && (text[0] == 't' || text[0] == 'f')
	case Null:
		ok = len(text) == 0
	default:
		ok = true
	}
	if !ok {
		return false, ErrReplyValue.at(start)
	}
	t.take(start+1, end)
	return true, nil
}

// take takes a value whose line is all there is of it.
func (t *record) take(start, end int) {
	t.found = append(t.found, span{uint32(start), uint32(end)})
	t.pos = end
	t.left--
}

// parseBulk parses what holds as many bytes as text, its header's line, says.
func (t *record) parseBulk(b []byte, kind Kind, end int, text []byte, lim *bounds) (ok bool, err *ProtocolError) {
	start := end - len(text) - 1
	length, ok := parseInt(text)
	switch {
	case ok && length == -1 && kind == BulkString:
		t.take(start+1, end)
		return true, nil
	case isStreamed(text):
		return false, streamed(kind, start)
	case !ok || length < 0 || length > int64(lim.Bulk):
		return false, ErrBulkLength.at(start)
	case int64(end)+2+length+2 > int64(lim.Total):
		return false, ErrTooBig.at(0)
	case kind == VerbatimString && length < 4:
		return false, ErrReplyValue.at(start)
	case kind == VerbatimString && len(b) < end+6: // the format and its colon
		t.need = end + 6
		return false, nil
	case kind == VerbatimString && b[end+5] != ':':
		return false, ErrReplyValue.at(start)
	}
	return t.awaitBulk(b, end, int(length)), nil
}

// parseHead parses the line that an aggregate begins with.
func (t *record) parseHead(kind Kind, end int, text []byte, lim *bounds) (ok bool, err *ProtocolError) {
	start := end - len(text) - 1
	count, ok := parseInt(text)
	most := int64(min(lim.Args, math.MaxInt32) - t.total)
	if kind == Map || kind == attribute {
		most /= 2
	}
	switch {
	case ok && count == -1 && kind == Array:
		t.take(start+1, end)
		return true, nil
	case isStreamed(text):
		return false, streamed(kind, start)
	case !ok || count < 0 || count > most:
		return false, ErrMultibulkLength.at(start)
	case len(t.open) >= lim.Depth:
		return false, ErrReplyDepth.at(start)
	}
	if kind == Map || kind == attribute {
		count *= 2
	}
	t.total += int(count)
	t.take(start+1, end)
	if kind == attribute {
		t.left++ // the value is still to come
	}
	t.open = append(t.open, level{uint32(len(t.found) - 1), t.left})
	t.found = append(t.found, span{uint32(count), 0})
	t.left = int(count)
	return true, nil
}

// close ends the innermost aggregate.
func (t *record) close() {
	i := len(t.open) - 1
	t.found[t.open[i].at+1].end = uint32(len(t.found))
	t.left = t.open[i].left
	t.open = t.open[:i]
}

// parseLine looks for the end of the line whose type byte is at start, of up to limit bytes between
// that and its CR LF. end is where its CR is; it is 0 if the line is not whole or wrong.
func (t *record) parseLine(b []byte, start, limit int, invalid *ProtocolError) (end int, err *ProtocolError) {
	first := start + 1
	line := b
	if limit = max(limit, 0); len(b)-first > limit {
		line = b[:first+limit+1]
	}
	end = lineEnd(line, max(first, t.seen))
	switch {
	case end == len(line) && len(line) < len(b) || end-first > limit:
		return 0, invalid.at(start)
	case end == len(b) || b[end] == '\r' && end+1 == len(b):
		t.seen, t.need = end, len(b)+1
		return 0, nil
	case b[end] == '\n' || b[end+1] != '\n':
		return 0, ErrCRLF.at(end)
	}
	return end, nil
}

// lineEnd returns where in b, from byte i on, the first CR or LF is, or len(b).
func lineEnd(b []byte, i int) int {
	for i <= len(b)-8 {
		n := smallByte(binary.LittleEndian.Uint64(b[i:]))
		if i += n; n == 8 {
			continue
		}
		if b[i] == '\r' || b[i] == '\n' {
			return i
		}
		i++
	}
	for i < len(b) && b[i] != '\r' && b[i] != '\n' {
		i++
	}
	return i
}

// isStreamed reports whether a length is that of RESP3's strings and aggregates which come in parts.
func isStreamed(length []byte) bool { return len(length) == 1 && length[0] == '?' }

// parseSigned parses an int64 as RESP has it in a reply: an optional sign and digits.
func parseSigned(b []byte) (n int64, ok bool) {
	neg := len(b) > 0 && b[0] == '-'
	digits := unsigned(b)
	var u uint64
	for _, ch := range digits {
		d := uint64(ch) - '0'
		if d > 9 || u > math.MaxInt64/10 {
			return 0, false
		}
		u = u*10 + d
	}
	if neg {
		return -int64(u), len(digits) > 0 && u <= 1<<63
	}
	return int64(u), len(digits) > 0 && u < 1<<63
}

// unsigned returns b without the sign that it may begin with.
func unsigned(b []byte) []byte {
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		return b[1:]
	}
	return b
}

// isInteger reports whether b is a number of any size: an optional sign and digits.
func isInteger(b []byte) bool {
	rest, ok := digits(unsigned(b))
	return ok && len(rest) == 0
}

// isDouble reports whether b is a double: digits with an optional sign, fraction and exponent, or
// inf, -inf, nan. There is -nan too, which Redis before 7.2 may write.
func isDouble(b []byte) bool {
	switch string(b) {
	case "inf", "-inf", "nan", "-nan":
		return true
	}
	b, ok := digits(unsigned(b))
	if ok && len(b) > 0 && b[0] == '.' {
		b, ok = digits(b[1:])
	}
	if ok && len(b) > 0 && b[0]|0x20 == 'e' {
		b, ok = digits(unsigned(b[1:]))
	}
	return ok && len(b) == 0
}

// digits returns what stands behind the digits that b begins with, and whether there are any.
func digits(b []byte) (rest []byte, ok bool) {
	i := 0
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return b[i:], i > 0
}
