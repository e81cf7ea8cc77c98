package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/secmask/go-redisproto"
)

// A table holds what the upstream's own COMMAND says of its commands. It does not change once it is
// made, so any number of goroutines may read it.
type table struct {
	commands map[string]*commandInfo // by their names in upper case
}

// A commandInfo is what is known of one command, or of one subcommand.
type commandInfo struct {
	name     string // in upper case; "CONFIG|SET" for a subcommand
	arity    int    // the number of arguments, the name included; -n means n or more
	flags    flags
	request  requestPolicy
	response responsePolicy

	onlyKey  int  // the position of the command's only key if that is always the same one, else 0
	channels bool // keys returns shard channels: they have a slot as keys have, but name no key
	exact    bool // keys finds every key; the server does not describe the keys of some commands of modules

	specs []keySpec
	rule  keyRule
	subs  map[string]*commandInfo // the subcommands, by their own names in upper case
}

// flags are those flags of COMMAND that matter to a proxy.
type flags uint16

const (
	flagWrite flags = 1 << iota
	flagReadonly
	flagBlocking
	flagPubsub
	flagNoscript
	flagMovableKeys
	flagAdmin
	flagNoMulti
	flagNoAuth
)

var flagNames = map[string]flags{
	"write":       flagWrite,
	"readonly":    flagReadonly,
	"blocking":    flagBlocking,
	"pubsub":      flagPubsub,
	"noscript":    flagNoscript,
	"movablekeys": flagMovableKeys,
	"admin":       flagAdmin,
	"no_multi":    flagNoMulti,
	"no_auth":     flagNoAuth,
}

// A requestPolicy says which nodes of a cluster a command is for.
type requestPolicy uint8

const (
	oneNode       requestPolicy = iota // the node of its keys, or any one if it has none
	allNodes                           // every node, replicas too
	allShards                          // every master
	multiShard                         // the nodes of its keys: the command may be split
	specialPolicy                      // something else, as for SCAN
)

var requestPolicies = map[string]requestPolicy{
	"all_nodes":   allNodes,
	"all_shards":  allShards,
	"multi_shard": multiShard,
	"special":     specialPolicy,
}

// A responsePolicy says how the replies of several nodes become one.
type responsePolicy uint8

const (
	joined       responsePolicy = iota // arrays are joined; for a command with keys in the order of its keys
	allSucceeded                       // an error if there is one, else the first reply
	oneSucceeded                       // the first reply that is no error, else the first error
	aggSum                             // integers, or integers at the same place of arrays, are added
	aggMin
	aggMax
	logicalAnd
	logicalOr
	specialResponse // no general rule
)

var responsePolicies = map[string]responsePolicy{
	"all_succeeded":   allSucceeded,
	"one_succeeded":   oneSucceeded,
	"agg_sum":         aggSum,
	"agg_min":         aggMin,
	"agg_max":         aggMax,
	"agg_logical_and": logicalAnd,
	"agg_logical_or":  logicalOr,
	"special":         specialResponse,
}

// maxCommandName is how many bytes a name or the name of a subcommand has at most. What is longer is not
// looked up. The longest of Redis 7.0 has 20.
const maxCommandName = 64

// lookup returns what is known of a command, or nil if the server does not have it. For a
// subcommand that the server does not have it returns the command itself, so that it can be sent on
// and the server says what is wrong. It does not allocate.
func (t *table) lookup(c *redisproto.Command) *commandInfo {
	return findUpper(t.commands, c.Get(0)).of(c)
}

// of returns what is known of the subcommand that c calls, and i itself if the server does not have it.
func (i *commandInfo) of(c *redisproto.Command) *commandInfo {
	if i == nil || i.subs == nil {
		return i
	}
	if sub := findUpper(i.subs, c.Get(1)); sub != nil {
		return sub
	}
	return i
}

// named returns what is known of a command by its name in any case, with "|" between the names of
// a command and its subcommand, or nil if the server does not have exactly that.
func (t *table) named(name string) *commandInfo {
	name, sub, isSub := strings.Cut(name, "|")
	info := findUpper(t.commands, []byte(name))
	if info == nil || !isSub {
		return info
	}
	return findUpper(info.subs, []byte(sub))
}

// findUpper returns the entry of m that has this name in upper case.
func findUpper(m map[string]*commandInfo, name []byte) *commandInfo {
	var upper [maxCommandName]byte
	if len(name) > maxCommandName {
		return nil
	}
	for i, b := range name {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		upper[i] = b
	}
	return m[string(upper[:len(name)])]
}

// has reports whether the command has all the flags of f.
func (i *commandInfo) has(f flags) bool { return i.flags&f == f }

// fits reports whether a command of argc arguments may be right. The server refuses any other
// before it looks at the keys.
func (i *commandInfo) fits(argc int) bool {
	if i.arity < 0 {
		return argc >= -i.arity
	}
	return argc == i.arity
}

// parseTable reads the reply to COMMAND, of RESP2 or RESP3.
func parseTable(r redisproto.Reply) (*table, error) {
	if err := r.Err(); err != nil {
		return nil, fmt.Errorf("COMMAND: %w", err)
	}
	commands, err := parseEntries(r, "")
	if err == nil && len(commands) == 0 {
		err = errors.New("the reply lists no command")
	}
	if err != nil {
		return nil, fmt.Errorf("COMMAND: %w", err)
	}
	return &table{commands}, nil
}

// parseEntries reads a list of commands, or the subcommands of the command that parent names.
func parseEntries(list redisproto.Reply, parent string) (map[string]*commandInfo, error) {
	entries := make(map[string]*commandInfo, list.Len())
	for entry := range list.All() {
		info, err := parseEntry(entry)
		if err != nil {
			return nil, err
		}
		name := info.name
		if parent != "" { // the server calls it "config|set"
			name = strings.TrimPrefix(name, parent+"|")
			info.name = parent + "|" + name
		}
		entries[name] = info
	}
	return entries, nil
}

// parseEntry reads the description of one command. Servers before Redis 7.0 end it after the flags
// of its access rights: then the key specification is made of the positions of the first and the
// last key.
func parseEntry(entry redisproto.Reply) (*commandInfo, error) {
	info := &commandInfo{exact: true}
	var legacy keySpec
	var err error
	n := 0
	for field := range entry.All() {
		switch n {
		case 0:
			info.name = strings.ToUpper(string(field.Bytes()))
		case 1:
			info.arity, err = intOf(field)
		case 2:
			for flag := range field.All() {
				info.flags |= flagNames[string(flag.Bytes())]
			}
		case 3:
			legacy.index, err = intOf(field)
		case 4:
			legacy.last, err = intOf(field)
		case 5:
			legacy.step, err = intOf(field)
		case 7:
			parseTips(info, field)
		case 8:
			info.specs, err = parseKeySpecs(field)
		case 9:
			if field.Len() > 0 {
				info.subs, err = parseEntries(field, info.name)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("field %d of %q: %w", n, info.name, err)
		}
		n++
	}
	if n < 6 || info.name == "" || len(info.name) > 2*maxCommandName {
		return nil, fmt.Errorf("the entry of %q is not one of a command", info.name)
	}
	if n < 9 && legacy.index > 0 {
		if legacy.last >= 0 {
			legacy.last -= legacy.index
		}
		info.specs = []keySpec{legacy}
	}
	info.settleKeys(n < 9)
	return info, nil
}

// parseTips reads the policies among a command's tips.
func parseTips(info *commandInfo, tips redisproto.Reply) {
	for tip := range tips.All() {
		key, value, _ := strings.Cut(string(tip.Bytes()), ":")
		switch key {
		case "request_policy":
			info.request = requestPolicies[value]
		case "response_policy":
			info.response = responsePolicies[value]
		}
	}
}

// settleKeys sets what follows from the key specifications. noSpecs says that the server gives none,
// since it is older than they are.
func (i *commandInfo) settleKeys(noSpecs bool) {
	if i.rule = keyRules[i.name]; i.rule != bySpecs {
		return
	}
	i.exact = !(noSpecs && i.has(flagMovableKeys))
	for _, s := range i.specs {
		i.channels = i.channels || s.channel
		i.exact = i.exact && !s.incomplete
	}
	if len(i.specs) == 1 && i.exact && !i.channels {
		if s := i.specs[0]; s.keyword == "" && !s.counted && s.last == 0 {
			i.onlyKey = s.index
		}
	}
}

// intOf returns the value of an integer as an int.
func intOf(r redisproto.Reply) (int, error) {
	n, err := r.Int()
	if err == nil && int64(int32(n)) != n {
		err = fmt.Errorf("%d is out of range", n)
	}
	return int(n), err
}
