package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// TestInFlight: no more calls are in flight than the option allows, and the others wait.
func TestInFlight(t *testing.T) {
	g := newGate()
	s := start(t, quiet(), "", func(s *Server) { held(s, "slow", g, Slow()) })
	t.Cleanup(g.release)
	c := dial(t, s.addr, Options{MaxInFlight: 2})
	var wg sync.WaitGroup
	for range 5 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if _, err := c.CallRaw(context.Background(), nil, "slow", nil); err != nil {
				t.Error(err)
			}
		}()
	}
	<-g.entered
	<-g.entered
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := c.CallRaw(ctx, nil, "slow", nil)
	if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrMaybeExecuted) {
		t.Errorf("a third call: got %v, want the deadline, and that it was not executed", err)
	}
	if len(g.entered) > 0 {
		t.Errorf("got %d more calls than are allowed", len(g.entered))
	}
	g.release()
	wg.Wait()
}

// TestLateReply: the reply to a call whose caller has gone is dropped, and the caller's memory left alone.
func TestLateReply(t *testing.T) {
	g := newGate()
	s := start(t, quiet(), "", func(s *Server) {
		held(s, "held", g)
		echo(s, "echo")
	})
	t.Cleanup(g.release)
	c := dial(t, s.addr, Options{})
	memory := []byte("untouched")
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-g.entered
		cancel()
	}()
	_, err := c.CallRaw(ctx, memory[:0], "held", []byte("late"))
	if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrMaybeExecuted) {
		t.Errorf("got %v, want that it was canceled and may have been executed", err)
	}
	g.release()
	if got, err := c.CallRaw(context.Background(), nil, "echo", []byte("next")); string(got) != "next" || err != nil {
		t.Errorf("the next call: got %q, %v", got, err)
	}
	if string(memory) != "untouched" {
		t.Errorf("the caller's memory: got %q", memory)
	}
}

// TestClose: Close waits for the calls in flight, and lets no other in.
func TestClose(t *testing.T) {
	g := newGate()
	s := start(t, quiet(), "", func(s *Server) { held(s, "slow", g, Slow()) })
	t.Cleanup(g.release)
	c := dial(t, s.addr, Options{Connections: 2})
	reply := make(chan string, 1)
	go func() {
		b, err := c.CallRaw(context.Background(), nil, "slow", []byte("in flight"))
		reply <- fmt.Sprint(string(b), err)
	}()
	<-g.entered
	closed := make(chan error, 1)
	go func() { closed <- c.Close(context.Background()) }()
	waitFor(t, "Close to begin", func() bool {
		_, err := c.CallRaw(context.Background(), nil, "slow")
		return errors.Is(err, ErrClosed)
	})
	select {
	case err := <-closed:
		t.Fatalf("Close returned %v with a call in flight", err)
	default:
	}
	g.release()
	if got, want := <-reply, "in flight<nil>"; got != want {
		t.Errorf("the call in flight: got %s, want %s", got, want)
	}
	if err := <-closed; err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := c.Close(context.Background()); err != ErrClosed {
		t.Errorf("the second Close: got %v", err)
	}
	waitFor(t, "the end of the connections", func() bool { return s.connections() == 0 })
}

// TestConnections: a call takes the connection with the fewest calls in flight, and no call the one
// whose server is gone.
func TestConnections(t *testing.T) {
	g := newGate()
	s := start(t, quiet(), "", func(s *Server) {
		held(s, "held", g) // is not slow: it holds up its connection
		echo(s, "echo")
	})
	t.Cleanup(g.release)
	c := dial(t, s.addr, Options{Connections: 2, Backoff: time.Hour, MaxBackoff: time.Hour})
	done := make(chan error, 1)
	go func() {
		_, err := c.CallRaw(context.Background(), nil, "held", nil)
		done <- err
	}()
	<-g.entered
	for range 100 {
		if _, err := c.CallRaw(context.Background(), nil, "echo", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	g.release()
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.conns[1].Load().conn.Close()
	waitFor(t, "the loss of a connection", func() bool { return c.conns[1].Load() == nil })
	for range 100 {
		if _, err := c.CallRaw(context.Background(), nil, "echo", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
}

// binaryCodec is a codec of messages that encode themselves, as those of protobuf do. They are pointers.
type binaryCodec struct{}

type message interface {
	encode() []byte
	decode([]byte) error
}

func (binaryCodec) Marshal(v any) ([]byte, error) { return v.(message).encode(), nil }

func (binaryCodec) Unmarshal(data []byte, v any) error { return v.(message).decode(data) }

type text struct{ s string }

func (m *text) encode() []byte {
	if m.s == "" {
		return nil
	}
	return []byte(m.s)
}

func (m *text) decode(b []byte) error {
	if bytes.ContainsRune(b, '!') {
		return errors.New("no ! please")
	}
	m.s = string(b)
	return nil
}

func TestCodec(t *testing.T) {
	opts := quiet()
	opts.Codec = binaryCodec{}
	s := start(t, opts, "", func(s *Server) {
		Handle(s, "repeat", func(_ context.Context, in *text) (*text, error) { return &text{in.s + in.s}, nil })
	})
	c := dial(t, s.addr, Options{Codec: binaryCodec{}})
	for in, want := range map[string]string{"ab": "abab", "": ""} {
		if got, err := Call[*text](context.Background(), c, "repeat", &text{in}); err != nil || got.s != want {
			t.Errorf("%q: got %v, %v, want %q", in, got, err, want)
		}
	}
	dialRaw(t, s.addr).want(words("repeat", ""), bulk("")) // which is no null
	_, err := Call[*text](context.Background(), c, "repeat", &text{"!"})
	if want := "ERR repeat: the payload does not decode: no ! please; expected a payload that decodes to *main.text"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// TestAllocations: neither side allocates for a raw call.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := start(t, quiet(), "", func(s *Server) { echo(s, "echo") })
	c := dial(t, s.addr, Options{})
	payload := bytes.Repeat([]byte("x"), 100)
	var reply []byte
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		var err error
		if reply, err = c.CallRaw(ctx, reply[:0], "echo", payload); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations a call, want none", n)
	}
}

// TestReplyErrorType: errors.As finds what the server replied, through a Call of any type.
func TestReplyErrorType(t *testing.T) {
	s := start(t, quiet(), "", demo)
	c := dial(t, s.addr, Options{})
	_, err := Call[AddReply](context.Background(), c, "calc.add", AddRequest{A: 1<<63 - 1, B: 1})
	var reply *redisproto.ReplyError
	if !errors.As(err, &reply) || reply.Code != "OVERFLOW" {
		t.Errorf("got %v, want OVERFLOW", err)
	}
	_, err = Call[int](context.Background(), c, "calc.add", AddRequest{A: 1})
	if err == nil || !strings.Contains(err.Error(), "calc.add: the reply does not decode") {
		t.Errorf("a reply of another type: got %v", err)
	}
	if _, err = Call[int](context.Background(), c, "calc.add", func() {}); err == nil || !strings.Contains(err.Error(), "the payload does not encode") {
		t.Errorf("a payload that cannot be encoded: got %v", err)
	}
}
