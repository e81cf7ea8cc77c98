package redisproto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// pushReplies has Parse read data, of which step bytes more are there at each call that finds it too short.
// If moved is set, the bytes stand elsewhere in memory at each call. The offset of an error is counted
// from the start of data, as in ReadReply.
func pushReplies(t *testing.T, data string, step int, moved bool, lim Limits) (got []string, raw string, err error) {
	t.Helper()
	var p ReplyParser
	p.SetLimits(lim)
	b := slices.Clip([]byte(data))
	end := min(step, len(b))
	for start := 0; ; {
		in := b[start:end:end]
		if moved {
			in = slices.Clip(bytes.Clone(in))
		}
		r, n, err := p.Parse(in)
		if (err != nil || n == 0) && r.Kind() != 0 {
			t.Fatalf("got a reply of kind %v with n = %d and %v", r.Kind(), n, err)
		}
		switch {
		case err != nil:
			if _, _, again := p.Parse(in); again != ErrBroken {
				t.Fatalf("got %v after %v, want ErrBroken", again, err)
			}
			var pe *ProtocolError
			if errors.As(err, &pe) {
				pe.Offset += int64(start)
			}
			return got, raw, err
		case n > 0:
			got = append(got, dump(t, r))
			raw += string(r.Raw())
			if string(r.Raw()) != data[start:start+n] {
				t.Fatalf("got Raw %.100q, want %.100q", r.Raw(), data[start:start+n])
			}
			start += n
		case end < len(b):
			end = min(end+step, len(b))
		case string(b) != data:
			t.Fatal("Parse has changed the caller's bytes")
		case start == end:
			return got, raw, io.EOF
		default:
			return got, raw, io.ErrUnexpectedEOF
		}
	}
}

// TestParseReplies: each row gives the same in push form as in pull form, however much is there at each call.
func TestParseReplies(t *testing.T) {
	for _, row := range slices.Concat(allReplies(), longReplies()) {
		t.Run(row.name, func(t *testing.T) {
			p := NewReplyParser(strings.NewReader(row.in))
			p.SetLimits(row.lim)
			want, wantRaw, wantErr := pullReplies(t, p)
			for _, step := range []int{1, 2, 7, 1000, 1 << 30} {
				if step < 7 && len(row.in) > 20_000 {
					step *= 97
				}
				for _, moved := range []bool{false, true} {
					got, raw, err := pushReplies(t, row.in, step, moved && len(row.in) < 1000, row.lim)
					if !slices.Equal(got, want) || raw != wantRaw {
						t.Errorf("%d bytes more each time: got %.300q, want %.300q", step, got, want)
					}
					same(t, run{err: err}, run{err: wantErr})
				}
			}
		})
	}
}

// TestParseKeepsBytes: the caller's bytes are the caller's, in builds with the race detector too.
func TestParseKeepsBytes(t *testing.T) {
	for _, r := range allRows() {
		b := []byte(r.in)
		var p Parser
		p.SetLimits(r.lim)
		for rest := b; ; {
			c, n, err := p.Parse(rest)
			if n == 0 || err != nil {
				break
			}
			c.Args()
			c.Name()
			rest = rest[n:]
		}
		p.Reset(nil)
		if string(b) != r.in {
			t.Errorf("%s: Parse has changed the bytes", r.name)
		}
	}
	for _, r := range allReplies() {
		b := []byte(r.in)
		var p ReplyParser
		p.SetLimits(r.lim)
		for rest := b; ; {
			reply, n, err := p.Parse(rest)
			if n == 0 || err != nil {
				break
			}
			dump(t, reply)
			rest = rest[n:]
		}
		p.Reset(nil)
		if string(b) != r.in {
			t.Errorf("%s: Parse has changed the bytes", r.name)
		}
	}
}

// TestParseEmpty: an empty command has no arguments and some bytes; nothing at all has neither.
func TestParseEmpty(t *testing.T) {
	var p Parser
	for _, in := range []string{"\n", "\r\n", " \t\r\n", "*0\r\n", "*-1\r\n"} {
		c, n, err := p.Parse([]byte(in + "PING\n"))
		if n != len(in) || err != nil || c == nil || c.ArgCount() != 0 || c.Get(0) != nil || !c.IsLast() {
			t.Errorf("%q: got %v, %d, %v, want an empty command of %d bytes", in, c, n, err, len(in))
		}
	}
	if c, n, err := p.Parse(nil); c != nil || n != 0 || err != nil {
		t.Errorf("got %v, %d, %v of nothing", c, n, err)
	}
}

// TestParseNeverStreams: Stream and a declared length change nothing in push form.
func TestParseNeverStreams(t *testing.T) {
	var p Parser
	p.SetLimits(Limits{Stream: 1})
	in := []byte(request("SET", "k", strings.Repeat("v", 5000)))
	if c, n, err := p.Parse(in[:1000]); c != nil || n != 0 || err != nil {
		t.Errorf("got %v, %d, %v of a part", c, n, err)
	}
	if c, n, err := p.Parse(in); n != len(in) || err != nil || !c.Whole() {
		t.Errorf("got %d, %v, want %d", n, err, len(in))
	}
	var q ReplyParser
	q.SetLimits(Limits{Stream: 1})
	in = []byte("*2\r\n:1\r\n" + bulk(strings.Repeat("v", 5000)))
	if r, n, err := q.Parse(in[:1000]); r.Kind() != 0 || n != 0 || err != nil {
		t.Errorf("got %v, %d, %v of a part", r.Kind(), n, err)
	}
	if r, n, err := q.Parse(in); n != len(in) || err != nil || !r.Whole() {
		t.Errorf("got %d, %v, want %d", n, err, len(in))
	}
	lim := Limits{Bulk: math.MaxInt, Total: math.MaxInt, Stream: 1}
	for _, in := range []string{"$9223372036854775807\r\nabc", "*1\r\n$9223372036854775807\r\n", "!9223372036854775807\r\n"} {
		if _, _, err := pushReplies(t, in, 1, false, lim); !errors.Is(err, ErrBulkLength) {
			t.Errorf("%q: got %v, want %v", in, err, ErrBulkLength)
		}
	}
}

// TestManyAttributes: attributes count as elements, so that a peer cannot send any number of empty ones.
func TestManyAttributes(t *testing.T) {
	in := strings.Repeat("|0\r\n", 1e6) + ":1\r\n"
	for _, lim := range []Limits{{Args: 1}, {Args: 1, Depth: 1}, {Args: 1, Stream: 1000}} {
		p := NewReplyParser(strings.NewReader(in))
		p.SetLimits(lim)
		var err error
		cost := allocated(func() { _, err = p.ReadReply() })
		if !errors.Is(err, ErrMultibulkLength) || cost > 64<<10 {
			t.Errorf("%+v: got %v and %d bytes allocated, want %v", lim, err, cost, ErrMultibulkLength)
		}
	}
}

// TestAttributesEnd: a loop over attributes in which the parser is read gives no replies from then on.
func TestAttributesEnd(t *testing.T) {
	in := "|2\r\n+a\r\n:1\r\n+b\r\n:2\r\n|1\r\n+c\r\n:3\r\n:4\r\n"
	p := NewReplyParser(strings.NewReader(in + "+OK\r\n"))
	r, err := p.ReadReply()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for key, value := range r.Attributes() {
		if n++; n == 1 {
			p.ReadReply()
		}
		if key.Kind() != 0 || value.Kind() != 0 {
			t.Errorf("got %v and %v after the parser was read, want no replies", key.Kind(), value.Kind())
		}
	}
	if n == 0 || n > 2 {
		t.Errorf("the loop ran %d times, want no attributes behind the first ones", n)
	}
	checkStale(t, "a reply with attributes", r)
}

// checkStale checks every method of a reply that is past.
func checkStale(t *testing.T, what string, r Reply) {
	t.Helper()
	checkNoReply(t, what, r)
	_, ferr := r.Float()
	_, berr := r.Bool()
	_, nerr := r.BigInt()
	if ferr == nil || berr == nil || nerr == nil || r.IsError() || r.Size() != 0 {
		t.Errorf("%s: got %v, %v, %v, IsError %v, Size %d", what, ferr, berr, nerr, r.IsError(), r.Size())
	}
	var out strings.Builder
	_, werr := r.WriteTo(&out)
	if body, err := io.ReadAll(r.Body()); len(body) > 0 || err != nil || out.Len() > 0 || werr != nil {
		t.Errorf("%s: got Body %q, %v, and %q, %v from WriteTo", what, body, err, out.String(), werr)
	}
}

// TestStaleReply: a reply that is held too long is no reply, whole or not, in each form.
func TestStaleReply(t *testing.T) {
	long := "*2\r\n:1\r\n" + bulk(strings.Repeat("v", 100))
	for _, in := range []string{"+OK\r\n", "-ERR no\r\n", ":1\r\n", "$2\r\nhi\r\n", "*1\r\n:1\r\n", "%1\r\n:1\r\n:2\r\n", "|1\r\n:1\r\n:2\r\n:3\r\n", "_\r\n", "#t\r\n", "=5\r\ntxt:x\r\n", long, bulk(strings.Repeat("v", 100))} {
		for name, end := range map[string]func(*ReplyParser){
			"ReadReply": func(p *ReplyParser) { p.ReadReply() },
			"the end":   func(p *ReplyParser) { p.ReadReply(); p.ReadReply() },
			"Reset":     func(p *ReplyParser) { p.Reset(nil) },
		} {
			for _, stream := range []int{0, 10} {
				p := streamReplies(in+":5\r\n", 40, stream)
				r, err := p.ReadReply()
				if err != nil {
					t.Fatal(err)
				}
				element := r.At(0)
				end(p)
				checkStale(t, fmt.Sprintf("%.10q after %s, Stream %d", in, name, stream), r)
				checkStale(t, "an element", element)
			}
		}
		var p ReplyParser
		r, _, err := p.Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		p.Parse(nil)
		checkStale(t, fmt.Sprintf("%.10q after Parse", in), r)
	}
}

// TestStaleCommand: a command has no arguments any more when the parser has been read.
func TestStaleCommand(t *testing.T) {
	for _, in := range []string{request("SET", "k", "v"), "SET k v\n", "SET 'k' v\n", longSet} {
		for _, stream := range []int{0, 10} {
			for name, end := range map[string]func(*Parser){
				"ReadCommand": func(p *Parser) { p.ReadCommand() },
				"the end":     func(p *Parser) { p.ReadCommand(); p.ReadCommand() },
				"Reset":       func(p *Parser) { p.Reset(nil) },
			} {
				p := streamParser(in+"PING\n", 40, stream)
				c := next(t, p)
				if name == "the end" {
					next(t, p)
					p = streamParser(in, 40, stream)
					c = next(t, p)
				}
				end(p)
				if c.Get(0) != nil || c.ArgCount() != 0 || c.Args() != nil || c.Name() != nil || !c.IsLast() || !c.Whole() || c.Clone().ArgCount() != 0 {
					t.Errorf("%.20q after %s, Stream %d: got %q of %d", in, name, stream, c.Args(), c.ArgCount())
				}
				if _, _, err := c.NextArg(); err != io.EOF {
					t.Errorf("%.20q after %s, Stream %d: got %v from NextArg, want io.EOF", in, name, stream, err)
				}
			}
		}
	}
}

// TestRest: what belongs to no command or reply comes next, however it is read.
func TestRest(t *testing.T) {
	for _, r := range []struct {
		name, in, want string // want follows the first command
		look           bool
		end            error
	}{
		{"nothing", "A\n", "", false, io.EOF},
		{"bytes that are no RESP", "A\n\x00\xff'", "\x00\xff'", false, io.EOF},
		{"IsLast has seen a command", "A\nB\nC", "B\nC", true, io.EOF},
		{"IsLast has seen a quoted line", "A\nB 'c d'\nC", "B 'c d'\nC", true, io.EOF},
		{"IsLast has seen empty commands", "A\n\n*0\r\n\r\nC", "\n*0\r\n\r\nC", true, io.EOF},
		{"IsLast has seen a protocol error", "A\n*x\r\nC", "*x\r\nC", true, io.EOF},
		{"an error came with the bytes", "A\nB", "B", false, io.ErrClosedPipe},
		{"an error came with the bytes, and IsLast", "A\nB\n", "B\n", true, io.ErrClosedPipe},
		{"much", "A\n" + strings.Repeat("x", 200<<10), strings.Repeat("x", 200<<10), true, io.EOF},
	} {
		for how, read := range map[string]func(io.Reader) (string, error){
			"Read": func(r io.Reader) (string, error) {
				b, err := io.ReadAll(iotest.OneByteReader(r))
				return string(b), err
			},
			"io.Copy": func(r io.Reader) (string, error) {
				var b strings.Builder
				_, err := io.Copy(&b, r)
				return b.String(), err
			},
			"in parts": func(r io.Reader) (string, error) {
				b, err := io.ReadAll(io.MultiReader(io.LimitReader(r, 1), r))
				return string(b), err
			},
		} {
			src := io.Reader(strings.NewReader(r.in))
			if r.end != io.EOF {
				src = &source{data: []byte(r.in), gap: r.end, joined: true}
			}
			p := NewParser(src)
			c := next(t, p)
			if r.look {
				c.IsLast()
			}
			got, err := read(p.Rest())
			if want := errIsNot(r.end, io.EOF); got != r.want || err != want {
				t.Errorf("%s, %s: got %.50q, %v, want %.50q, %v", r.name, how, got, err, r.want, want)
			}
		}
	}
	p := NewReplyParser(&source{data: []byte("+FULLRESYNC 1 0\r\n$5\r\nRDB\x00\x01*1\r\n$4\r\nPING\r\n"), size: 30})
	if r, err := p.ReadReply(); string(r.Bytes()) != "FULLRESYNC 1 0" {
		t.Fatalf("got %q, %v", r.Bytes(), err)
	}
	if rest, err := io.ReadAll(p.Rest()); string(rest) != "$5\r\nRDB\x00\x01*1\r\n$4\r\nPING\r\n" || err != nil {
		t.Errorf("got %q, %v behind a reply", rest, err)
	}
}
