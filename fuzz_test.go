package redisproto

import (
	"bytes"
	"errors"
	"io"
	"math"
	"slices"
	"testing"
	"testing/iotest"
)

// The tables of parser_test.go are the seeds.

func seed(f *testing.F, add func(r row)) {
	for _, r := range allRows() {
		if len(r.in) < 8<<10 {
			add(r)
		}
	}
}

// A gauge counts what a Parser was given.
type gauge struct {
	io.Reader
	given int
}

func (g *gauge) Read(b []byte) (int, error) {
	n, err := g.Reader.Read(b)
	g.given += n
	return n, err
}

// FuzzReadCommand: whatever comes is read to its end, in memory that follows what came.
func FuzzReadCommand(f *testing.F) {
	seed(f, func(r row) { f.Add([]byte(r.in)) })
	f.Fuzz(func(t *testing.T, data []byte) {
		g := &gauge{Reader: bytes.NewReader(data)}
		p := NewParser(g)
		left := len(data) + 1
		for c := range p.Commands() {
			if size, max := len(p.buf.data), 4*g.given+maxHome; size > max {
				t.Fatalf("got a buffer of %d for %d bytes", size, g.given)
			}
			if size, max := cap(p.cmds[0].found.s)+cap(p.cmds[1].found.s), 4*g.given+64; size > max {
				t.Fatalf("got room for %d arguments for %d bytes", size, g.given)
			}
			if left--; left == 0 {
				t.Fatal("more commands than bytes")
			}
			if c.ArgCount() == 0 || len(c.Raw()) == 0 {
				t.Fatalf("got an empty command %q", c.Raw())
			}
		}
		var pe *ProtocolError
		if errors.As(p.Err(), &pe) && (pe.Offset < 0 || pe.Offset >= int64(len(data))) {
			t.Fatalf("got offset %d in %d bytes", pe.Offset, len(data))
		}
	})
}

// FuzzChunks: how the bytes are cut, and what errors come between, changes nothing, whatever the limits.
func FuzzChunks(f *testing.F) {
	seed(f, func(r row) {
		f.Add([]byte(r.in), uint16(1), uint16(3), r.lim.Args, r.lim.Bulk, r.lim.Inline, r.lim.Total, r.lim.Unauthenticated)
	})
	f.Fuzz(func(t *testing.T, data []byte, size, cut uint16, args, bulk, inline, total int, unauthenticated bool) {
		lim := Limits{Args: args, Bulk: bulk, Inline: inline, Total: total, Unauthenticated: unauthenticated}
		read := func(s *source, look bool) run {
			s.data = data
			p := NewParser(s)
			p.SetLimits(lim)
			return pull(p, look)
		}
		want := read(&source{}, false)
		for _, s := range []*source{
			{size: 1},
			{size: int(size), gap: iotest.ErrTimeout},
			{size: int(size), cut: int(cut) % (len(data) + 1), gap: iotest.ErrTimeout, joined: true},
		} {
			same(t, read(s, true), want)
		}
	})
}

// FuzzParse: push and pull agree.
func FuzzParse(f *testing.F) {
	seed(f, func(r row) { f.Add(r.in, uint16(5)) })
	f.Fuzz(func(t *testing.T, data string, step uint16) {
		want := pull(NewParser(bytes.NewReader([]byte(data))), true)
		same(t, push(data, 1, Limits{}), want)
		same(t, push(data, 1+int(step), Limits{}), want)
	})
}

// FuzzStream: what is returned before it is whole has the bytes, the arguments and the errors of what is
// returned whole, whatever comes, however it comes and within whatever limits.
func FuzzStream(f *testing.F) {
	for _, r := range slices.Concat(allRows(), longRows()) {
		if len(r.in) < 4<<10 {
			f.Add([]byte(r.in), false, uint8(len(r.in)), uint16(7), 1+len(r.in)/3, r.lim.Args, r.lim.Bulk, r.lim.Inline, r.lim.Depth, r.lim.Unauthenticated)
		}
	}
	for _, r := range slices.Concat(allReplies(), longReplies()) {
		if len(r.in) < 4<<10 {
			f.Add([]byte(r.in), true, uint8(len(r.in)), uint16(7), 1+len(r.in)/3, r.lim.Args, r.lim.Bulk, r.lim.Inline, r.lim.Depth, r.lim.Unauthenticated)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, replies bool, how uint8, size uint16, stream, args, bulk, inline, depth int, unauthenticated bool) {
		// A string of more than 2 GiB is refused without Stream. What is read in its place is the same.
		lim := Limits{Args: args, Bulk: min(bulk, 1<<30), Inline: inline, Depth: depth, Total: math.MaxInt, Unauthenticated: unauthenticated}
		streaming := lim
		streaming.Stream = stream
		var src io.Reader = &source{data: data, size: int(size), gap: iotest.ErrTimeout, joined: how&64 != 0}
		take := way(how) % ways
		if take == byWriteTo {
			src = patient{src}
		}
		if replies {
			p, q := NewReplyParser(bytes.NewReader(data)), NewReplyParser(src)
			p.SetLimits(lim)
			q.SetLimits(streaming)
			want, end := seeReplies(p)
			checkReplies(t, q, string(data), want, end, stream, take)
			return
		}
		p, q := NewParser(bytes.NewReader(data)), NewParser(src)
		p.SetLimits(lim)
		q.SetLimits(streaming)
		checkCommands(t, q, string(data), pull(p, false), take)
	})
}

// FuzzRoundTrip: what is parsed and written again parses to the same, and Raw parses to what it was.
func FuzzRoundTrip(f *testing.F) {
	seed(f, func(r row) { f.Add([]byte(r.in)) })
	f.Fuzz(func(t *testing.T, data []byte) {
		var out, raw bytes.Buffer
		w := NewWriter(&out)
		var want run
		for c := range NewParser(bytes.NewReader(data)).Commands() {
			want.add(c)
			raw.Write(c.Raw())
			if err := w.WriteBulksSlice(c.Args()); err != nil {
				t.Fatal(err)
			}
		}
		want.err = io.EOF
		same(t, pull(NewParser(&raw), true), want)
		written := out.String()
		got := pull(NewParser(&out), true)
		if got.err != io.EOF || !slices.EqualFunc(got.cmds, want.cmds, slices.Equal[[]string]) {
			t.Fatalf("got %q, %v from what was written again, want %q", got.cmds, got.err, want.cmds)
		}
		if wire(want.cmds...) != written {
			t.Fatalf("got %q written, want %q", written, wire(want.cmds...))
		}
	})
}

// same compares two runs over the same bytes.
func same(t *testing.T, got, want run) {
	t.Helper()
	if !slices.EqualFunc(got.cmds, want.cmds, slices.Equal[[]string]) || !slices.Equal(got.raws, want.raws) {
		t.Fatalf("got commands %.500q (%.500q), want %.500q (%.500q)", got.cmds, got.raws, want.cmds, want.raws)
	}
	var g, w *ProtocolError
	if errors.As(got.err, &g) && errors.As(want.err, &w) {
		if *g != *w {
			t.Fatalf("got %v at %d, want %v at %d", g, g.Offset, w, w.Offset)
		}
		return
	}
	if got.err != want.err {
		t.Fatalf("got error %v, want %v", got.err, want.err)
	}
}
