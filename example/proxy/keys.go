package main

import (
	"bytes"
	"fmt"

	"github.com/secmask/go-redisproto"
)

// A keySpec says where some of a command's keys are, as the server's key specifications do:
// where to begin, and which arguments from there on are keys.
type keySpec struct {
	// The keys begin at the argument index if keyword is empty, else after the first argument that
	// is the keyword. The search for that begins at index; a negative index counts from the end of
	// the arguments, and the search goes backwards.
	index   int
	keyword string

	// If counted is false, the keys go from the first argument on to that which is last arguments
	// further on. A negative last counts from the end of the arguments; if limit is over 1, only the
	// limit-th part of the arguments to the end are keys. If counted is true, the argument that is
	// count further on has the number of keys, and the first key is first further on.
	counted      bool
	last, limit  int
	count, first int
	step         int // from one key to the next

	channel    bool // shard channels, which have a slot as keys have
	incomplete bool // there may be keys that this does not describe
}

// parseKeySpecs reads the key specifications of a command.
func parseKeySpecs(list redisproto.Reply) ([]keySpec, error) {
	var specs []keySpec
	for described := range list.All() {
		s, err := parseKeySpec(described)
		if err != nil {
			return nil, err
		}
		specs = append(specs, s)
	}
	return specs, nil
}

func parseKeySpec(described redisproto.Reply) (s keySpec, err error) {
	for name, value := range described.Pairs() {
		switch string(name.Bytes()) {
		case "flags":
			for flag := range value.All() {
				switch string(flag.Bytes()) {
				case "not_key":
					s.channel = true
				case "incomplete":
					s.incomplete = true
				}
			}
		case "begin_search", "find_keys":
			if err = s.parseSearch(value); err != nil {
				return s, fmt.Errorf("key specification: %w", err)
			}
		}
	}
	if !s.incomplete && s.step < 1 {
		return s, fmt.Errorf("key specification: the step from key to key is %d", s.step)
	}
	return s, nil
}

// parseSearch reads one half of a key specification: a type, and values that depend on the type.
func (s *keySpec) parseSearch(half redisproto.Reply) error {
	for name, value := range half.Pairs() {
		if string(name.Bytes()) == "type" {
			switch string(value.Bytes()) {
			case "keynum":
				s.counted = true
			case "index", "keyword", "range":
			default: // "unknown", or what servers to come have
				s.incomplete = true
			}
			continue
		}
		for name, value := range value.Pairs() {
			var err error
			switch string(name.Bytes()) {
			case "index", "startfrom":
				s.index, err = intOf(value)
			case "keyword":
				s.keyword = string(value.Bytes())
			case "lastkey":
				s.last, err = intOf(value)
			case "limit":
				s.limit, err = intOf(value)
			case "keynumidx":
				s.count, err = intOf(value)
			case "firstkey":
				s.first, err = intOf(value)
			case "keystep":
				s.step, err = intOf(value)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// A keyFinder goes through the arguments of a command.
type keyFinder struct {
	c         *redisproto.Command
	argc      int
	positions []int
	missing   bool // an argument that has to be looked at has not arrived
}

// keys appends to dst[:0] the positions of a command's keys, in the order of the specifications.
// Where the arguments are not as a specification has them, the server will refuse the command, and
// the keys that the other specifications describe say which node may do so. There are none if the
// number of arguments is wrong.
//
// Of a command that streams, arguments may be missing. arrived is false if one of them is a key or
// decides where the keys are; positions is then of no use.
func (i *commandInfo) keys(c *redisproto.Command, dst []int) (positions []int, arrived bool) {
	f := keyFinder{c: c, argc: c.ArgCount(), positions: dst[:0]}
	if !i.fits(f.argc) {
		return f.positions, true
	}
	switch i.rule {
	case bySpecs:
		for n := range i.specs {
			f.apply(&i.specs[n])
		}
	case bySortRule:
		f.findSort(i.has(flagWrite))
	case byMigrateRule:
		f.findMigrate()
	}
	for _, at := range f.positions {
		f.get(at)
	}
	return f.positions, !f.missing
}

// get returns an argument, and notes if it has not arrived.
func (f *keyFinder) get(at int) []byte {
	arg := f.c.Get(at)
	if arg == nil && at < f.argc {
		f.missing = true
	}
	return arg
}

// is reports whether an argument is a keyword, in any case.
func (f *keyFinder) is(at int, keyword string) bool {
	arg := f.get(at)
	return len(arg) == len(keyword) && bytes.EqualFold(arg, []byte(keyword))
}

// add appends a range of positions, both ends included, if there are arguments at all of them.
func (f *keyFinder) add(first, last, step int) {
	if first < 1 || last >= f.argc {
		return
	}
	for at := first; at <= last; at += step {
		f.positions = append(f.positions, at)
	}
}

// apply adds the keys that one specification describes.
func (f *keyFinder) apply(s *keySpec) {
	if s.step < 1 {
		return // the specification is of an unknown type
	}
	begin := s.index
	if s.keyword != "" {
		if begin = f.search(s); begin == 0 {
			return // it is of an option that is not there
		}
	}
	switch {
	case s.counted:
		n := parseCount(f.get(begin+s.count), f.argc)
		begin += s.first
		f.add(begin, begin+(n-1)*s.step, s.step)
	case s.last >= 0:
		f.add(begin, begin+s.last, s.step)
	case s.limit > 1:
		f.add(begin, begin+(f.argc-begin)/s.limit+s.last, s.step)
	default:
		f.add(begin, f.argc+s.last, s.step)
	}
}

// search returns the position after the keyword of s, or 0 if it is not among the arguments.
func (f *keyFinder) search(s *keySpec) int {
	at, end, direction := s.index, f.argc, 1
	if s.index < 0 {
		at, end, direction = f.argc+s.index, 0, -1
	}
	for ; (end-at)*direction > 0; at += direction {
		if f.is(at, s.keyword) {
			return at + 1
		}
	}
	return 0
}

// parseCount returns the number of keys that an argument says, or 0 if it is no number from 0 to
// limit as Redis writes it.
func parseCount(b []byte, limit int) int {
	if len(b) > 1 && b[0] == '0' {
		return 0
	}
	n := 0
	for _, digit := range b {
		if digit < '0' || digit > '9' {
			return 0
		}
		if n = n*10 + int(digit-'0'); n > limit {
			return 0
		}
	}
	return n
}

// A keyRule says how the keys of a command are found.
type keyRule uint8

const (
	bySpecs       keyRule = iota // by the key specifications of the server
	bySortRule                   // by findSort
	byMigrateRule                // by findMigrate
)

// keyRules are for the commands whose keys the server's own specifications do not describe in full.
var keyRules = map[string]keyRule{"SORT": bySortRule, "SORT_RO": bySortRule, "MIGRATE": byMigrateRule}

// findSort adds the key of a SORT, and the key of its last STORE. Those that BY and GET make of the
// elements are not known before it runs; Redis refuses them in a cluster. SORT_RO has no STORE.
func (f *keyFinder) findSort(mayStore bool) {
	f.add(1, 1, 1)
	store := 0
	for at := 2; at < f.argc; at++ {
		switch {
		case f.is(at, "LIMIT"):
			at += 2
		case f.is(at, "GET"), f.is(at, "BY"):
			at++
		case mayStore && f.is(at, "STORE"):
			at++
			store = at
		}
	}
	if store > 0 {
		f.add(store, store, 1)
	}
}

// findMigrate adds the keys of a MIGRATE: its third argument, or if that is empty all that follow
// KEYS.
func (f *keyFinder) findMigrate() {
	for at := 6; at < f.argc; at++ {
		switch {
		case f.is(at, "AUTH"):
			at++
		case f.is(at, "AUTH2"):
			at += 2
		case f.is(at, "KEYS"):
			if len(f.get(3)) == 0 {
				f.add(at+1, f.argc-1, 1)
			}
			return
		}
	}
	f.add(3, 3, 1)
}
