package redisproto

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

var errBoom = errors.New("boom")

// A reply is one call of a Writer, with the bytes that the call writes in each protocol.
type reply struct {
	name         string
	write        func(w *Writer) error
	resp2, resp3 string // resp3 is empty where it is the same as resp2
}

func (r reply) want(version int) string {
	if version == 3 && r.resp3 != "" {
		return r.resp3
	}
	return r.resp2
}

var replies = slices.Concat(lineReplies, intReplies(), bulkReplies, resp3Replies, headerReplies, arrayReplies, objectReplies(), commandReplies)

var lineReplies = []reply{
	{"simple", func(w *Writer) error { return w.WriteSimpleString("OK") }, "+OK\r\n", ""},
	{"simple empty", func(w *Writer) error { return w.WriteSimpleString("") }, "+\r\n", ""},
	{"simple forged", func(w *Writer) error { return w.WriteSimpleString("a\r\n+b\nc\r") }, "+a  +b c \r\n", ""},
	{"simple long", func(w *Writer) error { return w.WriteSimpleString(strings.Repeat("\n", 5000)) },
		"+" + strings.Repeat(" ", 5000) + "\r\n", ""},
	{"error", func(w *Writer) error { return w.WriteError("ERR no") }, "-ERR no\r\n", ""},
	{"error forged", func(w *Writer) error { return w.WriteError("\r\n+OK\r\n") }, "-  +OK  \r\n", ""},
	{"int", func(w *Writer) error { return w.WriteInt(0) }, ":0\r\n", ""},
	{"int min", func(w *Writer) error { return w.WriteInt(math.MinInt64) }, ":-9223372036854775808\r\n", ""},
	{"int max", func(w *Writer) error { return w.WriteInt(math.MaxInt64) }, ":9223372036854775807\r\n", ""},
	{"raw", func(w *Writer) error { _, err := w.Write([]byte("+a\r\n+b\r\n")); return err }, "+a\r\n+b\r\n", ""},
}

// intReplies are the integers at which the length of the text or the way to write it changes, on
// both sides of zero.
func intReplies() (rows []reply) {
	numbers := []int64{0, math.MaxInt64, math.MinInt64, math.MinInt64 + 1}
	for n := int64(1); ; n *= 10 {
		numbers = append(numbers, n-1, n, n+1)
		if n > math.MaxInt64/10 {
			break
		}
	}
	for _, n := range slices.Clone(numbers) {
		if n != math.MinInt64 {
			numbers = append(numbers, -n)
		}
	}
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		rows = append(rows, reply{fmt.Sprintf("int %d", n), func(w *Writer) error { return w.WriteInt(n) }, fmt.Sprintf(":%d\r\n", n), ""})
	}
	return rows
}

// bulkReplies have binary contents, and lengths about those of the buffers that the tests use.
var bulkReplies = func() (rows []reply) {
	bodies := []string{"", "x", "\r\n+OK\r\n\x00\xff"}
	for _, n := range []int{56, 57, 58, 59, 592, 593, 594, 4064, 4090, 4096, 65537} {
		bodies = append(bodies, strings.Repeat("b", n))
	}
	for _, s := range bodies {
		size := fmt.Sprintf(" of %d", len(s))
		bulk := fmt.Sprintf("$%d\r\n%s\r\n", len(s), s)
		rows = append(rows,
			reply{"bulk" + size, func(w *Writer) error { return w.WriteBulk([]byte(s)) }, bulk, ""},
			reply{"bulk string" + size, func(w *Writer) error { return w.WriteBulkString(s) }, bulk, ""},
			reply{"verbatim" + size, func(w *Writer) error { return w.WriteVerbatim("txt", s) },
				bulk, fmt.Sprintf("=%d\r\ntxt:%s\r\n", len(s)+4, s)},
			reply{"blob error" + size, func(w *Writer) error { return w.WriteBlobError(s) },
				"-" + strings.NewReplacer("\r", " ", "\n", " ").Replace(s) + "\r\n",
				fmt.Sprintf("!%d\r\n%s\r\n", len(s), s)})
	}
	return rows
}()

var resp3Replies = []reply{
	{"null", func(w *Writer) error { return w.WriteNull() }, "$-1\r\n", "_\r\n"},
	{"nil bulk", func(w *Writer) error { return w.WriteBulk(nil) }, "$-1\r\n", "_\r\n"},
	{"true", func(w *Writer) error { return w.WriteBool(true) }, ":1\r\n", "#t\r\n"},
	{"false", func(w *Writer) error { return w.WriteBool(false) }, ":0\r\n", "#f\r\n"},
	double(0, "0"),
	double(math.Copysign(0, -1), "-0"),
	double(-3, "-3"),
	double(0.1, "0.1"),
	double(1.0/3, "0.3333333333333333"),
	double(1e-4, "0.0001"),
	double(1.234e-5, "1.234e-05"),
	double(1<<53, "9007199254740992"),
	double(1e16, "10000000000000000"),
	double(1e17, "1e+17"),
	double(1.5e300, "1.5e+300"),
	double(math.MaxFloat64, "1.7976931348623157e+308"),
	double(math.SmallestNonzeroFloat64, "5e-324"),
	double(-2.2250738585072014e-308, "-2.2250738585072014e-308"),
	double(math.Inf(1), "inf"),
	double(math.Inf(-1), "-inf"),
	double(math.NaN(), "nan"),
	{"big nil", func(w *Writer) error { return w.WriteBigNumber(nil) }, "$-1\r\n", "_\r\n"},
	bigNumber("0"),
	bigNumber("-18446744073709551616"),
	bigNumber("1" + strings.Repeat("0", 1000)),
}

func double(f float64, text string) reply {
	return reply{"double " + text, func(w *Writer) error { return w.WriteDouble(f) },
		fmt.Sprintf("$%d\r\n%s\r\n", len(text), text), "," + text + "\r\n"}
}

func bigNumber(digits string) reply {
	n, _ := new(big.Int).SetString(digits, 10)
	return reply{fmt.Sprintf("big of %d", len(digits)), func(w *Writer) error { return w.WriteBigNumber(n) },
		fmt.Sprintf("$%d\r\n%s\r\n", len(digits), digits), "(" + digits + "\r\n"}
}

var headerReplies = func() (rows []reply) {
	heads := []struct {
		name  string
		write func(*Writer, int) error
		kind  string
	}{
		{"array", (*Writer).WriteArrayHeader, "*"},
		{"map", (*Writer).WriteMapHeader, "%"},
		{"set", (*Writer).WriteSetHeader, "~"},
		{"push", (*Writer).WritePushHeader, ">"},
	}
	for _, h := range heads {
		for _, n := range []int{0, 1, math.MaxInt32, -1, math.MinInt} {
			resp2, resp3 := fmt.Sprintf("*%d\r\n", n), fmt.Sprintf("%s%d\r\n", h.kind, n)
			if h.kind == "%" {
				resp2 = fmt.Sprintf("*%d\r\n", 2*int64(n))
			}
			if n < 0 {
				resp2, resp3 = "*-1\r\n", "_\r\n"
			}
			name := fmt.Sprintf("%s header %d", h.name, n)
			rows = append(rows, reply{name, func(w *Writer) error { return h.write(w, n) }, resp2, resp3})
		}
	}
	return rows
}()

var arrayReplies = []reply{
	{"bulks", func(w *Writer) error { return w.WriteBulks([]byte("a"), nil, []byte{}) },
		"*3\r\n$1\r\na\r\n$-1\r\n$0\r\n\r\n", "*3\r\n$1\r\na\r\n_\r\n$0\r\n\r\n"},
	{"bulks none", func(w *Writer) error { return w.WriteBulks() }, "*-1\r\n", "_\r\n"},
	{"bulks slice nil", func(w *Writer) error { return w.WriteBulksSlice(nil) }, "*-1\r\n", "_\r\n"},
	{"bulks slice empty", func(w *Writer) error { return w.WriteBulksSlice([][]byte{}) }, "*0\r\n", ""},
	{"strings", func(w *Writer) error { return w.WriteBulkStrings([]string{"", "bc"}) },
		"*2\r\n$0\r\n\r\n$2\r\nbc\r\n", ""},
	{"strings nil", func(w *Writer) error { return w.WriteBulkStrings(nil) }, "*-1\r\n", "_\r\n"},
	{"strings empty", func(w *Writer) error { return w.WriteBulkStrings([]string{}) }, "*0\r\n", ""},
	{"objects none", func(w *Writer) error { return w.WriteObjects() }, "*-1\r\n", "_\r\n"},
	{"objects slice nil", func(w *Writer) error { return w.WriteObjectsSlice(nil) }, "*-1\r\n", "_\r\n"},
	{"objects slice empty", func(w *Writer) error { return w.WriteObjectsSlice([]any{}) }, "*0\r\n", ""},
	{"objects mixed", func(w *Writer) error { return w.WriteObjects(1, "b", []any{nil, 2.5}) },
		"*3\r\n:1\r\n$1\r\nb\r\n*2\r\n$-1\r\n$3\r\n2.5\r\n", "*3\r\n:1\r\n$1\r\nb\r\n*2\r\n_\r\n,2.5\r\n"},
	{"bulks large", func(w *Writer) error { return w.WriteBulkStrings([]string{strings.Repeat("b", 600), "c"}) },
		"*2\r\n$600\r\n" + strings.Repeat("b", 600) + "\r\n$1\r\nc\r\n", ""},
}

// objectReplies are arrays of one value, for each type that a value may have.
func objectReplies() (rows []reply) {
	huge := new(big.Int).Lsh(big.NewInt(1), 64)
	deep := any([]any{})
	for range 1000 {
		deep = []any{deep}
	}
	for _, v := range []struct {
		v            any
		resp2, resp3 string
	}{
		{nil, "$-1", "_"},
		{true, ":1", "#t"},
		{false, ":0", "#f"},
		{int8(math.MinInt8), ":-128", ""},
		{int16(math.MinInt16), ":-32768", ""},
		{int32(math.MinInt32), ":-2147483648", ""},
		{int64(math.MinInt64), ":-9223372036854775808", ""},
		{int(math.MaxInt32), ":2147483647", ""},
		{uint8(math.MaxUint8), ":255", ""},
		{uint16(math.MaxUint16), ":65535", ""},
		{uint32(math.MaxUint32), ":4294967295", ""},
		{uint(math.MaxUint32), ":4294967295", ""},
		{uint64(math.MaxInt64), ":9223372036854775807", ""},
		{uint64(1 << 63), "$19\r\n9223372036854775808", "(9223372036854775808"},
		{uint64(math.MaxUint64), "$20\r\n18446744073709551615", "(18446744073709551615"},
		{float32(0.1), "$3\r\n0.1", ",0.1"},
		{float32(math.MaxFloat32), "$13\r\n3.4028235e+38", ",3.4028235e+38"},
		{math.Inf(-1), "$4\r\n-inf", ",-inf"},
		{0.1, "$3\r\n0.1", ",0.1"},
		{huge, "$20\r\n18446744073709551616", "(18446744073709551616"},
		{(*big.Int)(nil), "$-1", "_"},
		{"s\r\n", "$3\r\ns\r\n", ""},
		{[]byte("b"), "$1\r\nb", ""},
		{[]byte{}, "$0\r\n", ""},
		{[]byte(nil), "$-1", "_"},
		{errors.New("ERR a\r\n+b"), "-ERR a  +b", ""},
		{ErrBulkLength, "-ERR Protocol error: invalid bulk length", ""},
		{[]string{"a"}, "*1\r\n$1\r\na", ""},
		{[]string{}, "*0", ""},
		{[]string(nil), "*-1", "_"},
		{[][]byte{nil}, "*1\r\n$-1", "*1\r\n_"},
		{[][]byte(nil), "*-1", "_"},
		{[]any{}, "*0", ""},
		{[]any(nil), "*-1", "_"},
		{deep, strings.Repeat("*1\r\n", 1000) + "*0", ""},
		{map[string]any(nil), "*-1", "_"},
		{map[string]any{}, "*0", "%0"},
		{map[string]any{"b": nil, "a\r\n": map[string]any{"": true}},
			"*4\r\n$3\r\na\r\n\r\n*2\r\n$0\r\n\r\n:1\r\n$1\r\nb\r\n$-1",
			"%2\r\n$3\r\na\r\n\r\n%1\r\n$0\r\n\r\n#t\r\n$1\r\nb\r\n_"},
	} {
		r := reply{name: fmt.Sprintf("object %T %.20v", v.v, v.v), write: func(w *Writer) error { return w.WriteObjects(v.v) }}
		r.resp2 = "*1\r\n" + v.resp2 + "\r\n"
		if v.resp3 != "" {
			r.resp3 = "*1\r\n" + v.resp3 + "\r\n"
		}
		rows = append(rows, r)
	}
	return rows
}

var commandReplies = []reply{
	{"command", func(w *Writer) error { return w.WriteCommand("SET", []byte("k"), []byte(nil), "") }, request("SET", "k", "", ""), ""},
	{"command of integers", func(w *Writer) error {
		return w.WriteCommand("A", -1, int8(2), int16(3), int32(4), int64(math.MinInt64), uint(6), uint8(7), uint16(8), uint32(9), uint64(math.MaxUint64))
	}, request("A", "-1", "2", "3", "4", "-9223372036854775808", "6", "7", "8", "9", "18446744073709551615"), ""},
	{"command of floats", func(w *Writer) error {
		return w.WriteCommand("A", 0.1, float32(0.1), math.Inf(-1), -2.2250738585072014e-308)
	},
		request("A", "0.1", "0.1", "-inf", "-2.2250738585072014e-308"), ""},
	{"command, long", func(w *Writer) error { return w.WriteCommand("ECHO", strings.Repeat("x", 5000)) }, request("ECHO", strings.Repeat("x", 5000)), ""},
}

// Without bytes to write there is no Write, and a large value leaves no large buffer behind.
func TestWriterPlain(t *testing.T) {
	var dst sink
	w := NewWriter(&dst)
	if n, err := w.Write(nil); n != 0 || err != nil || len(dst.got) != 0 {
		t.Errorf("Write(nil): got %d, %v and %d writes, want none", n, err, len(dst.got))
	}
	if err := w.Flush(); err != nil || len(dst.got) != 0 {
		t.Errorf("Flush: got %v and %d writes, want none", err, len(dst.got))
	}
	w.WriteBulk(make([]byte, 1<<20))
	w.WriteObjects(strings.Repeat("x", 1<<20))
	if got := w.bw.Size(); got != ownBuffer {
		t.Errorf("after values of 1 MiB: got a buffer of %d bytes, want %d", got, ownBuffer)
	}
}

// TestWriteInt compares the text of integers with that of package strconv: the powers of two and
// their neighbours, and random numbers of all lengths.
func TestWriteInt(t *testing.T) {
	var numbers []int64
	for i := range 64 {
		p := int64(1) << i
		numbers = append(numbers, p-1, p, p+1, -p-1, -p, -p+1)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		n := int64(random.Uint64()) >> random.IntN(64)
		numbers = append(numbers, n, -n)
	}
	var got bytes.Buffer
	bw := bufio.NewWriter(&got)
	w := NewWriter(bw)
	for _, n := range numbers {
		got.Reset()
		w.WriteInt(n)
		w.Flush()
		if want := ":" + strconv.FormatInt(n, 10) + "\r\n"; got.String() != want {
			t.Fatalf("got %q, want %q", got.String(), want)
		}
	}
}

// A sink keeps the bytes of each Write apart.
type sink struct {
	got   []string
	err   error // what every Write returns
	short int   // how many bytes every Write leaves out without an error
}

func (s *sink) Write(b []byte) (int, error) {
	s.got = append(s.got, string(b))
	return max(len(b)-s.short, 0), s.err
}

// clip quotes s for a message, without the middle if it is long.
func clip(s string) string {
	if len(s) <= 120 {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q...%q (%d bytes)", s[:80], s[len(s)-40:], len(s))
}

// eachReply runs f for each row in both protocols.
func eachReply(t *testing.T, f func(t *testing.T, r reply, version int)) {
	for _, r := range replies {
		for _, version := range []int{2, 3} {
			t.Run(fmt.Sprintf("%s/resp=%d", r.name, version), func(t *testing.T) { f(t, r, version) })
		}
	}
}

// ownBuffer is the size of the buffer that a Writer has for a destination that is no bufio.Writer.
const ownBuffer = 4096

// A call to a Writer without a bufio.Writer has written everything when it returns, in one Write
// if that fits the buffer.
func TestWriterUnbuffered(t *testing.T) {
	eachReply(t, func(t *testing.T, r reply, version int) {
		var dst sink
		w := NewWriter(&dst)
		w.SetProtocol(version)
		for range 2 { // the second time in memory that the first one left
			dst.got = nil
			if err := r.write(w); err != nil {
				t.Fatalf("got error %v", err)
			}
			if got, want := strings.Join(dst.got, ""), r.want(version); got != want {
				t.Fatalf("got %s, want %s", clip(got), clip(want))
			}
			if len(r.want(version)) <= ownBuffer-maxHead && len(dst.got) != 1 {
				t.Fatalf("got %d writes, want 1", len(dst.got))
			}
		}
	})
}

// A reply that begins with a header is made by several calls, each of which is written at once.
func TestWriterUnbufferedHeader(t *testing.T) {
	var dst sink
	w := NewWriter(&dst)
	w.WriteArrayHeader(2)
	w.WriteObjects("a", []any{1, nil})
	w.WriteInt(2)
	if want := []string{"*2\r\n", "*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n", ":2\r\n"}; !slices.Equal(dst.got, want) {
		t.Errorf("got writes %q, want %q", dst.got, want)
	}
}

func TestWriterBuffered(t *testing.T) {
	eachReply(t, func(t *testing.T, r reply, version int) {
		for _, size := range []int{16, 64, 600, 4096} {
			for fill := max(0, size-40); fill <= size; fill++ {
				var dst bytes.Buffer
				bw := bufio.NewWriterSize(&dst, size)
				w := NewWriter(bw)
				w.SetProtocol(version)
				before := strings.Repeat("x", fill)
				w.Write([]byte(before))
				if err := r.write(w); err != nil {
					t.Fatalf("size %d, %d of it full: got error %v", size, fill, err)
				}
				if err := w.Flush(); err != nil {
					t.Fatalf("size %d, %d of it full: Flush: %v", size, fill, err)
				}
				if got, want := dst.String(), before+r.want(version); got != want {
					t.Fatalf("size %d, %d of it full: got %s, want %s", size, fill, clip(got), clip(want))
				}
			}
		}
	})
}

// Nothing is sent before the buffer is full or flushed.
func TestWriterStaysInBuffer(t *testing.T) {
	eachReply(t, func(t *testing.T, r reply, version int) {
		var dst sink
		bw := bufio.NewWriterSize(&dst, 128<<10)
		w := NewWriter(bw)
		w.SetProtocol(version)
		r.write(w)
		if len(dst.got) != 0 || bw.Buffered() != len(r.want(version)) {
			t.Fatalf("got %d writes and %d bytes buffered, want 0 and %d", len(dst.got), bw.Buffered(), len(r.want(version)))
		}
	})
}

func TestWriterErrorSticks(t *testing.T) {
	for _, tc := range []struct {
		name  string
		plain bool
		dst   sink
		want  error
	}{
		{"plain fails", true, sink{err: errBoom}, errBoom},
		{"plain short", true, sink{short: 1}, io.ErrShortWrite},
		{"bufio fails", false, sink{err: errBoom}, errBoom},
		{"bufio short", false, sink{short: 1}, io.ErrShortWrite},
	} {
		eachReply(t, func(t *testing.T, r reply, version int) {
			dst := tc.dst
			w := NewWriter(bufio.NewWriterSize(&dst, 16))
			if tc.plain {
				w = NewWriter(&dst)
			}
			w.SetProtocol(version)
			err := r.write(w)
			if !tc.plain {
				err = w.Flush()
			}
			if err != tc.want {
				t.Fatalf("%s: got %v, want %v", tc.name, err, tc.want)
			}
			sent := len(dst.got)
			if err := errors.Join(r.write(w), w.Flush()); !errors.Is(err, tc.want) {
				t.Errorf("%s: got %v after it, want %v", tc.name, err, tc.want)
			}
			if n, err := w.Write([]byte("x")); n != 0 || err != tc.want {
				t.Errorf("%s: Write after it: got %d, %v, want 0, %v", tc.name, n, err, tc.want)
			}
			if len(dst.got) != sent {
				t.Errorf("%s: got %q after it, want nothing", tc.name, dst.got[sent:])
			}
			dst = sink{}
			w.Reset(&dst)
			if err := w.WriteInt(7); err != nil || !slices.Equal(dst.got, []string{":7\r\n"}) {
				t.Errorf("%s: after Reset: got %q, %v", tc.name, dst.got, err)
			}
		})
	}
}

func TestWriterRefuses(t *testing.T) {
	loop := []any{1, nil}
	loop[1] = loop
	ring := map[string]any{}
	ring["a"] = []any{ring}
	verbatim := func(format string) func(*Writer) error {
		return func(w *Writer) error { return w.WriteVerbatim(format, "text") }
	}
	objects := func(v ...any) func(*Writer) error {
		return func(w *Writer) error { return w.WriteObjects(v...) }
	}
	rows := []reply{
		{name: "format of none", write: verbatim("")},
		{name: "format of 2", write: verbatim("tx")},
		{name: "format of 4", write: verbatim("text")},
		{name: "format with colon", write: verbatim("a:b")},
		{name: "format with CR", write: verbatim("a\rb")},
		{name: "format with LF", write: verbatim("tx\n")},
		{name: "bulk of -1", write: func(w *Writer) error { return w.WriteBulkFrom(strings.NewReader("x"), -1) }},
		{name: "struct", write: objects(1, "a", struct{}{})},
		{name: "chan", write: objects(make(chan int))},
		{name: "func", write: objects(func() {})},
		{name: "complex", write: objects(1i)},
		{name: "uintptr", write: objects(uintptr(1))},
		{name: "pointer", write: objects(new(int))},
		{name: "ints", write: objects([]int{1})},
		{name: "big by value", write: objects(*big.NewInt(1))},
		{name: "in an array", write: objects(1, []any{"a", []any{2, struct{}{}}})},
		{name: "in a map", write: objects(map[string]any{"a": 1, "b": []any{struct{}{}}})},
		{name: "array of itself", write: objects(loop)},
		{name: "array of itself at the top", write: objects(loop...)},
		{name: "map of itself", write: objects(ring)},
	}
	if math.MaxInt > math.MaxInt32 {
		rows = append(rows, reply{name: "map too large", write: func(w *Writer) error { return w.WriteMapHeader(math.MaxInt/2 + 1) }})
	}
	for _, r := range rows {
		for _, version := range []int{2, 3} {
			if version == 3 && r.name == "map too large" {
				continue // RESP3 counts pairs
			}
			t.Run(fmt.Sprintf("%s/resp=%d", r.name, version), func(t *testing.T) {
				var dst sink
				w := NewWriter(&dst)
				w.SetProtocol(version)
				if err := r.write(w); err == nil || len(dst.got) != 0 {
					t.Errorf("got error %v and wrote %q, want an error and nothing written", err, dst.got)
				}
				if err := w.WriteInt(7); err != nil || !slices.Equal(dst.got, []string{":7\r\n"}) {
					t.Errorf("the next reply: got %q, %v", dst.got, err)
				}
			})
		}
	}
}

func TestWritersShareBuffer(t *testing.T) {
	for _, size := range []int{16, 64, 4096} {
		var dst bytes.Buffer
		bw := bufio.NewWriterSize(&dst, size)
		w2, w3 := NewWriter(bw), NewWriter(bw)
		w3.SetProtocol(3)
		want := ""
		for i := range 20 {
			w2.WriteNull()
			bw.WriteString("+between\r\n")
			w3.WriteNull()
			w2.WriteBulkString(strings.Repeat("b", 10*i))
			bw.WriteByte('x')
			w3.WriteBulkFrom(strings.NewReader("0123456789"), 10)
			want += fmt.Sprintf("$-1\r\n+between\r\n_\r\n$%d\r\n%s\r\nx$10\r\n0123456789\r\n", 10*i, strings.Repeat("b", 10*i))
		}
		if err := w2.Flush(); err != nil || dst.String() != want {
			t.Errorf("size %d: got %s, %v, want %s", size, clip(dst.String()), err, clip(want))
		}
	}
}

func TestWriterProtocol(t *testing.T) {
	w := NewWriter(io.Discard)
	for _, tc := range []struct{ set, want int }{{3, 3}, {2, 2}, {3, 3}, {4, 2}, {3, 3}, {0, 2}, {3, 3}, {-1, 2}} {
		if w.SetProtocol(tc.set); w.Protocol() != tc.want {
			t.Errorf("after SetProtocol(%d): got %d, want %d", tc.set, w.Protocol(), tc.want)
		}
	}
	w.SetProtocol(3)
	if w.Reset(io.Discard); w.Protocol() != 2 {
		t.Errorf("after Reset: got %d, want 2", w.Protocol())
	}
}

func TestWriteBulkFrom(t *testing.T) {
	text := func(n int) string { return strings.Repeat("0123456789", n/10) }
	failing := func(s string) io.Reader {
		return io.MultiReader(strings.NewReader(s), iotest.ErrReader(fmt.Errorf("disk: %w", errBoom)))
	}
	for _, tc := range []struct {
		name string
		src  io.Reader
		n    int64
		want string // the contents of the bulk string, if there is no error
		err  error
	}{
		{"exact", strings.NewReader("hello"), 5, "hello", nil},
		{"empty", strings.NewReader(""), 0, "", nil},
		{"nothing of a failing reader", failing(""), 0, "", nil},
		{"more than n", strings.NewReader("hello world"), 5, "hello", nil},
		{"error after n", failing("hello"), 5, "hello", nil},
		{"byte by byte", iotest.OneByteReader(strings.NewReader(text(100))), 100, text(100), nil},
		{"data and EOF in one", iotest.DataErrReader(strings.NewReader(text(100))), 100, text(100), nil},
		{"more than a buffer", strings.NewReader(text(200_000)), 200_000, text(200_000), nil},
		{"ends early", strings.NewReader("hell"), 5, "", io.ErrUnexpectedEOF},
		{"ends at once", strings.NewReader(""), 5, "", io.ErrUnexpectedEOF},
		{"ends early, large", strings.NewReader(text(150_000)), 200_000, "", io.ErrUnexpectedEOF},
		{"fails", failing("hell"), 5, "", errBoom},
		{"fails at once", failing(""), 5, "", errBoom},
		{"fails, large", failing(text(150_000)), 200_000, "", errBoom},
	} {
		all, _ := io.ReadAll(tc.src)
		srcErr := error(nil)
		if tc.err == errBoom || strings.Contains(tc.name, "fail") || tc.name == "error after n" {
			srcErr = errBoom
		}
		for _, size := range []int{0, 16, 4096, 1 << 20} { // 0 means no bufio.Writer
			t.Run(fmt.Sprintf("%s/buffer=%d", tc.name, size), func(t *testing.T) {
				src := io.Reader(bytes.NewReader(all))
				if srcErr != nil {
					src = failing(string(all))
				}
				testBulkFrom(t, src, size, tc.n, tc.want, tc.err)
			})
		}
	}
}

func testBulkFrom(t *testing.T, src io.Reader, size int, n int64, want string, wantErr error) {
	var dst sink
	var bw *bufio.Writer
	w := NewWriter(&dst)
	if size > 0 {
		bw = bufio.NewWriterSize(&dst, size)
		w = NewWriter(bw)
	}
	err := w.WriteBulkFrom(src, n)
	if !errors.Is(err, wantErr) {
		t.Fatalf("got error %v, want %v", err, wantErr)
	}
	if wantErr == nil {
		w.WriteInt(7)
		w.Flush()
		if got, want := strings.Join(dst.got, ""), fmt.Sprintf("$%d\r\n%s\r\n:7\r\n", n, want); got != want {
			t.Errorf("got %s, want %s", clip(got), clip(want))
		}
		if size == 0 && n <= ownBuffer-maxHead && len(dst.got) != 2 {
			t.Errorf("got %d writes, want 2", len(dst.got))
		}
		return
	}
	sent, buffered := len(dst.got), 0
	if bw != nil {
		buffered = bw.Buffered()
	}
	for name, next := range map[string]func() error{
		"WriteInt": func() error { return w.WriteInt(7) }, "WriteBulk": func() error { return w.WriteBulk(make([]byte, 9999)) },
		"WriteObjects": func() error { return w.WriteObjects("a") }, "Flush": w.Flush,
		"WriteBulkFrom":            func() error { return w.WriteBulkFrom(strings.NewReader("x"), 1) },
		"WriteSimpleString, large": func() error { return w.WriteSimpleString(strings.Repeat("x", 9999)) },
	} {
		if again := next(); again != err {
			t.Errorf("%s after it: got %v, want %v", name, again, err)
		}
	}
	if len(dst.got) != sent || bw != nil && bw.Buffered() != buffered {
		t.Errorf("something was written after it")
	}
	dst.got = nil
	w.Reset(&dst)
	if err := w.WriteInt(7); err != nil || !slices.Equal(dst.got, []string{":7\r\n"}) {
		t.Errorf("after Reset: got %q, %v", dst.got, err)
	}
}

// An osSink has ReadFrom, like a net.TCPConn, which has the operating system copy if it knows the
// type of the reader. It notes the readers.
type osSink struct {
	bytes.Buffer
	from []io.Reader
}

func (s *osSink) ReadFrom(r io.Reader) (int64, error) {
	from := r
	if l, ok := r.(*io.LimitedReader); ok {
		from = l.R
	}
	s.from = append(s.from, from)
	return s.Buffer.ReadFrom(r)
}

// connReader stands for a connection: package net looks for SyscallConn.
type connReader struct{ *strings.Reader }

func (connReader) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }
func (connReader) WriteTo()                              {} // io.Copy must not find that of strings.Reader

// A reader that the operating system could read from reaches the destination as it is.
func TestWriterPassesReader(t *testing.T) {
	const size = 100_000
	for _, tc := range []struct {
		name string
		copy func(w *Writer, r io.Reader) error
		want int // bytes
	}{
		{"WriteBulkFrom", func(w *Writer, r io.Reader) error { return w.WriteBulkFrom(r, size) }, size + len("$100000\r\n\r\n")},
		{"Copy", func(w *Writer, r io.Reader) error { _, err := io.Copy(w, r); return err }, size},
		{"CopyN", func(w *Writer, r io.Reader) error { _, err := io.CopyN(w, r, size); return err }, size},
	} {
		for _, buffer := range []int{0, 16, 4096} { // 0 means no bufio.Writer
			var dst osSink
			w := NewWriter(&dst)
			if buffer > 0 {
				w = NewWriter(bufio.NewWriterSize(&dst, buffer))
			}
			src := connReader{strings.NewReader(strings.Repeat("b", size))}
			if err := tc.copy(w, src); err != nil || w.Flush() != nil {
				t.Fatalf("%s, buffer %d: got error %v", tc.name, buffer, err)
			}
			if len(dst.from) != 1 || dst.from[0] != src {
				t.Errorf("%s, buffer %d: got ReadFrom of %v, want once, of the source", tc.name, buffer, dst.from)
			}
			if dst.Len() != tc.want {
				t.Errorf("%s, buffer %d: got %d bytes, want %d", tc.name, buffer, dst.Len(), tc.want)
			}
		}
	}
}

// Bytes that are copied from one TCP connection to another keep their place among replies.
func TestWriterReadFromTCP(t *testing.T) {
	contents := make([]byte, 3<<20)
	for i := range contents {
		contents[i] = byte(i % 251)
	}
	for _, buffered := range []bool{false, true} {
		srcServer, src := tcpPair(t)
		dst, dstClient := tcpPair(t)
		go func() {
			srcServer.Write(contents)
			srcServer.(*net.TCPConn).CloseWrite()
		}()
		done := make(chan error, 1)
		go func() {
			var to io.Writer = dst
			if buffered {
				to = bufio.NewWriter(dst)
			}
			w := NewWriter(to)
			err := w.WriteBulkFrom(src, 1<<20)
			n, copyErr := io.Copy(w, src)
			if n != 2<<20 {
				copyErr = fmt.Errorf("got %d bytes copied, %v", n, copyErr)
			}
			done <- errors.Join(err, copyErr, w.WriteInt(7), w.Flush(), dst.(*net.TCPConn).CloseWrite())
		}()
		got, err := io.ReadAll(dstClient)
		if err := errors.Join(err, <-done); err != nil {
			t.Fatal(err)
		}
		want := "$1048576\r\n" + string(contents[:1<<20]) + "\r\n" + string(contents[1<<20:]) + ":7\r\n"
		if string(got) != want {
			t.Errorf("buffered %v: got %s, want %s", buffered, clip(string(got)), clip(want))
		}
	}
}

// tcpPair returns both ends of a TCP connection, which are closed at the end of the test.
func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	for _, c := range []net.Conn{a, b} {
		c.SetDeadline(time.Now().Add(10 * time.Minute)) // only so that a failure does not hang
	}
	return a, b
}

// A readerFunc is a reader without any other method.
type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// A reader that breaks the rules of io.Reader gives an error that sticks, and no byte that it did not
// give is sent.
func TestWriterBadReader(t *testing.T) {
	count := func(n func(len int) int) func() io.Reader {
		return func() io.Reader {
			first := true
			return readerFunc(func(b []byte) (int, error) {
				if first {
					first = false
					return copy(b, "a"), nil
				}
				return n(len(b)), nil
			})
		}
	}
	for _, tc := range []struct {
		name string
		src  func() io.Reader
		want error
	}{
		{"nothing, for ever", count(func(int) int { return 0 }), io.ErrNoProgress},
		{"a negative count", count(func(int) int { return -1 }), errBadCount},
		{"the least count", count(func(int) int { return math.MinInt }), errBadCount},
		{"one more than asked for", count(func(n int) int { return n + 1 }), errBadCount},
		{"the greatest count", count(func(int) int { return math.MaxInt }), errBadCount},
	} {
		for form, read := range map[string]func(w *Writer, r io.Reader) error{
			"WriteBulkFrom": func(w *Writer, r io.Reader) error { return w.WriteBulkFrom(r, 100_000) },
			"short":         func(w *Writer, r io.Reader) error { return w.WriteBulkFrom(r, 10) },
			"ReadFrom":      func(w *Writer, r io.Reader) error { _, err := w.ReadFrom(r); return err },
			"CopyN":         func(w *Writer, r io.Reader) error { _, err := io.CopyN(w, r, 100_000); return err },
		} {
			for _, sink := range []io.Writer{new(bytes.Buffer), new(osSink)} {
				for _, buffer := range []int{0, 16, 4096} { // 0 means no bufio.Writer
					t.Run(fmt.Sprintf("%s/%s/%T/buffer=%d", tc.name, form, sink, buffer), func(t *testing.T) {
						testBadReader(t, sink, buffer, func(w *Writer) error { return read(w, tc.src()) }, tc.want)
					})
				}
			}
		}
	}
}

// testBadReader checks that read fails with want, and then what has been sent.
func testBadReader(t *testing.T, dst io.Writer, buffer int, read func(w *Writer) error, want error) {
	const stale = "STALE"
	content := dst.(interface {
		String() string
		Reset()
	})
	content.Reset()
	bw, isPlain := bufio.NewWriterSize(dst, max(buffer, 1)), buffer == 0
	w := NewWriter(bw)
	if isPlain {
		w = NewWriter(dst)
	}
	for range 2 * ownBuffer / len(stale) { // so that all of the buffer has old bytes
		w.Write([]byte(stale))
	}
	w.Flush()
	content.Reset()
	if err := read(w); !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	if err := w.WriteInt(7); !errors.Is(err, want) || !errors.Is(w.Flush(), want) {
		t.Errorf("after it: got error %v, want %v", err, want)
	}
	bw.Flush() // what a careless caller could still send
	if strings.ContainsAny(content.String(), "STALE:\x00") {
		t.Errorf("got %s sent, want no old byte and nothing after the error", clip(content.String()))
	}
}

// A panicSink panics at one Write, after it has taken half of the bytes.
type panicSink struct {
	sink
	at int // the number of the Write that panics
}

func (s *panicSink) Write(b []byte) (int, error) {
	if len(s.got) == s.at {
		s.sink.Write(b[:len(b)/2])
		panic("boom")
	}
	return s.sink.Write(b)
}

// panics reports whether f panics.
func panics(f func()) (panicked bool) {
	defer func() { panicked = recover() != nil }()
	f()
	return false
}

// If the destination panics, bytes that have been handed to it are not sent again, and nothing may
// follow, since the peer could not tell it from the rest of the reply.
func TestWriterPanickingDestination(t *testing.T) {
	eachReply(t, func(t *testing.T, r reply, version int) {
		for _, buffer := range []int{0, 16, 4096} { // 0 means no bufio.Writer
			for at := range 4 {
				dst := &panicSink{at: at}
				w := NewWriter(dst)
				if buffer > 0 {
					w = NewWriter(bufio.NewWriterSize(dst, buffer))
				}
				w.SetProtocol(version)
				if !panics(func() { r.write(w); w.Flush() }) {
					continue // the reply takes fewer writes
				}
				sent := len(dst.got)
				for name, next := range map[string]func() error{
					"WriteInt": func() error { return w.WriteInt(7) }, "WriteBulk": func() error { return w.WriteBulk(make([]byte, 9999)) },
					"WriteObjects": func() error { return w.WriteObjects("a", nil) }, "the same": func() error { return r.write(w) }, "Flush": w.Flush,
				} {
					if err := next(); err == nil {
						t.Errorf("buffer %d, panic at write %d: %s: got no error", buffer, at, name)
					}
				}
				if len(dst.got) != sent {
					t.Errorf("buffer %d, panic at write %d: got %s after it, want nothing", buffer, at, clip(strings.Join(dst.got[sent:], "")))
				}
				var next sink
				w.Reset(&next)
				if err := w.WriteObjects(7); err != nil || !slices.Equal(next.got, []string{"*1\r\n:7\r\n"}) {
					t.Errorf("buffer %d, panic at write %d: after Reset: got %q, %v", buffer, at, next.got, err)
				}
			}
		}
	})
}

// A limitSink takes so many bytes and then fails, or leaves bytes out without an error.
type limitSink struct {
	got  []byte
	left int
	err  error
}

func (s *limitSink) Write(b []byte) (int, error) {
	n := min(len(b), s.left)
	s.left -= n
	s.got = append(s.got, b[:n]...)
	if n < len(b) {
		return n, s.err
	}
	return n, nil
}

// Wherever the destination fails, it has got the front of the reply, and the error sticks.
func TestWriterFailsAtEachByte(t *testing.T) {
	eachReply(t, func(t *testing.T, r reply, version int) {
		want := r.want(version)
		for left := 0; left < len(want); left += 1 + left/50 { // nearly each byte; fewer of the long replies
			for _, buffer := range []int{0, 16, 4096} { // 0 means no bufio.Writer
				for _, dst := range []*limitSink{{left: left, err: errBoom}, {left: left}} {
					wantErr := cmp.Or(dst.err, io.ErrShortWrite)
					if dst.err == nil && len(want) > buffer-maxHead && (buffer > 0 || len(want) > ownBuffer-maxHead) {
						continue // a bufio.Writer that writes around its buffer never gives up on such a writer
					}
					w := NewWriter(dst)
					if buffer > 0 {
						w = NewWriter(bufio.NewWriterSize(dst, buffer))
					}
					w.SetProtocol(version)
					err := r.write(w)
					if buffer > 0 {
						err = w.Flush()
					}
					if err != wantErr || w.WriteInt(7) != wantErr || w.Flush() != wantErr {
						t.Fatalf("buffer %d, %d bytes taken: got error %v, want %v, and again", buffer, left, err, wantErr)
					}
					if string(dst.got) != want[:left] {
						t.Fatalf("buffer %d, %d bytes taken: got %s, want %s", buffer, left, clip(string(dst.got)), clip(want[:left]))
					}
				}
			}
		}
	})
}

// A panic in the caller's code leaves a reply cut off, and nothing may follow.
func TestWriterPanic(t *testing.T) {
	text := strings.NewReader
	for name, write := range map[string]func(w *Writer) error{
		"Error":          func(w *Writer) error { return w.WriteObjects(1, (*ProtocolError)(nil), 2) },
		"Error in map":   func(w *Writer) error { return w.WriteObjects(map[string]any{"a": (*ProtocolError)(nil)}) },
		"Read":           func(w *Writer) error { return w.WriteBulkFrom(nil, 10) },
		"Read, large":    func(w *Writer) error { return w.WriteBulkFrom(nil, 100_000) },
		"Read, later":    func(w *Writer) error { return w.WriteBulkFrom(io.MultiReader(text("abc"), nil), 100_000) },
		"ReadFrom":       func(w *Writer) error { _, err := w.ReadFrom(nil); return err },
		"ReadFrom later": func(w *Writer) error { _, err := w.ReadFrom(io.MultiReader(text("abc"), nil)); return err },
	} {
		for _, size := range []int{0, 16, 4096} { // 0 means no bufio.Writer
			var dst bytes.Buffer
			w := NewWriter(&dst)
			if size > 0 {
				w = NewWriter(bufio.NewWriterSize(&dst, size))
			}
			if !panics(func() { write(w) }) {
				t.Errorf("%s: got no panic", name)
			}
			sent := dst.Len()
			if err := w.WriteInt(1); err == nil || w.Flush() == nil || dst.Len() != sent {
				t.Errorf("%s, buffer %d: after it got error %v and wrote %q", name, size, err, dst.String()[sent:])
			}
		}
	}
}

// An error of the reader sticks in both forms of reading, since what was written is cut off.
func TestWriterReadFrom(t *testing.T) {
	for _, tc := range []struct {
		name string
		src  io.Reader
		want string
		err  error
	}{
		{"nothing", strings.NewReader(""), "", nil},
		{"some", strings.NewReader("+a\r\n:1\r\n"), "+a\r\n:1\r\n", nil},
		{"byte by byte", iotest.OneByteReader(strings.NewReader("+a\r\n:1\r\n")), "+a\r\n:1\r\n", nil},
		{"much", strings.NewReader(strings.Repeat("b", 100_000)), strings.Repeat("b", 100_000), nil},
		{"fails", io.MultiReader(strings.NewReader("+a"), iotest.ErrReader(errBoom)), "+a", errBoom},
	} {
		src, _ := io.ReadAll(tc.src)
		for _, size := range []int{0, 16, 4096} { // 0 means no bufio.Writer
			var dst sink
			w := NewWriter(&dst)
			if size > 0 {
				w = NewWriter(bufio.NewWriterSize(&dst, size))
			}
			r := io.Reader(bytes.NewReader(src))
			if tc.err != nil {
				r = io.MultiReader(r, iotest.ErrReader(tc.err))
			}
			n, err := w.ReadFrom(r)
			if n != int64(len(tc.want)) || err != tc.err {
				t.Errorf("%s, buffer %d: got %d, %v, want %d, %v", tc.name, size, n, err, len(tc.want), tc.err)
			}
			if err := w.WriteInt(7); err != tc.err || w.Flush() != tc.err {
				t.Errorf("%s, buffer %d: after it got %v, want %v", tc.name, size, err, tc.err)
			}
			if got := strings.Join(dst.got, ""); err == nil && got != tc.want+":7\r\n" {
				t.Errorf("%s, buffer %d: got %s, want %s", tc.name, size, clip(got), clip(tc.want))
			}
		}
	}
}

func TestWriterAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	src := bytes.NewReader(make([]byte, 1000))
	small, large := make([]byte, 64), make([]byte, 2000)
	text := string(large)
	bulks, words := [][]byte{small, nil, large}, []string{"a", text}
	boxed := []any{nil, true, 1, int64(-1), uint64(1), 0.1, float32(0.1), "a", text, small, errBoom, bulks, words, []any{1, []any{}}}
	args := []any{"SET", small, text, 123456, int8(1), uint16(1), 1.5, float32(0.1), uint64(math.MaxUint64)}
	calls := map[string]func(w *Writer) error{
		"Write":             func(w *Writer) error { _, err := w.Write(small); return err },
		"WriteSimpleString": func(w *Writer) error { return w.WriteSimpleString("OK") },
		"WriteError":        func(w *Writer) error { return w.WriteError(text[:500]) },
		"WriteInt":          func(w *Writer) error { return w.WriteInt(math.MinInt64) },
		"WriteBulk":         func(w *Writer) error { return cmp.Or(w.WriteBulk(small), w.WriteBulk(large)) },
		"WriteBulkString":   func(w *Writer) error { return cmp.Or(w.WriteBulkString("a"), w.WriteBulkString(text)) },
		"WriteBulkFrom":     func(w *Writer) error { src.Seek(0, io.SeekStart); return w.WriteBulkFrom(src, 1000) },
		"ReadFrom":          func(w *Writer) error { src.Seek(0, io.SeekStart); _, err := w.ReadFrom(src); return err },
		"WriteNull":         func(w *Writer) error { return w.WriteNull() },
		"WriteBool":         func(w *Writer) error { return w.WriteBool(true) },
		"WriteDouble":       func(w *Writer) error { return w.WriteDouble(-2.2250738585072014e-308) },
		"WriteVerbatim":     func(w *Writer) error { return w.WriteVerbatim("txt", text) },
		"WriteBlobError":    func(w *Writer) error { return w.WriteBlobError("ERR\r\n") },
		"WriteArrayHeader":  func(w *Writer) error { return w.WriteArrayHeader(3) },
		"WriteMapHeader":    func(w *Writer) error { return w.WriteMapHeader(3) },
		"WriteSetHeader":    func(w *Writer) error { return w.WriteSetHeader(3) },
		"WritePushHeader":   func(w *Writer) error { return w.WritePushHeader(3) },
		"WriteBulks":        func(w *Writer) error { return w.WriteBulks(small, nil, large) },
		"WriteBulksSlice":   func(w *Writer) error { return w.WriteBulksSlice(bulks) },
		"WriteBulkStrings":  func(w *Writer) error { return w.WriteBulkStrings(words) },
		"WriteObjectsSlice": func(w *Writer) error { return w.WriteObjectsSlice(boxed) },
		"WriteCommand":      func(w *Writer) error { return w.WriteCommand(args...) },
	}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		for dst, w := range map[string]*Writer{
			"bufio": NewWriter(bufio.NewWriter(io.Discard)), "plain": NewWriter(struct{ io.Writer }{io.Discard}),
		} {
			for _, version := range []int{2, 3} {
				w.SetProtocol(version)
				var err error
				got := testing.AllocsPerRun(10, func() {
					for range 200 { // enough to fill the buffer
						err = cmp.Or(err, calls[name](w))
					}
				})
				if got != 0 || err != nil {
					t.Errorf("%s, %s, RESP%d: got %v allocations in 200 calls, %v, want 0", name, dst, version, got, err)
				}
			}
		}
	}
}

// TestWriterIsRedis compares what the Writer writes with what a real server does.
func TestWriterIsRedis(t *testing.T) {
	eval := func(lua string) []string { return []string{"EVAL", "redis.setresp(3) return " + lua, "0"} }
	debug := func(kind string) []string { return []string{"DEBUG", "PROTOCOL", kind} }
	ints := func(head func(*Writer, int) error, one func(*Writer, int64) error, n int) func(*Writer) error {
		return func(w *Writer) error {
			err := head(w, n)
			for i := int64(0); i < int64(n); i++ {
				err = errors.Join(err, one(w, i))
			}
			return err
		}
	}
	float := func(f float64) func(*Writer) error { return func(w *Writer) error { return w.WriteDouble(f) } }
	rows := []struct {
		command []string
		write   func(w *Writer) error
	}{
		{debug("string"), func(w *Writer) error { return w.WriteBulkString("Hello World") }},
		{debug("integer"), func(w *Writer) error { return w.WriteInt(12345) }},
		{debug("double"), float(3.141)},
		{debug("null"), (*Writer).WriteNull},
		{debug("array"), ints((*Writer).WriteArrayHeader, (*Writer).WriteInt, 3)},
		{debug("set"), ints((*Writer).WriteSetHeader, (*Writer).WriteInt, 3)},
		{debug("map"), ints((*Writer).WriteMapHeader, func(w *Writer, i int64) error {
			return errors.Join(w.WriteInt(i), w.WriteBool(i == 1))
		}, 3)},
		{debug("verbatim"), func(w *Writer) error { return w.WriteVerbatim("txt", "This is a verbatim\nstring") }},
		{debug("true"), func(w *Writer) error { return w.WriteBool(true) }},
		{debug("false"), func(w *Writer) error { return w.WriteBool(false) }},
		{debug("bignum"), func(w *Writer) error {
			n, _ := new(big.Int).SetString("1234567999999999999999999999999999999", 10)
			return w.WriteBigNumber(n)
		}},
		{[]string{"LPOP", "none", "1"}, func(w *Writer) error { return w.WriteBulks() }},
		{[]string{"GET", "none"}, func(w *Writer) error { return w.WriteBulk(nil) }},
		{[]string{"LRANGE", "none", "0", "1"}, func(w *Writer) error { return w.WriteBulkStrings([]string{}) }},
		{eval(`redis.error_reply('ERR a\r\nb')`), func(w *Writer) error { return w.WriteError("ERR a\r\nb") }},
		{eval(`redis.status_reply('a\r\nb')`), func(w *Writer) error { return w.WriteSimpleString("a\r\nb") }},
		{eval("{double=1/0}"), float(math.Inf(1))},
		{eval("{double=-1/0}"), float(math.Inf(-1))},
		{eval("{double=-0.0}"), float(math.Copysign(0, -1))},
		{eval("{double=1e16}"), float(1e16)},
		{eval("{double=1e17}"), float(1e17)},
		{eval("{double=1.5e17}"), float(1.5e17)},
		{eval("{double=0.0001}"), float(0.0001)},
		{eval("{double=0.00001234}"), float(0.00001234)},
		{eval("{double=2^53}"), float(1 << 53)},
		{eval("{double=1.152921504606847e18}"), float(1.152921504606847e18)},
		{[]string{"SUBSCRIBE", "news"}, func(w *Writer) error {
			return errors.Join(w.WritePushHeader(3), w.WriteBulkString("subscribe"), w.WriteBulkString("news"), w.WriteInt(1))
		}},
	}
	addr := startRedis(t, "--enable-debug-command", "yes")
	for _, version := range []int{2, 3} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(time.Minute)) // only so that a failure does not hang
		in, out := bufio.NewReader(conn), NewWriter(conn)
		out.WriteBulks([]byte("HELLO"), []byte{'0' + byte(version)})
		out.WriteBulks([]byte("ECHO"), []byte("in step"))
		for line := ""; line != "in step\r\n"; {
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		for _, tc := range rows {
			var want bytes.Buffer
			w := NewWriter(&want)
			w.SetProtocol(version)
			if err := tc.write(w); err != nil {
				t.Fatalf("%q: %v", tc.command, err)
			}
			out.WriteBulkStrings(tc.command)
			got := make([]byte, want.Len())
			n, _ := io.ReadFull(in, got)
			if string(got[:n]) != want.String() || in.Buffered() > 0 {
				rest, _ := in.Peek(in.Buffered())
				t.Fatalf("RESP%d, %q: Redis wrote %q, the Writer %q", version, tc.command, append(got[:n], rest...), want.String())
			}
		}
	}
}
