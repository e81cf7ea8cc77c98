package redisproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The benchmarks put the library beside the plainest thing that does the same work, so that what
// counts is a ratio within one run: impl=bufio is a parser as one would write it in an hour,
// impl=copy writes the same bytes ready-made, server=null only counts bytes.

var benchCommands = []struct{ name, bytes string }{
	{"ping", request("PING")},
	{"get", request("GET", "key:000000000001")},
	{"set", request("SET", "key:000000000001", strings.Repeat("x", 64))},
	{"lpush", request("lpush", "k2", strings.Repeat("a", 60))},
	{"mset10", request(mset(10)...)},
	{"mset500", request(mset(500)...)},
	{"set4k", request("SET", "key:000000000001", strings.Repeat("x", 4<<10))},
	{"set1m", request("SET", "key:000000000001", strings.Repeat("x", 1<<20))},
	{"inline-ping", "PING\r\n"},
	{"inline-set", "SET key:000000000001 \"a \\x41 'quoted' value\"\r\n"},
}

// request gives a command as clients send it.
func request(args ...string) string {
	b := []byte("*" + strconv.Itoa(len(args)) + "\r\n")
	for _, a := range args {
		b = append(b, "$"+strconv.Itoa(len(a))+"\r\n"+a+"\r\n"...)
	}
	return string(b)
}

// mset gives an MSET of n pairs.
func mset(n int) []string {
	args := []string{"MSET"}
	for i := range n {
		args = append(args, fmt.Sprintf("key:%012d", i), fmt.Sprintf("val:%08d", i))
	}
	return args
}

func BenchmarkReadCommand(b *testing.B) {
	for _, cmd := range benchCommands {
		for _, pipeline := range []string{"16k", "1"} {
			name := "cmd=" + cmd.name + "/pipeline=" + pipeline
			src := func() io.Reader { return newEndless(cmd.bytes, 16<<10) }
			if pipeline == "1" {
				src = func() io.Reader { return newEndless(cmd.bytes, 0) }
			}
			b.Run(name+"/impl=redisproto", func(b *testing.B) {
				p := NewParser(src())
				benchmark(b, len(cmd.bytes), func() error {
					_, err := p.ReadCommand()
					return err
				})
			})
			b.Run(name+"/impl=bufio", func(b *testing.B) {
				p := &plainParser{r: bufio.NewReaderSize(src(), 16<<10)}
				benchmark(b, len(cmd.bytes), p.readCommand)
			})
		}
	}
}

func benchmark(b *testing.B, size int, once func() error) {
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := once(); err != nil {
			b.Fatal(err)
		}
	}
}

// endless gives the same command for ever, at most n bytes a read, or if n is 0 one command a read.
type endless struct {
	data []byte
	pos  int
	n    int
}

func newEndless(command string, n int) *endless {
	copies := 1
	if n > 0 {
		copies = 1 + 4*n/len(command)
	}
	return &endless{data: bytes.Repeat([]byte(command), copies), n: n}
}

func (e *endless) Read(b []byte) (int, error) {
	if e.n > 0 {
		b = b[:min(e.n, len(b))]
	}
	n := copy(b, e.data[e.pos:])
	if e.pos += n; e.pos == len(e.data) {
		e.pos = 0
	}
	return n, nil
}

// plainParser is a careful use of bufio.Reader: no garbage, one copy of each argument.
type plainParser struct {
	r    *bufio.Reader
	slab []byte
	args [][]byte
}

var errPlain = errors.New("protocol error")

func (p *plainParser) readCommand() error {
	p.slab, p.args = p.slab[:0], p.args[:0]
	line, err := p.readLine()
	if err != nil {
		return err
	}
	if line[0] != '*' {
		p.slab = append(p.slab, line...)
		p.args = append(p.args, bytes.Fields(p.slab)...)
		return nil
	}
	count, err := strconv.Atoi(string(line[1:]))
	if err != nil {
		return err
	}
	for range count {
		line, err := p.readLine()
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(string(line[1:]))
		if err != nil || line[0] != '$' || size < 0 || size > 512<<20 {
			return errPlain
		}
		if err := p.readBulk(size); err != nil {
			return err
		}
	}
	return nil
}

func (p *plainParser) readLine() ([]byte, error) {
	line, err := p.r.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, errPlain
	}
	return line[:len(line)-2], nil
}

func (p *plainParser) readBulk(size int) error {
	start := len(p.slab)
	if cap(p.slab)-start < size+2 {
		p.slab = append(make([]byte, 0, 2*cap(p.slab)+size+2), p.slab...)
	}
	p.slab = p.slab[:start+size+2]
	if _, err := io.ReadFull(p.r, p.slab[start:]); err != nil {
		return err
	}
	if p.slab[start+size] != '\r' || p.slab[start+size+1] != '\n' {
		return errPlain
	}
	p.slab = p.slab[:start+size]
	p.args = append(p.args, p.slab[start:])
	return nil
}

// mixedTraffic returns a pipeline of at least 4 MB as real clients send it, and how many commands it
// has. The processor cannot learn it by heart, as it does with one repeated command.
var mixedTraffic = sync.OnceValues(func() (pipeline string, commands int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func(least, most int) string {
		b := make([]byte, least+rnd.IntN(most-least+1))
		for i := range b {
			b[i] = 'a' + byte(rnd.IntN(26))
		}
		return string(b)
	}
	var all strings.Builder
	for all.Len() < 4<<20 {
		args := []string{strings.ToUpper(text(3, 7))}
		for i := range rnd.IntN(6) {
			if i == 0 {
				args = append(args, text(4, 40))
			} else {
				args = append(args, text(1, 400))
			}
		}
		all.WriteString(request(args...))
		commands++
	}
	return all.String(), commands
})

// BenchmarkMixed reads the mixed traffic, in reads of 16 KiB and from one slice.
func BenchmarkMixed(b *testing.B) {
	pipeline, commands := mixedTraffic()
	size := len(pipeline) / commands
	b.Run("traffic=mixed/form=pull/impl=redisproto", func(b *testing.B) {
		p := NewParser(newEndless(pipeline, 16<<10))
		benchmark(b, size, func() error {
			_, err := p.ReadCommand()
			return err
		})
	})
	b.Run("traffic=mixed/form=pull/impl=bufio", func(b *testing.B) {
		p := &plainParser{r: bufio.NewReaderSize(newEndless(pipeline, 16<<10), 16<<10)}
		benchmark(b, size, p.readCommand)
	})
	b.Run("traffic=mixed/form=push/impl=redisproto", func(b *testing.B) {
		data := []byte(pipeline)
		benchmarkParse(b, data, size)
	})
}

// benchmarkParse parses the commands of data over and over.
func benchmarkParse(b *testing.B, data []byte, size int) {
	var p Parser
	rest := data
	benchmark(b, size, func() error {
		_, n, err := p.Parse(rest)
		if rest = rest[n:]; len(rest) == 0 {
			rest = data
		}
		return err
	})
}

// BenchmarkStream passes a SET of 256 MiB on from one TCP connection to another, beside io.Copy of
// the same bytes.
func BenchmarkStream(b *testing.B) {
	const size = 256 << 20
	head := "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$" + strconv.Itoa(size) + "\r\n"
	total := int64(len(head) + size + 2)
	for _, impl := range []struct {
		name string
		pass func(to, from net.Conn) func() (int64, error)
	}{
		{"redisproto", func(to, from net.Conn) func() (int64, error) {
			p := NewParser(from)
			p.SetLimits(Limits{Stream: 64 << 10})
			return func() (int64, error) {
				c, err := p.ReadCommand()
				if err != nil {
					return 0, err
				}
				return c.WriteTo(to)
			}
		}},
		{"iocopy", func(to, from net.Conn) func() (int64, error) {
			return func() (int64, error) { return io.CopyN(to, from, total) }
		}},
	} {
		b.Run("bytes=256MiB/impl="+impl.name, func(b *testing.B) {
			from, send := tcpPair(b)
			receive, to := tcpPair(b)
			go io.Copy(io.Discard, receive)
			go func() {
				chunk := bytes.Repeat([]byte("x"), 256<<10)
				for range b.N {
					io.WriteString(send, head)
					for range size / len(chunk) {
						send.Write(chunk)
					}
					io.WriteString(send, "\r\n")
				}
			}()
			pass := impl.pass(to, from)
			b.SetBytes(total)
			b.ReportAllocs()
			for range b.N {
				if n, err := pass(); n != total || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	for _, cmd := range benchCommands[:6] {
		b.Run("cmd="+cmd.name, func(b *testing.B) {
			benchmarkParse(b, bytes.Repeat([]byte(cmd.bytes), 1+16<<10/len(cmd.bytes)), len(cmd.bytes))
		})
	}
}

// One command in the reads of a slow network: its time must grow as its size does.
func BenchmarkReadCommandInPieces(b *testing.B) {
	for _, n := range []int{50_000, 100_000} {
		b.Run("args="+strconv.Itoa(n), func(b *testing.B) {
			cmd := request(mset(n / 2)...)
			p := NewParser(newEndless(cmd, 1448))
			benchmark(b, len(cmd), func() error {
				_, err := p.ReadCommand()
				return err
			})
		})
	}
}

func BenchmarkWriter(b *testing.B) {
	b64, b1k := bytes.Repeat([]byte("x"), 64), bytes.Repeat([]byte("x"), 1<<10)
	ten := make([][]byte, 10)
	for i := range ten {
		ten[i] = b64
	}
	objects := []any{nil, 1, "two", 3.5, []byte("four")}
	command := []any{"SET", "key:000000000001", b64, 12345}
	random, next := rand.New(rand.NewPCG(1, 2)), 0
	var mixed [1024]int64 // of every length, so that the processor cannot predict the next one
	for i := range mixed {
		mixed[i] = int64(random.Uint64()) >> random.IntN(64)
	}
	for _, reply := range []struct {
		name  string
		write func(*Writer) error
	}{
		{"simple", func(w *Writer) error { return w.WriteSimpleString("OK") }},
		{"error", func(w *Writer) error { return w.WriteError("ERR no such key") }},
		{"int", func(w *Writer) error { return w.WriteInt(1234) }},
		{"int1", func(w *Writer) error { return w.WriteInt(1) }},
		{"int7", func(w *Writer) error { return w.WriteInt(1234567) }},
		{"int16", func(w *Writer) error { return w.WriteInt(1234567890123456) }},
		{"int19", func(w *Writer) error { return w.WriteInt(-1234567890123456789) }},
		{"intmixed", func(w *Writer) error { next++; return w.WriteInt(mixed[next%len(mixed)]) }},
		{"null", func(w *Writer) error { return w.WriteNull() }},
		{"double", func(w *Writer) error { return w.WriteDouble(3.25) }},
		{"bulk64", func(w *Writer) error { return w.WriteBulk(b64) }},
		{"bulk1k", func(w *Writer) error { return w.WriteBulk(b1k) }},
		{"bulkstring64", func(w *Writer) error { return w.WriteBulkString(string64) }},
		{"bulks10x64", func(w *Writer) error { return w.WriteBulksSlice(ten) }},
		{"objects5", func(w *Writer) error { return w.WriteObjectsSlice(objects) }},
		{"command4", func(w *Writer) error { return w.WriteCommand(command...) }},
	} {
		var ready bytes.Buffer
		if err := reply.write(NewWriter(&ready)); err != nil {
			b.Fatal(err)
		}
		b.Run("reply="+reply.name+"/impl=redisproto", func(b *testing.B) {
			w := NewWriter(bufio.NewWriterSize(io.Discard, 16<<10))
			benchmark(b, ready.Len(), func() error { return reply.write(w) })
		})
		b.Run("reply="+reply.name+"/impl=copy", func(b *testing.B) {
			w := bufio.NewWriterSize(io.Discard, 16<<10)
			benchmark(b, ready.Len(), func() error {
				_, err := w.Write(ready.Bytes())
				return err
			})
		})
	}
}

var string64 = strings.Repeat("x", 64)

// BenchmarkServer: 32 connections over loopback, each sending a pipeline and waiting for its replies.
func BenchmarkServer(b *testing.B) {
	cmd := request("SET", "key:000000000001", strings.Repeat("x", 64))
	for _, pipeline := range []int{1, 16, 128} {
		for _, server := range []struct {
			name  string
			serve func(net.Conn)
		}{
			{"redisproto", serveOK},
			{"null", func(c net.Conn) { serveNull(c, len(cmd)) }},
		} {
			b.Run(fmt.Sprintf("pipeline=%d/server=%s", pipeline, server.name), func(b *testing.B) {
				benchmarkServer(b, server.serve, cmd, pipeline)
			})
		}
	}
}

func serveOK(conn net.Conn) {
	p := NewParser(conn)
	w := NewWriter(bufio.NewWriter(conn))
	for {
		c, err := p.ReadCommand()
		if err != nil {
			return
		}
		switch string(c.Name()) {
		case "SET":
			w.WriteSimpleString("OK")
		default:
			w.WriteError("ERR unknown command")
		}
		if c.IsLast() && w.Flush() != nil {
			return
		}
	}
}

// serveNull answers each size bytes with the same constant.
func serveNull(conn net.Conn, size int) {
	buf := make([]byte, 32<<10)
	replies := bytes.Repeat([]byte("+OK\r\n"), 1+len(buf)/size)
	for have := 0; ; have %= size {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		have += n
		if _, err := conn.Write(replies[:5*(have/size)]); err != nil {
			return
		}
	}
}

func benchmarkServer(b *testing.B, serve func(net.Conn), cmd string, pipeline int) {
	const conns = 32
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c) }()
		}
	}()
	var clients [conns]net.Conn
	for i := range clients {
		if clients[i], err = net.Dial("tcp", l.Addr().String()); err != nil {
			b.Fatal(err)
		}
		defer clients[i].Close()
	}
	b.SetBytes(int64(len(cmd)))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rounds := (b.N + conns*pipeline - 1) / (conns * pipeline)
			if err := roundTrips(c, strings.Repeat(cmd, pipeline), 5*pipeline, rounds); err != nil {
				b.Errorf("connection %d: %v", i, err)
			}
		}()
	}
	wg.Wait()
}

func roundTrips(c net.Conn, requests string, replySize, rounds int) error {
	out, in := []byte(requests), make([]byte, replySize)
	for range rounds {
		if _, err := c.Write(out); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, in); err != nil {
			return err
		}
	}
	return nil
}
