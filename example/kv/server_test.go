package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHostileClients has a server full of clients that misbehave, and one that does not: its
// requests all succeed, and what the process holds stays under a bound.
func TestHostileClients(t *testing.T) {
	const (
		waiting, silent = 1000, 100
		bound           = 128 << 20 // bytes of heap and stacks, of which this test's own clients have some
	)
	cfg := defaults
	cfg.maxClients = waiting + silent + 20
	cfg.writeTimeout = 500 * time.Millisecond
	s, addr := start(t, cfg)
	good := dial(t, addr)
	good.want("SET big "+strings.Repeat("x", 64<<10), "+OK\r\n")

	for i := range waiting {
		c := dial(t, addr)
		io.WriteString(c, []string{"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nxyz", "*2147483647\r\n$1", "GET ha"}[i%3])
	}
	pipeline := bytes.Repeat(request("GET", "big"), 1000) // 64 MB of replies, each client
	for range silent {
		c := dial(t, addr)
		go c.Write(pipeline)
	}
	for _, garbage := range []string{"\x00\xff\r\n", "*-5\r\n*x\r\n", "$$$$\r\n", strings.Repeat("a", 1<<20), "*1\r\n:1\r\n", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"} {
		c := dial(t, addr)
		io.WriteString(c, garbage)
		c.CloseWrite()
		if rest := c.wantClosed(); strings.Count(rest, "\r\n") > 3 {
			t.Errorf("garbage %.20q: got %q, want an error or two", garbage, rest)
		}
	}
	var peak uint64
	for i := range 200 {
		good.want("SET k "+fmt.Sprint(i), "+OK\r\n")
		good.want("GET k", fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(i)), i))
		if i%20 == 0 {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapAlloc+m.StackInuse)
		}
	}
	if peak > bound {
		t.Errorf("memory: got %d bytes, want at most %d", peak, bound)
	}
	t.Logf("memory at its peak: %d MiB", peak>>20)

	var flood []*peer
	for s.refused.Load() < 100 {
		if len(flood) > 2*cfg.maxClients {
			t.Fatalf("connections: got %d accepted, want some refused", len(flood))
		}
		flood = append(flood, dial(t, addr))
		good.want("PING", "+PONG\r\n")
	}
	for _, c := range flood {
		c.Close()
	}
	waitFor(t, "closing the clients that do not read", func() bool {
		good.want("PING", "+PONG\r\n")
		s.clientsMu.Lock()
		defer s.clientsMu.Unlock()
		return len(s.clients) == waiting+1
	})
}

func TestMaxClients(t *testing.T) {
	cfg := defaults
	cfg.maxClients = 1
	s, addr := start(t, cfg)
	first := dial(t, addr)
	first.want("PING", "+PONG\r\n")
	if got, want := dial(t, addr).wantClosed(), "-ERR max number of clients reached\r\n"; got != want {
		t.Errorf("connection over the limit: got %q, want %q", got, want)
	}
	first.want("QUIT", "+OK\r\n")
	waitFor(t, "the end of the first client", func() bool {
		s.clientsMu.Lock()
		defer s.clientsMu.Unlock()
		return len(s.clients) == 0
	})
	dial(t, addr).want("PING", "+PONG\r\n")
}

// TestSlowSubscriber: a subscriber that does not read is closed when the messages for it go over
// the output limit, and until then keeps nobody waiting.
func TestSlowSubscriber(t *testing.T) {
	cfg := defaults
	cfg.outputLimit = 1 << 20
	s, addr := start(t, cfg)
	slow, fast, publisher := dial(t, addr), dial(t, addr), dial(t, addr)
	for _, c := range []*peer{slow, fast} {
		c.want("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n")
	}
	text := strings.Repeat("x", 100<<10)
	message := "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$102400\r\n" + text + "\r\n"
	for i := 0; ; i++ {
		got := publisher.do("PUBLISH news " + text)
		if m := fast.reply(); m != message {
			t.Fatalf("message: got %.50q, want %.50q", m, message)
		}
		if got == ":1\r\n" {
			break
		}
		if i == 1000 {
			t.Fatalf("PUBLISH: got %q after 100 MB, want the slow subscriber gone", got)
		}
	}
	s.pubsub.mu.Lock()
	defer s.pubsub.mu.Unlock()
	if n := len(s.pubsub.channels["news"]); n != 1 {
		t.Errorf("subscribers: got %d, want 1", n)
	}
}

// TestMessages: they come in order, and between replies.
func TestMessages(t *testing.T) {
	_, addr := start(t, defaults)
	sub, pub := dial(t, addr), dial(t, addr)
	if got := sub.do("HELLO 3"); !strings.HasPrefix(got, "%7\r\n") {
		t.Fatalf("HELLO 3: got %q", got)
	}
	sub.want("SUBSCRIBE c", ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
	const n = 2000
	go func() {
		for i := range n {
			pub.Write(request("PUBLISH", "c", fmt.Sprint(i)))
		}
	}()
	go func() {
		for range n {
			sub.Write(request("PING"))
		}
	}()
	for messages, pongs := 0, 0; messages < n || pongs < n; {
		got := sub.reply()
		if got == "+PONG\r\n" {
			pongs++
			continue
		}
		text := fmt.Sprint(messages)
		if want := fmt.Sprintf(">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$%d\r\n%s\r\n", len(text), text); got != want {
			t.Fatalf("message %d: got %q, want %q", messages, got, want)
		}
		messages++
	}
}

func TestExpiry(t *testing.T) {
	s, addr := start(t, defaults)
	c := dial(t, addr)
	c.want("SET asked v PX 1", "+OK\r\n")
	waitFor(t, "expiry of a key that is asked for", func() bool { return c.do("GET asked") == "$-1\r\n" })
	c.want("TTL asked", ":-2\r\n")
	for i := range 1000 {
		c.want(fmt.Sprint("SET k", i, " v PX 1"), "+OK\r\n")
	}
	c.want("SET stays v PX 1000000", "+OK\r\n")
	waitFor(t, "expiry of keys that nobody asks for", func() bool { return c.do("DBSIZE") == ":1\r\n" })
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.dbs[0].expiring.size(); n != 1 {
		t.Errorf("keys that expire: got %d, want 1", n)
	}
}

// TestSweep: keys go in the order in which they expire, some at a time, and those whose time was
// changed or taken away stay.
func TestSweep(t *testing.T) {
	var d db
	d.clear()
	past := now() - 1000
	for i, at := range []int64{past + 3, past + 1, past + 2, past, past, past} {
		key := fmt.Appendf(nil, "k%d", i)
		d.setExpires(key, d.setText(key, "v"), at)
	}
	d.setExpires([]byte("k3"), d.keys["k3"], 0)
	d.setExpires([]byte("k4"), d.keys["k4"], now()+1e6)
	d.remove([]byte("k5"))
	for i, want := range []string{"k0 k1 k2 k3 k4", "k0 k3 k4", "k3 k4", "k3 k4"} {
		if got := strings.Join(slices.Sorted(maps.Keys(d.keys)), " "); got != want {
			t.Errorf("keys after %d sweeps: got %s, want %s", i, got, want)
		}
		if got, want := d.expire(2), []int{2, 1, 0, 0}[i]; got != want {
			t.Errorf("sweep %d: got %d keys removed, want %d", i, got, want)
		}
	}
	if got := d.expiring.size(); got != 1 {
		t.Errorf("keys that expire: got %d, want 1", got)
	}
}

// TestFlags: what makes no sense is refused in one line that names the flag.
func TestFlags(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	secret, empty := file("secret", "from a file\n"), file("empty", "\n")
	for _, row := range []struct{ args, env, password, err string }{
		{"", "", "", ""},
		{"-requirepass x", "env", "x", ""},
		{"", "env", "env", ""},
		{"-requirepass-file " + secret, "env", "from a file", ""},
		{"-requirepass-file " + empty, "env", "", "-requirepass-file"},
		{"-requirepass-file " + dir + "/none", "", "", "-requirepass-file"},
		{"-tls-key k", "", "", "-tls-key"},
		{"-tls-cert c", "", "", "-tls-cert"},
		{"-maxclients -1", "", "", "-maxclients"},
		{"-maxclients 0", "", "", "-maxclients"},
		{"-maxclients many", "", "", "-maxclients"},
		{"-timeout -1s", "", "", "-timeout"},
		{"-port 6379", "", "", "-port"},
		{"-v 6379", "", "", `"6379"`},
	} {
		t.Setenv("KV_REQUIREPASS", row.env)
		cfg, err := parseFlags(strings.Fields(row.args))
		switch {
		case row.err == "" && err != nil:
			t.Errorf("%s: got %v, want no error", row.args, err)
		case row.err == "" && cfg.password != row.password:
			t.Errorf("%s: got password %q, want %q", row.args, cfg.password, row.password)
		case row.err != "" && (err == nil || !strings.Contains(err.Error(), row.err) || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: got error %v, want one line that names %s", row.args, err, row.err)
		}
	}
}

// TestAuth goes on after the password was not given, was wrong, and was right.
func TestAuth(t *testing.T) {
	cfg := defaults
	cfg.password = "secret"
	_, addr := start(t, cfg)
	const noauth, wrong = "-NOAUTH Authentication required.\r\n", "-" + wrongPassword + "\r\n"
	c := dial(t, addr)
	for _, row := range []struct{ command, want string }{
		{"PING", noauth},
		{"GET k", noauth},
		{"GET", "-ERR wrong number of arguments for 'get' command\r\n"},
		{"AUTH wrong", wrong},
		{"AUTH secre", wrong},
		{"AUTH other secret", wrong},
		{"HELLO 3 AUTH default wrong", wrong},
		{"AUTH default secret", "+OK\r\n"},
		{"GET k", "$-1\r\n"},
		{"RESET", "+RESET\r\n"},
		{"GET k", noauth},
		{"AUTH secret", "+OK\r\n"},
		{"SET k " + strings.Repeat("x", 20000), "+OK\r\n"},
	} {
		c.want(row.command, row.want)
	}
	if got := c.do("HELLO 3"); !strings.HasPrefix(got, "%7\r\n") {
		t.Errorf("HELLO 3: got %q", got)
	}
	for _, row := range []struct{ name, request, want string }{
		{"10 arguments", "*10\r\n" + strings.Repeat("$1\r\nx\r\n", 10), "-ERR unknown command 'x', with args beginning with: 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' 'x' \r\n"},
		{"11 arguments", "*11\r\n", "-ERR Protocol error: unauthenticated multibulk length\r\n"},
		{"16384 bytes", string(request("GET", strings.Repeat("x", 16384))), noauth},
		{"16385 bytes", "*2\r\n$3\r\nGET\r\n$16385\r\n", "-ERR Protocol error: unauthenticated bulk length\r\n"},
		{"the password in the same pipeline", string(request("AUTH", "secret")) + "*11\r\n$3\r\nDEL\r\n" + strings.Repeat("$1\r\nx\r\n", 10), "+OK\r\n:0\r\n"},
	} {
		c := dial(t, addr)
		io.WriteString(c, row.request)
		c.CloseWrite()
		if got := c.wantClosed(); got != row.want {
			t.Errorf("%s before AUTH: got %q, want %q", row.name, got, row.want)
		}
	}
}

// TestLeftOut has options of Redis that this server does not have: it says what Redis says to an
// option that there is not, and does nothing.
func TestLeftOut(t *testing.T) {
	_, addr := start(t, defaults)
	c := dial(t, addr)
	c.want("SET k v", "+OK\r\n")
	const syntax, float = "-ERR syntax error\r\n", "-ERR value is not a valid float\r\n"
	for _, row := range []struct{ command, want string }{
		{"SET k w EXAT 99999999999", syntax},
		{"SET k w PXAT 99999999999999", syntax},
		{"EXPIRE k 0 NX", "-ERR Unsupported option NX\r\n"},
		{"PEXPIRE k 0 lt", "-ERR Unsupported option lt\r\n"},
		{"ZADD z NX 1 a", syntax}, // an odd number of words is looked at before the scores
		{"ZADD z XX CH 1 a", float},
		{"ZADD z INCR 1 a b", float},
		{"ZRANGE z 0 1 REV", syntax},
		{"GET k", "$1\r\nv\r\n"},
		{"EXISTS z", ":0\r\n"},
	} {
		c.want(row.command, row.want)
	}
}

// TestTimeout: idle clients are closed, subscribers are not.
func TestTimeout(t *testing.T) {
	cfg := defaults
	cfg.timeout = 100 * time.Millisecond
	_, addr := start(t, cfg)
	sub, idle, half := dial(t, addr), dial(t, addr), dial(t, addr)
	sub.want("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
	io.WriteString(half, "*1\r\n$4\r\nPI")
	for _, c := range []*peer{idle, half} {
		if got := c.wantClosed(); got != "" {
			t.Errorf("idle client: got %q, want nothing", got)
		}
	}
	sub.want("PING", "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
}

// CloseWrite ends what the peer sends.
func (p *peer) CloseWrite() { p.Conn.(*net.TCPConn).CloseWrite() }

// process starts the server as a process of its own, with a -addr that is free.
func process(t *testing.T, args string) (cmd *exec.Cmd, addr string) {
	if runtime.GOOS == "windows" {
		t.Skip("the test ends the process with SIGTERM, which Windows does not have")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(exe)
	cmd.Env = append(os.Environ(), "KV_TEST_ARGS=-addr 127.0.0.1:0 "+args)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	var log []byte
	for b := make([]byte, 1); !bytes.Contains(log, []byte("\n")); log = append(log, b...) {
		if _, err := stderr.Read(b); err != nil {
			t.Fatalf("log: got %q, %v", log, err)
		}
	}
	go io.Copy(io.Discard, stderr)
	found := regexp.MustCompile(` addr=(\S+) `).FindSubmatch(log)
	if found == nil {
		t.Fatalf("log: got %q, want the address", log)
	}
	return cmd, string(found[1])
}

// TestDrain: after SIGTERM what was received is answered, clients are closed, and the status is 0.
func TestDrain(t *testing.T) {
	cmd, addr := process(t, "-v")
	idle, half, sub, busy := dial(t, addr), dial(t, addr), dial(t, addr), dial(t, addr)
	idle.want("PING", "+PONG\r\n")
	half.Write([]byte("PING\r\n*1\r\n$4\r\nPI"))
	if got := half.reply(); got != "+PONG\r\n" {
		t.Errorf("PING: got %q", got)
	}
	sub.do("SUBSCRIBE c")
	busy.want("SET big "+strings.Repeat("x", 8<<20), "+OK\r\n")
	busy.Write(bytes.Repeat(request("GET", "big"), 4))
	first := busy.reply() // the rest is being written, more than the sockets hold
	cmd.Process.Signal(syscall.SIGTERM)
	for range 3 {
		if got := busy.reply(); got != first {
			t.Fatalf("GET while draining: got %d bytes, want %d", len(got), len(first))
		}
	}
	for name, c := range map[string]*peer{"idle": idle, "half": half, "sub": sub, "busy": busy} {
		if got := c.wantClosed(); got != "" {
			t.Errorf("%s client while draining: got %q, want nothing", name, got)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("status after SIGTERM: got %v, want 0", err)
	}
}

// TestTLS runs the process with a certificate made here.
func TestTLS(t *testing.T) {
	cert, key, roots := certificate(t)
	cmd, addr := process(t, "-tls-cert "+cert+" -tls-key "+key+" -maxclients 2")
	dialTLS := func() *peer {
		conn, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		return newPeer(t, conn)
	}
	a, b := dialTLS(), dialTLS()
	big := strings.Repeat("x", 1<<20)
	a.want("SET k "+big, "+OK\r\n")
	b.want("GET k", fmt.Sprintf("$%d\r\n%s\r\n", len(big), big))
	over := dial(t, addr)
	if got := over.wantClosed(); got != "" {
		t.Errorf("connection over the limit: got %q, want nothing", got)
	}
	b.want("SUBSCRIBE c", "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
	a.want("PUBLISH c x", ":1\r\n")
	if got, want := b.reply(), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n"; got != want {
		t.Errorf("message: got %q, want %q", got, want)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	a.wantClosed()
	b.wantClosed()
	if err := cmd.Wait(); err != nil {
		t.Errorf("status after SIGTERM: got %v, want 0", err)
	}
}

// certificate writes a certificate for 127.0.0.1 and its key to files.
func certificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	bytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", bytes), roots
}
