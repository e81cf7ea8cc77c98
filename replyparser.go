package redisproto

import (
	"encoding/binary"
	"io"
	"math"
	"strings"
)

// A ReplyParser reads replies of RESP2 and RESP3: what a server sends to its client. NewReplyParser
// makes one for a connection. The zero ReplyParser serves Parse, for programs that read into buffers
// of their own. It must not be copied.
type ReplyParser struct {
	input
	rec record
}

// NewReplyParser returns a ReplyParser that reads from r, with a buffer of its own, as that of a
// Parser; do not put a bufio.Reader between. What is to be done before each read, such as setting a
// deadline, belongs into r.
func NewReplyParser(r io.Reader) *ReplyParser {
	p := new(ReplyParser)
	p.Reset(r)
	return p
}

// Reset makes p read from r as if it were new, with the buffers and the limits that it has. All
// replies and views that p gave end.
func (p *ReplyParser) Reset(r io.Reader) {
	p.rec.end()
	p.rec.restart()
	p.rec.tail = nil
	p.rec.giveBack(&p.buf)
	p.reset(r)
	p.tail.next, p.tail.reply = (*partial).parseValue, true
	p.SetLimits(p.limits)
}

// SetLimits makes l hold from the next reply on. For a reply that has been received in part, l holds
// from its start. For one that was returned before it was whole, l does not change anything. It
// reads the defaults, such as MaxBulkSize, anew.
func (p *ReplyParser) SetLimits(l Limits) {
	p.setLimits(l)
	if !p.broken {
		p.rec.restart()
	}
}

// ReadReply returns the next reply. Pushes come as replies of their kind, in the order in which they
// were received. The reply and its views are valid until the next ReadReply or Reset; Clone it to keep
// it. An error that the server replied is no error here: see [Reply.Err].
//
// The error is a *ProtocolError if the peer has sent what is no reply: close the connection. After
// that it is ErrBroken. At the end of input it is io.EOF, or io.ErrUnexpectedEOF inside a reply. Any
// other error is the reader's own. Nothing is lost by it, and the next call goes on where this one
// has stopped.
func (p *ReplyParser) ReadReply() (Reply, error) {
	t := &p.rec
	if raceEnabled || p.buf.large != nil || t.tail != nil {
		if err := p.expire(); err != nil {
			return Reply{}, err
		}
	}
	t.gen++
	if n := t.parseSimple(p.buf.unread(), &p.lim); n > 0 {
		t.base = p.buf.take(n)
		return Reply{t, 0, 0, t.gen}, nil
	}
	return p.readReply()
}

// readReply is ReadReply for any reply.
func (p *ReplyParser) readReply() (Reply, error) {
	t := &p.rec
	for !p.broken {
		if b := p.buf.unread(); len(b) > 0 {
			n, err := t.parse(b, &p.lim, &p.buf)
			if err == nil && n == 0 && p.lim.Stream > 0 && t.exceeds(b, p.lim.Stream) {
				if err = p.beginTail(b); err == nil {
					return t.reply(0), nil
				}
			}
			if err != nil {
				err.Offset += p.buf.at(0)
				t.restart()
				return Reply{}, p.fail(replyError(err))
			}
			if n > 0 {
				return t.commit(p.buf.take(n)), nil
			}
		}
		t.base = nil // nothing may keep old data in memory
		size := 0
		if t.bulk > 0 && t.left == 1 && len(t.open) <= 1 {
			size = t.need
		}
		if err := p.buf.fill(size); err != nil {
			return Reply{}, err
		}
	}
	return Reply{}, ErrBroken
}

// replyError returns err with the word reply in place of request.
func replyError(err *ProtocolError) *ProtocolError {
	err.text = strings.Replace(err.text, "request", "reply", 1)
	return err
}

// expire ends the reply that was returned last, passes over what has not been read of it, and gives
// back the memory that only a large reply needs.
func (p *ReplyParser) expire() error {
	t := &p.rec
	t.end()
	if err := p.finish(&t.tail); err != nil {
		return err
	}
	p.buf.poison()
	if t.need == 0 {
		t.giveBack(&p.buf)
	}
	p.buf.release()
	return nil
}

// beginTail makes what has arrived of the reply, b, the head of one that is returned before it is
// whole. It returns an error if that is not possible.
func (p *ReplyParser) beginTail(b []byte) *ProtocolError {
	t := &p.rec
	var n, left int
	size, aggregate := int64(-1), len(t.open) > 0
	attributes := len(t.found.s) > 0 && Kind(b[0]) == attribute
	switch {
	case aggregate:
		at := t.open[0].at
		attributes = attributes && at > 0
		n, left = int(t.found.s[at].end)+2, int(t.found.s[at+1].start)
		if Kind(b[t.found.s[at].start-1]) == attribute {
			return ErrTooBig.at(0)
		}
		t.found.s = t.found.s[:at+2]
		t.found.s[at+1].end = at + 2
	case t.bulk == 0 && (len(t.found.s) > 0 || !Kind(b[t.pos+2]).isText()): // nothing behind attributes, or a number
		return ErrTooBig.at(0)
	case t.bulk == 0:
		n = t.pos + 3
		t.found.s = append(t.found.s, span{uint32(n), uint32(n)})
	default:
		n, size = t.bulk, t.size
		if Kind(b[t.pos+2]) == VerbatimString {
			n, size = n+4, size-4
		}
		t.found.s = append(t.found.s, span{uint32(t.bulk), uint32(n)})
	}
	if attributes && n > p.lim.Stream {
		return ErrTooBig.at(0)
	}
	t.tail = &p.tail
	t.base = t.tail.begin(n, &p.lim)
	t.restart()
	switch {
	case aggregate:
		t.tail.open = append(t.tail.open, level{})
		t.tail.left, t.tail.total = left, left
	case size < 0:
		t.tail.left, t.tail.text, t.tail.length = 1, 1, -1
	default:
		t.tail.left = 1
		t.tail.arrive(size)
	}
	return nil
}

// exceeds reports whether a reply that is not whole is to be returned so under a Stream of limit. A
// line that gives a length is waited for: it is short.
func (t *record) exceeds(b []byte, limit int) bool {
	if len(t.open) == 0 && t.bulk == 0 && len(t.found.s) == 0 {
		start := t.pos + 2
		return start < len(b) && Kind(b[start]).isLine() && len(b) > limit
	}
	const spanSize = 8
	spans := max(t.total, len(t.found.s))
	return t.need > limit || spans > (limit-t.need)/spanSize
}

// Parse returns the reply at the front of b, and how many bytes of b it has. It is for programs that
// own their buffers, event loops above all.
//
// When n is 0 and err is nil, b holds no whole reply yet: call again with the same bytes and more
// after them, which may stand elsewhere in memory by then. Parse goes on where it has stopped. The
// views of the reply are into b. They are valid until the next Parse or Reset, and as long as b is
// unchanged; Parse does not change it.
//
// The error is a *ProtocolError, whose Offset counts from the start of b. After it every call
// returns ErrBroken until Reset. The limits are those of SetLimits, but nothing is streamed. A
// ReplyParser that has a reader does not serve Parse.
func (p *ReplyParser) Parse(b []byte) (r Reply, n int, err error) {
	if !p.push || p.buf.large != nil {
		if err := p.startParse(); err != nil {
			return Reply{}, 0, err
		}
	}
	t := &p.rec
	t.gen++
	if n = t.parseSimple(b, &p.lim); n > 0 {
		return t.commit(b[:n:n]), n, nil
	}
	t.base = nil // b is the caller's
	switch {
	case p.broken:
		return Reply{}, 0, ErrBroken
	case len(b) == 0:
		return Reply{}, 0, nil
	}
	n, perr := t.parse(b, &p.lim, &p.buf)
	switch {
	case perr != nil:
		t.need = math.MaxInt // parseSimple passes over it from now on
		p.broken = true
		return Reply{}, 0, replyError(perr)
	case n == 0:
		return Reply{}, 0, nil
	}
	return t.commit(b[:n:n]), n, nil
}

// startParse prepares p for Parse, and gives back large memory between two replies.
func (p *ReplyParser) startParse() error {
	if p.buf.rd != nil {
		return errHasReader
	}
	if !p.push {
		p.Reset(nil)
		p.push = true
		p.SetLimits(p.limits)
	}
	if p.rec.need == 0 {
		p.rec.giveBack(&p.buf)
		p.buf.release()
	}
	return nil
}

// giveBack gives back large memory. The reply is past.
func (t *record) giveBack(buf *buffer) {
	giveBack(&t.found, buf, spareSpans)
	if cap(t.open) > maxKept {
		t.open = nil
	}
}

// end makes the reply one that is past.
func (t *record) end() {
	t.base = nil
	t.gen++
}

// parseSimple parses a reply that is a string or a number, whole and within the limits, on a line of
// up to six bytes or behind such a header, and has not been begun. It returns how many bytes the reply
// has, or 0 for any other.
func (t *record) parseSimple(b []byte, lim *bounds) (n int) {
	if len(b) < 9 || cap(t.found.s) == 0 || t.need > 0 {
		return 0
	}
	x := binary.LittleEndian.Uint64(b[1:])
	var width int
	// The common widths are separate branches: the processor predicts a branch, while a computed
	// width would delay everything after it.
	switch {
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
	switch kind := Kind(b[0]); {
	case kind.isLine():
		if width > lim.Bulk || smallByte(x) < width {
			return 0
		}
	case kind == BulkString:
		size := 0
		for _, ch := range b[1:end] {
			if ch-'0' > 9 {
				return 0
			}
			size = size*10 + int(ch-'0')
		}
		start = end + 2
		end = start + size
		if width == 0 || b[1] == '0' || size > lim.Bulk || end > len(b)-2 || !crlf(b[end:]) {
			return 0
		}
	default:
		return 0
	}
	if end+2 > lim.Total {
		return 0
	}
	t.found.s = t.found.s[:1]
	t.found.s[0] = span{uint32(start), uint32(end)}
	return end + 2
}

// isText reports whether a value of kind k is a line of any text.
func (k Kind) isText() bool { return k == SimpleString || k == SimpleError }

// isLine reports whether a value of kind k is a line of text.
func (k Kind) isLine() bool {
	return k == SimpleString || k == Integer || k == SimpleError || k == Double || k == BigNumber
}

// lines parses values that are lines of text, of up to six bytes, for as long as they come and found
// has room, as bulks does with bulk strings.
func lines(b []byte, pos, limit int, found []span) (n, end int) {
	for i := range found {
		if pos > len(b)-11 || !Kind(b[pos+2]).isLine() || !crlf(b[pos:]) {
			return i, pos
		}
		x := binary.LittleEndian.Uint64(b[pos+3:])
		width := smallByte(x)
		if uint16(x>>(8*width&63)) != crlf16 || width > limit {
			return i, pos
		}
		found[i] = span{uint32(pos + 3), uint32(pos + 3 + width)}
		pos += 3 + width
	}
	return len(found), pos
}

// parse goes on with the reply at the front of b, of which earlier calls have seen a part or
// nothing. n bytes are the reply, and it is in found; or n is 0 and it is not whole. Large memory is
// that of buf.
func (t *record) parse(b []byte, lim *bounds, buf *buffer) (n int, err *ProtocolError) {
	if len(b) < t.need {
		return 0, nil
	}
	n, err = t.parseWithin(b[:min(len(b), lim.Total)], lim, buf)
	if n == 0 && err == nil && len(b) > lim.Total {
		err = ErrTooBig.at(0)
	}
	return n, err
}

// parseWithin is parse for a b that is not longer than a reply may be.
func (t *record) parseWithin(b []byte, lim *bounds, buf *buffer) (n int, err *ProtocolError) {
	switch {
	case t.bulk > 0:
		t.takeBulk()
	case t.left == 0:
		t.found.s, t.open, t.total = t.found.s[:0], t.open[:0], 0
		t.left, t.pos = 1, -2 // as if a CR LF ended what was before
	}
	for {
		for t.left == 0 && len(t.open) > 0 {
			l := t.leave()
			t.found.s[l.at+1].end = uint32(len(t.found.s))
		}
		if t.left == 0 {
			break
		}
		if cap(t.found.s)-len(t.found.s) < 2 { // an aggregate has two
			t.grow(max(2, t.left), buf)
		}
		if t.pos >= 0 {
			free := t.room()
			n, end := bulks(b, t.pos, lim.Bulk, free)
			if n == 0 {
				n, end = lines(b, t.pos, lim.Bulk, free)
			}
			if n > 0 {
				t.found.s, t.pos, t.left = t.found.s[:len(t.found.s)+n], end, t.left-n
				continue
			}
		}
		if ok, err := t.parseNext(b, lim); !ok {
			return 0, err
		}
	}
	if !crlf(b[t.pos:]) {
		return 0, ErrCRLF.at(t.pos)
	}
	t.need, t.seen = 0, 0
	return t.pos + 2, nil
}

// parseNext parses one value of any kind, or the head of an aggregate, which is the next in order.
// It reports whether that is whole.
func (t *record) parseNext(b []byte, lim *bounds) (ok bool, err *ProtocolError) {
	start := t.pos + 2
	h, err := t.parseValue(b, lim)
	switch {
	case h.end == 0:
		return false, err
	case h.size >= 0 && h.size > int64(lim.Total-h.end-4) && lim.Stream <= 0:
		return false, ErrTooBig.at(0)
	case h.size >= 0:
		return t.awaitBulk(b, h.end, h.size), nil
	}
	at := uint32(len(t.found.s))
	t.found.s = append(t.found.s, span{uint32(start + 1), uint32(h.end)})
	t.pos = h.end
	if !h.isAttribute {
		t.left--
	}
	if h.count >= 0 {
		t.found.s = append(t.found.s, span{uint32(h.count), 0})
		err = t.enter(h, start, at, lim)
	}
	return err == nil, err
}

const maxNumber = 20 // bytes: an int64

// parseValue parses the first line of a value of any kind, behind the CR LF at pos.
func (t *partial) parseValue(b []byte, lim *bounds) (h head, err *ProtocolError) {
	start := t.pos + 2
	if t.pos >= 0 && !crlf(b[t.pos:]) {
		return h, ErrCRLF.at(t.pos)
	}
	if start >= len(b) {
		t.need = start + 1
		return h, nil
	}
	limit, invalid, kind := maxNumber, ErrReplyValue, Kind(b[start])
	switch {
	case kind.isLine():
		limit, invalid = lim.Bulk, ErrBulkLength
	case kind.isString():
		invalid = ErrBulkLength
	case kind.isAggregate(), kind == attribute:
		invalid = ErrMultibulkLength
	case kind != Boolean && kind != Null:
		return h, ErrReplyType.at(start).got(b[start])
	}
	end, err := t.parseLine(b, start, limit, invalid)
	if end == 0 {
		return h, err
	}
	text := b[start+1 : end]
	h = head{end: end, size: -1, count: -1}
	switch {
	case kind.isLine():
		return h, nil
	case kind == Null && len(text) == 0, kind == Boolean && len(text) == 1 && (text[0] == 't' || text[0] == 'f'):
		return h, nil
	case kind == Null, kind == Boolean:
		return head{}, ErrReplyValue.at(start)
	case len(text) == 1 && text[0] == '?':
		err := ErrReplyType.at(start).got(byte(kind))
		err.text += " with a length of '?'"
		return head{}, err
	}
	n, ok := parseInt(text)
	if ok && n == -1 && (kind == BulkString || kind == Array) {
		return h, nil
	}
	if kind.isString() {
		return t.parseLength(b, h, kind, n, ok && n <= int64(lim.Bulk))
	}
	return parseElements(h, start, kind, n, ok)
}

// isString reports whether a value of kind k gives its length first.
func (k Kind) isString() bool { return k == BulkString || k == BulkError || k == VerbatimString }

// parseLength completes the head h of a string of n bytes. ok says whether the length is allowed.
func (t *partial) parseLength(b []byte, h head, kind Kind, n int64, ok bool) (head, *ProtocolError) {
	start := t.pos + 2
	switch {
	case !ok || n < 0:
		return head{}, ErrBulkLength.at(start)
	case kind != VerbatimString:
	case n < 4:
		return head{}, ErrReplyValue.at(start)
	case len(b) < h.end+6: // the format and its colon
		t.need = h.end + 6
		return head{}, nil
	case b[h.end+5] != ':':
		return head{}, ErrReplyValue.at(start)
	}
	h.size = n
	return h, nil
}

// parseElements completes the head h of an aggregate of n elements, or pairs of them.
func parseElements(h head, start int, kind Kind, n int64, ok bool) (head, *ProtocolError) {
	most := int64(math.MaxInt32)
	if kind == Map || kind == attribute {
		most /= 2
	}
	if !ok || n < 0 || n > most {
		return head{}, ErrMultibulkLength.at(start)
	}
	h.isAttribute = kind == attribute
	if h.count = int(n); most < math.MaxInt32 {
		h.count *= 2
	}
	return h, nil
}

// parseLine looks for the end of the line whose type byte is at start, of up to limit bytes between
// that and its CR LF. end is where its CR is, or 0 if the line is not whole or is wrong.
func (t *partial) parseLine(b []byte, start, limit int, invalid *ProtocolError) (end int, err *ProtocolError) {
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
