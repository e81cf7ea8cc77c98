package main

import (
	"bytes"
	"math/rand/v2"
	"strconv"

	"github.com/secmask/go-redisproto"
)

// A part is one of the commands that are sent in place of a client's command.
type part struct {
	node   *node  // where it is sent; nil means to the node that serves the slot
	slot   int    // noSlot if node is set
	raw    []byte // the command, as it is sent
	places []int  // which of the keys of the client's command these are, counted from 0; nil if it is not split
}

// at returns the node that a part is for, or nil if its slot has none.
func (p part) at(t *topology) *node {
	if p.node != nil {
		return p.node
	}
	return t.node(p.slot)
}

// A gatherer makes one reply of those of several parts. Parts are sent in rounds: when each part of
// a round has been answered, next says whether there is another round. Parts for the same node are
// sent on the same link in their order. Its methods are not safe for concurrent use.
type gatherer interface {
	add(n int, raw []byte)    // add takes the reply to the n-th part of the round; it keeps no reference to raw
	next() []part             // next returns the parts of the next round, or none if the reply is complete
	append(dst []byte) []byte // append appends the reply to the client's command
}

// errUnexpected is what a client gets if the replies of the parts do not go together.
const errUnexpected = "-ERR a node of the cluster gave an unexpected reply\r\n"

// A gathering makes a reply of one round, by the response policy of the command.
type gathering struct {
	policy  responsePolicy
	parts   []part
	replies [][]byte
}

// gather returns the gatherer of a round of parts.
func gather(i *commandInfo, parts []part) *gathering {
	return &gathering{policy: i.response, parts: parts, replies: make([][]byte, len(parts))}
}

func (g *gathering) add(n int, raw []byte) { g.replies[n] = bytes.Clone(raw) }

func (g *gathering) next() []part { return nil }

// append joins the replies. An error of a part is the reply to the whole, even though other parts
// were executed: that of the first part with an error, so that it does not depend on which node
// answers first.
func (g *gathering) append(dst []byte) []byte {
	start := len(dst)
	firstError := g.first(true)
	switch {
	case g.policy == oneSucceeded:
		if n := g.first(false); n >= 0 {
			return append(dst, g.replies[n]...)
		}
		return append(dst, g.replies[firstError]...)
	case firstError >= 0:
		return append(dst, g.replies[firstError]...)
	case g.policy == allSucceeded, g.policy == specialResponse:
		return append(dst, g.replies[0]...)
	}
	var ok bool
	switch {
	case g.policy != joined:
		dst, ok = g.aggregate(dst)
	case g.parts[0].places != nil:
		dst, ok = g.appendInOrder(dst)
	default:
		dst, ok = g.appendJoined(dst)
	}
	if !ok {
		return append(dst[:start], errUnexpected...)
	}
	return dst
}

// first returns the first reply that is an error, or that is none, or -1.
func (g *gathering) first(isError bool) int {
	for n, reply := range g.replies {
		if (len(reply) > 0 && (reply[0] == '-' || reply[0] == '!')) == isError {
			return n
		}
	}
	return -1
}

// appendInOrder appends an array that has the elements of all replies in the order of the keys of
// the client's command.
func (g *gathering) appendInOrder(dst []byte) ([]byte, bool) {
	total := 0
	for _, p := range g.parts {
		total += len(p.places)
	}
	elements := make([][]byte, total)
	for n, p := range g.parts {
		r, ok := parseRaw(g.replies[n])
		if !ok || r.Kind() != redisproto.Array || r.Len() != len(p.places) {
			return dst, false
		}
		at := 0
		for element := range r.All() {
			elements[p.places[at]] = element.Raw()
			at++
		}
	}
	dst = appendHeader(dst, '*', total)
	for _, element := range elements {
		dst = append(dst, element...)
	}
	return dst, true
}

// appendJoined appends an aggregate of the elements of all replies, in the order of the nodes.
func (g *gathering) appendJoined(dst []byte) ([]byte, bool) {
	var kind redisproto.Kind
	total := 0
	bodies := make([][]byte, len(g.replies))
	for n, raw := range g.replies {
		r, ok := parseRaw(raw)
		if !ok || n > 0 && r.Kind() != kind {
			return dst, false
		}
		switch kind = r.Kind(); kind {
		case redisproto.Array, redisproto.Set:
			total += r.Len()
		case redisproto.Map:
			total += r.Len() / 2
		default:
			return dst, false
		}
		_, bodies[n], _ = bytes.Cut(raw, []byte("\n"))
	}
	dst = appendHeader(dst, byte(kind), total)
	for _, body := range bodies {
		dst = append(dst, body...)
	}
	return dst, true
}

// aggregate appends an integer that comes of the integers of all replies by the policy, or an array
// of such integers. A boolean of RESP3 counts as an integer, and stays a boolean.
func (g *gathering) aggregate(dst []byte) ([]byte, bool) {
	var totals []int64
	var first redisproto.Reply
	for n, raw := range g.replies {
		r, ok := parseRaw(raw)
		if !ok {
			return dst, false
		}
		values, ok := integers(r)
		if !ok || n > 0 && (len(values) != len(totals) || r.Kind() != first.Kind()) {
			return dst, false
		}
		if n == 0 {
			first, totals = r, values
			if g.policy == logicalAnd || g.policy == logicalOr {
				for i, v := range values {
					totals[i] = g.policy.combine(v, v)
				}
			}
			continue
		}
		for i, v := range values {
			totals[i] = g.policy.combine(totals[i], v)
		}
	}
	kind := first.Kind()
	if kind == redisproto.Array {
		dst = appendHeader(dst, '*', len(totals))
		kind = first.At(0).Kind()
	}
	for _, total := range totals {
		if kind == redisproto.Boolean && total>>1 == 0 { // a sum may be more than 1
			dst = append(dst, '#', "ft"[total], '\r', '\n')
		} else {
			dst = append(strconv.AppendInt(append(dst, ':'), total, 10), "\r\n"...)
		}
	}
	return dst, true
}

// combine is how two integers become one.
func (p responsePolicy) combine(a, b int64) int64 {
	truth := func(is bool) int64 {
		if is {
			return 1
		}
		return 0
	}
	switch p {
	case aggMin:
		return min(a, b)
	case aggMax:
		return max(a, b)
	case logicalAnd:
		return truth(a != 0 && b != 0)
	case logicalOr:
		return truth(a != 0 || b != 0)
	default:
		return a + b
	}
}

// integers returns the value of an integer or a boolean, or those in an array.
func integers(r redisproto.Reply) (values []int64, ok bool) {
	value := func(r redisproto.Reply) {
		switch r.Kind() {
		case redisproto.Integer:
			n, err := r.Int()
			values, ok = append(values, n), ok && err == nil
		case redisproto.Boolean:
			is, _ := r.Bool()
			n := int64(0)
			if is {
				n = 1
			}
			values = append(values, n)
		default:
			ok = false
		}
	}
	ok = true
	if r.Kind() != redisproto.Array {
		value(r)
		return values, ok
	}
	for element := range r.All() {
		value(element)
	}
	return values, ok
}

// broadcast returns one part for each master, with the client's command as it is.
func broadcast(t *topology, raw []byte) []part {
	parts := make([]part, len(t.masters))
	for i, n := range t.masters {
		parts[i] = part{node: n, slot: noSlot, raw: raw}
	}
	return parts
}

// splits reports whether the command may be split by slot: if its request policy says so, and its
// arguments after the name are nothing but keys, each with as many arguments of its own as the next.
// MSETNX is not split, because it promises to set all keys or none.
func (i *commandInfo) splits() bool {
	if i.request != multiShard || i.name == "MSETNX" || len(i.specs) != 1 {
		return false
	}
	s := i.specs[0]
	return s.keyword == "" && !s.counted && s.index == 1 && s.last == -1 && s.limit <= 1 && !s.incomplete
}

// split returns a part for each slot that the keys of a command have, in the order in which the
// slots occur, and in each the keys in the order of the client. The command splits, all of it has
// arrived, and positions is what keys returned. There is no part if the last key lacks arguments:
// the command is to be sent as it is, to a node that says so.
//
// Redis demands one slot for each command: it refuses several even if one node has them all.
func (i *commandInfo) split(c *redisproto.Command, positions []int) []part {
	step := i.specs[0].step
	if (c.ArgCount()-1)%step != 0 {
		return nil
	}
	var parts []part
	partOf := make(map[int]int) // by slot
	for place, at := range positions {
		slot := keySlot(c.Get(at))
		n, known := partOf[slot]
		if !known {
			n = len(parts)
			partOf[slot] = n
			parts = append(parts, part{slot: slot})
		}
		parts[n].places = append(parts[n].places, place)
	}
	for n := range parts {
		p := &parts[n]
		raw := appendHeader(nil, '*', 1+len(p.places)*step)
		raw = appendBulk(raw, c.Get(0))
		for _, place := range p.places {
			for at := positions[place]; at < positions[place]+step; at++ {
				raw = appendBulk(raw, c.Get(at))
			}
		}
		p.raw = raw
	}
	return parts
}

// A randomKey is one RANDOMKEY of a client. All masters are asked in one round, because some may be
// empty, and another round would come after what the client has sent since. It is a gatherer.
type randomKey struct {
	key     []byte // the reply to the client, so far
	keys    int    // how many masters gave a key
	failure []byte
}

// newRandomKey returns the gatherer of a RANDOMKEY, and its round.
func newRandomKey(t *topology) (*randomKey, []part) {
	return &randomKey{}, broadcast(t, appendCommand(nil, "RANDOMKEY"))
}

// add keeps one key of those that have come, each with the same chance.
func (r *randomKey) add(_ int, raw []byte) {
	isNull := string(raw) == "$-1\r\n" || string(raw) == "_\r\n"
	if bytes.HasPrefix(raw, []byte("-")) {
		r.failure = bytes.Clone(raw)
		return
	}
	if !isNull {
		r.keys++
	}
	if r.key == nil || !isNull && rand.IntN(r.keys) == 0 {
		r.key = bytes.Clone(raw)
	}
}

func (r *randomKey) next() []part { return nil }

// append appends a key if there is one. If a master gave an error, it may be that only that one has
// keys, so null would be wrong.
func (r *randomKey) append(dst []byte) []byte {
	if r.keys == 0 && r.failure != nil {
		return append(dst, r.failure...)
	}
	return append(dst, r.key...)
}
