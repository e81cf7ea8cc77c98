package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fake is a server that does what a test says with each connection, after answering the first PING.
func fake(t *testing.T, serve func(conn net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	t.Cleanup(func() {
		close(done)
		l.Close()
		wg.Wait()
	})
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Add(2)
			end := make(chan struct{})
			go func() {
				defer wg.Done()
				select {
				case <-done:
				case <-end:
				}
				conn.Close()
			}()
			go func() {
				defer wg.Done()
				defer close(end)
				io.ReadFull(conn, make([]byte, len(words("PING"))))
				io.WriteString(conn, "+PONG\r\n")
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

func dialFake(t *testing.T, addr string) *Client {
	t.Helper()
	c, err := Dial(context.Background(), addr, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBadServers has servers that answer with what is no reply, too slowly, or not at all.
func TestBadServers(t *testing.T) {
	call := words("echo", "hi")
	for _, tt := range []struct {
		name  string
		serve func(conn net.Conn)
		reply string
		err   string // in the error's text
		maybe bool
	}{
		{"garbage", func(conn net.Conn) {
			io.ReadFull(conn, make([]byte, len(call)))
			io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			io.Copy(io.Discard, conn)
		}, "", "invalid reply type", true},
		{"a reply that ends early", func(conn net.Conn) {
			io.ReadFull(conn, make([]byte, len(call)))
			io.WriteString(conn, "$10\r\nhi")
		}, "", "unexpected EOF", true},
		{"no reply, and the end", func(conn net.Conn) { io.ReadFull(conn, make([]byte, len(call))) },
			"", "the server closed the connection", true},
		{"two replies", func(conn net.Conn) {
			io.ReadFull(conn, make([]byte, len(call)))
			io.WriteString(conn, "+one\r\n+two\r\n")
			io.Copy(io.Discard, conn)
		}, "one", "", false},
		{"byte by byte", func(conn net.Conn) {
			for { // a call has a deadline, which changes from one to the next
				if n, err := conn.Read(make([]byte, 100)); n == 0 || err != nil {
					return
				}
				for _, ch := range bulk("hi") {
					io.WriteString(conn, string(ch))
					time.Sleep(time.Millisecond)
				}
			}
		}, "hi", "", false},
		{"a null", func(conn net.Conn) {
			conn.Read(make([]byte, 100))
			io.WriteString(conn, "$-1\r\n")
			io.Copy(io.Discard, conn)
		}, "", "", false},
		{"an array", func(conn net.Conn) {
			conn.Read(make([]byte, 100))
			io.WriteString(conn, "*1\r\n:1\r\n")
			io.Copy(io.Discard, conn)
		}, "", "the reply is of kind array, which has no text", false},
		{"nothing", func(conn net.Conn) { io.Copy(io.Discard, conn) }, "", "context deadline exceeded", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Dial(context.Background(), fake(t, tt.serve), Options{Backoff: time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.Background(), context.CancelFunc(func() {})
			if tt.name == "nothing" {
				ctx, cancel = context.WithTimeout(ctx, 20*time.Millisecond)
			}
			reply, err := c.CallRaw(ctx, nil, "echo", []byte("hi"))
			cancel()
			if tt.err == "" && (err != nil || string(reply) != tt.reply) {
				t.Errorf("got %q, %v, want %q", reply, err, tt.reply)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || errors.Is(err, ErrMaybeExecuted) != tt.maybe) {
				t.Errorf("got %q, %v, want %q, ErrMaybeExecuted: %v", reply, err, tt.err, tt.maybe)
			}
			ctx, cancel = context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			c.Close(ctx)
		})
	}
}

// TestDialBadServers has servers that are none.
func TestDialBadServers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts: the connection is made by the system, and nothing comes
	if _, err := Dial(context.Background(), l.Addr().String(), Options{DialTimeout: 20 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent server: got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Dial(ctx, l.Addr().String(), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: got %v", err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := Dial(context.Background(), addr, Options{Connections: 2}); err == nil {
		t.Error("no server: got no error")
	}
}

// TestDeafServer: a server that reads nothing makes calls wait, and each for no longer than its context.
func TestDeafServer(t *testing.T) {
	release := make(chan struct{})
	c := dialFake(t, fake(t, func(net.Conn) { <-release }))
	payload := make([]byte, 1<<20)
	var wg sync.WaitGroup
	for range 32 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			if _, err := c.CallRaw(ctx, nil, "echo", payload); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v, want the deadline", err)
			}
		}()
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := c.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: got %v, want the deadline", err)
	}
	close(release)
}

// TestEarlyReply: a reply that comes before its call was written is none of that call, which is made
// again on another connection.
func TestEarlyReply(t *testing.T) {
	queued, done := make(chan struct{}), make(chan struct{})
	defer close(done)
	var first atomic.Bool
	c := dialFake(t, fake(t, func(conn net.Conn) {
		if first.CompareAndSwap(false, true) { // reads nothing, so that the first call stays on its way
			<-queued
			io.WriteString(conn, "+one\r\n+two\r\n")
			<-done
			return
		}
		conn.Read(make([]byte, 1000))
		io.WriteString(conn, "+right\r\n")
		io.Copy(io.Discard, conn)
	}))
	replies := make([]chan string, 2)
	for i, size := range []int{16 << 20, 10} {
		replies[i] = make(chan string, 1)
		go func() {
			b, err := c.CallRaw(context.Background(), nil, "echo", make([]byte, size))
			replies[i] <- fmt.Sprint(string(b), err)
		}()
		waitFor(t, "a call", func() bool {
			cn := c.conns[0].Load()
			return cn != nil && cn.calls.Load() == int64(i+1)
		})
		if i == 0 {
			waitFor(t, "writing", func() bool {
				cn := c.conns[0].Load()
				cn.mu.Lock()
				defer cn.mu.Unlock()
				return cn.written > 0 && cn.out.size() == 0
			})
		}
	}
	close(queued)
	for i, want := range []string{"one<nil>", "right<nil>"} {
		if got := <-replies[i]; got != want {
			t.Errorf("call %d: got %s, want %s", i, got, want)
		}
	}
	if err := c.Close(context.Background()); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestPartlyWritten: of the calls that are written together when the connection fails, those that were
// not reached are made again.
func TestPartlyWritten(t *testing.T) {
	fail := make(chan struct{})
	var first atomic.Bool
	c := dialFake(t, fake(t, func(conn net.Conn) {
		if first.CompareAndSwap(false, true) {
			<-fail
			return
		}
		conn.Read(make([]byte, 1000))
		io.WriteString(conn, "+right\r\n")
		io.Copy(io.Discard, conn)
	}))
	cn := c.conns[0].Load()
	cn.mu.Lock()
	cn.writing = true // as if somebody were writing, so that both calls come together
	cn.mu.Unlock()
	results := make([]chan error, 2)
	for i, size := range []int{16 << 20, 10} {
		results[i] = make(chan error, 1)
		go func() {
			_, err := c.CallRaw(context.Background(), nil, "echo", make([]byte, size))
			results[i] <- err
		}()
		waitFor(t, "a call", func() bool { return cn.calls.Load() == int64(i+1) })
	}
	cn.wake <- struct{}{}
	waitFor(t, "writing", func() bool {
		cn.mu.Lock()
		defer cn.mu.Unlock()
		return cn.written > 16<<20
	})
	close(fail)
	if err := <-results[0]; !errors.Is(err, ErrMaybeExecuted) {
		t.Errorf("the call that was written in part: got %v, want ErrMaybeExecuted", err)
	}
	if err := <-results[1]; err != nil {
		t.Errorf("the call that was not written: got %v", err)
	}
	c.Close(context.Background())
}
