package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
)

// startRelay starts what there is to compare with: a relay that knows nothing of what it copies.
func startRelay(b *testing.B, upstream string) (addr string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				conn, err := net.Dial("tcp", upstream)
				if err != nil {
					return
				}
				defer conn.Close()
				go func() {
					io.Copy(conn, client)
					closeWrite(conn)
				}()
				io.Copy(client, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// BenchmarkProxy sends pipelines of 16 to a redis-server: the time is that of one request.
func BenchmarkProxy(b *testing.B) {
	redis := startRedis(b)
	dial(b, redis.addr, nil).call("SET key " + strings.Repeat("x", 16))
	vias := []struct{ name, addr string }{
		{"direct", redis.addr},
		{"relay", startRelay(b, redis.addr)},
		{"proxy", startProxy(b, redis.addr).addr},
		{"proxy-timed", startProxy(b, redis.addr, "-slowlog", "1s").addr},
	}
	for _, clients := range []int{1, 16} {
		for _, via := range vias {
			b.Run(fmt.Sprintf("clients=%d/via=%s", clients, via.name), func(b *testing.B) {
				const pipeline = 16
				request := bytes.Repeat([]byte("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"), pipeline)
				reply := bytes.Repeat([]byte("$16\r\nxxxxxxxxxxxxxxxx\r\n"), pipeline)
				conns := make(chan net.Conn, clients)
				for range clients {
					conn, err := net.Dial("tcp", via.addr)
					if err != nil {
						b.Fatal(err)
					}
					defer conn.Close()
					conns <- conn
				}
				b.SetParallelism(clients)
				b.ReportAllocs()
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					var conn net.Conn
					select {
					case conn = <-conns:
					default:
						return // there are more goroutines than clients
					}
					got := make([]byte, len(reply))
					for n := 0; pb.Next(); n++ {
						if n%pipeline > 0 {
							continue // sent already
						}
						if _, err := conn.Write(request); err != nil {
							b.Error(err)
							return
						}
						if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, reply) {
							b.Errorf("got %q and %v, want %q", got, err, reply)
							return
						}
					}
				})
			})
		}
	}
}
