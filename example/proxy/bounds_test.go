package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

func TestMaxClients(t *testing.T) {
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-maxclients", "2")...)
		a, b := dial(t, p.addr, nil), dial(t, p.addr, nil)
		a.call("PING")
		b.call("PING")
		if got, want := dial(t, p.addr, nil).rest(), "-ERR max number of clients reached\r\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		a.Close()
		waitFor(t, "a client has a place again", func() bool { return p.clients.Load() == 1 })
		if got := dial(t, p.addr, nil).call("PING"); got != "PONG" {
			t.Errorf("got %q, want PONG", got)
		}
	})
}

func TestIdleClients(t *testing.T) {
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-idle", "100ms")...)
		subscribed, blocked := dial(t, p.addr, nil), dial(t, p.addr, nil)
		subscribed.send("SUBSCRIBE c")
		subscribed.read()
		blocked.send("BLPOP q 0")
		silent, spoke, uploads := dial(t, p.addr, nil), dial(t, p.addr, nil), dial(t, p.addr, nil)
		spoke.call("PING")
		io.WriteString(uploads.Conn, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\na part of it")
		for _, c := range []*conn{silent, spoke, uploads} {
			if got := c.rest(); got != "" {
				t.Errorf("got %q, want the end", got)
			}
		}
		other := dial(t, redis.addr, nil)
		other.call("PUBLISH c hi")
		other.call("RPUSH q x")
		subscribed.want("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n")
		blocked.want("*2\r\n$1\r\nq\r\n$1\r\nx\r\n")
	})
}

func TestTLSHandshakeTimeout(t *testing.T) {
	cert, key := writeCertificate(t)
	p := startProxy(t, freeAddr(t), "-tls-cert", cert, "-tls-key", key, "-handshake", "50ms")
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if b, err := io.ReadAll(c); isTimeout(err) {
		t.Errorf("got %q and %v, want the end", b, err)
	}
	waitFor(t, "the client is gone", func() bool { return p.clients.Load() == 0 })
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc: ", err)
	}
	return len(entries)
}

// Clients that go away while the upstream does not answer leave nothing open.
func TestClientsOfAStoppedUpstream(t *testing.T) {
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-answer", "300ms", "-connect", "300ms")...)
		dial(t, p.addr, nil).call("PING")
		before := openFiles(t)
		pauseProcess(t, redis.pid)
		defer resumeProcess(t, redis.pid)
		for range 200 {
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "PING\r\n")
			c.Close()
		}
		waitFor(t, "as few files are open as before", func() bool { return openFiles(t) <= before+2 })
		// One that stays is told.
		c := dial(t, p.addr, nil)
		c.send("PING")
		if got := c.read(); !strings.HasPrefix(got, "-ERR upstream did not answer in time") && !strings.HasPrefix(got, "-ERR upstream is away") {
			t.Errorf("got %q", got)
		}
		resumeProcess(t, redis.pid)
		waitFor(t, "the upstream is used again", func() bool { return dial(t, p.addr, nil).call("PING") == "PONG" })
	})
}

// Commands that wait for others may do so for longer than the upstream has to answer.
func TestAnswerTimeout(t *testing.T) {
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-answer", "80ms")...)
		blocked, slow, subscribed := dial(t, p.addr, nil), dial(t, p.addr, nil), dial(t, p.addr, nil)
		subscribed.send("SUBSCRIBE c")
		subscribed.read()
		blocked.send("BLPOP q 0.3")
		blocked.want("*-1\r\n")
		slow.send("DEBUG SLEEP 0.3")
		slow.want("-ERR upstream did not answer in time; the command may have been executed\r\n")
		if got := dial(t, p.addr, nil).call("PUBLISH c hi"); got != "1" && len(flags) == 0 {
			t.Errorf("PUBLISH: got %q, want 1", got)
		}
		subscribed.want("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n")
	})
}

// A client of shared links that does not read is closed, and others do not notice.
func TestSlowClientOfSharedLinks(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-shared", "1", "-output", "200000")
	c := dial(t, p.addr, nil)
	c.call("SETRANGE k 9999 x")
	before := heap()
	slow := dial(t, p.addr, nil)
	slow.SetDeadline(time.Now().Add(20 * time.Second))
	requests := strings.Repeat("GET k\r\n", 100)
	for err := error(nil); err == nil; { // until the proxy has closed it
		_, err = io.WriteString(slow.Conn, requests)
		if got := c.call("ECHO hi"); got != "hi" {
			t.Fatalf("got %q", got)
		}
		if isTimeout(err) {
			t.Fatal("the slow client is not closed")
		}
	}
	if grown := int64(heap()) - int64(before); grown > 16<<20 {
		t.Errorf("the proxy holds %d bytes", grown)
	}
	if got := p.closedSlow.Load(); got != 1 {
		t.Errorf("%d slow clients are counted, want 1", got)
	}
}

// When Redis closes a connection on purpose, the client sees the close, and no invented error.
func TestKilledClient(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr)
	other := dial(t, redis.addr, nil)
	for _, row := range []struct {
		commands []string
		replies  int
	}{{nil, 0}, {[]string{"SUBSCRIBE c"}, 1}, {[]string{"MULTI", "GET a"}, 2}} {
		c := dial(t, p.addr, nil)
		id := c.call("CLIENT ID")
		c.send(row.commands...)
		for range row.replies {
			c.read()
		}
		other.call("CLIENT KILL ID " + id)
		if got := c.rest(); got != "" {
			t.Errorf("after %q: got %q, want the end", row.commands, got)
		}
		if log := p.log.String(); strings.Contains(log, "WARN") || strings.Contains(log, "ERROR") {
			t.Errorf("after %q the log blames somebody:\n%s", row.commands, log)
		}
	}
	// With calls in flight that may have run, it is told so.
	c := dial(t, p.addr, nil)
	id := c.call("CLIENT ID")
	c.send("BLPOP q 0")
	other.untilInfo("blocked_clients:1")
	other.call("CLIENT KILL ID " + id)
	if got := c.rest(); got != "-ERR upstream "+closed+"\r\n" {
		t.Errorf("got %q, want an error", got)
	}
}

// Clients of shared links survive the loss of a link. What was sent is answered with an error, and
// nothing is executed twice.
func TestSharedLinkLost(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-shared", "1")
	admin := dial(t, redis.addr, nil)
	ctx, cancel := context.WithCancel(context.Background())
	var acknowledged, unsure atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			c := dial(t, p.addr, nil)
			for ctx.Err() == nil {
				c.send("INCR n", "INCR n", "INCR n", "INCR n")
				for range 4 {
					switch got := c.read(); {
					case got[0] == ':':
						acknowledged.Add(1)
					case strings.Contains(got, "may have been executed"):
						unsure.Add(1)
					case !strings.Contains(got, "was not executed") && !strings.Contains(got, "is away"):
						t.Errorf("got %q", got)
						return
					}
				}
			}
		}()
	}
	for range 20 {
		seen := acknowledged.Load()
		waitFor(t, "clients go on", func() bool { return acknowledged.Load() > seen+200 || t.Failed() })
		admin.call("CLIENT KILL TYPE normal SKIPME yes")
	}
	cancel()
	clients.Wait()
	var n int64
	fmt.Sscan(admin.call("GET n"), &n)
	if acked, maybe := acknowledged.Load(), unsure.Load(); n < acked || n > acked+maybe || maybe == 0 {
		t.Errorf("n is %d; %d were acknowledged, and %d perhaps executed", n, acked, maybe)
	}
}

// Replies to one client never reach another one, whatever the upstream does.
func TestHostileUpstream(t *testing.T) {
	var answers atomic.Pointer[string]
	upstream := fakeUpstream(t, func(conn net.Conn, command string) string {
		if command == "ECHO" {
			return *answers.Load()
		}
		return ""
	})
	for _, answer := range []string{"$5\r\nhello\r\n+extra\r\n", "garbage\r\n", "$-5\r\n", "*2\r\n+a\r\n", "+half"} {
		answers.Store(&answer)
		forEachMode(t, func(t *testing.T, flags []string) {
			p := startProxy(t, upstream, append(flags, "-answer", "200ms")...)
			a, b := dial(t, p.addr, nil), dial(t, p.addr, nil)
			a.call("PING")
			b.call("PING")
			a.send("ECHO hello")
			first, err := a.ReadReply()
			if err == nil && !strings.HasPrefix(answer, "$5") && !first.IsError() {
				t.Errorf("%q: got %q", answer, first.Raw())
			}
			for range 3 {
				if got := b.call("PING"); got != "PONG" && !strings.Contains(got, "closed the connection") {
					t.Errorf("%q: the other client got %q", answer, got)
				}
			}
		})
	}
}

// No goroutine, link or descriptor stays behind.
func TestNothingStays(t *testing.T) {
	redis := startRedis(t)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	var proxies []*testProxy
	for _, m := range modes {
		p := startProxy(t, redis.addr, m.flags...)
		for range 20 {
			c := dial(t, p.addr, nil)
			c.send("SET k 1", "MULTI", "GET k", "EXEC", "BLPOP none 0.001", "SUBSCRIBE a", "GET k")
			for range 6 {
				c.read()
			}
			c.Close()
		}
		p.stop()
		<-p.done
		proxies = append(proxies, p)
	}
	waitFor(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= goroutines+2 })
	waitFor(t, "all files are closed", func() bool { return openFiles(t) <= files+2 })
	for _, p := range proxies {
		if log := p.log.String(); strings.Contains(log, "WARN") {
			t.Errorf("the log accuses somebody:\n%s", log)
		}
	}
}

// Without a descriptor left, the upstream is not blamed, and its address is not told.
func TestOutOfDescriptors(t *testing.T) {
	for _, row := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", syscall.EMFILE)}, "no file descriptor left"},
		{&net.OpError{Op: "dial", Addr: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 6379}, Err: syscall.ECONNREFUSED}, "-ERR upstream is away\r\n"},
		{&tls.CertificateVerificationError{Err: errors.New("10.0.0.1 is not secret.example")}, "-ERR upstream is away\r\n"},
		{context.DeadlineExceeded, "no connection in time"},
	} {
		if got := awayText(row.err); !strings.Contains(got, row.want) || strings.Contains(got, "10.0.0.1") {
			t.Errorf("%v: got %q, want %q", row.err, got, row.want)
		}
	}
}

// What the proxy itself says on a link of a session's own is answered before another session can take it.
func TestLinkIsToldInTime(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-shared", "1")
	k := dial(t, p.addr, nil)
	for range 100 {
		k.send("UNSUBSCRIBE", "HELLO 3", "GET k", "CLIENT SETNAME me", "HELLO 2", "GET k")
		for range 6 {
			k.read()
		}
	}
	if log := p.log.String(); strings.Contains(log, "WARN") {
		t.Error(log)
	}
	k.send("UNSUBSCRIBE", "CLIENT SETNAME me", "PING")
	for range 3 {
		k.read()
	}
	k.call("PING")                // the link waits for another session now
	other := dial(t, p.addr, nil) // it may get the link that was told the other's name
	other.send("MULTI", "CLIENT GETNAME", "EXEC")
	other.want("+OK\r\n", "+QUEUED\r\n", "*1\r\n$-1\r\n")
}

// TestNoRepliesAreDue checks that a client which wants no replies may be silent for longer than the upstream
// has to answer.
func TestNoRepliesAreDue(t *testing.T) {
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-answer", "100ms")...)
		logFailure(t, p)
		for _, row := range [][]string{{"CLIENT REPLY OFF", "SET off 1"}, {"CLIENT REPLY SKIP"}, {"MONITOR"}} {
			c := dial(t, p.addr, nil)
			c.send(row...)
			if row[0] == "MONITOR" {
				c.want("+OK\r\n")
			}
			time.Sleep(600 * time.Millisecond)
			if row[0] == "CLIENT REPLY SKIP" {
				c.send("PING")
			}
			c.send("CLIENT REPLY ON")
			if r, err := c.ReadReply(); err != nil || string(r.Raw()) != "+OK\r\n" && row[0] != "MONITOR" {
				t.Errorf("%s: got %q and %v", row, r.Raw(), err)
			}
		}
	})
}

// TestSplitCommandsAreBounded sends large commands that are split, of which one node answers no part. The
// proxy must stop to take more.
func TestSplitCommandsAreBounded(t *testing.T) {
	t.Parallel()
	first, second := startTwoNodes(t, slotCount/2)
	over := make(chan struct{})
	second.answer = func(*redisproto.Command) string { <-over; return "+OK\r\n" }
	p := startProxyWith(t, "-cluster", first.addr)
	t.Cleanup(func() { close(over) }) // before the proxy ends, and the nodes
	k := dial(t, p.addr, nil)
	const size, most = 200_000, 32 << 20 // bytes; the system's buffers hold some
	command := appendCommand(nil, "MSET", keyOf(0), "1", keyOf(2), strings.Repeat("x", size))
	var sent atomic.Int64
	go func() {
		for sent.Load() < 2*most {
			if _, err := k.Conn.Write(command); err != nil {
				return
			}
			sent.Add(size)
		}
	}()
	waitFor(t, "a part was sent", func() bool { return first.calls.Load() > 0 })
	for before := int64(-1); before < sent.Load(); time.Sleep(300 * time.Millisecond) {
		if before = sent.Load(); before > most {
			t.Fatalf("the proxy took %d bytes", before)
		}
	}
	anySession(p, func(s *session) bool {
		if s.flying.bytes > maxFlyingBytes+2*size {
			t.Errorf("%d bytes are in flight, want %d at most", s.flying.bytes, maxFlyingBytes+2*size)
		}
		return false
	})
}

// TestSplitRepliesAreBounded has a session collect replies to parts of commands that are split.
func TestSplitRepliesAreBounded(t *testing.T) {
	t.Parallel()
	first, second := startTwoNodes(t, slotCount/2)
	value := fmt.Sprintf("*1\r\n$60000\r\n%060000d\r\n", 0)
	over := make(chan struct{})
	first.answer = func(*redisproto.Command) string { return value }
	second.answer = func(c *redisproto.Command) string {
		if string(c.Get(1)) != keyOf(2) {
			<-over
		}
		return value
	}
	p := startProxyWith(t, "-cluster", first.addr, "-output", "100000")
	t.Cleanup(func() { close(over) }) // before the proxy ends, and the nodes
	k := dial(t, p.addr, nil)
	get := "MGET " + keyOf(0) + " " + keyOf(2)
	k.send(get, "PING")
	k.want(tooLargeReply, "+PONG\r\n") // for one command
	silent := "MGET " + keyOf(0) + " {" + keyOf(2) + "}"
	k.send(silent, silent, "PING") // for two
	if b, _ := io.ReadAll(k.Conn); len(b) > 0 || p.closedSlow.Load() != 1 {
		t.Errorf("got %.40q, and %d clients were closed, want 1", b, p.closedSlow.Load())
	}
}

// TestLinkStaysWhileItsReaderWrites has a client not read what came on a link of its own. Another session must
// not get that link, whose reader waits for the client.
func TestLinkStaysWhileItsReaderWrites(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-shared", "1")
	dial(t, p.addr, nil).call("SET k 1")
	client, server := net.Pipe() // the proxy's writes wait for this client's reads
	served := make(chan struct{})
	go func() {
		p.serve(server)
		close(served)
	}()
	t.Cleanup(func() {
		client.Close()
		<-served
	})
	io.WriteString(client, "WATCH w\r\nGET k\r\nUNWATCH\r\n")
	waitFor(t, "all is answered, and the reader writes", func() bool {
		return anySession(p, func(s *session) bool { return s.writing && s.flying.calls == 0 })
	})
	io.WriteString(client, "PING\r\n") // the first command at which the link could be given back
	waitFor(t, "that is in flight, or answered", func() bool {
		return anySession(p, func(s *session) bool { return s.flying.calls > 0 || s.out != nil })
	})
	other := dial(t, p.addr, nil)
	other.send("WATCH w", "GET k")
	other.want("+OK\r\n", "$1\r\n1\r\n")
	const want = "+OK\r\n$1\r\n1\r\n+OK\r\n+PONG\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != want {
		t.Errorf("got %q and %v, want %q", got, err, want)
	}
}

// A proxy stops although a client that waits has sent more than is read meanwhile.
func TestStopsBehindMuchInput(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-drain", "300ms", "-inflight", "2")...)
		c := dial(t, p.addr, nil)
		c.send("BLPOP none 0", "CLIENT GETNAME", "PING", "SET k "+strings.Repeat("x", 2*maxAhead))
		waitFor(t, "the session reads no more", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			for s := range p.sessions {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.awaiting && !s.reading
			}
			return false
		})
		p.stop()
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			t.Error("the proxy does not stop")
			for s := range p.sessions {
				s.giveUp()
			}
		}
	})
}
