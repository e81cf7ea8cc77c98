package main

import (
	"bytes"

	"github.com/secmask/go-redisproto"
)

// A transaction in a cluster is on the node of its first key. MULTI is answered at once; it is sent when
// the first command with a key comes, and what was queued before that is sent with it. A WATCH says
// which node it is before MULTI does.

// A query is a command, and what is known of it.
type query struct {
	cmd       *command
	c         *redisproto.Command
	info      *commandInfo // nil if the upstream does not know it
	positions []int        // of its keys
	slot      int          // of all of them, noSlot or crossSlot
}

// keyless reports whether the command is well formed and has no keys.
func (q *query) keyless() bool { return q.slot == noSlot && !q.wrong() }

func (q *query) wrong() bool { return isWrong(q.info, q.c) }

// isWrong reports whether c, of which the upstream says info, is sure to be refused: it is unknown, or has
// a wrong number of arguments, or a subcommand that is unknown.
func isWrong(info *commandInfo, c *redisproto.Command) bool {
	return info == nil || !info.fits(c.ArgCount()) || info.subs != nil && c.ArgCount() > 1
}

const execAbort = "-EXECABORT Transaction discarded because of previous errors.\r\n"

// multiCommand is the MULTI that the proxy sends.
var multiCommand = &command{stats: &stats{}, kind: multi}

// transact sends a command of a transaction, or one that begins or ends one.
func (s *session) transact(q query) error {
	switch t := &s.txn; {
	case t.pending:
		return s.transactPending(q)
	case t.open != nil:
		return s.transactOpen(q)
	case q.cmd.kind == watch, t.watched != nil && q.c.ArgCount() != 1: // the node watches no more after an EXEC with arguments
		return s.watch(q)
	case q.c.ArgCount() != 1: // MULTI, EXEC and DISCARD have no arguments
		return s.sendTo(s.anyNode(), noSlot, q.cmd, q.c)
	case q.cmd.kind == multi && t.watched != nil:
		t.open, t.begun = t.watched, true
		return s.pass(t.open, q.cmd, q.c, "")
	case q.cmd.kind == multi:
		s.txn = transaction{pending: true, slot: noSlot}
		s.local(q.cmd, "+OK\r\n")
	default:
		s.local(q.cmd, "-ERR "+q.cmd.name+" without MULTI\r\n")
	}
	return nil
}

// watch sends WATCH, UNWATCH, or a command that changes what is watched, outside of MULTI.
func (s *session) watch(q query) error {
	t := &s.txn
	switch {
	case q.slot == crossSlot || q.slot >= 0 && t.watched != nil && q.slot != t.slot:
		s.local(q.cmd, crossSlotText)
		return nil
	case q.cmd.name == "UNWATCH" && t.watched == nil && q.c.ArgCount() == 1:
		s.local(q.cmd, "+OK\r\n")
		return nil
	}
	var err error
	switch {
	case t.watched != nil:
		err = s.pass(t.watched, q.cmd, q.c, "")
	case q.slot >= 0:
		err = s.sendToSlot(q.slot, q.cmd, q.c)
	default:
		return s.sendTo(s.anyNode(), noSlot, q.cmd, q.c)
	}
	if err == nil { // it may have been redirected, so where the keys are watched is to be known
		err = s.await(0)
	}
	if q.slot >= 0 {
		t.slot = q.slot
	}
	t.watched = s.ownWith(stateWatch)
	return err
}

// transactPending takes a command behind a MULTI whose node is not known yet.
func (s *session) transactPending(q query) error {
	t := &s.txn
	raw := q.c.Raw()
	switch {
	case (q.cmd.kind == multi || q.cmd.name == "WATCH") && !q.wrong():
		s.refuseNested(q)
	case q.cmd.kind == endMulti && q.c.ArgCount() == 1:
		return s.endPending(q)
	case q.slot == crossSlot:
		t.aborted = true
		s.local(q.cmd, crossSlotText)
	case s.untransactable(q):
		t.aborted = true
		s.local(q.cmd, refusalText(notInTransaction))
	case t.aborted && !q.wrong():
		s.local(q.cmd, "+QUEUED\r\n") // and not sent, since EXEC is to fail
	case q.keyless() && t.bytes+len(raw) > s.maxOutput:
		t.aborted = true
		s.local(q.cmd, "-ERR too much is queued before the first key of a transaction, see -output\r\n")
	case q.keyless():
		t.held = append(t.held, bytes.Clone(raw))
		t.bytes += len(raw)
		t.leaves = t.leaves || s.leavesForever(q.cmd, q.c)
		s.local(q.cmd, "+QUEUED\r\n")
	default:
		n := s.anyNode()
		if q.slot >= 0 {
			if n = s.routes.node(q.slot); n == nil {
				t.aborted = true
				s.local(q.cmd, notServed)
				return nil
			}
		}
		t.slot = q.slot
		t.doomed = q.wrong()
		if err := s.openTransaction(n); err != nil {
			return s.noOwn(multiCommand, err)
		}
		return s.transactOpen(q)
	}
	return nil
}

// untransactable reports whether a command cannot be part of a transaction: because it concerns all
// nodes, or because the replies of the node could not be told apart any more.
func (s *session) untransactable(q query) bool {
	return q.cmd.kind == subscribe || q.cmd.kind == monitor || q.cmd.kind == cursor || q.cmd.kind == wait ||
		q.info != nil && q.slot == noSlot && s.concernsAll(q.cmd, q.info)
}

// openTransaction sends a node the MULTI and what was queued behind it.
func (s *session) openTransaction(n *node) error {
	l, err := s.takeOwn(n)
	if err != nil {
		return err
	}
	s.writes(n)
	if s.txn.aborted { // whatever the node thinks of the commands to come, its EXEC is to fail
		s.txn.held = [][]byte{s.rules.stand(notInTransaction)}
	}
	s.give(l, &call{cmd: multiCommand}, appendCommand(nil, "MULTI"))
	for _, raw := range s.txn.held {
		s.give(l, dropped, raw)
	}
	s.txn.open, s.txn.begun, s.txn.pending, s.txn.held = l, true, false, nil
	return nil
}

// endPending takes EXEC or DISCARD of a transaction without any key.
func (s *session) endPending(q query) error {
	t := s.txn
	s.txn = transaction{}
	switch {
	case q.cmd.name == "DISCARD":
		s.local(q.cmd, "+OK\r\n")
	case t.aborted:
		s.local(q.cmd, execAbort)
	case len(t.held) == 0:
		s.local(q.cmd, "*0\r\n")
	default:
		s.txn = t
		if err := s.openTransaction(s.anyNode()); err != nil {
			return s.noOwn(multiCommand, err)
		}
		return s.transactOpen(q)
	}
	return nil
}

// transactOpen takes a command on the node of the transaction. One that is refused has a stand-in there,
// which aborts the transaction.
func (s *session) transactOpen(q query) error {
	t := &s.txn
	l := t.open
	switch {
	case t.doomed && (q.cmd.kind == multi || q.cmd.name == "WATCH") && !q.wrong():
		s.refuseNested(q)
		return nil
	case t.doomed && q.slot != crossSlot && q.cmd.kind != endMulti && !q.wrong():
		// The node could say MOVED, because it was chosen without a key. The transaction fails in any case, so
		// the command is not sent.
		s.local(q.cmd, "+QUEUED\r\n")
		return nil
	case q.slot == crossSlot || q.slot >= 0 && t.slot >= 0 && q.slot != t.slot:
		return s.pass(l, q.cmd, q.c, crossSlotName)
	case s.untransactable(q):
		return s.pass(l, q.cmd, q.c, notInTransaction)
	case q.slot >= 0 && t.slot < 0: // all before it had no keys, or were wrong
		t.slot = q.slot
	}
	if t.leaves || s.leavesForever(q.cmd, q.c) {
		l.set(stateForever, true)
	}
	err := s.pass(l, q.cmd, q.c, "")
	ends := q.cmd.kind == endMulti
	if ends && q.c.ArgCount() != 1 && err == nil { // an EXEC with arguments discards the transaction
		err = s.await(0)
		ends = l.state.Load()&stateMulti == 0
	}
	if ends {
		s.txn = transaction{}
	}
	return err
}

// refuseNested answers a MULTI, or a WATCH, within a transaction. That does not abort it.
func (s *session) refuseNested(q query) {
	if q.cmd.kind == multi {
		s.local(q.cmd, "-ERR MULTI calls can not be nested\r\n")
	} else {
		s.local(q.cmd, "-ERR WATCH inside MULTI is not allowed\r\n")
	}
}
