package redisproto

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// streamParser gives a Parser of data that comes in reads of size bytes, with a Stream of stream.
func streamParser(data string, size, stream int) *Parser {
	p := NewParser(&source{data: []byte(data), size: size})
	p.SetLimits(Limits{Stream: stream})
	return p
}

func streamReplies(data string, size, stream int) *ReplyParser {
	p := NewReplyParser(&source{data: []byte(data), size: size})
	p.SetLimits(Limits{Stream: stream})
	return p
}

// part reads a command that is not whole.
func part(t *testing.T, p *Parser) *Command {
	t.Helper()
	c := next(t, p)
	if c.Whole() {
		t.Fatalf("got %.100q, whole", texts(c))
	}
	return c
}

func partReply(t *testing.T, p *ReplyParser) Reply {
	t.Helper()
	r, err := p.ReadReply()
	if err != nil || r.Whole() {
		t.Fatalf("got %v, whole %v, error %v", r.Kind(), r.Whole(), err)
	}
	return r
}

// longSet is SET k with a value of 100 bytes, which a Stream of 10 has returned before it is whole.
var longSet = request("SET", "k", strings.Repeat("v", 100))

// TestStreamShape: what has arrived of a command in the first read, and what has not.
func TestStreamShape(t *testing.T) {
	in := request("MSET", "a", strings.Repeat("b", 20), "c", strings.Repeat("d", 20))
	for _, r := range []struct {
		name    string
		arrived int    // bytes of in that come in the first read
		stream  int    // Limits.Stream
		args    string // those that have arrived
		sizes   string // of those that have not
	}{
		{"the count", 4, 10, "[]", "[4 1 20 1 20]"},
		{"half the name", 10, 10, "[]", "[4 1 20 1 20]"},
		{"the name", 14, 10, "[MSET]", "[1 20 1 20]"},
		{"a header", 26, 10, "[MSET a]", "[20 1 20]"},
		{"half a value", 30, 10, "[MSET a]", "[20 1 20]"},
		{"a value", 48, 10, "[MSET a bbbbbbbbbbbbbbbbbbbb]", "[1 20]"},
		{"all but LF", len(in) - 1, 10, "[MSET a bbbbbbbbbbbbbbbbbbbb c]", "[20]"},
		{"all", len(in), 10, "[MSET a bbbbbbbbbbbbbbbbbbbb c dddddddddddddddddddd]", "[]"},
	} {
		p := NewParser(&source{data: []byte(in + "PING\r\n"), cut: r.arrived})
		p.SetLimits(Limits{Stream: r.stream})
		c := next(t, p)
		if c.Whole() != (r.sizes == "[]") || c.ArgCount() != 5 || fmt.Sprintf("%s", c.Args()) != r.args {
			t.Errorf("%s: got %q of %d, whole: %v, want %s", r.name, c.Args(), c.ArgCount(), c.Whole(), r.args)
		}
		sizes := []int64{}
		for {
			_, size, err := c.NextArg()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(r.name, err)
			}
			sizes = append(sizes, size)
		}
		if got := fmt.Sprint(sizes); got != r.sizes {
			t.Errorf("%s: got sizes %s from NextArg, want %s", r.name, got, r.sizes)
		}
		if got := string(next(t, p).Name()); got != "PING" {
			t.Errorf("%s: got %q as the next command, want PING", r.name, got)
		}
	}
}

// TestStreamMixed: WriteTo passes on everything, so it cannot follow a part that was read otherwise, and
// nothing can follow it.
func TestStreamMixed(t *testing.T) {
	nextArg := func(c *Command) error { _, _, err := c.NextArg(); return err }
	writeTo := func(c *Command) error { _, err := c.WriteTo(io.Discard); return err }
	for _, r := range []struct {
		name          string
		first, second func(*Command) error
	}{
		{"NextArg, WriteTo", nextArg, writeTo},
		{"WriteTo, NextArg", writeTo, nextArg},
		{"WriteTo twice", writeTo, writeTo},
	} {
		p := streamParser(longSet+"PING\n", 40, 10)
		c := part(t, p)
		if err := r.first(c); err != nil {
			t.Fatalf("%s: the first is %v", r.name, err)
		}
		if err := r.second(c); err != errMixedUse {
			t.Errorf("%s: got %v, want %v", r.name, err, errMixedUse)
		}
		if got := string(next(t, p).Name()); got != "PING" {
			t.Errorf("%s: got %q behind it, want PING", r.name, got)
		}
	}
	body := func(r Reply) error { _, err := r.Body().Read(make([]byte, 1)); return err }
	pass := func(r Reply) error { _, err := r.WriteTo(io.Discard); return err }
	for _, r := range []struct {
		name          string
		first, second func(Reply) error
		want          error
	}{
		{"Body, WriteTo", body, pass, errMixedUse},
		{"WriteTo, Body", pass, body, errMixedUse},
		{"WriteTo twice", pass, pass, errMixedUse},
		{"Body twice", body, body, nil},
	} {
		p := streamReplies(bulk(strings.Repeat("v", 100))+"+OK\r\n", 40, 10)
		reply := partReply(t, p)
		if err := r.first(reply); err != nil {
			t.Fatalf("%s: the first is %v", r.name, err)
		}
		if err := r.second(reply); err != r.want {
			t.Errorf("%s: got %v, want %v", r.name, err, r.want)
		}
		if reply, err := p.ReadReply(); string(reply.Bytes()) != "OK" {
			t.Errorf("%s: got %q, %v behind it, want OK", r.name, reply.Bytes(), err)
		}
	}
}

// A shortWriter takes n bytes in all, and then fails, or says that it took less than it was given.
type shortWriter struct {
	n   int
	err error
}

func (w *shortWriter) Write(b []byte) (int, error) {
	k := min(len(b), w.n)
	w.n -= k
	if k < len(b) {
		return k, w.err
	}
	return k, nil
}

// TestStreamFailingWriter: a WriteTo that fails is the end of the stream.
func TestStreamFailingWriter(t *testing.T) {
	for n := range len(longSet) {
		for _, fault := range []error{io.ErrClosedPipe, nil} {
			want := fault
			if fault == nil {
				want = io.ErrShortWrite
			}
			p := streamParser(longSet+"PING\n", 40, 10)
			c := part(t, p)
			if k, err := c.WriteTo(&shortWriter{n, fault}); err != want || k != int64(n) {
				t.Fatalf("after %d bytes: got %d, %v, want %v", n, k, err, want)
			}
			_, err1 := c.WriteTo(io.Discard)
			_, _, err2 := c.NextArg()
			_, err3 := p.ReadCommand()
			if _, err4 := p.ReadCommand(); err1 != ErrBroken || err2 != ErrBroken || err3 != ErrBroken || err4 != ErrBroken {
				t.Fatalf("after %d bytes: then %v, %v, %v, %v, want ErrBroken", n, err1, err2, err3, err4)
			}
		}
	}
	reply := "*2\r\n:1\r\n" + bulk(strings.Repeat("v", 100))
	for n := range len(reply) {
		p := streamReplies(reply+"+OK\r\n", 40, 10)
		r := partReply(t, p)
		if k, err := r.WriteTo(&shortWriter{n, io.ErrClosedPipe}); err != io.ErrClosedPipe || k != int64(n) {
			t.Fatalf("after %d bytes of a reply: got %d, %v", n, k, err)
		}
		_, err1 := r.WriteTo(io.Discard)
		_, err2 := r.Body().Read(make([]byte, 1))
		_, err3 := p.ReadReply()
		if _, err4 := p.ReadReply(); err1 != ErrBroken || err2 != ErrBroken || err3 != ErrBroken || err4 != ErrBroken {
			t.Fatalf("after %d bytes of a reply: then %v, %v, %v, %v, want ErrBroken", n, err1, err2, err3, err4)
		}
	}
}

// TestStreamWriteToTimeout: WriteTo cannot be resumed, whatever the reader's error is.
func TestStreamWriteToTimeout(t *testing.T) {
	p := NewParser(&source{data: []byte(longSet), size: 40, gap: iotest.ErrTimeout, joined: true})
	p.SetLimits(Limits{Stream: 10})
	if _, err := part(t, p).WriteTo(io.Discard); err != iotest.ErrTimeout {
		t.Errorf("got %v, want a timeout", err)
	}
	if _, err := p.ReadCommand(); err != ErrBroken {
		t.Errorf("got %v after it, want ErrBroken", err)
	}
}

// TestStreamErrors: the text and the place of a protocol error inside what is not whole, in NextArg, in its
// reader, in WriteTo and in skipping.
func TestStreamErrors(t *testing.T) {
	head := "*2\r\n$100\r\n" + strings.Repeat("v", 100) // 110 bytes
	for _, r := range []struct {
		name, tail, text string
		at               int64
	}{
		{"no CR LF", "xx", "invalid CRLF in request", 110},
		{"half a CR LF", "\rx", "invalid CRLF in request", 110},
		{"no length", "\r\nPING\r\n", "expected '$', got 'P'", 112},
		{"a negative length", "\r\n$-1\r\n", "invalid bulk length", 112},
		{"too large a length", "\r\n$536870913\r\n", "invalid bulk length", 112},
		{"an endless length", "\r\n$" + strings.Repeat("1", maxLine), "too big bulk count string", 112},
		{"no CR LF at the end", "\r\n$1\r\nabc", "invalid CRLF in request", 117},
	} {
		for how := range ways {
			p := streamParser(head+r.tail, 40, 10)
			_, _, err := takeCommand(t, part(t, p), how)
			if err == nil {
				_, err = p.ReadCommand()
			}
			checkProtocolError(t, fmt.Sprintf("%s, %v", r.name, how), err, r.text, r.at)
			for range 2 {
				if _, err := p.ReadCommand(); err != ErrBroken {
					t.Errorf("%s, %v: got %v after the error, want ErrBroken", r.name, how, err)
				}
			}
		}
	}
}

func checkProtocolError(t *testing.T, name string, err error, text string, at int64) {
	t.Helper()
	var pe *ProtocolError
	if !errors.As(err, &pe) || pe.Error() != "ERR Protocol error: "+text || pe.Offset != at {
		t.Errorf("%s: got %v (%+v), want %q at %d", name, err, pe, text, at)
	}
}

// TestStreamReplyErrors is TestStreamErrors for replies.
func TestStreamReplyErrors(t *testing.T) {
	head := "*3\r\n$100\r\n" + strings.Repeat("v", 100) // 110 bytes
	for _, r := range []struct {
		name, tail, text string
		at               int64
	}{
		{"no CR LF", "xx", "invalid CRLF in reply", 110},
		{"no type", "\r\nhello\r\n", "invalid reply type, got 'h'", 112},
		{"a negative length", "\r\n$-2\r\n", "invalid bulk length", 112},
		{"a negative count", "\r\n*-2\r\n", "invalid multibulk length", 112},
		{"too many elements", "\r\n*2147483645\r\n", "invalid multibulk length", 112},
		{"too deep", "\r\n" + strings.Repeat("*1\r\n", 128), "too deeply nested reply", 112 + 4*127},
		{"a value that is none", "\r\n#x\r\n", "invalid value in reply", 112},
		{"a long line that CR does not end", "\r\n+" + strings.Repeat("x", 70_000) + "\rx", "invalid CRLF in reply", 113 + 70_000},
		{"no CR LF at the end", "\r\n:1\r\n$1\r\nabc", "invalid CRLF in reply", 121},
	} {
		for _, how := range []way{byReads, byWriteTo, leftAlone} {
			p := streamReplies(head+r.tail, 40, 10)
			_, _, err := takeReply(t, partReply(t, p), how)
			if err == nil {
				_, err = p.ReadReply()
			}
			checkProtocolError(t, fmt.Sprintf("%s, %v", r.name, how), err, r.text, r.at)
			if _, err := p.ReadReply(); err != ErrBroken {
				t.Errorf("%s, %v: got %v after the error, want ErrBroken", r.name, how, err)
			}
		}
	}
	p := streamReplies(bulk(strings.Repeat("v", 100))[:106]+"xx", 40, 10)
	_, err := io.ReadAll(partReply(t, p).Body())
	checkProtocolError(t, "no CR LF behind Body", err, "invalid CRLF in reply", 106)
}

// TestStreamTooBig: a number, and attributes in front of a reply, are held, so they may have Stream bytes
// and no more.
func TestStreamTooBig(t *testing.T) {
	for _, in := range []string{
		"(" + strings.Repeat("1", 5000) + "\r\n",
		"|1\r\n+a\r\n:1\r\n+" + strings.Repeat("x", 5000) + "\r\n", "|1\r\n+a\r\n" + bulk(strings.Repeat("x", 5000)) + ":1\r\n", "|1000\r\n", "|1\r\n+" + strings.Repeat("x", 5000) + "\r\n",
	} {
		p := streamReplies(":1\r\n"+in, 40, 1000)
		p.ReadReply()
		_, err := p.ReadReply()
		checkProtocolError(t, in[:6], err, "too big reply", 4)
		if !errors.Is(err, ErrTooBig) {
			t.Errorf("%q: got %v, want %v", in[:6], err, ErrTooBig)
		}
		if _, err := p.ReadReply(); err != ErrBroken {
			t.Errorf("%q: got %v after it, want ErrBroken", in[:6], err)
		}
	}
}

// TestStreamInline: an inline command is held, however long it is.
func TestStreamInline(t *testing.T) {
	line := strings.Repeat("word 'two words' ", 2000)
	p := streamParser(line+"\r\nPING\r\n", 7, 1)
	if c := next(t, p); !c.Whole() || c.ArgCount() != 4000 || string(c.Get(3999)) != "two words" {
		t.Errorf("got %d arguments, whole: %v", c.ArgCount(), c.Whole())
	}
	if c := next(t, p); !c.Whole() || string(c.Name()) != "PING" {
		t.Errorf("got %q behind a long line, want PING", c.Name())
	}
}

// TestStreamMaxBulk: no length overflows, as an argument, as a reply or in Parse.
func TestStreamMaxBulk(t *testing.T) {
	const length = "$9223372036854775807\r\n"
	for _, stream := range []int{0, 1, 1 << 20, math.MaxInt} {
		lim := Limits{Args: math.MaxInt, Bulk: math.MaxInt, Inline: math.MaxInt, Total: math.MaxInt, Depth: math.MaxInt, Stream: stream}
		streams := stream > 0 && math.MaxInt == math.MaxInt64
		for _, in := range []string{"*1\r\n" + length, "*2\r\n" + length, "*3\r\n$1\r\na\r\n" + length} {
			p := NewParser(&source{data: []byte(in + "abc"), size: 13})
			p.SetLimits(lim)
			c, err := p.ReadCommand()
			if math.MaxInt == math.MaxInt32 && stream > 0 {
				continue // such a length is over any Bulk there, but a small Stream may begin before it is seen
			}
			if streams != (err == nil) || err != nil && !errors.Is(err, ErrBulkLength) && err != io.ErrUnexpectedEOF {
				t.Fatalf("Stream %d, %q: got %v", stream, in, err)
			}
			if err != nil {
				if got := push(in+"abc", 1, lim).err; !errors.Is(got, ErrBulkLength) {
					t.Errorf("Parse of %q: got %v, want %v", in, got, ErrBulkLength)
				}
				continue
			}
			arg, size, err := c.NextArg()
			for err == nil && size < 10 {
				arg, size, err = c.NextArg()
			}
			if err != nil || size != math.MaxInt64 {
				t.Fatalf("Stream %d, %q: got an argument of %d, %v", stream, in, size, err)
			}
			if b, err := io.ReadAll(arg); string(b) != "abc" || err != io.ErrUnexpectedEOF {
				t.Errorf("Stream %d, %q: got %q, %v", stream, in, b, err)
			}
		}
		for _, in := range []string{length, "*2\r\n:1\r\n" + length, "!" + length[1:], "=" + length[1:] + "txt:"} {
			p := NewReplyParser(strings.NewReader(in + "abc"))
			p.SetLimits(lim)
			r, err := p.ReadReply()
			if streams != (err == nil) || err != nil && !errors.Is(err, ErrBulkLength) && err != io.ErrUnexpectedEOF {
				t.Fatalf("Stream %d, %q: got %v", stream, in, err)
			}
			if err != nil {
				continue
			}
			var out strings.Builder
			if n, err := r.WriteTo(&out); out.String() != in+"abc" || n != int64(out.Len()) || err != io.ErrUnexpectedEOF {
				t.Errorf("Stream %d, %q: WriteTo wrote %q, %v", stream, in, out.String(), err)
			}
		}
	}
}

// TestStreamLimitsChange: limits hold from the next command on, not for what was returned already.
func TestStreamLimitsChange(t *testing.T) {
	p := streamParser(longSet+longSet+longSet, 20, 10)
	c := part(t, p)
	p.SetLimits(Limits{Bulk: 50})
	if args, _, err := takeCommand(t, c, byReads); err != nil || len(args) == 0 || len(slices.Max(args)) != 100 {
		t.Errorf("got %q, %v after the limit was lowered", args, err)
	}
	if _, err := p.ReadCommand(); !errors.Is(err, ErrBulkLength) {
		t.Errorf("got %v from the next command, want %v", err, ErrBulkLength)
	}
}
