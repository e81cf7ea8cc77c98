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
	"net"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

var errBoom = errors.New("boom")

// A reply is one call of the Writer and the bytes that it is to write in either protocol.
type reply struct {
	name         string
	write        func(w *Writer) error
	resp2, resp3 string // resp3 is empty where it is the same
}

func (r reply) want(version int) string {
	if version == 3 && r.resp3 != "" {
		return r.resp3
	}
	return r.resp2
}

var replies = slices.Concat(lineReplies, bulkReplies, resp3Replies, headerReplies, arrayReplies, objectReplies())

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

// bulkReplies: lengths about those of the buffers that they are written through, and binary contents.
var bulkReplies = func() (rows []reply) {
	bodies := []string{"", "x", "\r\n+OK\r\n\x00\xff"}
	for _, n := range []int{56, 57, 58, 59, 592, 593, 594, 4096, maxHeld + 1} {
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

// objectReplies: a value alone in an array of one.
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

// TestWriterPlain: what a writer that is no bufio.Writer is spared.
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
	if got := cap(w.whole.held); got > maxHeld {
		t.Errorf("after a bulk of 1 MiB: got %d bytes kept, want at most %d", got, maxHeld)
	}
}

// A sink keeps each Write that it gets by itself.
type sink struct {
	got   []string
	err   error // of every Write
	short int   // bytes that a Write leaves, without an error
}

func (s *sink) Write(b []byte) (int, error) {
	s.got = append(s.got, string(b))
	return max(len(b)-s.short, 0), s.err
}

// clip keeps a failure's output short.
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

func TestWriterOneWrite(t *testing.T) {
	eachReply(t, func(t *testing.T, r reply, version int) {
		var dst sink
		w := NewWriter(&dst)
		w.SetProtocol(version)
		for range 2 { // the second time in memory that the first one left
			dst.got = nil
			if err := r.write(w); err != nil {
				t.Fatalf("got error %v", err)
			}
			if len(dst.got) != 1 {
				t.Fatalf("got %d writes, want 1", len(dst.got))
			}
			if got, want := dst.got[0], r.want(version); got != want {
				t.Fatalf("got %s, want %s", clip(got), clip(want))
			}
		}
	})
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

// TestWriterStaysInBuffer: nothing is sent before the buffer is full or flushed.
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
		want string // of the source, when all is well
		err  error
	}{
		{"exact", strings.NewReader("hello"), 5, "hello", nil},
		{"empty", strings.NewReader(""), 0, "", nil},
		{"nothing of a failing reader", failing(""), 0, "", nil},
		{"more than n", strings.NewReader("hello world"), 5, "hello", nil},
		{"error after n", failing("hello"), 5, "hello", nil},
		{"byte by byte", iotest.OneByteReader(strings.NewReader(text(100))), 100, text(100), nil},
		{"data and EOF in one", iotest.DataErrReader(strings.NewReader(text(100))), 100, text(100), nil},
		{"as much as is held", strings.NewReader(text(maxHeld) + text(100)), maxHeld, (text(maxHeld) + text(100))[:maxHeld], nil},
		{"more than is held", strings.NewReader(text(200_000)), 200_000, text(200_000), nil},
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
		for _, size := range []int{0, 16, 4096, 1 << 20} { // 0: no bufio.Writer
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
		if size == 0 && n <= maxHeld && len(dst.got) != 2 {
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

// osSink is like a net.TCPConn, which has the operating system copy a file.
type osSink struct {
	bytes.Buffer
	from []io.Reader
}

func (s *osSink) ReadFrom(r io.Reader) (int64, error) {
	s.from = append(s.from, r.(*io.LimitedReader).R)
	return s.Buffer.ReadFrom(r)
}

func TestWriteBulkFromPassesReader(t *testing.T) {
	src := strings.NewReader(strings.Repeat("b", 100_000))
	for _, size := range []int{0, 4096} {
		var dst osSink
		w := NewWriter(&dst)
		if size > 0 {
			w = NewWriter(bufio.NewWriterSize(&dst, size))
		}
		src.Seek(0, io.SeekStart)
		if err := w.WriteBulkFrom(src, src.Size()); err != nil || w.Flush() != nil {
			t.Fatalf("buffer %d: got error %v", size, err)
		}
		if len(dst.from) != 1 || dst.from[0] != src {
			t.Errorf("buffer %d: got ReadFrom of %v, want once, of the source", size, dst.from)
		}
		if want := 100_000 + len("$100000\r\n\r\n"); dst.Len() != want {
			t.Errorf("buffer %d: got %d bytes, want %d", size, dst.Len(), want)
		}
	}
}

// TestWriterPanic: a panic in the caller's code leaves a reply cut off, after which there is no
// boundary, so that nothing may follow.
func TestWriterPanic(t *testing.T) {
	for name, write := range map[string]func(w *Writer) error{
		"Error":        func(w *Writer) error { return w.WriteObjects(1, (*ProtocolError)(nil), 2) },
		"Error in map": func(w *Writer) error { return w.WriteObjects(map[string]any{"a": (*ProtocolError)(nil)}) },
		"Read":         func(w *Writer) error { return w.WriteBulkFrom(nil, 10) },
		"Read, large":  func(w *Writer) error { return w.WriteBulkFrom(nil, 100_000) },
	} {
		for _, size := range []int{0, 4096} {
			var dst bytes.Buffer
			w := NewWriter(&dst)
			if size > 0 {
				w = NewWriter(bufio.NewWriterSize(&dst, size))
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: got no panic", name)
					}
				}()
				write(w)
			}()
			sent := dst.Len()
			if err := w.WriteInt(1); err == nil || w.Flush() == nil || dst.Len() != sent {
				t.Errorf("%s, buffer %d: after it got error %v and wrote %q", name, size, err, dst.String()[sent:])
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
	calls := map[string]func(w *Writer) error{
		"Write":             func(w *Writer) error { _, err := w.Write(small); return err },
		"WriteSimpleString": func(w *Writer) error { return w.WriteSimpleString("OK") },
		"WriteError":        func(w *Writer) error { return w.WriteError(text[:500]) },
		"WriteInt":          func(w *Writer) error { return w.WriteInt(math.MinInt64) },
		"WriteBulk":         func(w *Writer) error { return cmp.Or(w.WriteBulk(small), w.WriteBulk(large)) },
		"WriteBulkString":   func(w *Writer) error { return cmp.Or(w.WriteBulkString("a"), w.WriteBulkString(text)) },
		"WriteBulkFrom":     func(w *Writer) error { src.Seek(0, io.SeekStart); return w.WriteBulkFrom(src, 1000) },
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
	}
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		for dst, w := range map[string]*Writer{
			"bufio": NewWriter(bufio.NewWriter(io.Discard)), "plain": NewWriter(struct{ io.Writer }{io.Discard}),
		} {
			for _, version := range []int{2, 3} {
				w.SetProtocol(version)
				var err error
				got := testing.AllocsPerRun(10, func() {
					for range 200 { // the buffer is full at least once
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
		conn.SetDeadline(time.Now().Add(time.Minute)) // only so that a failure is no hang
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
