package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

const (
	bufferSize  = 16 << 10        // bytes; of each of a client's two writers
	dialTimeout = 3 * time.Second // for the upstream to take a connection
	goodbye     = time.Second     // for a client to read the last replies and close
)

// A proxy is what its connections have in common.
type proxy struct {
	commands
	addr  string      // of the upstream
	tls   *tls.Config // to speak to it; nil for none
	slow  time.Duration
	drain time.Duration
	timed bool // each call is timed, for slow or for the metrics
	log   *slog.Logger
	start time.Time // what times count from
	away  atomic.Bool

	clients, accepted, denied, failures expvar.Int
}

func newProxy(upstream string, log *slog.Logger) *proxy {
	p := &proxy{addr: upstream, log: log, start: time.Now()}
	p.commands.init()
	return p
}

// run takes clients until ctx ends, and then drains: what was received is still answered.
func (p *proxy) run(ctx context.Context, listener net.Listener) {
	context.AfterFunc(ctx, func() {
		p.log.Info("draining", "clients", p.clients.Value())
		listener.Close()
	})
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.log.Error("cannot accept", "err", err) // too many open files, say: some will be closed
			time.Sleep(50 * time.Millisecond)
			continue
		}
		conns.Add(1)
		go func() {
			defer conns.Done()
			defer conn.Close()
			p.accepted.Add(1)
			p.clients.Add(1)
			defer p.clients.Add(-1)
			log := p.log.With("client", conn.RemoteAddr().String())
			log.Debug("connected")
			p.serve(ctx, conn, log)
			log.Debug("disconnected")
		}()
	}
}

// serve is one client. The upstream is dialed when the first command is there, so that its error can
// be the answer to that.
func (p *proxy) serve(ctx context.Context, conn net.Conn, log *slog.Logger) {
	s := &session{proxy: p, client: conn, log: log}
	s.calls.changed.L = &s.calls.mu
	s.parser = redisproto.NewParser(fromClient{s})
	s.toUpstream = bufio.NewWriterSize(publisher{s}, bufferSize)
	s.toClient = bufio.NewWriterSize(conn, bufferSize)
	defer context.AfterFunc(ctx, func() {
		conn.SetReadDeadline(time.Unix(1, 0))
		conn.SetWriteDeadline(time.Now().Add(p.drain))
	})()

	c, err := s.parser.ReadCommand()
	if err != nil {
		if _, ok := err.(*redisproto.ProtocolError); ok {
			fmt.Fprintf(s.toClient, "-%s\r\n", err)
			s.hangUp()
		}
		return
	}
	if s.upstream, err = p.dial(); err != nil {
		s.refuse(c, err)
		return
	}
	defer s.upstream.Close()
	defer context.AfterFunc(ctx, func() { s.upstream.SetDeadline(time.Now().Add(p.drain)) })()
	replied := make(chan struct{})
	go func() {
		s.reply()
		s.calls.close()
		conn.SetReadDeadline(time.Unix(1, 0)) // nothing more will be answered
		s.upstream.Close()
		close(replied)
	}()
	s.forward(ctx, c)
	<-replied
	s.hangUp()
}

// dial connects to the upstream. It logs when that begins to fail, and when it works again.
func (p *proxy) dial() (conn net.Conn, err error) {
	d := &net.Dialer{Timeout: dialTimeout}
	if p.tls == nil {
		conn, err = d.Dial("tcp", p.addr)
	} else {
		conn, err = tls.DialWithDialer(d, "tcp", p.addr, p.tls)
	}
	if err != nil {
		p.failures.Add(1)
		if !p.away.Swap(true) {
			p.log.Error("upstream is away", "upstream", p.addr, "err", err)
		}
		return nil, err
	}
	if p.away.Load() && p.away.Swap(false) {
		p.log.Info("upstream is back", "upstream", p.addr)
	}
	return conn, nil
}

// refuse answers what the client has sent so far with an error, and closes. Going on would be wrong:
// the upstream could come back between a MULTI and the commands that belong to it.
func (s *session) refuse(c *redisproto.Command, cause error) {
	w := redisproto.NewWriter(s.toClient)
	text := fmt.Sprintf("ERR upstream %s is away: %v", s.addr, cause)
	for err := error(nil); err == nil && w.WriteError(text) == nil && !c.IsLast(); {
		c, err = s.parser.ReadCommand()
	}
	s.hangUp()
}

// hangUp ends the client's connection such that the replies reach it: if something unread were left
// when it is closed, the system would send a reset, which can overtake them.
func (s *session) hangUp() {
	s.client.SetDeadline(time.Now().Add(goodbye))
	if s.toClient.Flush() != nil || closeWrite(s.client) != nil {
		return
	}
	io.Copy(io.Discard, s.client)
}

// closeWrite tells the peer that nothing more comes.
func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// A session is one client and its connection to the upstream. One goroutine forwards commands, the
// other replies; neither waits for the other but when too much is in flight.
type session struct {
	*proxy
	client, upstream net.Conn
	log              *slog.Logger
	calls            queue                  // in flight, from the one goroutine to the other
	ended            atomic.Bool            // the client sends nothing more
	fault            atomic.Pointer[[]byte] // the error for what it sent last, if that was no command

	// The commands' side.
	parser     *redisproto.Parser  // reads fromClient
	toUpstream *bufio.Writer       // writes to publisher
	batch      []call              // in toUpstream, not published yet
	received   time.Duration       // since start: when the commands in parser were read
	invented   map[string]*command // names that the upstream is not known to know
	multi      bool                // there was a MULTI
	uncounted  bool                // no telling which replies belong to which commands

	replies
}

// maxInFlight bounds the commands of a client that are not answered yet. When so many are, the
// proxy reads no more of them.
const maxInFlight = 64 << 10

// A call is one command in flight.
type call struct {
	*command
	received time.Duration // since start, if calls are timed
	args     string        // for the slow log
	channels int           // of a SUBSCRIBE or the like, as given
	last     bool          // from here on, replies cannot be told apart
}

// forward sends commands upstream, beginning with c, until the client has no more or the replies
// have ended.
func (s *session) forward(ctx context.Context, c *redisproto.Command) {
	var err error
	for err == nil {
		if err = s.send(c); err == nil {
			c, err = s.parser.ReadCommand()
		}
	}
	var bad *redisproto.ProtocolError
	switch {
	case errors.As(err, &bad):
		// The upstream is sent what is an error to it as well: its answer shows the place.
		text := []byte("-" + bad.Error() + "\r\n")
		s.fault.Store(&text)
		s.push(call{command: garbage})
		s.toUpstream.WriteString("*x\r\n")
		if s.toUpstream.Flush() == nil {
			io.Copy(io.Discard, s.client) // until it hangs up, or the answer is there
		}
	case ctx.Err() != nil:
		if s.toUpstream.Flush() == nil && !s.uncounted {
			s.calls.drained()
		}
	}
	if s.toUpstream.Flush() == nil {
		closeWrite(s.upstream) // which hangs up, also on a command that blocks, as on the client itself
	}
}

var (
	garbage   = &command{kind: malformed}
	errAttack = errors.New("a browser was made to connect here")
)

// find returns the command of that name, in upper case.
func (s *session) find(name []byte) *command {
	if c := (*s.byName.Load())[string(name)]; c != nil {
		return c
	}
	c := s.invented[string(name)]
	if c == nil {
		if len(name) > maxName || len(s.invented) == maxNew {
			return s.other
		}
		if s.invented == nil {
			s.invented = map[string]*command{}
		}
		c = newCommand(string(name))
		s.invented[c.name] = c
	}
	return c
}

// send sends one command.
func (s *session) send(c *redisproto.Command) error {
	cmd, raw := s.find(c.Name()), c.Raw()
	k := call{command: cmd, received: s.received}
	if cmd.denied != nil {
		s.denied.Add(1)
		raw = cmd.denied
	} else if cmd.kind != ordinary {
		k.channels = c.ArgCount() - 1
		switch {
		case cmd.kind == attack:
			s.log.Warn("possible cross-protocol attack", "command", cmd.name)
			s.ended.Store(true)
			return errAttack
		case cmd.kind == multi:
			s.multi = true
		case s.uncountable(cmd.kind, c):
			k.last = true
		}
	}
	if s.slow > 0 && !cmd.blocking {
		k.args = describe(cmd, c)
	}
	s.push(k)
	_, err := s.toUpstream.Write(raw)
	return err
}

// uncountable reports whether it cannot be known how many replies c has, or which ones follow. It
// is no harm to say so once too often: replies pass all the same. But it must be said here, where
// there is no knowing whether the upstream will accept c.
func (s *session) uncountable(k kind, c *redisproto.Command) bool {
	switch k {
	case monitor:
		return true
	case client:
		return bytes.EqualFold(c.Get(1), []byte("REPLY")) && (s.multi || !bytes.EqualFold(c.Get(2), []byte("ON")))
	case subscribe, hello:
		return s.multi // it may take effect only with EXEC
	}
	return false
}

// push adds a call to those in flight.
func (s *session) push(k call) {
	if s.uncounted {
		s.add(k.command).calls.Add(1)
		return
	}
	s.uncounted = k.last
	s.batch = append(s.batch, k)
}

// describe gives a command as it is logged.
func describe(cmd *command, c *redisproto.Command) string {
	const most = 128 // bytes
	if cmd.secret {
		return cmd.name + " (redacted)"
	}
	b := make([]byte, 0, most)
	for i := range c.ArgCount() {
		arg := c.Get(i)
		b = append(append(b, arg[:min(len(arg), most)]...), ' ')
		if len(b) > most {
			return string(b[:most]) + "..."
		}
	}
	return strings.TrimSuffix(string(b), " ")
}

// fromClient reads for the parser, which does so when it holds no further whole command: the time to
// send what was collected.
type fromClient struct{ *session }

func (s fromClient) Read(b []byte) (n int, err error) {
	if err := s.toUpstream.Flush(); err != nil {
		return 0, err
	}
	n, err = s.client.Read(b)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.ended.Store(true)
	}
	if s.timed {
		s.received = time.Since(s.start)
	}
	return n, err
}

// publisher writes to the upstream, and lets the other goroutine know first which calls that are.
type publisher struct{ *session }

func (s publisher) Write(b []byte) (int, error) {
	if !s.calls.add(s.batch) {
		return 0, net.ErrClosed
	}
	s.batch = s.batch[:0]
	return s.upstream.Write(b)
}
