package redisproto

import (
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// A row is a stream of requests, what it holds and how it ends.
type row struct {
	name string
	in   string
	want [][]string
	err  error  // io.EOF if nil; otherwise the kind of error
	at   int64  // Offset of a protocol error
	text string // its text, where that is not the kind's
	lim  Limits
}

func (r *row) end() error {
	if r.err == nil {
		return io.EOF
	}
	return r.err
}

type batch = [][]string

// wire gives commands as clients send them.
func wire(cmds ...[]string) string {
	var b strings.Builder
	for _, c := range cmds {
		b.WriteString(request(c...))
	}
	return b.String()
}

// numbered gives a command of n arguments.
func numbered(n int) []string {
	c := make([]string, n)
	for i := range c {
		c[i] = strings.Repeat("x", i%13)
	}
	return c
}

// sizeRows has lengths and counts around each place where the parser takes another path.
func sizeRows() (rows []row) {
	for _, n := range []int{0, 1, 9, 10, 11, 99, 100, 101, 999, 1000, 1001, 4 << 10, 40 << 10} {
		set := []string{"SET", "k", strings.Repeat("v", n)}
		in := batch{set, {"PING"}, set}
		rows = append(rows, row{name: fmt.Sprintf("bulk of %d", n), in: wire(in...), want: in})
	}
	for _, n := range []int{1, 2, 8, 9, 10, 11, 99, 100, 101, 1500} {
		in := batch{numbered(n), {"PING"}, numbered(n)}
		rows = append(rows, row{name: fmt.Sprintf("%d arguments", n), in: wire(in...), want: in})
	}
	return rows
}

var goodRows = []row{
	{name: "nothing", in: ""},
	{name: "PING", in: "*1\r\n$4\r\nPING\r\n", want: batch{{"PING"}}},
	{name: "SET", in: "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nhello\r\n", want: batch{{"SET", "k", "hello"}}},
	{name: "empty arguments", in: "*3\r\n$0\r\n\r\n$0\r\n\r\n$0\r\n\r\n", want: batch{{"", "", ""}}},
	{name: "payload of CR LF", in: "*2\r\n$2\r\n\r\n\r\n$4\r\n\r\n\r\n\r\n", want: batch{{"\r\n", "\r\n\r\n"}}},
	{name: "payload that looks like a request", in: "*1\r\n$14\r\n*1\r\n$4\r\nPING\r\n\r\n", want: batch{{"*1\r\n$4\r\nPING\r\n"}}},
	{name: "every byte in a payload", in: wire([]string{allBytes()}), want: batch{{allBytes()}}},
	{name: "multibulk pipeline", in: wire(batch{{"A"}, {"B", "1"}, {"C", "1", "2"}}...), want: batch{{"A"}, {"B", "1"}, {"C", "1", "2"}}},

	{name: "inline", in: "PING\r\n", want: batch{{"PING"}}},
	{name: "inline, LF alone", in: "PING\n", want: batch{{"PING"}}},
	{name: "inline arguments", in: "SET k hello\r\n", want: batch{{"SET", "k", "hello"}}},
	{name: "inline blanks", in: " \t\v\f\rSET \t k\t\rv \r\n", want: batch{{"SET", "k", "v"}}},
	{name: "VT and FF in a word", in: "ECHO a\vb\fc\n", want: batch{{"ECHO", "a\vb\fc"}}},
	{name: "VT before a word", in: "ECHO \vhi\nPING\v\n", want: batch{{"ECHO", "hi"}, {"PING\v"}}},
	{name: "high bytes are no blanks", in: "a\x85b \xa0\xff\n", want: batch{{"a\x85b", "\xa0\xff"}}},
	{name: "one CR is removed", in: "a\r\r\n", want: batch{{"a"}}},
	{name: "inline pipeline", in: "PING\r\nSET k v\nGET k\r\n", want: batch{{"PING"}, {"SET", "k", "v"}, {"GET", "k"}}},
	{name: "reply types are words", in: "+PING\r\n:1\r\n$4\r\n-x y\r\n", want: batch{{"+PING"}, {":1"}, {"$4"}, {"-x", "y"}}},
	{name: "a blank before *", in: " *1\r\n\r*1\r\n", want: batch{{"*1"}, {"*1"}}},
	{name: "a backslash outside quotes", in: "a\\n \\x41 \\\n", want: batch{{"a\\n", "\\x41", "\\"}}},

	{name: "double quotes", in: `SET k "hello world"` + "\r\n", want: batch{{"SET", "k", "hello world"}}},
	{name: "escapes", in: `"\n\r\t\b\a\"\\\q\0\v\'"` + "\n", want: batch{{"\n\r\t\b\a\"\\q0v'"}}},
	{name: "hex escapes", in: `"\x41\xfF\x00\x0d\x0A"` + "\n", want: batch{{"A\xff\x00\r\n"}}},
	{name: "no hex escapes", in: `"\X41" "\x4z" "\xz4" "\x4" "\x" "\u0041"` + "\n", want: batch{{"X41", "x4z", "xz4", "x4", "x", "u0041"}}},
	{name: "hex escape then hex", in: `"\x4141"` + "\n", want: batch{{"A41"}}},
	{name: "single quotes", in: `'it\'s' '\n' 'a\b' '"'` + "\r\n", want: batch{{"it's", `\n`, `a\b`, `"`}}},
	{name: "two backslashes in single quotes", in: `'a\\b'` + "\n", want: batch{{`a\\b`}}},
	{name: "empty quotes", in: "\"\" ''\n\"\"\n", want: batch{{"", ""}, {""}}},
	{name: "quotes behind a word", in: `P"ING" a"b c" x'y z'` + "\n", want: batch{{"PING", "ab c", "xy z"}}},
	{name: "VT and FF behind a quote", in: "\"a\"\vb 'c'\fd\n", want: batch{{"a", "b", "c", "d"}}},
	{name: "CR behind a quote", in: "\"a\"\r\r\n", want: batch{{"a"}}},
	{name: "quotes, then none", in: "SET a \"1 2\"\nSET b 3\nSET \"c\" 4\n", want: batch{{"SET", "a", "1 2"}, {"SET", "b", "3"}, {"SET", "c", "4"}}},

	{name: "quotes, then multibulks", in: "A 'b c'\nA 'b c'\n" + wire(batch{{"D"}, {"E", "f"}, {"G"}}...), want: batch{{"A", "b c"}, {"A", "b c"}, {"D"}, {"E", "f"}, {"G"}}},
	{name: "multibulks, then quotes, then multibulks", in: wire(batch{{"D"}, {"E"}}...) + "A 'b'\n" + wire(batch{{"D"}, {"E"}}...), want: batch{{"D"}, {"E"}, {"A", "b"}, {"D"}, {"E"}}},

	{name: "empty multibulks", in: "*0\r\n*-1\r\n*-5\r\n*-9223372036854775808\r\n" + wire([]string{"PING"}) + "*0\r\n", want: batch{{"PING"}}},
	{name: "blank lines", in: "\r\n\n\n \t\r\n\v\nPING\n\r\n", want: batch{{"PING"}}},
	{name: "only empties", in: "\n*0\r\n\r\n*-1\r\n"},
	{name: "mixed", in: "PING\r\n*1\r\n$1\r\na\r\n\n\"b\"\n*2\r\n$1\r\nc\r\n$1\r\nd\r\ne\n", want: batch{{"PING"}, {"a"}, {"b"}, {"c", "d"}, {"e"}}},
	{name: "an inline line of 64 KiB", in: strings.Repeat("x", 65535) + "\r\nPING\n", want: batch{{strings.Repeat("x", 65535)}, {"PING"}}},

	{name: "ends in a count", in: "PING\n*1", want: batch{{"PING"}}, err: io.ErrUnexpectedEOF},
	{name: "ends in a header", in: "*1\r\n$4\r", err: io.ErrUnexpectedEOF},
	{name: "ends in a payload", in: "*1\r\n$4\r\nPIN", err: io.ErrUnexpectedEOF},
	{name: "ends before the final LF", in: "*1\r\n$4\r\nPING\r", err: io.ErrUnexpectedEOF},
	{name: "ends between arguments", in: "*2\r\n$4\r\nPING\r\n", err: io.ErrUnexpectedEOF},
	{name: "ends in a line", in: "PING\r", err: io.ErrUnexpectedEOF},
	{name: "ends in a blank line", in: "\r\n\r", err: io.ErrUnexpectedEOF},
	{name: "wrong, but the line is not whole", in: "*1\r\nPING\nPING\n", err: io.ErrUnexpectedEOF},
	{name: "wrong, but the byte behind CR is not there", in: "*1x\r", err: io.ErrUnexpectedEOF},
	{name: "the most arguments", in: "*2147483647\r\n", err: io.ErrUnexpectedEOF},
	{name: "the longest argument", in: "*1\r\n$536870912\r\nabc", err: io.ErrUnexpectedEOF},
}

func allBytes() string {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return string(b)
}

var badRows = []row{
	{name: "count is empty", in: "*\r\n", err: ErrMultibulkLength},
	{name: "count is no number", in: "PING\n*x\r\n", want: batch{{"PING"}}, err: ErrMultibulkLength, at: 5},
	{name: "count +1", in: "*+1\r\n", err: ErrMultibulkLength},
	{name: "count -0", in: "*-0\r\n", err: ErrMultibulkLength},
	{name: "count -", in: "*-\r\n", err: ErrMultibulkLength},
	{name: "count 01", in: "*01\r\n", err: ErrMultibulkLength},
	{name: "count 00", in: "*00\r\n", err: ErrMultibulkLength},
	{name: "count -01", in: "*-01\r\n", err: ErrMultibulkLength},
	{name: "count with a blank", in: "* 1\r\n", err: ErrMultibulkLength},
	{name: "count with a blank behind", in: "*1 \r\n", err: ErrMultibulkLength},
	{name: "count in hex", in: "*0x1\r\n", err: ErrMultibulkLength},
	{name: "count over the limit", in: "*2147483648\r\n", err: ErrMultibulkLength},
	{name: "count 2^32+1", in: "*4294967297\r\n$4\r\nPING\r\n", err: ErrMultibulkLength},
	{name: "count 2^63", in: "*9223372036854775808\r\n", err: ErrMultibulkLength},
	{name: "count -2^63-1", in: "*-9223372036854775809\r\n", err: ErrMultibulkLength},
	{name: "count 2^64+1", in: "*18446744073709551617\r\n$4\r\nPING\r\n", err: ErrMultibulkLength},
	{name: "count of 21 digits", in: "*100000000000000000001\r\n", err: ErrMultibulkLength},
	{name: "count with NUL", in: "*1\x00\r\n", err: ErrMultibulkLength},
	{name: "count with NUL, never ended", in: "*1\x00", err: ErrMultibulkLength},
	{name: "count that ends in LF", in: "*1\n$4\r\nPING\r\n", err: ErrMultibulkLength},

	{name: "length is empty", in: "*1\r\n$\r\n", err: ErrBulkLength, at: 4},
	{name: "length -1", in: "*1\r\n$-1\r\n", err: ErrBulkLength, at: 4},
	{name: "length -1 behind an argument", in: "*2\r\n$1\r\na\r\n$-1\r\n", err: ErrBulkLength, at: 11},
	{name: "length -2^63", in: "*1\r\n$-9223372036854775808\r\n", err: ErrBulkLength, at: 4},
	{name: "length is no number", in: "*1\r\n$4x\r\nPING\r\n", err: ErrBulkLength, at: 4},
	{name: "length +4", in: "*1\r\n$+4\r\nPING\r\n", err: ErrBulkLength, at: 4},
	{name: "length 04", in: "*1\r\n$04\r\nPING\r\n", err: ErrBulkLength, at: 4},
	{name: "length 004", in: "*1\r\n$004\r\nPING\r\n", err: ErrBulkLength, at: 4},
	{name: "length 00", in: "*1\r\n$00\r\n\r\n", err: ErrBulkLength, at: 4},
	{name: "length 1:", in: "*1\r\n$1:\r\n", err: ErrBulkLength, at: 4},
	{name: "length /1", in: "*1\r\n$/1\r\n", err: ErrBulkLength, at: 4},
	{name: "length 1/1", in: "*1\r\n$1/1\r\n", err: ErrBulkLength, at: 4},
	{name: "length :", in: "*1\r\n$:\r\n", err: ErrBulkLength, at: 4},
	{name: "length over the limit", in: "*1\r\n$536870913\r\n", err: ErrBulkLength, at: 4},
	{name: "length 2^32+4", in: "*1\r\n$4294967300\r\nPING\r\n", err: ErrBulkLength, at: 4},
	{name: "length 2^64+4", in: "*1\r\n$18446744073709551620\r\nPING\r\n", err: ErrBulkLength, at: 4},
	{name: "length with NUL", in: "*1\r\n$4\x00\r\nPING\r\n", err: ErrBulkLength, at: 4},
	{name: "length is NUL", in: "*1\r\n\x00", err: ErrBulkLength, at: 4},
	{name: "length that ends in LF", in: "*1\r\n$4\nPING\r\n", err: ErrBulkLength, at: 4},

	{name: "no $", in: "*1\r\nPING\r\n", err: ErrExpectedBulk, at: 4, text: "ERR Protocol error: expected '$', got 'P'"},
	{name: "CR in place of $", in: "*1\r\n\r\n", err: ErrExpectedBulk, at: 4, text: "ERR Protocol error: expected '$', got ' '"},
	{name: "LF in place of $", in: "*1\r\n\n4\r\n", err: ErrExpectedBulk, at: 4, text: "ERR Protocol error: expected '$', got ' '"},
	{name: "high byte in place of $", in: "*1\r\n\xff4\r\n", err: ErrExpectedBulk, at: 4, text: "ERR Protocol error: expected '$', got '\xff'"},
	{name: "control byte in place of $", in: "*1\r\n\x014\r\n", err: ErrExpectedBulk, at: 4, text: "ERR Protocol error: expected '$', got '\x01'"},
	{name: "a count in place of $", in: "*2\r\n$1\r\na\r\n*1\r\n", err: ErrExpectedBulk, at: 11, text: "ERR Protocol error: expected '$', got '*'"},

	{name: "count: CR without LF", in: "*1\rX$4\r\nPING\r\n", err: ErrCRLF, at: 2},
	{name: "count of two digits: CR without LF", in: "*10\r\r\n", err: ErrCRLF, at: 3},
	{name: "empty: CR without LF", in: "*0\rX", err: ErrCRLF, at: 2},
	{name: "length: CR without LF", in: "*1\r\n$4\rXPING\r\n", err: ErrCRLF, at: 6},
	{name: "payload too long", in: "*1\r\n$4\r\nPINGS\r\n", err: ErrCRLF, at: 12},
	{name: "payload too long by two", in: "*1\r\n$4\r\nPINGXX\r\n", err: ErrCRLF, at: 12},
	{name: "payload too short", in: "*2\r\n$4\r\nGET\r\n$1\r\nk\r\n", err: ErrCRLF, at: 12},
	{name: "payload, then CR and no LF", in: "*2\r\n$1\r\na\rX$1\r\nb\r\n", err: ErrCRLF, at: 9},
	{name: "payload, then LF and no CR", in: "*2\r\n$1\r\naX\n$1\r\nb\r\n", err: ErrCRLF, at: 9},
	{name: "long payload not ended", in: "*1\r\n$1000\r\n" + strings.Repeat("v", 1002), err: ErrCRLF, at: 1011},

	{name: "quote left open", in: "PING\nGET \"a\r\nPING\n", want: batch{{"PING"}}, err: ErrUnbalancedQuotes, at: 5},
	{name: "single quote left open", in: "'a\n", err: ErrUnbalancedQuotes},
	{name: "quote closed inside a word", in: "\"a\"b\n", err: ErrUnbalancedQuotes},
	{name: "two quoted parts", in: "\"a\"\"b\"\n", err: ErrUnbalancedQuotes},
	{name: "two kinds of quotes", in: "'a'\"b\"\n", err: ErrUnbalancedQuotes},
	{name: "backslash at the end", in: "\"a\\\n", err: ErrUnbalancedQuotes},
	{name: "escaped quote at the end", in: "\"a\\\"\n", err: ErrUnbalancedQuotes},
	{name: "single quotes: backslash takes the quote", in: "'a\\\\'\n", err: ErrUnbalancedQuotes},
	{name: "LF inside quotes", in: "\"a\nb\"\n", err: ErrUnbalancedQuotes},
	{name: "NUL in a line", in: "PI\x00NG\n", err: ErrInlineNUL},
	{name: "NUL first", in: "\n\x00", err: ErrInlineNUL, at: 1},
	{name: "NUL in quotes", in: "\"\x00", err: ErrInlineNUL},
}

// boundRows stand at, under and over each limit.
func boundRows() []row {
	digits := strings.Repeat("1", 65535)
	long := strings.Repeat("x", 65536)
	k16 := strings.Repeat("v", 16384)
	small, pair := Limits{Args: 2, Bulk: 3, Inline: 4}, batch{{"a", "b"}}
	auth := Limits{Unauthenticated: true}
	authBoth := Limits{Unauthenticated: true, Args: 5, Bulk: 100}
	none := Limits{Inline: -1}
	most := Limits{Args: math.MaxInt, Bulk: math.MaxInt, Inline: math.MaxInt, Total: math.MaxInt}
	return []row{
		{name: "count line of 65536", in: "*" + digits + "\r\n", err: ErrMultibulkLength},
		{name: "count line of 65536, not ended", in: "*" + digits, err: io.ErrUnexpectedEOF},
		{name: "count line of 65537", in: "*1" + digits + "\r\n", err: ErrCountTooLong},
		{name: "count of zeros without end", in: "*" + strings.Repeat("0", 65536), err: ErrCountTooLong},
		{name: "length line of 65536", in: "*1\r\n$" + digits + "\r\n", err: ErrBulkLength, at: 4},
		{name: "length line of 65536, not ended", in: "*1\r\n$" + digits, err: io.ErrUnexpectedEOF},
		{name: "length line of 65537", in: "*1\r\n$1" + digits + "\r\n", err: ErrLengthTooLong, at: 4},
		{name: "no length line in 65537", in: "*1\r\nx" + long, err: ErrLengthTooLong, at: 4},
		{name: "length line of 65537 behind an argument", in: "*2\r\n$1\r\na\r\n$" + long, err: ErrLengthTooLong, at: 11},
		{name: "inline 65535", in: long[1:] + "\n", want: batch{{long[1:]}}},
		{name: "inline 65536", in: long + "\n", want: batch{{long}}},
		{name: "inline 65536, CR counted", in: long[1:] + "\r\n", want: batch{{long[1:]}}},
		{name: "inline 65537", in: long + "x\n", err: ErrInlineTooLong},
		{name: "inline 65537, CR counted", in: long + "\r\n", err: ErrInlineTooLong},
		{name: "inline 65537 behind another", in: "PING\n" + long + "x", want: batch{{"PING"}}, err: ErrInlineTooLong, at: 5},
		{name: "inline 65536, not ended", in: long, err: io.ErrUnexpectedEOF},
		{name: "NUL at byte 65537", in: long + "\x00", err: ErrInlineTooLong},

		{name: "Args at", in: wire(pair...), want: pair, lim: small},
		{name: "Args over", in: wire([]string{"a", "b", "c"}), err: ErrMultibulkLength, lim: small},
		{name: "Args over, two digits", in: "*10\r\n", err: ErrMultibulkLength, lim: small},
		{name: "Bulk under", in: "*1\r\n$2\r\nab\r\n", want: batch{{"ab"}}, lim: small},
		{name: "Bulk at", in: "*1\r\n$3\r\nabc\r\n", want: batch{{"abc"}}, lim: small},
		{name: "Bulk over", in: "*1\r\n$4\r\nabcd\r\n", err: ErrBulkLength, at: 4, lim: small},
		{name: "Bulk over, header only", in: "*1\r\n$4000\r\n", err: ErrBulkLength, at: 4, lim: small},
		{name: "Inline at", in: "abcd\nabc\r\n", want: batch{{"abcd"}, {"abc"}}, lim: small},
		{name: "Inline over", in: "abcde\n", err: ErrInlineTooLong, lim: small},
		{name: "Inline over, not ended", in: "\nabcde", err: ErrInlineTooLong, at: 1, lim: small},
		{name: "Inline is not bound by Args and Bulk", in: "a b c\n", want: batch{{"a", "b", "c"}}, lim: Limits{Args: 1, Bulk: 1}},
		{name: "Inline above the default", in: long + "x\n", want: batch{{long + "x"}}, lim: Limits{Inline: 65537}},

		{name: "Total at", in: "*1\r\n$4\r\nPING\r\n", want: batch{{"PING"}}, lim: Limits{Total: 14}},
		{name: "Total over", in: "PING\n*1\r\n$5\r\nHELLO\r\n", want: batch{{"PING"}}, err: ErrTooBig, at: 5, lim: Limits{Total: 14}},
		{name: "Total over, header only", in: "*1\r\n$5\r\n", err: ErrTooBig, lim: Limits{Total: 14}},
		{name: "Total over by arguments", in: wire([]string{"a", "b", "c"}), err: ErrTooBig, lim: Limits{Total: 20}},
		{name: "Total over in a header", in: "*1\r\n$000000000", err: ErrTooBig, lim: Limits{Total: 12}},
		{name: "Total is of one command", in: "PING\nPING\nPING\n", want: batch{{"PING"}, {"PING"}, {"PING"}}, lim: Limits{Total: 5}},
		{name: "Total of an inline at", in: "PING\r\n", want: batch{{"PING"}}, lim: Limits{Total: 6}},
		{name: "Total of an inline over", in: "PING \r\n", err: ErrTooBig, lim: Limits{Total: 6}},
		{name: "Total by default, header only", in: "*3\r\n$1\r\na\r\n$1073741824\r\n", err: ErrTooBig, lim: Limits{Bulk: 1 << 30}},
		{name: "Total of one", in: "\n\nx\n", err: ErrTooBig, at: 2, lim: Limits{Total: 1}},

		{name: "unauthenticated 10", in: wire(numbered(10)), want: batch{numbered(10)}, lim: auth},
		{name: "unauthenticated 11", in: "*11\r\n", err: ErrUnauthenticatedCount, lim: auth},
		{name: "unauthenticated 16384", in: wire([]string{k16}), want: batch{{k16}}, lim: auth},
		{name: "unauthenticated 16385", in: "*1\r\n$16385\r\n", err: ErrUnauthenticatedLength, at: 4, lim: auth},
		{name: "unauthenticated, count over both", in: "*2147483648\r\n", err: ErrMultibulkLength, lim: auth},
		{name: "unauthenticated, length over both", in: "*1\r\n$536870913\r\n", err: ErrBulkLength, at: 4, lim: auth},
		{name: "unauthenticated, negative length", in: "*1\r\n$-1\r\n", err: ErrBulkLength, at: 4, lim: auth},
		{name: "unauthenticated, negative count", in: "*-11\r\nPING\n", want: batch{{"PING"}}, lim: auth},
		{name: "unauthenticated, inline", in: strings.Repeat("a ", 11) + k16 + "v\n", want: batch{append(strings.Fields(strings.Repeat("a ", 11)), k16+"v")}, lim: auth},
		{name: "unauthenticated under smaller Args", in: "*6\r\n", err: ErrMultibulkLength, lim: authBoth},
		{name: "unauthenticated under smaller Bulk", in: "*1\r\n$101\r\n", err: ErrBulkLength, at: 4, lim: authBoth},

		{name: "no inline", in: "PING\r\n", err: ErrInlineRefused, lim: none},
		{name: "no inline, blank lines pass", in: "\r\n\n*1\r\n$1\r\na\r\n\r\n", want: batch{{"a"}}, lim: none},
		{name: "no inline, behind a blank line", in: "\r\n*1\r\n$1\r\na\r\nGET / HTTP/1.1\r\n", want: batch{{"a"}}, err: ErrInlineRefused, at: 13, lim: none},
		{name: "no inline, CR and no LF", in: "\rx", err: ErrInlineRefused, lim: none},
		{name: "no inline, half a blank line", in: "\r", err: io.ErrUnexpectedEOF, lim: none},
		{name: "no inline, Total of one", in: "\n\r\n", err: ErrTooBig, at: 1, lim: Limits{Inline: -1, Total: 1}},

		{name: "negative Args", in: "PING\n*1\r\n", want: batch{{"PING"}}, err: ErrMultibulkLength, at: 5, lim: Limits{Args: -1}},
		{name: "negative Bulk", in: "*1\r\n$0\r\n", err: ErrBulkLength, at: 4, lim: Limits{Bulk: -1}},
		{name: "negative Total", in: "PING\n", err: ErrTooBig, lim: Limits{Total: -1}},
		{name: "least Args", in: "*1\r\n", err: ErrMultibulkLength, lim: Limits{Args: math.MinInt}},
		{name: "least Bulk", in: "*1\r\n$0\r\n", err: ErrBulkLength, at: 4, lim: Limits{Bulk: math.MinInt}},
		{name: "least Inline", in: "PING\n", err: ErrInlineRefused, lim: Limits{Inline: math.MinInt}},
		{name: "least Total", in: "PING\n", err: ErrTooBig, lim: Limits{Total: math.MinInt}},
		{name: "greatest limits", in: "a b\n" + wire(pair...), want: append(pair, pair...), lim: most},
		{name: "greatest limits, no such count", in: "*9223372036854775808\r\n", err: ErrMultibulkLength, lim: most},
	}
}

func allRows() []row {
	return slices.Concat(goodRows, sizeRows(), badRows, boundRows())
}

// A source gives data in pieces: size bytes a read at most, and no read goes over cut. Where gap is
// set, it comes between two pieces: as a read of its own, or with the bytes if joined is set.
type source struct {
	data      []byte
	off       int
	size, cut int // 0: no bound
	gap       error
	joined    bool
	gapped    bool
}

func (s *source) Read(b []byte) (int, error) {
	if s.off == len(s.data) {
		return 0, io.EOF
	}
	if s.gap != nil && !s.joined && !s.gapped {
		s.gapped = true
		return 0, s.gap
	}
	s.gapped = false
	rest := s.data[s.off:]
	if s.off < s.cut {
		rest = s.data[s.off:s.cut]
	}
	if s.size > 0 {
		rest = rest[:min(s.size, len(rest))]
	}
	n := copy(b, rest)
	s.off += n
	if s.joined {
		return n, s.gap
	}
	return n, nil
}

// chunkings calls try with each way in which data may come.
func chunkings(data string, try func(name string, r io.Reader)) {
	in := []byte(data)
	src := func(s source) io.Reader { s.data = in; return &s }
	one := 1
	if len(in) > 20000 {
		one = 13 // the cuts are at each byte near the ends
	}
	try("whole", src(source{}))
	try("whole, EOF joined", iotest.DataErrReader(src(source{})))
	try("byte by byte", src(source{size: one}))
	try("byte by byte, EOF joined", iotest.DataErrReader(src(source{size: one})))
	try("byte by byte, timeout between", src(source{size: one, gap: iotest.ErrTimeout}))
	try("byte by byte, timeout joined", src(source{size: one, gap: iotest.ErrTimeout, joined: true}))
	try("7 bytes, timeout between", src(source{size: 7, gap: iotest.ErrTimeout}))
	try("1448 bytes", src(source{size: 1448}))
	for cut := 1; cut < len(in); cut++ {
		if cut > 64 && len(in)-cut > 64 && len(in) > 400 {
			cut += min(len(in)/8, len(in)-cut-64)
		}
		if raceEnabled && cut > 16 && len(in)-cut > 16 { // the race detector makes each cut ten times as slow
			cut += 7
		}
		try(fmt.Sprintf("cut at %d", cut), src(source{cut: cut}))
		try(fmt.Sprintf("cut at %d, timeout between", cut), src(source{cut: cut, gap: iotest.ErrTimeout}))
	}
}

// A run is what came of a stream.
type run struct {
	cmds batch
	raws []string
	err  error
}

func texts(c *Command) []string {
	s := make([]string, c.ArgCount())
	for i := range s {
		s[i] = string(c.Get(i))
	}
	return s
}

func (r *run) add(c *Command) {
	r.cmds = append(r.cmds, texts(c))
	r.raws = append(r.raws, string(c.Raw()))
}

// pull reads r to its end, and goes on after a timeout; look has IsLast look ahead on the way.
func pull(p *Parser, look bool) (got run) {
	for {
		c, err := p.ReadCommand()
		if err == iotest.ErrTimeout {
			continue
		}
		if err != nil {
			got.err = err
			return got
		}
		if look {
			c.IsLast()
		}
		got.add(c)
	}
}

// push has Parse read data, of which step bytes more are there at each call that finds it too short.
// The offset of an error is counted from the start of data, as in a Parser.
func push(data string, step int, lim Limits) (got run) {
	var p Parser
	p.SetLimits(lim)
	b := slices.Clip([]byte(data))
	end := min(step, len(b))
	for start := 0; ; {
		c, n, err := p.Parse(b[start:end:end])
		switch {
		case err != nil:
			if _, _, again := p.Parse(b[start:end:end]); again != ErrBroken {
				got.err = fmt.Errorf("%w, and then %v", err, again)
				return got
			}
			got.err = err
			var pe *ProtocolError
			if errors.As(err, &pe) {
				pe.Offset += int64(start)
			}
			return got
		case n > 0:
			if c.ArgCount() > 0 {
				got.add(c)
			}
			start += n
		case end < len(b):
			end = min(end+step, len(b))
		case start == end:
			got.err = io.EOF
			return got
		default:
			got.err = io.ErrUnexpectedEOF
			return got
		}
	}
}

// empties are the empty commands at the front of a stream.
var empties = regexp.MustCompile(`^(?:[ \t\v\f\r]*\n|\*(?:0|-[0-9]+)\r\n)+`)

// check holds what came of a stream against the row.
func (r *row) check(t *testing.T, how string, got run) {
	t.Helper()
	if !slices.EqualFunc(got.cmds, r.want, slices.Equal[[]string]) {
		t.Fatalf("%s: got commands %.300q, want %.300q", how, got.cmds, r.want)
	}
	checkEnd(t, how, r, got.err)
	rest := r.in
	for _, raw := range got.raws {
		rest = empties.ReplaceAllString(rest, "")
		if !strings.HasPrefix(rest, raw) {
			t.Fatalf("%s: got Raw %.100q where the stream has %.100q", how, raw, rest)
		}
		rest = rest[len(raw):]
	}
	if got.err == io.EOF && empties.ReplaceAllString(rest, "") != "" {
		t.Fatalf("%s: the end of input came before %.100q", how, rest)
	}
}

func checkEnd(t *testing.T, how string, r *row, err error) {
	t.Helper()
	kind, ok := r.end().(*ProtocolError)
	if !ok {
		if err != r.end() {
			t.Fatalf("%s: got error %v, want %v", how, err, r.end())
		}
		return
	}
	pe, ok := err.(*ProtocolError)
	if !ok {
		t.Fatalf("%s: got error %v, want a *ProtocolError", how, err)
	}
	text := r.text
	if text == "" {
		text = kind.Error()
	}
	if pe.Error() != text || pe.Offset != r.at {
		t.Fatalf("%s: got %q at %d, want %q at %d", how, pe.Error(), pe.Offset, text, r.at)
	}
	var as *ProtocolError
	if !errors.As(err, &as) || as != pe || !errors.Is(err, kind) || !errors.Is(err, &ProtocolError{}) {
		t.Fatalf("%s: %v is not found by errors.As and errors.Is", how, err)
	}
	for _, other := range kinds {
		if other != kind && errors.Is(err, other) {
			t.Fatalf("%s: %v is %v too", how, err, other)
		}
	}
}

// kinds are the protocol errors with the text that goes out for each.
var kinds = []*ProtocolError{
	ErrMultibulkLength, ErrBulkLength, ErrExpectedBulk, ErrCountTooLong, ErrLengthTooLong, ErrInlineTooLong,
	ErrUnbalancedQuotes, ErrUnauthenticatedCount, ErrUnauthenticatedLength, ErrCRLF, ErrInlineNUL, ErrTooBig,
	ErrInlineRefused,
}

func TestErrorTexts(t *testing.T) {
	want := []string{
		"invalid multibulk length", "invalid bulk length", "expected '$'", "too big mbulk count string",
		"too big bulk count string", "too big inline request", "unbalanced quotes in request",
		"unauthenticated multibulk length", "unauthenticated bulk length", "invalid CRLF in request",
		"NUL in inline request", "too big request", "inline requests are not accepted",
	}
	for i, kind := range kinds {
		if got, want := kind.Error(), "ERR Protocol error: "+want[i]; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if errors.Is(ErrBroken, &ProtocolError{}) {
		t.Error("ErrBroken is a *ProtocolError")
	}
}

func TestReadCommand(t *testing.T) {
	for _, r := range allRows() {
		t.Run(r.name, func(t *testing.T) {
			for _, look := range []bool{false, true} {
				chunkings(r.in, func(how string, rd io.Reader) {
					p := NewParser(rd)
					p.SetLimits(r.lim)
					r.check(t, how, pull(p, look))
					checkAfter(t, how, p)
				})
			}
		})
	}
}

// checkAfter: what a Parser is after the end of a stream.
func checkAfter(t *testing.T, how string, p *Parser) {
	t.Helper()
	if p.broken {
		for range 2 {
			if c, err := p.ReadCommand(); c != nil || err != ErrBroken {
				t.Fatalf("%s: got %v, %v after a protocol error, want ErrBroken", how, c, err)
			}
		}
	}
	p.SetLimits(Limits{})
	p.Reset(strings.NewReader("PING\n"))
	if got := pull(p, false); got.err != io.EOF || len(got.cmds) != 1 || got.raws[0] != "PING\n" {
		t.Fatalf("%s: got %v after Reset, want one PING", how, got)
	}
}

func TestParse(t *testing.T) {
	for _, r := range allRows() {
		t.Run(r.name, func(t *testing.T) {
			for _, step := range []int{1, 2, 7, 1000, 1 << 30} {
				r.check(t, fmt.Sprintf("%d bytes more each time", step), push(r.in, step, r.lim))
			}
		})
	}
}

// received gives a Parser that has data at hand, in one read, and then waits.
func received(data string) *Parser {
	return NewParser(io.MultiReader(strings.NewReader(data), iotest.ErrReader(iotest.ErrTimeout)))
}

func next(t *testing.T, p *Parser) *Command {
	t.Helper()
	c, err := p.ReadCommand()
	if err != nil {
		t.Fatalf("got error %v, want a command", err)
	}
	return c
}

func TestIsLast(t *testing.T) {
	rows := []struct {
		name, in string
		want     []bool
		err      error
	}{
		{"one", "PING\n", []bool{true}, iotest.ErrTimeout},
		{"three", "A\nB\n*1\r\n$1\r\nC\r\n", []bool{false, false, true}, iotest.ErrTimeout},
		{"half a multibulk follows", "A\n*1\r\n$1\r\n", []bool{true}, iotest.ErrTimeout},
		{"half a line follows", "A\nB", []bool{true}, iotest.ErrTimeout},
		{"empties follow", "A\n\r\n*0\r\n*-1\r\n\n", []bool{true}, iotest.ErrTimeout},
		{"empties and half a command follow", "A\n\r\n*0\r\n*1\r", []bool{true}, iotest.ErrTimeout},
		{"empties and a command follow", "A\n\r\n*0\r\nB\n", []bool{false, true}, iotest.ErrTimeout},
		{"a protocol error follows", "A\n*x\r\n", []bool{false}, ErrMultibulkLength},
		{"empties and a protocol error follow", "A\n\n*0\r\n'\n", []bool{false}, ErrUnbalancedQuotes},
		{"half a protocol error follows", "A\n*x", []bool{true}, iotest.ErrTimeout},
		{"a wrong length follows", "A\n*2\r\n$1\r\na\r\n$-1\r\n", []bool{false}, ErrBulkLength},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			p := received(r.in)
			for i, want := range r.want {
				c := next(t, p)
				before := texts(c)
				for range 3 {
					if got := c.IsLast(); got != want {
						t.Errorf("command %d: got %v, want %v", i, got, want)
					}
				}
				if k := c.Clone(); k.IsLast() != want {
					t.Errorf("clone of command %d: got %v, want %v", i, !want, want)
				}
				if got := texts(c); !slices.Equal(got, before) {
					t.Errorf("command %d: got %q after IsLast, want %q", i, got, before)
				}
			}
			c, err := p.ReadCommand()
			if c != nil || !errors.Is(err, r.err) {
				t.Errorf("got %v, %v at the end, want %v", c, err, r.err)
			}
			if !c.IsLast() {
				t.Error("got false from the command of an error, want true")
			}
		})
	}
}

func TestIsLastDoesNoIO(t *testing.T) {
	reads := 0
	p := NewParser(readFunc(func(b []byte) (int, error) {
		reads++
		return copy(b, "A\nB"), nil
	}))
	c := next(t, p)
	if c.IsLast(); reads != 1 {
		t.Errorf("got %d reads after one command, want 1", reads)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(b []byte) (int, error) { return f(b) }

func TestLimitsChange(t *testing.T) {
	bulk := func(n int) func(*Limits) { return func(l *Limits) { l.Bulk = n } }
	rows := []struct {
		name   string
		lim    Limits
		in     string
		change func(*Limits) // after the first command
		want   []string      // the second
		err    error
		at     int64
	}{
		{name: "lower Bulk", in: "A\n*1\r\n$2\r\nbb\r\n", change: bulk(1), err: ErrBulkLength, at: 6},
		{name: "raise Bulk", lim: Limits{Bulk: 1}, in: "A\n*1\r\n$2\r\nbb\r\n", change: bulk(2), want: []string{"bb"}},
		{name: "lower Args", in: "A\n\n*2\r\n$1\r\nb\r\n$1\r\nc\r\n", change: func(l *Limits) { l.Args = 1 }, err: ErrMultibulkLength, at: 3},
		{name: "lower Total", in: "A\n*1\r\n$2\r\nbb\r\n", change: func(l *Limits) { l.Total = 11 }, err: ErrTooBig, at: 2},
		{name: "lower Inline", in: "A\nBB\n", change: func(l *Limits) { l.Inline = 1 }, err: ErrInlineTooLong, at: 2},
		{name: "refuse inline", in: "A\nBB\n", change: func(l *Limits) { l.Inline = -1 }, err: ErrInlineRefused, at: 2},
		{name: "allow inline", lim: Limits{Inline: 1}, in: "A\n'B C'\n", change: func(l *Limits) { *l = Limits{} }, want: []string{"B C"}},
		{name: "authenticated", lim: Limits{Unauthenticated: true}, in: "A\n" + wire(numbered(11)), change: func(l *Limits) { l.Unauthenticated = false }, want: numbered(11)},
		{name: "half received", in: "A\n*1\r\n$2\r\n", change: bulk(1), err: ErrBulkLength, at: 6},
		{name: "back again", in: "A\n*1\r\n$2\r\nbb\r\n", change: func(l *Limits) { l.Bulk = 1; *l = Limits{} }, want: []string{"bb"}},
	}
	for _, r := range rows {
		for _, look := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/look=%v", r.name, look), func(t *testing.T) {
				p := received(r.in)
				p.SetLimits(r.lim)
				c := next(t, p)
				if look {
					c.IsLast()
				}
				lim := r.lim
				r.change(&lim)
				p.SetLimits(lim)
				c, err := p.ReadCommand()
				if r.err == nil && (err != nil || !slices.Equal(texts(c), r.want)) {
					t.Fatalf("got %q, %v, want %q", texts(c), err, r.want)
				}
				if r.err != nil {
					checkEnd(t, "second command", &row{err: r.err, at: r.at}, err)
				}
			})
		}
	}
}

func TestLimitsDoNotMend(t *testing.T) {
	p := received("*2\r\n$1\r\na\r\n")
	p.SetLimits(Limits{Args: 1})
	if _, err := p.ReadCommand(); !errors.Is(err, ErrMultibulkLength) {
		t.Fatalf("got %v, want %v", err, ErrMultibulkLength)
	}
	p.SetLimits(Limits{Args: 2})
	if _, err := p.ReadCommand(); err != ErrBroken {
		t.Errorf("got %v after the limit was raised, want ErrBroken", err)
	}
}

func TestDefaultLimits(t *testing.T) {
	args, bulk, line := MaxNumArg, MaxBulkSize, MaxTelnetLine
	defer func() { MaxNumArg, MaxBulkSize, MaxTelnetLine = args, bulk, line }()
	MaxNumArg, MaxBulkSize, MaxTelnetLine = 2, 3, 4
	rows := []row{
		{name: "Args", in: "*2\r\n$1\r\na\r\n$1\r\nb\r\n*3\r\n", want: batch{{"a", "b"}}, err: ErrMultibulkLength, at: 18},
		{name: "Bulk", in: "*1\r\n$3\r\nabc\r\n*1\r\n$4\r\n", want: batch{{"abc"}}, err: ErrBulkLength, at: 17},
		{name: "Line", in: "abcd\nabcde\n", want: batch{{"abcd"}}, err: ErrInlineTooLong, at: 5},
	}
	for _, r := range rows {
		r.check(t, r.name+", pull", pull(NewParser(strings.NewReader(r.in)), true))
		r.check(t, r.name+", push", push(r.in, 1, Limits{}))
	}
}

// Parse may find the package's limits other than at the line's beginning.
func TestParseLimitsChange(t *testing.T) {
	line := MaxTelnetLine
	defer func() { MaxTelnetLine = line }()
	for limit, want := range map[int]error{1: ErrInlineTooLong, 3: ErrInlineTooLong, 4: nil, math.MaxInt: nil, -1: ErrInlineRefused} {
		var p Parser
		MaxTelnetLine = line
		if _, n, err := p.Parse([]byte("PIN")); n != 0 || err != nil {
			t.Fatalf("got %d, %v, want 0, nil", n, err)
		}
		MaxTelnetLine = limit
		p.SetLimits(Limits{})
		if _, _, err := p.Parse([]byte("PING\n")); !errors.Is(err, want) {
			t.Errorf("with a line of %d: got %v, want %v", limit, err, want)
		}
	}
}

func TestCommand(t *testing.T) {
	for _, in := range []string{wire([]string{"get", "Key", ""}), "get Key ''\n", "get Key \"\"\r\n"} {
		c := next(t, received(in))
		if got := string(c.Name()); got != "GET" {
			t.Errorf("%q: got Name %q, want GET", in, got)
		}
		if got := string(c.Get(0)); got != "get" {
			t.Errorf("%q: got Get(0) %q after Name, want get", in, got)
		}
		if got := string(c.Raw()); got != in {
			t.Errorf("got Raw %q after Name, want %q", got, in)
		}
		if c.ArgCount() != 3 || c.Get(2) == nil || len(c.Get(2)) != 0 {
			t.Errorf("%q: got %d arguments and %v as the last, want 3 and an empty one", in, c.ArgCount(), c.Get(2))
		}
		for _, i := range []int{-1, 3, 1 << 30, -1 << 31} {
			if got := c.Get(i); got != nil {
				t.Errorf("%q: got %q from Get(%d), want nil", in, got, i)
			}
		}
		for range 2 { // the second time in the slice of the first
			args := c.Args()
			if len(args) != 3 || string(args[0]) != "get" || string(args[1]) != "Key" || string(args[2]) != "" {
				t.Errorf("%q: got Args %q", in, args)
			}
		}
		views := append(c.Args(), c.Get(0), c.Get(1), c.Name(), c.Raw())
		for i, v := range views {
			if cap(v) != len(v) {
				t.Errorf("%q: view %d has capacity %d, want its length %d", in, i, cap(v), len(v))
			}
			_ = append(v, "overrun"...)
		}
		if got := texts(c); !slices.Equal(got, []string{"get", "Key", ""}) || string(c.Raw()) != in {
			t.Errorf("got %q and %q after appends to the views", got, c.Raw())
		}
	}
}

func TestName(t *testing.T) {
	long := strings.Repeat("Az09", 9)
	for in, want := range map[string]string{
		"": "", "PING": "PING", "ping": "PING", "pInG": "PING", "`az{@AZ[": "`AZ{@AZ[", "é\xff": "é\xff",
		long: strings.ToUpper(long), long[:32]: strings.ToUpper(long[:32]), long[:33]: strings.ToUpper(long[:33]),
	} {
		c := next(t, received(wire([]string{in})))
		if got := string(c.Name()); got != want {
			t.Errorf("got Name %q of %q, want %q", got, in, want)
		}
	}
}

func TestNilCommand(t *testing.T) {
	var c *Command
	if c.Get(0) != nil || c.ArgCount() != 0 || c.Args() != nil || c.Name() != nil || c.Raw() != nil || c.Clone() != nil || !c.IsLast() {
		t.Error("a nil *Command is not empty and last")
	}
	c = new(Command)
	if c.Get(0) != nil || c.ArgCount() != 0 || len(c.Args()) != 0 || c.Name() != nil || c.Raw() != nil || c.Clone().ArgCount() != 0 {
		t.Error("a zero Command is not empty")
	}
}

func TestClone(t *testing.T) {
	set := batch{{"SET", "k", "v"}}
	for _, in := range []string{wire(set...), "SET k v\r\n", "SET 'k' \"\\x76\"\n"} {
		p := received(in + "GET 'other  other'\n" + in)
		c := next(t, p)
		k := c.Clone()
		kk := k.Clone()
		next(t, p)
		next(t, p)
		p.Reset(strings.NewReader(strings.Repeat("overwrite\n", 100)))
		pull(p, true)
		for _, k := range []*Command{k, kk} {
			if got := texts(k); !slices.Equal(got, set[0]) || string(k.Raw()) != in || k.IsLast() {
				t.Errorf("got %q, Raw %q, IsLast %v of the clone, want %q, %q, false", got, k.Raw(), k.IsLast(), set[0], in)
			}
		}
		k.Get(1)[0] = '!'
		if got := string(kk.Get(1)); got != "k" {
			t.Errorf("got %q in a clone's clone, want k", got)
		}
	}
}

// TestParseResumes: what an earlier call has parsed is not looked at again, so that a command costs
// time in proportion to its bytes however it comes.
func TestParseResumes(t *testing.T) {
	args := append(numbered(100), strings.Repeat("v", 1500), "last")
	b := []byte(wire(args))
	var p Parser
	for end := 1; ; end++ {
		c, n, err := p.Parse(b[:end:end])
		if err != nil {
			t.Fatalf("at %d bytes: %v", end, err)
		}
		if n > 0 {
			for i, want := range args {
				if got := c.Get(i); len(got) != len(want) {
					t.Errorf("argument %d: got %d bytes, want %d", i, len(got), len(want))
				}
			}
			return
		}
		if c = p.ahead; c.left > 0 {
			done := max(c.pos, c.bulk)
			for i := range b[:done] {
				b[i] = '!'
			}
		}
	}
}

// TestParseResumesLine: nor is a line searched again. A NUL in it would be an error at once.
func TestParseResumesLine(t *testing.T) {
	for in, want := range map[string]error{"GET some key\n": nil, "*123456789\r\n": ErrMultibulkLength} {
		b := []byte(in)
		var p Parser
		for end := 1; end < len(b); end++ {
			if _, n, err := p.Parse(b[:end:end]); n > 0 || err != nil {
				t.Fatalf("%q at %d bytes: got %d, %v", in, end, n, err)
			}
			if b[end-1] != '\r' {
				clear(b[1:end])
			}
		}
		if _, _, err := p.Parse(b); !errors.Is(err, want) {
			t.Errorf("%q: got %v, want %v", in, err, want)
		}
	}
}

func TestBuffered(t *testing.T) {
	p := received("PING\n\nSET a b\n*1\r\n$4\r\nPI")
	if got := p.Buffered(); got != 0 {
		t.Errorf("got %d before a read, want 0", got)
	}
	for i, want := range []int{19, 10} {
		next(t, p)
		if got := p.Buffered(); got != want {
			t.Errorf("got %d after command %d, want %d", got, i, want)
		}
	}
	if _, err := p.ReadCommand(); err != iotest.ErrTimeout || p.Buffered() != 10 {
		t.Errorf("got %d and %v in the middle of a command, want 10 and a timeout", p.Buffered(), err)
	}
	p.Reset(nil)
	if got := p.Buffered(); got != 0 {
		t.Errorf("got %d after Reset, want 0", got)
	}
}

func TestCommands(t *testing.T) {
	rows := []struct {
		name, in string
		want     []string
		err      error
	}{
		{"end of input", "A\nB\n", []string{"A", "B"}, nil},
		{"nothing", "", nil, nil},
		{"end inside a command", "A\n*1", []string{"A"}, io.ErrUnexpectedEOF},
		{"protocol error", "A\n*x\r\nB\n", []string{"A"}, ErrMultibulkLength},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			var got []string
			p := NewParser(strings.NewReader(r.in))
			for c := range p.Commands() {
				got = append(got, string(c.Get(0)))
				if err := p.Err(); err != nil {
					t.Errorf("got error %v inside the loop", err)
				}
			}
			last := p.Err()
			if !slices.Equal(got, r.want) || !errors.Is(last, r.err) {
				t.Errorf("got %q, %v, want %q, %v", got, last, r.want, r.err)
			}
		})
	}
	p := NewParser(strings.NewReader("A\nB\n"))
	for range p.Commands() {
		break
	}
	for c := range p.Commands() {
		if got := string(c.Get(0)); got != "B" {
			t.Errorf("got %q after a break, want B", got)
		}
	}
}

func TestReaderErrors(t *testing.T) {
	calls := 0
	slow := readFunc(func(b []byte) (int, error) {
		if calls++; calls%100 != 0 {
			return 0, nil
		}
		return copy(b, "PING\n"), nil
	})
	rows := []struct {
		name string
		r    io.Reader
		want error // nil for a command
	}{
		{"nothing for ever", readFunc(func([]byte) (int, error) { return 0, nil }), io.ErrNoProgress},
		{"nothing 99 times", slow, nil},
		{"an error of its own", iotest.ErrReader(io.ErrClosedPipe), io.ErrClosedPipe},
		{"end", iotest.ErrReader(io.EOF), io.EOF},
		{"a command and an error", &source{data: []byte("PING\n"), gap: io.ErrClosedPipe, joined: true}, nil},
	}
	for _, r := range rows {
		c, err := NewParser(r.r).ReadCommand()
		if err != r.want || (err == nil) != (c.ArgCount() == 1) {
			t.Errorf("%s: got %v, %v, want %v", r.name, c, err, r.want)
		}
	}
	for _, n := range []int{-1, 1 << 20} {
		p := NewParser(readFunc(func([]byte) (int, error) { return n, nil }))
		if c, err := p.ReadCommand(); c != nil || err == nil {
			t.Errorf("got %v, %v from a reader that says it read %d bytes, want an error", c, err, n)
		}
	}
}

func TestErrorBehindBytes(t *testing.T) {
	p := NewParser(&source{data: []byte("A\nB\n*1\r\n"), gap: io.ErrClosedPipe, joined: true})
	for _, want := range []string{"A", "B"} {
		if got := string(next(t, p).Get(0)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, want := range []error{io.ErrClosedPipe, io.ErrUnexpectedEOF, io.ErrUnexpectedEOF} {
		if _, err := p.ReadCommand(); err != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
}

// TestViewsEnd: in race builds a view held too long shows what it is.
func TestViewsEnd(t *testing.T) {
	if !raceEnabled {
		t.Skip("only race builds overwrite the bytes of a past command")
	}
	for _, in := range []string{wire([]string{"abc", "def"}), "abc def\n", "abc 'd'\n", wire([]string{"abc", strings.Repeat("v", 100<<10)})} {
		for _, end := range []func(*Parser){func(p *Parser) { p.ReadCommand() }, func(p *Parser) { p.Reset(nil) }} {
			p := received(in + "PING\n")
			c := next(t, p)
			arg := c.Get(0)
			c.IsLast()
			if string(arg) != "abc" {
				t.Errorf("got %q while the view is valid, want abc", arg)
			}
			if end(p); string(arg) != "???" {
				t.Errorf("got %q after the view's end, want ???", arg)
			}
		}
	}
}

func TestReadCommandAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	cmds := append(slices.Clone(benchCommands), struct{ name, bytes string }{
		"set1m and ping", request("SET", "k", strings.Repeat("x", 1<<20)) + "PING\r\n",
	})
	for _, cmd := range cmds {
		for _, n := range []int{0, 16 << 10} {
			p := NewParser(newEndless(cmd.bytes, n))
			read := func() {
				c, err := p.ReadCommand()
				if err != nil {
					t.Fatal(err)
				}
				c.IsLast()
				c.Name()
				c.Args()
			}
			for range 8 {
				read()
			}
			if got := testing.AllocsPerRun(100, read); got != 0 {
				t.Errorf("%s in reads of %d: got %v allocations a command, want 0", cmd.name, n, got)
			}
		}
		var p Parser
		b := []byte(cmd.bytes)
		if got := testing.AllocsPerRun(10, func() { c, _, _ := p.Parse(b); c.Args() }); got != 0 {
			t.Errorf("%s: got %v allocations in Parse, want 0", cmd.name, got)
		}
	}
}

// repeated gives n bytes of s over and over, and fills what it is given.
func repeated(s string, n int64) io.Reader {
	s = strings.Repeat(s, 1+4096/len(s))
	pos := 0
	return io.LimitReader(readFunc(func(b []byte) (int, error) {
		for n := 0; n < len(b); {
			k := copy(b[n:], s[pos:])
			n, pos = n+k, (pos+k)%len(s)
		}
		return len(b), nil
	}), n)
}

// serve reads all commands that r has, calls what a server calls, and leaves the Parser waiting.
func serve(t *testing.T, r io.Reader) *Parser {
	p := NewParser(io.MultiReader(r, iotest.ErrReader(iotest.ErrTimeout)))
	for {
		c, err := p.ReadCommand()
		if err == iotest.ErrTimeout {
			return p
		}
		if err != nil {
			t.Fatal(err)
		}
		c.Name()
		c.Args()
		c.IsLast()
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestMemory(t *testing.T) {
	ping := request("PING")
	empty := strings.Repeat("$0\r\n\r\n", 1e6)
	set64 := func() io.Reader {
		return io.MultiReader(strings.NewReader("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$67108864\r\n"), repeated("x", 64<<20))
	}
	join := func(r io.Reader, s string) io.Reader { return io.MultiReader(r, strings.NewReader(s)) }
	text := func(s ...string) func() io.Reader {
		return func() io.Reader {
			var r []io.Reader
			for _, s := range s {
				r = append(r, strings.NewReader(s))
			}
			return io.MultiReader(r...)
		}
	}
	rows := []struct {
		name string
		n    int // parsers, to measure small sizes
		max  int64
		src  func() io.Reader
	}{
		{"one PING", 64, 4 << 10, text(ping)},
		{"one inline PING", 64, 4 << 10, text("PING\n")},
		{"a 64 MiB SET", 1, 64 << 10, func() io.Reader { return join(set64(), "\r\n") }},
		{"a 64 MiB SET and a PING", 1, 64 << 10, func() io.Reader { return join(set64(), "\r\n"+ping) }},
		{"a 512 MiB length and 10 bytes", 1, 128 << 10, text("*1\r\n$536870912\r\n0123456789")},
		{"a length at each size of the buffer", 1, 128 << 10, text("*2\r\n$20000\r\n", strings.Repeat("x", 20000), "\r\n$536870912\r\n")},
		{"2^31-1 arguments declared", 64, 4 << 10, text("*2147483647\r\n$1\r\na\r\n")},
		{"100 MiB of PINGs", 1, 128 << 10, func() io.Reader { return repeated(ping, 100<<20) }},
		{"a million arguments, then PING", 1, 64 << 10, text("*1000000\r\n", empty, ping)},
		{"a million arguments", 1, 64 << 10, text("*1000000\r\n", empty)},
		{"a million arguments and PINGs in one read", 1, 64 << 10, text("*1000000\r\n" + empty + strings.Repeat(ping, 100000))},
		{"a million arguments and PINGs, one more", 1, 64 << 10, text("*1000000\r\n" + empty + strings.Repeat(ping, 100001))},
		{"a million arguments and 40 KiB of a command", 1, 160 << 10, text("*1000000\r\n" + empty + "*1\r\n$50000\r\n" + strings.Repeat("x", 40<<10))},
		{"a 64 MiB SET, then 40 KiB of a command", 1, 160 << 10, func() io.Reader {
			return join(set64(), "\r\n*1\r\n$50000\r\n"+strings.Repeat("x", 40<<10))
		}},
		{"5,000 arguments, again and again", 1, 64 << 10, func() io.Reader { return repeated("*5000\r\n"+empty[:6*5000], 10*30007) }},
		{"15,000 inline arguments", 1, 64 << 10, text(strings.Repeat("a ", 15000)+"\n", strings.Repeat("b ", 15000)+"\n", ping)},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			srcs := make([]io.Reader, r.n)
			for i := range srcs {
				srcs[i] = r.src()
			}
			ps := make([]*Parser, r.n)
			before := heap()
			for i := range ps {
				ps[i] = serve(t, srcs[i])
			}
			held := (heap() - before) / int64(r.n)
			runtime.KeepAlive(ps)
			runtime.KeepAlive(srcs)
			if t.Logf("%d bytes held", held); held > r.max {
				t.Errorf("got %d bytes held, want at most %d", held, r.max)
			}
		})
	}
	runtime.KeepAlive(empty)
}

// TestParseMemory: what a Command holds that Parse has read many arguments into.
func TestParseMemory(t *testing.T) {
	var p Parser
	b := []byte("*1000000\r\n" + strings.Repeat("$0\r\n\r\n", 1e6))
	before := heap()
	c, n, err := p.Parse(b)
	if n != len(b) || err != nil {
		t.Fatalf("got %d, %v, want %d, nil", n, err, len(b))
	}
	c.Args()
	if _, n, err := p.Parse(nil); n != 0 || err != nil {
		t.Fatalf("got %d, %v of nothing, want 0, nil", n, err)
	}
	held := heap() - before
	runtime.KeepAlive(&p)
	runtime.KeepAlive(b)
	if held > 10<<10 {
		t.Errorf("got %d bytes held, want at most %d", held, 10<<10)
	}
}

// TestMemoryOverTotal: the buffer has not more than Total and the byte that is one too many.
func TestMemoryOverTotal(t *testing.T) {
	for _, total := range []int{100, 64 << 10, 100_000, 1 << 20} {
		p := NewParser(io.MultiReader(strings.NewReader("*1000000\r\n"), repeated("$0\r\n\r\n", 6_000_000)))
		p.SetLimits(Limits{Total: total})
		_, err := p.ReadCommand()
		if max := max(total+1, maxHome); !errors.Is(err, ErrTooBig) || len(p.buf.data) > max {
			t.Errorf("Total %d: got %v with a buffer of %d, want %v and at most %d", total, err, len(p.buf.data), ErrTooBig, max)
		}
	}
}

// TestMemoryAfterReset: what a pooled Parser holds of a command that never ended.
func TestMemoryAfterReset(t *testing.T) {
	in := "*1000000\r\n" + strings.Repeat("$0\r\n\r\n", 999999)
	before := heap()
	p := serve(t, strings.NewReader(in))
	p.Reset(nil)
	held := heap() - before
	runtime.KeepAlive(p)
	runtime.KeepAlive(in)
	if held > 64<<10 {
		t.Errorf("got %d bytes held, want at most %d", held, 64<<10)
	}
}

// TestMemoryTurnover: all memory that one large command asks for, together, is a small multiple of
// its bytes, however small the pieces are in which they come.
func TestMemoryTurnover(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	in := request(numbered(200000)...)
	p := NewParser(&source{data: []byte(in), size: 1448})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	next(t, p)
	runtime.ReadMemStats(&after)
	if got, max := after.TotalAlloc-before.TotalAlloc, uint64(8*len(in)); got > max {
		t.Errorf("got %d bytes asked for by a command of %d, want at most %d", got, len(in), max)
	}
}

// TestLargeCommandsTakeTurns: memory that large commands leave to each other belongs to one at a time.
func TestLargeCommandsTakeTurns(t *testing.T) {
	many := func(c string) []string {
		return append([]string{c}, strings.Split(strings.Repeat(c+c+" ", 20000), " ")...)
	}
	var cmds batch
	for i := range 12 {
		cmds = append(cmds, many(string(rune('a'+i))))
		for range i * 700 {
			cmds = append(cmds, []string{"SET", "k", string(rune('A' + i))})
		}
	}
	in := wire(cmds...)
	for _, size := range []int{0, 1 << 20, 200000, 50000, 1448} {
		r := row{in: in, want: cmds}
		p := NewParser(&source{data: []byte(in), size: size})
		var got run
		for c := range p.Commands() {
			c.Args()
			c.IsLast()
			got.cmds = append(got.cmds, texts(c))
		}
		if err := p.Err(); err != nil {
			t.Fatal(err)
		}
		if !slices.EqualFunc(got.cmds, r.want, slices.Equal[[]string]) {
			t.Errorf("in reads of %d the commands differ", size)
		}
	}
}

// TestKnownFaults has one row for each fault that RESP servers are known for; a row returns what is
// wrong, if anything is.
func TestKnownFaults(t *testing.T) {
	outcome := func(in string) string {
		var cmds batch
		p := received(in)
		for c := range p.Commands() {
			cmds = append(cmds, texts(c))
		}
		return fmt.Sprintf("%q %v", cmds, p.Err())
	}
	endless := func(prefix, s string) string {
		p := NewParser(io.MultiReader(strings.NewReader(prefix), repeated(s, 1<<30)))
		_, err := p.ReadCommand()
		return fmt.Sprint(err, ", ", len(p.buf.data) <= 256<<10)
	}
	rows := []struct {
		name string
		got  func() string
		want string
	}{
		{"a lone LF panics", func() string { return outcome("\n") }, `[] timeout`},
		{"IsLast after an error panics", func() string {
			c, err := received("*x\r\n").ReadCommand()
			return fmt.Sprint(c.IsLast(), err)
		}, "true ERR Protocol error: invalid multibulk length"},
		{"*-1 desyncs", func() string { return outcome("*-1\r\nPING\n") }, `[["PING"]] timeout`},
		{"$-1 desyncs", func() string { return outcome("*2\r\n$-1\r\n$4\r\nPING\r\n") }, `[] ERR Protocol error: invalid bulk length`},
		{"a count wraps at 2^64", func() string { return outcome("*18446744073709551617\r\n$4\r\nPING\r\n") }, `[] ERR Protocol error: invalid multibulk length`},
		{"a length wraps at 2^64", func() string { return outcome("*1\r\n$18446744073709551620\r\nPING\r\n") }, `[] ERR Protocol error: invalid bulk length`},
		{"endless digits in a count", func() string { return endless("*", "1") }, "ERR Protocol error: too big mbulk count string, true"},
		{"endless zeros in a length", func() string { return endless("*1\r\n$", "0") }, "ERR Protocol error: too big bulk count string, true"},
		{"an endless line", func() string { return endless("", "x") }, "ERR Protocol error: too big inline request, true"},
		{"an inline command shows the one before it", func() string { return outcome("SET key value\nGET k\nA\n") },
			`[["SET" "key" "value"] ["GET" "k"] ["A"]] timeout`},
		{"inline pipelining loses commands", func() string { return outcome(strings.Repeat("A b\r\n", 3) + "C") }, `[["A" "b"] ["A" "b"] ["A" "b"]] timeout`},
		{"a deadline loses bytes", func() string {
			got := pull(NewParser(&source{data: []byte("*1\r\n$4\r\nPING\r\nA 'b c'\n"), size: 3, gap: iotest.ErrTimeout}), true)
			return fmt.Sprintf("%q %v", got.cmds, got.err)
		}, `[["PING"] ["A" "b c"]] EOF`},
		{"half a command withholds the flush", func() string {
			c, err := received("PING\n*1\r\n$4\r\nPI").ReadCommand()
			return fmt.Sprint(c.IsLast(), err)
		}, "true <nil>"},
		{"the buffer never shrinks", func() string {
			p := serve(t, strings.NewReader(request(strings.Repeat("x", 1<<20))+"PING\n"))
			return fmt.Sprint(len(p.buf.data) <= maxHome, p.buf.large == nil)
		}, "true true"},
		{"CR and LF in a reply inject another", func() string {
			var out strings.Builder
			w := NewWriter(&out)
			w.WriteError("ERR a\r\n+b")
			w.WriteSimpleString("c\r\n$1\nd")
			return out.String()
		}, "-ERR a  +b\r\n+c  $1 d\r\n"},
		{"an unsupported value leaves half an array", func() string {
			var out strings.Builder
			err := NewWriter(&out).WriteObjects("a", struct{}{})
			return fmt.Sprint(err != nil, out.Len())
		}, "true 0"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if got := r.got(); got != r.want {
				t.Errorf("got %s, want %s", got, r.want)
			}
		})
	}
}

// TestFormsDoNotMix: Parse refuses a parser that has a reader, and loses nothing of it.
func TestFormsDoNotMix(t *testing.T) {
	p := received("PING\nPONG\n")
	next(t, p)
	if c, n, err := p.Parse([]byte("ECHO\n")); c != nil || n != 0 || err == nil {
		t.Errorf("got %q, %d, %v from Parse, want an error", c.Args(), n, err)
	}
	if got := string(next(t, p).Name()); got != "PONG" {
		t.Errorf("got %q afterwards, want PONG", got)
	}
	r := NewReplyParser(strings.NewReader(":1\r\n"))
	if _, n, err := r.Parse([]byte(":2\r\n")); n != 0 || err == nil {
		t.Errorf("got %d, %v from Parse, want an error", n, err)
	}
	if _, err := r.ReadReply(); err != nil {
		t.Error(err)
	}
	p.Reset(nil)
	if c, n, err := p.Parse([]byte("ECHO\n")); string(c.Name()) != "ECHO" || n != 5 || err != nil {
		t.Errorf("got %q, %d, %v from Parse after Reset, want ECHO", c.Args(), n, err)
	}
}

// TestNoReader: a parser without a reader gives errors and does not panic.
func TestNoReader(t *testing.T) {
	for name, p := range map[string]*Parser{"zero": {}, "nil reader": NewParser(nil)} {
		if c, err := p.ReadCommand(); c != nil || err == nil {
			t.Errorf("%s: got %v, %v, want an error", name, c, err)
		}
		for _, size := range []int{1, 10000} {
			if n, err := p.Rest().Read(make([]byte, size)); n != 0 || err == nil {
				t.Errorf("%s: got %d, %v from Rest, want an error", name, n, err)
			}
		}
		if n, err := io.Copy(io.Discard, p.Rest()); n != 0 || err == nil {
			t.Errorf("%s: got %d, %v from a copy of Rest, want an error", name, n, err)
		}
	}
	for name, p := range map[string]*ReplyParser{"zero": {}, "nil reader": NewReplyParser(nil)} {
		if r, err := p.ReadReply(); r.Kind() != 0 || err == nil {
			t.Errorf("%s: got %v, %v, want an error", name, r.Kind(), err)
		}
	}
}
