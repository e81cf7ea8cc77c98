package main

import (
	"math"
	"strconv"
	"strings"

	"github.com/secmask/go-redisproto"
)

// This file: strings, and what concerns keys of any type.

func get(d *db, cmd *redisproto.Command) reply {
	text, ok := d.text(cmd.Get(1))
	if !ok {
		return wrongType
	}
	return bulk(text) // null, if it is nil
}

// setOptions are those of SET.
type setOptions struct {
	nx, xx, get, keep bool
	unit              string // of ttl: EX PX EXAT PXAT
	ttl               []byte
}

// parse parses the arguments from the third on.
func (o *setOptions) parse(cmd *redisproto.Command) bool {
	for i := 3; i < cmd.ArgCount(); i++ {
		option := strings.ToUpper(string(cmd.Get(i)))
		switch {
		case option == "NX" && !o.xx:
			o.nx = true
		case option == "XX" && !o.nx:
			o.xx = true
		case option == "GET":
			o.get = true
		case option == "KEEPTTL" && o.unit == "":
			o.keep = true
		case (option == "EX" || option == "PX" || option == "EXAT" || option == "PXAT") &&
			!o.keep && (o.unit == "" || o.unit == option) && i+1 < cmd.ArgCount():
			i++
			o.unit, o.ttl = option, cmd.Get(i)
		default:
			return false
		}
	}
	return true
}

func set(d *db, cmd *redisproto.Command) reply {
	key, value := cmd.Get(1), cmd.Get(2)
	if cmd.ArgCount() == 3 {
		d.setExpires(key, d.setText(key, value), 0)
		return done
	}
	var opt setOptions
	if !opt.parse(cmd) {
		return badSyntax
	}
	var at int64
	if opt.unit != "" {
		var bad *reply
		if at, bad = expiryTime(opt.ttl, opt.unit, "set"); bad != nil {
			return *bad
		}
	}
	old := d.find(key)
	res := done
	if opt.get {
		text, ok := d.text(key)
		if !ok {
			return wrongType
		}
		res = bulk(text)
	}
	if opt.nx && old != nil || opt.xx && old == nil {
		if opt.get {
			return res
		}
		return null
	}
	o := d.setText(key, value)
	if !opt.keep {
		d.setExpires(key, o, at)
	}
	return res
}

// expiryTime parses a time to live of SET, and gives when it ends. bad is the reply if it is wrong.
func expiryTime(ttl []byte, unit, command string) (at int64, bad *reply) {
	n, ok := parseInt(ttl)
	if !ok {
		return 0, &notInt
	}
	invalid := fail("ERR invalid expire time in '" + command + "' command")
	if n <= 0 {
		return 0, &invalid
	}
	at, ok = deadline(n, unit[0] == 'E', !strings.HasSuffix(unit, "AT"))
	if !ok {
		return 0, &invalid
	}
	return at, nil
}

// deadline gives the time n seconds or milliseconds after now, or after 1970; ok is false if it
// overflows.
func deadline(n int64, seconds, relative bool) (at int64, ok bool) {
	if seconds {
		if n > math.MaxInt64/1000 || n < math.MinInt64/1000 {
			return 0, false
		}
		n *= 1000
	}
	if relative {
		base := now()
		if n > math.MaxInt64-base {
			return 0, false
		}
		n += base
	}
	return n, true
}

func mget(d *db, cmd *redisproto.Command) reply {
	values := make([][]byte, cmd.ArgCount()-1)
	for i := range values {
		if text, ok := d.text(cmd.Get(i + 1)); ok {
			values[i] = text
		}
	}
	return reply{kind: '*', bulks: values}
}

func mset(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount()%2 == 0 {
		return wrongArity("mset")
	}
	for i := 1; i < cmd.ArgCount(); i += 2 {
		d.setExpires(cmd.Get(i), d.setText(cmd.Get(i), cmd.Get(i+1)), 0)
	}
	return done
}

func incr(d *db, cmd *redisproto.Command) reply { return add(d, cmd.Get(1), 1) }
func decr(d *db, cmd *redisproto.Command) reply { return add(d, cmd.Get(1), -1) }

func incrby(d *db, cmd *redisproto.Command) reply {
	n, ok := parseInt(cmd.Get(2))
	if !ok {
		return notInt
	}
	return add(d, cmd.Get(1), n)
}

func add(d *db, key []byte, n int64) reply {
	text, ok := d.text(key)
	if !ok {
		return wrongType
	}
	var v int64
	if text != nil {
		if v, ok = parseInt(text); !ok {
			return notInt
		}
	}
	if n > 0 && v > math.MaxInt64-n || n < 0 && v < math.MinInt64-n {
		return fail("ERR increment or decrement would overflow")
	}
	var digits [20]byte
	d.setText(key, strconv.AppendInt(digits[:0], v+n, 10))
	return reply{kind: ':', n: v + n}
}

func appendText(d *db, cmd *redisproto.Command) reply {
	key, tail := cmd.Get(1), cmd.Get(2)
	o := d.find(key)
	switch {
	case o == nil:
		o = d.setText(key, tail)
	case o.value != nil:
		return wrongType
	case len(o.text)+len(tail) > redisproto.MaxBulkSize:
		return fail("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
	default:
		o.text = append(o.text, tail...) // behind what a reply being written may refer to
	}
	return integer(len(o.text))
}

func strlen(d *db, cmd *redisproto.Command) reply {
	text, ok := d.text(cmd.Get(1))
	if !ok {
		return wrongType
	}
	return integer(len(text))
}

func del(d *db, cmd *redisproto.Command) reply {
	n := 0
	for i := 1; i < cmd.ArgCount(); i++ {
		if d.find(cmd.Get(i)) != nil {
			d.remove(cmd.Get(i))
			n++
		}
	}
	return integer(n)
}

func exists(d *db, cmd *redisproto.Command) reply {
	n := 0
	for i := 1; i < cmd.ArgCount(); i++ {
		if d.find(cmd.Get(i)) != nil {
			n++
		}
	}
	return integer(n)
}

func typeOf(d *db, cmd *redisproto.Command) reply {
	name := "none"
	if o := d.find(cmd.Get(1)); o != nil {
		switch o.value.(type) {
		case nil:
			name = "string"
		case *list:
			name = "list"
		case *members:
			name = "set"
		case hash:
			name = "hash"
		case *zset:
			name = "zset"
		}
	}
	return reply{kind: '+', text: name}
}

func expire(d *db, cmd *redisproto.Command) reply  { return expireIn(d, cmd, "expire", true) }
func pexpire(d *db, cmd *redisproto.Command) reply { return expireIn(d, cmd, "pexpire", false) }

func expireIn(d *db, cmd *redisproto.Command, name string, seconds bool) reply {
	var nx, xx, gt, lt bool
	for i := 3; i < cmd.ArgCount(); i++ {
		switch strings.ToUpper(string(cmd.Get(i))) {
		case "NX":
			nx = true
		case "XX":
			xx = true
		case "GT":
			gt = true
		case "LT":
			lt = true
		default:
			return fail("ERR Unsupported option " + cut(cmd.Get(i), math.MaxInt))
		}
	}
	if nx && (xx || gt || lt) {
		return fail("ERR NX and XX, GT or LT options at the same time are not compatible")
	}
	if gt && lt {
		return fail("ERR GT and LT options at the same time are not compatible")
	}
	n, ok := parseInt(cmd.Get(2))
	if !ok {
		return notInt
	}
	at, ok := deadline(n, seconds, true)
	if !ok {
		return fail("ERR invalid expire time in '" + name + "' command")
	}
	key := cmd.Get(1)
	o := d.find(key)
	switch {
	case o == nil,
		nx && o.expires != 0, xx && o.expires == 0,
		gt && (o.expires == 0 || at <= o.expires), // without expiry is the longest
		lt && o.expires != 0 && at >= o.expires:
		return integer(0)
	case at <= now():
		d.remove(key)
	default:
		d.setExpires(key, o, at)
	}
	return integer(1)
}

func ttl(d *db, cmd *redisproto.Command) reply {
	r := pttl(d, cmd)
	if r.n > 0 {
		r.n = (r.n + 500) / 1000
	}
	return r
}

func pttl(d *db, cmd *redisproto.Command) reply {
	switch o := d.find(cmd.Get(1)); {
	case o == nil:
		return integer(-2)
	case o.expires == 0:
		return integer(-1)
	default:
		return reply{kind: ':', n: max(0, o.expires-now())}
	}
}

func persist(d *db, cmd *redisproto.Command) reply {
	o := d.find(cmd.Get(1))
	if o == nil || o.expires == 0 {
		return integer(0)
	}
	d.setExpires(cmd.Get(1), o, 0)
	return integer(1)
}
