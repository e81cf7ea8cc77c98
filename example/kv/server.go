package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

const (
	replyBuffer = 16 << 10 // bytes of replies that are written to a connection together
	writeChunk  = 64 << 10 // bytes that a client has config.writeTimeout to take
)

type server struct {
	config
	log     *slog.Logger
	started time.Time

	// One lock for all data. It is held for the work of one command in memory and never for the
	// reading or writing of a connection, so no client can make another wait for the network.
	mu  sync.Mutex
	dbs [16]db

	pubsub pubsub

	clientsMu sync.Mutex
	clients   map[*client]struct{}
	lastID    int64
	refused   atomic.Int64 // connections over maxClients
	draining  atomic.Bool
}

func newServer(cfg config, log *slog.Logger) *server {
	s := &server{config: cfg, log: log, started: time.Now(), clients: map[*client]struct{}{}}
	for i := range s.dbs {
		s.dbs[i].clear()
	}
	s.pubsub.channels = map[string]map[*client]struct{}{}
	return s
}

// serve accepts connections until ctx ends, and then drains: what was read from clients by then is
// answered, and they are closed.
func (s *server) serve(ctx context.Context, l net.Listener) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	go s.sweep(ctx)
	var conns sync.WaitGroup
	for full := false; ; {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			break
		}
		if err != nil {
			s.log.Error("accept", "err", err) // too many open files, say: some will be closed
			time.Sleep(50 * time.Millisecond)
			continue
		}
		c := s.admit(conn)
		if c == nil {
			if !full { // a line for each time that it fills up, not for each client refused
				s.log.Warn("maxclients reached, refusing connections", "maxclients", s.maxClients)
			}
			full = true
			continue
		}
		full = false
		conns.Add(1)
		go func() {
			defer conns.Done()
			c.serve()
		}()
	}
	s.drain(&conns)
}

// drain ends all clients' waiting for requests, and waits for their last replies.
func (s *server) drain(conns *sync.WaitGroup) {
	s.clientsMu.Lock()
	s.draining.Store(true)
	for c := range s.clients {
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	s.log.Info("draining", "clients", len(s.clients))
	s.clientsMu.Unlock()

	defer time.AfterFunc(s.drainTimeout, func() {
		s.clientsMu.Lock()
		defer s.clientsMu.Unlock()
		for c := range s.clients {
			c.kill("it does not take its last replies")
		}
	}).Stop()
	conns.Wait()
	s.log.Info("stopped")
}

// admit makes a client of a connection, or refuses it and returns nil.
func (s *server) admit(conn net.Conn) *client {
	s.clientsMu.Lock()
	defer s.clientsMu.Unlock()
	if len(s.clients) >= s.maxClients {
		s.refused.Add(1)
		if _, ok := conn.(*tls.Conn); !ok { // with TLS it would take a handshake first; Redis just closes
			conn.SetWriteDeadline(time.Now().Add(time.Second)) // the socket's buffer is empty: it does not wait
			io.WriteString(conn, "-ERR max number of clients reached\r\n")
		}
		conn.Close()
		return nil
	}
	s.lastID++
	c := &client{srv: s, conn: conn, id: s.lastID, subs: map[string]struct{}{}}
	c.log = s.log.With("client", c.id, "addr", conn.RemoteAddr().String())
	c.parser = redisproto.NewParser(c)
	c.lock(s.password != "")
	c.w = redisproto.NewWriter(bufio.NewWriterSize((*output)(c), replyBuffer))
	s.clients[c] = struct{}{}
	return c
}

// A client is one connection. Its loop owns it, but for what is marked.
type client struct {
	srv    *server
	log    *slog.Logger
	conn   net.Conn
	parser *redisproto.Parser
	locked bool // a password is required, and the client has not given it yet

	id   int64
	name string
	db   int
	subs map[string]struct{} // channels

	// writing guards w. The loop holds it from the first command of a pipeline to the flush
	// after the last, so never while it waits for requests; in between, messages are delivered.
	writing sync.Mutex
	w       *redisproto.Writer
	armed   time.Time // when the write deadline was set
	mail    mail      // guarded by srv.pubsub.mu
}

var (
	errQuit = errors.New("quit")               // the replies written so far are sent
	errDrop = errors.New("not a Redis client") // they are not
)

// serve answers the commands of the client until it ends.
func (c *client) serve() {
	c.log.Debug("connected")
	err := c.loop()
	c.srv.pubsub.leaveAll(c)
	c.conn.Close()
	c.srv.clientsMu.Lock()
	delete(c.srv.clients, c)
	c.srv.clientsMu.Unlock()
	c.log.Debug("closed", "reason", err)
}

// loop reads and answers, one pipeline after the other. Only the first read of each may wait.
func (c *client) loop() error {
	for {
		cmd, err := c.parser.ReadCommand()
		c.writing.Lock()
		for err == nil {
			if err = c.execute(cmd); err != nil || cmd.IsLast() {
				break
			}
			cmd, err = c.parser.ReadCommand()
		}
		if pe, ok := err.(*redisproto.ProtocolError); ok {
			c.w.WriteError(pe.Error())
		}
		if err != errDrop {
			err = cmp.Or(err, c.w.Flush())
		}
		c.writing.Unlock()
		if err != nil {
			return err
		}
	}
}

// lock has the client give the password before anything else, and holds it to Redis's limits until then.
func (c *client) lock(locked bool) {
	c.locked = locked
	c.parser.SetLimits(redisproto.Limits{Unauthenticated: locked})
}

// Read is the parser's. It holds the client to the idle timeout, from one piece of input to the
// next; subscribers may be silent for as long as they like.
func (c *client) Read(b []byte) (int, error) {
	if c.srv.timeout > 0 {
		var deadline time.Time
		if len(c.subs) == 0 {
			deadline = time.Now().Add(c.srv.timeout)
		}
		c.conn.SetReadDeadline(deadline)
		if c.srv.draining.Load() { // set before drain's own deadline, which may now be undone
			return 0, os.ErrDeadlineExceeded
		}
	}
	return c.conn.Read(b)
}

// output is the client as its Writer sees it. A client that does not read makes its own loop wait,
// which then takes no more requests of it: it holds one buffer of replies, and what the one
// command refers to. If it takes nothing for the write timeout it is closed.
type output client

func (o *output) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		if now := time.Now(); now.Sub(o.armed) > o.srv.writeTimeout/8 { // to set it each time costs
			o.armed = now
			o.conn.SetWriteDeadline(now.Add(o.srv.writeTimeout))
		}
		var k int
		k, err = o.conn.Write(b[n:min(len(b), n+writeChunk)])
		n += k
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		(*client)(o).kill("it does not read its replies")
	}
	return n, err
}

// kill closes the connection from outside its loop, which then ends. It does not wait for the peer,
// as closing a tls.Conn might.
func (c *client) kill(why string) {
	c.log.Warn("closing client", "why", why)
	if t, ok := c.conn.(*tls.Conn); ok {
		t.NetConn().Close()
		return
	}
	c.conn.Close()
}
