package redisproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
)

// A replyRow is a stream of replies, what it holds in the notation of dump, and how it ends.
type replyRow struct {
	name string
	in   string
	want []string
	err  error // io.EOF if nil; otherwise the kind of error
	at   int64 // Offset of a protocol error
	text string
	lim  Limits
}

func bulk(s string) string { return "$" + strconv.Itoa(len(s)) + "\r\n" + s + "\r\n" }

var validReplies = []replyRow{
	{name: "nothing", in: ""},
	{name: "simple strings", in: "+OK\r\n+\r\n+a long line of text\r\n", want: []string{`+"OK"`, `+""`, `+"a long line of text"`}},
	{name: "a simple string of any byte but CR and LF", in: "+" + lineBytes() + "\r\n", want: []string{fmt.Sprintf("+%q", lineBytes())}},
	{name: "errors", in: "-ERR no\r\n-\r\n", want: []string{`-"ERR no"`, `-""`}},
	{name: "integers", in: ":0\r\n:1\r\n:-1\r\n:1234567\r\n:-123456\r\n:12345678\r\n:9223372036854775807\r\n:-9223372036854775808\r\n",
		want: []string{":0", ":1", ":-1", ":1234567", ":-123456", ":12345678", ":9223372036854775807", ":-9223372036854775808"}},
	{name: "integers with a plus or zeros in front", in: ":+5\r\n:007\r\n:-0\r\n:00000000000000000000009\r\n", want: []string{":5", ":7", ":0", ":9"}},
	{name: "bulk strings", in: "$0\r\n\r\n$5\r\nhello\r\n$2\r\n\r\n\r\n", want: []string{`$""`, `$"hello"`, `$"\r\n"`}},
	{name: "bulk strings with long headers", in: bulk(strings.Repeat("x", 999)) + bulk(strings.Repeat("y", 1000)) + bulk(strings.Repeat("z", 40000)),
		want: []string{fmt.Sprintf("$%q", strings.Repeat("x", 999)), fmt.Sprintf("$%q", strings.Repeat("y", 1000)), fmt.Sprintf("$%q", strings.Repeat("z", 40000))}},
	{name: "nulls", in: "$-1\r\n*-1\r\n_\r\n*3\r\n$-1\r\n*-1\r\n_\r\n", want: []string{"_", "_", "_", "*[_ _ _]"}},
	{name: "booleans", in: "#t\r\n#f\r\n", want: []string{"#true", "#false"}},
	{name: "doubles", in: ",1.5\r\n,-0.25\r\n,10\r\n,+1e5\r\n,1.5E-3\r\n,inf\r\n,-inf\r\n,nan\r\n,-nan\r\n,-0\r\n,01\r\n",
		want: []string{",1.5", ",-0.25", ",10", ",100000", ",0.0015", ",+Inf", ",-Inf", ",NaN", ",NaN", ",-0", ",1"}},
	{name: "big numbers", in: "(3492890328409238509324850943850943825024385\r\n(-1\r\n(+0\r\n", want: []string{"(3492890328409238509324850943850943825024385", "(-1", "(0"}},
	{name: "bulk errors", in: "!21\r\nSYNTAX invalid\r\nsyntax\r\n!0\r\n\r\n"[:30] + "!0\r\n\r\n", err: ErrCRLF, at: 26},
	{name: "bulk errors of two lines", in: "!11\r\nERR a\r\nline\r\n!0\r\n\r\n", want: []string{`!"ERR a\r\nline"`, `!""`}},
	{name: "verbatim strings", in: "=15\r\ntxt:Some string\r\n=4\r\nmkd:\r\n", want: []string{`=txt"Some string"`, `=mkd""`}},
	{name: "empty aggregates", in: "*0\r\n%0\r\n~0\r\n>0\r\n", want: []string{"*[]", "%[]", "~[]", ">[]"}},
	{name: "arrays", in: "*2\r\n+a\r\n:1\r\n*1\r\n*1\r\n*1\r\n:5\r\n", want: []string{`*[+"a" :1]`, "*[*[*[:5]]]"}},
	{name: "an array of empty ones", in: "*3\r\n*0\r\n%0\r\n*0\r\n:1\r\n", want: []string{"*[*[] %[] *[]]", ":1"}},
	{name: "siblings behind nested ones", in: "*3\r\n*2\r\n:1\r\n*1\r\n:2\r\n$1\r\na\r\n%1\r\n~1\r\n_\r\n*0\r\n",
		want: []string{`*[*[:1 *[:2]] $"a" %[~[_] *[]]]`}},
	{name: "maps", in: "%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n:2\r\n:3\r\n", want: []string{`%[+"a" :1 +"b" %[:2 :3]]`}},
	{name: "sets and pushes", in: "~2\r\n:1\r\n:2\r\n>3\r\n+message\r\n+ch\r\n$2\r\nhi\r\n", want: []string{"~[:1 :2]", `>[+"message" +"ch" $"hi"]`}},
	{name: "a push in an array, as EXEC has it", in: "*1\r\n>1\r\n:1\r\n", want: []string{"*[>[:1]]"}},
	{name: "every kind in an array", in: "*14\r\n+a\r\n-b\r\n:3\r\n$1\r\nd\r\n*1\r\n:5\r\n_\r\n#t\r\n,8\r\n(9\r\n!2\r\nEE\r\n=5\r\ntxt:f\r\n%1\r\n:1\r\n:2\r\n~1\r\n:3\r\n>1\r\n:4\r\n",
		want: []string{`*[+"a" -"b" :3 $"d" *[:5] _ #true ,8 (9 !"EE" =txt"f" %[:1 :2] ~[:3] >[:4]]`}},
	{name: "attributes", in: "|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n:1\r\n", want: []string{`|+"ttl" :3600|$"v"`, ":1"}},
	{name: "attributes of elements", in: "*3\r\n:1\r\n|2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n*2\r\n:3\r\n|1\r\n:4\r\n:5\r\n:6\r\n:7\r\n",
		want: []string{`*[:1 |+"a" :1 +"b" *[:2]|*[:3 |:4 :5|:6] :7]`}},
	{name: "attributes more than once, empty and of attributes", in: "|1\r\n:1\r\n|1\r\n:2\r\n:3\r\n:4\r\n|0\r\n|1\r\n:5\r\n:6\r\n*1\r\n|0\r\n_\r\n",
		want: []string{"|:1 |:2 :3|:4 :5 :6|*[_]"}},
	{name: "bulks of each short length", in: bulksUpTo(130), want: []string{dumpOfBulksUpTo(130)}},

	{name: "ends in a line", in: "+OK\r", err: io.ErrUnexpectedEOF},
	{name: "ends in a bulk", in: ":1\r\n$4\r\nabc", want: []string{":1"}, err: io.ErrUnexpectedEOF},
	{name: "ends between elements", in: "*2\r\n:1\r\n", err: io.ErrUnexpectedEOF},
	{name: "ends behind attributes", in: "|1\r\n:1\r\n:2\r\n", err: io.ErrUnexpectedEOF},
	{name: "the most elements", in: "*2147483647\r\n:1\r\n", err: io.ErrUnexpectedEOF},
	{name: "the most pairs", in: "%1073741823\r\n:1\r\n", err: io.ErrUnexpectedEOF},
	{name: "the longest bulk", in: "$536870912\r\nabc", err: io.ErrUnexpectedEOF},
}

func lineBytes() string {
	var b []byte
	for i := range 256 {
		if i != '\r' && i != '\n' {
			b = append(b, byte(i))
		}
	}
	return string(b)
}

func bulksUpTo(n int) string {
	s := fmt.Sprintf("*%d\r\n", n)
	for i := range n {
		s += bulk(strings.Repeat("x", i))
	}
	return s
}

func dumpOfBulksUpTo(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("$%q", strings.Repeat("x", i)))
	}
	return "*[" + strings.Join(all, " ") + "]"
}

var malformedReplies = []replyRow{
	{name: "a type that is none", in: "hello\r\n", err: ErrReplyType, text: "ERR Protocol error: invalid reply type, got 'h'"},
	{name: "a line end", in: ":1\r\n\r\n", want: []string{":1"}, err: ErrReplyType, at: 4, text: "ERR Protocol error: invalid reply type, got ' '"},
	{name: "a type that is none in an array", in: "*2\r\n:1\r\nx", err: ErrReplyType, at: 8},
	{name: "a streamed bulk", in: "$?\r\n", err: ErrReplyType, text: "ERR Protocol error: invalid reply type, got '$' with a length of '?'"},
	{name: "a streamed bulk's part", in: ";4\r\n", err: ErrReplyType},
	{name: "streamed aggregates", in: "*1\r\n%?\r\n", err: ErrReplyType, at: 4},
	{name: "a streamed aggregate's end", in: ".\r\n", err: ErrReplyType},
	{name: "CR in a simple string", in: "+a\rb\r\n", err: ErrCRLF, at: 2, text: "ERR Protocol error: invalid CRLF in reply"},
	{name: "LF in a simple string", in: "+a\nb\r\n", err: ErrCRLF, at: 2},
	{name: "CR in a short string", in: "+\r\r\n:123456789\r\n", err: ErrCRLF, at: 1},
	{name: "LF in a short error", in: "-a\n\r\n:123456789\r\n", err: ErrCRLF, at: 2},
	{name: "LF alone", in: ":1\n", err: ErrCRLF, at: 2},
	{name: "two CR", in: "+a long line of text\r\r\n", err: ErrCRLF, at: 20},
	{name: "a bulk that is longer", in: "$2\r\nabc\r\n", err: ErrCRLF, at: 6},
	{name: "a bulk that is longer, in an array", in: "*2\r\n$2\r\nabc\r\n", err: ErrCRLF, at: 10},
	{name: "boolean of neither", in: "#x\r\n", err: ErrReplyValue},
	{name: "boolean in words", in: "#true\r\n", err: ErrReplyValue},
	{name: "boolean of nothing", in: "#\r\n", err: ErrReplyValue},
	{name: "null with a value", in: "_0\r\n", err: ErrReplyValue},
	{name: "verbatim string without a format", in: "=3\r\ntxt\r\n", err: ErrReplyValue},
	{name: "verbatim string without a colon", in: "=5\r\ntext:\r\n", err: ErrReplyValue},
	{name: "too deep", in: strings.Repeat("*1\r\n", 129), err: ErrReplyDepth, at: 4 * 128, text: "ERR Protocol error: too deeply nested reply"},
	{name: "too deep attributes", in: strings.Repeat("|1\r\n", 129), err: ErrReplyDepth, at: 4 * 128},
	{name: "too many elements", in: "*2147483648\r\n", err: ErrMultibulkLength},
	{name: "too many pairs", in: "%1073741824\r\n", err: ErrMultibulkLength},
	{name: "pairs whose double overflows", in: "%9223372036854775807\r\n", err: ErrMultibulkLength},
	{name: "too many elements together", in: "*2147483647\r\n*1\r\n", err: ErrMultibulkLength, at: 13},
	{name: "too long a bulk", in: "$536870913\r\n", err: ErrBulkLength},
	{name: "too long a head", in: "*" + strings.Repeat("1", maxNumber+1), err: ErrMultibulkLength},
}

// numberReplies has texts of numbers that are wrong. Where the text is a value's, the framing is right
// and the conversion is an error. Where it is a length, the reply is.
func numberReplies() (rows []replyRow) {
	for _, n := range []string{"", "-", "+", "1x", "x", " 1", "1 ", "0x1", "--1", "1.", "9223372036854775808", "-9223372036854775809", "99999999999999999999"} {
		rows = append(rows, replyRow{name: "integer " + n, in: ":" + n + "\r\n", want: []string{fmt.Sprintf(":?%q", n)}})
		rows = append(rows, replyRow{name: "integer in an array " + n, in: "*2\r\n:" + n + "\r\n:1234567890\r\n", want: []string{fmt.Sprintf("*[:?%q :1234567890]", n)}})
	}
	for _, n := range []string{"", "-", ".", ".5", "1.", "1e", "1e+", "1.5x", "Inf", "+inf", "infinity", "NaN", "0x1p4", "1_0", " 1", "1,5"} {
		rows = append(rows, replyRow{name: "double " + n, in: "," + n + "\r\n", want: []string{fmt.Sprintf(",?%q", n)}})
	}
	for _, n := range []string{"", "-", "1.5", "1e5", "x", "1 ", "hello", "123  123", strings.Repeat("1", 70_000)} {
		rows = append(rows, replyRow{name: fmt.Sprintf("big number %.20s", n), in: "(" + n + "\r\n", want: []string{fmt.Sprintf("(?%q", n)}})
	}
	for _, n := range []string{"", "-", "+1", "01", "-0", "-2", "x", "1x", "9223372036854775808"} {
		for _, kind := range "$!=" {
			rows = append(rows, replyRow{name: fmt.Sprintf("%c%s", kind, n), in: fmt.Sprintf("%c%s\r\n", kind, n), err: ErrBulkLength})
			rows = append(rows, replyRow{name: fmt.Sprintf("%c%s and more", kind, n), in: fmt.Sprintf("%c%s\r\n\r\n:123456789\r\n", kind, n), err: ErrBulkLength})
		}
		for _, kind := range "*%~>|" {
			rows = append(rows, replyRow{name: fmt.Sprintf("%c%s", kind, n), in: fmt.Sprintf("%c%s\r\n", kind, n), err: ErrMultibulkLength})
		}
	}
	for _, kind := range "!=%~>|" {
		err := ErrBulkLength
		if strings.ContainsRune("%~>|", kind) {
			err = ErrMultibulkLength
		}
		rows = append(rows, replyRow{name: fmt.Sprintf("%c-1", kind), in: fmt.Sprintf("%c-1\r\n", kind), err: err})
	}
	return rows
}

// limitReplies has replies at each limit and over it.
func limitReplies() (rows []replyRow) {
	for _, r := range []struct {
		name, in, want string
		at             Limits // just enough
		over           Limits
		err            error
		pos            int64
	}{
		{"a bulk", "$5\r\nhello\r\n", `$"hello"`, Limits{Bulk: 5}, Limits{Bulk: 4}, ErrBulkLength, 0},
		{"a bulk in an array", "*1\r\n$5\r\nhello\r\n", `*[$"hello"]`, Limits{Bulk: 5}, Limits{Bulk: 4}, ErrBulkLength, 4},
		{"a simple string", "+hello\r\n", `+"hello"`, Limits{Bulk: 5}, Limits{Bulk: 4}, ErrBulkLength, 0},
		{"a long simple string", "+hello world\r\n", `+"hello world"`, Limits{Bulk: 11}, Limits{Bulk: 10}, ErrBulkLength, 0},
		{"an error", "-ERR hello world\r\n", `-"ERR hello world"`, Limits{Bulk: 15}, Limits{Bulk: 14}, ErrBulkLength, 0},
		{"elements", "*2\r\n:1\r\n:2\r\n", "*[:1 :2]", Limits{Args: 2}, Limits{Args: 1}, ErrMultibulkLength, 0},
		{"elements of a map", "%1\r\n:1\r\n:2\r\n", "%[:1 :2]", Limits{Args: 2}, Limits{Args: 1}, ErrMultibulkLength, 0},
		{"elements together", "*1\r\n*1\r\n:2\r\n", "*[*[:2]]", Limits{Args: 2}, Limits{Args: 1}, ErrMultibulkLength, 4},
		{"depth", "*1\r\n%1\r\n:1\r\n*0\r\n", "*[%[:1 *[]]]", Limits{Depth: 3}, Limits{Depth: 2}, ErrReplyDepth, 12},
		{"a line in all", "+hello\r\n", `+"hello"`, Limits{Total: 8}, Limits{Total: 7}, ErrTooBig, 0},
		{"a bulk in all", "$5\r\nhello\r\n", `$"hello"`, Limits{Total: 11}, Limits{Total: 10}, ErrTooBig, 0},
		{"elements in all", "*3\r\n:1\r\n:2\r\n:3\r\n", "*[:1 :2 :3]", Limits{Total: 16}, Limits{Total: 15}, ErrTooBig, 0},
		{"bulks in all", "*2\r\n$1\r\na\r\n$1\r\nb\r\n", `*[$"a" $"b"]`, Limits{Total: 18}, Limits{Total: 17}, ErrTooBig, 0},
	} {
		tail := ":12345\r\n"
		if r.at.Total > 0 && r.at.Total < len(tail) {
			tail = ""
		}
		rows = append(rows,
			replyRow{name: "at the limit: " + r.name, in: r.in, want: []string{r.want}, lim: r.at},
			replyRow{name: "over the limit: " + r.name, in: r.in + tail, err: r.err, at: r.pos, lim: r.over})
	}
	deep := strings.Repeat("*1\r\n", 128) + ":1\r\n"
	return append(rows,
		replyRow{name: "at the default depth", in: deep, want: []string{strings.Repeat("*[", 128) + ":1" + strings.Repeat("]", 128)}},
		replyRow{name: "least limits", in: "+a\r\n", err: ErrTooBig, lim: Limits{Args: math.MinInt, Bulk: math.MinInt, Inline: math.MinInt, Total: math.MinInt, Depth: math.MinInt, Stream: math.MinInt}},
		replyRow{name: "least Bulk", in: "$0\r\n\r\n", err: ErrBulkLength, lim: Limits{Bulk: math.MinInt}},
		replyRow{name: "least Args", in: "*0\r\n", err: ErrMultibulkLength, lim: Limits{Args: math.MinInt}},
		replyRow{name: "least Depth", in: "*0\r\n", err: ErrReplyDepth, lim: Limits{Depth: math.MinInt}},
		replyRow{name: "greatest limits", in: "*1\r\n$1\r\na\r\n", want: []string{`*[$"a"]`}, lim: Limits{Args: math.MaxInt, Bulk: math.MaxInt, Inline: math.MaxInt, Total: math.MaxInt, Depth: math.MaxInt, Stream: math.MaxInt}},
		replyRow{name: "not before AUTH", in: "*11\r\n" + strings.Repeat(":1\r\n", 11), want: []string{"*[" + strings.Repeat(":1 ", 10) + ":1]"}, lim: Limits{Unauthenticated: true}})
}

func allReplies() []replyRow {
	return slices.Concat(validReplies, malformedReplies, numberReplies(), limitReplies())
}

// dump gives a reply as text, and checks that what its methods say goes together.
func dump(t testing.TB, r Reply) string {
	var b strings.Builder
	attributes := ""
	for k, v := range r.Attributes() {
		attributes += dump(t, k) + " " + dump(t, v) + " "
	}
	if attributes != "" {
		b.WriteString("|" + strings.TrimSuffix(attributes, " ") + "|")
	}
	kind := r.Kind()
	b.WriteByte(byte(kind))
	switch kind {
	case SimpleString, SimpleError, BulkString, BulkError:
		fmt.Fprintf(&b, "%q", r.Bytes())
	case VerbatimString:
		fmt.Fprintf(&b, "%s%q", r.Format(), r.Bytes())
	case Integer:
		n, err := r.Int()
		writeValue(&b, n, err, r)
	case Double:
		f, err := r.Float()
		writeValue(&b, strconv.FormatFloat(f, 'g', -1, 64), err, r)
	case BigNumber:
		n, err := r.BigInt()
		writeValue(&b, n, err, r)
	case Boolean:
		v, err := r.Bool()
		writeValue(&b, v, err, r)
	case Array, Map, Set, Push:
		b.WriteString("[" + dumpElements(t, r) + "]")
	}
	return b.String()
}

func dumpElements(t testing.TB, r Reply) string {
	var all []string
	var raw []byte
	i := 0
	for e := range r.All() {
		if at := r.At(i); at != e {
			t.Errorf("At(%d) is %+v, All has %+v", i, at, e)
		}
		all = append(all, dump(t, e))
		raw = append(raw, e.Raw()...)
		i++
	}
	if i != r.Len() {
		t.Errorf("All has %d elements, Len says %d", i, r.Len())
	}
	if !bytes.HasSuffix(r.Raw(), raw) {
		t.Errorf("Raw is %q; its elements' are %q", r.Raw(), raw)
	}
	i = 0
	for k, v := range r.Pairs() {
		if k != r.At(i) || v != r.At(i+1) {
			t.Errorf("pair %d is not At(%d) and what is behind it", i/2, i)
		}
		i += 2
	}
	if i != (r.Len()+1)/2*2 {
		t.Errorf("Pairs has %d pairs of %d elements", i/2, r.Len())
	}
	return strings.Join(all, " ")
}

// writeValue writes a value that was converted, or, behind a question mark, a text that cannot be.
func writeValue(b *strings.Builder, v any, err error, r Reply) {
	if err != nil {
		fmt.Fprintf(b, "?%q", r.Bytes())
		return
	}
	fmt.Fprint(b, v)
}

// pullReplies reads all there is, over timeouts, and gives the replies' bytes too.
func pullReplies(t testing.TB, p *ReplyParser) (got []string, raw string, err error) {
	for {
		r, err := p.ReadReply()
		if errors.Is(err, iotest.ErrTimeout) {
			continue
		}
		if err != nil {
			return got, raw, err
		}
		got = append(got, dump(t, r))
		raw += string(r.Raw())
		if clone := r.Clone(); string(clone.Raw()) != string(r.Raw()) || clone.Kind() != r.Kind() {
			t.Errorf("the clone of %q is %q", r.Raw(), clone.Raw())
		}
	}
}

func TestReadReply(t *testing.T) {
	for _, row := range allReplies() {
		t.Run(row.name, func(t *testing.T) {
			want := row.err
			if want == nil {
				want = io.EOF
			}
			chunkings(row.in, func(name string, src io.Reader) {
				p := NewReplyParser(src)
				p.SetLimits(row.lim)
				got, raw, err := pullReplies(t, p)
				if !slices.Equal(got, row.want) {
					t.Errorf("%s: got %q, want %q", name, got, row.want)
				}
				if !errors.Is(err, want) {
					t.Fatalf("%s: error %v, want %v", name, err, want)
				}
				pe, ok := err.(*ProtocolError)
				if ok && (pe.Offset != row.at || row.text != "" && pe.Error() != row.text) {
					t.Errorf("%s: error %q at %d, want %q at %d", name, pe, pe.Offset, row.text, row.at)
				}
				if !ok && !strings.HasPrefix(row.in, raw) || err == io.EOF && raw != row.in {
					t.Errorf("%s: the replies are %q of %q", name, raw, row.in)
				}
				if _, again := p.ReadReply(); ok && again != ErrBroken {
					t.Errorf("%s: after a protocol error: %v, want %v", name, again, ErrBroken)
				}
			})
		})
	}
}

// readReply reads the one reply that in is.
func readReply(t testing.TB, in string) Reply {
	t.Helper()
	r, err := NewReplyParser(strings.NewReader(in)).ReadReply()
	if err != nil {
		t.Fatalf("ReadReply of %q: %v", in, err)
	}
	return r
}

func TestReplyConversions(t *testing.T) {
	const no = "error"
	for _, row := range []struct{ in, i, f, b, big, text string }{
		{":1\r\n", "1", "1", "true", "1", "1"},
		{":0\r\n", "0", "0", "false", "0", "0"},
		{":-12\r\n", "-12", "-12", no, "-12", "-12"},
		{":01\r\n", "1", "1", no, "1", "01"},
		{"$2\r\n12\r\n", "12", "12", no, "12", "12"},
		{"$1\r\n1\r\n", "1", "1", no, "1", "1"},
		{"$4\r\n-inf\r\n", no, "-Inf", no, no, "-inf"},
		{"$3\r\n0x1\r\n", no, no, no, no, "0x1"},
		{"$0\r\n\r\n", no, no, no, no, ""},
		{"+3.5\r\n", no, "3.5", no, no, "3.5"},
		{"+OK\r\n", no, no, no, no, "OK"},
		{"#t\r\n", no, no, "true", no, "t"},
		{"#f\r\n", no, no, "false", no, "f"},
		{",1.5\r\n", no, "1.5", no, no, "1.5"},
		{",1e400\r\n", no, no, no, no, "1e400"},
		{",10\r\n", "10", "10", no, "10", "10"},
		{"(12345678901234567890\r\n", no, "1.2345678901234567e+19", no, "12345678901234567890", "12345678901234567890"},
		{"=6\r\ntxt:42\r\n", "42", "42", no, "42", "42"},
		{"-ERR 1\r\n", no, no, no, no, "ERR 1"},
		{"!1\r\n1\r\n", no, no, no, no, "1"},
		{"$-1\r\n", no, no, no, no, "nil"},
		{"*-1\r\n", no, no, no, no, "nil"},
		{"_\r\n", no, no, no, no, "nil"},
		{"*1\r\n:1\r\n", no, no, no, no, "nil"},
		{"%0\r\n", no, no, no, no, "nil"},
		{"", no, no, no, no, "nil"},
	} {
		var r Reply
		if row.in != "" {
			r = readReply(t, row.in)
		}
		for _, c := range []struct {
			name, want string
			convert    func() (any, error)
		}{
			{"Int", row.i, func() (any, error) { return r.Int() }},
			{"Float", row.f, func() (any, error) { return r.Float() }},
			{"Bool", row.b, func() (any, error) { return r.Bool() }},
			{"BigInt", row.big, func() (any, error) { return r.BigInt() }},
		} {
			v, err := c.convert()
			got := fmt.Sprint(v)
			if err != nil {
				got = no
			}
			if got != c.want {
				t.Errorf("%s of %q: got %s (%v), want %s", c.name, row.in, got, err, c.want)
			}
			var re *ReplyError
			if isErr := r.Err() != nil; err != nil && errors.As(err, &re) != isErr {
				t.Errorf("%s of %q: error %v, want the server's: %t", c.name, row.in, err, isErr)
			}
		}
		text := "nil"
		if b := r.Bytes(); b != nil {
			text = string(b)
		}
		if text != row.text {
			t.Errorf("Bytes of %q: got %q, want %q", row.in, text, row.text)
		}
		if isNull := row.in == "$-1\r\n" || row.in == "*-1\r\n" || row.in == "_\r\n"; r.IsNull() != isNull {
			t.Errorf("IsNull of %q: got %t, want %t", row.in, r.IsNull(), isNull)
		}
	}
	long := readReply(t, bulk(strings.Repeat("1", maxLine+1)))
	if _, err := long.BigInt(); err == nil || len(err.Error()) > 200 {
		t.Errorf("BigInt of a very long number: error %v, want a short one", err)
	}
}

func TestReplyError(t *testing.T) {
	for _, row := range []struct{ in, code, message, text string }{
		{"-ERR unknown command\r\n", "ERR", "unknown command", "ERR unknown command"},
		{"-MOVED 3999 127.0.0.1:6381\r\n", "MOVED", "3999 127.0.0.1:6381", "MOVED 3999 127.0.0.1:6381"},
		{"-my error\r\n", "", "my error", "my error"},
		{"-LOADING\r\n", "LOADING", "", "LOADING"},
		{"-\r\n", "", "", ""},
		{"!14\r\nSYNTAX a\r\nb c\n\r\n", "SYNTAX", "a\r\nb c\n", "SYNTAX a\r\nb c\n"},
	} {
		err := readReply(t, row.in).Err()
		var re *ReplyError
		if !errors.As(err, &re) {
			t.Errorf("Err of %q: got %v, want a ReplyError", row.in, err)
			continue
		}
		if *re != (ReplyError{row.code, row.message}) || re.Error() != row.text {
			t.Errorf("Err of %q: got %q %+v, want %q", row.in, re, *re, row)
		}
	}
	for _, in := range []string{"+ERR\r\n", "$-1\r\n", "*1\r\n-ERR\r\n"} {
		if err := readReply(t, in).Err(); err != nil {
			t.Errorf("Err of %q: got %v, want nil", in, err)
		}
	}
}

// checkNoReply checks that r is no reply, and can be asked anything.
func checkNoReply(t *testing.T, what string, r Reply) {
	t.Helper()
	for range r.All() {
		t.Errorf("%s has an element", what)
	}
	for range r.Pairs() {
		t.Errorf("%s has a pair", what)
	}
	for range r.Attributes() {
		t.Errorf("%s has attributes", what)
	}
	_, err := r.Int()
	if r.Kind() != 0 || r.IsNull() || r.Bytes() != nil || r.Format() != nil || r.Len() != 0 || r.Raw() != nil || r.Err() != nil || err == nil {
		t.Errorf("%s is %v %q %q", what, r.Kind(), r.Bytes(), r.Raw())
	}
	if r.At(0).Kind() != 0 || r.Clone().Kind() != 0 {
		t.Errorf("%s has an element or a clone", what)
	}
}

func TestNoReply(t *testing.T) {
	checkNoReply(t, "the zero Reply", Reply{})
	array := readReply(t, "*2\r\n:1\r\n*1\r\n:2\r\n")
	for _, i := range []int{-1, 2, math.MaxInt, math.MinInt} {
		checkNoReply(t, fmt.Sprintf("element %d of 2", i), array.At(i))
	}
	checkNoReply(t, "an element of an integer", array.At(0).At(0))
	for key, value := range readReply(t, "*1\r\n:1\r\n").Pairs() {
		if n, _ := key.Int(); n != 1 {
			t.Errorf("the odd key is %q", key.Raw())
		}
		checkNoReply(t, "the value that is not there", value)
	}
}

// Elements end with the reply; a clone does not, and its bytes are its own.
func TestReplyLifetime(t *testing.T) {
	const in = "*3\r\n$1\r\na\r\n|1\r\n:1\r\n:2\r\n*1\r\n$1\r\nb\r\n:3\r\n"
	p := NewReplyParser(strings.NewReader(in + in + "*0\r\n"))
	for range 2 {
		r, err := p.ReadReply()
		if err != nil {
			t.Fatal(err)
		}
		first, nested, clone, part := r.At(0), r.At(1), r.Clone(), r.At(1).Clone()
		view := first.Bytes()
		if cap(view) != len(view) {
			t.Errorf("an append to a view reaches %d bytes further", cap(view)-len(view))
		}
		p.ReadReply()
		checkNoReply(t, "an element of the last reply", first)
		checkNoReply(t, "an array of the last reply", nested)
		if got, want := dump(t, clone), `*[$"a" |:1 :2|*[$"b"] :3]`; got != want {
			t.Errorf("clone: got %s, want %s", got, want)
		}
		if got, want := dump(t, part), `|:1 :2|*[$"b"]`; got != want {
			t.Errorf("clone of an element: got %s, want %s", got, want)
		}
		if raceEnabled && string(view) != "?" {
			t.Errorf("a view held too long is %q, want it overwritten", view)
		}
		p.Reset(strings.NewReader(in + "*0\r\n"))
	}
}

// Limits that change in the middle of a reply hold for all of it.
func TestReplyLimitsChange(t *testing.T) {
	p := NewReplyParser(&source{data: []byte("*2\r\n$5\r\nhello\r\n:1\r\n"), size: 12, gap: iotest.ErrTimeout})
	for range 2 {
		if _, err := p.ReadReply(); err != iotest.ErrTimeout {
			t.Fatalf("got %v, want a timeout", err)
		}
	}
	p.SetLimits(Limits{Bulk: 4})
	if _, err := p.ReadReply(); !errors.Is(err, ErrBulkLength) {
		t.Errorf("got %v, want %v", err, ErrBulkLength)
	}
}

// Nothing is allocated for a reply of any shape, read or walked over, once the buffer has its size.
func TestReadReplyAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	if strings.HasPrefix(runtime.Version(), "go1.23") {
		t.Skip("Go 1.23 allocates for a range over All, Pairs and Attributes in a recursive function")
	}
	shapes := []struct{ name, bytes string }{
		{"every kind", "*11\r\n+a\r\n:3\r\n$-1\r\n_\r\n#t\r\n,8.25\r\n(9\r\n=5\r\ntxt:f\r\n|1\r\n:1\r\n:2\r\n%1\r\n:1\r\n:2\r\n~1\r\n:3\r\n>1\r\n:4\r\n"},
		{"error", "-ERR no such key\r\n"},
		{"deep", strings.Repeat("*2\r\n:1\r\n", 127) + "*0\r\n"},
		{"nulls", "*5000\r\n" + strings.Repeat("_\r\n", 5000)},
		{"many", "*20000\r\n" + strings.Repeat("*1\r\n+a\r\n", 20000)},
		{"many in the small buffer", "*7000\r\n" + strings.Repeat("*0\r\n", 7000)},
		{"bulk1m", bulk(strings.Repeat("x", 1<<20))},
	}
	for _, reply := range append(shapes, benchReplies...) {
		for _, size := range []int{16 << 10, 1448} {
			p := NewReplyParser(newEndless(reply.bytes, size))
			read := func() {
				if _, err := walk(p); err != nil {
					t.Fatal(err)
				}
			}
			for range 200 {
				read()
			}
			if n := testing.AllocsPerRun(100, read); n > 0 {
				t.Errorf("%s in reads of %d: %v allocations, want 0", reply.name, size, n)
			}
		}
	}
}

// walk reads a reply and looks at each value in it.
func walk(p *ReplyParser) (sum int, err error) {
	r, err := p.ReadReply()
	if err != nil {
		return 0, err
	}
	return look(r), nil
}

func look(r Reply) (sum int) {
	for k, v := range r.Attributes() {
		sum += len(k.Bytes()) + len(v.Bytes())
	}
	switch r.Kind() {
	case Integer:
		n, _ := r.Int()
		return int(n)
	case Double:
		f, _ := r.Float()
		return int(f)
	case Boolean:
		if v, _ := r.Bool(); v {
			return 1
		}
	case Map:
		for k, v := range r.Pairs() {
			sum += look(k) + look(v)
		}
	case Array:
		for i := range r.Len() {
			sum += len(r.At(i).Raw())
			if i == 10 {
				break
			}
		}
		fallthrough
	case Set, Push:
		for e := range r.All() {
			sum += look(e)
		}
	}
	return sum + len(r.Bytes()) + len(r.Raw())
}

// allocated returns how many bytes f has allocated.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A length that is only declared costs no memory.
func TestReadReplyDeclared(t *testing.T) {
	const most = 64 << 10
	for _, in := range []string{
		"*2147483647\r\n", "%1073741823\r\n", "~2147483647\r\n:1\r\n", ">2147483647\r\n", "|1073741823\r\n",
		"$536870912\r\n", "=536870912\r\ntxt:", "!536870912\r\nERR",
		strings.Repeat("*16000000\r\n", 128), "*2147483647\r\n$536870912\r\nx",
	} {
		var err error
		got := allocated(func() { _, err = NewReplyParser(strings.NewReader(in)).ReadReply() })
		if err != io.ErrUnexpectedEOF || got > most {
			t.Errorf("%.20q: %d bytes allocated and %v, want at most %d and %v", in, got, err, most, io.ErrUnexpectedEOF)
		}
	}
}

// A large reply costs its size and what growing to a quarter of it took; after it the parser is small.
func TestReadReplyMemory(t *testing.T) {
	const size = 64 << 20
	for _, row := range []struct {
		name, in string
		most     uint64
	}{
		{"bulk", bulk(strings.Repeat("x", size)), size + size/2 + 64<<10},
		{"bulk in an array", "*2\r\n:1\r\n" + bulk(strings.Repeat("x", size)), size + size/2 + 64<<10},
		{"bulks in nested arrays", "*64\r\n" + strings.Repeat("*1\r\n"+bulk(strings.Repeat("x", 64<<10)), 64), 16<<20 + 64<<10},
		{"integers", "*1000000\r\n" + strings.Repeat(":1\r\n", 1e6), 64 << 20},
	} {
		src := strings.NewReader(row.in + "+OK\r\n+OK\r\n")
		p := NewReplyParser(src)
		got := allocated(func() {
			if _, err := p.ReadReply(); err != nil {
				t.Fatal(row.name, err)
			}
		})
		if got > row.most {
			t.Errorf("%s: %d bytes allocated for %d, want at most %d", row.name, got, len(row.in), row.most)
		}
		for range 2 {
			if _, err := p.ReadReply(); err != nil {
				t.Fatal(row.name, err)
			}
		}
		if len(p.buf.data) > maxHome || p.buf.large != nil || cap(p.rec.found.s) > maxKept || cap(p.rec.open) > maxKept {
			t.Errorf("%s: afterwards a buffer of %d bytes, %d values, %d levels", row.name, len(p.buf.data), cap(p.rec.found.s), cap(p.rec.open))
		}
	}
}

// One reply in the reads of a slow network: its time must grow as its size does.
func BenchmarkReadReplyInPieces(b *testing.B) {
	for _, n := range []int{50_000, 100_000} {
		b.Run("elements="+strconv.Itoa(n), func(b *testing.B) {
			reply := fmt.Sprintf("*%d\r\n", n) + strings.Repeat("*1\r\n"+bulk("value"), n)
			p := NewReplyParser(newEndless(reply, 1448))
			benchmark(b, len(reply), func() error {
				_, err := p.ReadReply()
				return err
			})
		})
	}
}

func TestWriteCommand(t *testing.T) {
	type named string
	for _, row := range []struct {
		name string
		args []any
		want string // "" if it is refused
	}{
		{"strings and bytes", []any{"SET", []byte("k"), "", []byte(nil), []byte{}}, request("SET", "k", "", "", "")},
		{"integers", []any{"A", 1, int8(-2), int16(3), int32(4), int64(math.MinInt64), uint(6), uint8(7), uint16(8), uint32(9), uint64(math.MaxUint64)},
			request("A", "1", "-2", "3", "4", "-9223372036854775808", "6", "7", "8", "9", "18446744073709551615")},
		{"floats", []any{"A", 1.5, float32(0.1), 1e100, math.Inf(-1), -0.0001}, request("A", "1.5", "0.1", "1e+100", "-inf", "-0.0001")},
		{"a long one", []any{"ECHO", strings.Repeat("x", 100_000)}, request("ECHO", strings.Repeat("x", 100_000))},
		{"nothing", nil, ""},
		{"nil", []any{"SET", "k", nil}, ""},
		{"a bool", []any{"SET", "k", true}, ""},
		{"a type of one's own", []any{"SET", named("k")}, ""},
		{"a slice", []any{"MGET", []string{"a"}}, ""},
		{"an error", []any{"SET", "k", io.EOF}, ""},
		{"a complex number", []any{"SET", 1i}, ""},
	} {
		for _, buffered := range []bool{false, true} {
			var out bytes.Buffer
			var dst io.Writer = &out
			if buffered {
				dst = bufio.NewWriterSize(&out, 64)
			}
			w := NewWriter(dst)
			err := w.WriteCommand(row.args...)
			if ferr := w.Flush(); ferr != nil {
				t.Errorf("%s: Flush: %v", row.name, ferr)
			}
			if (err != nil) != (row.want == "") || out.String() != row.want {
				t.Errorf("%s: got %.80q, %v, want %.80q", row.name, out.String(), err, row.want)
			}
			if err := w.WriteCommand("PING"); err != nil {
				t.Errorf("%s: the next command: %v", row.name, err)
			}
		}
	}
}

func TestWriteCommandAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	w := NewWriter(bufio.NewWriter(io.Discard))
	args := []any{"SET", []byte("key"), strings.Repeat("x", 1000), 123456, 1.5, uint64(math.MaxUint64)}
	if n := testing.AllocsPerRun(100, func() { w.WriteCommand(args...) }); n > 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

// What the Writer writes, in both protocols, ReadReply reads to the same.
func TestReplyRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 5000)
	huge, _ := new(big.Int).SetString("-123456789012345678901234567890", 10)
	for _, row := range []struct {
		name  string
		write func(*Writer) error
		want2 string
		want3 string // "" if it is the same
	}{
		{"simple string", func(w *Writer) error { return w.WriteSimpleString("O\rK\n") }, `+"O K "`, ""},
		{"error", func(w *Writer) error { return w.WriteError("ERR no\r\n") }, `-"ERR no  "`, ""},
		{"blob error", func(w *Writer) error { return w.WriteBlobError("ERR a\nb") }, `-"ERR a b"`, `!"ERR a\nb"`},
		{"integer", func(w *Writer) error { return w.WriteInt(math.MinInt64) }, ":-9223372036854775808", ""},
		{"bulk", func(w *Writer) error { return w.WriteBulk([]byte("a\r\nb")) }, `$"a\r\nb"`, ""},
		{"long bulk", func(w *Writer) error { return w.WriteBulkString(long) }, fmt.Sprintf("$%q", long), ""},
		{"bulk of a reader", func(w *Writer) error { return w.WriteBulkFrom(strings.NewReader(long), 5000) }, fmt.Sprintf("$%q", long), ""},
		{"null", func(w *Writer) error { return w.WriteNull() }, "_", ""},
		{"null array", func(w *Writer) error { return w.WriteArrayHeader(-1) }, "_", ""},
		{"bool", func(w *Writer) error { return w.WriteBool(true) }, ":1", "#true"},
		{"double", func(w *Writer) error { return w.WriteDouble(-1.5e100) }, `$"-1.5e+100"`, ",-1.5e+100"},
		{"infinity", func(w *Writer) error { return w.WriteDouble(math.Inf(-1)) }, `$"-inf"`, ",-Inf"},
		{"no number", func(w *Writer) error { return w.WriteDouble(math.NaN()) }, `$"nan"`, ",NaN"},
		{"big number", func(w *Writer) error { return w.WriteBigNumber(huge) }, `$"-123456789012345678901234567890"`, "(-123456789012345678901234567890"},
		{"verbatim string", func(w *Writer) error { return w.WriteVerbatim("mkd", "# a") }, `$"# a"`, `=mkd"# a"`},
		{"map", func(w *Writer) error {
			return errors.Join(w.WriteMapHeader(1), w.WriteInt(1), w.WriteBool(false))
		}, "*[:1 :0]", "%[:1 #false]"},
		{"set", func(w *Writer) error { return errors.Join(w.WriteSetHeader(1), w.WriteInt(1)) }, "*[:1]", "~[:1]"},
		{"push", func(w *Writer) error { return errors.Join(w.WritePushHeader(1), w.WriteInt(1)) }, "*[:1]", ">[:1]"},
		{"bulks", func(w *Writer) error { return w.WriteBulks([]byte("a"), nil, []byte{}) }, `*[$"a" _ $""]`, ""},
		{"strings", func(w *Writer) error { return w.WriteBulkStrings([]string{"a", ""}) }, `*[$"a" $""]`, ""},
		{"objects", func(w *Writer) error {
			return w.WriteObjects(nil, 1, "a", []any{io.EOF, []string{}, []any{}}, map[string]any{"k": huge})
		}, `*[_ :1 $"a" *[-"EOF" *[] *[]] *[$"k" $"-123456789012345678901234567890"]]`,
			`*[_ :1 $"a" *[-"EOF" *[] *[]] %[$"k" (-123456789012345678901234567890]]`},
		{"command", func(w *Writer) error { return w.WriteCommand("GET", 1, 1.5) }, `*[$"GET" $"1" $"1.5"]`, ""},
	} {
		for _, version := range []int{2, 3} {
			want := row.want2
			if version == 3 && row.want3 != "" {
				want = row.want3
			}
			var out bytes.Buffer
			w := NewWriter(&out)
			w.SetProtocol(version)
			if err := row.write(w); err != nil {
				t.Fatal(row.name, err)
			}
			if got := dump(t, readReply(t, out.String())); got != want {
				t.Errorf("%s, RESP%d: got %s of %q, want %s", row.name, version, got, out.String(), want)
			}
		}
	}
}

// FuzzReadReply: any stream gives the same however it comes, never panics, and takes memory by the
// bytes that came.
func FuzzReadReply(f *testing.F) {
	for _, row := range allReplies() {
		if len(row.in) < 4096 {
			f.Add([]byte(row.in), uint16(3))
		}
	}
	for _, reply := range benchReplies {
		f.Add([]byte(reply.bytes), uint16(100))
	}
	f.Fuzz(func(t *testing.T, in []byte, size uint16) {
		data := bytes.Clone(in)
		var want []string
		var raw string
		var wantErr error
		cost := allocated(func() {
			p := NewReplyParser(bytes.NewReader(data[:len(data):len(data)]))
			for wantErr == nil {
				_, wantErr = p.ReadReply()
			}
		})
		if most := uint64(1<<20 + 64*len(in)); cost > most {
			t.Errorf("%d bytes allocated for %d, want at most %d", cost, len(in), most)
		}
		want, raw, wantErr = pullReplies(t, NewReplyParser(bytes.NewReader(data)))
		if !strings.HasPrefix(string(in), raw) || wantErr == io.EOF && raw != string(in) {
			t.Errorf("the replies are %q of %q", raw, in)
		}
		got, _, err := pullReplies(t, NewReplyParser(&source{data: data, size: 1 + int(size), gap: iotest.ErrTimeout}))
		if !slices.Equal(got, want) || fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("in pieces of %d: got %q, %v, want %q, %v", 1+int(size), got, err, want, wantErr)
		}
		if a, ok := err.(*ProtocolError); ok && a.Offset != wantErr.(*ProtocolError).Offset {
			t.Errorf("in pieces: error at %d, want %d", a.Offset, wantErr.(*ProtocolError).Offset)
		}
	})
}

// FuzzReplyValue: any line is a number's text, and converts to what strconv and math/big make of it.
func FuzzReplyValue(f *testing.F) {
	for _, n := range []string{"1", "-0", "+12", "1234567", "-123456", "9223372036854775808", "1.5e3", "inf", "-nan", "1.", "_", ""} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n string) {
		line := strings.NewReplacer("\r", "", "\n", "").Replace(n)
		// The number stands alone, behind a value in an array, and with bytes behind it.
		for _, in := range []string{":%s\r\n", "*2\r\n:1\r\n:%s\r\n", "*2\r\n:%s\r\n:123456789\r\n", ":%s\r\n:123456789\r\n"} {
			e := readReply(t, fmt.Sprintf(in, line))
			if e.Kind() == Array {
				e = e.At(strings.Index(in, "%s") / 8)
			}
			want, bad := strconv.ParseInt(line, 10, 64)
			got, err := e.Int()
			if (err != nil) != (bad != nil) || err == nil && got != want || string(e.Bytes()) != line {
				t.Errorf(in+": got %q, %d, %v, want %d, %v", line, e.Bytes(), got, err, want, bad)
			}
		}
		r := readReply(t, "("+line+"\r\n")
		want, ok := new(big.Int).SetString(line, 10)
		if got, err := r.BigInt(); (err == nil) != (ok && len(line) <= maxLine) || err == nil && got.Cmp(want) != 0 {
			t.Errorf("big number %q: got %v, %v, want %v", line, got, err, want)
		}
		f, ferr := readReply(t, ","+line+"\r\n").Float()
		real, rerr := strconv.ParseFloat(strings.Replace(line, "-nan", "nan", 1), 64)
		if !isDouble([]byte(line)) {
			rerr = strconv.ErrSyntax // strconv takes hexadecimal and more
		}
		if (ferr == nil) != (rerr == nil) || ferr == nil && f != real && !(math.IsNaN(f) && math.IsNaN(real)) {
			t.Errorf("double %q: got %v, %v, want %v, %v", line, f, ferr, real, rerr)
		}
	})
}

var benchReplies = []struct{ name, bytes string }{
	{"ok", "+OK\r\n"},
	{"int", ":1\r\n"},
	{"double", ",3.25\r\n"},
	{"double17", ",0.30000000000000004\r\n"},
	{"pair", "*2\r\n" + bulk("message") + bulk("hello")},
	{"bulk16", bulk(strings.Repeat("x", 16))},
	{"bulk1k", bulk(strings.Repeat("x", 1<<10))},
	{"array100", "*100\r\n" + strings.Repeat(bulk("key:000000000001"), 100)},
	{"map50", "%50\r\n" + strings.Repeat(bulk("field:0001")+bulk("value:0000000001"), 50)},
	{"ints100", "*100\r\n" + strings.Repeat(":1234\r\n", 100)},
	{"nested", "*10\r\n" + strings.Repeat("*2\r\n"+bulk("1526985054069-0")+"*4\r\n"+strings.Repeat(bulk("field"), 4), 10)},
}

func BenchmarkReadReply(b *testing.B) {
	for _, reply := range benchReplies {
		name := "reply=" + reply.name
		b.Run(name+"/impl=redisproto", func(b *testing.B) {
			p := NewReplyParser(newEndless(reply.bytes, 16<<10))
			benchmark(b, len(reply.bytes), func() error {
				_, err := p.ReadReply()
				return err
			})
		})
		b.Run(name+"/impl=bufio", func(b *testing.B) {
			p := &plainReplies{plainParser: plainParser{r: bufio.NewReaderSize(newEndless(reply.bytes, 16<<10), 16<<10)}}
			benchmark(b, len(reply.bytes), p.readReply)
		})
	}
}

// plainReplies reads replies as plainParser does commands: values are copied into one slab, in
// order, and ints are parsed.
type plainReplies struct {
	plainParser
	values []plainValue
}

type plainValue struct {
	kind byte
	n    int64  // an integer, or elements
	text []byte // anything else
}

func (p *plainReplies) readReply() error {
	p.slab, p.args, p.values = p.slab[:0], p.args[:0], p.values[:0]
	return p.readValue()
}

func (p *plainReplies) readValue() error {
	line, err := p.readLine()
	if err != nil {
		return err
	}
	v := plainValue{kind: line[0]}
	var n int
	switch v.kind {
	case ':', '$', '*', '%':
		if n, err = strconv.Atoi(string(line[1:])); err != nil {
			return err
		}
		v.n = int64(n)
	default:
		p.slab = append(p.slab, line[1:]...)
		v.text = p.slab[len(p.slab)-len(line)+1:]
	}
	switch v.kind {
	case '$':
		if n < 0 || n > 512<<20 {
			return errPlain
		}
		if err := p.readBulk(n); err != nil {
			return err
		}
		v.text = p.args[len(p.args)-1]
	case '%':
		n *= 2
	}
	p.values = append(p.values, v)
	if v.kind == '*' || v.kind == '%' {
		for range n {
			if err := p.readValue(); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestReplyLinear: many small aggregates cost time and memory in proportion to their bytes.
func TestReplyLinear(t *testing.T) {
	tree := "*1\r\n:1\r\n"
	for range 12 {
		tree = "*2\r\n" + tree + tree
	}
	for name, in := range map[string]string{"attributes": strings.Repeat("|0\r\n", 40000) + ":1\r\n", "a tree": tree} {
		got := allocated(func() {
			if _, err := NewReplyParser(strings.NewReader(in)).ReadReply(); err != nil {
				t.Fatal(err)
			}
		})
		if most := uint64(100 * len(in)); got > most {
			t.Errorf("%s: got %d bytes allocated for a reply of %d, want at most %d", name, got, len(in), most)
		}
	}
}

// TestReplyEndsInLoop: a loop over a reply ends when the parser is read inside it.
func TestReplyEndsInLoop(t *testing.T) {
	const in = "|1\r\n+k\r\n+v\r\n|2\r\n+k2\r\n+v2\r\n+k3\r\n+v3\r\n%3\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n:6\r\n"
	loops := map[string]func(r Reply, read func()){
		"Attributes": func(r Reply, read func()) {
			for range r.Attributes() {
				read()
			}
		},
		"All": func(r Reply, read func()) {
			for range r.All() {
				read()
			}
		},
		"Pairs": func(r Reply, read func()) {
			for range r.Pairs() {
				read()
			}
		},
	}
	for name, loop := range loops {
		for _, rest := range []string{":1\r\n", ""} {
			p := NewReplyParser(strings.NewReader(in + rest))
			r, err := p.ReadReply()
			if err != nil {
				t.Fatal(err)
			}
			bodies := 0
			loop(r, func() {
				if bodies++; bodies == 2 {
					p.ReadReply()
				}
			})
			if bodies != 2 {
				t.Errorf("%s: the body ran %d times, want 2", name, bodies)
			}
		}
	}
}

// TestAttributesAreCounted: a peer cannot send any number of empty attributes.
func TestAttributesAreCounted(t *testing.T) {
	for _, args := range []int{1, -1, math.MinInt} {
		p := NewReplyParser(strings.NewReader(strings.Repeat("|0\r\n", 1_000_000) + ":1\r\n"))
		p.SetLimits(Limits{Args: args, Depth: 1})
		if _, err := p.ReadReply(); !errors.Is(err, ErrMultibulkLength) {
			t.Errorf("Args %d: got %v, want %v", args, err, ErrMultibulkLength)
		}
	}
	p := NewReplyParser(strings.NewReader("|1\r\n+k\r\n+v\r\n*2\r\n:1\r\n:2\r\n"))
	p.SetLimits(Limits{Args: math.MinInt})
	if r, err := p.ReadReply(); !errors.Is(err, ErrMultibulkLength) {
		t.Errorf("got %q, %v, want %v", r.Raw(), err, ErrMultibulkLength)
	}
}
