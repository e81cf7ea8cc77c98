package redisproto_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/secmask/go-redisproto"
)

// zeros gives n bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zeroReader{}, n) }

type zeroReader struct{}

func (zeroReader) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// serveLarge answers SET with the size of the value, GET with as many bytes as its argument says, and
// LRANGE with as many elements.
func serveLarge(conn net.Conn) error {
	parser := redisproto.NewParser(conn)
	parser.SetLimits(redisproto.Limits{Stream: held})
	writer := redisproto.NewWriter(bufio.NewWriter(conn))
	for command := range parser.Commands() {
		n, _ := command.Int(1)
		switch name := string(command.Name()); {
		case !command.Whole():
			var last int64
			for {
				_, size, err := command.NextArg()
				if err == io.EOF {
					break
				}
				if err != nil {
					return err
				}
				last = size
			}
			writer.WriteInt(last)
		case name == "GET":
			writer.WriteBulkFrom(zeros(n), n)
		case name == "LRANGE":
			writer.WriteArrayHeader(int(n))
			for i := range n {
				writer.WriteInt(i)
			}
		default:
			writer.WriteSimpleString("OK")
		}
		if command.IsLast() {
			if err := writer.Flush(); err != nil {
				return err
			}
		}
	}
	return parser.Err()
}

// listen serves one connection on a free port, which it returns the address of.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		serve(conn)
	}()
	return l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// heapInUse returns how many bytes are in use.
func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestProxyMemory passes 256 MiB each way and a million elements through the proxy. Client, proxy and server
// together hold less than a MiB.
func TestProxyMemory(t *testing.T) {
	server := listen(t, func(conn net.Conn) {
		if err := serveLarge(conn); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	addr := listen(t, func(conn net.Conn) {
		backend, err := net.Dial("tcp", server)
		if err == nil {
			err = proxy(conn, backend)
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("proxy: %v", err)
		}
	})
	conn := dial(t, addr)
	defer conn.Close()
	var most int64
	before := heapInUse()
	// look is called on the way, when all three are in the middle of what they do.
	look := func() { most = max(most, heapInUse()-before) }

	parser := redisproto.NewReplyParser(conn)
	parser.SetLimits(redisproto.Limits{Stream: held})
	const size, elements = 256 << 20, 1_000_000
	call := func(command func() error, check func(redisproto.Reply)) {
		t.Helper()
		if err := command(); err != nil {
			t.Fatal(err)
		}
		reply, err := parser.ReadReply()
		if err != nil {
			t.Fatal(err)
		}
		check(reply)
	}
	send := func(text string) func() error {
		return func() error { _, err := io.WriteString(conn, text); return err }
	}
	wantSize := func(reply redisproto.Reply) {
		if n, err := reply.Int(); n != size || err != nil {
			t.Errorf("the server got %d bytes, %v, want %d", n, err, size)
		}
	}
	call(send("PING\r\n"), func(redisproto.Reply) {})
	call(func() error {
		fmt.Fprintf(conn, "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", size)
		io.Copy(conn, zeros(size/2))
		look()
		io.Copy(conn, zeros(size-size/2))
		return send("\r\n")()
	}, wantSize)
	call(send(fmt.Sprintf("GET %d\r\n", size)), func(reply redisproto.Reply) {
		body := reply.Body()
		n, err := io.CopyN(io.Discard, body, size/2)
		look()
		m, merr := io.Copy(io.Discard, body)
		if n+m != size || reply.Size() != size || err != nil || merr != nil {
			t.Errorf("got %d bytes of %d, %v, %v, want %d", n+m, reply.Size(), err, merr, size)
		}
	})
	call(send(fmt.Sprintf("LRANGE %d\r\n", elements)), func(reply redisproto.Reply) {
		look()
		if n, err := reply.WriteTo(io.Discard); reply.Len() != elements || n < 7*elements || err != nil {
			t.Errorf("got %d bytes of %d elements, %v, want %d elements", n, reply.Len(), err, elements)
		}
	})
	call(send("PING\r\n"), func(reply redisproto.Reply) {
		if got := string(reply.Bytes()); got != "OK" {
			t.Errorf("got %q at the end, want OK", got)
		}
	})
	if most > 1<<20 {
		t.Errorf("got %d bytes held on the way, want at most %d", most, 1<<20)
	}
}
