package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Values of any size pass, in each direction, beside what comes before and after them.
func TestLargeValues(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		c := dial(t, startProxy(t, redis.addr, flags...).addr, nil)
		for _, size := range []int{maxWhole - 40, maxWhole, maxWhole + 1, 1 << 20, 8 << 20} {
			big := bytes.Repeat([]byte("0123456789abcd\r\n"), size/16+1)[:size]
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				c.WriteCommand("ECHO", "hey")
				c.WriteCommand("SET", "k", big)
				c.send("GET k", "STRLEN k", "ECHO hi", "MULTI", "GET k", "STRLEN k", "EXEC", "GETDEL k", "ECHO ho")
			}()
			whole := fmt.Sprintf("$%d\r\n%s\r\n", size, big)
			c.want("$3\r\nhey\r\n", "+OK\r\n")
			for _, want := range []string{whole, fmt.Sprintf(":%d\r\n", size), "$2\r\nhi\r\n", "+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n",
				fmt.Sprintf("*2\r\n%s:%d\r\n", whole, size), whole, "$2\r\nho\r\n"} {
				if got := c.read(); got != want {
					t.Fatalf("%d bytes: got %.40q and more, %d bytes, want %.40q, %d bytes", size, got, len(got), want, len(want))
				}
			}
			<-sent
		}
		// A large message, and a large command that is an error.
		sub := dial(t, c.Conn.RemoteAddr().String(), nil)
		sub.send("SUBSCRIBE c")
		sub.read()
		big := strings.Repeat("x", 1<<20)
		c.send("PUBLISH c "+big, "GET "+big+" "+big, "NOSUCH "+big, "PING")
		c.want(":1\r\n", "-ERR wrong number of arguments for 'get' command\r\n")
		if got := c.read(); !strings.HasPrefix(got, "-ERR unknown command 'NOSUCH', with args beginning with: 'xxx") {
			t.Errorf("got %.60q", got)
		}
		c.want("+PONG\r\n")
		sub.send("PING")
		sub.want(fmt.Sprintf("*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n%s\r\n", len(big), big), "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
	})
}

// A large value begins to arrive before its end has been sent, and is not held.
func TestLargeValuesAreNotHeld(t *testing.T) {
	const size, most = 32 << 20, 24 << 20 // bytes
	redis := startRedis(t)
	c := dial(t, redis.addr, nil)
	c.call(fmt.Sprintf("SETRANGE big %d x", size-1))
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, flags...)
		before := heap()
		var conns []*conn
		for range 3 { // clients that do not read
			c := dial(t, p.addr, nil)
			c.send("GET big")
			conns = append(conns, c)
		}
		for _, c := range conns { // the reply has begun
			var b [1]byte
			if _, err := io.ReadFull(c.Conn, b[:]); err != nil || b[0] != '$' {
				t.Fatalf("got %q and %v", b, err)
			}
		}
		c := dial(t, p.addr, nil) // one that sends slowly
		fmt.Fprintf(c.Conn, "*3\r\n$3\r\nSET\r\n$5\r\nother\r\n$%d\r\n", size)
		block := make([]byte, 1<<20)
		for range size >> 20 {
			c.Conn.Write(block)
		}
		if grown := int64(heap()) - int64(before); grown > most {
			t.Errorf("the proxy holds %d bytes, want %d at most", grown, most)
		}
		io.WriteString(c.Conn, "\r\n")
		c.want("+OK\r\n")
		for _, c := range conns {
			if n, err := io.CopyN(io.Discard, c.Conn, size); n != size || err != nil {
				t.Errorf("got %d bytes and %v, want %d", n, err, size)
			}
		}
	})
}

// A client that does not take a large reply keeps no other client of the shared link waiting for long,
// and is closed if the reply cannot be had again.
func TestLargeRepliesOnSharedLinks(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-shared", "1", "-output", "1000000")
	c := dial(t, p.addr, nil)
	c.call(fmt.Sprintf("SETRANGE big %d x", 32<<20))
	slow := dial(t, p.addr, nil)
	slow.send("GETDEL big")
	for range 100 {
		if got := c.call("ECHO hi"); got != "hi" {
			t.Fatalf("got %q", got)
		}
	}
	if b, _ := io.ReadAll(slow.Conn); len(b) > 32<<20 {
		t.Errorf("the slow client got all %d bytes", len(b))
	}
	if !strings.Contains(p.log.String(), "client closed") {
		t.Errorf("nothing is logged:\n%s", &p.log)
	}
}

// An error can be large, too: it must not end a link that others share.
func TestLargeErrors(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	const size = 3 << 20
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, flags...)
		k, other := dial(t, p.addr, nil), dial(t, p.addr, nil)
		var over atomic.Bool
		var running sync.WaitGroup
		running.Add(1)
		go func() {
			defer running.Done()
			for last := false; !last; {
				last = over.Load() // so that one command is sent after the errors
				other.WriteCommand("ECHO", "hi")
				other.Flush()
				if r, err := other.ReadReply(); err != nil || string(r.Bytes()) != "hi" {
					t.Errorf("the other client got %.40q and %v", r.Raw(), err)
					return
				}
			}
		}()
		defer running.Wait()
		defer over.Store(true)
		for range 2 {
			k.send(fmt.Sprintf("EVAL return{err=string.rep('x',%d)} 0", size), "PING", "XREADGROUP GROUP g c STREAMS "+strings.Repeat("x", size)+" >", "PING")
			k.want("-"+strings.Repeat("x", size)+"\r\n", "+PONG\r\n")
			if got := k.read(); !strings.HasPrefix(got, "-NOGROUP") || len(got) < size {
				t.Errorf("got %.100q, %d bytes", got, len(got))
			}
			k.want("+PONG\r\n")
		}
	})
}

// MULTI goes to the link that its commands and EXEC go to, also if a large reply has a link opened meanwhile.
func TestMultiBehindLargeReply(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-shared", "1")
	const size = 2 * maxWhole
	dial(t, p.addr, nil).call(fmt.Sprintf("SETRANGE big %d x", size-1))
	for range 5 {
		k := dial(t, p.addr, nil)
		k.send("GET big", "MULTI", "SET x 1", "EXEC")
		if got := k.read(); len(got) < size {
			t.Errorf("got %.100q", got)
		}
		k.want("+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n")
	}
}

// A client may take longer to send a large command than the upstream has to answer.
func TestSlowUpload(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		t.Parallel()
		p := startProxy(t, redis.addr, append(flags, "-answer", "100ms")...)
		k := dial(t, p.addr, nil)
		const part, parts = 100_000, 4
		fmt.Fprintf(k.Conn, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", part*parts)
		for range parts {
			io.WriteString(k.Conn, strings.Repeat("x", part))
			time.Sleep(150 * time.Millisecond)
		}
		io.WriteString(k.Conn, "\r\n")
		k.want("+OK\r\n")
		if log := p.log.String(); strings.Contains(log, "WARN") {
			t.Error(log)
		}
	})
}

// An upstream that stops to read in the middle of a large command is not waited for without end.
func TestUpstreamStopsWithinLargeCommand(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	upstream := fakeUpstream(t, func(conn net.Conn, command string) string {
		if command == "ECHO" { // of which only the beginning has come
			<-over
		}
		return ""
	})
	release := sync.OnceFunc(func() { close(over) })
	t.Cleanup(release) // before the upstream ends
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, upstream, append(flags, "-answer", "300ms")...)
		k := dial(t, p.addr, nil)
		k.SetDeadline(time.Now().Add(20 * time.Second))
		fmt.Fprintf(k.Conn, "*2\r\n$4\r\nECHO\r\n$%d\r\n", 256<<20)
		k.Conn.Write(make([]byte, 64<<20)) // more than the systems' buffers hold; it fails when the proxy closes
		if r, err := k.ReadReply(); err != nil || !strings.HasPrefix(string(r.Raw()), "-ERR upstream closed") {
			t.Errorf("got %q and %v", r.Raw(), err)
			release() // else the proxy would not end
		}
	})
}

// When the upstream is lost in the middle of a large command, a client that does not send on is told.
func TestUpstreamLostWithinLargeCommand(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	admin := dial(t, redis.addr, nil)
	unparsed := regexp.MustCompile(" qbuf=[0-9]{6,} ")
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, flags...)
		k := dial(t, p.addr, nil)
		k.call("SET k 1")
		fmt.Fprintf(k.Conn, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s", 8<<20, strings.Repeat("x", 1<<20))
		waitFor(t, "the server has a part of it", func() bool { return unparsed.MatchString(admin.call("CLIENT LIST")) })
		admin.call("CLIENT KILL TYPE normal SKIPME yes")
		if got, want := k.rest(), "-ERR upstream "+closed+"\r\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// The beginning of a reply reaches the client although its end is not there.
func TestFirstByte(t *testing.T) {
	release := make(chan struct{})
	releaseOnce := sync.OnceFunc(func() { close(release) })
	upstream := fakeUpstream(t, func(conn net.Conn, command string) string {
		if command != "GET" {
			return ""
		}
		io.WriteString(conn, "$1000000\r\n"+strings.Repeat("x", 500000))
		<-release
		return strings.Repeat("x", 500000) + "\r\n"
	})
	t.Cleanup(releaseOnce)
	c := dial(t, startProxy(t, upstream).addr, nil)
	c.send("GET k")
	if _, err := io.CopyN(io.Discard, c.Conn, 300000); err != nil {
		t.Fatal(err)
	}
	releaseOnce()
	if n, err := io.CopyN(io.Discard, c.Conn, 10+1000000+2-300000); err != nil {
		t.Errorf("got %d bytes more, and %v", n, err)
	}
}

// A client that ends in the middle of a large command gets the replies that are due, and the log accuses
// nobody.
func TestEndWithinLargeCommand(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, flags...)
		for range 20 {
			k := dial(t, p.addr, nil)
			k.send("PING", "SELECT 1", "GET none", "RPUSH q a", "BLPOP q 0")
			fmt.Fprintf(k.Conn, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s", 8<<20, strings.Repeat("x", 1<<20))
			closeWrite(k.Conn)
			if got, want := k.rest(), "+PONG\r\n+OK\r\n$-1\r\n:1\r\n*2\r\n$1\r\nq\r\n$1\r\na\r\n"; got != want {
				t.Fatalf("got %q, want %q", got, want)
			}
		}
		if log := p.log.String(); strings.Contains(log, "WARN") {
			t.Error(log)
		}
	})
}

// When a client goes away while replies are written to it, the log accuses nobody.
func TestClientGoesWithoutReading(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, flags...)
		for range 20 {
			k := dial(t, p.addr, nil)
			k.send("SELECT 1", "SETRANGE k 50000 x")
			k.read()
			k.read()
			for range 200 {
				k.WriteBulkStrings([]string{"GET", "k"})
			}
			k.Flush()
			k.read()
			k.Conn.(*net.TCPConn).SetLinger(0)
			k.Conn.Close()
		}
		for p.clients.Load() > 0 {
			time.Sleep(time.Millisecond)
		}
		if log := p.log.String(); strings.Contains(log, "WARN") {
			t.Error(log)
		}
	})
}

// A client that ends a large command with what is no command is told so, and its connection ends, although
// a command that waits for others is in front of it.
func TestMalformedBehindBlocked(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	c := dial(t, startProxy(t, redis.addr, "-shared", "1").addr, nil)
	c.send("BLPOP none 0")
	io.WriteString(c.Conn, "*4"+wireOf("SET", "k", strings.Repeat("x", 2*maxWhole))[2:]+"$x\r\n")
	if got := c.rest(); !strings.HasPrefix(got, "-ERR upstream closed") || !strings.Contains(got, "Protocol error: invalid bulk length") {
		t.Errorf("got %q", got)
	}
}
