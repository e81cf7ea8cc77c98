// Command gnetserver is the demo server, ../../../example/main.go, on the event loops of
// panjf2000/gnet: an idle connection has no goroutine, no stack and no buffers.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"log"
	"runtime"
	"sync"

	"github.com/panjf2000/gnet/v2"
	"github.com/secmask/go-redisproto"
)

const maxUnread = 32 << 20 // bytes of replies that wait for a client, before it is closed

func main() {
	addr := flag.String("addr", "127.0.0.1:6380", "address to listen on")
	loops := flag.Int("loops", 1, "event loops; one serves as a thread of Redis does")
	flag.Parse()
	runtime.GOMAXPROCS(*loops) // a thread beyond these would look for work that there is not
	log.Fatal(gnet.Run(new(server), "tcp://"+*addr, gnet.WithNumEventLoop(*loops)))
}

// server has the event handlers. gnet calls those of one connection on its loop, one after the other.
type server struct {
	gnet.BuiltinEventEngine
	outputs sync.Map // the *output of each gnet.EventLoop
}

// An output writes the replies of all connections of a loop, one connection after the other.
type output struct {
	bw     *bufio.Writer
	writer *redisproto.Writer
	fresh  *redisproto.Parser // for connections that are not in the middle of a command
}

// A session is what the server knows of a connection.
type session struct {
	*output
	held   []byte             // received, and not yet a whole command
	parser *redisproto.Parser // which knows how far it has come with held
}

func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	out, ok := s.outputs.Load(c.EventLoop())
	if !ok { // the first connection of its loop; nobody else stores for it
		bw := bufio.NewWriterSize(nil, 16<<10)
		out = &output{bw, redisproto.NewWriter(bw), new(redisproto.Parser)}
		s.outputs.Store(c.EventLoop(), out)
	}
	c.SetContext(&session{output: out.(*output)})
	return nil, gnet.None
}

// OnTraffic answers all commands that are whole now, and keeps a copy of what is left.
func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	sess := c.Context().(*session)
	b, err := c.Next(-1) // a view into the loop's read buffer
	if len(sess.held) > 0 {
		sess.held = append(sess.held, b...)
		b = sess.held
	}
	parser := cmp.Or(sess.parser, sess.fresh)
	sess.bw.Reset(c)
	for n := -1; n != 0 && err == nil; b = b[n:] {
		var command *redisproto.Command
		if command, n, err = parser.Parse(b); err != nil {
			sess.writer.WriteError(err.Error())
			parser.Reset(nil)
		} else if command.ArgCount() > 0 { // 0 are an empty command, and one that is not whole
			err = answer(sess.writer, command)
		}
	}
	if sess.writer.Flush() != nil || err != nil || c.OutboundBuffered() > maxUnread {
		return gnet.Close
	}
	if sess.held = append(sess.held[:0], b...); len(b) == 0 {
		sess.held, sess.parser = nil, nil
	} else if sess.parser == nil {
		sess.parser, sess.fresh = parser, new(redisproto.Parser)
	}
	return gnet.None
}

var errQuit = errors.New("the client said QUIT")

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
	}
	return writer.WriteError("Command not support")
}
