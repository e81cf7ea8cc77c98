package main

import (
	"bytes"
	"crypto/rand"
	"expvar"
	"fmt"
	"maps"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// kind is what must be known of a command to tell which replies are its own.
type kind uint8

const (
	ordinary  kind = iota // one reply
	subscribe             // a confirmation for each channel, or an error
	hello                 // one reply; may change the protocol
	reset                 // one reply; forgets the subscriptions, and speaks RESP2 again
	leave                 // at most one reply, and then the upstream closes
	multi                 // one reply; the next commands are answered QUEUED
	client                // one reply, but for CLIENT REPLY
	monitor               // no telling where its replies end
	attack                // what a browser says: Redis hangs up without a word
	malformed             // no command at all; an error, and then the upstream closes
)

// special are the commands that are not ordinary.
var special = map[string]kind{
	"SUBSCRIBE": subscribe, "PSUBSCRIBE": subscribe, "SSUBSCRIBE": subscribe,
	"UNSUBSCRIBE": subscribe, "PUNSUBSCRIBE": subscribe, "SUNSUBSCRIBE": subscribe,
	"HELLO": hello, "RESET": reset, "QUIT": leave, "SHUTDOWN": leave,
	"MULTI": multi, "CLIENT": client, "MONITOR": monitor, "POST": attack, "HOST:": attack,
}

// secret are the commands whose arguments may hold passwords; none of them is logged.
var secret = map[string]bool{"AUTH": true, "HELLO": true, "ACL": true, "CONFIG": true, "MIGRATE": true}

// blocking are the commands that wait for others, and are not slow for that.
var blocking = map[string]bool{
	"BLPOP": true, "BRPOP": true, "BRPOPLPUSH": true, "BLMOVE": true, "BLMPOP": true,
	"BZPOPMIN": true, "BZPOPMAX": true, "BZMPOP": true, "XREAD": true, "XREADGROUP": true,
	"WAIT": true, "WAITAOF": true,
}

// A command is what is known and counted of all calls by one name.
type command struct {
	name     string // in upper case
	kind     kind
	denied   []byte // what is sent upstream in its place; nil if it may pass
	secret   bool
	blocking bool
	known    atomic.Bool // it is among the commands that are kept

	calls, errors atomic.Int64
	total, most   atomic.Int64     // nanoseconds
	slots         [24]atomic.Int64 // calls that took less than 1<<i microseconds, and half that or more
}

// answered counts a call that took so long.
func (c *command) answered(took time.Duration) {
	c.calls.Add(1)
	c.total.Add(int64(took))
	for most := c.most.Load(); int64(took) > most && !c.most.CompareAndSwap(most, int64(took)); {
		most = c.most.Load()
	}
	c.slots[min(bits.Len64(uint64(took.Microseconds())), len(c.slots)-1)].Add(1)
}

// within returns the microseconds within which a part of the calls were answered, as a power of two.
func (c *command) within(part float64) int64 {
	var sum, n int64
	for i := range c.slots {
		sum += c.slots[i].Load()
	}
	for i := range c.slots {
		if n += c.slots[i].Load(); float64(n) >= part*float64(sum) {
			return 1 << i
		}
	}
	return 1 << len(c.slots)
}

// commands are all that the upstream is known to know. They are looked up without a lock: the map is
// never changed, but replaced by one with another command in it.
type commands struct {
	byName atomic.Pointer[map[string]*command]
	adding sync.Mutex
	other  *command          // counts what is not counted apart
	token  string            // no client knows it; it is in the name sent for a denied command
	texts  map[string][]byte // by name in lower case: the error that a denied command gets
}

// Bounds of what clients can fill memory with, by inventing names.
const (
	maxName     = 64   // bytes in the name of a command that is counted apart
	maxCommands = 2000 // such names, whatever the upstream says to them
	maxNew      = 500  // those of one client that the upstream is not known to know
)

func (cs *commands) init() {
	random := make([]byte, 16)
	rand.Read(random)
	cs.token = fmt.Sprintf("DENIED-%x-", random)
	cs.texts = map[string][]byte{}
	cs.byName.Store(&map[string]*command{})
	for name := range special {
		cs.add(newCommand(name))
	}
	cs.other = cs.add(newCommand("(OTHER)"))
	// What follows these is no RESP; and a replica should not have a proxy between.
	cs.deny("SYNC,PSYNC")
}

func newCommand(name string) *command {
	return &command{name: name, kind: special[name], secret: secret[name], blocking: blocking[name]}
}

// add puts c among cs, unless there is one of that name or there are too many, and returns the one to
// count by.
func (cs *commands) add(c *command) *command {
	cs.adding.Lock()
	defer cs.adding.Unlock()
	old := *cs.byName.Load()
	if known := old[c.name]; known != nil {
		return known
	}
	if len(old) >= maxCommands {
		return cs.other
	}
	m := maps.Clone(old)
	m[c.name] = c
	c.known.Store(true)
	cs.byName.Store(&m)
	return c
}

// deny has the commands of a list refused, with commas between them.
//
// What goes upstream in place of such a command is a name that no server knows, and the error which
// comes back for it is replaced by the proxy's own. So the error is in its place whatever the
// connection is doing, a transaction is aborted by it (EXECABORT), and there is none where CLIENT
// REPLY says that there is to be none: in all of that, the upstream treats it as any other error.
func (cs *commands) deny(list string) error {
	for _, name := range strings.Split(list, ",") {
		name = strings.ToUpper(strings.TrimSpace(name))
		if name == "" {
			continue
		}
		if len(name) > maxName || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
			return fmt.Errorf("%q is no command's name", name)
		}
		c := cs.add(newCommand(name))
		lower := strings.ToLower(name)
		c.denied = fmt.Appendf(nil, "*1\r\n$%d\r\n%s%s\r\n", len(cs.token)+len(lower), cs.token, lower)
		cs.texts[lower] = fmt.Appendf(nil, "-ERR command '%s' is denied by the proxy\r\n", lower)
	}
	return nil
}

// denial returns the error to send in place of one that the upstream gave for a denied command, and
// nil for any other error.
func (cs *commands) denial(reply []byte) []byte {
	_, name, ok := bytes.Cut(reply, []byte(cs.token))
	if !ok {
		return nil
	}
	if i := bytes.IndexAny(name, "'`\", \r"); i >= 0 { // servers quote it in different ways
		name = name[:i]
	}
	return cs.texts[string(bytes.ToLower(name))]
}

var metrics = expvar.NewMap("proxy")

// publish makes the metrics of p those that expvar serves.
func (p *proxy) publish() {
	metrics.Set("clients", &p.clients)
	metrics.Set("clients_total", &p.accepted)
	metrics.Set("denied", &p.denied)
	metrics.Set("upstream_failures", &p.failures)
	metrics.Set("commands", expvar.Func(func() any {
		type stats struct {
			Calls  int64 `json:"calls"`
			Errors int64 `json:"errors"`
			Total  int64 `json:"usec"`
			Most   int64 `json:"usec_max"`
			P50    int64 `json:"usec_p50"` // an upper bound, as the next
			P99    int64 `json:"usec_p99"`
		}
		all := map[string]stats{}
		for name, c := range *p.commands.byName.Load() {
			if calls := c.calls.Load(); calls > 0 {
				all[strings.ToLower(name)] = stats{calls, c.errors.Load(), c.total.Load() / 1e3,
					c.most.Load() / 1e3, c.within(0.50), c.within(0.99)}
			}
		}
		return all
	}))
}
