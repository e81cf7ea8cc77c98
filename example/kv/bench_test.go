package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// repeated is a connection that sends the same pipeline n times, and takes what it is answered.
type repeated struct {
	net.Conn // nil: what is not below is not used
	pipeline string
	n        int
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.n--; r.n < 0 {
		return 0, io.EOF
	}
	return copy(b, r.pipeline), nil
}

func (r *repeated) Write(b []byte) (int, error)      { return len(b), nil }
func (r *repeated) Close() error                     { return nil }
func (r *repeated) SetWriteDeadline(time.Time) error { return nil }
func (r *repeated) RemoteAddr() net.Addr             { return &net.TCPAddr{} }

// BenchmarkCommand is the cost of a command in pipelines of 16, without the operating system's.
func BenchmarkCommand(b *testing.B) {
	for _, words := range []string{"SET key:1 xxx", "GET key:1", "INCR n", "LPUSH l x", "ZADD z 1 a"} {
		b.Run("cmd="+strings.Fields(words)[0], func(b *testing.B) {
			s := newServer(defaults, slog.New(slog.NewTextHandler(io.Discard, nil)))
			var one strings.Builder
			fields := strings.Fields(words)
			fmt.Fprintf(&one, "*%d\r\n", len(fields))
			for _, f := range fields {
				fmt.Fprintf(&one, "$%d\r\n%s\r\n", len(f), f)
			}
			b.ReportAllocs()
			s.admit(&repeated{pipeline: strings.Repeat(one.String(), 16), n: b.N/16 + 1}).serve()
		})
	}
}
