package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/secmask/go-redisproto"
)

// kind is what must be known of a command to tell how many replies it has, and what it leaves behind
// on the connection that it is sent on.
type kind uint8

const (
	ordinary  kind = iota // one reply, and nothing left behind
	subscribe             // a confirmation for each channel, or one error
	hello                 // one reply; may change the protocol
	auth                  // one reply; may change the user
	reset                 // one reply; forgets all that the connection remembers
	quit                  // at most one reply, and then the upstream closes
	multi                 // one reply; the next commands are answered QUEUED
	endMulti              // one reply; ends a transaction, as DISCARD does
	watch                 // one reply; lasts until EXEC, DISCARD or UNWATCH
	client                // one reply, but for CLIENT REPLY; some subcommands leave something behind
	selectDB              // one reply; the connection is in another database then
	monitor               // it cannot be told where its replies end
	wait                  // one reply, about the commands that this connection has sent before
	cursor                // SCAN: one reply, with a cursor that says where to go on
	ofCluster             // one reply; not possible with a server without cluster mode
	attack                // what a browser says; Redis closes without a word
	malformed             // no command at all: an error, and then the upstream closes
)

// special are the commands that are not ordinary.
var special = map[string]kind{
	"SUBSCRIBE": subscribe, "PSUBSCRIBE": subscribe, "SSUBSCRIBE": subscribe,
	"UNSUBSCRIBE": subscribe, "PUNSUBSCRIBE": subscribe, "SUNSUBSCRIBE": subscribe,
	"HELLO": hello, "AUTH": auth, "RESET": reset, "QUIT": quit, "SHUTDOWN": quit,
	"MULTI": multi, "EXEC": endMulti, "DISCARD": endMulti, "WATCH": watch, "UNWATCH": watch,
	"CLIENT": client, "SELECT": selectDB, "MONITOR": monitor, "WAIT": wait, "WAITAOF": wait, "SCAN": cursor,
	"CLUSTER": ofCluster, "ASKING": ofCluster, "READONLY": ofCluster, "READWRITE": ofCluster,
	"POST": attack, "HOST:": attack,
}

// secret are the commands whose arguments may hold passwords. None of them is logged.
var secret = map[string]bool{"AUTH": true, "HELLO": true, "ACL": true, "CONFIG": true, "MIGRATE": true}

// blocking are the commands that wait for others. The upstream's table has most of them too; they are
// written down because an upstream that demands a password does not show its table.
var blocking = map[string]bool{
	"BLPOP": true, "BRPOP": true, "BRPOPLPUSH": true, "BLMOVE": true, "BLMPOP": true,
	"BZPOPMIN": true, "BZPOPMAX": true, "BZMPOP": true, "XREAD": true, "XREADGROUP": true,
	"WAIT": true, "WAITAOF": true,
}

// alone are the commands that the table says scripts may not call, and that leave nothing behind on
// the connection all the same. Any other such command, of a module or renamed, may do anything there.
var alone = []string{"EVAL", "EVAL_RO", "EVALSHA", "EVALSHA_RO", "FCALL", "FCALL_RO", "BGSAVE", "BGREWRITEAOF",
	"SAVE", "ROLE", "REPLICAOF", "SLAVEOF", "FAILOVER"}

// A command is what is known of all calls by one name. It does not change, but for what its stats count.
type command struct {
	*stats
	name     string       // in upper case
	info     *commandInfo // what the upstream says of it, or nil
	kind     kind
	secret   bool
	blocking bool // it may wait for others; see waits
	sticky   bool // nobody knows what it leaves behind on a connection

	container bool   // it has subcommands
	refused   string // if all of it is refused: the name in the error
}

// waits reports whether c, a call of cmd, waits for others if there is nothing for it yet.
func (cmd *command) waits(c *redisproto.Command) bool {
	if !cmd.blocking || cmd.name != "XREAD" && cmd.name != "XREADGROUP" {
		return cmd.blocking
	}
	for i := 1; i < c.ArgCount(); i++ {
		if arg := c.Get(i); len(arg) == len("BLOCK") && bytes.EqualFold(arg, []byte("BLOCK")) {
			return true
		} else if len(arg) == len("STREAMS") && bytes.EqualFold(arg, []byte("STREAMS")) {
			return false
		}
	}
	return false
}

// A vocabulary has all commands that have a record of their own: those of the upstream's table, and
// those that the proxy itself must know. A name that only a client has invented gets the record of
// all such names. It does not change once it is made.
type vocabulary struct {
	byName map[string]*command
	table  *table // nil until the upstream has shown it
	other  *command
}

// newVocabulary makes a vocabulary of a table, which may be nil, and of the commands that rules name. The
// counts of old, which may be nil too, go on.
func newVocabulary(t *table, r *rules, old *vocabulary) *vocabulary {
	v := &vocabulary{byName: map[string]*command{}, table: t}
	add := func(name string, info *commandInfo) *command {
		cmd := &command{name: name, info: info, kind: special[name], secret: secret[name], blocking: blocking[name]}
		if info != nil {
			cmd.blocking = cmd.blocking || info.has(flagBlocking)
			cmd.sticky = info.has(flagNoscript) && cmd.kind == ordinary && !cmd.blocking && !slices.Contains(alone, name)
		}
		cmd.container = cmd.kind == client || info != nil && info.subs != nil || r.containers[name]
		if r.deny[name] || r.allow != nil && !r.allow[name] && !cmd.container {
			cmd.refused = r.named(cmd)
		}
		if old != nil && old.byName[name] != nil {
			cmd.stats = old.byName[name].stats
		} else {
			cmd.stats = &stats{}
		}
		return cmd
	}
	for name := range special {
		v.byName[name] = add(name, nil)
	}
	for name := range blocking {
		v.byName[name] = add(name, nil)
	}
	for _, names := range []map[string]bool{r.deny, r.allow} {
		for name := range names {
			name, _, _ = strings.Cut(name, "|")
			v.byName[name] = add(name, nil)
		}
	}
	if t != nil {
		for name, info := range t.commands {
			v.byName[name] = add(name, info)
		}
	}
	v.other = add("", nil)
	if old != nil {
		v.other.stats = old.other.stats
	}
	return v
}

// find returns the record of a name in upper case.
func (v *vocabulary) find(name []byte) *command {
	if cmd := v.byName[string(name)]; cmd != nil {
		return cmd
	}
	return v.other
}

// all returns the records in the order of their names, the one for invented names first.
func (v *vocabulary) all() []*command {
	list := []*command{v.other}
	for _, name := range slices.Sorted(maps.Keys(v.byName)) {
		list = append(list, v.byName[name])
	}
	return list
}

// Rules say which commands are refused.
type rules struct {
	deny, allow map[string]bool // names in upper case, "CONFIG|SET" for a subcommand; a nil allow allows all
	containers  map[string]bool // the commands of which these name subcommands
	token       string          // no client knows it; it is in the name that is sent for a refused command
	refused     atomic.Int64
}

// Replication is always refused: what follows these commands is no RESP, and a replica should not
// have a proxy between itself and its master.
var neverPassed = []string{"SYNC", "PSYNC"}

// Without these no client could begin or end, so -allow need not name them.
var alwaysAllowed = []string{"AUTH", "HELLO", "QUIT", "RESET"}

// parseRules makes rules of the lists that -deny and -allow give.
func parseRules(deny, allow string) (*rules, error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	r := &rules{token: fmt.Sprintf("DENIED-%x-", random)}
	var err error
	if r.deny, err = parseNames(deny); err != nil {
		return nil, fmt.Errorf("-deny: %w", err)
	}
	for _, name := range neverPassed {
		r.deny[name] = true
	}
	r.findContainers()
	if allow == "" {
		return r, nil
	}
	if r.allow, err = parseNames(allow); err != nil {
		return nil, fmt.Errorf("-allow: %w", err)
	}
	for _, name := range alwaysAllowed {
		r.allow[name] = true
	}
	r.findContainers()
	return r, nil
}

// findContainers notes which commands are named with a subcommand.
func (r *rules) findContainers() {
	r.containers = map[string]bool{}
	for _, names := range []map[string]bool{r.deny, r.allow} {
		for name := range names {
			if container, _, ok := strings.Cut(name, "|"); ok {
				r.containers[container] = true
			}
		}
	}
}

// parseNames parses a list of commands with commas between.
func parseNames(list string) (map[string]bool, error) {
	names := map[string]bool{}
	for _, name := range strings.Split(list, ",") {
		name = strings.ToUpper(strings.TrimSpace(name))
		if name == "" && list == "" {
			continue
		}
		if name == "" || len(name) > 64 || strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-|") != "" {
			return nil, fmt.Errorf("%q is no command's name", name)
		}
		names[name] = true
	}
	return names, nil
}

// check returns an error if a name of the rules is none that the upstream knows.
func (r *rules) check(t *table) error {
	for flagName, names := range map[string]map[string]bool{"-deny": r.deny, "-allow": r.allow} {
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if t.named(name) == nil && special[name] == ordinary && !slices.Contains(neverPassed, name) {
				return fmt.Errorf("%s: the upstream has no command %q", flagName, strings.ToLower(name))
			}
		}
	}
	return nil
}

// refusal says why a command is refused: the name in the error that the client gets. It is "" for a
// command that may pass.
//
// A name is judged as the upstream judges it. Redis 7.0 compares names only up to a NUL, so that
// "FLUSHALL\x00285" can run FLUSHALL, and the same goes for the names of subcommands. No command has
// a name with such bytes, so all of them are refused.
func (r *rules) refusal(cmd *command, c *redisproto.Command) string {
	if cmd.name == "" && hasControl(c.Get(0)) || cmd.container && hasControl(c.Get(1)) {
		return "with a control character in its name"
	}
	if c.Get(0) == nil || cmd.container && c.ArgCount() > 1 && c.Get(1) == nil { // it cannot be judged
		return "with so long a name"
	}
	if cmd.refused != "" || !cmd.container {
		return cmd.refused
	}
	sub := cmd.name + "|" + string(bytes.ToUpper(short(c.Get(1))))
	switch {
	case r.deny[sub], r.allow[sub]:
	case r.allow == nil || r.allow[cmd.name]:
		return ""
	case cmd.info == nil || cmd.info.subs[sub[len(cmd.name)+1:]] == nil: // an invented one is not shown
		return r.named(cmd)
	}
	if r.allow[sub] && !r.deny[sub] {
		return ""
	}
	return strings.ToLower(sub)
}

// named is the name of cmd as an error shows it.
func (r *rules) named(cmd *command) string {
	if cmd.name == "" {
		return "of this name"
	}
	return strings.ToLower(cmd.name)
}

func hasControl(name []byte) bool {
	for _, ch := range name {
		if ch < 0x20 {
			return true
		}
	}
	return false
}

// refusalText is the error that a client gets for a refused command.
func refusalText(name string) string {
	switch name {
	case notInTransaction:
		return "-ERR this is not possible in a transaction behind the proxy\r\n"
	case crossSlotName:
		return crossSlotText
	}
	if strings.Contains(name, " ") {
		return "-ERR a command " + name + " is denied by the proxy\r\n"
	}
	return "-ERR command '" + name + "' is denied by the proxy\r\n"
}

// stand returns what goes upstream in place of a refused command on a link that only its client
// uses: a name that no server knows. The error that comes back for it is replaced by the proxy's own.
// So the error is in its place whatever the connection is doing, a transaction is aborted by it, and
// there is none where CLIENT REPLY says that there is to be none.
func (r *rules) stand(name string) []byte {
	name = r.token + strings.ReplaceAll(name, " ", "+")
	return fmt.Appendf(nil, "*1\r\n$%d\r\n%s\r\n", len(name), name)
}

// restore returns the error to send in place of one that the upstream gave for what stand returned,
// and nil for any other error.
func (r *rules) restore(reply []byte) []byte {
	_, name, ok := bytes.Cut(reply, []byte(r.token))
	if !ok {
		return nil
	}
	if i := bytes.IndexAny(name, "'`\", \r"); i >= 0 { // servers quote a name in different ways
		name = name[:i]
	}
	return []byte(refusalText(strings.ReplaceAll(string(name), "+", " ")))
}
