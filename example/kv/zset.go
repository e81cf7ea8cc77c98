package main

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/secmask/go-redisproto"
)

// A zset is a sorted set: the scores by member, and the members in order, cut into blocks. To find a
// place is two binary searches, and to make room there moves one block at most. A place by its
// number is found by counting over the blocks, of which a million members have some thousands.
type zset struct {
	scores map[string]float64
	blocks [][]scored // none of them empty
}

type scored struct {
	score  float64
	member string
}

const blockSize = 512

func newZset() *zset { return &zset{scores: map[string]float64{}} }

func (z *zset) size() int { return len(z.scores) }

func (a scored) compare(b scored) int {
	return cmp.Or(cmp.Compare(a.score, b.score), strings.Compare(a.member, b.member))
}

// place returns where e is, or would be: block b, element i. b may be len(z.blocks), if there are none.
func (z *zset) place(e scored) (b, i int) {
	b, _ = slices.BinarySearchFunc(z.blocks, e, func(block []scored, e scored) int {
		return block[len(block)-1].compare(e)
	})
	if b == len(z.blocks) {
		b = max(0, b-1)
	}
	if b < len(z.blocks) {
		i, _ = slices.BinarySearchFunc(z.blocks[b], e, scored.compare)
	}
	return b, i
}

// put adds a member, or gives it another score.
func (z *zset) put(member string, score float64) {
	if old, ok := z.scores[member]; ok {
		if old == score {
			return
		}
		z.remove(member)
	}
	z.scores[member] = score
	e := scored{score, member}
	b, i := z.place(e)
	if b == len(z.blocks) {
		z.blocks = append(z.blocks, nil)
	}
	block := slices.Insert(z.blocks[b], i, e)
	if len(block) > blockSize {
		half := len(block) / 2
		z.blocks = slices.Insert(z.blocks, b+1, slices.Clone(block[half:]))
		clear(block[half:])
		block = block[:half]
	}
	z.blocks[b] = block
}

// remove removes a member, and reports whether it was there.
func (z *zset) remove(member string) bool {
	score, ok := z.scores[member]
	if !ok {
		return false
	}
	delete(z.scores, member)
	b, i := z.place(scored{score, member})
	if len(z.blocks[b]) == 1 {
		z.blocks = slices.Delete(z.blocks, b, b+1)
	} else {
		z.blocks[b] = slices.Delete(z.blocks[b], i, i+1)
	}
	return true
}

// elements returns those from i to j in order, as a reply.
func (z *zset) elements(i, j int) reply {
	r := reply{kind: '*', list: make([]string, 0, j-i), scores: make([]float64, 0, j-i)}
	for _, block := range z.blocks {
		if i < len(block) && i < j {
			for _, e := range block[i:min(j, len(block))] {
				r.list, r.scores = append(r.list, e.member), append(r.scores, e.score)
			}
		}
		i, j = max(0, i-len(block)), max(0, j-len(block))
		if j == 0 {
			break
		}
	}
	return r
}

// parseFloat parses a number as Redis does: what C has, but no blank before it and no NaN.
func parseFloat(b []byte) (f float64, ok bool) {
	s := string(b)
	if strings.Contains(s, "_") {
		return 0, false
	}
	if hex := strings.ToLower(s); strings.Contains(hex, "0x") && !strings.Contains(hex, "p") {
		s += "p0" // Go asks for the exponent
	}
	f, err := strconv.ParseFloat(s, 64)
	return f + 0, err == nil && !math.IsNaN(f) // + 0 makes -0 a 0, as Redis does in small sets
}

// zaddOptions are those of ZADD.
type zaddOptions struct{ nx, xx, gt, lt, ch, incr bool }

// parse parses the arguments from the second on, and returns where the first score is.
func (o *zaddOptions) parse(cmd *redisproto.Command) (i int) {
	for i = 2; i < cmd.ArgCount(); i++ {
		switch strings.ToUpper(string(cmd.Get(i))) {
		case "NX":
			o.nx = true
		case "XX":
			o.xx = true
		case "GT":
			o.gt = true
		case "LT":
			o.lt = true
		case "CH":
			o.ch = true
		case "INCR":
			o.incr = true
		default:
			return i
		}
	}
	return i
}

// check returns the reply to options that do not go together.
func (o *zaddOptions) check(pairs int) (bad reply, ok bool) {
	switch {
	case pairs <= 0:
		return badSyntax, false
	case o.nx && o.xx:
		return fail("ERR XX and NX options at the same time are not compatible"), false
	case o.gt && o.nx || o.lt && o.nx || o.gt && o.lt:
		return fail("ERR GT, LT, and/or NX options at the same time are not compatible"), false
	case o.incr && pairs > 1:
		return fail("ERR INCR option supports a single increment-element pair"), false
	}
	return reply{}, true
}

func zadd(d *db, cmd *redisproto.Command) reply {
	var opt zaddOptions
	first := opt.parse(cmd)
	args := cmd.ArgCount() - first
	if args%2 != 0 {
		return badSyntax
	}
	if bad, ok := opt.check(args / 2); !ok {
		return bad
	}
	scores := make([]float64, args/2)
	for i := range scores {
		var ok bool
		if scores[i], ok = parseFloat(cmd.Get(first + 2*i)); !ok {
			return notFloat
		}
	}
	z, ok := obtain(d, cmd.Get(1), newZset)
	if !ok {
		return wrongType
	}
	r := z.add(cmd, first, scores, opt)
	if z.size() == 0 { // XX found nothing
		d.remove(cmd.Get(1))
	}
	return r
}

// add is ZADD of the scores, whose members are arguments of cmd from first on.
func (z *zset) add(cmd *redisproto.Command, first int, scores []float64, opt zaddOptions) reply {
	added, changed := 0, 0
	for i, score := range scores {
		member := cmd.Get(first + 2*i + 1)
		old, found := z.scores[string(member)]
		if opt.incr {
			if score += old; math.IsNaN(score) {
				return fail("ERR resulting score is not a number (NaN)")
			}
		}
		skip := found && (opt.nx || opt.gt && score <= old || opt.lt && score >= old) || !found && opt.xx
		switch {
		case skip && opt.incr:
			return null
		case skip:
			continue
		case !found:
			added++
		case score != old:
			changed++
		default: // nothing to do, not even to copy the member
			scores[i] = score
			continue
		}
		scores[i] = score
		z.put(string(member), score)
	}
	switch {
	case opt.incr:
		return double(scores[0])
	case opt.ch:
		return integer(added + changed)
	}
	return integer(added)
}

func zscore(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), null, func(z *zset) reply {
		score, found := z.scores[string(cmd.Get(2))]
		if !found {
			return null
		}
		return double(score)
	})
}

func zcard(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(z *zset) reply { return integer(z.size()) })
}

func zrem(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd.Get(1), integer(0), func(z *zset) reply {
		n := 0
		for i := 2; i < cmd.ArgCount(); i++ {
			if z.remove(string(cmd.Get(i))) {
				n++
			}
		}
		return integer(n)
	})
}

// zrange is ZRANGE by index; its other forms are not here.
func zrange(d *db, cmd *redisproto.Command) reply {
	withScores := false
	for i := 4; i < cmd.ArgCount(); i++ {
		if !strings.EqualFold(string(cmd.Get(i)), "WITHSCORES") {
			return badSyntax
		}
		withScores = true
	}
	start, stop, valid := parseRange(cmd.Get(2), cmd.Get(3))
	if !valid {
		return notInt
	}
	return with(d, cmd.Get(1), reply{kind: '*'}, func(z *zset) reply {
		r := z.elements(clip(start, stop, z.size()))
		if withScores {
			r.kind = isScored
		}
		return r
	})
}

func zpopmin(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount() > 3 {
		return badSyntax
	}
	n, valid := parseCount(cmd, 2)
	if !valid {
		return notCount
	}
	return with(d, cmd.Get(1), reply{kind: '*'}, func(z *zset) reply {
		r := z.elements(0, min(n, z.size()))
		for _, member := range r.list {
			z.remove(member)
		}
		r.kind = isScored
		if cmd.ArgCount() == 2 {
			r.kind = isPopped
		}
		return r
	})
}
