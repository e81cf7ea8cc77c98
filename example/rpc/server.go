package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/secmask/go-redisproto"
)

// ServerOptions are what an operator may want to change. A zero field has the default.
type ServerOptions struct {
	Codec        Codec             // of typed handlers; default JSON
	Limits       redisproto.Limits // what one call may have; default the library's
	Password     string            // that clients must give with AUTH or HELLO; default none
	MaxConns     int               // connections at a time, more are refused; default 10,000
	MaxSlow      int               // slow calls at a time on each connection; default 64
	IdleTimeout  time.Duration     // a connection without a call for about so long is closed; default never
	WriteTimeout time.Duration     // for a client to take 64 KiB of replies; default 20 s
	DrainTimeout time.Duration     // for running calls to end by themselves at shutdown; default 5 s
	Log          *slog.Logger      // default slog.Default()
}

const keptReplies = 64 << 10 // bytes of memory that a connection keeps for its replies

// A Server serves methods to any client of Redis. Handle and HandleRaw add the methods.
type Server struct {
	opts    ServerOptions
	methods map[string]*method // by their names in capitals
	names   []string           // their names in capitals, in the order in which they were registered
	ctx     context.Context    // ends when running calls have to
	cancel  context.CancelFunc

	mu       sync.Mutex
	conns    map[*serverConn]struct{}
	lastID   int64
	draining bool
}

// NewServer returns a server without methods.
func NewServer(opts ServerOptions) *Server {
	if opts.Codec == nil {
		opts.Codec = JSON{}
	}
	opts.MaxConns = cmp.Or(opts.MaxConns, 10_000)
	opts.MaxSlow = cmp.Or(opts.MaxSlow, 64)
	opts.WriteTimeout = cmp.Or(opts.WriteTimeout, 20*time.Second)
	opts.DrainTimeout = cmp.Or(opts.DrainTimeout, 5*time.Second)
	opts.Log = cmp.Or(opts.Log, slog.Default())
	s := &Server{opts: opts, methods: map[string]*method{}, conns: map[*serverConn]struct{}{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// register adds a method.
func (s *Server) register(m *method, options []MethodOption) {
	for _, option := range options {
		option(m)
	}
	key := upper(m.name)
	switch {
	case key == "" || strings.ContainsAny(key, " \r\n\x00"):
		panic(fmt.Sprintf("rpc: %q cannot be the name of a method", m.name))
	case s.methods[key] != nil || builtins[key] != nil:
		panic(fmt.Sprintf("rpc: the method %q is there already", m.name))
	}
	s.methods[key] = m
	s.names = append(s.names, key)
}

// Serve accepts connections from l until ctx ends. Then it drains: the calls that have been read are
// executed and answered, and the connections are closed. The contexts of calls that still run after
// DrainTimeout end, and a second later Serve returns without them, with an error.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if s.opts.IdleTimeout > 0 {
		go s.sweep(ctx)
	}
	var conns sync.WaitGroup
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return s.drain(&conns)
		case err != nil: // too many open files, for example: some will be closed
			s.opts.Log.Error("accept", "err", err)
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if c := s.admit(conn); c != nil {
			conns.Add(1)
			go func() {
				defer conns.Done()
				c.serve()
			}()
		}
	}
}

// sweep closes idle connections until ctx ends.
func (s *Server) sweep(ctx context.Context) {
	for tick := time.Tick(max(1, s.opts.IdleTimeout/4)); ctx.Err() == nil; <-tick {
		s.mu.Lock()
		for c := range s.conns {
			since := c.in.waiting.Load()
			if since > 0 && time.Now().UnixNano()-since > int64(s.opts.IdleTimeout) && !c.out.running() {
				closeNow(c.conn)
			}
		}
		s.mu.Unlock()
	}
}

// drain ends the reading of all connections, and waits for their last replies.
func (s *Server) drain(conns *sync.WaitGroup) error {
	s.mu.Lock()
	s.draining = true
	s.opts.Log.Info("draining", "connections", len(s.conns))
	for c := range s.conns {
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		conns.Wait()
		close(done)
	}()
	defer s.cancel()
	for _, stage := range []struct {
		patience time.Duration
		end      func()
	}{{s.opts.DrainTimeout, s.cancel}, {time.Second, s.cut}} {
		select {
		case <-done:
			return nil
		case <-time.After(stage.patience):
			stage.end()
		}
	}
	return errors.New("rpc: connections were cut off at shutdown: their calls did not end, or nobody took their replies")
}

// cut closes all connections.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		closeNow(c.conn)
	}
}

// admit returns the state of a new connection, or refuses it and returns nil.
func (s *Server) admit(conn net.Conn) *serverConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.opts.Log.With("client", conn.RemoteAddr().String())
	if len(s.conns) >= s.opts.MaxConns {
		log.Warn("the connection is refused: there are too many")
		if _, ok := conn.(*tls.Conn); !ok { // with TLS, saying why would take a handshake first
			conn.SetWriteDeadline(time.Now().Add(time.Second))
			io.WriteString(conn, "-ERR max number of clients reached\r\n")
		}
		closeNow(conn)
		return nil
	}
	s.lastID++
	c := &serverConn{srv: s, log: log, id: s.lastID, conn: conn, replies: newBatch(2, keptReplies), out: newOutput(conn, s.opts.WriteTimeout)}
	c.base, c.cancel = context.WithCancel(s.ctx)
	c.in = &input{conn: conn, gone: c.cancel, closed: c.base.Done()}
	c.ctx = watchedContext{c.base, c.in}
	c.parser = redisproto.NewParser(c.in)
	c.setAuthenticated(s.opts.Password == "")
	s.conns[c] = struct{}{}
	return c
}

// A serverConn is one connection of a server. The goroutine that runs serve owns it.
type serverConn struct {
	srv           *Server
	log           *slog.Logger
	id            int64
	conn          net.Conn
	in            *input
	parser        *redisproto.Parser // reads from in
	replies       *batch             // of the calls executed since the last flush
	out           *output
	base          context.Context // ends with the connection
	cancel        context.CancelFunc
	ctx           context.Context // base as handlers see it
	authenticated bool
}

// errQuit ends a connection whose client asked for it.
var errQuit = errors.New("the client quit")

// setAuthenticated says whether the client may call methods, and has the parser keep to the limits
// that go with it.
func (c *serverConn) setAuthenticated(yes bool) {
	c.authenticated = yes
	limits := c.srv.opts.Limits
	limits.Unauthenticated, limits.Stream = !yes, 0 // calls are taken whole
	c.parser.SetLimits(limits)
}

// serve answers the calls of the connection until it ends.
func (c *serverConn) serve() {
	c.log.Debug("connected")
	err := c.loop()
	c.srv.mu.Lock()
	draining := c.srv.draining
	c.srv.mu.Unlock()
	if !draining {
		c.cancel()
	}
	c.out.wait()
	c.cancel()
	if err != io.EOF {
		linger(c.conn)
	}
	closeNow(c.conn)
	c.srv.mu.Lock()
	delete(c.srv.conns, c)
	c.srv.mu.Unlock()
	c.log.Debug("closed", "reason", err)
}

// loop reads calls and executes them, one pipeline after the other.
func (c *serverConn) loop() error {
	for {
		cmd, err := c.parser.ReadCommand()
		if err == nil {
			err = c.execute(cmd)
		} else if _, ok := err.(*redisproto.ProtocolError); ok {
			c.replies.w.WriteError(err.Error())
		}
		if err != nil || cmd.IsLast() || c.replies.size() > keptReplies/2 {
			err = cmp.Or(err, c.flush())
		}
		if err != nil {
			return err
		}
	}
}

// flush sends the replies to the calls executed so far.
func (c *serverConn) flush() error {
	b := c.replies.bytes()
	defer c.replies.reset(b)
	return c.out.send(b)
}

// execute executes one call. Its error ends the connection.
func (c *serverConn) execute(cmd *redisproto.Command) error {
	name := cmd.Name()
	m := c.srv.methods[string(name)] // does not allocate: the compiler sees that the string is not kept
	if m == nil || !c.authenticated {
		return c.executeBuiltin(name, cmd)
	}
	args, timeout, err := m.split(cmd.Args()[1:])
	if err != nil {
		return c.replies.w.WriteError("ERR " + m.name + ": " + err.Error())
	}
	ctx, cancel := c.ctx, func() {}
	if timeout > 0 {
		var timed context.Context
		timed, cancel = context.WithTimeout(c.base, timeout)
		ctx = watchedContext{timed, c.in}
	}
	if !m.slow {
		defer cancel()
		m.invoke(ctx, args, c.replies, c.log)
		return nil
	}
	kept, n := cmd.Clone(), len(args) // the views of cmd end when the next call is read
	reply := newBatch(c.replies.w.Protocol(), 0)
	return cmp.Or(c.flush(), c.out.start(c.srv.opts.MaxSlow, reply, func() {
		defer cancel()
		m.invoke(ctx, kept.Args()[1:1+n], reply, c.log)
	}))
}

// linger ends the sending half of a connection, and reads until the client has closed it too, or for
// a second. To close at once could lose replies: the system drops what the client has not received yet
// when a connection is closed that has bytes to be read.
func linger(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		conn.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, conn)
	}
}

// closeNow closes a connection without waiting for the peer, as closing a tls.Conn might.
func closeNow(conn net.Conn) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	conn.Close()
}

// upper returns name with the ASCII letters a to z in capitals.
func upper(name string) string {
	b := []byte(name)
	for i, ch := range b {
		if 'a' <= ch && ch <= 'z' {
			b[i] -= 'a' - 'A'
		}
	}
	return string(b)
}
