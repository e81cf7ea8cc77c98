// Command redconserver is the demo server, ../example/main.go, written with tidwall/redcon.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/tidwall/redcon"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:6380", "address to listen on")
	flag.Parse()
	if err := redcon.ListenAndServe(*addr, answer, nil, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func answer(conn redcon.Conn, cmd redcon.Command) {
	switch strings.ToUpper(string(cmd.Args[0])) {
	case "PING":
		if len(cmd.Args) > 1 {
			conn.WriteBulk(cmd.Args[1])
			return
		}
		conn.WriteString("PONG")
	case "ECHO":
		if len(cmd.Args) != 2 {
			conn.WriteError("ERR wrong number of arguments for 'echo' command")
			return
		}
		conn.WriteBulk(cmd.Args[1])
	case "SET":
		conn.WriteBulkString("OK")
	case "GET":
		conn.WriteBulkString("dummy")
	case "LPUSH":
		if len(cmd.Args) < 3 {
			conn.WriteError("ERR wrong number of arguments for 'lpush' command")
			return
		}
		conn.WriteInt64(int64(len(cmd.Args) - 2))
	case "QUIT":
		conn.WriteString("OK")
		conn.Close()
	default:
		conn.WriteError("Command not support")
	}
}
