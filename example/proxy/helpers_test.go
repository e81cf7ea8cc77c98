package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

func TestMain(m *testing.M) {
	startPatience = time.Minute // the machine may be busy
	flag.Parse()
	if given := flag.Lookup("test.parallel"); given.Value.String() == given.DefValue {
		flag.Set("test.parallel", "8") // those that run beside each other mostly wait for their servers
	}
	os.Exit(m.Run())
}

// A redisServer is a redis-server on a free port of the loopback interface, with nothing saved. It
// ends with the test.
type redisServer struct {
	t    testing.TB
	addr string
	args []string
	pid  int
	stop func() // as the power cut does
}

// startRedis skips the test if there is no redis-server.
func startRedis(t testing.TB, args ...string) *redisServer {
	t.Helper()
	r := &redisServer{t: t, args: args, stop: func() {}}
	t.Cleanup(func() { r.stop() })
	for range 5 { // another process may take the port first
		r.addr = freeAddr(t)
		if r.start() {
			return r
		}
	}
	t.Fatal("redis-server does not start")
	return nil
}

func freeAddr(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start runs the server on its address, and reports whether it takes connections.
func (r *redisServer) start() (ready bool) {
	_, port, _ := net.SplitHostPort(r.addr)
	r.pid, r.stop, ready = runRedis(r.t, append([]string{"--port", port, "--dir", r.t.TempDir()}, r.args...)...)
	return ready
}

// runRedis runs redis-server, and reports whether it takes connections. It skips the test if there is none.
func runRedis(t testing.TB, args ...string) (pid int, stop func(), ready bool) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: ", err)
	}
	// The server ends with the shell's input, so also when the test binary dies.
	const untilEOF = `"$@" & echo "pid $!"; exec >&-; read x; kill -9 $! 2>/dev/null; wait`
	cmd := exec.Command("sh", append([]string{"-c", untilEOF, "sh", path, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
		"--enable-debug-command", "yes", "--hz", "100"}, args...)...) // with --hz, a BLPOP ends as soon as it has waited long enough
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for !ready && lines.Scan() {
		fmt.Sscanf(lines.Text(), "pid %d", &pid)
		ready = strings.Contains(lines.Text(), "Ready to accept connections")
	}
	drained := make(chan struct{})
	go func() {
		io.Copy(io.Discard, out)
		close(drained)
	}()
	return pid, sync.OnceFunc(func() {
		in.Close()
		<-drained
		cmd.Wait()
	}), ready
}

// waitFor waits until something is so.
func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute it is still not so that %s", what)
		}
	}
}

// A testProxy is a proxy on a free port, and what it logs.
type testProxy struct {
	*proxy
	addr string
	log  lockedBuffer
	stop context.CancelFunc // as SIGTERM does
	done chan struct{}      // it has stopped
}

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// startProxy starts a proxy in front of one Redis, as the flags say.
func startProxy(t testing.TB, upstream string, flags ...string) *testProxy {
	t.Helper()
	return startProxyWith(t, append([]string{"-upstream", upstream}, flags...)...)
}

// startProxyWith starts a proxy as the flags say.
func startProxyWith(t testing.TB, flags ...string) *testProxy {
	t.Helper()
	p := &testProxy{done: make(chan struct{})}
	o, err := parseFlags(append([]string{"-listen", "127.0.0.1:0"}, flags...), &p.log)
	if err != nil {
		t.Fatalf("%v: %v", flags, err)
	}
	inner, listener, err := o.open(context.Background(), slog.New(slog.NewTextHandler(&p.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, p.stop = context.WithCancel(context.Background())
	p.proxy, p.addr = inner, listener.Addr().String()
	go func() {
		inner.run(ctx, listener)
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		<-p.done
	})
	return p
}

// A conn is a connection to a server.
type conn struct {
	*redisproto.ReplyParser
	*redisproto.Writer
	net.Conn
	t testing.TB
}

func dial(t testing.TB, addr string, config *tls.Config) *conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		c = tls.Client(c, config)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute)) // a hang ends with an error
	return &conn{redisproto.NewReplyParser(c), redisproto.NewWriter(bufio.NewWriter(c)), c, t}
}

// send sends commands, each of words with spaces between; "_" is a space within a word.
func (c *conn) send(commands ...string) {
	c.t.Helper()
	for _, command := range commands {
		words := strings.Fields(command)
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "_", " ")
		}
		c.WriteBulkStrings(words)
	}
	if err := c.Flush(); err != nil {
		c.t.Fatal(err)
	}
}

// read reads a reply, and gives the bytes of it.
func (c *conn) read() string {
	c.t.Helper()
	r, err := c.ReadReply()
	if err != nil {
		c.t.Fatal(err)
	}
	return string(r.Raw())
}

// want reads replies and checks that they are what they should be.
func (c *conn) want(replies ...string) {
	c.t.Helper()
	for _, want := range replies {
		if got := c.read(); got != want {
			c.t.Errorf("got %q, want %q", got, want)
		}
	}
}

// call sends a command and reads its reply, which is no aggregate.
func (c *conn) call(command string) string {
	c.t.Helper()
	c.send(command)
	r, err := c.ReadReply()
	if err != nil {
		c.t.Fatal(err)
	}
	return string(r.Bytes())
}

// until repeats a command until it has that reply.
func (c *conn) until(want, command string) {
	c.t.Helper()
	for got := ""; got != want; got = c.call(command) {
		time.Sleep(time.Millisecond)
	}
}

// rest reads until the connection is closed.
func (c *conn) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c.Conn)
	if err != nil {
		c.t.Errorf("after %q: %v", b, err)
	}
	c.Close()
	return string(b)
}

// untilInfo returns when the server says so of its clients.
func (c *conn) untilInfo(line string) {
	c.t.Helper()
	for !strings.Contains(c.call("INFO clients"), line+"\r\n") {
		time.Sleep(time.Millisecond)
	}
}

// untilIdle returns when no client of the server is subscribed, blocked or monitoring, so that those of
// the last script have gone.
func (c *conn) untilIdle() {
	c.t.Helper()
	for {
		busy := false
		for _, line := range strings.Split(c.call("CLIENT LIST"), "\n") {
			busy = busy || line != "" && !strings.Contains(line, " flags=N ") || strings.Contains(line, " watch=1 ")
		}
		if !busy {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// listenFake serves each connection to a free port, which it returns. All of that ends with the test.
func listenFake(t testing.TB, serve func(net.Conn)) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var running sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for _, conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	running.Add(1)
	go func() {
		defer running.Done()
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			running.Add(1)
			go func() {
				defer running.Done()
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// fakeUpstream is a server that answers as a function says. For "" it answers as a Redis does to what the
// proxy itself asks, and +OK else.
func fakeUpstream(t testing.TB, answer func(conn net.Conn, command string) string) (addr string) {
	t.Helper()
	return listenFake(t, func(conn net.Conn) { serveFake(conn, answer) })
}

// serveFake serves one connection of a fakeUpstream.
func serveFake(conn net.Conn, answer func(conn net.Conn, command string) string) {
	parser := redisproto.NewParser(conn)
	parser.SetLimits(redisproto.Limits{Stream: maxWhole})
	for c := range parser.Commands() {
		name := string(c.Name())
		text := answer(conn, name)
		if text == "" {
			text = "+OK\r\n"
			switch name {
			case "PING":
				text = "+PONG\r\n"
			case "CLIENT":
				text = ":7\r\n"
			case "COMMAND":
				text = "*2\r\n*6\r\n$4\r\nping\r\n:-1\r\n*1\r\n+fast\r\n:0\r\n:0\r\n:0\r\n" +
					"*6\r\n$4\r\necho\r\n:2\r\n*1\r\n+fast\r\n:0\r\n:0\r\n:0\r\n"
			case "HELLO":
				text = "*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n"
			}
		}
		if _, err := io.WriteString(conn, text); err != nil {
			return
		}
	}
}
