package main

import (
	"log/slog"
	"strings"
	"time"

	"github.com/secmask/go-redisproto"
)

// A slowLog collects the slow commands whose replies came together.
type slowLog struct {
	took   time.Duration // the longest
	count  int
	args   []string // of the first of them
	client string
	waited bool // one of them waited for others, and the rest for that
}

func (l *slowLog) add(took time.Duration, c *call) {
	const most = 8
	l.took = max(l.took, took)
	l.waited = l.waited || c.cmd.blocking
	if c.session != nil {
		l.client = c.session.conn.RemoteAddr().String()
	}
	if l.count++; len(l.args) < most {
		l.args = append(l.args, c.args)
	}
}

func (l *slowLog) report(log *slog.Logger) {
	if l.count == 0 {
		return
	}
	switch {
	case l.waited:
	case l.count == 1:
		log.Warn("slow command", "client", l.client, "took", l.took, "command", l.args[0])
	default:
		log.Warn("slow commands, answered together", "client", l.client, "took", l.took, "count", l.count, "commands", strings.Join(l.args, " | "))
	}
	*l = slowLog{}
}

// describe gives a command as the slow log shows it: its name and its first key, or all arguments. A
// name that the upstream does not know is not shown either, since it may be a password out of place.
func (cmd *command) describe(c *redisproto.Command, values bool) string {
	const most = 128 // bytes
	if cmd.info == nil {
		return "(a command that the upstream does not describe)"
	}
	if cmd.secret {
		return cmd.name + " (redacted)"
	}
	if !values {
		info := cmd.info.of(c)
		positions, _ := info.keys(c, nil)
		if len(positions) == 0 {
			return info.name
		}
		key := c.Get(positions[0])
		return info.name + " " + string(key[:min(len(key), most)])
	}
	b := []byte(cmd.name)
	for i := 1; i < c.ArgCount(); i++ {
		arg := c.Get(i)
		b = append(append(b, ' '), arg[:min(len(arg), most)]...)
		if len(b) > most {
			return string(b[:most]) + "..."
		}
	}
	return string(b)
}
