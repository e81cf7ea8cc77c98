// Command main is a small server that speaks Redis's protocol, to start from and to benchmark:
//
//	go run example/main.go
//	redis-benchmark -p 6380 -t ping,set,get,lpush -P 16 -q
//
// It stores nothing: SET says OK, and GET gives the same value for each key.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/secmask/go-redisproto"
)

func main() {
	addr := flag.String("addr", ":6380", "address to listen on")
	flag.Parse()
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, "listening on", listener.Addr())

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() { listener.Close() })
	var conns sync.WaitGroup
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err) // too many open files, say: some will be closed
			time.Sleep(50 * time.Millisecond)
			continue
		}
		conns.Add(1)
		go func() {
			defer conns.Done()
			defer context.AfterFunc(ctx, func() { // what was received is still answered
				conn.SetReadDeadline(time.Unix(1, 0))
				conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
			})()
			serve(conn)
		}()
	}
	conns.Wait()
}

// serve answers the commands of one connection until it ends.
func serve(conn net.Conn) {
	defer conn.Close()
	parser := redisproto.NewParser(conn)
	writer := redisproto.NewWriter(bufio.NewWriter(conn))
	for {
		var ew error
		command, err := parser.ReadCommand()
		if err == nil {
			ew = answer(writer, command)
		} else if _, ok := err.(*redisproto.ProtocolError); ok {
			ew = writer.WriteError(err.Error()) // the next read returns ErrBroken
		} else {
			return
		}
		if command.IsLast() || ew != nil {
			writer.Flush()
		}
		if ew != nil {
			return
		}
	}
}

// Why the server ends a connection.
var (
	errQuit    = errors.New("the client said QUIT")
	errBrowser = errors.New("a web page made a browser connect here")
)

// answer writes the reply to one command. Its error ends the connection.
func answer(writer *redisproto.Writer, command *redisproto.Command) error {
	switch string(command.Name()) {
	case "PING":
		if command.ArgCount() > 1 {
			return writer.WriteBulk(command.Get(1))
		}
		return writer.WriteSimpleString("PONG")
	case "ECHO":
		if command.ArgCount() != 2 {
			return writer.WriteError("ERR wrong number of arguments for 'echo' command")
		}
		return writer.WriteBulk(command.Get(1))
	case "SET":
		return writer.WriteBulkString("OK")
	case "GET":
		return writer.WriteBulkString("dummy")
	case "LPUSH":
		if command.ArgCount() < 3 {
			return writer.WriteError("ERR wrong number of arguments for 'lpush' command")
		}
		return writer.WriteInt(int64(command.ArgCount() - 2))
	case "QUIT":
		writer.WriteSimpleString("OK")
		return errQuit
	case "POST", "HOST:": // not a word, as Redis has it
		return errBrowser
	}
	return writer.WriteError("Command not support")
}
