// Command nullserver is what no server in Go with a goroutine for each connection can be faster
// than: it looks at no byte, and sends the same reply for each so many bytes that it gets.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"net"
	"os"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:6380", "address to listen on")
	size := flag.Int("size", 14, "bytes of a request")
	reply := flag.String("reply", "+PONG\r\n", "the reply to each")
	flag.Parse()
	replies := bytes.Repeat([]byte(*reply), maxBuf / *size + 1)
	listener, err := net.Listen("tcp", *addr)
	for err == nil {
		var conn net.Conn
		if conn, err = listener.Accept(); err == nil {
			go serve(conn, *size, len(*reply), replies)
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// A connection's buffer grows as the library's does, so that both read as much at a time.
const minBuf, maxBuf = 1 << 10, 32 << 10 // bytes

// serve sends one of replies, each of n bytes, for each size bytes received.
func serve(conn net.Conn, size, n int, replies []byte) {
	defer conn.Close()
	buf := make([]byte, minBuf)
	for have := 0; ; have %= size {
		got, err := conn.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:min(got, 20)], []byte("CONFIG")) { // redis-benchmark asks once
			conn.Write([]byte("-ERR unknown command\r\n"))
			return
		}
		have += got
		if _, err := conn.Write(replies[:have/size*n]); err != nil {
			return
		}
		if got == len(buf) && got < maxBuf {
			buf = make([]byte, 2*got)
		}
	}
}
