package redisproto_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/secmask/go-redisproto"
)

// An objectStore keeps each value in a file. It holds 64 KiB of a value at most, on its way in and out.
type objectStore struct{ dir string }

// serve answers PUT name value and GET name.
func (s *objectStore) serve(conn net.Conn) {
	defer conn.Close()
	parser := redisproto.NewParser(conn)
	parser.SetLimits(redisproto.Limits{Stream: 64 << 10, Bulk: math.MaxInt})
	writer := redisproto.NewWriter(bufio.NewWriter(conn))
	defer writer.Flush()
	for command := range parser.Commands() {
		var err error
		switch name := string(command.Name()); {
		case name == "PUT" && command.ArgCount() == 3 && command.Get(1) != nil:
			if err = s.put(command); err == nil {
				err = writer.WriteSimpleString("OK")
			}
		case name == "GET" && command.ArgCount() == 2:
			err = s.get(string(command.Get(1)), writer)
		default:
			writer.WriteError("ERR unknown command, or one that is too long")
		}
		if err != nil {
			writer.WriteError("ERR " + err.Error())
		}
		if command.IsLast() && writer.Flush() != nil {
			return
		}
	}
	if err := parser.Err(); errors.Is(err, &redisproto.ProtocolError{}) {
		writer.WriteError(err.Error())
	}
}

// path returns where the object is. A name may hold any byte, so that it is not a file's name as it is.
func (s *objectStore) path(name string) string {
	return filepath.Join(s.dir, fmt.Sprintf("%x", name))
}

// put writes the value of a PUT to a new file, which takes the place of the old one once it is whole.
func (s *objectStore) put(command *redisproto.Command) error {
	path := s.path(string(command.Get(1)))
	var value io.Reader = bytes.NewReader(command.Get(2))
	if !command.Whole() {
		var err error
		if value, _, err = command.NextArg(); err != nil {
			return err
		}
	}
	file, err := os.CreateTemp(s.dir, "new-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // it is no more there if all went well
	if _, err = io.Copy(file, value); err != nil {
		file.Close()
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}

// get answers with the contents of a file.
func (s *objectStore) get(name string, writer *redisproto.Writer) error {
	file, err := os.Open(s.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return writer.WriteNull()
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return writer.WriteBulkFrom(file, info.Size())
}

// A server and a client for values of any size, of which neither holds more than a part.
func Example_objectStore() {
	dir, err := os.MkdirTemp("", "objects")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	client, server := net.Pipe()
	defer client.Close()
	go (&objectStore{dir}).serve(server)

	writer := redisproto.NewWriter(client)
	parser := redisproto.NewReplyParser(client)
	parser.SetLimits(redisproto.Limits{Stream: 64 << 10})
	const size = 10 << 20
	for _, args := range [][]any{{"PUT", "film", strings.Repeat("x", size)}, {"GET", "film"}, {"GET", "none"}} {
		if err := writer.WriteCommand(args...); err != nil {
			fmt.Println(err)
			return
		}
		reply, err := parser.ReadReply()
		if err != nil {
			fmt.Println(err)
			return
		}
		if reply.Kind() != redisproto.BulkString {
			fmt.Println(reply.Kind(), string(reply.Bytes()))
			continue
		}
		n, err := io.Copy(io.Discard, reply.Body())
		fmt.Println("whole:", reply.Whole(), "size:", reply.Size(), "read:", n, err)
	}
	// Output:
	// simple string OK
	// whole: false size: 10485760 read: 10485760 <nil>
	// null
}

// held is how much of a command or a reply the proxy holds.
const held = 16 << 10

// proxy passes the commands of client on to server and the replies back, of any size, in constant memory,
// until one of them ends.
func proxy(client, server net.Conn) error {
	replies := make(chan error, 1)
	go func() {
		replies <- passReplies(client, server)
		client.Close() // ends passCommands
	}()
	err := passCommands(server, client)
	if half, ok := server.(interface{ CloseWrite() error }); ok && err == nil {
		half.CloseWrite() // the replies to what was sent still come
	} else {
		server.Close()
	}
	return errors.Join(err, <-replies, client.Close(), server.Close())
}

// passCommands passes commands on. It flushes when the pipeline ends, and so before it waits for more.
func passCommands(server io.Writer, client io.Reader) error {
	parser := redisproto.NewParser(client)
	parser.SetLimits(redisproto.Limits{Stream: held})
	out := bufio.NewWriter(server)
	for command := range parser.Commands() {
		if _, err := command.WriteTo(out); err != nil {
			return err
		}
		if command.IsLast() {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	return parser.Err()
}

// passReplies passes replies on, and flushes when there is no more of them at hand.
func passReplies(client io.Writer, server io.Reader) error {
	parser := redisproto.NewReplyParser(server)
	parser.SetLimits(redisproto.Limits{Stream: held})
	out := bufio.NewWriter(client)
	for {
		reply, err := parser.ReadReply()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := reply.WriteTo(out); err != nil {
			return err
		}
		if parser.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

// A proxy for values of any size: the commands go one way, the replies the other.
func Example_proxy() {
	client, front := net.Pipe()
	back, server := net.Pipe()
	go serveCounter(server)
	go proxy(front, back)

	parser := redisproto.NewReplyParser(client)
	writer := redisproto.NewWriter(client)
	for i := range 3 {
		if err := writer.WriteCommand("INCRBY", "counter", i+1); err != nil {
			fmt.Println(err)
			return
		}
		reply, err := parser.ReadReply()
		fmt.Println(string(reply.Bytes()), err)
	}
	client.Close()
	// Output:
	// 1 <nil>
	// 3 <nil>
	// 6 <nil>
}

// serveSmall keeps no value of more than most bytes. It answers a larger one with an error and goes on.
func serveSmall(conn net.Conn, most int64) {
	defer conn.Close()
	parser := redisproto.NewParser(conn)
	parser.SetLimits(redisproto.Limits{Stream: 4 << 10})
	writer := redisproto.NewWriter(bufio.NewWriter(conn))
	for command := range parser.Commands() {
		var size int64
		var err error
		tooLarge := false
		for err == nil { // one turn if the command is whole: io.EOF
			_, size, err = command.NextArg() // this skips the argument before
			tooLarge = tooLarge || size > most
		}
		switch {
		case err != io.EOF:
			return
		case tooLarge:
			writer.WriteError("ERR value too large")
		case !command.Whole():
			writer.WriteError("ERR command too long")
		default:
			writer.WriteInt(int64(len(command.Get(command.ArgCount() - 1))))
		}
		if command.IsLast() && writer.Flush() != nil {
			return
		}
	}
}

// A value that is too large need not end the connection.
func Example_oversized() {
	client, server := net.Pipe()
	defer client.Close()
	go serveSmall(server, 64<<10)

	writer := redisproto.NewWriter(client)
	parser := redisproto.NewReplyParser(client)
	for _, size := range []int{10, 10 << 20, 20} {
		if err := writer.WriteCommand("SET", "key", strings.Repeat("x", size)); err != nil {
			fmt.Println(err)
			return
		}
		reply, err := parser.ReadReply()
		fmt.Println(string(reply.Bytes()), err)
	}
	// Output:
	// 10 <nil>
	// ERR value too large <nil>
	// 20 <nil>
}

// After an upgrade, the connection carries something else. Rest has the bytes of it that came together with
// the command.
func ExampleParser_Rest() {
	client, server := net.Pipe()
	go func() {
		defer server.Close()
		parser := redisproto.NewParser(server)
		writer := redisproto.NewWriter(server)
		for command := range parser.Commands() {
			if string(command.Name()) != "UPGRADE" {
				writer.WriteError("ERR unknown command")
				continue
			}
			writer.WriteSimpleString("OK")
			lines := bufio.NewScanner(parser.Rest())
			for lines.Scan() {
				fmt.Fprintf(server, "you said %s\n", lines.Text())
			}
			return
		}
	}()

	go fmt.Fprint(client, "UPGRADE\r\nhello\nworld\n")
	replies := bufio.NewScanner(client)
	for range 3 {
		replies.Scan()
		fmt.Println(replies.Text())
	}
	client.Close()
	// Output:
	// +OK
	// you said hello
	// you said world
}
