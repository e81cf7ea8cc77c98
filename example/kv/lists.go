package main

import "github.com/secmask/go-redisproto"

// A list is a ring: element i is at items[(first+i) & (len(items)-1)].
type list struct {
	items []string // a power of two
	first int
	n     int
}

func newList() *list { return &list{items: make([]string, 4)} }

func (l *list) size() int { return l.n }

func (l *list) at(i int) *string { return &l.items[(l.first+i)&(len(l.items)-1)] }

// resize moves the elements to a ring of another size.
func (l *list) resize(size int) {
	items := make([]string, size)
	for i := range l.n {
		items[i] = *l.at(i)
	}
	l.items, l.first = items, 0
}

func (l *list) push(s string, left bool) {
	if l.n == len(l.items) {
		l.resize(2 * l.n)
	}
	if left {
		l.first = (l.first - 1) & (len(l.items) - 1)
	}
	l.n++
	if left {
		*l.at(0) = s
	} else {
		*l.at(l.n - 1) = s
	}
}

func (l *list) pop(left bool) string {
	p := l.at(0)
	if !left {
		p = l.at(l.n - 1)
	}
	s := *p
	*p = ""
	l.n--
	if left {
		l.first++
	}
	if len(l.items) > 64 && l.n < len(l.items)/4 {
		l.resize(len(l.items) / 2)
	}
	return s
}

func lpush(d *db, cmd *redisproto.Command) reply { return push(d, cmd, true) }
func rpush(d *db, cmd *redisproto.Command) reply { return push(d, cmd, false) }
func lpop(d *db, cmd *redisproto.Command) reply  { return pop(d, cmd, "lpop", true) }
func rpop(d *db, cmd *redisproto.Command) reply  { return pop(d, cmd, "rpop", false) }

func push(d *db, cmd *redisproto.Command, left bool) reply {
	l, ok := obtain(d, cmd.Get(1), newList)
	if !ok {
		return wrongType
	}
	for i := 2; i < cmd.ArgCount(); i++ {
		l.push(string(cmd.Get(i)), left)
	}
	return integer(l.n)
}

func pop(d *db, cmd *redisproto.Command, name string, left bool) reply {
	if cmd.ArgCount() > 3 {
		return wrongArity(name)
	}
	n, valid := parseCount(cmd, 2)
	if !valid {
		return notCount
	}
	missing := null
	if cmd.ArgCount() == 3 {
		missing.kind = isNullArray
	}
	return with(d, cmd.Get(1), missing, func(l *list) reply {
		if cmd.ArgCount() == 2 {
			return text(l.pop(left))
		}
		out := make([]string, min(n, l.n))
		for i := range out {
			out[i] = l.pop(left)
		}
		return reply{kind: '*', list: out}
	})
}

func llen(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(l *list) reply { return integer(l.n) })
}

func lrange(d *db, cmd *redisproto.Command) reply {
	start, stop, valid := parseRange(cmd.Get(2), cmd.Get(3))
	if !valid {
		return notInt
	}
	return with(d, cmd.Get(1), reply{kind: '*'}, func(l *list) reply {
		i, j := clip(start, stop, l.n)
		out := make([]string, 0, j-i)
		for ; i < j; i++ {
			out = append(out, *l.at(i))
		}
		return reply{kind: '*', list: out}
	})
}
