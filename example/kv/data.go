package main

import (
	"context"
	"math"
	"runtime"
	"strings"
	"time"

	"github.com/secmask/go-redisproto"
)

// A db is one of the databases that SELECT chooses from. Handlers of commands on data get it with the
// server's lock held, and return what to reply, which is written when the lock has been released:
// it may refer to strings, which nobody changes, and to nothing else of the data.
type db struct {
	keys     map[string]*object
	expiring *zset // when keys expire; to go through a map costs what it costs when the map is at its largest
}

// An object is the value of a key.
type object struct {
	text    string           // if it is a string
	grown   *strings.Builder // which has text, if APPEND made it
	value   container        // if it is something else
	expires int64            // milliseconds since 1970; 0 is never
}

// A container is a value with elements. Redis has no empty ones: their keys are removed.
type container interface {
	size() int
	kind() string
}

func (d *db) clear() { d.keys, d.expiring = map[string]*object{}, newZset() }

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
	d.expiring.remove(key)
}

// setExpires sets when the key of o expires; 0 is never.
func (d *db) setExpires(key []byte, o *object, at int64) {
	if at != 0 {
		d.expiring.put(key, float64(at)) // which holds the milliseconds of 285,000 years
	} else if o.expires != 0 {
		d.expiring.remove(key)
	}
	o.expires = at
}

// setText makes the key hold a string, and leaves its expiry.
func (d *db) setText(key []byte, text string) *object {
	o := d.find(key)
	if o == nil {
		o = new(object)
		d.keys[string(key)] = o
	}
	o.value, o.text, o.grown = nil, text, nil
	return o
}

// with calls f with the value of the command's key, unless there is none or it is of another type.
func with[T container](d *db, cmd *redisproto.Command, missing reply, f func(T) reply) reply {
	o := d.find(cmd.Get(1))
	if o == nil {
		return missing
	}
	v, ok := o.value.(T)
	if !ok {
		return wrongType
	}
	r := f(v)
	if v.size() == 0 {
		d.remove(cmd.Get(1))
	}
	return r
}

// obtain returns the value of the command's key, which it makes if there is none; ok is false for
// another type.
func obtain[T container](d *db, cmd *redisproto.Command, make func() T) (v T, ok bool) {
	o := d.find(cmd.Get(1))
	if o == nil {
		v = make()
		d.keys[string(cmd.Get(1))] = &object{value: v}
		return v, true
	}
	v, ok = o.value.(T)
	return v, ok
}

// sweep removes keys whose time has come and which nobody asks for, until ctx ends. It lets clients in
// after some.
func (s *server) sweep(ctx context.Context) {
	const batch = 50
	for t := time.Tick(100 * time.Millisecond); ctx.Err() == nil; <-t {
		for i := range s.dbs {
			for n := batch; n == batch; runtime.Gosched() {
				s.mu.Lock()
				n = s.dbs[i].expire(batch)
				s.mu.Unlock()
			}
		}
	}
}

// expire removes as many as most keys whose time has come, and returns how many.
func (d *db) expire(most int) (n int) {
	for now := float64(now()); n < most && d.expiring.size() > 0 && d.expiring.blocks[0][0].score < now; n++ {
		d.remove([]byte(d.expiring.blocks[0][0].member))
	}
	return n
}

// A reply is what a handler wants to be written.
type reply struct {
	kind   byte      // the RESP3 type: '+' '-' ':' '$' '_' ',' '*' '~' '%', or one of those below
	n      int64     // ':'
	score  float64   // ','
	text   string    // '+' '-' '$'
	list   []string  // elements of '*' '~', keys and values of '%'
	scores []float64 // of the elements, which follow them
	have   []bool    // which elements are not null; nil is all
}

const (
	nullArray = 'n' // null, which RESP2 has two of
	pairs     = 'p' // an array of elements with scores, which in RESP3 has an array for each
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

func fail(text string) reply { return reply{kind: '-', text: text} }
func integer(n int) reply    { return reply{kind: ':', n: int64(n)} }
func text(s string) reply    { return reply{kind: '$', text: s} }

func wrongArity(command string) reply {
	return fail("ERR wrong number of arguments for '" + command + "' command")
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
		return w.WriteBulkString(r.text)
	case ',':
		return w.WriteDouble(r.score)
	case '_':
		return w.WriteNull()
	case nullArray:
		return w.WriteArrayHeader(-1)
	}
	return r.writeList(w)
}

func (r *reply) writeList(w *redisproto.Writer) (err error) {
	nested := r.kind == pairs && w.Protocol() == 3
	switch {
	case r.kind == '~':
		err = w.WriteSetHeader(len(r.list))
	case r.kind == '%':
		err = w.WriteMapHeader(len(r.list) / 2)
	case nested:
		err = w.WriteArrayHeader(len(r.list))
	default:
		err = w.WriteArrayHeader(len(r.list) + len(r.scores))
	}
	for i, s := range r.list {
		if nested {
			w.WriteArrayHeader(2)
		}
		if r.have != nil && !r.have[i] {
			err = w.WriteNull()
		} else {
			err = w.WriteBulkString(s)
		}
		if r.scores != nil {
			err = w.WriteDouble(r.scores[i])
		}
	}
	return err
}

// What commands of several types have in common.

// size answers LLEN, SCARD, HLEN and ZCARD.
func size[T container](d *db, cmd *redisproto.Command) reply {
	return with(d, cmd, integer(0), func(v T) reply { return integer(v.size()) })
}

// remove answers SREM, HDEL and ZREM.
func remove[T interface {
	container
	remove(element []byte) bool
}](d *db, cmd *redisproto.Command) reply {
	return with(d, cmd, integer(0), func(v T) reply {
		n := 0
		for _, element := range cmd.Args()[2:] {
			if v.remove(element) {
				n++
			}
		}
		return integer(n)
	})
}

// pop answers LPOP, RPOP and SPOP: with one element or, if there is a count, with so many.
func pop[T container](d *db, cmd *redisproto.Command, many byte, missing reply, take func(T) string) reply {
	n, bad := popCount(cmd)
	if bad != "" {
		return fail(bad)
	}
	if cmd.ArgCount() == 2 {
		missing = null
	}
	return with(d, cmd, missing, func(v T) reply {
		if cmd.ArgCount() == 2 {
			return text(take(v))
		}
		r := reply{kind: many, list: make([]string, min(n, v.size()))}
		for i := range r.list {
			r.list[i] = take(v)
		}
		return r
	})
}

// popCount parses how many to take: 1 if that is missing.
func popCount(cmd *redisproto.Command) (n int, bad string) {
	if cmd.ArgCount() == 2 {
		return 1, ""
	}
	v, ok := cmd.Int(2)
	switch {
	case cmd.ArgCount() > 3:
		return 0, badSyntax.text
	case !ok || v < 0:
		return 0, notCount.text
	}
	return int(min(v, math.MaxInt32)), ""
}

// slice answers LRANGE and ZRANGE, where negative indexes count from the end; f gives elements i to j.
func slice[T container](d *db, cmd *redisproto.Command, f func(v T, i, j int) reply) reply {
	start, ok := cmd.Int(2)
	stop, ok2 := cmd.Int(3)
	if !ok || !ok2 {
		return notInt
	}
	return with(d, cmd, reply{kind: '*'}, func(v T) reply {
		n := int64(v.size())
		if start < 0 {
			start = max(0, start+n)
		}
		if stop < 0 {
			stop += n
		}
		stop = min(stop, n-1)
		if start > stop {
			return reply{kind: '*'}
		}
		return f(v, int(start), int(stop)+1)
	})
}
