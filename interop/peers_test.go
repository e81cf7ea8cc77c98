// Package interop puts the library beside its peers. It is a module of its own, so that the library
// itself requires none.
package interop

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/gomodule/redigo/redis"
	"github.com/mediocregopher/radix/v4/resp"
	"github.com/mediocregopher/radix/v4/resp/resp3"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/secmask/go-redisproto"
	"github.com/tidwall/redcon"
	tidwall "github.com/tidwall/resp"
)

// request gives a command as clients send it.
func request(args ...string) []byte {
	b := []byte("*" + strconv.Itoa(len(args)) + "\r\n")
	for _, a := range args {
		b = append(b, "$"+strconv.Itoa(len(a))+"\r\n"+a+"\r\n"...)
	}
	return b
}

func set(size int) []byte {
	return request("SET", "key:000000000001", strings.Repeat("x", size))
}

func mset(pairs int) []byte {
	args := []string{"MSET"}
	for i := range pairs {
		args = append(args, fmt.Sprintf("key:%012d", i), fmt.Sprintf("val:%08d", i))
	}
	return request(args...)
}

// A command has its bytes, and what a parser must find in it: how many arguments, and how long the
// last one is.
type command struct {
	name       string
	bytes      []byte
	args, last int
}

var commands = []command{
	{"ping", request("PING"), 1, 4},
	{"get", request("GET", "key:000000000001"), 2, 16},
	{"set", set(64), 3, 64},
	{"lpush", request("lpush", "k2", strings.Repeat("a", 60)), 3, 60},
	{"mset10", mset(10), 21, 12},
	{"mset500", mset(500), 1001, 12},
	{"set4k", set(4 << 10), 3, 4 << 10},
	{"set1m", set(1 << 20), 3, 1 << 20},
	{"inline-ping", []byte("PING\r\n"), 1, 4},
}

// endless gives the same bytes for ever, at most n in a read. Where they end a read does too.
type endless struct {
	data []byte
	pos  int
	n    int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b[:min(e.n, len(b))], e.data[e.pos:])
	if e.pos += n; e.pos == len(e.data) {
		e.pos = 0
	}
	return n, nil
}

// pipelined gives as many whole commands a read as 16 KiB hold, and a longer one in such reads.
func pipelined(cmd []byte) io.Reader {
	const n = 16 << 10
	return &endless{data: bytes.Repeat(cmd, max(1, n/len(cmd))), n: n}
}

// alone gives one command a read.
func alone(cmd []byte) io.Reader { return &endless{data: cmd, n: len(cmd)} }

// memConn is a net.Conn in memory.
type memConn struct {
	io.Reader
	io.Writer
	closed atomic.Bool
}

func (c *memConn) Read(b []byte) (int, error) {
	if c.closed.Load() {
		return 0, io.EOF
	}
	return c.Reader.Read(b)
}

func (c *memConn) Close() error                   { c.closed.Store(true); return nil }
func (*memConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (*memConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (*memConn) SetDeadline(time.Time) error      { return nil }
func (*memConn) SetReadDeadline(time.Time) error  { return nil }
func (*memConn) SetWriteDeadline(time.Time) error { return nil }

// A parser reads one command, and says how many arguments it has and how long the last one is.
type parser func() (args, last int, err error)

// parsers are those that can be called. redisproto-args has each argument cut out into a slice, as
// the others do unasked.
var parsers = []struct {
	name string
	make func(io.Reader) parser
}{
	{"redisproto", func(r io.Reader) parser {
		p := redisproto.NewParser(r)
		return func() (int, int, error) {
			c, err := p.ReadCommand()
			n := c.ArgCount()
			return n, len(c.Get(n - 1)), err
		}
	}},
	{"redisproto-args", func(r io.Reader) parser {
		p := redisproto.NewParser(r)
		return func() (int, int, error) {
			c, err := p.ReadCommand()
			if err != nil {
				return 0, 0, err
			}
			args := c.Args()
			return len(args), len(args[len(args)-1]), nil
		}
	}},
	{"redcon", func(r io.Reader) parser {
		rd := redcon.NewReader(r)
		return func() (int, int, error) {
			c, err := rd.ReadCommand()
			if err != nil {
				return 0, 0, err
			}
			return len(c.Args), len(c.Args[len(c.Args)-1]), nil
		}
	}},
	{"tidwall-resp", func(r io.Reader) parser {
		rd := tidwall.NewReader(r)
		return func() (int, int, error) {
			v, _, _, err := rd.ReadMultiBulk()
			if err != nil {
				return 0, 0, err
			}
			args := v.Array()
			return len(args), len(args[len(args)-1].Bytes()), nil
		}
	}},
}

// BenchmarkCommand reads commands. miniredis has a parser that is internal: its server reads from a
// connection in memory, and the figures hold the hand-over from its reading goroutine to the other.
func BenchmarkCommand(b *testing.B) {
	for _, cmd := range commands {
		for _, mode := range []struct {
			name   string
			source func([]byte) io.Reader
		}{{"16k", pipelined}, {"1", alone}} {
			name := "cmd=" + cmd.name + "/pipeline=" + mode.name + "/impl="
			for _, p := range parsers {
				b.Run(name+p.name, func(b *testing.B) { parse(b, cmd, p.make(mode.source(cmd.bytes))) })
			}
			if cmd.bytes[0] == '*' { // it knows no inline commands
				b.Run(name+"miniredis", func(b *testing.B) { serveMiniredis(b, cmd, mode.source(cmd.bytes)) })
			}
		}
	}
	commandMixed(b)
}

// BenchmarkPieces: one large command in the reads of a slow network.
func BenchmarkPieces(b *testing.B) {
	cmd := command{"mset", mset(25_000), 50_001, 12}
	for _, p := range parsers {
		b.Run("args=50000/read=1448/impl="+p.name, func(b *testing.B) {
			parse(b, cmd, p.make(&endless{data: cmd.bytes, n: 1448}))
		})
	}
}

// BenchmarkLarge: values of which memory sets the speed. impl=ready reads as many bytes into a
// buffer that is ready, impl=ready-new into a new one each time; impl=redisproto-new has a new
// parser, with its small buffer, each time.
func BenchmarkLarge(b *testing.B) {
	for _, cmd := range []command{
		{"set1m", set(1 << 20), 3, 1 << 20},
		{"set64m", set(64 << 20), 3, 64 << 20},
	} {
		name := "cmd=" + cmd.name + "/impl="
		source := pipelined(cmd.bytes)
		b.Run(name+"ready", func(b *testing.B) {
			buf := bytes.Clone(cmd.bytes) // written to, so that its pages are there
			benchmark(b, len(buf), func() error {
				_, err := io.ReadFull(source, buf)
				return err
			})
		})
		b.Run(name+"ready-new", func(b *testing.B) {
			benchmark(b, len(cmd.bytes), func() error {
				_, err := io.ReadFull(source, make([]byte, len(cmd.bytes)))
				return err
			})
		})
		for _, p := range parsers {
			if p.name == "redisproto" || p.name == "redcon" {
				b.Run(name+p.name, func(b *testing.B) { parse(b, cmd, p.make(source)) })
			}
		}
		b.Run(name+"redisproto-new", func(b *testing.B) {
			parse(b, cmd, func() (int, int, error) { return parsers[0].make(source)() })
		})
	}
}

func benchmark(b *testing.B, size int, once func() error) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if err := once(); err != nil {
			b.Fatal(err)
		}
	}
}

func parse(b *testing.B, cmd command, p parser) {
	b.SetBytes(int64(len(cmd.bytes)))
	b.ReportAllocs()
	for b.Loop() {
		if args, last, err := p(); err != nil || args != cmd.args || last != cmd.last {
			b.Fatalf("got %d arguments, the last of %d bytes, error %v; want %d, %d, nil",
				args, last, err, cmd.args, cmd.last)
		}
	}
}

func serveMiniredis(b *testing.B, cmd command, source io.Reader) {
	s, conn, done := server.NewServerConn(), &memConn{Reader: source, Writer: io.Discard}, make(chan error, 1)
	n := 0
	s.SetPreHook(func(_ *server.Peer, _ string, args ...string) bool {
		if n++; n == b.N {
			done <- nil
		}
		if cmd.args > 0 && len(args)+1 != cmd.args {
			select {
			case done <- fmt.Errorf("got %d arguments, want %d", len(args)+1, cmd.args):
			default:
			}
		}
		return true
	})
	b.SetBytes(int64(len(cmd.bytes)))
	b.ReportAllocs()
	b.ResetTimer()
	s.ServeConn(conn)
	err := <-done
	b.StopTimer()
	s.Close()
	if err != nil {
		b.Fatal(err)
	}
}

var errParse = errors.New("not what was sent")

// BenchmarkParse: the pure layers, which look for one command in bytes that are there.
func BenchmarkParse(b *testing.B) {
	for _, cmd := range commands[:6] {
		data := bytes.Repeat(cmd.bytes, max(1, 16<<10/len(cmd.bytes)))
		b.Run("cmd="+cmd.name+"/impl=redisproto", func(b *testing.B) {
			rest := data
			var p redisproto.Parser
			benchmark(b, len(cmd.bytes), func() error {
				c, n, err := p.Parse(rest)
				if rest = rest[n:]; len(rest) == 0 {
					rest = data
				}
				if c.ArgCount() != cmd.args {
					return errors.Join(errParse, err)
				}
				return err
			})
		})
		b.Run("cmd="+cmd.name+"/impl=redcon", func(b *testing.B) {
			rest := data
			var args [][]byte
			benchmark(b, len(cmd.bytes), func() error {
				var err error
				_, args, _, rest, err = redcon.ReadNextCommand(rest, args[:0])
				if len(rest) == 0 {
					rest = data
				}
				if len(args) != cmd.args {
					return errors.Join(errParse, err)
				}
				return err
			})
		})
	}
	parseMixed(b)
}

const writerSize = 16 << 10

var (
	bulk64, bulk1k = bytes.Repeat([]byte("x"), 64), bytes.Repeat([]byte("x"), 1<<10)
	text64, text1k = string(bulk64), string(bulk1k)
	bulks10        = slices.Repeat([][]byte{bulk64}, 10)
	texts10        = slices.Repeat([]string{text64}, 10)
	values10       = slices.Repeat([]tidwall.Value{tidwall.BytesValue(bulk64)}, 10)
)

var replies = []struct{ name, bytes string }{
	{"simple", "+OK\r\n"},
	{"int", ":1234\r\n"},
	{"bulk64", "$64\r\n" + text64 + "\r\n"},
	{"bulk1k", "$1024\r\n" + text1k + "\r\n"},
	{"bulks10x64", string(request(texts10...))},
}

// writers write each of replies. redcon's collects until it is flushed, and the others flush the
// bufio.Writer that they are given.
var writers = []struct {
	name string
	make func(io.Writer) (write []func() error, flush func() error)
}{
	{"redisproto", func(dst io.Writer) ([]func() error, func() error) {
		w := redisproto.NewWriter(bufio.NewWriterSize(dst, writerSize))
		return []func() error{
			func() error { return w.WriteSimpleString("OK") },
			func() error { return w.WriteInt(1234) },
			func() error { return w.WriteBulk(bulk64) },
			func() error { return w.WriteBulk(bulk1k) },
			func() error { return w.WriteBulksSlice(bulks10) },
		}, w.Flush
	}},
	{"redcon", func(dst io.Writer) ([]func() error, func() error) {
		w := redcon.NewWriter(dst)
		return []func() error{
			func() error { w.WriteString("OK"); return nil },
			func() error { w.WriteInt64(1234); return nil },
			func() error { w.WriteBulk(bulk64); return nil },
			func() error { w.WriteBulk(bulk1k); return nil },
			func() error {
				w.WriteArray(len(bulks10))
				for _, b := range bulks10 {
					w.WriteBulk(b)
				}
				return nil
			},
		}, w.Flush
	}},
	{"tidwall-resp", func(dst io.Writer) ([]func() error, func() error) {
		bw := bufio.NewWriterSize(dst, writerSize)
		w := tidwall.NewWriter(bw)
		return []func() error{
			func() error { return w.WriteSimpleString("OK") },
			func() error { return w.WriteInteger(1234) },
			func() error { return w.WriteBytes(bulk64) },
			func() error { return w.WriteBytes(bulk1k) },
			func() error { return w.WriteArray(values10) },
		}, bw.Flush
	}},
	{"miniredis", func(dst io.Writer) ([]func() error, func() error) {
		w := server.NewPeer(bufio.NewWriterSize(dst, writerSize))
		return []func() error{
			func() error { w.WriteInline("OK"); return nil },
			func() error { w.WriteInt(1234); return nil },
			func() error { w.WriteBulk(text64); return nil },
			func() error { w.WriteBulk(text1k); return nil },
			func() error { w.WriteStrings(texts10); return nil },
		}, func() error { w.Flush(); return nil }
	}},
}

// BenchmarkWriter writes replies, and flushes them to nowhere by 16 KiB.
func BenchmarkWriter(b *testing.B) {
	for i, r := range replies {
		for _, impl := range writers {
			var out bytes.Buffer
			write, flush := impl.make(&out)
			if err := errors.Join(write[i](), flush()); err != nil || out.String() != r.bytes {
				b.Fatalf("%s: got %q, error %v; want %q", impl.name, &out, err, r.bytes)
			}
			b.Run("reply="+r.name+"/impl="+impl.name, func(b *testing.B) {
				write, flush := impl.make(io.Discard)
				once, held := write[i], 0
				benchmark(b, len(r.bytes), func() error {
					if held += len(r.bytes); held > writerSize {
						held = len(r.bytes)
						if err := flush(); err != nil {
							return err
						}
					}
					return once()
				})
			})
		}
	}
}

// BenchmarkReply reads replies, 100 to the operation, as the values that each peer gives when it is
// not told what to expect; redisproto-walk takes each value out of the reply. go-redis has its reader in an internal package: its client sends 100
// commands as a pipeline over a connection in memory, and its figures hold the sending.
func BenchmarkReply(b *testing.B) {
	for _, r := range replies {
		for _, p := range replyReaders {
			b.Run("reply="+r.name+"/batch=100/impl="+p.name, func(b *testing.B) {
				read := p.make(pipelined([]byte(r.bytes)))
				benchmark(b, 100*len(r.bytes), func() error {
					for range 100 {
						if err := read(); err != nil {
							return err
						}
					}
					return nil
				})
			})
		}
		b.Run("reply="+r.name+"/batch=100/impl=go-redis", func(b *testing.B) {
			readGoRedis(b, []byte(r.bytes))
		})
	}
}

var replyReaders = []struct {
	name string
	make func(io.Reader) (read func() error)
}{
	{"redisproto", func(r io.Reader) func() error {
		p := redisproto.NewReplyParser(r)
		return func() error {
			reply, err := p.ReadReply()
			if err == nil {
				err = reply.Err()
			}
			return err
		}
	}},
	{"redisproto-walk", func(r io.Reader) func() error {
		p := redisproto.NewReplyParser(r)
		return func() error {
			reply, err := p.ReadReply()
			if err != nil {
				return err
			}
			return walk(reply)
		}
	}},
	{"redigo", func(r io.Reader) func() error {
		c := redis.NewConn(&memConn{Reader: r, Writer: io.Discard}, 0, 0)
		return func() error { _, err := c.Receive(); return err }
	}},
	{"radix", func(r io.Reader) func() error {
		br, opts := bufio.NewReader(r), resp.NewOpts()
		return func() error { var v any; return resp3.Unmarshal(br, &v, opts) }
	}},
	{"tidwall-resp", func(r io.Reader) func() error {
		rd := tidwall.NewReader(r)
		return func() error { _, _, err := rd.ReadValue(); return err }
	}},
	{"miniredis", func(r io.Reader) func() error {
		br := bufio.NewReader(r)
		return func() error { _, err := server.ParseReply(br); return err }
	}},
}

// walk takes each value of a reply as the Go type that the peers make of it, but for the copy.
func walk(r redisproto.Reply) error {
	switch r.Kind() {
	case redisproto.Integer:
		_, err := r.Int()
		return err
	case redisproto.BulkString:
		if len(r.Bytes()) == 0 {
			return errParse
		}
	case redisproto.Array:
		for e := range r.All() {
			if err := walk(e); err != nil {
				return err
			}
		}
	}
	return r.Err()
}

func readGoRedis(b *testing.B, reply []byte) {
	server := &replyConn{reply: reply, size: len(request("GET", "k"))}
	client := goredis.NewClient(&goredis.Options{
		Protocol: 2, DisableIdentity: true, PoolSize: 1, MaxRetries: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer: func(context.Context, string, string) (net.Conn, error) {
			return &memConn{Reader: server, Writer: server}, nil
		},
	})
	defer client.Close()
	ctx := context.Background()
	conn := client.Conn()
	defer conn.Close()
	benchmark(b, 100*len(reply), func() error {
		_, err := conn.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for range 100 {
				p.Do(ctx, "GET", "k")
			}
			return nil
		})
		return err
	})
}

// replyConn is a server that has one reply, for each size bytes that it is sent. HELLO, by which
// go-redis begins, it does not know.
type replyConn struct {
	reply []byte
	size  int
	sent  int // bytes of commands not yet counted
	out   bytes.Buffer
}

func (c *replyConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("hello")) {
		c.out.WriteString("-ERR unknown command 'hello'\r\n")
		return len(b), nil
	}
	for c.sent += len(b); c.sent >= c.size; c.sent -= c.size {
		c.out.Write(c.reply)
	}
	return len(b), nil
}

func (c *replyConn) Read(b []byte) (int, error) { return c.out.Read(b) }
