package main

import "github.com/secmask/go-redisproto"

// A list is a ring: element i is at items[(first+i) & (len(items)-1)].
type list struct {
	items    []string // a power of two
	first, n int
}

func newList() *list { return &list{items: make([]string, 4)} }

func (l *list) size() int    { return l.n }
func (l *list) kind() string { return "list" }

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
	at := l.n
	if left {
		l.first--
		at = 0
	}
	*l.at(at) = s
	l.n++
}

func (l *list) pop(left bool) (s string) {
	l.n--
	p := l.at(l.n)
	if left {
		p = l.at(0)
		l.first++
	}
	s, *p = *p, ""
	if len(l.items) > 64 && l.n < len(l.items)/4 {
		l.resize(len(l.items) / 2)
	}
	return s
}

func lpush(d *db, cmd *redisproto.Command) reply { return push(d, cmd, true) }
func rpush(d *db, cmd *redisproto.Command) reply { return push(d, cmd, false) }

func push(d *db, cmd *redisproto.Command, left bool) reply {
	l, ok := obtain(d, cmd, newList)
	if !ok {
		return wrongType
	}
	for _, element := range cmd.Args()[2:] {
		l.push(string(element), left)
	}
	return integer(l.n)
}

func lpop(d *db, cmd *redisproto.Command) reply { return listPop(d, cmd, true) }
func rpop(d *db, cmd *redisproto.Command) reply { return listPop(d, cmd, false) }

func listPop(d *db, cmd *redisproto.Command, left bool) reply {
	return pop(d, cmd, '*', reply{kind: nullArray}, func(l *list) string { return l.pop(left) })
}

func lrange(d *db, cmd *redisproto.Command) reply {
	return slice(d, cmd, func(l *list, i, j int) reply {
		r := reply{kind: '*', list: make([]string, 0, j-i)}
		for ; i < j; i++ {
			r.list = append(r.list, *l.at(i))
		}
		return r
	})
}
