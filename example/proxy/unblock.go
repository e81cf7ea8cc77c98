package main

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/secmask/go-redisproto"
)

// unblock has the upstream end the commands of s that wait for others, again and again until the function
// that it returns is called. If the upstream refuses that, the links of the session are closed.
func (s *session) unblock() (stop func()) {
	done := make(chan struct{})
	go func() {
		for failed := 0; failed <= 3; {
			if _, err := s.unblockOnce("ERROR"); err != nil {
				failed++
			}
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
		s.closeOwns(errUnblocked)
	}()
	return sync.OnceFunc(func() { close(done) })
}

// unblockOnce has the upstream end what waits for others now, as CLIENT UNBLOCK does for this reason, and
// reports whether there was such.
func (s *session) unblockOnce(reason string) (unblocked bool, err error) {
	s.mu.Lock()
	owns := slices.Clone(s.owns)
	if s.blocked == 0 {
		owns = nil
	}
	s.mu.Unlock()
	for _, l := range owns {
		text, e := l.unblock(reason)
		if e != nil {
			err = e
		}
		unblocked = unblocked || text == "1"
	}
	return unblocked, err
}

// unblock ends what waits on l, over a connection of its own.
func (l *link) unblock(reason string) (reply string, err error) {
	if l.id == "" {
		return "", errors.New("the upstream has not told the number of a connection")
	}
	p := l.proxy
	ctx, cancel := context.WithTimeout(context.Background(), p.connectTimeout)
	defer cancel()
	conn, err := p.dialReady(ctx, l.node.addr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	replies, err := handshake(conn, p.connectTimeout, []string{"CLIENT", "UNBLOCK", l.id, reason})
	if err != nil {
		return "", err
	}
	return replies[0].text, replies[0].err
}

// sessionWith returns the session of the client that knows itself as id, or nil.
func (p *proxy) sessionWith(id int64) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.sessions {
		if s.id != id {
			continue
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.over {
			return s
		}
	}
	return nil
}

// answerUnblock answers CLIENT UNBLOCK. The upstream knows the clients by other numbers.
func (s *session) answerUnblock(c *redisproto.Command) string {
	reason := "TIMEOUT"
	if c.ArgCount() == 4 {
		reason = string(bytes.ToUpper(short(c.Get(3))))
	}
	id, ok := c.Int(2)
	switch {
	case reason != "TIMEOUT" && reason != "ERROR":
		return "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n"
	case !ok:
		return "-ERR value is not an integer or out of range\r\n"
	}
	if other := s.sessionWith(id); other != nil {
		unblocked, err := other.unblockOnce(reason)
		switch {
		case unblocked:
			return ":1\r\n"
		case err != nil:
			return awayText(err)
		}
	}
	return ":0\r\n"
}

// answerKill answers CLIENT KILL ID. The client itself is closed when it has the reply.
func (s *session) answerKill(cmd *command, c *redisproto.Command) error {
	id, ok := c.Int(3)
	switch other := s.sessionWith(id); {
	case !ok || id < 1:
		s.local(cmd, "-ERR client-id should be greater than 0\r\n")
	case other == nil:
		s.local(cmd, ":0\r\n")
	default:
		s.local(cmd, ":1\r\n")
		if other == s {
			return errQuit
		}
		other.abort()
	}
	return nil
}
