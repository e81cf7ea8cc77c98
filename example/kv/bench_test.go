package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
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

// BenchmarkGetAfterExpiry is what GET takes 64 clients over loopback once many keys have expired and one
// has not yet. sweep-ns is how long the lock is held to find that there is nothing to do.
func BenchmarkGetAfterExpiry(b *testing.B) {
	for _, keys := range []int{0, 3_000_000} {
		b.Run(fmt.Sprint("expired=", keys), func(b *testing.B) {
			s, addr := start(b, defaults)
			s.mu.Lock()
			at := now() + 1
			for i := range keys {
				key := fmt.Appendf(nil, "key:%d", i)
				s.dbs[0].setExpires(key, s.dbs[0].setText(key, "v"), at)
			}
			s.dbs[0].setExpires([]byte("stays"), s.dbs[0].setText([]byte("stays"), "v"), at+3600_000)
			s.mu.Unlock()
			for keys := 2; keys > 1; time.Sleep(10 * time.Millisecond) {
				s.mu.Lock()
				keys = len(s.dbs[0].keys)
				s.mu.Unlock()
			}
			const clients = 64
			all := make(chan []time.Duration, clients)
			b.ResetTimer()
			for range clients {
				c := dial(b, addr)
				go func() {
					var took []time.Duration
					for range b.N/clients + 1 {
						begun := time.Now()
						c.do("GET k")
						took = append(took, time.Since(begun))
					}
					all <- took
				}()
			}
			var took []time.Duration
			for range clients {
				took = append(took, <-all...)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
			s.mu.Lock()
			begun := time.Now()
			s.dbs[0].expire(1)
			b.ReportMetric(float64(time.Since(begun)), "sweep-ns")
			s.mu.Unlock()
		})
	}
}
