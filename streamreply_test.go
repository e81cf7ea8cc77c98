package redisproto

import (
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// A sight is what is known of a reply, whole or not.
type sight struct {
	kind          Kind
	size          int64
	count         int
	isErr         bool
	bytes, format string
	raw           string
}

func see(r Reply) sight {
	return sight{r.Kind(), r.Size(), r.Len(), r.IsError(), string(r.Bytes()), string(r.Format()), string(r.Raw())}
}

// seeReplies reads all replies of p, which are whole.
func seeReplies(p *ReplyParser) (all []sight, err error) {
	for {
		r, err := p.ReadReply()
		if err != nil {
			return all, err
		}
		all = append(all, see(r))
	}
}

// takeReply takes a reply that is not whole: body is what Body has, or with WriteTo wire is all of it.
func takeReply(t *testing.T, r Reply, how way) (body, wire string, err error) {
	t.Helper()
	switch how {
	case leftAlone:
		return "", "", nil
	case byWriteTo:
		var out strings.Builder
		n, err := r.WriteTo(&out)
		if n != int64(out.Len()) {
			t.Fatalf("WriteTo wrote %d bytes and returned %d", out.Len(), n)
		}
		return "", out.String(), err
	}
	size := r.Size()
	if size < 0 {
		size = 1 << 15
	}
	body, err = readPart(r.Body(), size, how)
	return body, "", err
}

// checkPartReply checks what is known of a reply that is not whole. want is the reply, or nil if it ends in
// an error; then raw is only what the reply begins with.
func checkPartReply(t *testing.T, r Reply, want *sight, raw string, how way) error {
	t.Helper()
	got := see(r)
	if got.bytes != "" || !strings.HasPrefix(raw, got.raw) || raw[0] != '|' && got.kind != Kind(raw[0]) || r.IsNull() {
		t.Fatalf("got %+v of %.100q", got, raw)
	}
	if r.Clone().Kind() != 0 || r.At(0).Kind() != 0 || (r.Err() != nil) != r.IsError() {
		t.Fatalf("got %v as a clone, %v as an element, error %v", r.Clone().Kind(), r.At(0).Kind(), r.Err())
	}
	for range r.All() {
		t.Fatal("All has an element")
	}
	for range r.Pairs() {
		t.Fatal("Pairs has a pair")
	}
	body, wire, err := takeReply(t, r, how)
	if how == byWriteTo && (!strings.HasPrefix(raw, wire) || err == nil && wire != raw) {
		t.Fatalf("WriteTo wrote %.100q of %.100q, %v", wire, raw, err)
	}
	if want == nil {
		return err
	}
	if err != nil {
		t.Fatalf("got %v from a reply that has no error", err)
	}
	known := *want
	known.bytes, known.raw, got.raw = "", "", ""
	if known.kind.isText() {
		known.size = -1
	}
	if got != known {
		t.Fatalf("got %+v, want %+v", got, known)
	}
	if how <= byCopy && body != want.bytes || how == byHalves && !strings.HasPrefix(want.bytes, body) {
		t.Fatalf("Body gave %.100q, want %.100q", body, want.bytes)
	}
	return nil
}

// tooBig reports whether ErrTooBig is right for the reply at the front of wire: only a number, or
// attributes in front of the reply, must be held.
func tooBig(wire string, size int) bool {
	kind := Kind(wire[0])
	return kind == attribute || kind.isLine() && !kind.isText() && len(wire) > size
}

// checkReplies reads all replies of p. They must be those of want, which were read without Stream from
// data. streamed is how many were not whole.
func checkReplies(t *testing.T, p *ReplyParser, data string, want []sight, end error, size int, how way) (streamed int) {
	t.Helper()
	var err error
	left := data
	for i := 0; err == nil; i++ {
		r, rerr := p.ReadReply()
		for rerr == iotest.ErrTimeout {
			r, rerr = p.ReadReply()
		}
		if err = rerr; err != nil {
			break
		}
		switch {
		case r.Whole():
			var out strings.Builder
			r.WriteTo(&out)
			body, berr := io.ReadAll(r.Body())
			if i >= len(want) || see(r) != want[i] || out.String() != want[i].raw || berr != nil || string(body) != want[i].bytes {
				t.Fatalf("reply %d: got %+v, %.100q, %.100q, %v", i, see(r), out.String(), body, berr)
			}
		case i < len(want):
			streamed++
			checkPartReply(t, r, &want[i], want[i].raw, how)
		default:
			streamed++
			err = checkPartReply(t, r, nil, left, how)
		}
		if i < len(want) {
			left = left[len(want[i].raw):]
		}
	}
	if errors.Is(err, ErrTooBig) && left != "" && tooBig(left, size) {
		if at := err.(*ProtocolError).Offset; at != int64(len(data)-len(left)) {
			t.Fatalf("got %v at %d, want %d", err, at, len(data)-len(left))
		}
	} else {
		same(t, run{err: err}, run{err: end})
	}
	if _, again := p.ReadReply(); errors.Is(err, &ProtocolError{}) && again != ErrBroken {
		t.Fatalf("got %v after a protocol error, want ErrBroken", again)
	}
	return streamed
}

// longReplies has replies that are longer than what may be held of them, and errors inside them.
func longReplies() (rows []replyRow) {
	v := strings.Repeat("0123456789abcde\n", 1250)   // 20,000 bytes
	text := strings.Repeat("a line of text. ", 4375) // 70,000 bytes
	line := text[:5000]
	head := "*4\r\n:1\r\n%2\r\n+a\r\n" + bulk(v) + "+b\r\n"
	for _, r := range []struct {
		name, in string
		lim      Limits
	}{
		{name: "a string", in: bulk(v) + "+OK\r\n"},
		{name: "an error", in: "!20000\r\n" + v + "\r\n+OK\r\n"},
		{name: "a verbatim string", in: "=20004\r\nmkd:" + v + "\r\n+OK\r\n"},
		{name: "an empty verbatim string", in: "=4\r\nmkd:\r\n+OK\r\n"},
		{name: "many integers", in: "*1500\r\n" + strings.Repeat(":1\r\n", 1500) + "+OK\r\n"},
		{name: "a map of arrays", in: "%700\r\n" + strings.Repeat("$1\r\na\r\n*2\r\n:1\r\n#t\r\n", 700) + "+OK\r\n"},
		{name: "a push", in: ">3\r\n+message\r\n+ch\r\n" + bulk(v) + "+OK\r\n"},
		{name: "a set", in: "~2\r\n" + bulk(v) + "=20004\r\ntxt:" + v + "\r\n_\r\n"},
		{name: "nested to the limit", in: strings.Repeat("*1\r\n", 128) + bulk(v) + "+OK\r\n"},
		{name: "nested too deep", in: head + strings.Repeat("*1\r\n", 127)},
		{name: "every kind, nested", in: head + "*14\r\n+a\r\n-b\r\n:3\r\n$1\r\nd\r\n*0\r\n_\r\n#t\r\n,8\r\n(9\r\n!2\r\nEE\r\n=5\r\ntxt:f\r\n%1\r\n:1\r\n:2\r\n~1\r\n:3\r\n>1\r\n:4\r\n" + "$-1\r\n*-1\r\n+OK\r\n"},
		{name: "attributes of elements", in: head + "|1\r\n+ttl\r\n:1\r\n" + bulk(v) + "|0\r\n_\r\n|1\r\n+a\r\n*1\r\n:1\r\n+b\r\n+OK\r\n"},
		{name: "a simple string", in: "+" + line + "\r\n:1\r\n+OK\r\n"},
		{name: "an error in a line", in: ":1\r\n-ERR " + line + "\r\n+OK\r\n"},
		{name: "an error in a line, alone", in: "-" + line + "\r\n"},
		{name: "a simple string over Bulk", in: "+" + line + "\r\n", lim: Limits{Bulk: len(line) - 1}},
		{name: "a simple string with CR", in: "+" + line + "\rx\r\n"},
		{name: "a simple string with LF", in: ":1\r\n+" + line + "\n:1\r\n"},
		{name: "the end in a simple string", in: "+" + line + "\r"},
		{name: "a long line of text", in: head + "+" + text + "\r\n:1\r\n:2\r\n+OK\r\n"},
		{name: "a long line of text last", in: "*1\r\n-" + text + "\r\n+OK\r\n"},
		{name: "a long line of text over Bulk", in: head + "+" + text + "\r\n", lim: Limits{Bulk: len(text) - 1}},
		{name: "a long line of text with CR", in: head + "+" + text + "\rx\r\n"},
		{name: "a long line of text with LF", in: head + "+" + text + "\n:1\r\n"},
		{name: "the end in a long line of text", in: head + "+" + text + "\r"},
		{name: "no CR LF behind a string", in: head + bulk(v)[:len(bulk(v))-2] + "xx+a\r\n"},
		{name: "a string over Bulk", in: head + "$20001\r\n", lim: Limits{Bulk: 20000}},
		{name: "a type that is none", in: head + bulk(v) + "hello\r\n"},
		{name: "a length that is none", in: head + "$x\r\n"},
		{name: "a count that is none", in: head + "*x\r\n"},
		{name: "a boolean that is none", in: head + "#x\r\n"},
		{name: "a verbatim string that is none", in: head + "=5\r\ntext:\r\n"},
		{name: "more elements than Args", in: head + "*15\r\n", lim: Limits{Args: 22}},
		{name: "the end in a string", in: head + bulk(v)[:2000]},
		{name: "the end between elements", in: head},
		{name: "the end in a CR LF", in: "*1\r\n" + bulk(v)[:len(bulk(v))-1]},
	} {
		rows = append(rows, replyRow{name: "long: " + r.name, in: r.in, lim: r.lim})
	}
	return rows
}

func TestStreamReplies(t *testing.T) {
	streamed := 0
	for _, r := range slices.Concat(allReplies(), longReplies()) {
		t.Run(r.name, func(t *testing.T) {
			lim := r.lim
			lim.Total, lim.Stream = math.MaxInt, 0 // Total bounds other bytes with Stream
			p := NewReplyParser(strings.NewReader(r.in))
			p.SetLimits(lim)
			want, end := seeReplies(p)
			streamChunkings(r.in, func(how way, size int, src io.Reader) {
				defer func() {
					if t.Failed() {
						t.Logf("Stream %d, %v, %v", size, how, summary(src))
					}
				}()
				lim := lim
				lim.Stream = size
				p := NewReplyParser(src)
				p.SetLimits(lim)
				streamed += checkReplies(t, p, r.in, want, end, size, how)
			})
		})
	}
	if streamed < 10_000 {
		t.Errorf("only %d replies were returned before they were whole", streamed)
	}
}
