package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/secmask/go-redisproto"
)

const (
	crossSlotName = "crossslot" // a stand-in's name, see rules.stand
	crossSlotText = "-CROSSSLOT Keys in request don't hash to the same slot\r\n"

	notServed  = "-CLUSTERDOWN Hash slot not served\r\n"
	beingMoved = "-ERR the slot is being moved, try again later\r\n"

	maxRedirects = 5
	tryAgainFor  = 5 * time.Second
)

// routeInCluster sends a command to the nodes of a cluster that it concerns.
func (s *session) routeInCluster(cmd *command, c *redisproto.Command) error {
	if s.txn.unmatched {
		s.local(cmd, "-ERR only QUIT and RESET are possible while monitoring a node of a cluster\r\n")
		return nil
	}
	if cmd.kind == subscribe && !hasSmallConfirmations(c) {
		s.local(cmd, "-ERR the name of a channel is too large\r\n")
		return nil
	}
	if s.owned.Load() > 0 && !s.said.resp3 && cmd.kind != subscribe {
		if l := s.ownWith(stateSubscribed); l != nil {
			return s.passSubscribed(l, cmd, c)
		}
	}
	q, err := s.examine(cmd, c)
	if err != nil && !errors.Is(err, errTooLarge) {
		return err // the client has sent only a part of it
	}
	if err != nil {
		s.local(cmd, "-ERR this command is larger than the proxy may hold, see -output\r\n")
		return errQuit
	}
	switch {
	case s.txn.pending || s.txn.open != nil || cmd.kind == multi || cmd.kind == watch || cmd.kind == endMulti:
		return s.transact(q)
	case q.info == nil || !q.info.fits(q.c.ArgCount()):
		return s.sendTo(s.anyNode(), noSlot, cmd, q.c)
	case cmd.kind == wait:
		return s.waitForReplicas(cmd, q.c)
	case q.slot == crossSlot:
		return s.sendSplit(cmd, q.c, q.info, q.positions)
	case q.slot >= 0:
		return s.sendToSlot(q.slot, cmd, q.c)
	}
	return s.sendKeyless(cmd, q.c, q.info)
}

// passSubscribed takes a command of a client of RESP2 that is subscribed on l, which refuses most. What has
// keys is refused here, since the node would first redirect it to one that does not; and MONITOR, since
// from that on no reply could be told apart.
func (s *session) passSubscribed(l *link, cmd *command, c *redisproto.Command) error {
	if info := cmd.info.of(c); !isWrong(info, c) {
		positions, _ := info.keys(c, s.scratch)
		if len(positions) > 0 || cmd.kind == monitor {
			s.local(cmd, "-ERR Can't execute '"+strings.ToLower(info.name)+
				"': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context\r\n")
			return nil
		}
	}
	return s.pass(l, cmd, c, "")
}

// examine finds the keys of a command, and their slot. A command that is not whole is held if that cannot
// be told without the rest of it, or if it goes to several nodes.
func (s *session) examine(cmd *command, c *redisproto.Command) (query, error) {
	q := query{cmd: cmd, c: c, info: cmd.info.of(c), slot: noSlot}
	if q.info == nil || !q.info.fits(c.ArgCount()) {
		return q, nil
	}
	if at := q.info.onlyKey; at > 0 && c.Get(at) != nil {
		s.scratch = append(s.scratch[:0], at)
		q.positions, q.slot = s.scratch, keySlot(c.Get(at))
		return q, nil
	}
	var arrived bool
	q.positions, arrived = q.info.keys(c, s.scratch)
	copied := q.info.splits() || len(q.positions) == 0 && (s.txn.pending || cmd.kind == cursor || cmd.name == "INFO" || s.concernsAll(cmd, q.info))
	if !c.Whole() && (!arrived || copied) {
		var err error
		if q.c, err = s.readWhole(c); err != nil {
			return q, err
		}
		q.positions, _ = q.info.keys(q.c, s.scratch)
	}
	s.scratch = q.positions[:0]
	q.slot = slotOf(q.c, q.positions)
	return q, nil
}

// sendToSlot sends a command to the node that serves a slot.
func (s *session) sendToSlot(slot int, cmd *command, c *redisproto.Command) error {
	n := s.routes.node(slot)
	if n == nil {
		s.cluster.refresh("")
		s.local(cmd, notServed)
		return nil
	}
	return s.sendTo(n, slot, cmd, c)
}

// sendTo sends a command to a node, on the shared link or on one of the session's own.
func (s *session) sendTo(n *node, slot int, cmd *command, c *redisproto.Command) error {
	if cmd.info == nil || !cmd.info.has(flagReadonly) {
		s.writes(n)
	}
	l := s.ownOn(n)
	if l == nil && (s.said.setup != nil || s.needsOwn(cmd, c)) {
		var err error
		if l, err = s.takeOwn(n); err != nil {
			return s.noOwn(cmd, err)
		}
	}
	if l == nil {
		return s.share(n, slot, cmd, c)
	}
	if cmd.kind == client && s.leavesForever(cmd, c) {
		return s.remember(n, cmd, c)
	}
	if s.leavesForever(cmd, c) {
		l.set(stateForever, true)
	}
	waits := cmd.kind == subscribe || cmd.blocking && cmd.waits(c)
	if err := s.pass(l, cmd, c, ""); err != nil || !waits {
		return err
	}
	// What follows may concern another node, and must not overtake.
	return s.await(0)
}

// writes notes that n was sent what may have changed something.
func (s *session) writes(n *node) {
	if !slices.Contains(s.writtenTo, n) {
		s.writtenTo = append(s.writtenTo, n)
	}
}

// remember sends what the connections of this client to all nodes are to remember, as CLIENT TRACKING.
// From then on the session has links of its own to all nodes, which are told the same.
func (s *session) remember(n *node, cmd *command, c *redisproto.Command) error {
	var words []string
	for i := range c.ArgCount() {
		words = append(words, string(c.Get(i)))
	}
	if len(fold(s.said.setup))+len(c.Raw()) > maxWhole {
		s.local(cmd, "-ERR there is too much that new connections are to be told\r\n")
		return nil
	}
	var reply firstReply
	if err := s.sendGathered(cmd, &reply, []part{{node: n, slot: noSlot, raw: c.Raw()}}); err != nil {
		return err
	}
	err := s.await(0)
	if bytes.HasPrefix(reply.raw, []byte("+")) {
		s.said.remember(words)
	}
	return err
}

// remember notes what a link is to be told when it is taken. What has no effect any more is forgotten, since a
// client may say such things any number of times.
func (w *said) remember(words []string) {
	sub := func(words []string) string { return strings.ToUpper(words[1]) }
	tracking := sub(words) == "TRACKING"
	off := tracking && len(words) > 2 && strings.EqualFold(words[2], "OFF")
	w.setup = slices.DeleteFunc(w.setup, func(old []string) bool {
		return !tracking && sub(old) == sub(words) || off && (sub(old) == "TRACKING" || sub(old) == "CACHING")
	})
	if !slices.ContainsFunc(w.setup, func(old []string) bool { return slices.Equal(old, words) }) {
		w.setup = append(w.setup, words)
	}
}

// sendSplit sends a command whose keys have several slots as one for each slot, if it is of that kind.
func (s *session) sendSplit(cmd *command, c *redisproto.Command, info *commandInfo, positions []int) error {
	var parts []part
	if info.splits() {
		if parts = info.split(c, positions); len(parts) == 0 {
			s.local(cmd, "-ERR wrong number of arguments for '"+strings.ToLower(info.name)+"' command\r\n")
			return nil
		}
		for _, p := range parts {
			if n := s.routes.node(p.slot); n != nil {
				s.writes(n)
			}
		}
	}
	if len(parts) == 0 {
		s.local(cmd, crossSlotText)
		return nil
	}
	return s.sendGathered(cmd, gather(info, parts), parts)
}

// sendGathered sends the first round of the parts of a command.
func (s *session) sendGathered(cmd *command, g gatherer, parts []part) error {
	size := 0
	for _, p := range parts {
		size += len(p.raw)
		if n := p.at(s.routes); n != nil && (s.shared == 0 || s.said.setup != nil) {
			if _, err := s.takeOwn(n); err != nil {
				return s.noOwn(cmd, err)
			}
		}
	}
	whole, err := s.beginGather(cmd, g, len(parts), size)
	if err != nil {
		return err
	}
	s.sendParts(whole, parts, s.routes)
	return nil
}

// sendParts sends the parts of a round, each to its node. It is called by the session's goroutine in the
// first round, by the same topology as what is in flight, so that nothing is overtaken.
func (s *session) sendParts(whole *call, parts []part, t *topology) {
	var links []*link
	for i, p := range parts {
		k := s.beginPart(whole, i)
		k.slot, k.raw = p.slot, append(k.raw, p.raw...)
		n := p.at(t)
		l := s.ownOn(n)
		k.own = l != nil || s.shared == 0
		switch {
		case n == nil:
			k.answer([]byte(notServed))
		case l != nil && l.sendCall(k):
			if !slices.Contains(links, l) {
				links = append(links, l)
			}
		case s.shared == 0:
			k.own = true
			s.sendAgain(resending{c: k, n: n})
		default:
			s.giveTo(n, k)
		}
	}
	for _, l := range links {
		l.flush()
	}
	s.flush(nil)
}

// sendKeyless sends a command without keys: to all masters, or to one of them.
func (s *session) sendKeyless(cmd *command, c *redisproto.Command, info *commandInfo) error {
	switch {
	case cmd.kind == cursor:
		return s.scan(cmd, c)
	case cmd.name == "RANDOMKEY":
		g, parts := newRandomKey(s.routes)
		return s.sendRounds(cmd, g, parts)
	case cmd.name == "SUNSUBSCRIBE":
		return s.unsubscribeShards(cmd, c)
	case cmd.kind == subscribe:
		return s.subscribe(cmd, c)
	case info.has(flagPubsub):
		return s.sendTo(s.pubsubNode(s.routes), noSlot, cmd, c)
	case cmd.name == "INFO":
		return s.sendGathered(cmd, &infoReply{}, []part{{node: s.anyNode(), slot: noSlot, raw: c.Raw()}})
	case s.concernsAll(cmd, info):
		for _, n := range s.routes.masters {
			s.writes(n)
		}
		parts := broadcast(s.routes, c.Raw())
		return s.sendGathered(cmd, gather(info, parts), parts)
	}
	return s.sendTo(s.anyNode(), noSlot, cmd, c)
}

// unsubscribeShards sends SUNSUBSCRIBE without channels to all nodes where there are subscriptions.
func (s *session) unsubscribeShards(cmd *command, c *redisproto.Command) error {
	var links []*link
	s.mu.Lock()
	for _, l := range s.owns {
		if l.state.Load()&stateShards != 0 {
			links = append(links, l)
		}
	}
	s.mu.Unlock()
	if len(links) == 0 {
		return s.sendTo(s.anyNode(), noSlot, cmd, c)
	}
	for _, l := range links {
		if err := s.pass(l, cmd, c, ""); err != nil {
			return err
		}
	}
	return s.await(0)
}

// concernsAll reports whether a command without keys goes to all masters. PING is answered by any of
// them, and so is what has no rule for making one reply of several.
func (s *session) concernsAll(cmd *command, info *commandInfo) bool {
	return (info.request == allShards || info.request == allNodes) && info.response != specialResponse && cmd.name != "PING"
}

// scan sends one step of SCAN.
func (s *session) scan(cmd *command, c *redisproto.Command) error {
	step, parts, text := s.scanner.begin(c)
	if text != "" {
		s.local(cmd, text)
		return nil
	}
	return s.sendRounds(cmd, step, parts)
}

// sendRounds sends the parts of a command which may take several rounds, and waits until it is
// answered: what follows must not be executed between two rounds.
func (s *session) sendRounds(cmd *command, g gatherer, parts []part) error {
	if err := s.sendGathered(cmd, g, parts); err != nil {
		return err
	}
	return s.await(0)
}

// anyNode returns a master, the same one for all that this session sends.
func (s *session) anyNode() *node {
	t := s.routes
	return t.masters[s.id%int64(len(t.masters))]
}

// subscribe sends a subscription to the node of the session's others, or of all sessions'. If that is lost,
// another one takes over.
func (s *session) subscribe(cmd *command, c *redisproto.Command) error {
	if l := s.ownWith(stateChannels); l != nil {
		return s.sendTo(l.node, noSlot, cmd, c)
	}
	n := s.pubsubNode(s.routes)
	for range s.routes.masters {
		if _, err := s.takeOwn(n); err == nil || err == errOver {
			break
		}
		n = s.pubsubNode(s.routes) // n is known to be away now
	}
	return s.sendTo(n, noSlot, cmd, c)
}

// pubsubNode returns the master that all subscriptions and messages go to, so that the number that
// PUBLISH replies is right: a node counts only its own subscribers.
func (p *proxy) pubsubNode(t *topology) *node {
	if n := p.pubsub.Load(); n != nil && slices.Contains(t.masters, n) && !n.links.isAway() {
		return n
	}
	for _, n := range t.masters {
		if !n.links.isAway() {
			p.pubsub.Store(n)
			return n
		}
	}
	return t.masters[0]
}

// An infoReply is the gatherer of an INFO.
type infoReply struct{ firstReply }

func (i *infoReply) append(dst []byte) []byte { return append(dst, asStandalone(i.raw)...) }

// asStandalone changes the reply to INFO: to its clients, the proxy is one Redis.
func asStandalone(raw []byte) []byte {
	r, ok := parseRaw(raw)
	if !ok || r.Err() != nil {
		return raw
	}
	text := bytes.Replace(r.Bytes(), []byte("redis_mode:cluster"), []byte("redis_mode:standalone"), 1)
	text = bytes.Replace(text, []byte("cluster_enabled:1"), []byte("cluster_enabled:0"), 1)
	if r.Kind() == redisproto.VerbatimString {
		return append(append(append(appendHeader(nil, '=', len(text)+4), "txt:"...), text...), "\r\n"...)
	}
	return appendBulk(nil, text)
}
