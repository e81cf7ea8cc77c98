package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test binary the server too, for tests that need it as a process.
func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv("KV_TEST_ARGS"); ok {
		os.Exit(run(strings.Fields(args)))
	}
	os.Exit(m.Run())
}

const patience = 30 * time.Second // for what happens at once, unless it does not happen

// start runs a server until the test ends.
func start(t testing.TB, cfg config) (s *server, addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = newServer(cfg, slog.New(slog.NewTextHandler(io.Discard, nil)))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		s.serve(ctx, l)
		close(done)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return s, l.Addr().String()
}

// startRedis runs a redis-server until the test ends, or skips the test.
func startRedis(t testing.TB) (addr string) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("no redis-server installed: nothing to compare with")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(path, "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	waitFor(t, "redis-server", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return addr
}

// waitFor waits until done.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: did not happen in %v", what, patience)
		}
	}
}

// A peer is a client in a test.
type peer struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return newPeer(t, conn)
}

func newPeer(t testing.TB, conn net.Conn) *peer {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &peer{conn, t, bufio.NewReader(conn)}
}

// request gives a command as a client sends it.
func request(words ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, w := range words {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b
}

// do sends a command, words with blanks between, and returns the reply as it came.
func (p *peer) do(command string) string {
	p.t.Helper()
	p.Write(request(strings.Split(command, " ")...))
	return p.reply()
}

func (p *peer) reply() string {
	p.t.Helper()
	b, err := readReply(p.r)
	if err != nil {
		p.t.Fatalf("reply: got %q, %v", b, err)
	}
	return string(b)
}

// want sends a command and checks the reply.
func (p *peer) want(command, want string) {
	p.t.Helper()
	if got := p.do(command); got != want {
		p.t.Errorf("%s: got %q, want %q", command, got, want)
	}
}

// wantClosed reads what there is to the end, which must come.
func (p *peer) wantClosed() (rest string) {
	p.t.Helper()
	b, err := io.ReadAll(p.r)
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		p.t.Fatalf("connection: still open, want closed")
	}
	return string(b)
}

// readReply reads one reply, with all that is in it, as it came.
func readReply(r *bufio.Reader) (b []byte, err error) {
	b, err = r.ReadBytes('\n')
	if err != nil {
		return b, err
	}
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b[1:])))
	switch b[0] {
	case '$', '=':
		if n >= 0 {
			body := make([]byte, n+2)
			_, err = io.ReadFull(r, body)
			b = append(b, body...)
		}
	case '%':
		n *= 2
		fallthrough
	case '*', '~', '>':
		for ; n > 0 && err == nil; n-- {
			var element []byte
			element, err = readReply(r)
			b = append(b, element...)
		}
	}
	return b, err
}
