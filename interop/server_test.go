package interop

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An endpoint is where clients connect, and what they must know for it.
type endpoint struct {
	addr     string
	password string // "" for none
	caFile   string // of the certificate, with TLS
	roots    *x509.CertPool
}

// tls is what a client of Go's needs: nil without TLS.
func (s *endpoint) tls() *tls.Config {
	if s.roots == nil {
		return nil
	}
	return &tls.Config{RootCAs: s.roots, ServerName: "127.0.0.1"}
}

// raced reports whether this test is built with the race detector.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// buildKV builds example/kv for a test.
func buildKV(t *testing.T) (exe string) { return buildExample(t, "kv") }

// buildExample builds one of the examples for a test, with the race detector if the test has it.
func buildExample(t *testing.T, name string) (exe string) {
	exe = filepath.Join(t.TempDir(), name)
	args := []string{"build", "-o", exe}
	if raced() {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./example/"+name)...)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return exe
}

var listening = regexp.MustCompile(` msg=listening addr=(\S+) `)

// startKV runs the server until the test ends.
func startKV(t *testing.T, exe, password string, withTLS bool) *endpoint {
	s := &endpoint{password: password}
	args := []string{"-addr", "127.0.0.1:0", "-requirepass", password}
	if withTLS {
		var key string
		s.caFile, key, s.roots = certificate(t)
		args = append(args, "-tls-cert", s.caFile, "-tls-key", key)
	}
	s.addr = startExample(t, exe, args...)
	return s
}

// startExample runs a server until the test ends; then SIGTERM must end it with status 0, which it has
// not after a data race either.
func startExample(t *testing.T, exe string, args ...string) (addr string) {
	name := filepath.Base(exe)
	cmd := exec.Command(exe, args...)
	if raced() {
		cmd.Env = append(os.Environ(), "GOMAXPROCS=8") // more than its own choice, for more to race
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, ended := make(chan string, 1), make(chan struct{})
	var log strings.Builder // until ended, the goroutine's
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			log.WriteString(lines.Text() + "\n")
			if match := listening.FindStringSubmatch(lines.Text()); match != nil {
				found <- match[1]
			}
		}
	}()
	end := sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s after SIGTERM: got %v, want status 0; its log:\n%s", name, err, log.String())
		}
	})
	t.Cleanup(end)
	select {
	case addr = <-found:
	case <-ended:
		end()
		t.Fatalf("%s does not listen", name)
	}
	return addr
}

// certificate writes a certificate for 127.0.0.1 and its key to files.
func certificate(t *testing.T) (cert, key string, roots *x509.CertPool) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true, // which OpenSSL wants of what it is to trust
		BasicConstraintsValid: true,
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, b []byte) []byte {
		b = pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return b
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(write("cert.pem", "CERTIFICATE", public))
	write("key.pem", "PRIVATE KEY", secret)
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), roots
}
