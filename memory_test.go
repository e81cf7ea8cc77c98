package redisproto

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// A witness takes what is written to it, counts it, and looks now and then at how much memory is held.
type witness struct {
	n, look int64 // bytes; look is when it looks again
	every   int64
	before  int64 // the heap that is not counted
	most    int64
}

func newWitness(size int64) *witness {
	return &witness{before: heap(), look: size / 4, every: size / 4}
}

func (w *witness) Write(b []byte) (int, error) {
	if w.n += int64(len(b)); w.n >= w.look {
		w.look += w.every
		w.most = max(w.most, heap()-w.before)
	}
	return len(b), nil
}

// Read gives no bytes but looks: it stands between the pieces of a source.
func (w *witness) Read(b []byte) (int, error) {
	w.most = max(w.most, heap()-w.before)
	return 0, io.EOF
}

// A longStream is a command or a reply that is far longer than what may be held of it.
type longStream struct {
	name    string
	replies bool
	head    string
	unit    string // repeated n times
	n       int64
	tail    string
}

func longStreams() []longStream {
	const unit = "0123456789abcdef"
	n, elements := int64(256<<20/len(unit)), int64(1e6)
	if raceEnabled { // which takes twenty times as long
		n, elements = n/8, elements/4
	}
	length, count := fmt.Sprintf("$%d\r\n", n*int64(len(unit))), fmt.Sprintf("*%d\r\n", elements)
	return []longStream{
		{"a command of 256 MiB", false, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n" + length, unit, n, "\r\n"},
		{"a command of a million arguments", false, count, "$3\r\nabc\r\n", elements, ""},
		{"a string of 256 MiB", true, length, unit, n, "\r\n"},
		{"a nested string of 256 MiB", true, "*2\r\n*1\r\n" + length, unit, n, "\r\n:1\r\n"},
		{"a nested line of 32 MiB", true, "*2\r\n*1\r\n+", unit, n / 8, "\r\n:1\r\n"},
		{"an array of a million elements", true, count, "$3\r\nabc\r\n", elements, ""},
		{"an array of a million arrays", true, count, "*1\r\n:1\r\n", elements, ""},
	}
}

// size is how many bytes s has.
func (s *longStream) size() int64 { return int64(len(s.head)+len(s.tail)) + s.n*int64(len(s.unit)) }

// source gives s, and has w look in the middle of it.
func (s *longStream) source(w *witness) io.Reader {
	half := s.n / 2 * int64(len(s.unit))
	return io.MultiReader(strings.NewReader(s.head), repeated(s.unit, half), w,
		repeated(s.unit, s.n*int64(len(s.unit))-half), strings.NewReader(s.tail), iotest.ErrReader(iotest.ErrTimeout))
}

// take passes on, reads or skips s, and returns what reads the next command or reply.
func (s *longStream) take(t *testing.T, r io.Reader, lim Limits, how way, w *witness) (next func() error) {
	var whole bool
	var parts func() error
	var all io.WriterTo
	if s.replies {
		p := NewReplyParser(r)
		p.SetLimits(lim)
		reply, err := p.ReadReply()
		if err != nil {
			t.Fatal(err)
		}
		next = func() error { _, err := p.ReadReply(); return err }
		parts = func() error { _, err := io.Copy(w, reply.Body()); return err }
		whole, all = reply.Whole(), reply
	} else {
		p := NewParser(r)
		p.SetLimits(lim)
		c, err := p.ReadCommand()
		if err != nil {
			t.Fatal(err)
		}
		next = func() error { _, err := p.ReadCommand(); return err }
		parts = func() error {
			for {
				arg, _, err := c.NextArg()
				if err == nil {
					_, err = io.Copy(w, arg)
				}
				if err != nil {
					return errIsNot(err, io.EOF)
				}
			}
		}
		whole, all = c.Whole(), c
	}
	if whole {
		t.Fatal("it was returned whole")
	}
	switch how {
	case byWriteTo:
		if n, err := all.WriteTo(w); n != s.size() || w.n != n || err != nil {
			t.Errorf("WriteTo wrote %d bytes of %d, %v", n, s.size(), err)
		}
	case byCopy:
		if err := parts(); err != nil {
			t.Error(err)
		}
	}
	return next
}

// errIsNot returns err, or nil if it is target.
func errIsNot(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

// TestStreamMemory: what is passed on, read in parts or skipped costs Stream and 64 KiB, however long it is.
func TestStreamMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory and time of its own")
	}
	for _, s := range longStreams() {
		for _, stream := range []int{1, 16 << 10, 64 << 10, 1 << 20} {
			for _, how := range []way{byWriteTo, byCopy, leftAlone} {
				if how != byWriteTo && stream != 16<<10 {
					continue
				}
				t.Run(fmt.Sprintf("%s/stream=%d/%v", s.name, stream, how), func(t *testing.T) {
					w := newWitness(s.size())
					src := s.source(w)
					next := s.take(t, src, Limits{Stream: stream}, how, w)
					if err := next(); err != iotest.ErrTimeout {
						t.Errorf("got %v behind it, want a timeout", err)
					}
					if max := int64(stream + 64<<10); w.most > max {
						t.Errorf("got %d bytes held on the way, want at most %d", w.most, max)
					}
					checkHeld(t, w.before, 80<<10)
					runtime.KeepAlive(src)
					runtime.KeepAlive(next)
				})
			}
		}
	}
}

// checkHeld checks that at most max bytes are held more than before, once the collector has had its time.
func checkHeld(t *testing.T, before, max int64) {
	t.Helper()
	var held int64
	for range 50 {
		if held = heap() - before; held <= max {
			t.Logf("%d bytes held", held)
			return
		}
		time.Sleep(10 * time.Millisecond) // finalizers run in a goroutine of their own
	}
	t.Errorf("got %d bytes held, want at most %d", held, max)
}

// An idleRow is what a connection has sent before it waits.
type idleRow struct {
	name string
	few  bool // no command had 100 arguments, and no reply 100 elements
	lim  Limits
	in   string
}

func idleRows() []idleRow {
	rep, empty := strings.Repeat, "$0\r\n\r\n"
	ping, v := request("PING"), strings.Repeat("x", 20<<20)
	inline := Limits{Inline: 32 << 20}
	return []idleRow{
		{"nothing", true, Limits{}, ""},
		{"PINGs", true, Limits{}, rep(ping, 100_000)},
		{"DEL with 4,094 empty keys", false, Limits{}, rep("*4095\r\n$3\r\nDEL\r\n"+rep(empty, 4094), 5)},
		{"5,000 empty arguments", false, Limits{}, rep("*5000\r\n"+rep(empty, 5000), 5)},
		{"1,024 arguments", false, Limits{}, rep("*1024\r\n"+rep(empty, 1024), 5)},
		{"1,025 arguments", false, Limits{}, rep("*1025\r\n"+rep(empty, 1025), 5)},
		{"a million arguments", false, Limits{}, "*1000000\r\n" + rep(empty, 1e6)},
		{"a million arguments, PINGs", false, Limits{}, "*1000000\r\n" + rep(empty, 1e6) + rep(ping, 10_000)},
		{"99 arguments", true, Limits{}, rep("*99\r\n"+rep(empty, 99), 50)},
		{"20 MiB", true, Limits{}, request("SET", "k", v)},
		{"20 MiB, PINGs, 20 MiB", true, Limits{}, request("SET", "k", v) + rep(ping, 1000) + request("SET", "k", v)},
		{"100 of 100 KiB", true, Limits{}, rep(request("SET", "k", v[:100<<10]), 100)},
		{"a quoted line of 20 MiB", true, inline, "SET k '" + v + "'\n"},
		{"a quoted line of 20 MiB, PINGs", true, inline, "SET k '" + v + "'\n" + rep(ping, 100)},
		{"a quoted line of 20 MiB, quoted lines", true, inline, "SET k '" + v + "'\n" + rep("SET k 'a b'\n", 100)},
		{"a quoted line of 20 MiB between PINGs", true, inline, rep(ping, 10) + "SET k '" + v + "'\n" + rep(ping, 10)},
		{"quoted lines of 30 KiB", true, Limits{}, rep("SET k '"+v[:30<<10]+"'\n", 20)},
		{"quoted lines of 60 KiB", true, Limits{}, rep("SET k '"+v[:60<<10]+"'\n", 20)},
		{"30,000 words in quotes", false, Limits{}, rep(rep("'a'", 1)+rep(" 'a'", 15_000)+"\n", 3) + ping},
	}
}

// idleReplies are the rows of idleRows as replies, and some that only replies have.
func idleReplies() (rows []idleRow) {
	for _, row := range idleRows() {
		if !strings.Contains(row.in, "SET k '") && !strings.Contains(row.in, "'a'") {
			rows = append(rows, row)
		}
	}
	rep := strings.Repeat
	return append(rows,
		idleRow{"a million integers", false, Limits{}, "*1000000\r\n" + rep(":1\r\n", 1e6) + "+OK\r\n"},
		idleRow{"a million arrays", false, Limits{}, "*1000000\r\n" + rep("*1\r\n:1\r\n", 1e6)},
		idleRow{"nested 20,000 deep", false, Limits{Depth: 1 << 20}, rep("*1\r\n", 20_000) + ":1\r\n+OK\r\n"},
		idleRow{"a line of 20 MiB", true, Limits{}, "+" + rep("x", 20<<20) + "\r\n"},
		idleRow{"many attributes", false, Limits{}, rep("|0\r\n", 10_000) + "+OK\r\n"})
}

func (r *idleRow) max() int64 {
	if r.few {
		return 40 << 10
	}
	return 80 << 10
}

// TestIdleMemory: whatever a connection has done, one that waits holds little.
func TestIdleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory and time of its own")
	}
	for _, r := range idleRows() {
		r.check(t, "pull", func(t *testing.T) any {
			p := NewParser(r.source())
			p.SetLimits(r.lim)
			for c := range p.Commands() {
				c.Name()
				c.Args()
				c.IsLast()
			}
			return wants(t, p, p.Err(), iotest.ErrTimeout)
		})
		r.check(t, "push", func(t *testing.T) any {
			p := new(Parser)
			p.SetLimits(r.lim)
			b := []byte(r.in)
			for {
				c, n, err := p.Parse(b)
				if n == 0 {
					return wants(t, p, err, nil)
				}
				c.Name()
				c.Args()
				b = b[n:]
			}
		})
	}
	for _, r := range idleReplies() {
		r.check(t, "pull/replies", func(t *testing.T) any {
			p := NewReplyParser(r.source())
			p.SetLimits(r.lim)
			for {
				if _, err := p.ReadReply(); err != nil {
					return wants(t, p, err, iotest.ErrTimeout)
				}
			}
		})
		r.check(t, "push/replies", func(t *testing.T) any {
			p := new(ReplyParser)
			p.SetLimits(r.lim)
			b := []byte(r.in)
			for {
				_, n, err := p.Parse(b)
				if n == 0 {
					return wants(t, p, err, nil)
				}
				b = b[n:]
			}
		})
	}
}

func (r *idleRow) source() io.Reader {
	return io.MultiReader(strings.NewReader(r.in), iotest.ErrReader(iotest.ErrTimeout))
}

// wants returns p, and checks the error that it has ended with.
func wants(t *testing.T, p any, err, want error) any {
	t.Helper()
	if err != want {
		t.Fatalf("got error %v, want %v", err, want)
	}
	return p
}

// check checks how much each of the parsers holds that use makes and uses. There are several where
// that is quick, so that what the testing package takes meanwhile does not count.
func (r *idleRow) check(t *testing.T, form string, use func(*testing.T) any) {
	t.Run(form+"/"+r.name, func(t *testing.T) {
		n := int64(8)
		if len(r.in) > 1<<20 {
			n = 1
		}
		parsers := make([]any, n)
		before := heap()
		for i := range parsers {
			parsers[i] = use(t)
		}
		checkHeld(t, before, n*r.max())
		runtime.KeepAlive(parsers)
	})
}
