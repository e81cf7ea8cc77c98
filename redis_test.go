package redisproto

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A real redis-server is the judge of what a request is. Each row of redisRows is a stream of
// requests; it goes to Redis and, in the same pieces, to a small server on this package. The reply
// bytes must be the same, and so must what follows them: the connection is closed, or waits.
//
// The server on this package reads from a script, so it is known for certain whether it waits: it
// asks for more than the script has. That answer says what to look for in Redis: an end of input,
// for which it is given plenty of time, or none after it has had two rounds of its event loop since
// the last byte. So a slow machine can hide a difference, but never make one up.

// startRedis starts a redis-server on a free port of the loopback interface, with nothing saved,
// and kills it when the test ends. It skips the test if there is none installed.
func startRedis(t testing.TB, args ...string) (addr string) {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: ", err)
	}
	var log string
	for range 5 { // another process may take the port first
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr = l.Addr().String()
		_, port, _ := net.SplitHostPort(addr)
		l.Close()
		var ready bool
		if ready, log = runRedis(t, append([]string{path, "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(),
			"--save", "", "--appendonly", "no"}, args...)); ready {
			return addr
		}
	}
	t.Fatalf("redis-server does not start; it says:\n%s", log)
	return ""
}

// redisUntilEOF has Redis end with the shell's input, so also when the test binary dies.
const redisUntilEOF = `"$@" & exec >&-; read x; kill -9 $! 2>/dev/null; wait`

// runRedis runs the command until the test ends, and returns when it takes connections or gives up.
func runRedis(t testing.TB, command []string) (ready bool, log string) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", redisUntilEOF, "sh"}, command...)...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	t.Cleanup(func() {
		in.Close()
		<-drained
		cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	for !ready && lines.Scan() {
		ready = strings.Contains(lines.Text(), "Ready to accept connections")
		log += lines.Text() + "\n"
	}
	go func() {
		io.Copy(io.Discard, out)
		close(drained)
	}()
	return ready, log
}

// A scriptConn gives its pieces, one or a part of one a read, and then the end of input. It keeps
// what is written to it.
type scriptConn struct {
	pieces []string
	joined bool // the end comes with the last bytes, not in a read of its own
	waited bool // more was asked for than there is
	out    bytes.Buffer
	late   int // bytes of out when that was
}

func (s *scriptConn) Read(b []byte) (n int, err error) {
	for len(s.pieces) > 0 && s.pieces[0] == "" {
		s.pieces = s.pieces[1:]
	}
	if len(s.pieces) == 0 {
		if !s.waited {
			s.waited, s.late = true, s.out.Len()
		}
		return 0, io.EOF
	}
	n = copy(b, s.pieces[0])
	s.pieces[0] = s.pieces[0][n:]
	if s.joined && len(s.pieces) == 1 && s.pieces[0] == "" {
		return n, io.EOF
	}
	return n, nil
}

func (s *scriptConn) Write(b []byte) (int, error) { return s.out.Write(b) }

// An outcome is what a client sees of a server, and for the server on this package why.
type outcome struct {
	reply  string
	closed bool // by the server, before the end of input

	late    string // replies that were held back until the end of input
	dropped bool   // POST or Host:, by which replies are lost that are not sent
	err     string
	offset  int64 // of a protocol error, or -1
	fault   *ProtocolError
}

// same reports whether two runs of the server on this package came to the same.
func (o outcome) same(p outcome) bool {
	return o.reply == p.reply && o.closed == p.closed && o.late == p.late && o.err == p.err && o.offset == p.offset
}

// playOurs gives the pieces to the server on this package.
func playOurs(auth, joined bool, pieces ...string) outcome {
	conn := &scriptConn{pieces: append([]string(nil), pieces...), joined: joined}
	s := miniRedis{keys: map[string]string{}, locked: auth}
	err := s.serve(conn)
	o := outcome{reply: conn.out.String(), closed: err != io.EOF && err != io.ErrUnexpectedEOF, dropped: err == errDropped, err: fmt.Sprint(err), offset: -1}
	if conn.waited {
		o.reply, o.late = o.reply[:conn.late], o.reply[conn.late:]
	}
	if errors.As(err, &o.fault) {
		o.offset = o.fault.Offset
	}
	return o
}

// A miniRedis answers a few commands as Redis does, texts included.
type miniRedis struct {
	keys   map[string]string
	locked bool // a password is required and was not given
}

const redisPass = "secret"

// What the Redis with a password is started with, and the same as Limits. Total has room for the
// largest bulk alone, not behind a name.
var (
	lockedArgs   = []string{"--requirepass", redisPass, "--proto-max-bulk-len", "1mb", "--client-query-buffer-limit", "1mb"}
	lockedLimits = Limits{Unauthenticated: true, Bulk: 1 << 20, Total: 1<<20 + 20}
)

var (
	errDropped = errors.New("POST or Host")
	errQuit    = errors.New("QUIT")
)

// serve is the server loop. It returns when the connection is to be closed.
func (s *miniRedis) serve(conn io.ReadWriter) error {
	p := NewParser(conn)
	if s.locked {
		p.SetLimits(lockedLimits)
	}
	w := NewWriter(bufio.NewWriter(conn))
	for {
		c, err := p.ReadCommand()
		var pe *ProtocolError
		if errors.As(err, &pe) {
			w.WriteError(err.Error())
		}
		if err == nil {
			locked := s.locked
			err = s.answer(c, w)
			if locked != s.locked {
				lim := lockedLimits
				lim.Unauthenticated = false
				p.SetLimits(lim)
			}
		}
		if err == errDropped {
			return err
		}
		if err != nil || c.IsLast() {
			w.Flush()
		}
		if err != nil {
			return err
		}
	}
}

// arity has the number of arguments of each command, the name included: at least -n if negative.
var arity = map[string]int{"PING": -1, "ECHO": 2, "SET": -3, "GET": 2, "STRLEN": 2, "AUTH": -2}

func (s *miniRedis) answer(c *Command, w *Writer) error {
	if name := strings.ToUpper(cString(c.Get(0))); name == "POST" || name == "HOST:" {
		return errDropped
	}
	name := string(c.Name())
	n, known := arity[name]
	switch {
	case name == "QUIT":
		w.WriteSimpleString("OK")
		return errQuit
	case !known:
		return w.WriteError(unknownCommand(c))
	case n > 0 && c.ArgCount() != n || c.ArgCount() < -n || name == "PING" && c.ArgCount() > 2:
		return w.WriteError("ERR wrong number of arguments for '" + strings.ToLower(name) + "' command")
	case name == "AUTH":
		return s.auth(c, w)
	case s.locked:
		return w.WriteError("NOAUTH Authentication required.")
	case name == "SET" && c.ArgCount() > 3:
		return w.WriteError("ERR syntax error")
	case name == "SET":
		s.keys[string(c.Get(1))] = string(c.Get(2))
		return w.WriteSimpleString("OK")
	case name == "GET":
		if v, ok := s.keys[string(c.Get(1))]; ok {
			return w.WriteBulkString(v)
		}
		return w.WriteNull()
	case name == "STRLEN":
		return w.WriteInt(int64(len(s.keys[string(c.Get(1))])))
	case c.ArgCount() == 1:
		return w.WriteSimpleString("PONG")
	}
	return w.WriteBulk(c.Get(1)) // ECHO, and PING with an argument
}

func (s *miniRedis) auth(c *Command, w *Writer) error {
	if string(c.Get(1)) != redisPass {
		return w.WriteError("WRONGPASS invalid username-password pair or user is disabled.")
	}
	s.locked = false
	return w.WriteSimpleString("OK")
}

// unknownCommand gives Redis's text for it: the name and the arguments are cut at 128 bytes each.
func unknownCommand(c *Command) string {
	name := cString(c.Get(0))
	args := ""
	for i := 1; i < c.ArgCount() && len(args) < 128; i++ {
		arg := cString(c.Get(i))
		args += "'" + arg[:min(len(arg), 128-len(args))] + "' "
	}
	return "ERR unknown command '" + name[:min(len(name), 128)] + "', with args beginning with: " + args
}

// cString gives b as far as C sees it.
func cString(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return s
}

// A redisPeer plays streams to a Redis. Its second connection tells how far Redis is.
type redisPeer struct {
	addr string
	db   int // its own, so that peers do not see each other's keys; negative if AUTH is required
	ctl  net.Conn
	in   *bufio.Reader // from ctl
}

// redisPatience is for what must come; only a difference takes so long.
const redisPatience = 10 * time.Second

func newRedisPeer(t *testing.T, addr string, db int) *redisPeer {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &redisPeer{addr: addr, db: db, ctl: conn, in: bufio.NewReader(conn)}
	hello := "AUTH " + redisPass
	if db >= 0 {
		hello = "SELECT " + strconv.Itoa(db)
	}
	if err := p.call(hello, "+OK\r\n"); err != nil {
		t.Fatal(err)
	}
	return p
}

// call sends a command on the second connection.
func (p *redisPeer) call(line, want string) error {
	p.ctl.SetDeadline(time.Now().Add(redisPatience))
	if _, err := io.WriteString(p.ctl, line+"\r\n"); err != nil {
		return err
	}
	got, err := p.in.ReadString('\n')
	if err == nil && got != want {
		err = fmt.Errorf("Redis answers %q to %q", got, line)
	}
	return err
}

// settle returns when Redis has had time for n bytes that were written before: Redis has one
// thread, reads 16 KiB or more of each connection in a round, and writes and closes at its end.
func (p *redisPeer) settle(n int) error {
	for range 2 + n/(8<<10) {
		if err := p.call("PING", "+PONG\r\n"); err != nil {
			return err
		}
	}
	return nil
}

func (p *redisPeer) dial() (*net.TCPConn, error) {
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.TCPConn)
	conn.SetDeadline(time.Now().Add(redisPatience))
	if p.db < 0 {
		return conn, nil
	}
	if err := p.call("FLUSHDB", "+OK\r\n"); err != nil {
		return conn, err
	}
	ok := make([]byte, len("+OK\r\n"))
	fmt.Fprintf(conn, "SELECT %d\r\n", p.db)
	_, err = io.ReadFull(conn, ok)
	return conn, err
}

// Ways to end a stream.
const (
	endWatch = iota // wait for what ours says is to come, then look whether more does
	endShut         // shut the sending side behind the last byte; whether Redis closes is not seen
	endAsk          // the same, but when all is answered
)

// play sends the pieces, each when Redis has read the one before.
func (p *redisPeer) play(pieces []string, end int, ours outcome) (o outcome, err error) {
	conn, err := p.dial()
	if err != nil {
		return o, err
	}
	defer conn.Close()
	for i, s := range pieces {
		if _, err := io.WriteString(conn, s); err != nil {
			break // closed by Redis: what it wrote can still be read
		}
		if i+1 < len(pieces) || end != endShut {
			if err := p.settle(len(s)); err != nil {
				return o, err
			}
		}
	}
	if end == endWatch {
		return watch(conn, ours), nil
	}
	conn.CloseWrite()
	reply, err := io.ReadAll(conn)
	if isTimeout(err) {
		return o, err
	}
	return outcome{reply: string(reply)}, nil
}

// watch reads what Redis sends. If ours waits, all of Redis's is there when it is called.
func watch(conn *net.TCPConn, ours outcome) outcome {
	if ours.closed {
		reply, err := io.ReadAll(conn)
		return outcome{reply: string(reply), closed: !isTimeout(err)}
	}
	reply := make([]byte, len(ours.reply))
	n, _ := io.ReadFull(conn, reply)
	conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	more, err := io.ReadAll(conn)
	o := outcome{reply: string(reply[:n]) + string(more), closed: !isTimeout(err)}
	if !o.closed {
		conn.SetReadDeadline(time.Now().Add(redisPatience))
		conn.CloseWrite()
		late, _ := io.ReadAll(conn)
		o.late = string(late)
	}
	return o
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// The only reasons for which this package may differ from Redis. Each time it is stricter, so that
// two parsers on one stream cannot disagree about where a request ends.
const (
	sameAsRedis = ""
	wantsCRLF   = "a header and an argument must end in CR LF, where Redis takes any byte for LF, and any two behind an argument"
	refusesNUL  = "a NUL that hides the end of its line from Redis is an error at once"
	saysTooBig  = "a command over the limit in all is answered before the connection is closed"
	countsLine  = "a line over the limit is refused, where Redis takes it if its end comes in the same read"
	mayDiffer   = "*" // any of these, as long as it is shown to be the reason
)

// stricter says for which of the reasons the error came, by what stands in the stream at its offset.
func stricter(stream string, err *ProtocolError) string {
	if err == nil || err.Offset > int64(len(stream)) {
		return sameAsRedis
	}
	at := stream[err.Offset:]
	line, _, ended := strings.Cut(at, "\n")
	header, _, _ := strings.Cut(at, "\r")
	switch {
	case errors.Is(err, ErrCRLF) && !strings.HasPrefix(at, "\r\n"):
		return wantsCRLF
	case errors.Is(err, ErrInlineNUL) && strings.Contains(line, "\x00"):
		return refusesNUL
	case (errors.Is(err, ErrMultibulkLength) || errors.Is(err, ErrBulkLength) || errors.Is(err, ErrExpectedBulk)) &&
		strings.Contains(header, "\x00"):
		return refusesNUL
	case errors.Is(err, ErrTooBig):
		return saysTooBig
	case errors.Is(err, ErrInlineTooLong) && ended && len(line) > 64<<10:
		return countsLine
	}
	return sameAsRedis
}

// A redisRow is a stream of requests, and why the replies to it differ.
type redisRow struct {
	name   string
	pieces []string // one piece is cut in several ways, more are played as they are
	why    string
	locked bool // to the Redis that wants a password
	whole  bool // to Redis in one piece only
}

// TestRedis compares this package with a real redis-server.
func TestRedis(t *testing.T) {
	open, locked := startRedis(t), startRedis(t, lockedArgs...)
	rows := redisRows()
	t.Logf("%d streams, the random ones of seed %d", len(rows), redisSeed)
	var (
		wg     sync.WaitGroup
		failed atomic.Int32
		mu     sync.Mutex
		seen   = map[string]int{} // how often for each reason
		next   = make(chan redisRow, len(rows))
	)
	for _, row := range rows {
		next <- row
	}
	close(next)
	for db := range 8 {
		peers := map[bool]*redisPeer{false: newRedisPeer(t, open, db), true: newRedisPeer(t, locked, -1)}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for row := range next {
				if failed.Load() > 20 {
					return
				}
				why, err := row.compare(peers[row.locked])
				if err != nil {
					failed.Add(1)
					t.Errorf("%s: %v", row.name, err)
				}
				mu.Lock()
				seen[why]++
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	for _, why := range []string{wantsCRLF, refusesNUL, saysTooBig, countsLine} {
		if seen[why] == 0 {
			t.Errorf("no stream is answered differently because %s", why)
		}
	}
}

// compare plays the row to both in several ways, and gives the reason why they differ.
func (row redisRow) compare(p *redisPeer) (why string, err error) {
	stream := strings.Join(row.pieces, "")
	ours := playOurs(row.locked, false, row.pieces...)
	why = stricter(stream, ours.fault)
	differs, err := row.compareOne(p, row.pieces, endWatch)
	if err != nil {
		return why, err
	}
	if !differs {
		why = sameAsRedis
	}
	if row.why != why && row.why != mayDiffer {
		return why, fmt.Errorf("stream %s\n got difference %q\nwant difference %q", brief(stream), why, row.why)
	}
	if len(row.pieces) > 1 {
		return why, nil
	}
	if !row.whole {
		if err := row.compareCut(p, stream); err != nil {
			return why, err
		}
	}
	if len(stream) > 256 || ours.dropped {
		return why, nil
	}
	// Redis itself does not care for the cuts, so for the rest of them the replies of the whole do.
	for i := range len(stream) {
		if got := playOurs(row.locked, i%2 == 1, stream[:i], stream[i:]); !got.same(ours) {
			return why, fmt.Errorf("stream %s cut at %d\n got %+v\nwant %+v", brief(stream), i, got, ours)
		}
	}
	return why, nil
}

// compareCut plays the row in two pieces, byte by byte, and with the end of input right behind it.
func (row redisRow) compareCut(p *redisPeer, stream string) error {
	cut := len(stream) * (len(row.name)%7 + 1) / 8
	if _, err := row.compareOne(p, []string{stream[:cut], stream[cut:]}, endWatch); err != nil {
		return err
	}
	if len(stream) <= 48 {
		var pieces []string
		for i := range len(stream) {
			pieces = append(pieces, stream[i:i+1])
		}
		if _, err := row.compareOne(p, pieces, endWatch); err != nil {
			return err
		}
	}
	_, err := row.compareOne(p, row.pieces, endShut)
	return err
}

// compareOne reports whether the replies to the pieces differ for a reason that is allowed.
func (row redisRow) compareOne(p *redisPeer, pieces []string, end int) (differs bool, err error) {
	stream := strings.Join(pieces, "")
	ours := playOurs(row.locked, end == endShut, pieces...)
	why := stricter(stream, ours.fault)
	if end == endWatch && why != sameAsRedis {
		end = endAsk
	}
	redis, err := p.play(pieces, end, ours)
	if err != nil {
		return false, err
	}
	if end != endWatch {
		ours.reply, ours.late, ours.closed = ours.reply+ours.late, "", false
	}
	if ours.reply == redis.reply && ours.closed == redis.closed && ours.late == redis.late {
		return false, nil
	}
	// The replies before the error are still to be the same.
	before := strings.TrimSuffix(ours.reply, "-"+ours.err+"\r\n")
	if why != sameAsRedis && strings.HasPrefix(redis.reply, before) {
		return true, nil
	}
	return true, fmt.Errorf("stream %s in %d pieces, end %d\n got %s\nwant %s", brief(stream), len(pieces), end,
		ours.describe(), redis.describe())
}

func (o outcome) describe() string {
	return fmt.Sprintf("%s late %s closed %v", brief(o.reply), brief(o.late), o.closed)
}

// brief quotes s, without the middle of a long one.
func brief(s string) string {
	if len(s) > 300 {
		return fmt.Sprintf("%q ...%d bytes... %q", s[:150], len(s)-300, s[len(s)-150:])
	}
	return strconv.Quote(s)
}

// redisSeed makes the random rows what they are.
const redisSeed = 20240607

func redisRows() []redisRow {
	rows := slices.Concat(numberRows(), requestRows(), limitRows(), lockedRows(), pairRows(), quoteRows(), byteRows())
	return append(rows, randomRows(rand.New(rand.NewPCG(redisSeed, 0)), 400)...)
}

// multibulk gives a command in that form.
func multibulk(args ...string) string {
	s := fmt.Sprintf("*%d\r\n", len(args))
	for _, a := range args {
		s += fmt.Sprintf("$%d\r\n%s\r\n", len(a), a)
	}
	return s
}

// redisNumbers are counts and lengths in every form, the wrong ones included.
var redisNumbers = []string{
	"", "0", "1", "2", "9", "10", "-", "+", "-0", "+0", "+1", "-1", "-5", "--1", "-+1", "1-", "00", "01", "001", "-01",
	" 1", "1 ", "\t1", "1\t", "\v1", "1\f", "1 1", "0x1", "1e0", "1.0", "1,0", "1_0", "1'", "a", "1a", "a1", "$1", "*1",
	"\u0661", "\xb1", "\x7f", "²", "999", "1000", "0999", "1:", "1/", ":", "/", "9:", "99:", "999:", "1:9", "1/9", "10/",
	"2147483646", "2147483647", "2147483648", "-2147483648", "-2147483649", "4294967295", "4294967296", "4294967297",
	"9223372036854775806", "9223372036854775807", "9223372036854775808", "-9223372036854775807", "-9223372036854775808",
	"-9223372036854775809", "10000000000000000000", "18446744073709551615", "18446744073709551616", "18446744073709551617",
	"18446744073709551620", "99999999999999999999", "-99999999999999999999", "100000000000000000000", "184467440737095516160",
	"000000000000000000001", "0000000000000000000000000000001", "536870911", "536870912", "536870913", "-536870912",
	strings.Repeat("1", 100), strings.Repeat("0", 1000), strings.Repeat("9", 5000),
}

func numberRows() (rows []redisRow) {
	for _, n := range redisNumbers {
		rows = append(rows,
			redisRow{name: "count " + n, pieces: []string{"PING\r\n*" + n + "\r\n$4\r\nPING\r\n"}},
			redisRow{name: "length at the end " + n, pieces: []string{"*1\r\n$" + n + "\r\n"}})
		if i, err := strconv.Atoi(n); err != nil || i < 0 || i > 10 {
			rows = append(rows, redisRow{name: "length " + n, pieces: []string{"PING\r\n*2\r\n$4\r\nECHO\r\n$" + n + "\r\n0123456789\r\n"}})
		}
	}
	for n := range 12 {
		rows = append(rows, redisRow{name: fmt.Sprint("length of echo ", n), pieces: []string{multibulk("ECHO", "0123456789ab"[:n]) + "PING\r\n"}})
	}
	for _, n := range []int{99, 100, 999, 1000, 1001, 16383, 16384, 16385, 32767, 32768, 65535, 65536, 65537, 100_000} {
		arg := strings.Repeat("x\r\n$", n)[:n]
		rows = append(rows, redisRow{name: fmt.Sprint("length of echo ", n), pieces: []string{multibulk("ECHO", arg) + "PING\r\n"}})
	}
	return rows
}

// requestRows are requests of all kinds, alone and in pipelines, right and wrong. There is no command
// name with a NUL behind it: whether Redis finds that depends on the seed of its hash table.
func requestRows() (rows []redisRow) {
	long := strings.Repeat("n", 200)
	for _, s := range []string{
		"", "\r\n", "\n", "\r", "\r\r\n", " \r\n", "\t \v\f\r\n", "\r\n\r\n\n\nPING\r\n", "PING", "PING\r", "PING\r\n", "PING\n", "ping\r\n", "PiNg\n",
		"PING\r\r\n", " PING\r\n", "PING  \r\n", "PING hi\r\n", "PING a b\r\n", "PING a b\r\nPING\r\n", "\rPING\n", "PING\rhi\r\n",
		"\r*1\r\n$4\r\nPING\r\n", " *1\r\n$4\r\nPING\r\n", "+PING\r\n", "-PING\r\n", ":1\r\n", "$4\r\nPING\r\n", "_\r\n", "#t\r\n", "%1\r\n", "~1\r\n",
		"ECHO\r\n", "ECHO a b\r\n", "GET\r\n", "GET a b\r\n", "SET k\r\n", "SET k v\r\nGET k\r\nSTRLEN k\r\n", "SET k v nosuch\r\nGET k\r\n",
		"set k \"a b\"\r\nget k\r\n", "SET k ''\r\nGET k\r\nSTRLEN k\r\nGET K\r\n", "STRLEN\r\n", "GET nosuch\r\n", "AUTH\r\n",
		multibulk("PING"), multibulk("pInG"), multibulk(""), multibulk("", ""), multibulk("ECHO", ""), multibulk("PING", "a", "b"), multibulk("get"),
		multibulk("SET", "k", "a\x00b\r\nc") + multibulk("GET", "k") + "STRLEN k\r\n", multibulk("SET", "", "") + multibulk("GET", ""),
		multibulk("PING\r\n"), multibulk("nosuch", "a\r\nb", "c\x00d", "\xff"), multibulk("no\r\nsuch\x00x"),
		multibulk(long), multibulk(long, long, long), multibulk("nosuch", long[:127], "b"), multibulk("nosuch", long[:124], "b"),
		multibulk("nosuch", long[:125], "b"), multibulk("nosuch", long[:100], long), multibulk(strings.Split(long, "")...),
		long + " " + long + "\r\n", strings.Repeat("a ", 500) + "\r\nPING\r\n", "ECHO " + strings.Repeat("b", 40_000) + "\r\nPING\r\n",
		strings.Repeat("PING\r\n", 500), strings.Repeat("\r\n", 500) + "PING\r\n", strings.Repeat(multibulk("ECHO", "hello"), 500),
		strings.Repeat("*0\r\n*-1\r\n", 300) + "PING\r\n", strings.Repeat(multibulk("SET", "k", long)+"GET k\r\n", 20),
		"*1\r\nPING\r\n", "*1\r\nPING", "*1\r\nPING\nPING\n", "*1\r\nPING\r", "*1\r\n\r\n", "*1\r\n\n$4\r\n", "*1\r\n$\r\n", "*1\r\n\r\r\n", "*\r\n", "*\n", "**1\r\n",
		"*1\n$4\r\nPING\r\n", "*1\r\n$4\nPING\r\n", "*1 $4 PING\r\n", "*1\r\n*1\r\n$4\r\nPING\r\n", "*0\r\nPING\r\n", "*-1\r\nPING\r\n", "*0\r\n*0\r\n", "*-7\r\n\r\nPING\r\n",
		"*2\r\n$4\r\nPING\r\n", "*2\r\n$4\r\nECHO\r\n$2\r\nh", "*2\r\n$4\r\nECHO\r\n$2\r\nhi", "*2\r\n$4\r\nECHO\r\n$2\r\nhi\r", "*2\r\n$4\r\nECHO\r\n", "*2\r\n$4\r\nECHO\r", "*2\r\n$4\r", "*2\r", "*2", "*",
		"PING\r\n*2\r\n$4\r\nEC", "PING\r\nPI", multibulk("PING") + "*1\r\n$4\r\nPING", multibulk("PING") + "*1\r\n$4\r\nPI",
		"QUIT\r\nPING\r\n", "quit now\r\n", multibulk("QUIT", "x"), "PING\r\nQUIT\r\n*x\r\n", "QUIT", "\"QUIT\"\r\n",
		"POST / HTTP/1.1\r\n", "post\r\n", "Host: a\r\n", "hOST:\r\n", "Host:a\r\n", "Host :\r\n", "POST", "POSTS\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
		multibulk("POST"), multibulk("host:", "x"), multibulk("POST\x00y"), "PING\r\nPOST\r\nPING\r\n", "PING\r\nPOST", "'POST'\r\nPING\r\n", "PING\r\n*x\r\nPOST\r\n", "P\"OST\"\r\n",
		"PING\r\n*x\r\nPING\r\n", "PING\r\n*1\r\n:4\r\nPING\r\n", "PING\r\n*1\r\n$-1\r\nPING\r\n", "PING\r\nECHO 'a\r\nPING\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1x\r\n", "*1000000\r\n$4\r\nPING\r\n",
		"*2147483647\r\n", "*2147483647\r\n$4\r\nPING\r\n$1\r\n", "*1\r\n$536870912\r\nabc", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870913\r\n", "*1024\r\n" + strings.Repeat("$1\r\na\r\n", 1023),
		"*1025\r\n" + strings.Repeat("$1\r\na\r\n", 1025), "*5000\r\n" + strings.Repeat("$0\r\n\r\n", 5000) + "PING\r\n",
	} {
		rows = append(rows, redisRow{name: "request " + brief(s), pieces: []string{s}})
	}
	for _, s := range []string{"*1\rX$4\rYPINGzz", "*1\r\n$4\r\nPING\n\r", "*1\r\n$4\r\nPINGS\r\n", "*1\r\n$4\r\nPINGxx\r\n", "*1\r\n$4\r\nPIN\r\nPING\r\n",
		"*1\r\n$0\r\nx\r\n", "*0\r\r", "*-1\rx", "PING\r\n*1\r\r\n$4\r\nPING\r\n", "*2\r\n$4\r\nECHO\r\n$1\r\nab\r\nPING\r\n", "*1\r\n$4\r\nPING\r\r\n", "*0\rPING\r\n", "*1\r\n$4\r$PING\r\n"} {
		rows = append(rows, redisRow{name: "any for CR LF " + s, pieces: []string{s}, why: wantsCRLF})
	}
	for _, s := range []string{"\x00", "PING\x00\r\n", "\x00PING\r\n", "ECHO 'a\x00'\r\nPING\r\n", "*\x00\r\n", "*1\x00\r\n$4\r\nPING\r\n", "*\x001\r\n", "*1\r\n$\x004\r\n",
		"*1\r\n$4\x00\r\nPING\r\n", "*1\r\n\x00$4\r\n", "*1\r\nx\x00\r\n", "PING\r\n*1\r\n\x00", "*1\x00", "*1\n\x00\r\n"} {
		rows = append(rows, redisRow{name: "NUL " + s, pieces: []string{s}, why: refusesNUL})
	}
	return rows
}

// limitRows are about 64 KiB, with the end of the line in a write of its own unless they say so.
func limitRows() []redisRow {
	x := func(n int) string { return strings.Repeat("x", n) }
	d := func(n int) string { return strings.Repeat("1", n) }
	const max = 64 << 10
	return []redisRow{
		{name: "inline at limit, open", pieces: []string{x(max), ""}},
		{name: "inline at limit, LF", pieces: []string{x(max), "\nPING\r\n"}},
		{name: "inline at limit with CR, LF", pieces: []string{x(max-1) + "\r", "\nPING\r\n"}},
		{name: "inline under limit, CR LF", pieces: []string{x(max - 1), "\r\nPING\r\n"}},
		{name: "inline at limit, CR", pieces: []string{x(max), "\r", "\n"}},
		{name: "inline over limit", pieces: []string{x(max + 1), ""}},
		{name: "inline over limit, byte alone", pieces: []string{x(max), "x", "\r\nPING\r\n"}},
		{name: "inline at limit in steps", pieces: []string{x(20_000), x(20_000), x(20_000), x(5536), "\n"}},
		{name: "inline of blanks at limit", pieces: []string{strings.Repeat(" ", max), "\nPING\r\n"}},
		{name: "inline of blanks over limit", pieces: []string{strings.Repeat(" ", max+1), "\nPING\r\n"}},
		{name: "inline at limit in quotes", pieces: []string{"ECHO '" + x(max-7) + "'", "\nPING\r\n"}},
		{name: "inline over limit in quotes", pieces: []string{"ECHO '" + x(max-6) + "'", "\nPING\r\n"}},
		{name: "inline behind a command at limit", pieces: []string{"PING\r\n" + x(max), "\nPING\r\n"}},
		{name: "inline behind a command over limit", pieces: []string{"PING\r\n" + x(max+1), "\nPING\r\n"}},
		{name: "inline over limit, end in the same read", pieces: []string{x(60_000), x(5_537) + "\nPING\r\n"}, why: countsLine},
		{name: "inline at limit, end in the same read", pieces: []string{x(60_000), x(5_536) + "\nPING\r\n"}},
		{name: "count at limit, open", pieces: []string{"*" + d(max-1), ""}},
		{name: "count at limit, CR LF", pieces: []string{"*" + d(max-1), "\r\n"}},
		{name: "count at limit, CR", pieces: []string{"*" + d(max-1), "\r"}},
		{name: "count over limit", pieces: []string{"*" + d(max), ""}},
		{name: "count over limit, byte alone", pieces: []string{"*" + d(max-1), "1", "\r\n"}},
		{name: "count without CR, LF", pieces: []string{"*1\n" + x(max-3), "x"}},
		{name: "count behind a command at limit", pieces: []string{multibulk("PING") + "*" + d(max-1), "\r\n"}},
		{name: "count behind a command over limit", pieces: []string{multibulk("PING") + "*" + d(max), "\r\n"}},
		{name: "length at limit, open", pieces: []string{"*1\r\n$" + d(max-1), ""}},
		{name: "length at limit, CR LF", pieces: []string{"*1\r\n$" + d(max-1), "\r\n"}},
		{name: "length over limit", pieces: []string{"*1\r\n$" + d(max), ""}},
		{name: "length over limit, byte alone", pieces: []string{"*1\r\n$" + d(max-1), "1", "\r\n"}},
		{name: "no length at limit, open", pieces: []string{"*1\r\n" + x(max), ""}},
		{name: "no length at limit, CR LF", pieces: []string{"*1\r\n" + x(max), "\r\n"}},
		{name: "no length over limit", pieces: []string{"*1\r\n" + x(max+1), ""}},
		{name: "second length at limit", pieces: []string{"*2\r\n$4\r\nECHO\r\n$" + d(max-1), "\r\n"}},
		{name: "second length over limit", pieces: []string{"*2\r\n$4\r\nECHO\r\n$" + d(max), "\r\n"}},
		{name: "inline NUL, over limit", pieces: []string{"\x00" + x(max), ""}, why: refusesNUL},
		{name: "count NUL, over limit", pieces: []string{"*1\x00\r\n" + x(max), ""}, why: refusesNUL},
		{name: "length in its own pieces", pieces: []string{"*2\r\n$4\r\nECHO\r\n$40000\r\n", x(39_999), "x", "\r", "\n" + "PING\r\n"}},
		{name: "commands of many pieces", pieces: []string{"PING\r\nPI", "NG\r\n*1\r\n$4\r\nPI", "NG\r", "\n*2\r\n$4\r\nECHO\r\n$5\r\nhel", "lo\r\nPING\r\n*x", "\r\n"}},
		{name: "POST behind a reply that was sent", pieces: []string{"PING\r\n", "PING\r\nPOST\r\n", "PING\r\n"}},
	}
}

// lockedRows go to the Redis that wants a password.
func lockedRows() (rows []redisRow) {
	auth := "AUTH " + redisPass + "\r\n"
	for _, s := range []string{
		"PING\r\n", "GET k\r\nPING\r\n", "nosuch a\r\n", "GET\r\n", "AUTH\r\n", "AUTH wrong\r\nPING\r\n", auth + "PING\r\n", multibulk("AUTH", redisPass) + "GET k\r\n",
		"QUIT\r\n", "PING\r\nPOST\r\n", "\r\n*0\r\n*-1\r\nPING\r\n", "ECHO a b c d e f g h i j k l m n\r\n", "ECHO " + strings.Repeat("x", 17_000) + "\r\n",
		"*10\r\n", "*11\r\n", "*11", "*11\r", "*2147483647\r\n", "*2147483648\r\n", "*x\r\n", "*-11\r\n", "PING\r\n*11\r\nPING\r\n", "*9\r\n", "*99999999999999999999\r\n",
		multibulk(strings.Split("0123456789", "")...), multibulk(strings.Split("0123456789a", "")...), auth + multibulk(strings.Split("0123456789a", "")...) + "PING\r\n",
		"*1\r\n$16384\r\n", "*1\r\n$16385\r\n", "*1\r\n$16385\r", "*1\r\n$-1\r\n", "*1\r\n$1048577\r\n", "*1\r\n$1048576\r\n", "PING\r\n*2\r\n$4\r\nECHO\r\n$16385\r\nabc", "*1\r\n:16385\r\n",
		multibulk("PING", strings.Repeat("x", 16384)) + "PING\r\n", auth + multibulk("ECHO", strings.Repeat("x", 16385)) + "PING\r\n",
		auth + "*1\r\n$1048576\r\n", auth + "*1\r\n$1048577\r\n", auth + "*11\r\n$4\r\nPING\r\n", "AUTH wrong\r\n*11\r\n", auth + "*1\r\n$16385\r\n", auth + auth + "*2147483648\r\n",
	} {
		rows = append(rows, redisRow{name: "locked " + brief(s), pieces: []string{s}, locked: true})
	}
	big := strings.Repeat("x", 1<<20-1)
	return append(rows,
		redisRow{name: "locked, count in a later read", pieces: []string{auth, "*11\r\n$4\r\nPING\r\n"}, locked: true},
		redisRow{name: "locked, AUTH when the count is there", pieces: []string{auth + "*11", "\r\n$4\r\n"}, locked: true},
		redisRow{name: "locked, over the limit in all", pieces: []string{auth, "*2\r\n$4\r\nECHO\r\n$1048575\r\n", big, "\r\n"}, locked: true, why: saysTooBig},
	)
}

// pairRows are all pairs of these, and what is behind an error shows that it is thrown away.
func pairRows() (rows []redisRow) {
	whole := []string{
		"PING\r\n", "\r\n", "\n", "  \n", "*0\r\n", "*-1\r\n", multibulk("PING"), "SET k 'a b'\r\n", multibulk("SET", "k", "v\r\n"), "GET k\r\n", "nosuch \"\\x01\"\n", "GET\n",
		multibulk(""), "\r", "+OK\r\n", "POST\r\n", "QUIT\r\n", "*x\r\n", "*1\r\n+4\r\n", "*1\r\n$-1\r\n", "ECHO \"a\r\n",
	}
	open := []string{"*2\r\n$3\r\nGET\r\n$1\r\n", "*2\r\n$3\r\nGET\r\n", "PI", "*", "*1\r\n$4", multibulk("GET", "k")[:18]}
	for i, a := range whole {
		for j, b := range append(whole[:len(whole):len(whole)], open...) {
			rows = append(rows, redisRow{name: fmt.Sprintf("pair %d %d", i, j), pieces: []string{a + b}})
		}
	}
	return rows
}

// quoteRows are all short arguments of the bytes that matter to quotes, and the escapes.
func quoteRows() (rows []redisRow) {
	const letters = `"'\ x4`
	forms := []string{""}
	for from, n := 0, 0; n < 3; n++ {
		to := len(forms)
		for _, f := range forms[from:to] {
			for _, ch := range letters {
				forms = append(forms, f+string(ch))
			}
		}
		from = to
	}
	forms = append(forms,
		`"a"b`, `"a""b"`, `'a'"b"`, `"a"'b'`, `"a" "b"`, "\"a\"\t'b'", `a"b c"`, `a'b c'`, `a"b c"d`, `P"ING"`, `"a b`, `'a b`, `"a b\`, `'a b\`, `a\`, `\`, `\"a\"`, `'it\'s'`, `"it's"`, `'"'`,
		`"\x41\x00\xff\x7F"`, `"\xaB\xCd\xEf"`, `"\n\r\t\b\a"`, `"\"\\\'"`, `"\q\0\v\X41\x4z\u0041"`, `"\x"`, `"\x4"`, `"\x4`, `"\x`, `"\x41`, `'\x41\n'`, `'a\\b'`, `'a\\'`, `'a\\' b'`, `'\'`, `'\''`, `"\\"`, `"\\\""`,
		`"`+strings.Repeat(`\x61`, 300)+`"`, `"\x0d\x0a" `, "\"a\"\v", "'a'\f", "\"\" ''", "''''", `""""`, `"" "" ""`, `a "b" 'c' d`)
	for _, f := range forms {
		rows = append(rows, redisRow{name: "quotes " + f, pieces: []string{"ECHO " + f + "\r\nPING\r\n"}})
	}
	for _, f := range []string{`""`, `''`, `"" a`, `"PING"`, `'ping'`, `"\x50ING" "\x00\r\n"`, `"" "`, `PING"`, `PI"NG`, `'P'ING`, `PIN'G' x`} {
		rows = append(rows, redisRow{name: "quotes in the name " + f, pieces: []string{f + "\r\nPING\r\n"}})
	}
	return rows
}

// byteRows have every byte in the places where some bytes are special; % is that byte.
func byteRows() (rows []redisRow) {
	const (
		text    = iota // any byte will do
		line           // a NUL is refused
		number         // so it is, and a CR ends the number
		wantCR         // nothing but CR
		wantLF         // nothing but LF
		highToo = 8    // with all bytes from 0x80 on, which elsewhere are a few
	)
	forms := map[string]int{
		"*2\r\n$4\r\nECHO\r\n$3\r\na%b\r\nPING\r\n": text,
		"PING\r\n%\r\nPING\r\n":                     line | highToo,
		"ECHO a%b\r\nPING\r\n":                      line | highToo,
		"PING\r\n*1\r\n%4\r\nPING\r\n":              line | highToo,
		"%PING\r\nPING\r\n":                         line,
		"PING%\r\nPING\r\n":                         line,
		"ECHO %hi\r\nPING\r\n":                      line,
		"ECHO \"a\"%\r\nPING\r\n":                   line,
		"ECHO 'a'%\r\nPING\r\n":                     line,
		"ECHO \"\\%1\"\r\nPING\r\n":                 line,
		"ECHO '\\%1'\r\nPING\r\n":                   line,
		"ECHO \"\\x%1\"\r\nPING\r\n":                line,
		"ECHO \"\\x1%\"\r\nPING\r\n":                line,
		"PING\r\n*%\r\n$4\r\nPING\r\n":              line,
		"*%1\r\n$4\r\nPING\r\n":                     line,
		"*1\r\n$%\r\n":                              line,
		"*2\r\n$4\r\nECHO\r\n%2\r\nhi\r\n":          line,
		"*1%\r\n$4\r\nPING\r\n":                     number,
		"*1\r\n$4%\r\n":                             number,
		"*2\r\n$4\r\nECHO\r\n$10%\r\n":              number,
		"*1\r\n$4\r\nPING%\nPING\r\n":               wantCR,
		"*1\r\n$4\r\nPING\r%PING\r\n":               wantLF,
		"*1\r%$4\r\nPING\r\n":                       wantLF,
		"*1\r\n$4\r%PING\r\n":                       wantLF,
		"*0\r%PING\r\n":                             wantLF,
	}
	for _, form := range slices.Sorted(maps.Keys(forms)) {
		kind := forms[form]
		for c := range 256 {
			if c > 0x80 && kind&highToo == 0 && c != 0x85 && c != 0xa0 && c != 0xff {
				continue
			}
			why := sameAsRedis
			switch kind &^ highToo {
			case wantCR, wantLF:
				if c != map[int]int{wantCR: '\r', wantLF: '\n'}[kind] {
					why = wantsCRLF
				}
			case line, number:
				if c == 0 {
					why = refusesNUL
				} else if c == '\r' && kind == number {
					why = wantsCRLF
				}
			}
			s := strings.Replace(form, "%", string([]byte{byte(c)}), 1)
			rows = append(rows, redisRow{name: fmt.Sprintf("byte %#02x in %q", c, form), pieces: []string{s}, why: why, whole: true})
		}
	}
	return rows
}

// randomRows are good requests with a few bytes changed.
func randomRows(rnd *rand.Rand, n int) (rows []redisRow) {
	good := []string{
		"PING\r\n", "ECHO hello\n", "ECHO \"a\\x41 \\n\"\r\n", "SET k 'it\\'s'\r\n", "GET k\r\n", "\r\n", "*0\r\n", "STRLEN k\r\n",
		multibulk("PING"), multibulk("ECHO", "hullo world"), multibulk("SET", "k", "v\r\nw"), multibulk("GET", "k"), multibulk("SET", "k", strings.Repeat("x", 120)), multibulk("STRLEN", "k"),
	}
	const special = "\r\n\r\n\x00 \t\v\"'\\*$+-0123456789x\xff"
	for i := range n {
		s := ""
		for range 1 + rnd.IntN(4) {
			s += good[rnd.IntN(len(good))]
		}
		b := []byte(s)
		for range 1 + rnd.IntN(3) {
			at, ch := rnd.IntN(len(b)), special[rnd.IntN(len(special))]
			switch rnd.IntN(5) {
			case 0:
				b[at] = ch
			case 1:
				b = slices.Insert(b, at, ch)
			case 2:
				b = slices.Delete(b, at, min(len(b), at+1+rnd.IntN(2)))
			case 3:
				to := min(len(b), at+1+rnd.IntN(8))
				b = slices.Insert(b, at, b[at:to]...)
			case 4:
				b[at] ^= 1 << rnd.IntN(8)
			}
			if len(b) == 0 {
				b = []byte("*")
			}
		}
		rows = append(rows, redisRow{name: fmt.Sprintf("random %d of seed %d", i, redisSeed), pieces: []string{string(b)}, why: mayDiffer})
	}
	return rows
}

// A redisClient is a connection to a real redis-server.
type redisClient struct {
	*ReplyParser
	*Writer
	t *testing.T
}

func newRedisClient(t *testing.T, addr string, version int) *redisClient {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute)) // a hang ends with an error
	c := &redisClient{NewReplyParser(conn), NewWriter(bufio.NewWriter(conn)), t}
	c.call("HELLO", version)
	return c
}

// read reads a reply.
func (c *redisClient) read() Reply {
	c.t.Helper()
	r, err := c.ReadReply()
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

// call sends a command and reads a reply.
func (c *redisClient) call(args ...any) Reply {
	c.t.Helper()
	if err := errors.Join(c.WriteCommand(args...), c.Writer.Flush()); err != nil {
		c.t.Fatal(err)
	}
	return c.read()
}

// want checks a reply, in the notation of dump.
func (c *redisClient) want(r Reply, want string) {
	c.t.Helper()
	if got := dump(c.t, r); got != want {
		c.t.Errorf("got %s, want %s", got, want)
	}
}

// Every type that Redis has, in both protocols.
func TestRedisReplyTypes(t *testing.T) {
	addr := startRedis(t, "--enable-debug-command", "yes")
	type row struct {
		args         []any
		resp2, resp3 string
	}
	debug := func(name, resp2, resp3 string) row {
		return row{[]any{"DEBUG", "PROTOCOL", name}, resp2, resp3}
	}
	eval := func(script, resp2, resp3 string) row {
		return row{[]any{"EVAL", "redis.setresp(3) " + script, 0}, resp2, resp3}
	}
	rows := []row{
		debug("string", `$"Hello World"`, `$"Hello World"`),
		debug("integer", ":12345", ":12345"),
		debug("double", `$"3.141"`, ",3.141"),
		debug("null", "_", "_"),
		debug("array", "*[:0 :1 :2]", "*[:0 :1 :2]"),
		debug("set", "*[:0 :1 :2]", "~[:0 :1 :2]"),
		debug("map", "*[:0 :0 :1 :1 :2 :0]", "%[:0 #false :1 #true :2 #false]"),
		debug("attrib", `$"Some real reply following the attribute"`,
			`|$"key-popularity" *[$"key:123" :90]|$"Some real reply following the attribute"`),
		debug("push", `-"ERR RESP2 is not supported by this command"`, `>[$"server-cpu-usage" :42]`), // a reply follows
		debug("verbatim", `$"This is a verbatim\nstring"`, `=txt"This is a verbatim\nstring"`),
		debug("true", ":1", "#true"),
		debug("false", ":0", "#false"),
		debug("bignum", `$"1234567999999999999999999999999999999"`, "(1234567999999999999999999999999999999"),

		eval("return {map={a={double=1.5}}}", `*[$"a" $"1.5"]`, `%[$"a" ,1.5]`),
		eval("return {set={x=true}}", `*[$"x"]`, `~[$"x"]`),
		eval("return {1, true, false, 'a', {ok='fine'}, {err='BAD thing'}}", `*[:1 :1 :0 $"a" +"fine" -"BAD thing"]`, `*[:1 #true #false $"a" +"fine" -"BAD thing"]`),
		eval("return {big_number='123456789012345678901234567890'}", `$"123456789012345678901234567890"`, "(123456789012345678901234567890"),
		eval("return {double=1/0}", `$"inf"`, ",+Inf"),
		eval("return {double=-1/0}", `$"-inf"`, ",-Inf"),
		eval("return {double=0/0}", `$"-nan"`, ",NaN"),
		{[]any{"HSET", "h", "f", 1}, ":1", ":0"},
		{[]any{"HGETALL", "h"}, `*[$"f" $"1"]`, `%[$"f" $"1"]`},
		{[]any{"ZADD", "z", 1.5, "a", "inf", "b"}, ":2", ":0"},
		{[]any{"ZRANGE", "z", 0, -1, "WITHSCORES"}, `*[$"a" $"1.5" $"b" $"inf"]`, `*[*[$"a" ,1.5] *[$"b" ,+Inf]]`},
		{[]any{"GET", "none"}, "_", "_"},
		{[]any{"BLPOP", "none", 0.01}, "_", "_"},
		{[]any{"NONE"}, "-\"ERR unknown command 'NONE', with args beginning with: \"", "-\"ERR unknown command 'NONE', with args beginning with: \""},
		{[]any{"MULTI"}, `+"OK"`, `+"OK"`},
		{[]any{"SUBSCRIBE", "c"}, `+"QUEUED"`, `+"QUEUED"`},
		{[]any{"EXEC"}, `*[*[$"subscribe" $"c" :1]]`, `*[>[$"subscribe" $"c" :1]]`},
	}
	for version := 2; version <= 3; version++ {
		c := newRedisClient(t, addr, version)
		for _, row := range rows {
			want := row.resp2
			if version == 3 {
				want = row.resp3
			}
			r := c.call(row.args...)
			if got := dump(t, r); got != want {
				t.Errorf("RESP%d, %v: got %s, want %s", version, row.args, got, want)
			}
			if r.Kind() == Push {
				c.want(c.read(), `$"Some real reply following the push reply"`)
			}
		}
	}
}

func TestRedisReplyDepth(t *testing.T) {
	const script = "local t = 1 for i = 1, tonumber(ARGV[1]) do t = {t} end return t"
	c := newRedisClient(t, startRedis(t), 3)
	nested := func(n int) string { return strings.Repeat("*[", n) + ":1" + strings.Repeat("]", n) }
	c.want(c.call("EVAL", script, 0, 128), nested(128))
	c.SetLimits(Limits{Depth: 500})
	c.want(c.call("EVAL", script, 0, 500), nested(500))
	if err := errors.Join(c.WriteCommand("EVAL", script, 0, 501), c.Writer.Flush()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadReply(); !errors.Is(err, ErrReplyDepth) {
		t.Errorf("got %v, want %v", err, ErrReplyDepth)
	}
}

func TestRedisPushes(t *testing.T) {
	addr := startRedis(t)
	other := newRedisClient(t, addr, 2)
	for version, kind := range []string{2: "*", 3: ">"} {
		if kind == "" {
			continue
		}
		c := newRedisClient(t, addr, version)
		c.want(c.call("SUBSCRIBE", "a", "b"), kind+`[$"subscribe" $"a" :1]`)
		c.want(c.read(), kind+`[$"subscribe" $"b" :2]`)
		c.want(c.call("PSUBSCRIBE", "a*"), kind+`[$"psubscribe" $"a*" :3]`)
		other.want(other.call("PUBLISH", "a", "hi\r\n"), ":2")
		c.want(c.read(), kind+`[$"message" $"a" $"hi\r\n"]`)
		c.want(c.read(), kind+`[$"pmessage" $"a*" $"a" $"hi\r\n"]`)
		c.want(c.call("UNSUBSCRIBE", "a"), kind+`[$"unsubscribe" $"a" :2]`)
		c.want(c.call("PUNSUBSCRIBE", "a*"), kind+`[$"punsubscribe" $"a*" :1]`)
	}
	c := newRedisClient(t, addr, 3)
	c.want(c.call("CLIENT", "TRACKING", "ON"), `+"OK"`)
	c.want(c.call("GET", "k"), "_")
	other.want(other.call("SET", "k", "v"), `+"OK"`)
	c.want(c.read(), `>[$"invalidate" *[$"k"]]`)
	other.want(other.call("FLUSHALL"), `+"OK"`)
	c.want(c.read(), `>[$"invalidate" _]`)
}

func TestRedisLargeReplies(t *testing.T) {
	c := newRedisClient(t, startRedis(t), 3)
	value := bytes.Repeat([]byte("0123456789abcde\n"), 4<<20)
	c.want(c.call("SET", "big", value), `+"OK"`)
	if r := c.call("GET", "big"); !bytes.Equal(r.Bytes(), value) {
		t.Errorf("GET: got %d bytes that differ from the %d that were set", len(r.Bytes()), len(value))
	}
	const n = 1_000_000
	args := make([]any, 2, 1002)
	args[0], args[1] = "RPUSH", "list"
	for i := range n {
		if args = append(args, i); len(args) == cap(args) {
			if err := c.WriteCommand(args...); err != nil {
				t.Fatal(err)
			}
			args = args[:2]
		}
	}
	if err := c.Writer.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range n / 1000 {
		c.want(c.read(), fmt.Sprintf(":%d", 1000*(i+1)))
	}
	r := c.call("LRANGE", "list", 0, -1)
	if r.Len() != n {
		t.Fatalf("LRANGE: got %d elements, want %d", r.Len(), n)
	}
	i := int64(0)
	for e := range r.All() {
		if got, err := e.Int(); got != i || err != nil {
			t.Fatalf("element %d: got %q, %v", i, e.Bytes(), err)
		}
		i++
	}
}

// TestRedisPsync is a replica's connection: a reply, a file that is no RESP, as no CR LF is behind it, and then
// commands. Rest leads from each to the next.
func TestRedisPsync(t *testing.T) {
	addr := startRedis(t, "--repl-ping-replica-period", "1", "--repl-diskless-sync", "no")
	other := newRedisClient(t, addr, 2)
	value := strings.Repeat("v", 100_000)
	other.want(other.call("SET", "before", value), `+"OK"`)

	replica := newRedisClient(t, addr, 2)
	if got := replica.call("PSYNC", "?", -1).Bytes(); !bytes.HasPrefix(got, []byte("FULLRESYNC ")) {
		t.Fatalf("got %q, want FULLRESYNC", got)
	}
	rest := bufio.NewReader(replica.Rest())
	line, err := rest.ReadString('\n')
	for line == "\n" { // Redis sends these while it writes the file
		line, err = rest.ReadString('\n')
	}
	var size int64
	if _, serr := fmt.Sscanf(line, "$%d\r\n", &size); err != nil || serr != nil {
		t.Fatalf("got %q, %v, %v, want the length of a file", line, err, serr)
	}
	file := make([]byte, size)
	if _, err := io.ReadFull(rest, file); err != nil || !bytes.HasPrefix(file, []byte("REDIS")) || !bytes.Contains(file, []byte("before")) {
		t.Fatalf("got a file that begins with %.9q, %v", file, err)
	}

	other.want(other.call("SET", "after", value), `+"OK"`)
	seen := map[string]string{}
	p := NewParser(rest)
	for seen["SET"] == "" || seen["PING"] == "" {
		c, err := p.ReadCommand()
		if err != nil {
			t.Fatalf("got %v behind the file, after %d kinds of commands", err, len(seen))
		}
		seen[string(c.Name())] = string(bytes.Join(c.Args(), []byte(" ")))
	}
	if want := "SET after " + value; seen["SET"] != want || seen["PING"] != "ping" {
		t.Errorf("got %.50q and %q from the master", seen["SET"], seen["PING"])
	}
}
