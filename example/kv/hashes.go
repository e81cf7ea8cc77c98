package main

import "github.com/secmask/go-redisproto"

type hash map[string]string

func newHash() hash { return hash{} }

func (h hash) size() int    { return len(h) }
func (h hash) kind() string { return "hash" }

func (h hash) remove(field []byte) bool {
	_, ok := h[string(field)]
	delete(h, string(field))
	return ok
}

func hset(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount()%2 != 0 {
		return wrongArity("hset")
	}
	h, ok := obtain(d, cmd, newHash)
	if !ok {
		return wrongType
	}
	before := len(h)
	for i := 2; i < cmd.ArgCount(); i += 2 {
		h[string(cmd.Get(i))] = string(cmd.Get(i + 1))
	}
	return integer(len(h) - before)
}

func hget(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd, null, func(h hash) reply {
		value, found := h[string(cmd.Get(2))]
		if !found {
			return null
		}
		return text(value)
	})
}

func hgetall(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd, reply{kind: '%'}, func(h hash) reply {
		r := reply{kind: '%', list: make([]string, 0, 2*len(h))}
		for field, value := range h {
			r.list = append(r.list, field, value)
		}
		return r
	})
}
