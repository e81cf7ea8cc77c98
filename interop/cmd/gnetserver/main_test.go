package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
)

const patience = 30 * time.Second // for what happens at once, unless it does not happen

// booted is the server, and tells when it listens.
type booted struct {
	server
	engine chan gnet.Engine
}

func (b *booted) OnBoot(e gnet.Engine) gnet.Action {
	b.engine <- e
	return gnet.None
}

// start runs the server until the test ends.
func start(t *testing.T, loops int) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().String()
	l.Close()
	b, ended := &booted{engine: make(chan gnet.Engine, 1)}, make(chan error, 1)
	go func() { ended <- gnet.Run(b, "tcp://"+addr, gnet.WithNumEventLoop(loops)) }()
	select {
	case err := <-ended:
		t.Fatal(err)
	case e := <-b.engine:
		t.Cleanup(func() {
			if err := e.Stop(context.Background()); err != nil {
				t.Error(err)
			}
			<-ended
		})
	}
	return addr
}

// talk sends a conversation in pieces of some bytes, ends it, and returns all that comes back.
func talk(t *testing.T, addr, sent string, piece int) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.(*net.TCPConn).SetNoDelay(true)
	go func() {
		for i := 0; i < len(sent); i += piece {
			if _, err := io.WriteString(conn, sent[i:min(i+piece, len(sent))]); err != nil {
				return
			}
			if piece == 1 {
				time.Sleep(100 * time.Microsecond) // so that most bytes come in a read of their own
			}
		}
	}()
	got, err := io.ReadAll(conn)
	if err != nil {
		t.Fatalf("after %q: %v", got, err)
	}
	return string(got)
}

// TestConversations end with QUIT or an error, in bytes that come one by one, and together.
func TestConversations(t *testing.T) {
	addr := start(t, 2)
	big := strings.Repeat("x", 300_000)
	for _, row := range []struct{ name, sent, want string }{
		{"inline", "hello\r\nSET hello\r\n\r\nGET hello\r\nQUIT\r\n", "-Command not support\r\n$2\r\nOK\r\n$5\r\ndummy\r\n+OK\r\n"},
		{"arrays", "*1\r\n$4\r\nPING\r\n*0\r\n*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n*2\r\n$4\r\necho\r\n$0\r\n\r\nQUIT\r\n", "+PONG\r\n$2\r\nhi\r\n$0\r\n\r\n+OK\r\n"},
		{"counts", "*4\r\n$5\r\nLPUSH\r\n$1\r\nk\r\n$1\r\na\r\n$1\r\nb\r\nECHO\r\nLPUSH k\r\nQUIT\r\n", ":2\r\n-ERR wrong number of arguments for 'echo' command\r\n-ERR wrong number of arguments for 'lpush' command\r\n+OK\r\n"},
		{"nothing after QUIT", "PING\r\nQUIT\r\nPING\r\n", "+PONG\r\n+OK\r\n"},
		{"protocol error", "PING\r\n*1\r\n$x\r\nPING\r\n", "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"},
		{"a large argument", "*2\r\n$4\r\nECHO\r\n$300000\r\n" + big + "\r\nQUIT\r\n", "$300000\r\n" + big + "\r\n+OK\r\n"},
	} {
		for _, piece := range []int{1, 1000, len(row.sent)} {
			if piece == 1 && len(row.sent) > 1000 {
				continue
			}
			if got := talk(t, addr, row.sent, piece); got != row.want {
				t.Errorf("%s, in pieces of %d: got %.200q, want %.200q", row.name, piece, got, row.want)
			}
		}
	}
}

// TestManyConnections: bytes of connections that take turns on one loop do not mix.
func TestManyConnections(t *testing.T) {
	addr := start(t, 1)
	const n = 50
	var conns []net.Conn
	for range n {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		conns = append(conns, conn)
	}
	value := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), i+1) }
	for half := range 2 {
		for i, conn := range conns {
			command := fmt.Sprintf("*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n", i+1, value(i))
			cut := 1 + i*7%(len(command)-1) // somewhere else in each
			io.WriteString(conn, []string{command[:cut], command[cut:]}[half])
			time.Sleep(time.Millisecond) // so that the server reads this before what the next one sends
		}
	}
	for i, conn := range conns {
		want := []byte("$" + strconv.Itoa(i+1) + "\r\n" + value(i) + "\r\n")
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("connection %d: got %q, error %v; want %q", i, got, err, want)
		}
	}
}

// TestUnread: a client that sends and does not read is closed once maxUnread bytes wait for it.
func TestUnread(t *testing.T) {
	addr := start(t, 1)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	request := []byte("*2\r\n$4\r\nECHO\r\n$1000000\r\n" + strings.Repeat("x", 1_000_000) + "\r\n")
	for sent := 0; ; sent += len(request) {
		if _, err := conn.Write(request); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				t.Fatalf("write: got %v, want a closed connection", err)
			}
			return
		}
		if sent > 10*maxUnread {
			t.Fatalf("sent %d bytes and read nothing: the connection is open, want it closed", sent)
		}
	}
}

func TestRedisBenchmark(t *testing.T) {
	path, err := exec.LookPath("redis-benchmark")
	if err != nil {
		t.Skip("no redis-benchmark installed")
	}
	_, port, _ := net.SplitHostPort(start(t, 2))
	for _, pipeline := range []string{"1", "16"} {
		out, err := exec.Command(path, "-p", port, "-t", "ping,set,get,lpush", "-n", "20000", "-P", pipeline, "--csv").Output()
		if err != nil {
			t.Fatalf("redis-benchmark -P %s: %v\n%s", pipeline, err, out)
		}
		if got := bytes.Count(out, []byte("\n\"")); got < 5 {
			t.Errorf("redis-benchmark -P %s: got %d results, want 5\n%s", pipeline, got, out)
		}
	}
}
