package main

import (
	"math"
	"strconv"
	"time"

	"github.com/secmask/go-redisproto"
)

// A db is one of the databases that SELECT chooses from. Handlers of commands on data get it, and
// the command, with the server's lock held; they return what to reply, which is written when the
// lock has been released. So what they return must not change later: text is replaced or appended
// to, never written over, and everything else is strings.
type db struct {
	keys     map[string]*object
	volatile map[string]*object // those of keys that expire
}

// An object is the value of a key.
type object struct {
	text    []byte // a string's
	value   any    // *list, *set, hash or *zset; nil for a string
	expires int64  // milliseconds since 1970; 0 is never
}

func (d *db) clear() { d.keys, d.volatile = map[string]*object{}, map[string]*object{} }

func now() int64 { return time.Now().UnixMilli() }

// find returns the object of a key, or nil.
func (d *db) find(key []byte) *object {
	o := d.keys[string(key)]
	if o != nil && o.expires != 0 && o.expires < now() {
		d.remove(key)
		return nil
	}
	return o
}

func (d *db) remove(key []byte) {
	delete(d.keys, string(key))
	delete(d.volatile, string(key))
}

// setExpires sets when the key of o expires; 0 is never.
func (d *db) setExpires(key []byte, o *object, at int64) {
	if at != 0 {
		d.volatile[string(key)] = o
	} else if o.expires != 0 {
		delete(d.volatile, string(key))
	}
	o.expires = at
}

// setText makes the key hold a string, which is copied, and leaves its expiry.
func (d *db) setText(key, text []byte) *object {
	o := d.find(key)
	if o == nil {
		o = new(object)
		d.keys[string(key)] = o
	}
	o.value, o.text = nil, append([]byte{}, text...) // not nil, which is null
	return o
}

// text returns the string that a key holds, nil if there is none; ok is false for another type.
func (d *db) text(key []byte) (text []byte, ok bool) {
	o := d.find(key)
	if o == nil {
		return nil, true
	}
	return o.text, o.value == nil
}

// A container is a value with elements. Redis has no empty ones: their keys are removed.
type container interface{ size() int }

// with calls f with the value of a key, unless there is none or it is of another type.
func with[T container](d *db, key []byte, missing reply, f func(T) reply) reply {
	o := d.find(key)
	if o == nil {
		return missing
	}
	v, ok := o.value.(T)
	if !ok {
		return wrongType
	}
	r := f(v)
	if v.size() == 0 {
		d.remove(key)
	}
	return r
}

// obtain returns the value of a key, which it makes if there is none; ok is false for another type.
func obtain[T container](d *db, key []byte, make func() T) (v T, ok bool) {
	o := d.find(key)
	if o == nil {
		v = make()
		d.keys[string(key)] = &object{value: v}
		return v, true
	}
	v, ok = o.value.(T)
	return v, ok
}

// expire removes keys whose time has come and which nobody asks for. As in Redis it takes samples,
// and goes on with a database while a good part of the sample was due.
func (s *server) expire() {
	const sample = 100
	for i := range s.dbs {
		for again := true; again; {
			s.mu.Lock()
			again = s.dbs[i].expireSome(sample, now()) > sample/4
			s.mu.Unlock()
		}
	}
}

// expireSome looks at n keys, and returns how many it removed. Go begins to range at a random one.
func (d *db) expireSome(n int, now int64) (removed int) {
	for key, o := range d.volatile {
		if n--; n < 0 {
			break
		}
		if o.expires < now {
			delete(d.keys, key)
			delete(d.volatile, key)
			removed++
		}
	}
	return removed
}

// A reply is what a handler wants to be written.
type reply struct {
	kind   byte      // the RESP3 type: '+' '-' ':' '$' '_' ',' '*' '~' '%', or one of those below
	n      int64     // ':'
	score  float64   // ','
	text   string    // '+' '-', or a bulk string
	bulk   []byte    // '$'
	list   []string  // elements of '*' '~', keys and values of '%', members
	scores []float64 // of the members
	bulks  [][]byte  // elements of '*', instead of list
}

const (
	isText      = 't' // a bulk string
	isNullArray = 'n' // null, which RESP2 has two of
	isScored    = 's' // members and scores; pairs of them are arrays in RESP3
	isPopped    = 'p' // likewise, but flat in both
)

var (
	null      = reply{kind: '_'}
	done      = reply{kind: '+', text: "OK"}
	wrongType = fail("WRONGTYPE Operation against a key holding the wrong kind of value")
	notInt    = fail("ERR value is not an integer or out of range")
	notCount  = fail("ERR value is out of range, must be positive")
	notFloat  = fail("ERR value is not a valid float")
	badSyntax = fail("ERR syntax error")
)

func fail(text string) reply          { return reply{kind: '-', text: text} }
func integer(n int) reply             { return reply{kind: ':', n: int64(n)} }
func bulk(b []byte) reply             { return reply{kind: '$', bulk: b} }
func text(s string) reply             { return reply{kind: isText, text: s} }
func double(f float64) reply          { return reply{kind: ',', score: f} }
func wrongArity(command string) reply { return fail(arityError(command)) }

func arityError(command string) string {
	return "ERR wrong number of arguments for '" + command + "' command"
}

// write writes r in the protocol of w.
func (r *reply) write(w *redisproto.Writer) error {
	switch r.kind {
	case '+':
		return w.WriteSimpleString(r.text)
	case '-':
		return w.WriteError(r.text)
	case ':':
		return w.WriteInt(r.n)
	case '$':
		return w.WriteBulk(r.bulk)
	case isText:
		return w.WriteBulkString(r.text)
	case ',':
		return w.WriteDouble(r.score)
	case '~':
		w.WriteSetHeader(len(r.list))
	case '%':
		w.WriteMapHeader(len(r.list) / 2)
	case '*':
		w.WriteArrayHeader(max(len(r.list), len(r.bulks)))
	case isNullArray:
		return w.WriteArrayHeader(-1)
	case isScored, isPopped:
		return r.writeScored(w)
	default:
		return w.WriteNull()
	}
	var err error
	for _, s := range r.list {
		err = w.WriteBulkString(s)
	}
	for _, b := range r.bulks {
		err = w.WriteBulk(b)
	}
	return err
}

func (r *reply) writeScored(w *redisproto.Writer) (err error) {
	nested := r.kind == isScored && w.Protocol() == 3
	if nested {
		err = w.WriteArrayHeader(len(r.list))
	} else {
		err = w.WriteArrayHeader(2 * len(r.list))
	}
	for i, member := range r.list {
		if nested {
			w.WriteArrayHeader(2)
		}
		w.WriteBulkString(member)
		err = w.WriteDouble(r.scores[i])
	}
	return err
}

// parseInt parses an integer as Redis does: no sign but '-', no leading zero, no "-0".
func parseInt(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || b[0] == '+' || (b[0] == '0' || b[0] == '-' && b[1] == '0') && len(b) > 1 {
		return 0, false
	}
	return n, true
}

// parseCount parses an optional argument i, how many to take: 1 if it is missing, and not negative.
func parseCount(cmd *redisproto.Command, i int) (n int, ok bool) {
	if cmd.ArgCount() <= i {
		return 1, true
	}
	v, ok := parseInt(cmd.Get(i))
	return int(min(v, math.MaxInt32)), ok && v >= 0
}

// parseRange parses two indexes.
func parseRange(from, to []byte) (start, stop int64, ok bool) {
	start, ok = parseInt(from)
	stop, ok2 := parseInt(to)
	return start, stop, ok && ok2
}

// clip gives the range start to stop of n elements, where negative numbers count from the end, as
// the bounds of a slice.
func clip(start, stop int64, n int) (i, j int) {
	if start < 0 {
		start = max(0, start+int64(n))
	}
	if stop < 0 {
		stop += int64(n)
	}
	stop = min(stop, int64(n)-1)
	if start > stop {
		return 0, 0
	}
	return int(start), int(stop) + 1
}
