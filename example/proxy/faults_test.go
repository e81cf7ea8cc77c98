package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

const denied = "-ERR command 'flushall' is denied by the proxy\r\n"

// A refused command's error is in its place, whatever else the connection is doing.
func TestDeny(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-deny", "FlushAll, config", "-slowlog", "1h")
	const aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n"
	tests := []struct {
		name, in, want string // inline commands, "|" between
	}{
		{"alone", "FLUSHALL", denied},
		{"in any case", "flushALL async|Config get x", denied + strings.Replace(denied, "flushall", "config", 1)},
		{"in a pipeline", "SET a 1|GET a|FLUSHALL|GET a|flushall|PING", "+OK\r\n$1\r\n1\r\n" + denied + "$1\r\n1\r\n" + denied + "+PONG\r\n"},
		{"quoted", `"FLUSH\x41LL"|PING`, denied + "+PONG\r\n"},
		{"in a transaction", "MULTI|SET a 2|FLUSHALL|EXEC|GET a", "+OK\r\n+QUEUED\r\n" + denied + aborted + "$1\r\n1\r\n"},
		{"behind one that blocks", "BLPOP none 0.01|FLUSHALL|PING", "*-1\r\n" + denied + "+PONG\r\n"},
		{"without replies", "CLIENT REPLY OFF|FLUSHALL|PING|CLIENT REPLY ON|GET a", "+OK\r\n$1\r\n1\r\n"},
		{"without a reply", "CLIENT REPLY SKIP|FLUSHALL|PING|flushall|PING", "+PONG\r\n" + denied + "+PONG\r\n"},
		{"while subscribed", "SUBSCRIBE c|FLUSHALL|PING|UNSUBSCRIBE|FLUSHALL|PING", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n" + denied +
			"*2\r\n$4\r\npong\r\n$0\r\n\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n" + denied + "+PONG\r\n"},
		{"while monitoring", "MONITOR|FLUSHALL", "+OK\r\n" + denied},
		{"replication", "SYNC|PSYNC ? -1|PING", strings.ReplaceAll(denied, "flushall", "sync") + strings.ReplaceAll(denied, "flushall", "psync") + "+PONG\r\n"},
		{"no such name", "FLUSHALLS", "-ERR unknown command 'FLUSHALLS', with args beginning with: \r\n"},
		{"not a command", "GET a|*1|x4", "$1\r\n1\r\n-ERR Protocol error: expected '$', got 'x'\r\n"},
		{"never a command", `"`, "-ERR Protocol error: unbalanced quotes in request\r\n"},
		{"not a command, later", `GET a|CLIENT REPLY SKIP|GET a|flushall|PING|"`,
			"$1\r\n1\r\n" + denied + "+PONG\r\n-ERR Protocol error: unbalanced quotes in request\r\n"},
		{"not a command, without replies", `CLIENT REPLY OFF|GET a|"`, ""},
		{"not a command, behind one that blocks", `BLPOP none 0.01|"`, "*-1\r\n-ERR Protocol error: unbalanced quotes in request\r\n"},
		{"a browser", "GET / HTTP/1.1|Host: x|FLUSHALL", "-ERR wrong number of arguments for 'get' command\r\n"},
		{"a browser's form", "POST / HTTP/1.1|Host: x|FLUSHALL", ""},
	}
	for _, tt := range tests {
		c := dial(t, redis.addr, nil)
		c.call("SET a 1")
		c = dial(t, p.addr, nil)
		quit := "QUIT\r\n"
		if strings.HasPrefix(tt.name, "not ") || strings.HasPrefix(tt.name, "never ") || strings.HasPrefix(tt.name, "a browser") {
			quit = ""
		}
		io.WriteString(c.Conn, strings.ReplaceAll(tt.in, "|", "\r\n")+"\r\n"+quit)
		if tt.name == "not a command, without replies" { // the server waits then, and so does the proxy
			closeWrite(c.Conn)
		}
		want := tt.want
		if quit != "" {
			want += "+OK\r\n"
		}
		if got := c.rest(); got != want {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, got, want)
		}
	}
	if got := dial(t, redis.addr, nil).call("GET a"); got != "1" {
		t.Errorf("after all: got %q, want 1", got)
	}
	if !strings.Contains(p.log.String(), "possible cross-protocol attack") {
		t.Errorf("no attack is logged: %s", &p.log)
	}
}

func TestSlowlog(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr, "-slowlog", "30ms", "-slowlog-values")
	c := dial(t, p.addr, nil)
	for _, commands := range [][]string{
		{"PING"}, {"DEBUG SLEEP 0.06"}, {"BLPOP none 0.06"}, {"ECHO together", "DEBUG SLEEP 0.06"},
		{"BRPOP none 0.06", "ECHO waits"}, {"DEBUG SLEEP 0.06", "ECHO " + strings.Repeat("x", 200)},
	} {
		c.send(commands...)
		for range commands {
			c.read()
		}
	}
	c.Close()
	p.stop()
	<-p.done
	log := p.log.String()
	for _, want := range []string{`msg="slow command" client=127.0.0.1:`, `command="DEBUG SLEEP 0.06"`, `xxx..."`,
		`count=2 commands="ECHO together | DEBUG SLEEP 0.06"`} {
		if !strings.Contains(log, want) {
			t.Errorf("no %s in the log:\n%s", want, log)
		}
	}
	for _, never := range []string{"PING", "POP", "waits"} {
		if strings.Contains(log, never) {
			t.Errorf("%s is in the log:\n%s", never, log)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// What a slow client has not read is the upstream's to hold.
func TestSlowClient(t *testing.T) {
	const size, count, most = 1 << 20, 100, 16 << 20 // bytes, replies, bytes
	redis := startRedis(t)
	other := dial(t, redis.addr, nil)
	other.call("SETRANGE k 1048575 x")
	before := heap()
	c := dial(t, startProxy(t, redis.addr).addr, nil)
	c.send("CLIENT SETNAME slow")
	c.want("+OK\r\n")
	for range count {
		c.WriteCommand("GET", "k")
	}
	c.Flush()
	waiting := func() (omem int) {
		for _, line := range strings.Split(other.call("CLIENT LIST"), "\n") {
			if _, rest, ok := strings.Cut(line, " omem="); ok && strings.Contains(line, "name=slow ") {
				fmt.Sscan(rest, &omem)
			}
		}
		return omem
	}
	for last, same := -1, 0; same < 5; time.Sleep(20 * time.Millisecond) { // until nothing moves
		if now := waiting(); now == last && now > 0 {
			same++
		} else {
			last, same = now, 0
		}
	}
	if got := waiting(); got < size*count/2 {
		t.Errorf("the upstream holds %d bytes of replies, want %d or so", got, size*count)
	}
	if got := heap() - before; int64(got) > most {
		t.Errorf("the proxy holds %d bytes, want %d at most", got, most)
	}
	for range count {
		if r, err := c.ReadReply(); err != nil || len(r.Bytes()) != size {
			t.Fatalf("got %d bytes and %v", len(r.Bytes()), err)
		}
	}
}

// What a slow upstream has not read is the client's to hold; and so are commands in endless number.
func TestSlowUpstream(t *testing.T) {
	patience := startPatience
	startPatience = 50 * time.Millisecond // it never tells its commands
	defer func() { startPatience = patience }()
	for _, tt := range []struct {
		name  string
		reads bool
	}{{"reads nothing", false}, {"answers nothing", true}} {
		over := make(chan struct{})
		upstream := listenFake(t, func(conn net.Conn) {
			if tt.reads {
				go io.Copy(io.Discard, conn)
			}
			<-over
		})
		before := heap()
		c := dial(t, startProxy(t, upstream, "-drain", "1ms").addr, nil)
		t.Cleanup(func() { close(over) }) // before the proxy ends, and the upstream
		pings := bytes.Repeat([]byte("PING\r\n"), 10000)
		for sent := 0; ; {
			c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
			n, err := c.Conn.Write(pings)
			if sent += n; err != nil {
				break
			}
			if sent > 500<<20 {
				t.Fatalf("%s: the proxy took %d bytes", tt.name, sent)
			}
		}
		if got, want := int64(heap()-before), int64(16<<20); got > want {
			t.Errorf("%s: the proxy holds %d bytes, want %d at most", tt.name, got, want)
		}
	}
}

const closed = "closed the connection; the command may have been executed"

func TestUpstreamAway(t *testing.T) {
	redis := startRedis(t)
	redis.stop()
	p := startProxy(t, redis.addr)
	for range 2 {
		c := dial(t, p.addr, nil)
		io.WriteString(c.Conn, "PING\r\nMULTI\r\nEXEC\r\n")
		if got := c.rest(); strings.Count(got, "-ERR upstream is away\r\n") != 3 || strings.Count(got, "\r\n") != 3 {
			t.Errorf("got %q, want three errors", got)
		}
	}
	if !redis.start() {
		t.Fatal("redis-server does not start again")
	}
	c := dial(t, p.addr, nil)
	c.send("SET k 1", "GET k")
	c.want("+OK\r\n", "$1\r\n1\r\n")
	for _, line := range []string{"upstream is away", "upstream is back"} {
		if got := strings.Count(p.log.String(), line); got != 1 {
			t.Errorf("%q is %d times in the log, want once:\n%s", line, got, &p.log)
		}
	}

	c.send("BLPOP q 0", "INCR k", "SUBSCRIBE a b")
	dial(t, redis.addr, nil).untilInfo("blocked_clients:1")
	redis.stop()
	got := c.rest()
	if strings.Count(got, "-ERR upstream "+closed) != 3 || strings.Count(got, "\r\n") != 3 {
		t.Errorf("in flight: got %q, want three errors", got)
	}
	if !strings.Contains(p.log.String(), `msg="upstream lost" upstream=`) {
		t.Errorf("the loss is not logged:\n%s", &p.log)
	}
}

// The upstream is killed and started again while clients send pipelines without a pause. Each reply
// is that of its command or says that the upstream was lost; after such an error there are only
// more of them, and the end.
func TestUpstreamRestarts(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	p := startProxy(t, redis.addr)
	ctx, cancel := context.WithCancel(context.Background())
	var good, lost, away atomic.Int64
	var clients sync.WaitGroup
	for id := range 8 {
		clients.Add(1)
		go func() {
			defer clients.Done()
			for ctx.Err() == nil {
				if err := pipelines(ctx, p.addr, id, &good, &lost, &away); err != nil {
					t.Errorf("client %d: %v", id, err)
					return
				}
			}
		}()
	}
	for range 3 {
		for seen := good.Load(); good.Load() < seen+5000 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		redis.stop()
		for seen := away.Load(); away.Load() < seen+20 && !t.Failed(); {
			time.Sleep(time.Millisecond)
		}
		if !redis.start() {
			t.Error("redis-server does not start again")
			break
		}
	}
	for seen := good.Load(); good.Load() < seen+5000 && !t.Failed(); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	clients.Wait()
	if lost.Load() == 0 {
		t.Error("no command was in flight when the upstream was lost")
	}
	t.Logf("%d replies, %d lost in flight, %d refused", good.Load(), lost.Load(), away.Load())
}

// pipelines sends pipelines over one connection until that ends, or ctx.
func pipelines(ctx context.Context, addr string, id int, good, lost, away *atomic.Int64) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	sent := make(chan string, 256) // what each reply should be
	go func() {
		defer close(sent)
		w := redisproto.NewWriter(conn)
		for n := 0; ctx.Err() == nil; n++ {
			text := fmt.Sprintf("%d:%d", id, n)
			if n%8 == 7 {
				text = strings.Repeat(text, 2000)
			}
			if w.WriteBulkStrings([]string{"ECHO", text}) != nil {
				return
			}
			sent <- text
		}
		conn.(*net.TCPConn).CloseWrite()
	}()
	defer func() {
		conn.Close()
		for range sent {
		}
	}()
	parser, failed := redisproto.NewReplyParser(conn), false
	for {
		r, err := parser.ReadReply()
		if err == io.EOF || errors.Is(err, syscall.ECONNRESET) { // without an error if nothing had been sent to the upstream
			return nil
		}
		if err != nil {
			return err
		}
		text := string(r.Bytes())
		want := <-sent
		switch {
		case strings.Contains(text, closed):
			lost.Add(1)
			failed = true
		case strings.Contains(text, "is away"), strings.HasSuffix(text, "the command was not executed"):
			away.Add(1)
			failed = true
		case failed:
			return fmt.Errorf("got %.40q after an error", text)
		case text != want:
			return fmt.Errorf("got %.40q, want %.40q", text, want)
		default:
			good.Add(1)
		}
	}
}

// What was received is answered after SIGTERM, and the end is the end.
func TestDrain(t *testing.T) {
	redis := startRedis(t)
	other := dial(t, redis.addr, nil)
	p := startProxy(t, redis.addr, "-drain", "30s")
	idle, subscribed, busy := dial(t, p.addr, nil), dial(t, p.addr, nil), dial(t, p.addr, nil)
	idle.call("PING")
	subscribed.send("SUBSCRIBE c")
	subscribed.read()
	busy.send("BLPOP q 0", "ECHO hi")
	other.untilInfo("blocked_clients:1")
	p.stop()
	for _, c := range []*conn{idle, subscribed} {
		if got := c.rest(); got != "" {
			t.Errorf("got %q, want the end", got)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; { // until new clients are turned away
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("new clients are still taken")
		}
	}
	if got, want := busy.rest(), unblocked+"$2\r\nhi\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	<-p.done
	if strings.Contains(p.log.String(), "WARN") || strings.Contains(p.log.String(), "ERROR") {
		t.Errorf("the log blames somebody:\n%s", &p.log)
	}
}

const unblocked = "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"

// writeCertificate writes a certificate for 127.0.0.1, which vouches for itself, and its key.
func writeCertificate(t *testing.T) (cert, key string) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
}

func TestTLS(t *testing.T) {
	cert, key := writeCertificate(t)
	_, tlsPort, _ := net.SplitHostPort(freeAddr(t))
	redis := startRedis(t, "--tls-port", tlsPort, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", cert)
	p := startProxy(t, "127.0.0.1:"+tlsPort, "-upstream-tls", "-upstream-ca", cert, "-upstream-cert", cert, "-upstream-key", key,
		"-tls-cert", cert, "-tls-key", key, "-tls-client-ca", cert, "-deny", "flushall")
	pool, err := authorities(cert)
	if err != nil {
		t.Fatal(err)
	}
	own, err := certificates(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, p.addr, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", Certificates: own})
	large := strings.Repeat("x", 1<<20)
	c.send("SET k 1", "ECHO "+large, "FLUSHALL", "QUIT")
	c.want("+OK\r\n", fmt.Sprintf("$%d\r\n%s\r\n", len(large), large), denied, "+OK\r\n")
	if got := c.rest(); got != "" {
		t.Errorf("got %q, want the end", got)
	}
	if got := dial(t, redis.addr, nil).call("GET k"); got != "1" {
		t.Errorf("got %q, want 1", got)
	}

	plain := dial(t, p.addr, nil)
	io.WriteString(plain.Conn, "PING\r\n")
	if b, _ := io.ReadAll(plain.Conn); bytes.Contains(b, []byte("PONG")) {
		t.Errorf("without TLS: got %q", b)
	}
	stranger := startProxy(t, "127.0.0.1:"+tlsPort, "-upstream-tls")
	c = dial(t, stranger.addr, nil)
	c.send("PING")
	if got := c.rest(); !strings.Contains(got, "-ERR upstream is away\r\n") || !strings.Contains(stranger.log.String(), "failed to verify certificate") {
		t.Errorf("an upstream that nobody vouches for: got %q", got)
	}
}

// An upstream that does not answer a large command is noticed, although an earlier command was answered
// while that was on its way.
func TestUploadNotAnswered(t *testing.T) {
	t.Parallel()
	const size = 4 * maxWhole
	addr := listenFake(t, func(conn net.Conn) {
		parser := redisproto.NewParser(conn)
		for c := range parser.Commands() {
			switch string(c.Name()) {
			case "ECHO":
				io.ReadFull(parser.Rest(), make([]byte, 1000)) // the large command has begun
				io.WriteString(conn, "+echo\r\n")
				io.Copy(io.Discard, conn)
				return
			default:
				io.WriteString(conn, "+OK\r\n")
			}
		}
	})
	c := dial(t, startProxy(t, addr, "-answer", "1s").addr, nil)
	c.Conn.SetDeadline(time.Now().Add(10 * time.Second))
	wire := wireOf("SET", "k", strings.Repeat("x", size))
	c.send("ECHO a")
	io.WriteString(c.Conn, wire[:size/2])
	c.want("+echo\r\n")
	time.Sleep(1500 * time.Millisecond) // the client may take its time
	io.WriteString(c.Conn, wire[size/2:])
	c.want("-ERR upstream did not answer in time; the command may have been executed\r\n")
}

// TestLostLinkInPool has a link in the pool that is lost, but not forgotten yet: a client that took it would
// not be told.
func TestLostLinkInPool(t *testing.T) {
	t.Parallel()
	p := startProxy(t, startRedis(t).addr, "-shared", "1")
	l := newLink(p.single, p.proxy, false)
	l.err = io.EOF
	p.single.links.mu.Lock()
	p.single.links.idle = append(p.single.links.idle, l)
	p.single.links.mu.Unlock()
	c := dial(t, p.addr, nil)
	c.Conn.SetDeadline(time.Now().Add(10 * time.Second))
	c.send("MULTI", "PING", "EXEC")
	c.want("+OK\r\n", "+QUEUED\r\n", "*1\r\n+PONG\r\n")
}
