package main

import (
	"strconv"
	"strings"
)

// A nodesView is how one node sees its cluster: its reply to CLUSTER NODES. Nodes are named by their
// IDs. Only this tells which slots the node is moving.
type nodesView struct {
	myself    string
	addrs     map[string][]string    // by ID; the first has the IP address, a second one the host's name
	ranges    map[string][]nodeRange // the slots of each node, by ID
	migrating map[int]string         // the slots that the node is moving away, and the nodes to which
	importing map[int]string         // the slots that are being moved to it, and the nodes from which
}

type nodeRange struct{ first, last int }

// parseNodes reads the reply to CLUSTER NODES, a line for each node:
//
//	ID host:port@busport,name flags master ping pong epoch link range range [slot->-ID] [slot-<-ID]
func parseNodes(text, asked string) (view nodesView, ok bool) {
	view = nodesView{addrs: map[string][]string{}, ranges: map[string][]nodeRange{},
		migrating: map[int]string{}, importing: map[int]string{}}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			return view, false
		}
		id, flags := fields[0], fields[2]
		if strings.Contains(","+flags+",", ",myself,") {
			view.myself = id
		}
		addr, rest, _ := strings.Cut(fields[1], "@")
		if colon := strings.LastIndexByte(addr, ':'); colon >= 0 {
			host, port := strings.Trim(addr[:colon], "[]"), addr[colon+1:]
			view.addrs[id] = []string{joinAddr(host, port, asked)}
			if names := strings.Split(rest, ","); len(names) > 1 && names[1] != "" {
				view.addrs[id] = append(view.addrs[id], joinAddr(names[1], port, asked))
			}
		}
		for _, field := range fields[8:] {
			if !view.addSlots(id, field) {
				return view, false
			}
		}
	}
	return view, view.myself != ""
}

// addSlots adds one range of slots of a node, or a slot that is moving.
func (v *nodesView) addSlots(id, field string) (ok bool) {
	if inner, isMoving := strings.CutPrefix(field, "["); isMoving {
		inner = strings.TrimSuffix(inner, "]")
		if text, to, isOut := strings.Cut(inner, "->-"); isOut {
			slot, err := strconv.Atoi(text)
			v.migrating[slot] = to
			return err == nil
		}
		text, from, isIn := strings.Cut(inner, "-<-")
		slot, err := strconv.Atoi(text)
		v.importing[slot] = from
		return isIn && err == nil
	}
	low, high, isRange := strings.Cut(field, "-")
	if !isRange {
		high = low
	}
	first, errFirst := strconv.Atoi(low)
	last, errLast := strconv.Atoi(high)
	v.ranges[id] = append(v.ranges[id], nodeRange{first, last})
	return errFirst == nil && errLast == nil
}

// owns reports whether the node itself serves a slot.
func (v *nodesView) owns(slot int) bool { return v.serves(v.myself, slot) }

// owner returns the ID of the node that serves a slot, or "".
func (v *nodesView) owner(slot int) string {
	for id := range v.ranges {
		if v.serves(id, slot) {
			return id
		}
	}
	return ""
}

func (v *nodesView) serves(id string, slot int) bool {
	for _, r := range v.ranges[id] {
		if r.first <= slot && slot <= r.last {
			return true
		}
	}
	return false
}
