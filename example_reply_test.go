package redisproto_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/secmask/go-redisproto"
)

// A client and a server of remote calls, over a connection that could as well be TCP.
func ExampleParser_ReadReply() {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		parser := redisproto.NewParser(server)
		writer := redisproto.NewWriter(bufio.NewWriter(server))
		for command := range parser.Commands() {
			switch string(command.Name()) {
			case "REPEAT":
				writer.WriteBulkString(strings.Repeat(string(command.Get(1)), 3))
			case "SPLIT":
				writer.WriteBulkStrings(strings.Fields(string(command.Get(1))))
			default:
				writer.WriteError("ERR unknown command")
			}
			if command.IsLast() && writer.Flush() != nil {
				return
			}
		}
	}()

	parser := redisproto.NewParser(client)
	writer := redisproto.NewWriter(client)
	call := func(args ...any) (*redisproto.Reply, error) {
		if err := writer.WriteCommand(args...); err != nil {
			return nil, err
		}
		reply, err := parser.ReadReply()
		if err != nil {
			return nil, err
		}
		return reply, reply.Err()
	}

	reply, err := call("REPEAT", "ab")
	fmt.Printf("%s %v\n", reply.Bytes(), err)

	reply, err = call("SPLIT", "one two")
	for word := range reply.All() {
		fmt.Printf("%s ", word.Bytes())
	}
	fmt.Println(err)

	_, err = call("NONE", 42)
	var replied *redisproto.ReplyError
	if errors.As(err, &replied) {
		fmt.Println(replied.Code, "-", replied.Message)
	}
	// Output:
	// ababab <nil>
	// one two <nil>
	// ERR - unknown command
}

// Commands go out together, and their replies come back in the same order.
func ExampleWriter_WriteCommand() {
	client, server := net.Pipe()
	go serveCounter(server)

	parser := redisproto.NewParser(client)
	writer := redisproto.NewWriter(bufio.NewWriter(client))
	for i := range 3 {
		writer.WriteCommand("INCRBY", "counter", 10*i)
	}
	if err := writer.Flush(); err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		reply, err := parser.ReadReply()
		if err != nil {
			fmt.Println(err)
			return
		}
		n, err := reply.Int()
		fmt.Println(n, err)
	}
	// Output:
	// 0 <nil>
	// 10 <nil>
	// 30 <nil>
}

// serveCounter knows one command, INCRBY.
func serveCounter(conn net.Conn) {
	defer conn.Close()
	counters := map[string]int64{}
	writer := redisproto.NewWriter(bufio.NewWriter(conn))
	for command := range redisproto.NewParser(conn).Commands() {
		var n int64
		fmt.Sscan(string(command.Get(2)), &n)
		counters[string(command.Get(1))] += n
		writer.WriteInt(counters[string(command.Get(1))])
		if command.IsLast() && writer.Flush() != nil {
			return
		}
	}
}

// A map of RESP3 and the array that RESP2 has in its place are read by the same loop.
func ExampleReply_Pairs() {
	parser := redisproto.NewParser(strings.NewReader(
		"%2\r\n$4\r\nname\r\n$3\r\nann\r\n$3\r\nage\r\n:42\r\n" +
			"*4\r\n$4\r\nname\r\n$3\r\nann\r\n$3\r\nage\r\n$2\r\n42\r\n"))
	for {
		reply, err := parser.ReadReply()
		if err == io.EOF {
			return
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		for key, value := range reply.Pairs() {
			switch string(key.Bytes()) {
			case "name":
				fmt.Printf("%v: name %s\n", reply.Kind(), value.Bytes())
			case "age":
				age, err := value.Int()
				fmt.Println(reply.Kind(), age, err)
			}
		}
	}
	// Output:
	// map: name ann
	// map 42 <nil>
	// array: name ann
	// array 42 <nil>
}
