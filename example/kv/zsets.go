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

func (z *zset) size() int    { return len(z.scores) }
func (z *zset) kind() string { return "zset" }

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

// insert puts e into the order.
func (z *zset) insert(e scored) {
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

// cut takes e, which is there, out of the order.
func (z *zset) cut(e scored) {
	b, i := z.place(e)
	if z.blocks[b] = slices.Delete(z.blocks[b], i, i+1); len(z.blocks[b]) == 0 {
		z.blocks = slices.Delete(z.blocks, b, b+1)
	}
}

// put adds a member, or gives it another score.
func (z *zset) put(member []byte, score float64) {
	old, found := z.scores[string(member)]
	if found && old == score {
		return
	}
	e := scored{score, string(member)}
	if found {
		z.cut(scored{old, e.member})
	}
	z.scores[e.member] = score
	z.insert(e)
}

func (z *zset) remove(member []byte) bool {
	score, ok := z.scores[string(member)]
	if ok {
		delete(z.scores, string(member))
		z.cut(scored{score, string(member)})
	}
	return ok
}

// elements returns those from i to j in order, as a reply.
func (z *zset) elements(i, j int) reply {
	r := reply{kind: '*', list: make([]string, 0, j-i), scores: make([]float64, 0, j-i)}
	for _, block := range z.blocks {
		if i < len(block) {
			for _, e := range block[i:min(j, len(block))] {
				r.list, r.scores = append(r.list, e.member), append(r.scores, e.score)
			}
		}
		i, j = max(0, i-len(block)), j-len(block)
		if j <= 0 {
			break
		}
	}
	return r
}

// parseFloat parses a number as Redis does: what C has, but no blank before it and no NaN.
func parseFloat(b []byte) (f float64, ok bool) {
	s := strings.ToLower(string(b))
	if strings.Contains(s, "0x") && !strings.Contains(s, "p") {
		s += "p0" // Go asks for the exponent
	}
	f, err := strconv.ParseFloat(s, 64)
	// + 0 makes -0 a 0, as Redis does in small sets. Go takes a _ in some numbers.
	return f + 0, err == nil && !math.IsNaN(f) && !strings.Contains(s, "_")
}

func zadd(d *db, cmd *redisproto.Command) reply {
	if cmd.ArgCount()%2 != 0 {
		return badSyntax
	}
	scores := make([]float64, cmd.ArgCount()/2-1)
	for i := range scores {
		var ok bool
		if scores[i], ok = parseFloat(cmd.Get(2 + 2*i)); !ok {
			return notFloat
		}
	}
	z, ok := obtain(d, cmd, newZset)
	if !ok {
		return wrongType
	}
	before := z.size()
	for i, score := range scores {
		z.put(cmd.Get(3+2*i), score)
	}
	return integer(z.size() - before)
}

func zscore(d *db, cmd *redisproto.Command) reply {
	return with(d, cmd, null, func(z *zset) reply {
		score, found := z.scores[string(cmd.Get(2))]
		if !found {
			return null
		}
		return reply{kind: ',', score: score}
	})
}

// zrange is ZRANGE by index; its other forms are not here.
func zrange(d *db, cmd *redisproto.Command) reply {
	for _, option := range cmd.Args()[4:] {
		if !strings.EqualFold(string(option), "WITHSCORES") {
			return badSyntax
		}
	}
	return slice(d, cmd, func(z *zset, i, j int) reply {
		r := z.elements(i, j)
		if cmd.ArgCount() == 4 {
			r.scores = nil
		} else {
			r.kind = pairs
		}
		return r
	})
}

func zpopmin(d *db, cmd *redisproto.Command) reply {
	n, bad := popCount(cmd)
	if bad != "" {
		return fail(bad)
	}
	return with(d, cmd, reply{kind: '*'}, func(z *zset) reply {
		r := z.elements(0, min(n, z.size()))
		for i, member := range r.list {
			delete(z.scores, member)
			z.cut(scored{r.scores[i], member})
		}
		if cmd.ArgCount() == 3 {
			r.kind = pairs
		}
		return r
	})
}
