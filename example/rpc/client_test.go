package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// TestShared has 256 goroutines make 1,000 calls each over one connection.
func TestShared(t *testing.T) {
	s := start(t, quiet(), "", func(s *Server) {
		echo(s, "echo")
		echo(s, "echo.slow", Slow())
	})
	c := dial(t, s.addr, Options{})
	each := 1000
	if testing.Short() {
		each = 50
	}
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(1, uint64(i)))
			var reply []byte
			for range each {
				payload := randomBytes(r)
				method := "echo"
				if r.IntN(50) == 0 {
					method = "echo.slow"
				}
				ctx, cancel := context.Background(), context.CancelFunc(func() {})
				if r.IntN(4) == 0 {
					ctx, cancel = context.WithTimeout(ctx, patience)
				}
				var err error
				reply, err = c.CallRaw(ctx, reply[:0], method, payload)
				cancel()
				if err != nil || !bytes.Equal(reply, payload) {
					t.Errorf("%s of %d bytes: got %d bytes, %v", method, len(payload), len(reply), err)
					return
				}
			}
		}()
	}
	wg.Wait()
	if s.lastID != 1 {
		t.Errorf("connections: got %d, want 1", s.lastID)
	}
}

// noise is random bytes, from which payloads are cut.
var noise = func() []byte {
	b := make([]byte, 1<<17)
	r := rand.NewChaCha8([32]byte{})
	r.Read(b)
	return b
}()

// randomBytes returns a payload: mostly short, sometimes of some 100 KB.
func randomBytes(r *rand.Rand) []byte {
	n := r.IntN(200)
	switch r.IntN(500) {
	case 0:
		n = r.IntN(100_000)
	case 1, 2, 3, 4, 5:
		n = r.IntN(5000)
	}
	return noise[r.IntN(len(noise)-n):][:n]
}

// TestCancel cancels calls at random moments. Each of the others has its own reply, and the connection
// lives on.
func TestCancel(t *testing.T) {
	s := start(t, quiet(), "", func(s *Server) { echo(s, "echo") })
	c := dial(t, s.addr, Options{MaxInFlight: 40})
	var canceled, done atomic.Int64
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(2, uint64(i)))
			for j := range 300 {
				payload := []byte(fmt.Sprint(i, "/", j, strings.Repeat("x", r.IntN(1000))))
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(1000))*time.Microsecond)
				if r.IntN(2) == 0 {
					cancel()
					ctx, cancel = context.WithCancel(context.Background())
					time.AfterFunc(time.Duration(r.IntN(1000))*time.Microsecond, cancel)
				}
				got, err := c.CallRaw(ctx, nil, "echo", payload)
				cancel()
				switch {
				case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
					canceled.Add(1)
				case err != nil || !bytes.Equal(got, payload):
					t.Errorf("got %.20q, %v, want %.20q", got, err, payload)
				default:
					done.Add(1)
				}
			}
		}()
	}
	wg.Wait()
	if canceled.Load() == 0 || done.Load() == 0 {
		t.Errorf("got %d calls canceled and %d done, want some of both", canceled.Load(), done.Load())
	}
	if got, err := c.CallRaw(context.Background(), nil, "echo", []byte("after")); string(got) != "after" || err != nil {
		t.Errorf("after all: got %q, %v", got, err)
	}
	if s.lastID != 1 {
		t.Errorf("connections: got %d, want 1", s.lastID)
	}
}

// executions counts calls by their ids.
type executions struct {
	lost  atomic.Int64 // calls of which nobody knows
	mu    sync.Mutex
	count map[uint64]int
}

func (e *executions) register(s *Server) {
	HandleRaw(s, "once", 2, func(_ context.Context, args [][]byte, w *redisproto.Writer) error {
		id := binary.BigEndian.Uint64(args[0])
		e.mu.Lock()
		e.count[id]++
		e.mu.Unlock()
		return w.WriteBulk(args[0])
	})
}

// load has goroutines make calls with ids until stop is closed, and checks that each call has its own
// reply or an error, and was executed as often as its outcome says.
func (e *executions) load(t *testing.T, c *Client, goroutines int, stop <-chan struct{}) (replied, failed int) {
	const (
		good   = iota // it was executed once
		never         // it was not executed
		either        // nobody knows, but not twice
	)
	outcomes := make([]map[uint64]int, goroutines)
	filler := bytes.Repeat([]byte("x"), 2000)
	var wg sync.WaitGroup
	for g := range goroutines {
		outcomes[g] = map[uint64]int{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := uint64(0); ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := uint64(g)<<32 | i
				arg := binary.BigEndian.AppendUint64(nil, id)
				reply, err := c.CallRaw(context.Background(), nil, "once", arg, filler)
				switch {
				case err == nil && bytes.Equal(reply, arg):
					outcomes[g][id] = good
				case err == nil:
					t.Errorf("call %x: got the reply %x", id, reply)
				case errors.Is(err, ErrMaybeExecuted):
					outcomes[g][id] = either
					e.lost.Add(1)
				case errors.Is(err, ErrClosed):
					outcomes[g][id] = never
					return
				default:
					t.Errorf("call %x: %v", id, err)
				}
			}
		}()
	}
	wg.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, m := range outcomes {
		for id, outcome := range m {
			n := e.count[id]
			if n > 1 || outcome == good && n == 0 || outcome == never && n > 0 {
				t.Errorf("call %x with outcome %d was executed %d times", id, outcome, n)
			}
			if outcome == good {
				replied++
			} else {
				failed++
			}
		}
	}
	return replied, failed
}

// TestServerDies kills the server under load, and starts it again, at least five times, and until some
// calls were lost with it.
func TestServerDies(t *testing.T) {
	for _, connections := range []int{1, 3} {
		t.Run(fmt.Sprint("connections=", connections), func(t *testing.T) {
			e := &executions{count: map[uint64]int{}}
			s := start(t, quiet(), "", e.register)
			c := dial(t, s.addr, Options{Connections: connections, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond})
			executed := func() int {
				e.mu.Lock()
				defer e.mu.Unlock()
				return len(e.count)
			}
			stop := make(chan struct{})
			go func() {
				defer close(stop)
				for end, kills := time.Now().Add(patience), 0; kills < 5 || e.lost.Load() == 0 && time.Now().Before(end); kills++ {
					before := executed()
					waitFor(t, "calls", func() bool { return executed() > before+500 })
					s.kill()
					s = start(t, quiet(), s.addr, e.register)
				}
				before := executed()
				waitFor(t, "calls", func() bool { return executed() > before+500 })
			}()
			replied, failed := e.load(t, c, 32, stop)
			t.Logf("%d calls were replied to, %d may have been executed", replied, failed)
			if failed == 0 {
				t.Error("no call failed: the server did not die under load")
			}
		})
	}
}

// TestShutdownUnderLoad: when the server is told to stop, each call that it executes is replied to.
func TestShutdownUnderLoad(t *testing.T) {
	for round := range 10 {
		e := &executions{count: map[uint64]int{}}
		s := start(t, quiet(), "", e.register)
		c := dial(t, s.addr, Options{Connections: 1 + round%3})
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			waitFor(t, "calls", func() bool {
				e.mu.Lock()
				defer e.mu.Unlock()
				return len(e.count) > 1000
			})
			s.stop()
			<-s.done
			c.Close(context.Background()) // for the calls that wait for a connection
		}()
		replied, failed := e.load(t, c, 32, stop)
		if s.err != nil {
			t.Errorf("Serve: %v", s.err)
		}
		if replied != len(e.count) {
			t.Errorf("round %d: got %d replies to %d calls executed; %d failed", round, replied, len(e.count), failed)
		}
	}
}

// TestNeverWritten: a call that is made while there is no server is executed when there is one again.
func TestNeverWritten(t *testing.T) {
	s := start(t, quiet(), "", func(s *Server) { echo(s, "echo") })
	c := dial(t, s.addr, Options{Backoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond})
	s.kill()
	waitFor(t, "the connection's end", func() bool { return c.pick() == nil })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.CallRaw(ctx, nil, "echo", nil); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrMaybeExecuted) {
		t.Errorf("without a server: got %v, want the deadline", err)
	}
	reply := make(chan string)
	go func() {
		b, err := c.CallRaw(context.Background(), nil, "echo", []byte("waiting"))
		reply <- fmt.Sprint(string(b), err)
	}()
	start(t, quiet(), s.addr, func(s *Server) { echo(s, "echo") })
	if got, want := <-reply, "waiting<nil>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
