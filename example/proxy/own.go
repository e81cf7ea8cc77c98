package main

import (
	"bytes"
	"math"
	"strconv"
	"time"

	"github.com/secmask/go-redisproto"
)

// Without shared links, a session has one link of its own for all that its client does. Whatever the
// connection remembers is remembered as without the proxy.

// pass sends a command on a link of the session's own. A command that is refused has a stand-in there,
// so that its error comes in its place.
func (s *session) pass(l *link, cmd *command, c *redisproto.Command, refused string) error {
	raw := c.Raw()
	if refused != "" {
		raw = s.rules.stand(refused)
	}
	if s.txn.unmatched {
		cmd.calls.Add(1)
		if refused == "" && !c.Whole() {
			return s.passLargeCommand(l, nil, c)
		}
		return s.give(l, nil, raw)
	}
	if refused == "" && s.uncountable(cmd.kind, c) {
		s.txn.unmatched = true
		l.set(stateForever, true)
		if !c.Whole() {
			s.give(l, &call{cmd: cmd, endsMatching: true}, nil)
			return s.passLargeCommand(l, nil, c)
		}
		return s.give(l, &call{cmd: cmd, endsMatching: true}, raw)
	}
	k := s.begin(cmd, len(raw))
	k.channels = c.ArgCount() - 1
	s.observe(k, c)
	if cmd.blocking && cmd.waits(c) {
		s.blocks(k, cmd, c)
	}
	if refused == "" && !c.Whole() {
		return s.passLargeCommand(l, k, c)
	}
	if s.cluster != nil && !s.txn.begun && refused == "" && len(raw) <= maxWhole {
		k.own, k.raw = true, append(k.raw, raw...)
	}
	if err := s.give(l, k, raw); err != nil || cmd.kind == ordinary || !l.needsPassword {
		return err
	}
	return s.passLogin(cmd, l)
}

// observe notes what the slow log is to show of k, if it becomes slow.
func (s *session) observe(k *call, c *redisproto.Command) {
	if s.slow > 0 && !k.cmd.blocking {
		k.args = k.cmd.describe(c, s.slowValues)
	}
}

// passLogin waits for the reply to a command after which the client may have authenticated, or may have
// to do so again, since that changes how the next command is read.
func (s *session) passLogin(cmd *command, l *link) error {
	switch cmd.kind {
	case auth, hello, reset:
	default:
		return nil
	}
	if err := s.await(0); err != nil {
		return err
	}
	s.said.user = l.loggedIn.Load()
	s.holdToLimits(!s.said.user)
	return nil
}

// blocks notes that k, for a call of cmd, may wait for others.
func (s *session) blocks(k *call, cmd *command, c *redisproto.Command) {
	k.blocks = true
	until := time.Duration(math.MaxInt64)
	if most := cmd.waitsFor(c); most > 0 {
		until = time.Since(s.start) + most + timeoutSlack
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocked++; s.blocked == 1 || until > s.blockedUntil {
		s.blockedUntil = until
	}
}

const (
	timeoutSlack = time.Second      // a server ends what waits too long a little late, since it looks now and then
	maxTimeout   = 1000 * time.Hour // what is longer is taken for no limit
)

// waitsFor returns how long c, a call of cmd that waits for others, waits at most, or 0 if there is no
// limit, or none that the proxy knows of.
func (cmd *command) waitsFor(c *redisproto.Command) time.Duration {
	at, unit := c.ArgCount()-1, time.Second // as BLPOP has it
	switch cmd.name {
	case "BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX", "BLMOVE", "BRPOPLPUSH":
	case "BLMPOP", "BZMPOP":
		at = 1
	case "WAIT":
		at, unit = 2, time.Millisecond
	case "XREAD", "XREADGROUP":
		for at = 1; at < c.ArgCount() && !bytes.EqualFold(short(c.Get(at)), []byte("BLOCK")); at++ {
		}
		at, unit = at+1, time.Millisecond
	default:
		return 0
	}
	n, err := strconv.ParseFloat(string(short(c.Get(at))), 64)
	if err != nil || !(n > 0 && n < float64(maxTimeout/unit)) {
		return 0
	}
	return time.Duration(n * float64(unit))
}

// uncountable reports whether it cannot be known how many replies c has, or which ones follow. It is asked
// before it is known whether the upstream accepts c. A wrong true costs the latency measurement, and the
// error if the link is lost; a wrong false would give replies to the wrong calls.
func (s *session) uncountable(k kind, c *redisproto.Command) bool {
	if s.cluster != nil { // where transact says what is in a transaction, and subscribe what is too large
		return k == monitor && c.ArgCount() == 1
	}
	switch k {
	case multi:
		s.txn.begun = true
	case monitor:
		return true
	case client:
		return c.ArgCount() == 3 && bytes.EqualFold(c.Get(1), []byte("REPLY")) && (s.txn.begun || !bytes.EqualFold(c.Get(2), []byte("ON")))
	case subscribe:
		return s.txn.begun || !hasSmallConfirmations(c) // it may take effect only with EXEC; or its confirmations are large
	case hello:
		return s.txn.begun
	}
	return false
}
