package main

import (
	"math/rand/v2"
	"slices"

	"github.com/secmask/go-redisproto"
)

// This file: sets and hashes.

// members are those of a set: in a slice, so that one can be taken at random, and where they are.
type members struct {
	list  []string
	index map[string]int
}

func newMembers() *members { return &members{index: map[string]int{}} }

func (m *members) size() int { return len(m.list) }

func (m *members) add(b []byte) bool {
	if _, ok := m.index[string(b)]; ok {
		return false
	}
	s := string(b)
	m.index[s] = len(m.list)
	m.list = append(m.list, s)
	return true
}

// remove takes out element i; the last one takes its place.
func (m *members) remove(i int) string {
	s, last := m.list[i], len(m.list)-1
	m.list[i] = m.list[last]
	m.index[m.list[i]] = i
	m.list[last] = ""
	m.list = m.list[:last]
	delete(m.index, s)
	return s
}

func sadd(d *db, cmd *redisproto.Command) reply {
	m, ok := obtain(d, cmd.Get(1), newMembers)
	if !ok {
		return wrongType
	}
	n := 0
	for i := 2; i < cmd.ArgCount(); i++ {
		if m.add(cmd.Get(i)) {
			n++
		}
	}
	return integer(n)
}

func srem(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(m *members) reply {
		n := 0
		for i := 2; i < cmd.ArgCount(); i++ {
			if at, ok := m.index[string(cmd.Get(i))]; ok {
				m.remove(at)
				n++
			}
		}
		return integer(n)
	})
}

func spop(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount() > 3 {
		return badSyntax
	}
	n, valid := parseCount(cmd, 2)
	if !valid {
		return notCount
	}
	missing := null
	if cmd.ArgCount() == 3 {
		missing.kind = '~'
	}
	return with(d, cmd.Get(1), missing, func(m *members) reply {
		if cmd.ArgCount() == 2 {
			return text(m.remove(rand.IntN(len(m.list))))
		}
		out := make([]string, min(n, len(m.list)))
		for i := range out {
			out[i] = m.remove(rand.IntN(len(m.list)))
		}
		return reply{kind: '~', list: out}
	})
}

func scard(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(m *members) reply { return integer(len(m.list)) })
}

func sismember(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(m *members) reply {
		if _, found := m.index[string(cmd.Get(2))]; !found {
			return integer(0)
		}
		return integer(1)
	})
}

func smembers(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), reply{kind: '~'}, func(m *members) reply {
		return reply{kind: '~', list: slices.Clone(m.list)}
	})
}

type hash map[string]string

func newHash() hash { return hash{} }

func (h hash) size() int { return len(h) }

func hset(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount()%2 != 0 {
		return wrongArity("hset")
	}
	h, ok := obtain(d, cmd.Get(1), newHash)
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
	return with(d, cmd.Get(1), null, func(h hash) reply {
		value, found := h[string(cmd.Get(2))]
		if !found {
			return null
		}
		return text(value)
	})
}

func hdel(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(h hash) reply {
		before := len(h)
		for i := 2; i < cmd.ArgCount(); i++ {
			delete(h, string(cmd.Get(i)))
		}
		return integer(before - len(h))
	})
}

func hlen(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(h hash) reply { return integer(len(h)) })
}

func hgetall(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), reply{kind: '%'}, func(h hash) reply {
		out := make([]string, 0, 2*len(h))
		for field, value := range h {
			out = append(out, field, value)
		}
		return reply{kind: '%', list: out}
	})
}
