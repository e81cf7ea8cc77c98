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
	listener, err := net.Listen("tcp", *addr)
	for err == nil {
		var conn net.Conn
		if conn, err = listener.Accept(); err == nil {
			go serve(conn, *size, []byte(*reply))
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func serve(conn net.Conn, size int, reply []byte) {
	defer conn.Close()
	buf := make([]byte, 1<<10) // grows as the library's does
	replies := bytes.Repeat(reply, 32<<10/size+1)
	for have := 0; ; have %= size {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:min(n, 20)], []byte("CONFIG")) { // redis-benchmark asks once
			conn.Write([]byte("-ERR unknown command\r\n"))
			return
		}
		have += n
		if _, err := conn.Write(replies[:have/size*len(reply)]); err != nil {
			return
		}
		if n == len(buf) && n < 32<<10 {
			buf = make([]byte, 2*n)
		}
	}
}
