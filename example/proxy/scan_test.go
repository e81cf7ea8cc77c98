package main

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

// A fakeCluster is a cluster in memory: what a scan asks of it, and slots that move.
type fakeCluster struct {
	t      *testing.T
	random *rand.Rand
	*cluster
	addrs     []string
	together  int // how many keys move in one step, on average
	owner     [slotCount]int
	migrating map[int]int              // slot to the number of the node that it is being moved to
	keys      []map[int]map[string]int // by node and slot: the keys
	ranges    []string                 // the slots of each node as CLUSTER NODES has them; nil after a move
}

func newFakeCluster(t *testing.T, nodes int) *fakeCluster {
	f := &fakeCluster{t: t, random: rand.New(rand.NewSource(1)), cluster: newCluster(nil, nil, noLog), migrating: map[int]int{}, together: 3}
	for n := range nodes {
		f.addrs = append(f.addrs, fmt.Sprintf("node%d:1", n))
		f.keys = append(f.keys, map[int]map[string]int{})
	}
	for slot := range slotCount {
		f.owner[slot] = slot * nodes / slotCount
	}
	f.publish()
	return f
}

// publish makes the topology of the cluster known.
func (f *fakeCluster) publish() {
	var ranges []string
	for slot := 0; slot < slotCount; {
		first, n := slot, f.owner[slot]
		for slot++; slot < slotCount && f.owner[slot] == n; slot++ {
		}
		ranges = append(ranges, fmt.Sprintf("*3\r\n:%d\r\n:%d\r\n*3\r\n+%s\r\n:1\r\n+id%d\r\n",
			first, slot-1, strings.TrimSuffix(f.addrs[n], ":1"), n))
	}
	topo, err := f.parseSlots(parseReply(f.t, fmt.Sprintf("*%d\r\n%s", len(ranges), strings.Join(ranges, ""))), "")
	if err != nil {
		f.t.Fatal(err)
	}
	f.snapshot.Store(topo)
}

func (f *fakeCluster) set(key string) {
	slot := keySlot([]byte(key))
	f.put(f.owner[slot], slot, key)
}

func (f *fakeCluster) put(n, slot int, key string) {
	if f.keys[n][slot] == nil {
		f.keys[n][slot] = map[string]int{}
	}
	f.keys[n][slot][key] = len(f.keys[n][slot])
}

// move takes one step of moving a random slot: it begins to, moves some keys, or has moved. The
// topology that the proxy knows is renewed only now and then.
func (f *fakeCluster) move(slots []int) {
	slot := slots[f.random.Intn(len(slots))]
	from := f.owner[slot]
	to, isMoving := f.migrating[slot]
	if !isMoving {
		f.migrating[slot] = (from + 1 + f.random.Intn(len(f.addrs)-1)) % len(f.addrs)
		return
	}
	for key := range f.keys[from][slot] {
		if f.random.Intn(f.together) == 0 {
			return
		}
		delete(f.keys[from][slot], key)
		f.put(to, slot, key)
	}
	f.owner[slot], f.ranges = to, nil
	delete(f.migrating, slot)
	if f.random.Intn(4) == 0 {
		f.publish()
	}
}

// answer is what a node of the cluster replies to a part.
func (f *fakeCluster) answer(p part) string {
	words := strings.Split(string(p.raw), "\r\n") // none of the arguments has such bytes
	for i := 2; i < len(words); i += 2 {
		words[i/2-1] = words[i]
	}
	words = words[:len(words)/2-1]
	switch words[0] + " " + words[1] {
	case "CLUSTER GETKEYSINSLOT":
		slot, _ := strconv.Atoi(words[2])
		most, _ := strconv.Atoi(words[3])
		keys := slices.Collect(maps.Keys(f.keys[f.number(p.node)][slot]))
		return wireOf(keys[:min(len(keys), most)]...)
	case "CLUSTER NODES":
		text := f.nodesText(f.number(p.node))
		return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
	}
	if words[0] == "SCAN" { // the cursor is how many keys have been seen, in the order of their names
		var all []string
		for _, keys := range f.keys[f.number(p.node)] {
			all = slices.AppendSeq(all, maps.Keys(keys))
		}
		sort.Strings(all)
		begin := sort.SearchStrings(all, f.cursorKey(words[1]))
		end := min(begin+7, len(all))
		next := "0"
		if end < len(all) {
			next = f.keyCursor(all[end])
		}
		return fmt.Sprintf("*2\r\n$%d\r\n%s\r\n%s", len(next), next, wireOf(all[begin:end]...))
	}
	if words[0] == "TYPE" && p.node == nil && p.slot == keySlot([]byte(words[1])) {
		return "+" + typeOf(words[1]) + "\r\n"
	}
	f.t.Fatalf("a node does not know %q", words)
	return ""
}

// typeOf is the type of a key: one of three strings, by its last byte.
func typeOf(key string) string { return []string{"string", "hash", "list"}[key[len(key)-1]%3] }

// keyCursor returns the cursor that stands for a key, which ends in a number of five digits.
func (f *fakeCluster) keyCursor(key string) string { return "1" + key[len(key)-5:] }

// cursorKey returns the key that a cursor stands for.
func (f *fakeCluster) cursorKey(cursor string) string {
	switch {
	case cursor == "0":
		return ""
	case cursor[1] < '5':
		return "{tag}" + cursor[1:]
	default:
		return "~" + cursor[1:]
	}
}

func (f *fakeCluster) number(n *node) int { return slices.Index(f.addrs, n.addr) }

func (f *fakeCluster) nodesText(self int) string {
	if f.ranges == nil {
		f.ranges = make([]string, len(f.addrs))
		for slot := 0; slot < slotCount; {
			first, n := slot, f.owner[slot]
			for slot++; slot < slotCount && f.owner[slot] == n; slot++ {
			}
			if f.ranges[n] += fmt.Sprintf(" %d", first); slot-first > 1 {
				f.ranges[n] += fmt.Sprintf("-%d", slot-1)
			}
		}
	}
	var b strings.Builder
	for n, addr := range f.addrs {
		flags := "master"
		if n == self {
			flags = "myself,master"
		}
		fmt.Fprintf(&b, "id%d %s@2 %s - 0 0 1 connected%s", n, addr, flags, f.ranges[n])
		for slot, to := range f.migrating {
			if n == self && f.owner[slot] == n {
				fmt.Fprintf(&b, " [%d->-id%d]", slot, to)
			}
			if n == self && to == n {
				fmt.Fprintf(&b, " [%d-<-id%d]", slot, f.owner[slot])
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// scanAll scans from the first cursor to the last, and calls between between any two replies of
// nodes. It returns how often each key was given, and the number of steps.
func (f *fakeCluster) scanAll(s *scanner, options string, between func()) (seen map[string]int, steps int) {
	f.t.Helper()
	return f.scanFrom("0", func(scanCursor) bool { return false }, s, options, between)
}

// scanFrom scans from a cursor on until there is no further one, or done reports true of it.
func (f *fakeCluster) scanFrom(cursor string, done func(scanCursor) bool, s *scanner, options string, between func()) (seen map[string]int, steps int) {
	f.t.Helper()
	seen = map[string]int{}
	for steps = 1; ; steps++ {
		if steps > 200_000 {
			f.t.Fatalf("the scan does not end; the cursor is %s", cursor)
		}
		step, parts, failure := s.begin(commandOf(f.t, strings.Fields("SCAN "+cursor+" "+options)...))
		if failure != "" {
			f.t.Fatal(failure)
		}
		for ; len(parts) > 0; parts = step.next() {
			for n, p := range parts {
				step.add(n, []byte(f.answer(p)))
				between()
			}
		}
		r := parseReply(f.t, string(step.append(nil)))
		if r.Err() != nil {
			f.t.Fatal(r.Err())
		}
		cursor = string(r.At(0).Bytes())
		for key := range r.At(1).All() {
			seen[string(key.Bytes())]++
		}
		if c, _ := parseScanCursor([]byte(cursor)); cursor == "0" || done(c) {
			return seen, steps
		}
	}
}

func TestScan(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, 3)
	var keys []string
	for n := range 3000 {
		keys = append(keys, fmt.Sprintf("key%05d", n))
		f.set(keys[n])
	}
	for _, row := range []struct {
		options  string
		want     func(key string) bool
		maxSteps int
	}{
		{"", func(string) bool { return true }, 600},
		{"COUNT 1000", func(string) bool { return true }, 30},
		{"COUNT 1", func(string) bool { return true }, 6000},
		{"MATCH *7", func(key string) bool { return strings.HasSuffix(key, "7") }, 600},
		{"match * count 100", func(string) bool { return true }, 100},
		{"TYPE hash", func(key string) bool { return typeOf(key) == "hash" }, 600},
		{"TYPE list MATCH key0001? COUNT 10", func(key string) bool { return typeOf(key) == "list" && strings.HasPrefix(key, "key0001") }, 600},
		{"TYPE none", func(string) bool { return false }, 600},
	} {
		seen, steps := f.scanAll(newScanner(f.cluster), row.options, func() {})
		for _, key := range keys {
			if want := row.want(key); (seen[key] > 0) != want || seen[key] > 1 {
				t.Errorf("SCAN %s gives %s %d times; it matches: %v", row.options, key, seen[key], want)
			}
			delete(seen, key)
		}
		if len(seen) > 0 || steps > row.maxSteps {
			t.Errorf("SCAN %s takes %d steps, and gives other keys: %v", row.options, steps, seen)
		}
	}
}

// TestScanWhileSlotsMove moves the slots between any two replies. Each key is there from the start
// to the end, so each has to be seen.
func TestScanWhileSlotsMove(t *testing.T) {
	t.Parallel()
	f := newFakeCluster(t, 4)
	f.random = rand.New(rand.NewSource(7))
	var keys []string
	var slots []int
	for n := range 40 { // few slots with many keys each move most
		for i := range 20 {
			key := fmt.Sprintf("{%d}%d", n, i)
			keys, slots = append(keys, key), append(slots, keySlot([]byte(key)))
			f.set(key)
		}
	}
	for round := range 5 {
		seen, _ := f.scanAll(newScanner(f.cluster), "COUNT 5", func() {
			if f.random.Intn(20) == 0 {
				f.move(slots)
			}
		})
		for _, key := range keys {
			if seen[key] == 0 {
				t.Errorf("scan %d does not give %s", round, key)
			}
		}
	}
}

// TestScanOfLargeSlots has a slot with more keys than are had at once. It moves after each of the
// first replies of its scan, and then again when a whole scan of it has fitted in between.
func TestScanOfLargeSlots(t *testing.T) {
	t.Parallel()
	const keys, never = 1000, -1000
	slot := keySlot([]byte("tag"))
	for first := never; first < 400; first = max(first+29, 0) {
		f := newFakeCluster(t, 3)
		for n := range keys {
			f.set(fmt.Sprintf("{tag}%05d", n))
		}
		for n := range 100 { // keys of other slots, which the scan of the slot must leave out
			f.set(fmt.Sprintf("~%05d", 50000+n))
		}
		f.together = 300
		s := newScanner(f.cluster)
		s.slotKeys = 100
		calls := 0
		between := func() {
			if calls++; first >= 0 && (calls-first)%400 == 0 {
				f.move([]int{slot})
			}
		}
		seen, steps := f.scanFrom(strconv.Itoa(slot), func(c scanCursor) bool { return c.slot != slot }, s, "COUNT 5", between)
		if len(seen) != keys || steps < keys/7 {
			t.Errorf("first move after %d replies: %d of %d keys in %d steps", first, len(seen), keys, steps)
		}
	}
}

func TestScanErrors(t *testing.T) {
	f := newFakeCluster(t, 2)
	for _, row := range []struct{ command, want string }{
		{"SCAN x", "-ERR invalid cursor\r\n"},
		{"SCAN -1", "-ERR invalid cursor\r\n"},
		{"SCAN 18446744073709551616", "-ERR invalid cursor\r\n"},
		{"SCAN 0 COUNT", "-ERR syntax error\r\n"},
		{"SCAN 0 COUNT 0", "-ERR syntax error\r\n"},
		{"SCAN 0 COUNT x", "-ERR value is not an integer or out of range\r\n"},
		{"SCAN 0 COUNT 01", "-ERR value is not an integer or out of range\r\n"},
		{"SCAN 0 NOSUCH 1", "-ERR syntax error\r\n"},
	} {
		if _, _, failure := newScanner(f.cluster).begin(commandOf(t, strings.Fields(row.command)...)); failure != row.want {
			t.Errorf("%s: %q, want %q", row.command, failure, row.want)
		}
	}
	for _, reply := range []string{"-NOPERM no\r\n", "+OK\r\n", "*1\r\n"} {
		step, parts, _ := newScanner(f.cluster).begin(commandOf(t, "SCAN", "0"))
		for n := range parts {
			step.add(n, []byte(reply))
		}
		want := errUnexpected
		if reply[0] == '-' {
			want = reply
		}
		if more := step.next(); more != nil || string(step.append(nil)) != want {
			t.Errorf("after %q from a node: %q, want %q", reply, step.append(nil), want)
		}
	}
	if _, _, failure := newScanner(newCluster(nil, nil, noLog)).begin(commandOf(t, "SCAN", "0")); !strings.HasPrefix(failure, "-CLUSTERDOWN") {
		t.Errorf("without a topology: %q", failure)
	}
}

func TestScanCursor(t *testing.T) {
	for _, c := range []scanCursor{
		{}, {slot: 1}, {slot: 16383}, {slot: 0, mode: slotByScan, holder: 255, node: maxNodeCursor},
		{slot: 16383, mode: slotByScanAgain, holder: 1, node: 1},
	} {
		if got, ok := parseScanCursor([]byte(strconv.FormatUint(c.uint64(), 10))); !ok || got != c {
			t.Errorf("%+v comes back as %+v", c, got)
		}
	}
	if n := (scanCursor{slot: slotCount}).uint64(); n != 0 {
		t.Errorf("the cursor after the last slot is %d", n)
	}
}

func TestParseNodes(t *testing.T) {
	view, ok := parseNodes("a1 10.0.0.1:7000@17000,host myself,master - 0 0 1 connected 0-99 200 [5->-b2] [300-<-b2]\n"+
		"b2 :7001@17001 master - 0 0 2 connected 100-199\nc3 2001:db8::1:7002@17002 slave b2 0 0 2 connected\n", "asked:1")
	if !ok || view.myself != "a1" || fmt.Sprint(view.addrs) != "map[a1:[10.0.0.1:7000 host:7000] b2:[asked:7001] c3:[[2001:db8::1]:7002]]" {
		t.Errorf("%v %+v", ok, view)
	}
	for slot, want := range map[int]string{0: "a1", 99: "a1", 100: "b2", 199: "b2", 200: "a1", 201: ""} {
		if got := view.owner(slot); got != want || view.owns(slot) != (want == "a1") {
			t.Errorf("slot %d: %q, want %q", slot, got, want)
		}
	}
	if view.migrating[5] != "b2" || view.importing[300] != "b2" {
		t.Errorf("moving: %v %v", view.migrating, view.importing)
	}
	for _, text := range []string{"", "x", "a1 10.0.0.1:7000@17000 master - 0 0 1 connected 0-99\n",
		"a1 :1@2 myself,master - 0 0 1 connected x\n", "a1 :1@2 myself,master - 0 0 1 connected [x->-b]\n"} {
		if _, ok := parseNodes(text, ""); ok {
			t.Errorf("%q is taken for a reply to CLUSTER NODES", text)
		}
	}
}
