package redisproto

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"iter"
	"math"
	"math/big"
	"strconv"
	"strings"
)

// Kind is the type of a [Reply]: the byte that it begins with in RESP. All nulls are of kind Null.
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

var kindNames = map[Kind]string{
	SimpleString: "simple string", SimpleError: "simple error", Integer: "integer", BulkString: "bulk string",
	Array: "array", Null: "null", Boolean: "boolean", Double: "double", BigNumber: "big number",
	BulkError: "bulk error", VerbatimString: "verbatim string", Map: "map", Set: "set", Push: "push",
}

// String returns the kind in words.
func (k Kind) String() string { return cmp.Or(kindNames[k], "no reply") }

func (k Kind) isAggregate() bool { return k == Array || k == Map || k == Set || k == Push }

// A Reply is one value that a server has sent: a reply, or an element of one. It is a small value, to
// be passed by value.
//
// One that a [ReplyParser] returned, its elements, and each view of its bytes are valid until the
// next call that reads from the parser: ReadReply, Parse or Reset. A Reply that is used for longer
// reads as no reply at all. Clone makes a copy to keep. The zero Reply is no reply: its Kind is 0, it
// is empty, and conversions give an error.
type Reply struct {
	rec    *record
	at     uint32 // its span in rec.found
	before uint32 // the first span of its attributes; at if it has none
	gen    uint32 // rec.gen as long as the reply is valid
}

// A record holds the values of a reply, or what is known of them before it is whole.
//
// It is flat. A value is a span of its text: its line without the type byte and the CR LF, or the
// bytes of a bulk string. The type is the byte before the text, or stands at the front of the line
// before it. An aggregate is two spans, and the spans of its elements are behind them:
//
//	*2 CRLF :7 CRLF $2 CRLF hi CRLF     found: "2" {2, 4} "7" "hi"
//
// Here {2, 4} says that it has 2 elements, and that found[4] is the first span behind it. A map counts
// its keys and its values. Attributes stand before the value that they belong to.
type record struct {
	nest
	base []byte // the bytes of the reply; nil until it is whole
	gen  uint32 // changes when the views of a reply end
	tail *tail  // the rest of a reply that was returned before it was whole, or nil
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
func (r Reply) valid() bool { return r.rec != nil && r.gen == r.rec.gen }

// Kind returns the type of r, or 0 if it is no reply.
func (r Reply) Kind() Kind {
	if !r.valid() {
		return 0
	}
	return r.rec.kind(r.at)
}

// IsNull reports whether r is a null of any form: "_", "$-1" or "*-1".
func (r Reply) IsNull() bool { return r.Kind() == Null }

// IsError reports whether the server replied an error, of either kind.
func (r Reply) IsError() bool {
	k := r.Kind()
	return k == SimpleError || k == BulkError
}

// Bytes returns the text of any value that is no aggregate, without its framing: a string or an
// error as it is, a number as it was written, "t" or "f". It is nil for a null, for an aggregate, and
// for a reply that is not whole. The view is valid until the parser's next read; Clone the reply
// to keep it.
func (r Reply) Bytes() []byte {
	k := r.Kind()
	switch {
	case k == 0, k == Null, k.isAggregate(), !r.Whole():
		return nil
	case k == VerbatimString:
		return r.text()[4:]
	}
	return r.text()
}

// Format returns the three letters that say what a verbatim string is, such as "txt" or "mkd", and
// nil for any other kind. The view is valid until the parser's next read; Clone the reply to keep it.
func (r Reply) Format() []byte {
	if r.Kind() != VerbatimString {
		return nil
	}
	return r.text()[:3:3]
}

func (r Reply) text() []byte {
	s := r.rec.found.s[r.at]
	return r.rec.base[s.start:s.end:s.end]
}

// Err returns a *[ReplyError] if the server replied an error, and nil otherwise. An element may be
// an error too, as those of EXEC's array. An error that is not whole has only a code, or nothing.
func (r Reply) Err() error {
	if !r.IsError() {
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
func (r Reply) scalar(want string) ([]byte, error) {
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
// *[ReplyError] if the server replied one, here and in the conversions below. The text of a number is
// judged here, not when it is read: a proxy passes on what it does not look at.
func (r Reply) Int() (int64, error) {
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
// RESP2 has for a double. One that is beyond the range of float64 is an error.
func (r Reply) Float() (float64, error) {
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
func (r Reply) Bool() (bool, error) {
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
// what RESP2 has for a big number. One of more than 65,536 bytes is an error, since the time that the
// conversion takes grows faster than its length.
func (r Reply) BigInt() (*big.Int, error) {
	b, err := r.scalar("an integer")
	if err != nil {
		return nil, err
	}
	if len(b) > maxLine || !isInteger(b) {
		return nil, notA("an integer", b)
	}
	n, _ := new(big.Int).SetString(string(b), 10)
	return n, nil
}

// notA returns the error for a text that cannot be converted.
func notA(want string, b []byte) error {
	const most = 64 // bytes
	if len(b) > most {
		return fmt.Errorf("redisproto: %q... is not %s", b[:most], want)
	}
	return fmt.Errorf("redisproto: %q is not %s", b, want)
}

// Len returns how many elements an aggregate has: for a map its keys and its values, as in the
// array that RESP2 has in its place. It is 0 for any other kind.
func (r Reply) Len() int {
	if !r.valid() || !r.rec.isAggregate(r.at) {
		return 0
	}
	return int(r.rec.found.s[r.at+1].start)
}

// At returns element i of an aggregate; in a map, a key is followed by its value. Where there is
// none, and in a reply that is not whole, it is no reply, of kind 0. If there are aggregates among the
// elements, it takes as long as passing over the elements before i: use All to walk over them.
func (r Reply) At(i int) Reply {
	e, n := r.first()
	if uint(i) >= uint(n) {
		return Reply{}
	}
	if own := r.rec.found.s[r.at+1]; own.end-own.start == r.at+2 { // each element is one span
		at := r.at + 2 + uint32(i)
		return Reply{r.rec, at, at, r.gen}
	}
	for range i {
		e = e.next()
	}
	return e
}

// All returns the elements of an aggregate; in a map, a key is followed by its value. It returns none
// for a reply that is not whole.
func (r Reply) All() iter.Seq[Reply] {
	return func(yield func(Reply) bool) {
		e, n := r.first()
		for ; n > 0 && e.valid() && yield(e); n-- {
			e = e.next()
		}
	}
}

// Pairs returns the keys and values of a map, or of an array that holds them in turn, which is what
// RESP2 has for a map. A key at the end of an array without a value comes with no reply, of kind 0.
func (r Reply) Pairs() iter.Seq2[Reply, Reply] {
	return func(yield func(_, _ Reply) bool) {
		key, n := r.first()
		for ; n > 0 && key.valid(); n -= 2 {
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

// Attributes returns the keys and values of the attributes that the server has sent before r. They are
// no part of r.
func (r Reply) Attributes() iter.Seq2[Reply, Reply] {
	return func(yield func(_, _ Reply) bool) {
		for at := r.before; r.valid() && at < r.at; {
			set := Reply{r.rec, at, at, r.gen}
			at = r.rec.after(at) // before yield, which may end r
			for key, value := range set.Pairs() {
				if !yield(key, value) {
					return
				}
			}
		}
	}
}

// first returns the first element, and how many there are.
func (r Reply) first() (e Reply, n int) {
	if n = r.Len(); n == 0 || !r.Whole() {
		return e, 0
	}
	return r.rec.reply(r.at + 2), n
}

// next returns the value behind r, if there is one.
func (r Reply) next() (e Reply) {
	if r.valid() {
		if at := r.rec.after(r.at); int(at) < len(r.rec.found.s) {
			e = r.rec.reply(at)
		}
	}
	return e
}

// Raw returns the bytes of r as they came, its attributes first: what is to be passed on. Of a reply
// that is not whole it returns what is before the first byte that WriteTo reads. The view is valid
// until the parser's next read; Clone the reply to keep it.
func (r Reply) Raw() []byte {
	if !r.valid() {
		return nil
	}
	t := r.rec
	start, end := t.line(r.before), len(t.base)
	if next := t.after(r.at); int(next) < len(t.found.s) {
		end = t.line(next)
	}
	return t.base[start:end:end]
}

// Clone returns a copy that owns its bytes and stays valid, with the attributes that r has. It may be
// read by several goroutines at once. The clone of a reply that is not whole is no reply.
func (r Reply) Clone() Reply {
	if !r.valid() || !r.Whole() {
		return Reply{}
	}
	t, b := new(record), bytes.Clone(r.Raw())
	const most = maxWhole
	t.parse(b, &bounds{Limits: Limits{Args: most, Bulk: most, Total: most, Depth: most}, maxBulk: most}, new(buffer))
	return t.commit(b)
}

// Whole reports whether all of the reply had arrived when it was returned. If not, as may happen with
// [Limits].Stream, its Kind is known, and its Size or Len, but it cannot be looked into: Body reads a
// string, and WriteTo passes the reply on. What is left of it is skipped by the next ReadReply.
func (r Reply) Whole() bool {
	return !r.valid() || r.rec.tail == nil || int(r.rec.after(r.at)) < len(r.rec.found.s)
}

// Size returns how many bytes a string has, also if it is not whole: as many as Body gives. It is -1 for
// a simple string or an error that is not whole, since nothing tells before its end how long it is. For
// any other kind it is the length of Bytes.
func (r Reply) Size() int64 {
	if !r.Whole() && r.Len() == 0 {
		return r.rec.tail.length
	}
	return int64(len(r.Bytes()))
}

// Body returns a reader of the bytes of a string, which are those of Bytes if it is whole. For an
// aggregate and for a null there are none. The reader is valid until the parser's next read; of a
// reply that is not whole, a second Body goes on where the first one stopped. Its errors are those of
// [ReplyParser.ReadReply], and as resumable. After WriteTo has been used, Body gives an error.
func (r Reply) Body() io.Reader {
	if r.Whole() {
		return bytes.NewReader(r.Bytes())
	}
	return r.rec.tail.body()
}

// WriteTo passes the reply on to w as it came: what Raw has, and for a reply that is not whole the rest,
// of any size and nesting, of which it holds nothing. It returns how many bytes were written.
//
// If it fails the peer behind w has received a part of a reply, and its connection cannot be used any
// more. If the reply was not whole, neither can the parser's, and every read gives ErrBroken. After
// Body has been used, WriteTo is an error.
func (r Reply) WriteTo(w io.Writer) (int64, error) {
	if r.Whole() {
		return writeAll(w, r.Raw())
	}
	return r.rec.tail.writeTo(w, r.Raw())
}

// commit makes what was found the reply, whose bytes are raw.
func (t *record) commit(raw []byte) Reply {
	t.base = raw
	return t.reply(0)
}

// reply returns the value at span i, or, if there are attributes, behind them.
func (t *record) reply(i uint32) Reply {
	r := Reply{t, i, i, t.gen}
	for t.isAttribute(r.at) {
		r.at = t.found.s[r.at+1].end
	}
	return r
}

func (t *record) isAttribute(i uint32) bool {
	return Kind(t.base[t.found.s[i].start-1]) == attribute
}

// line returns where the first line of the value at span i begins in base.
func (t *record) line(i uint32) int {
	pos := int(t.found.s[i].start) - 1
	if t.base[pos] != '\n' {
		return pos
	}
	for pos -= 2; t.base[pos]-'0' <= 9; pos-- { // over the length of a bulk string
	}
	return pos
}

func (t *record) kind(i uint32) Kind {
	k := Kind(t.base[t.line(i)])
	if s := t.found.s[i]; k == BulkString && t.base[s.start-1] == '$' || k == Array && t.base[s.start] == '-' {
		return Null
	}
	return k
}

// isAggregate reports whether the value at span i has two spans, and elements.
func (t *record) isAggregate(i uint32) bool {
	s := t.found.s[i]
	k := Kind(t.base[s.start-1])
	return (k.isAggregate() || k == attribute) && t.base[s.start] != '-'
}

// after returns the span behind the value at span i.
func (t *record) after(i uint32) uint32 {
	if t.isAggregate(i) {
		return t.found.s[i+1].end
	}
	return i + 1
}

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
