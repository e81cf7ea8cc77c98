package redisproto_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/secmask/go-redisproto"
)

// A whole server: one loop a connection.
func Example() {
	serve := func(conn net.Conn) {
		defer conn.Close()
		parser := redisproto.NewParser(conn)
		writer := redisproto.NewWriter(bufio.NewWriter(conn))
		defer writer.Flush()
		for command := range parser.Commands() {
			switch string(command.Name()) {
			case "PING":
				writer.WriteSimpleString("PONG")
			case "ECHO":
				writer.WriteBulk(command.Get(1))
			default:
				writer.WriteError("ERR unknown command")
			}
			if command.IsLast() {
				if err := writer.Flush(); err != nil {
					return
				}
			}
		}
		if err := parser.Err(); errors.Is(err, &redisproto.ProtocolError{}) {
			writer.WriteError(err.Error())
		}
	}

	client, server := net.Pipe()
	go serve(server)
	fmt.Fprint(client, "PING\r\nECHO hello\r\nNONE\r\n")
	replies := bufio.NewScanner(client)
	for range 4 {
		replies.Scan()
		fmt.Println(replies.Text())
	}
	client.Close()
	// Output:
	// +PONG
	// $5
	// hello
	// -ERR unknown command
}

// IsLast is false while more of a pipeline is there, so that its replies can go out together.
func ExampleParser_ReadCommand() {
	pipeline := "*2\r\n$3\r\nGET\r\n$1\r\na\r\n" + "SET b \"two words\"\r\n"
	parser := redisproto.NewParser(strings.NewReader(pipeline))
	for {
		command, err := parser.ReadCommand()
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %q, last: %v\n", command.Name(), command.Args(), command.IsLast())
	}
	// Output:
	// GET: ["GET" "a"], last: false
	// SET: ["SET" "b" "two words"], last: true
}

func ExampleParser_Commands() {
	parser := redisproto.NewParser(strings.NewReader("PING\r\nGET key\r\nGET"))
	for command := range parser.Commands() {
		fmt.Printf("%q\n", command.Args())
	}
	fmt.Println("error:", parser.Err())
	// Output:
	// ["PING"]
	// ["GET" "key"]
	// error: unexpected EOF
}

// Before a client has given its password, it may send little.
func ExampleLimits() {
	parser := redisproto.NewParser(strings.NewReader("AUTH secret\r\n*1000\r\n"))
	parser.SetLimits(redisproto.Limits{Unauthenticated: true})
	command, err := parser.ReadCommand()
	fmt.Printf("%q %v\n", command.Args(), err)

	// After parser.SetLimits(redisproto.Limits{}) here, the next command could be of any size.
	_, err = parser.ReadCommand()
	fmt.Println(err)
	// Output:
	// ["AUTH" "secret"] <nil>
	// ERR Protocol error: unauthenticated multibulk length
}

// A command is valid until the next one is read; a clone stays.
func ExampleCommand_Clone() {
	parser := redisproto.NewParser(strings.NewReader("SET a 1\r\nSET b 2\r\n"))
	var queue []*redisproto.Command
	for command := range parser.Commands() {
		queue = append(queue, command.Clone())
	}
	if err := parser.Err(); err != nil {
		fmt.Println(err)
		return
	}
	for _, command := range queue {
		fmt.Printf("%s = %s\n", command.Get(1), command.Get(2))
	}
	// Output:
	// a = 1
	// b = 2
}

// An event loop owns its buffers: it adds what has arrived and takes the whole commands from the front.
func ExampleParser_Parse() {
	var parser redisproto.Parser
	var buf []byte
	for _, arrived := range []string{"*1\r\n$4\r\nPI", "NG\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n*1\r\n"} {
		buf = append(buf, arrived...)
		for {
			command, n, err := parser.Parse(buf)
			if err != nil {
				fmt.Println(err)
				return
			}
			if n == 0 {
				break
			}
			fmt.Printf("%q\n", command.Args())
			buf = buf[n:]
		}
		fmt.Println(len(buf), "bytes left")
	}
	// Output:
	// 10 bytes left
	// ["PING"]
	// ["ECHO" "hi"]
	// 4 bytes left
}

// What a client that does not speak the protocol is told, before the connection is closed.
func ExampleProtocolError() {
	parser := redisproto.NewParser(strings.NewReader("PING\r\n*1\r\n$-5\r\n"))
	var reply bytes.Buffer
	writer := redisproto.NewWriter(&reply)
	for range parser.Commands() {
		writer.WriteSimpleString("PONG")
	}
	var perr *redisproto.ProtocolError
	if errors.As(parser.Err(), &perr) {
		writer.WriteError(perr.Error())
		fmt.Println("wrong at byte", perr.Offset)
		fmt.Println("a bad length:", errors.Is(perr, redisproto.ErrBulkLength))
	}
	fmt.Printf("%q\n", reply.String())
	// Output:
	// wrong at byte 10
	// a bad length: true
	// "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n"
}

// What a call writes reaches a writer that is no bufio.Writer before the call returns.
func ExampleNewWriter() {
	var out bytes.Buffer
	writer := redisproto.NewWriter(&out)
	writer.WriteSimpleString("OK")
	writer.WriteInt(42)
	writer.WriteBulkStrings([]string{"a", "b"})
	fmt.Printf("%q\n", out.String())
	// Output:
	// "+OK\r\n:42\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"
}

func ExampleWriter_WriteObjects() {
	var out bytes.Buffer
	writer := redisproto.NewWriter(&out)
	writer.WriteObjects("text", 1, 2.5, nil, []any{true, []byte("raw")})
	fmt.Printf("%q\n", out.String())

	err := writer.WriteObjects("text", struct{}{})
	fmt.Println(err)
	// Output:
	// "*5\r\n$4\r\ntext\r\n:1\r\n$3\r\n2.5\r\n$-1\r\n*2\r\n:1\r\n$3\r\nraw\r\n"
	// redisproto: a value of type struct {} cannot be written
}

// A file, for instance, is sent without being read into memory.
func ExampleWriter_WriteBulkFrom() {
	file := strings.NewReader("the contents")
	var out bytes.Buffer
	writer := redisproto.NewWriter(&out)
	if err := writer.WriteBulkFrom(file, file.Size()); err != nil {
		return // the bulk string is cut off, and the connection has to be closed
	}
	fmt.Printf("%q\n", out.String())
	// Output:
	// "$12\r\nthe contents\r\n"
}

// The same calls serve old clients and those that have sent HELLO 3.
func ExampleWriter_SetProtocol() {
	var out bytes.Buffer
	writer := redisproto.NewWriter(&out)
	for _, version := range []int{2, 3} {
		writer.SetProtocol(version)
		writer.WriteMapHeader(2)
		writer.WriteBulkString("score")
		writer.WriteDouble(1.5)
		writer.WriteBulkString("banned")
		writer.WriteBool(false)
		fmt.Printf("%q\n", out.String())
		out.Reset()
	}
	// Output:
	// "*4\r\n$5\r\nscore\r\n$3\r\n1.5\r\n$6\r\nbanned\r\n:0\r\n"
	// "%2\r\n$5\r\nscore\r\n,1.5\r\n$6\r\nbanned\r\n#f\r\n"
}

// A client and a server of remote calls, over a connection that could as well be TCP.
func ExampleReplyParser_ReadReply() {
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

	parser := redisproto.NewReplyParser(client)
	writer := redisproto.NewWriter(client)
	call := func(args ...any) (redisproto.Reply, error) {
		if err := writer.WriteCommand(args...); err != nil {
			return redisproto.Reply{}, err
		}
		reply, err := parser.ReadReply()
		if err != nil {
			return redisproto.Reply{}, err
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

	parser := redisproto.NewReplyParser(client)
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
	parser := redisproto.NewReplyParser(strings.NewReader(
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
