package main

import (
	"math/rand/v2"
	"slices"

	"github.com/secmask/go-redisproto"
)

// A set has its members in a slice, so that one can be taken at random, and where they are.
type set struct {
	list  []string
	index map[string]int
}

func newSet() *set { return &set{index: map[string]int{}} }

func (s *set) size() int    { return len(s.list) }
func (s *set) kind() string { return "set" }

func (s *set) add(member []byte) {
	if _, ok := s.index[string(member)]; !ok {
		m := string(member)
		s.index[m] = len(s.list)
		s.list = append(s.list, m)
	}
}

func (s *set) remove(member []byte) bool {
	i, ok := s.index[string(member)]
	if ok {
		s.take(i)
	}
	return ok
}

// take takes out element i; the last one takes its place.
func (s *set) take(i int) string {
	member, last := s.list[i], len(s.list)-1
	s.list[i] = s.list[last]
	s.index[s.list[i]] = i
	s.list[last] = ""
	s.list = s.list[:last]
	delete(s.index, member)
	return member
}

func sadd(d *db, cmd *redisproto.Command) reply {
	s, ok := obtain(d, cmd, newSet)
	if !ok {
		return wrongType
	}
	before := s.size()
	for _, member := range cmd.Args()[2:] {
		s.add(member)
	}
	return integer(s.size() - before)
}

func spop(d *db, cmd *redisproto.Command) reply {
	return pop(d, cmd, '~', reply{kind: '~'}, func(s *set) string { return s.take(rand.IntN(s.size())) })
}

func sismember(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd, integer(0), func(s *set) reply {
		if _, found := s.index[string(cmd.Get(2))]; !found {
			return integer(0)
		}
		return integer(1)
	})
}

func smembers(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd, reply{kind: '~'}, func(s *set) reply {
		return reply{kind: '~', list: slices.Clone(s.list)}
	})
}
