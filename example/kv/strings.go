package main

import (
	"math"
	"strconv"
	"strings"

	"github.com/secmask/go-redisproto"
)

// This file: strings, and what concerns keys of any type.

func get(d *db, cmd *redisproto.Command) reply {
	switch o := d.find(cmd.Get(1)); {
	case o == nil:
		return null
	case o.value != nil:
		return wrongType
	default:
		return text(o.text)
	}
}

func setText(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount() == 3 {
		d.setExpires(cmd.Get(1), d.setText(cmd.Get(1), string(cmd.Get(2))), 0)
		return done
	}
	var nx, xx, old, keep bool
	var unit string // EX or PX
	var ttl int     // the argument that says how many
	for i := 3; i < cmd.ArgCount(); i++ {
		switch option := strings.ToUpper(string(cmd.Get(i))); {
		case option == "NX" && !xx:
			nx = true
		case option == "XX" && !nx:
			xx = true
		case option == "GET":
			old = true
		case option == "KEEPTTL" && unit == "":
			keep = true
		case (option == "EX" || option == "PX") && !keep && (unit == "" || unit == option) && i+1 < cmd.ArgCount():
			i++
			unit, ttl = option, i
		default:
			return badSyntax
		}
	}
	var at int64
	if unit != "" {
		var bad string
		if at, bad = deadline(cmd, ttl, unit == "EX", 1, "set"); bad != "" {
			return fail(bad)
		}
	}
	o, r := d.find(cmd.Get(1)), done
	if old {
		r = get(d, cmd)
	}
	switch {
	case r.kind == '-':
		return r
	case nx && o != nil || xx && o == nil:
		if !old {
			r = null
		}
		return r
	}
	o = d.setText(cmd.Get(1), string(cmd.Get(2)))
	if !keep {
		d.setExpires(cmd.Get(1), o, at)
	}
	return r
}

// deadline parses argument ttl, a time to live of least or more in seconds or milliseconds, and gives when it
// ends, or the error text.
func deadline(cmd *redisproto.Command, ttl int, seconds bool, least int64, command string) (at int64, bad string) {
	n, ok := cmd.Int(ttl)
	t, unit := now(), int64(1)
	if seconds {
		unit = 1000
	}
	switch {
	case !ok:
		return 0, notInt.text
	case n < least, n < math.MinInt64/unit, n > (math.MaxInt64-t)/unit:
		return 0, "ERR invalid expire time in '" + command + "' command"
	}
	return t + n*unit, ""
}

func mget(d *db, cmd *redisproto.Command) reply {
	n := cmd.ArgCount() - 1
	r := reply{kind: '*', list: make([]string, n), have: make([]bool, n)}
	for i, key := range cmd.Args()[1:] {
		if o := d.find(key); o != nil && o.value == nil {
			r.list[i], r.have[i] = o.text, true
		}
	}
	return r
}

func mset(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount()%2 == 0 {
		return wrongArity("mset")
	}
	for i := 1; i < cmd.ArgCount(); i += 2 {
		d.setExpires(cmd.Get(i), d.setText(cmd.Get(i), string(cmd.Get(i+1))), 0)
	}
	return done
}

func incr(d *db, cmd *redisproto.Command) reply { return add(d, cmd, 1) }
func decr(d *db, cmd *redisproto.Command) reply { return add(d, cmd, -1) }

func incrby(d *db, cmd *redisproto.Command) reply {
	n, ok := cmd.Int(2)
	if !ok {
		return notInt
	}
	return add(d, cmd, n)
}

func add(d *db, cmd *redisproto.Command, n int64) reply {
	var v int64
	if o := d.find(cmd.Get(1)); o != nil {
		if o.value != nil {
			return wrongType
		}
		v, _ = strconv.ParseInt(o.text, 10, 64)
		if strconv.FormatInt(v, 10) != o.text { // "+1" and "01" are none to Redis
			return notInt
		}
	}
	if n > 0 && v > math.MaxInt64-n || n < 0 && v < math.MinInt64-n {
		return fail("ERR increment or decrement would overflow")
	}
	d.setText(cmd.Get(1), strconv.FormatInt(v+n, 10))
	return reply{kind: ':', n: v + n}
}

func appendText(d *db, cmd *redisproto.Command) reply {
	o, tail := d.find(cmd.Get(1)), cmd.Get(2)
	switch {
	case o == nil:
		o = d.setText(cmd.Get(1), string(tail))
	case o.value != nil:
		return wrongType
	case len(o.text)+len(tail) > redisproto.MaxBulkSize:
		return fail("ERR string exceeds maximum allowed size (proto-max-bulk-len)")
	default:
		if o.grown == nil { // in which the next APPEND need not copy what is there
			o.grown = new(strings.Builder)
			o.grown.WriteString(o.text)
		}
		o.grown.Write(tail)
		o.text = o.grown.String()
	}
	return integer(len(o.text))
}

func strlen(d *db, cmd *redisproto.Command) reply {
	r := get(d, cmd)
	if r.kind == '-' {
		return r
	}
	return integer(len(r.text))
}

func del(d *db, cmd *redisproto.Command) reply    { return count(d, cmd, d.remove) }
func exists(d *db, cmd *redisproto.Command) reply { return count(d, cmd, func(key []byte) {}) }

// count counts the keys that there are, and calls f with each.
func count(d *db, cmd *redisproto.Command, f func(key []byte)) reply {
	n := 0
	for _, key := range cmd.Args()[1:] {
		if d.find(key) != nil {
			f(key)
			n++
		}
	}
	return integer(n)
}

func typeOf(d *db, cmd *redisproto.Command) reply {
	switch o := d.find(cmd.Get(1)); {
	case o == nil:
		return reply{kind: '+', text: "none"}
	case o.value == nil:
		return reply{kind: '+', text: "string"}
	default:
		return reply{kind: '+', text: o.value.kind()}
	}
}

func expire(d *db, cmd *redisproto.Command) reply  { return expireIn(d, cmd, "expire", true) }
func pexpire(d *db, cmd *redisproto.Command) reply { return expireIn(d, cmd, "pexpire", false) }

func expireIn(d *db, cmd *redisproto.Command, name string, seconds bool) reply {
	if cmd.ArgCount() > 3 {
		return fail("ERR Unsupported option " + cut(cmd.Get(3), math.MaxInt))
	}
	at, bad := deadline(cmd, 2, seconds, math.MinInt64, name)
	if bad != "" {
		return fail(bad)
	}
	switch o := d.find(cmd.Get(1)); {
	case o == nil:
		return integer(0)
	case at <= now():
		d.remove(cmd.Get(1))
	default:
		d.setExpires(cmd.Get(1), o, at)
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
