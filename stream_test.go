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

// The tests of streams read the same bytes twice, with Limits.Stream and without it, and compare. A
// command or a reply that is not whole is taken in each of these ways.
type way int

const (
	byReads  way = iota // NextArg or Body, in small reads
	byCopy              // NextArg or Body, with io.Copy
	byHalves            // NextArg or Body, of which half is read
	byWriteTo
	leftAlone
	ways
)

func (w way) String() string {
	return [...]string{"reads", "io.Copy", "halves", "WriteTo", "left alone"}[w]
}

// streamSizes are the values of Limits.Stream that a stream of n bytes is read with. A larger one is
// never exceeded.
func streamSizes(n int) (sizes []int) {
	for _, size := range []int{1, 10, 64, 1000, 64 << 10} {
		if size == 1 || size < n {
			sizes = append(sizes, size)
		}
	}
	return sizes
}

// A patient reader reads again after a timeout.
type patient struct{ io.Reader }

func (p patient) Read(b []byte) (n int, err error) {
	for {
		n, err = p.Reader.Read(b)
		if err != iotest.ErrTimeout {
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// readPart reads a string of size bytes in one of the ways, over timeouts.
func readPart(r io.Reader, size int64, how way) (string, error) {
	var got bytes.Buffer
	if how == byCopy {
		for {
			if _, err := io.Copy(&got, r); err != iotest.ErrTimeout {
				return got.String(), err
			}
		}
	}
	b := make([]byte, 1+min(size/8, 4096))
	for {
		if how == byHalves && int64(got.Len()) >= size/2 {
			return got.String(), nil
		}
		n, err := r.Read(b)
		got.Write(b[:n])
		switch err {
		case nil, iotest.ErrTimeout:
		case io.EOF:
			return got.String(), nil
		default:
			return got.String(), err
		}
	}
}

// takeCommand takes what has not arrived of c: got are its arguments, or with WriteTo wire is the
// whole command. With byHalves the arguments are not whole.
func takeCommand(t *testing.T, c *Command, how way) (got []string, wire string, err error) {
	t.Helper()
	switch how {
	case leftAlone:
		return nil, "", nil
	case byWriteTo:
		var out strings.Builder
		n, err := c.WriteTo(&out)
		if n != int64(out.Len()) {
			t.Fatalf("WriteTo wrote %d bytes and returned %d", out.Len(), n)
		}
		return nil, out.String(), err
	}
	var last io.Reader = strings.NewReader("")
	for {
		arg, size, err := c.NextArg()
		if n, end := last.Read(make([]byte, 1)); n != 0 || end != io.EOF && err == nil {
			t.Fatalf("the reader of an earlier argument gave %d bytes, %v after NextArg", n, end)
		}
		switch err {
		case nil:
		case iotest.ErrTimeout:
			continue
		case io.EOF:
			if _, _, err := c.NextArg(); err != io.EOF {
				t.Fatalf("NextArg after io.EOF gave %v", err)
			}
			return got, "", nil
		default:
			return got, "", err
		}
		text, err := readPart(arg, size, how)
		if how != byHalves && err == nil && int64(len(text)) != size {
			t.Fatalf("an argument of %d bytes has %d", size, len(text))
		}
		if err != nil {
			return got, "", err
		}
		got, last = append(got, text), arg
	}
}

// checkPart checks what is known of a command that is not whole. args and raw are the command, or the
// arguments are not known if it ends in an error.
func checkPart(t *testing.T, c *Command, args []string, raw string, how way) error {
	t.Helper()
	if !c.IsLast() || c.Clone() != nil || !strings.HasPrefix(raw, string(c.Raw())) {
		t.Fatalf("got IsLast %v, Clone %v, Raw %.100q of %.100q", c.IsLast(), c.Clone(), c.Raw(), raw)
	}
	views := c.Args()
	for i := range min(c.ArgCount(), len(views)+2) + 1 {
		if arg := c.Get(i); (arg == nil) != (i >= len(views)) || arg != nil && !bytes.Equal(arg, views[i]) {
			t.Fatalf("argument %d: Get gave %.100q, and Args has %d", i, arg, len(views))
		}
	}
	var got []string
	for _, v := range views {
		got = append(got, string(v))
	}
	more, wire, err := takeCommand(t, c, how)
	got = append(got, more...)
	if how == byWriteTo && (!strings.HasPrefix(raw, wire) || err == nil && wire != raw) {
		t.Fatalf("WriteTo wrote %.100q of %.100q, %v", wire, raw, err)
	}
	if args == nil {
		return err
	}
	if err != nil || c.ArgCount() != len(args) || len(got) > len(args) || how < byWriteTo && len(got) != len(args) {
		t.Fatalf("got %d arguments of %d, want %d, and %v", len(got), c.ArgCount(), len(args), err)
	}
	for i, arg := range got {
		if want := args[i]; arg != want && !(how == byHalves && strings.HasPrefix(want, arg)) {
			t.Fatalf("argument %d: got %.100q, want %.100q", i, arg, want)
		}
	}
	return nil
}

// checkCommands reads all commands of p. They must be those of want, which was read without Stream from
// data. streamed is how many were not whole.
func checkCommands(t *testing.T, p *Parser, data string, want run, how way) (streamed int) {
	t.Helper()
	var err error
	left := data
	for i := 0; err == nil; i++ {
		c, cerr := p.ReadCommand()
		for cerr == iotest.ErrTimeout {
			c, cerr = p.ReadCommand()
		}
		if err = cerr; err != nil {
			break
		}
		left = empties.ReplaceAllString(left, "")
		switch {
		case c.Whole():
			_, _, end := c.NextArg()
			var out strings.Builder
			c.WriteTo(&out)
			if i >= len(want.cmds) || !slices.Equal(texts(c), want.cmds[i]) || out.String() != want.raws[i] || end != io.EOF {
				t.Fatalf("command %d: got %.100q (%.100q), %v", i, texts(c), out.String(), end)
			}
		case i < len(want.cmds):
			streamed++
			checkPart(t, c, want.cmds[i], want.raws[i], how)
		default:
			streamed++
			err = checkPart(t, c, nil, left, how)
		}
		if i < len(want.cmds) {
			left = left[len(want.raws[i]):]
		}
	}
	same(t, run{err: err}, run{err: want.err})
	if _, again := p.ReadCommand(); errors.Is(err, &ProtocolError{}) && again != ErrBroken {
		t.Fatalf("got %v after a protocol error, want ErrBroken", again)
	}
	return streamed
}

// streamChunkings calls try with each way in which data may come, each way in which what is not whole
// may be taken, and each Stream. At the cuts, which are many, it takes one of the ways and one Stream, in
// turn.
func streamChunkings(data string, try func(how way, size int, src io.Reader)) {
	sizes := streamSizes(len(data))
	i := 0
	chunkings(data, func(_ string, r io.Reader) {
		i++
		s, known := r.(*source)
		for how := range ways {
			for k, size := range sizes {
				src := r
				switch {
				case known && s.cut > 0 && (how != way(i)%ways || k != i/int(ways)%len(sizes)):
					continue
				case known:
					again := *s
					src = &again
				case k > 0 || how != byWriteTo: // it can be read once
					continue
				}
				if how == byWriteTo {
					src = patient{src} // WriteTo cannot be resumed
				}
				try(how, size, src)
			}
		}
	})
}

// longRows has commands that are longer than what may be held of them, and errors inside them.
func longRows() (rows []row) {
	v := strings.Repeat("0123456789abcde\n", 1250) // 20,000 bytes
	set, many := []string{"SET", "key", v}, numbered(1500)
	good := batch{set, {"PING"}, many, {"GET", "k"}, {v, v, "x", v}, set, {"PING"}}
	rows = append(rows, row{name: "long commands", in: wire(good...) + "PING\n"})
	head := "*3\r\n$3\r\nSET\r\n$20000\r\n" + v
	for _, r := range []struct {
		name, tail string
		lim        Limits
	}{
		{name: "no CR LF behind a long argument", tail: "xx$1\r\na\r\nPING\r\n"},
		{name: "half a CR LF behind a long argument", tail: "\rx$1\r\na\r\nPING\r\n"},
		{name: "no length behind a long argument", tail: "\r\nabc\r\n"},
		{name: "a negative length", tail: "\r\n$-1\r\n"},
		{name: "a length of zeros", tail: "\r\n$" + strings.Repeat("0", maxLine+2)},
		{name: "a length over Bulk", tail: "\r\n$20001\r\n", lim: Limits{Bulk: 20000}},
		{name: "a length without LF", tail: "\r\n$1\rx"},
		{name: "a long last argument that is longer", tail: "\r\n$20000\r\n" + v + "x\r\n"},
		{name: "the end inside a long argument", tail: "\r\n$20000\r\n" + v[1:]},
		{name: "the end inside a CR LF", tail: "\r\n$20000\r\n" + v + "\r"},
		{name: "the end behind a long argument", tail: ""},
	} {
		rows = append(rows, row{name: r.name, in: head + r.tail, lim: r.lim})
	}
	over := "*1500\r\n" + strings.Repeat("$0\r\n\r\n", 1200)
	return append(rows,
		row{name: "many arguments and no CR LF", in: over + "$1\r\nabc"},
		row{name: "many arguments and no length", in: over + "*1\r\n"},
		row{name: "many arguments and the end", in: over},
		row{name: "more arguments than Args", in: over, lim: Limits{Args: 1499}})
}

func TestStreamCommands(t *testing.T) {
	streamed := 0
	for _, r := range slices.Concat(allRows(), longRows()) {
		t.Run(r.name, func(t *testing.T) {
			lim := r.lim
			lim.Total, lim.Stream = math.MaxInt, 0 // Total bounds other bytes with Stream
			p := NewParser(strings.NewReader(r.in))
			p.SetLimits(lim)
			want := pull(p, false)
			streamChunkings(r.in, func(how way, size int, src io.Reader) {
				defer func() {
					if t.Failed() {
						t.Logf("Stream %d, %v, %v", size, how, summary(src))
					}
				}()
				lim := lim
				lim.Stream = size
				p := NewParser(src)
				p.SetLimits(lim)
				streamed += checkCommands(t, p, r.in, want, how)
			})
			lim.Stream = 1
			if got := push(r.in, 7, lim); len(r.in) < 1000 {
				same(t, got, want) // the push form never streams
			}
		})
	}
	if streamed < 10_000 {
		t.Errorf("only %d commands were returned before they were whole", streamed)
	}
}

// summary says how a source gives its data, without the data.
func summary(r io.Reader) string {
	if p, ok := r.(patient); ok {
		r = p.Reader
	}
	if s, ok := r.(*source); ok {
		return fmt.Sprintf("reads of %d, cut at %d, %v between (joined: %v)", s.size, s.cut, s.gap, s.joined)
	}
	return fmt.Sprintf("%T", r)
}

// TestStaleReader: the reader of an argument, and of a reply's body, ends with the command or the reply.
// It reads nothing of what comes after it on the connection, and nothing of the next connection.
func TestStaleReader(t *testing.T) {
	value := strings.Repeat("v", 5000)
	for _, next := range []string{"read", "reset"} {
		p := NewParser(&source{data: []byte(wire([]string{"SET", "k", value}, []string{"PING"})), size: 1000})
		p.SetLimits(Limits{Stream: 100})
		arg, _, err := nextCommand(t, p).NextArg()
		if err != nil {
			t.Fatal(err)
		}
		body, reset := replyBody(t, bulk(value))
		if next == "reset" {
			p.Reset(strings.NewReader(wire([]string{"SECRET"})))
			reset(bulk("SECRET"))
		} else {
			nextCommand(t, p)
		}
		before := p.Buffered()
		for _, r := range []io.Reader{arg, body} {
			if next == "read" && r == body {
				continue
			}
			b := make([]byte, 20)
			if n, err := r.Read(b); n != 0 || err != io.EOF {
				t.Errorf("%s: got %q, %v from a reader that is past, want io.EOF", next, b[:n], err)
			}
		}
		if p.Buffered() != before {
			t.Errorf("%s: a reader that is past has read from the connection", next)
		}
	}
}

func nextCommand(t *testing.T, p *Parser) *Command {
	t.Helper()
	c, err := p.ReadCommand()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// replyBody returns the body of the reply in, which is not whole, and a function that resets its parser.
func replyBody(t *testing.T, in string) (body io.Reader, reset func(string)) {
	t.Helper()
	p := NewReplyParser(&source{data: []byte(in), size: 1000})
	p.SetLimits(Limits{Stream: 100})
	r, err := p.ReadReply()
	if err != nil || r.Whole() {
		t.Fatal(r.Whole(), err)
	}
	return r.Body(), func(in string) { p.Reset(strings.NewReader(in)) }
}
