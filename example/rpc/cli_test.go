package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestTLS has a server with TLS and a password, drained under load.
func TestTLS(t *testing.T) {
	certFile, keyFile := certificate(t)
	l, err := listen("127.0.0.1:0", certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	opts := quiet()
	opts.Password = "secret"
	s := NewServer(opts)
	demo(s)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	var out strings.Builder
	if err := callOnce(ctx, &out, []string{"-tls-ca", certFile, "-password", "secret", l.Addr().String(), "calc.add", `{"a":1,"b":2}`}); err != nil || out.String() != "{\"sum\":3}\n" {
		t.Errorf("call: got %q, %v", out.String(), err)
	}
	out.Reset()
	if err := bench(ctx, &out, []string{"-tls-ca", certFile, "-password", "secret", "-time", "50ms", "-callers", "1,16", "-method", "calc.add", "-size", "1000", l.Addr().String()}); err != nil || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("bench: got %q, %v", out.String(), err)
	}
	c := dialRaw(t, l.Addr().String())
	io.WriteString(c, words("PING")) // no TLS
	stop()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return certFile, keyFile
}

// TestRedisCLI calls as a user does.
func TestRedisCLI(t *testing.T) {
	cli, err := exec.LookPath("redis-cli")
	if err != nil {
		t.Skip("there is no redis-cli")
	}
	s := start(t, quiet(), "", demo)
	_, port, _ := net.SplitHostPort(s.addr)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"calc.add", `{"a": 19, "b": 23}`}, `{"sum":42}`},
		{[]string{"-3", "CALC.ADD", `{"a": 1}`, "TIMEOUT", "1000"}, `{"sum":1}`},
		{[]string{"echo", "hi"}, "hi"},
		{[]string{"nope"}, "ERR unknown command 'nope': there is no such method; COMMAND DOCS lists those that there are"},
		{[]string{"command", "count"}, "3"},
		{[]string{"--no-raw", "command", "docs", "echo"}, strings.TrimSpace(`
1) "echo"
2) 1) "summary"
   2) "Replies its argument."
   3) "since"
   4) "1.0.0"
   5) "group"
   6) "rpc"
   7) "arguments"
   8) 1) 1) "name"
         2) "argument"
         3) "type"
         4) "string"
      2) 1) "name"
         2) "milliseconds"
         3) "type"
         4) "integer"
         5) "token"
         6) "TIMEOUT"
         7) "flags"
         8) 1) optional`)},
	} {
		out, err := exec.Command(cli, append([]string{"-h", "127.0.0.1", "-p", port}, tt.args...)...).CombinedOutput()
		if got := strings.TrimSpace(string(out)); got != tt.want || err != nil {
			t.Errorf("redis-cli %q: got %s, %v, want %s", tt.args, got, err, tt.want)
		}
	}
}
