package redisproto_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

// An event loop owns its buffers. This one stands between a client and a server, and sees what has arrived
// from either: commands with a Parser, replies with a ReplyParser.
func ExampleReplyParser_Parse() {
	var commands redisproto.Parser
	var replies redisproto.ReplyParser
	var fromClient, fromServer []byte // what has arrived and is not used up
	events := []struct{ from, data string }{
		{"client", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n*2\r\n$3\r\nG"},
		{"server", "$5\r\nhel"},
		{"client", "ET\r\n$1\r\nb\r\n"},
		{"server", "lo\r\n*2\r\n:1\r\n"},
		{"server", ":2\r\n"},
	}
	for _, event := range events {
		switch event.from {
		case "client":
			fromClient = append(fromClient, event.data...)
			for {
				command, n, err := commands.Parse(fromClient)
				if err != nil {
					fmt.Println(err) // answer with it, and close
					return
				}
				if n == 0 {
					break
				}
				fmt.Printf("command %q\n", command.Args()) // none for an empty command
				fromClient = fromClient[n:]
			}
		case "server":
			fromServer = append(fromServer, event.data...)
			for {
				reply, n, err := replies.Parse(fromServer)
				if err != nil {
					fmt.Println(err) // close
					return
				}
				if n == 0 {
					break
				}
				fmt.Printf("reply %q is of kind %v\n", reply.Raw(), reply.Kind())
				fromServer = fromServer[n:]
			}
		}
	}
	// Output:
	// command ["GET" "a"]
	// command ["GET" "b"]
	// reply "$5\r\nhello\r\n" is of kind bulk string
	// reply "*2\r\n:1\r\n:2\r\n" is of kind array
}

// serveWithPassword lets a client do nothing but AUTH and HELLO before it has given the password, and holds
// what it sends to Redis's limits until then.
func serveWithPassword(conn net.Conn, password string) {
	defer conn.Close()
	parser := redisproto.NewParser(conn)
	parser.SetLimits(redisproto.Limits{Unauthenticated: true})
	writer := redisproto.NewWriter(bufio.NewWriter(conn))
	defer writer.Flush()
	authenticated := false
	auth := func(given []byte) bool {
		if string(given) != password {
			writer.WriteError("WRONGPASS invalid username-password pair or user is disabled.")
			return false
		}
		authenticated = true
		parser.SetLimits(redisproto.Limits{}) // from the next command on
		return true
	}
	for command := range parser.Commands() {
		switch name := string(command.Name()); {
		case name == "AUTH" && command.ArgCount() == 2:
			if auth(command.Get(1)) {
				writer.WriteSimpleString("OK")
			}
		case name == "HELLO": // HELLO version [AUTH user password]
			version, ok := command.Int(1)
			if !ok || version < 2 || version > 3 {
				writer.WriteError("NOPROTO unsupported protocol version")
				break
			}
			if command.ArgCount() == 5 && strings.EqualFold(string(command.Get(2)), "AUTH") {
				if !auth(command.Get(4)) {
					break
				}
			}
			if !authenticated {
				writer.WriteError("NOAUTH HELLO must be called with the client already authenticated")
				break
			}
			writer.SetProtocol(int(version))
			writer.WriteMapHeader(2)
			writer.WriteBulkString("server")
			writer.WriteBulkString("example")
			writer.WriteBulkString("proto")
			writer.WriteInt(version)
		case name == "QUIT":
			writer.WriteSimpleString("BYE")
			return
		case !authenticated:
			writer.WriteError("NOAUTH Authentication required.")
		default:
			writer.WriteSimpleString("OK")
		}
		if command.IsLast() && writer.Flush() != nil {
			return
		}
	}
	if err := parser.Err(); errors.Is(err, &redisproto.ProtocolError{}) {
		writer.WriteError(err.Error())
	}
}

// HELLO changes what the Writer writes, AUTH changes what the Parser takes.
func ExampleLimits_unauthenticated() {
	for _, script := range []string{
		"GET a\r\nHELLO 3\r\nAUTH wrong\r\n*1000\r\n",
		"HELLO 3 AUTH default secret\r\nGET a\r\nQUIT\r\n",
		"AUTH secret\r\nHELLO 2\r\n*11\r\n" + strings.Repeat("$1\r\na\r\n", 11) + "QUIT\r\n",
	} {
		client, server := net.Pipe()
		go serveWithPassword(server, "secret")
		go fmt.Fprint(client, script)
		parser := redisproto.NewReplyParser(client)
		for {
			reply, err := parser.ReadReply()
			if err != nil {
				fmt.Println(err)
				break
			}
			fmt.Printf("%q\n", reply.Raw())
		}
		client.Close()
	}
	// Output:
	// "-NOAUTH Authentication required.\r\n"
	// "-NOAUTH HELLO must be called with the client already authenticated\r\n"
	// "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
	// "-ERR Protocol error: unauthenticated multibulk length\r\n"
	// EOF
	// "%2\r\n$6\r\nserver\r\n$7\r\nexample\r\n$5\r\nproto\r\n:3\r\n"
	// "+OK\r\n"
	// "+BYE\r\n"
	// EOF
	// "+OK\r\n"
	// "*4\r\n$6\r\nserver\r\n$7\r\nexample\r\n$5\r\nproto\r\n:2\r\n"
	// "+OK\r\n"
	// "+BYE\r\n"
	// EOF
}

// A connReader is the Reader of a server's connection. Before each read it sends the replies, sees whether
// the server shuts down, and sets the deadline.
type connReader struct {
	conn     net.Conn
	replies  *bufio.Writer
	idle     time.Duration
	shutdown *atomic.Bool
}

func (r *connReader) Read(b []byte) (int, error) {
	if err := r.replies.Flush(); err != nil {
		return 0, err
	}
	// The deadline is set first: whoever shuts the server down sets the flag and then a deadline that has
	// passed, so that one of the two is seen here.
	if err := r.conn.SetReadDeadline(time.Now().Add(r.idle)); err != nil {
		return 0, err
	}
	if r.shutdown.Load() {
		return 0, net.ErrClosed
	}
	return r.conn.Read(b)
}

// Deadlines, flushing and shutting down are the business of the Reader that NewParser is given. A server that
// shuts down answers the commands that it has received, and reads no more.
func ExampleNewParser() {
	client, server := net.Pipe()
	var shutdown atomic.Bool
	done := make(chan error)
	go func() {
		defer server.Close()
		out := bufio.NewWriter(server)
		parser := redisproto.NewParser(&connReader{server, out, time.Minute, &shutdown})
		writer := redisproto.NewWriter(out)
		for command := range parser.Commands() {
			writer.WriteBulk(command.Name())
		}
		writer.Flush()
		done <- parser.Err()
	}()

	fmt.Fprint(client, "PING\r\nECHO hi\r\n")
	parser := redisproto.NewReplyParser(client)
	for range 2 {
		reply, err := parser.ReadReply()
		fmt.Println(string(reply.Bytes()), err)
	}

	shutdown.Store(true)
	server.SetReadDeadline(time.Now()) // ends the read that waits
	err := <-done
	fmt.Println("shut down:", errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded))
	_, err = parser.ReadReply()
	fmt.Println(err)
	// Output:
	// PING <nil>
	// ECHO <nil>
	// shut down: true
	// EOF
}

// A subscriber is the connection of a client. A Writer is not for two goroutines at once: here the client's
// own and those that publish take the mutex.
type subscriber struct {
	mu     sync.Mutex
	writer *redisproto.Writer
}

// send has write write a reply or a message, and sends it.
func (s *subscriber) send(write func(*redisproto.Writer)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	write(s.writer)
	return s.writer.Flush()
}

// A broker knows who has subscribed to what.
type broker struct {
	mu       sync.Mutex
	channels map[string][]*subscriber
}

func (b *broker) subscribe(channel string, s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.channels[channel] = append(b.channels[channel], s)
}

// publish sends a message to all subscribers of a channel, and returns how many there are. A slow one holds
// up the others: a real server gives each subscriber a queue.
func (b *broker) publish(channel, message string) (n int) {
	b.mu.Lock()
	subscribers := b.channels[channel]
	b.mu.Unlock()
	for _, s := range subscribers {
		err := s.send(func(w *redisproto.Writer) {
			w.WritePushHeader(3)
			w.WriteBulkString("message")
			w.WriteBulkString(channel)
			w.WriteBulkString(message)
		})
		if err == nil {
			n++
		}
	}
	return n
}

func (b *broker) serve(conn net.Conn) {
	defer conn.Close()
	self := &subscriber{writer: redisproto.NewWriter(bufio.NewWriter(conn))}
	for command := range redisproto.NewParser(conn).Commands() {
		var reply func(*redisproto.Writer)
		switch name := string(command.Name()); {
		case name == "SUBSCRIBE" && command.ArgCount() == 2:
			channel := string(command.Get(1)) // a copy, since views end with the next read
			b.subscribe(channel, self)
			reply = func(w *redisproto.Writer) {
				w.WritePushHeader(3)
				w.WriteBulkString("subscribe")
				w.WriteBulkString(channel)
				w.WriteInt(1)
			}
		case name == "PUBLISH" && command.ArgCount() == 3:
			n := b.publish(string(command.Get(1)), string(command.Get(2)))
			reply = func(w *redisproto.Writer) { w.WriteInt(int64(n)) }
		default:
			reply = func(w *redisproto.Writer) { w.WriteError("ERR unknown command") }
		}
		if self.send(reply) != nil {
			return
		}
	}
}

// Messages reach a connection from other goroutines than its own.
func Example_publish() {
	b := &broker{channels: map[string][]*subscriber{}}
	connect := func() (net.Conn, *redisproto.Writer, *redisproto.ReplyParser) {
		client, server := net.Pipe()
		go b.serve(server)
		return client, redisproto.NewWriter(client), redisproto.NewReplyParser(client)
	}
	show := func(parser *redisproto.ReplyParser) {
		reply, err := parser.ReadReply()
		fmt.Printf("%q %v\n", reply.Raw(), err)
	}
	reader, subscribe, messages := connect()
	defer reader.Close()
	writer, publish, answers := connect()
	defer writer.Close()

	subscribe.WriteCommand("SUBSCRIBE", "news")
	show(messages)
	publish.WriteCommand("PUBLISH", "news", "hello")
	show(messages)
	show(answers)
	// Output:
	// "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n" <nil>
	// "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n" <nil>
	// ":1\r\n" <nil>
}
