package redisproto

import (
	"cmp"
	"math"
)

// The defaults of [Limits]: what a field that is 0 means. They are read by NewParser, NewReplyParser,
// Reset and SetLimits. Set them before the first parser is made.
var (
	MaxNumArg     = math.MaxInt32 // arguments in a command, as in Redis
	MaxBulkSize   = 512 << 20     // bytes in an argument: Redis's proto-max-bulk-len
	MaxTelnetLine = maxLine       // bytes in the line of an inline command, without its LF
)

const (
	maxLine      = 64 << 10          // bytes of a header line without its end, as in Redis
	maxTotal     = 1 << 30           // bytes in a command: Redis's client-query-buffer-limit
	maxWhole     = math.MaxInt32 - 1 // bytes of what is returned whole: one more is still an int32
	defaultDepth = 128               // aggregates within each other in a reply

	unauthenticatedArgs = 10       // Redis's limits for a client before AUTH
	unauthenticatedBulk = 16 << 10 // bytes
)

// Limits bound what a peer may send. A limit is checked when a length is read, before any memory is
// taken for it.
//
// In each field 0 means the default. A value that is too large for the package, such as
// math.MaxInt, means as much as the package can: 2 GiB less a little. A negative Args, Bulk or Depth
// refuses everything that has one, a negative Inline refuses inline commands, a negative Total
// refuses all but single bytes, and a negative Stream is the same as 0.
type Limits struct {
	// Args bounds the arguments of a command, and the elements of a reply: nested ones, attributes
	// and their elements are counted too. The default is MaxNumArg.
	Args int

	// Bulk bounds the bytes of one argument of a multibulk command, and those of one string or line
	// of a reply. The default is MaxBulkSize. With Stream it may be up to math.MaxInt64.
	Bulk int

	// Inline bounds the bytes of an inline command, its LF not counted. The default is MaxTelnetLine.
	Inline int

	// Total bounds the bytes of a command or a reply as it is on the wire. With Stream it bounds
	// only what is held of it. The default is 1 GiB.
	Total int

	// Depth bounds how deep the aggregates of a reply may be nested. The default is 128.
	Depth int

	// Stream, if it is positive, has commands and replies returned before they are whole, as soon as
	// more than Stream bytes of them would have to be held. See [Command.Whole] and [Reply.Whole].
	// A command that declares very many arguments is returned when its first ones have arrived, as far
	// as they can be held: 16, or one for each 4 KiB of Stream if those are fewer. Inline commands are
	// always held, and Parse never streams.
	Stream int

	// Unauthenticated holds a multibulk command to 10 arguments of 16 KiB each, as Redis does with
	// a client that has not authenticated itself yet where a password is required. The errors are
	// Redis's own for this case.
	Unauthenticated bool
}

// bounds are Limits with the defaults applied. maxArgs and maxBulk take Unauthenticated into account.
type bounds struct {
	Limits
	maxArgs, maxBulk int
}

// bounds returns the bounds that l stands for.
func (l Limits) bounds() bounds {
	l.Args = max(-1, min(cmp.Or(l.Args, MaxNumArg), math.MaxInt32))
	l.Bulk = cmp.Or(l.Bulk, MaxBulkSize)
	l.Total = max(1, min(cmp.Or(l.Total, maxTotal), maxWhole))
	l.Inline = min(cmp.Or(l.Inline, MaxTelnetLine), l.Total)
	l.Depth = cmp.Or(l.Depth, defaultDepth)
	if l.Stream > 0 {
		l.Stream = min(l.Stream, l.Total)
		l.Total = maxWhole // what would go over the real Total is streamed
	} else {
		l.Bulk = min(l.Bulk, maxWhole)
	}
	b := bounds{Limits: l, maxArgs: l.Args, maxBulk: l.Bulk}
	if l.Unauthenticated {
		b.maxArgs, b.maxBulk = min(l.Args, unauthenticatedArgs), min(l.Bulk, unauthenticatedBulk)
	}
	return b
}

// bufferLimit returns how large a buffer may become under b. One byte more than a command or a reply
// may have tells that it is too big.
func (b *bounds) bufferLimit() int {
	if b.Stream > 0 {
		return min(b.Stream+max(b.Inline, maxLine), maxWhole-maxHome) + maxHome
	}
	return b.Total + 1
}
