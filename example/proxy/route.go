package main

import (
	"bytes"
	"slices"

	"github.com/secmask/go-redisproto"
)

// route sends a command of a session that shares links, or answers it.
func (s *session) route(cmd *command, c *redisproto.Command, refused string) error {
	if err := s.keepOrder(); err != nil {
		return err
	}
	s.returnLinks()
	if s.said.skip {
		s.said.skip = false
		s.skipping = true
		defer func() { s.skipping = false }()
	}
	logsIn := cmd.kind == auth || cmd.kind == hello
	switch {
	case s.txn.unmatched && s.cluster == nil && (refused != "" || !logsIn || s.password == ""):
		return s.pass(s.passing(), cmd, c, refused)
	case s.txn.unmatched && refused != "": // no command goes to the link of MONITOR
		s.local(cmd, refusalText(refused))
		return nil
	case refused != "":
		return s.refuse(cmd, c, refused)
	case !s.said.user && !logsIn && cmd.name != "QUIT" && cmd.kind != reset:
		s.local(cmd, "-NOAUTH Authentication required.\r\n")
		return nil
	}
	if answered, err := s.answerLocally(cmd, c); answered {
		return err
	}
	switch {
	case s.cluster != nil:
		return s.routeInCluster(cmd, c)
	case cmd.kind == wait:
		return s.waitForReplicas(cmd, c)
	}
	return s.routeToSingle(cmd, c)
}

// routeToSingle sends a command to the only node there is.
func (s *session) routeToSingle(cmd *command, c *redisproto.Command) error {
	l := s.ownOn(s.single)
	if l == nil && s.needsOwn(cmd, c) {
		var err error
		if l, err = s.takeOwn(s.single); err != nil {
			return s.noOwn(cmd, err)
		}
	}
	if l == nil {
		return s.share(s.single, noSlot, cmd, c)
	}
	if s.leavesForever(cmd, c) {
		l.set(stateForever, true)
	}
	return s.pass(l, cmd, c, "")
}

// keepOrder waits until nothing is in flight if what is sent now could overtake it: because slots may have
// other nodes than before, or because a link of the session's own was opened for a call that is sent again.
func (s *session) keepOrder() error {
	if s.cluster != nil && s.routes != s.cluster.current() {
		if err := s.await(0); err != nil {
			return err
		}
		s.routes = s.cluster.current()
	}
	if s.owned.Load() != s.seen {
		if err := s.await(0); err != nil {
			return err
		}
		s.seen = s.owned.Load()
	}
	return nil
}

// refuse answers a command that is refused. In a transaction, it is aborted by that.
func (s *session) refuse(cmd *command, c *redisproto.Command, refused string) error {
	if s.owned.Load() > 0 {
		if err := s.await(0); err != nil {
			return err
		}
		if l := s.ownWith(stateMulti | stateForever); l != nil {
			return s.pass(l, cmd, c, refused)
		}
	}
	s.txn.aborted = true
	s.local(cmd, refusalText(refused))
	return nil
}

// isSmall reports whether a command may go to a shared link. A larger one would keep others waiting, and
// would have to be held to be sent again.
func isSmall(c *redisproto.Command) bool { return c.Whole() && len(c.Raw()) <= maxWhole }

// hasSmallConfirmations reports whether each confirmation of a SUBSCRIBE or the like is small: it has a
// channel, and a few bytes that are not in the command.
func hasSmallConfirmations(c *redisproto.Command) bool {
	return c.Whole() && len(c.Raw()) <= maxWhole-100
}

// needsOwn reports whether c must not go to a shared link: because it leaves something behind there,
// waits for others, or is large.
func (s *session) needsOwn(cmd *command, c *redisproto.Command) bool {
	if s.shared == 0 {
		return true
	}
	switch cmd.kind {
	case subscribe, multi, quit:
		return true
	case watch:
		return cmd.name == "WATCH"
	}
	if n := s.large.Load(); n > 0 && cmd.info != nil && cmd.info.has(flagReadonly) {
		s.large.Store(n - 1)
		return true
	}
	return s.leavesForever(cmd, c) || cmd.blocking && cmd.waits(c) || !isSmall(c)
}

// leavesForever reports whether it is not known how a link becomes fit for other sessions again after
// c.
func (s *session) leavesForever(cmd *command, c *redisproto.Command) bool {
	switch {
	case cmd.kind == client:
		return leavesBehind[string(bytes.ToUpper(short(c.Get(1))))]
	case cmd.name == "SCRIPT":
		return bytes.EqualFold(c.Get(1), []byte("DEBUG"))
	}
	return cmd.sticky || cmd.kind == selectDB || cmd.kind == monitor
}

// leavesBehind are the subcommands of CLIENT that a connection remembers, but for those that the proxy
// answers.
var leavesBehind = map[string]bool{"TRACKING": true, "CACHING": true, "NO-EVICT": true, "NO-TOUCH": true}

// short returns b if it can be a name, and nothing if it is too long for that.
func short(b []byte) []byte {
	if len(b) > maxCommandName {
		return nil
	}
	return b
}

// share gives a command to the link to n that the session shares with others.
func (s *session) share(n *node, slot int, cmd *command, c *redisproto.Command) error {
	raw := c.Raw()
	k := s.begin(cmd, len(raw))
	k.node, k.slot = n, slot
	k.raw = append(k.raw, raw...)
	s.observe(k, c)
	return s.give(s.sharedLink(n, s), k, raw)
}

// giveTo sends a call on a shared link to n.
func (s *session) giveTo(n *node, k *call) {
	k.node = n
	l := s.sharedLink(n, s)
	if l.sendCall(k) {
		l.wake()
		return
	}
	n.links.forget(l)
	<-l.done // so that the calls which the link still had are sent again before this one
	s.sendAgain(resending{c: k, n: n})
}

// ownOn returns the session's own link to n, or nil.
func (s *session) ownOn(n *node) *link {
	if s.owned.Load() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.owns {
		if l.node == n {
			return l
		}
	}
	return nil
}

// ownWith returns an own link on which one of these states is left, or nil.
func (s *session) ownWith(states uint32) *link {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.owns {
		if l.state.Load()&states != 0 {
			return l
		}
	}
	return nil
}

// takeOwn takes a link of the session's own to n, once all that was sent on others is answered, so that
// nothing is overtaken.
func (s *session) takeOwn(n *node) (*link, error) {
	if l := s.ownOn(n); l != nil {
		return l, nil
	}
	if err := s.await(0); err != nil {
		return nil, err
	}
	if l := s.ownOn(n); l != nil {
		return l, nil
	}
	l, err := s.openOwn(n, s)
	if err != nil {
		return nil, err
	}
	s.addOwn(l)
	s.seen = s.owned.Load()
	return l, nil
}

// setOwns changes the list of the session's own links. s.mu is held.
func (s *session) setOwns(list []*link) {
	s.owns = list
	s.owned.Store(int32(len(list)))
}

func (s *session) addOwn(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setOwns(append(s.owns, l))
	if s.over { // and has given up its links already
		l.close(errOver)
	}
}

// noOwn answers a command for which there is no link of the session's own. If the command would have
// left something behind, the session ends: what follows must not be executed without it.
func (s *session) noOwn(cmd *command, err error) error {
	if err == errOver {
		return err
	}
	s.local(cmd, awayText(err))
	if cmd.kind == ordinary && !cmd.sticky {
		return nil
	}
	return errQuit
}

// returnLinks gives back the session's own links if nothing is in flight, and nothing stays behind on
// them.
func (s *session) returnLinks() {
	if s.owned.Load() == 0 || s.shared == 0 {
		return
	}
	s.mu.Lock()
	if s.fresh.head != nil || s.flying.calls > 0 || s.dirty || s.writing || s.over || s.said.setup != nil {
		s.mu.Unlock()
		return
	}
	var clean []*link
	kept := s.owns[:0]
	for _, l := range s.owns {
		if l.state.Load() == 0 {
			clean = append(clean, l)
		} else {
			kept = append(kept, l)
		}
	}
	clear(s.owns[len(kept):])
	s.setOwns(kept)
	s.seen = s.owned.Load()
	s.mu.Unlock()
	for _, l := range clean {
		l.node.links.giveBack(l)
	}
	if !s.txn.pending && (len(kept) == 0 || slices.Contains(clean, s.txn.open) || slices.Contains(clean, s.txn.watched)) {
		s.txn = transaction{} // which was not begun, or is over
	}
}

// waitForReplicas sends WAIT, behind a PING, to each node that the session has written to: a node waits
// for what the last command of that connection has seen, and a new connection has seen nothing.
func (s *session) waitForReplicas(cmd *command, c *redisproto.Command) error {
	if err := s.await(0); err != nil {
		return err
	}
	if l := s.ownWith(stateMulti | stateForever); l != nil {
		return s.pass(l, cmd, c, "")
	}
	if !c.Whole() { // only a part of it could be sent, and what the client sends next would be taken for the rest
		s.local(cmd, "-ERR an argument is too large\r\n")
		return nil
	}
	written := len(s.writtenTo)
	s.writtenTo = slices.DeleteFunc(s.writtenTo, s.isReplaced)
	if len(s.writtenTo) < written { // no replica can confirm what only a former master has
		s.local(cmd, ":0\r\n")
		return nil
	}
	nodes := s.writtenTo
	if s.cluster == nil {
		nodes = []*node{s.single}
	}
	if len(nodes) == 0 {
		nodes = []*node{s.anyNode()}
	}
	var links []*link
	for _, n := range nodes {
		l, err := s.takeOwn(n)
		if err != nil {
			return s.noOwn(cmd, err)
		}
		links = append(links, l)
	}
	parts := make([]part, len(links))
	var g gatherer = &firstReply{}
	if len(parts) > 1 {
		g = gather(cmd.info.of(c), parts)
	}
	whole, err := s.beginGather(cmd, g, len(parts), 0)
	if err != nil {
		return err
	}
	for i, l := range links {
		k := s.beginPart(whole, i)
		s.blocks(k, cmd, c)
		s.give(l, dropped, appendCommand(nil, "PING"))
		s.give(l, k, c.Raw())
	}
	return nil
}

// firstReply is the gatherer of a single part.
type firstReply struct{ raw []byte }

func (f *firstReply) add(_ int, raw []byte)    { f.raw = append(f.raw, raw...) }
func (f *firstReply) next() []part             { return nil }
func (f *firstReply) append(dst []byte) []byte { return append(dst, f.raw...) }
