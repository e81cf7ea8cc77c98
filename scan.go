package redisproto

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A span is the place of an argument or of a value's text, counted from the first byte of its
// command or reply, so that it stays right when the bytes are moved.
type span struct{ start, end uint32 }

// A partial is what is known of a command or a reply of which a part has arrived. Like a span, its
// positions count from the first byte of the command or reply. These are its states:
//
//	                          left   bulk    need                    seen
//	not begun, or whole       0      0       0                       0
//	first line not whole      0      0       one byte more           where to search on
//	a header is expected      n > 0  0       one byte more           where to search on
//	a bulk is being received  n > 0  start   the end of its CR LF    0
//	after a protocol error    -      -       math.MaxInt             -
//
// In the third and the fourth state, and when it is whole, pos is where the CR LF stands that ends what
// was parsed last.
type partial struct {
	found list[span] // the arguments or values that are whole
	left  int        // how many more are to come, at the level that is being parsed
	pos   int
	bulk  int
	size  int64 // of that bulk
	need  int   // how many bytes must have arrived before parsing can make progress
	seen  int   // in a line: up to here there is no end of it
}

// restart resets t to the state of a command or a reply that has not been begun.
func (t *partial) restart() { t.left, t.bulk, t.need, t.seen = 0, 0, 0, 0 }

// room returns the space behind found for the elements to come, for bulks to fill.
func (t *partial) room() []span {
	have := len(t.found.s)
	return t.found.s[have : have+min(t.left, cap(t.found.s)-have)]
}

// awaitBulk makes the bulk of length bytes whose header's CR is at end the one that is being
// received. If it is whole already it takes it, and reports true.
func (t *partial) awaitBulk(b []byte, end int, length int64) (ok bool) {
	t.bulk, t.size, t.seen = end+2, length, 0
	t.need = math.MaxInt - 1
	if length < int64(maxWhole-t.bulk) { // a longer one is passed on before it is whole
		t.need = t.bulk + int(length) + 2
	}
	if len(b) < t.need {
		return false
	}
	t.takeBulk()
	return true
}

// takeBulk adds the bulk that was being received to found.
func (t *partial) takeBulk() {
	t.pos = t.need - 2
	t.found.s = append(t.found.s, span{uint32(t.bulk), uint32(t.pos)})
	t.left--
	t.bulk = 0
}

// exceeds reports whether more than limit bytes would have to be held until t is whole: what it needs
// next, and a span for each element that is there or was declared.
func (t *partial) exceeds(limit int) bool {
	const spanSize = 8
	return t.need > limit || int64(len(t.found.s)+t.left) > int64(limit-t.need)/spanSize
}

// bulks parses bulk strings of up to 999 bytes for as long as whole ones come and found has room. It
// returns how many there were, and where the CR LF stands that ends the last one. At b[pos] stands the
// CR LF that ends what was before the first one. Anything else, right or wrong, is left to the caller.
//
// Nearly all bulk strings are such. One load of eight bytes has the CR LF, the '$', the length and its
// CR LF; b always has these eight bytes if the bulk string is whole.
func bulks(b []byte, pos, limit int, found []span) (n, end int) {
	const last = '0' | '\r'<<8 | '\n'<<16 // a digit d and its CR LF are the bytes of last+d
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

// crlf reports whether b, which has at least two bytes, begins with CR LF.
func crlf(b []byte) bool { return b[0] == '\r' && b[1] == '\n' }

const (
	crlf16 = '\r' | '\n'<<8 // CR LF in a load of two bytes
	ones   = 0x0101010101010101
	highs  = 0x8080808080808080
)

// smallByte returns the index of the first byte of x, the lowest one first, that can be CR or LF, or
// 8 if there is none. "Can be" means that it is not greater than CR.
func smallByte(x uint64) int {
	return bits.TrailingZeros64((x-ones*('\r'+1))&^x&highs) / 8
}

// lineEnd returns the index of the first CR or LF in b from byte i on, or len(b).
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

// A head is what the first line of an argument or of a value says.
type head struct {
	end   int   // where its CR is; 0 if the line is not whole
	size  int64 // bytes of the string that follows it; -1 if none does
	count int   // elements that follow it; -1 if it begins no aggregate
	// isAttribute is true for attributes, which are no element of the aggregate that they stand in.
	isAttribute bool
}

// A nest is a partial whose elements may have elements in turn. left is for the innermost aggregate
// that is not whole.
type nest struct {
	partial
	open  []level // the aggregates that are not whole, outer ones first
	total int     // elements that were declared
}

// A level is an aggregate whose elements are being parsed.
type level struct {
	at   uint32 // its first span in found
	left int    // how many elements of the enclosing aggregate follow it
}

// enter begins the aggregate of h, whose line begins at start and whose span is at.
func (t *nest) enter(h head, start int, at uint32, lim *bounds) *ProtocolError {
	count := h.count
	if h.isAttribute { // it counts itself, since a peer may send any number of empty ones
		count++
	}
	switch {
	case count > lim.Args-t.total:
		return ErrMultibulkLength.at(start)
	case len(t.open) >= lim.Depth:
		return ErrReplyDepth.at(start)
	}
	t.total += count
	t.open = append(t.open, level{at, t.left})
	t.left = h.count
	return nil
}

// leave ends the innermost aggregate and returns it.
func (t *nest) leave() level {
	i := len(t.open) - 1
	l := t.open[i]
	t.left, t.open = l.left, t.open[:i]
	return l
}
