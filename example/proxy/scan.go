package main

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/secmask/go-redisproto"
)

// SCAN goes from slot to slot, and not from node to node with the cursor of each: a key whose slot
// moves from a node that is still to be visited to one that has been visited would never be seen.
// CLUSTER GETKEYSINSLOT gives the keys of a slot, and CLUSTER NODES after it whether some of them may
// have been on another node at that time; then that is asked too. So every key that exists from the
// start of the scan to its end is returned at least once, however slots and masters change, and the
// cursor means the same to every proxy.
//
// GETKEYSINSLOT gives all keys of a slot at once. A slot that has more than is good at once, because
// very many keys have the same hash tag, is scanned with the SCAN of its node, and the keys of other
// slots are left out.

// A scanCursor is the cursor of a client, bit by bit:
//
//	 0–13  the slot to go on with
//	14–15  how: slotAtOnce, slotByScan, or slotByScanAgain
//	16–23  by scan: holderOf the node, so that a cursor never gets to another one
//	24–63  by scan: the cursor of the node
//
// 40 bits are enough for tables of 2⁴⁰ keys in Redis up to 7.2. Since 7.4, the 14 lowest bits are the
// slot, which leaves 2²⁶ keys in one slot.
type scanCursor struct {
	slot   int
	mode   scanMode
	holder uint8
	node   uint64
}

type scanMode uint8

const (
	slotAtOnce      scanMode = iota
	slotByScan               // on the node that serves the slot
	slotByScanAgain          // on the node that the slot is being moved to, after slotByScan
)

const maxNodeCursor = 1<<40 - 1

func parseScanCursor(b []byte) (c scanCursor, ok bool) {
	n, err := strconv.ParseUint(string(b), 10, 64)
	return scanCursor{slot: int(n % slotCount), mode: scanMode(n >> 14 & 3), holder: uint8(n >> 16), node: n >> 24}, err == nil
}

// uint64 returns the cursor as clients see it. The one after the last slot is 0.
func (c scanCursor) uint64() uint64 {
	return uint64(c.slot%slotCount) | uint64(c.mode)<<14 | uint64(c.holder)<<16 | c.node<<24
}

// holderOf returns a number that tells most nodes of a cluster apart.
func holderOf(n *node) uint8 {
	crc := crc16([]byte(n.addr))
	return uint8(crc>>8) ^ uint8(crc)
}

const (
	maxSlotsAtOnce  = 1024 // in one round
	maxScanRounds   = 6    // to follow slots that move again and again
	defaultSlotKeys = 250_000
)

// A scanner begins the steps of all clients' scans.
type scanner struct {
	cluster  *cluster
	slotKeys int           // how many keys of a slot are had at once
	density  atomic.Uint64 // the bits of a float64: keys in a slot, as last seen
}

func newScanner(c *cluster) *scanner {
	s := &scanner{cluster: c, slotKeys: defaultSlotKeys}
	s.density.Store(math.Float64bits(0.5)) // at first 20 slots for the 10 keys that SCAN is to give by default
	return s
}

// A scan is one SCAN of a client. It is a gatherer.
type scan struct {
	*scanner
	options  []string // those of the client, as they came
	count    int
	match    []byte // nil for all keys
	typeName string // "" for all types

	at        scanCursor  // where this step begins
	following scanCursor  // where the next one does
	queries   []slotQuery // those of this round
	types     [][]byte    // the keys whose types are asked in this round
	rounds    int
	asked     map[*node]bool
	replies   [][]byte
	keys      [][]byte
	failure   []byte // an error reply
}

// A slotQuery is what one node is asked in a round: the keys of some slots, and then how it sees the
// cluster.
type slotQuery struct {
	node  *node
	slots []int
}

// begin reads a SCAN and returns its first round. If the command is wrong, or the slot is not served,
// failure is the error reply.
func (s *scanner) begin(c *redisproto.Command) (step *scan, parts []part, failure string) {
	step = &scan{scanner: s, count: 10, asked: make(map[*node]bool)}
	at, ok := parseScanCursor(c.Get(1))
	if !ok {
		return nil, nil, "-ERR invalid cursor\r\n"
	}
	step.at = at
	if failure = step.parseOptions(c); failure != "" {
		return nil, nil, failure
	}
	t := s.cluster.current()
	if t == nil || t.node(at.slot) == nil {
		return nil, nil, "-CLUSTERDOWN Hash slot not served\r\n"
	}
	step.start(t)
	return step, step.round(), ""
}

// parseOptions reads what follows the cursor, with the errors that Redis has.
func (s *scan) parseOptions(c *redisproto.Command) (failure string) {
	const syntax = "-ERR syntax error\r\n"
	for i := 2; i < c.ArgCount(); i += 2 {
		if i+1 == c.ArgCount() {
			return syntax
		}
		value := string(c.Get(i + 1))
		switch strings.ToUpper(string(c.Get(i))) {
		case "COUNT":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || strconv.FormatInt(n, 10) != value {
				return "-ERR value is not an integer or out of range\r\n"
			}
			if n < 1 {
				return syntax
			}
			s.count = int(min(n, math.MaxInt32))
		case "MATCH":
			if s.match = nil; value != "*" {
				s.match = []byte(value)
			}
		case "TYPE":
			s.typeName = value
		default:
			return syntax
		}
		s.options = append(s.options, string(c.Get(i)), value)
	}
	return ""
}

// start decides what the step does: one slot by the scan of a node, or some slots at once.
func (s *scan) start(t *topology) {
	owner := t.node(s.at.slot)
	if s.at.mode != slotAtOnce {
		holder := owner
		if s.at.mode == slotByScanAgain {
			for _, n := range s.cluster.all() {
				if n != owner && holderOf(n) == s.at.holder {
					holder = s.cluster.nodeAt(n.addr) // so that it stays in use
				}
			}
		}
		if holderOf(holder) != s.at.holder { // the slot has moved, so its scan begins again
			s.at = scanCursor{slot: s.at.slot, mode: slotByScan, holder: holderOf(owner)}
			holder = owner
		}
		s.queries = []slotQuery{{holder, []int{s.at.slot}}}
		return
	}
	density := math.Float64frombits(s.density.Load())
	most := int(min(float64(s.count)/max(density, 0.001), maxSlotsAtOnce))
	slots := []int{s.at.slot}
	for len(slots) < most && s.at.slot+len(slots) < slotCount && t.node(s.at.slot+len(slots)) == owner {
		slots = append(slots, s.at.slot+len(slots))
	}
	s.following = scanCursor{slot: s.at.slot + len(slots)}
	s.queries = []slotQuery{{owner, slots}}
}

// round returns the parts of the queries.
func (s *scan) round() []part {
	var parts []part
	add := func(n *node, words ...string) {
		parts = append(parts, part{node: n, slot: noSlot, raw: appendCommand(nil, words...)})
	}
	for _, q := range s.queries {
		s.asked[q.node] = true
		for _, slot := range q.slots {
			if s.at.mode == slotAtOnce {
				add(q.node, "CLUSTER", "GETKEYSINSLOT", strconv.Itoa(slot), strconv.Itoa(s.slotKeys+1))
			} else {
				add(q.node, append([]string{"SCAN", strconv.FormatUint(s.at.node, 10)}, s.options...)...)
			}
		}
		add(q.node, "CLUSTER", "NODES")
	}
	s.replies = make([][]byte, len(parts))
	return parts
}

func (s *scan) add(n int, raw []byte) { s.replies[n] = bytes.Clone(raw) }

// next takes the replies of a round.
func (s *scan) next() []part {
	s.rounds++
	for _, raw := range s.replies {
		if len(raw) == 0 || raw[0] == '-' || raw[0] == '!' {
			s.failure = raw
			return nil
		}
	}
	if s.types != nil {
		s.takeTypes()
		return nil
	}
	ok := false
	if s.at.mode == slotAtOnce {
		ok = s.takeSlots()
	} else {
		ok = s.takeScan()
	}
	switch {
	case !ok:
		s.failure = []byte(errUnexpected)
		return nil
	case len(s.queries) > 0:
		return s.round()
	case s.typeName != "" && s.at.mode == slotAtOnce && len(s.keys) > 0:
		return s.askTypes()
	}
	return nil
}

// takeSlots takes the keys of slots, and sets the queries of the next round.
func (s *scan) takeSlots() (ok bool) {
	replies, found, slots := s.replies, 0, 0
	moving := map[*node][]int{}
	for _, q := range s.queries {
		view, ok := s.view(replies[len(q.slots)], q.node)
		if !ok {
			return false
		}
		for i, slot := range q.slots {
			n, ok := s.takeKeys(replies[i], slot, q.node)
			if !ok {
				return false
			}
			found += n
			slots++
			if n > s.slotKeys {
				continue
			}
			if other := s.alsoAt(view, slot, q.node); other != nil {
				moving[other] = append(moving[other], slot)
			}
		}
		replies = replies[len(q.slots)+1:]
	}
	if s.rounds == 1 {
		s.density.Store(math.Float64bits(float64(found) / float64(slots)))
	}
	s.queries = nil
	for n, slots := range moving {
		s.queries = append(s.queries, slotQuery{n, slots})
	}
	return true
}

// takeKeys takes the keys of one slot, and returns how many there are.
func (s *scan) takeKeys(raw []byte, slot int, from *node) (n int, ok bool) {
	if string(raw) == "*0\r\n" { // as most replies are where there are few keys
		return 0, true
	}
	r, ok := parseRaw(raw)
	if !ok || r.Kind() != redisproto.Array {
		return 0, false
	}
	if r.Len() > s.slotKeys {
		s.scanLater(slot, from)
		return r.Len(), true
	}
	for key := range r.All() {
		if s.match == nil || globMatch(s.match, key.Bytes()) {
			s.keys = append(s.keys, bytes.Clone(key.Bytes()))
		}
	}
	return r.Len(), true
}

// scanLater makes the next step begin at a slot that has too many keys to have them at once. If it
// is the first slot of this step, the next one scans it on the node that has the keys.
func (s *scan) scanLater(slot int, n *node) {
	switch {
	case slot != s.at.slot:
		if slot < s.following.slot {
			s.following = scanCursor{slot: slot}
		}
	case s.following.mode == slotAtOnce:
		mode := slotByScan
		if s.rounds > 1 {
			mode = slotByScanAgain
		}
		s.following = scanCursor{slot: slot, mode: mode, holder: holderOf(n)}
	}
}

// takeScan takes the reply of a node to its SCAN, and the keys of the slot among the keys in it.
func (s *scan) takeScan() (ok bool) {
	n, slot := s.queries[0].node, s.at.slot
	s.queries = nil
	r, isReply := parseRaw(s.replies[0])
	view, isView := s.view(s.replies[1], n)
	cursor, err := strconv.ParseUint(string(r.At(0).Bytes()), 10, 64)
	if !isReply || !isView || err != nil || cursor > maxNodeCursor {
		return false
	}
	for key := range r.At(1).All() {
		if keySlot(key.Bytes()) == slot {
			s.keys = append(s.keys, bytes.Clone(key.Bytes()))
		}
	}
	s.following = scanCursor{slot: slot + 1}
	if cursor != 0 {
		s.following = scanCursor{slot: slot, mode: s.at.mode, holder: s.at.holder, node: cursor}
	} else if other := s.alsoAt(view, slot, n); other != nil && (s.at.mode == slotByScan || view.owns(slot)) {
		s.following = scanCursor{slot: slot, mode: slotByScanAgain, holder: holderOf(other)}
	}
	return true
}

// view reads how a node sees the cluster.
func (s *scan) view(raw []byte, n *node) (nodesView, bool) {
	r, ok := parseRaw(raw)
	if !ok {
		return nodesView{}, false
	}
	return parseNodes(string(r.Bytes()), n.addr)
}

// alsoAt returns the node that may have had keys of a slot when n was asked for them, or nil if there
// is none. view is how n saw the cluster after that.
//
// If n was moving the slot away, the keys that had been moved are on the other node. If n does not
// serve it, they are on the node that does, or if that has just been asked, n is the node that the
// slot is being moved to. A slot that keeps moving is not followed for ever.
func (s *scan) alsoAt(view nodesView, slot int, n *node) *node {
	id := view.migrating[slot]
	if !view.owns(slot) {
		if id = view.importing[slot]; id == "" {
			id = view.owner(slot)
		} else if s.asked[s.nodeOf(view, id)] {
			return nil
		}
	}
	other := s.nodeOf(view, id)
	if other == n || s.rounds >= maxScanRounds {
		return nil
	}
	return other
}

// nodeOf returns the node that has a name among the nodes, or nil if there is none.
func (s *scan) nodeOf(view nodesView, id string) *node {
	if n := s.cluster.current().ids[id]; n != nil {
		return n
	}
	if addrs := view.addrs[id]; len(addrs) > 0 {
		return s.cluster.nodeAt(addrs[0])
	}
	return nil
}

// askTypes begins a round that asks for the types of all keys.
func (s *scan) askTypes() []part {
	s.types, s.keys = s.keys, nil
	parts := make([]part, len(s.types))
	for i, key := range s.types {
		parts[i] = part{slot: keySlot(key), raw: appendCommand(nil, "TYPE", string(key))}
	}
	s.replies = make([][]byte, len(parts))
	return parts
}

// takeTypes keeps the keys that are of the type.
func (s *scan) takeTypes() {
	for i, key := range s.types {
		if string(s.replies[i]) == "+"+s.typeName+"\r\n" {
			s.keys = append(s.keys, key)
		}
	}
}

func (s *scan) append(dst []byte) []byte {
	if s.failure != nil {
		return append(dst, s.failure...)
	}
	dst = appendHeader(dst, '*', 2)
	dst = appendBulk(dst, strconv.FormatUint(s.following.uint64(), 10))
	dst = appendHeader(dst, '*', len(s.keys))
	for _, key := range s.keys {
		dst = appendBulk(dst, key)
	}
	return dst
}
