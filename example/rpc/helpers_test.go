package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// patience is how long a test waits for what must happen before it gives up.
const patience = 20 * time.Second

// quiet is the options of a server that logs nothing.
func quiet() ServerOptions {
	return ServerOptions{Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// A service is a server that is running.
type service struct {
	*Server
	addr string
	l    net.Listener
	stop context.CancelFunc // begins the shutdown
	err  error              // of Serve, once done is closed
	done chan struct{}
}

// start serves what register registers, on a free port or on addr, until the test ends.
func start(t testing.TB, opts ServerOptions, addr string, register func(*Server)) *service {
	t.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	var l net.Listener
	waitFor(t, "the address to be free", func() (ok bool) {
		var err error
		l, err = net.Listen("tcp", addr)
		return err == nil
	})
	s := &service{Server: NewServer(opts), addr: l.Addr().String(), l: l, done: make(chan struct{})}
	register(s.Server)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	go func() {
		defer close(s.done)
		s.err = s.Serve(ctx, l)
	}()
	t.Cleanup(func() {
		stop()
		within(t, "the server's end", s.done)
	})
	return s
}

// kill ends the server as the death of its process would: nothing is drained.
func (s *service) kill() {
	s.l.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.conn.(*net.TCPConn).SetLinger(0)
		c.conn.Close()
	}
	s.mu.Unlock()
	s.stop()
	<-s.done
}

// connections returns how many the server has.
func (s *service) connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

func dial(t *testing.T, addr string, opts Options) *Client {
	t.Helper()
	c, err := Dial(context.Background(), addr, opts)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Close(ctx); err != nil && err != ErrClosed {
			t.Errorf("Close: %v", err)
		}
	})
	return c
}

func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

// A raw is a connection on which a test sends bytes.
type raw struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

func dialRaw(t *testing.T, addr string) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &raw{conn, t, bufio.NewReader(conn)}
}

// words is a command as clients send it.
func words(args ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b.String()
}

// want sends a request, and wants this reply.
func (c *raw) want(request, reply string) {
	c.t.Helper()
	io.WriteString(c, request)
	c.wantReply(reply)
}

func (c *raw) wantReply(reply string) {
	c.t.Helper()
	got := make([]byte, len(reply))
	n, err := io.ReadFull(c.r, got)
	if string(got[:n]) != reply {
		more, _ := c.r.Peek(c.r.Buffered())
		c.t.Fatalf("reply: got %q and %q (%v), want %q", got[:n], more, err, reply)
	}
}

// wantClosed wants the server to close the connection without another byte.
func (c *raw) wantClosed() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); len(rest) > 0 || errors.Is(err, context.DeadlineExceeded) {
		c.t.Fatalf("got %q (%v), want the end of the connection", rest, err)
	}
}

// bulk is a string as a server replies it.
func bulk(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

// A gate holds handlers until it is opened.
type gate struct {
	entered chan struct{} // has an element for each handler that has come
	open    chan struct{}
	once    sync.Once
}

func newGate() *gate { return &gate{entered: make(chan struct{}, 10_000), open: make(chan struct{})} }

func (g *gate) pass() {
	g.entered <- struct{}{}
	<-g.open
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// echo registers a raw method of this name that replies its argument.
func echo(s *Server, name string, options ...MethodOption) {
	HandleRaw(s, name, 1, func(_ context.Context, args [][]byte, w *redisproto.Writer) error {
		return w.WriteBulk(args[0])
	}, options...)
}

// held registers a raw method that replies its argument when the gate is open.
func held(s *Server, name string, g *gate, options ...MethodOption) {
	HandleRaw(s, name, 1, func(_ context.Context, args [][]byte, w *redisproto.Writer) error {
		g.pass()
		return w.WriteBulk(args[0])
	}, options...)
}
