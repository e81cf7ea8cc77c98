package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

// Options are what a user of a Client may want to change. A zero field has the default.
type Options struct {
	Codec       Codec             // of Call; default JSON
	Limits      redisproto.Limits // what one reply may have; the library's defaults
	Connections int               // a call that takes long holds up those behind it on its own only; default 1
	MaxInFlight int               // calls at a time that wait for their replies; default 4,096
	Password    string            // default none
	TLS         *tls.Config       // default no TLS
	DialTimeout time.Duration     // for connecting, to the answer to the first PING; default 5 s
	Backoff     time.Duration     // before the first attempt to reconnect, on average 3/4 of it; twice as long before each further one; default 20 ms
	MaxBackoff  time.Duration     // default 2 s
}

var (
	// ErrMaybeExecuted is wrapped by the error of a call that was given to the connection, and whose
	// reply did not come: the server may have executed it or not. Such a call is never sent again.
	ErrMaybeExecuted = errors.New("the call may have been executed")
	// ErrClosed is the error of calls after Close, and of those that Close found unsent.
	ErrClosed = errors.New("the client is closed")

	errNotWritten = errors.New("the connection failed before the call was written")
)

// A Client calls the methods of a server. Any number of goroutines may use it at once: their calls
// go out together, and the replies are sorted out.
type Client struct {
	addr   string
	opts   Options
	conns  []atomic.Pointer[clientConn] // nil while there is no connection
	flight chan struct{}                // holds an element for each call in flight
	done   chan struct{}                // closed by Close: no more calls
	end    context.Context              // ends when connections are not to be made any more
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	up      chan struct{} // closed, and replaced, when a connection comes up
	lastErr error         // of the last attempt to connect
}

// Dial connects to a server. The error is that of the first attempt; later ones are made for as long
// as the client lives.
func Dial(ctx context.Context, addr string, opts Options) (*Client, error) {
	if opts.Codec == nil {
		opts.Codec = JSON{}
	}
	opts.Connections = cmp.Or(opts.Connections, 1)
	opts.MaxInFlight = cmp.Or(opts.MaxInFlight, 4096)
	opts.DialTimeout = cmp.Or(opts.DialTimeout, 5*time.Second)
	opts.Backoff = cmp.Or(opts.Backoff, 20*time.Millisecond)
	opts.MaxBackoff = cmp.Or(opts.MaxBackoff, 2*time.Second)
	c := &Client{addr: addr, opts: opts, flight: make(chan struct{}, opts.MaxInFlight), done: make(chan struct{}),
		conns: make([]atomic.Pointer[clientConn], opts.Connections), up: make(chan struct{})}
	c.end, c.stop = context.WithCancel(context.Background())
	for i := range c.conns {
		cn, err := c.connect(ctx, &c.conns[i])
		if err != nil {
			c.shut()
			return nil, err
		}
		c.wg.Add(1)
		go c.maintain(cn)
	}
	return c, nil
}

// connect makes a connection, has the server answer on it once, and puts it into slot.
func (c *Client) connect(ctx context.Context, slot *atomic.Pointer[clientConn]) (*clientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.DialTimeout)
	defer cancel()
	var conn net.Conn
	var err error
	if c.opts.TLS != nil {
		conn, err = (&tls.Dialer{Config: c.opts.TLS}).DialContext(ctx, "tcp", c.addr)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", c.addr)
	}
	if err != nil {
		return nil, fmt.Errorf("rpc: %w", err)
	}
	cn := newClientConn(slot, conn, c.opts.Limits, c.flight)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = cn.greet(c.opts.Password)
	if !stop() {
		err = cmp.Or(ctx.Err(), err)
	}
	if err != nil {
		closeNow(conn)
		return nil, fmt.Errorf("rpc: %s: %w", c.addr, err)
	}
	slot.Store(cn)
	return cn, nil
}

// maintain runs a connection, and makes another one when it has failed.
func (c *Client) maintain(cn *clientConn) {
	defer c.wg.Done()
	for pause, slot := c.opts.Backoff, cn.slot; ; {
		cn.run()
		if cn.answered { // else the server may be one that fails at once each time
			pause = c.opts.Backoff
		}
		for cn = nil; cn == nil; pause = min(2*pause, c.opts.MaxBackoff) {
			select {
			case <-time.After(pause/2 + rand.N(pause/2+1)): // so that not all clients come back at once
			case <-c.end.Done():
				return
			}
			var err error
			cn, err = c.connect(c.end, slot)
			c.mu.Lock()
			if c.lastErr = err; err == nil {
				close(c.up)
				c.up = make(chan struct{})
			}
			c.mu.Unlock()
		}
		if c.end.Err() != nil { // shut may have looked at the slot before the connection was there
			closeNow(cn.conn)
		}
	}
}

// pick returns the connection with the fewest calls in flight, or nil if there is none at the moment.
func (c *Client) pick() (best *clientConn) {
	fewest := int64(-1)
	for i := range c.conns {
		cn := c.conns[i].Load()
		if cn == nil {
			continue
		}
		if n := cn.calls.Load(); best == nil || n < fewest {
			best, fewest = cn, n
		}
	}
	return best
}

// waitUp waits until there is a connection.
func (c *Client) waitUp(ctx context.Context) error {
	c.mu.Lock()
	up, last := c.up, c.lastErr
	c.mu.Unlock()
	if c.pick() != nil {
		return nil
	}
	select {
	case <-up:
		return nil
	case <-c.done:
		return ErrClosed
	case <-ctx.Done():
	}
	if last != nil {
		return fmt.Errorf("no connection: %w (%v)", ctx.Err(), last)
	}
	return fmt.Errorf("no connection: %w", ctx.Err())
}

// enter waits until there are fewer calls in flight than the most allowed.
func (c *Client) enter(ctx context.Context) error {
	select {
	case <-c.done:
		return ErrClosed
	default:
	}
	select {
	case c.flight <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.flight <- struct{}{}:
		return nil
	case <-c.done:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("too many calls in flight: %w", ctx.Err())
	}
}

// CallRaw calls a method with arguments as they are, and appends the text of its reply, which is a
// string or a number, to dst. A null appends nothing. An error reply is a *redisproto.ReplyError. If
// ctx has a deadline, the server gets to know it. CallRaw itself does not allocate.
//
// When ctx ends CallRaw returns at once. If its reply comes later it is dropped.
func (c *Client) CallRaw(ctx context.Context, dst []byte, method string, args ...[]byte) ([]byte, error) {
	for {
		b, err := c.try(ctx, dst, method, args)
		switch {
		case err == nil:
			return b, nil
		case err == errNotWritten:
			continue
		}
		if _, ok := err.(*redisproto.ReplyError); ok {
			return dst, err
		}
		return dst, fmt.Errorf("rpc: %s: %w", method, err)
	}
}

// try makes one attempt at a call. After errNotWritten another one may be made.
func (c *Client) try(ctx context.Context, dst []byte, method string, args [][]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	cn := c.pick()
	if cn == nil {
		<-c.flight
		return nil, cmp.Or(c.waitUp(ctx), errNotWritten)
	}
	timeout := time.Duration(0)
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(1, time.Until(deadline))
	}
	k := getCall(dst)
	if !cn.send(k, method, args, timeout) {
		cn.leave()
		<-c.flight
		calls.Put(k)
		return nil, errNotWritten
	}
	return k.wait(ctx)
}

// Call calls a typed method: in is encoded with the client's codec, and the reply decoded. If Out is a
// pointer, it is one to a new value.
func Call[Out any](ctx context.Context, c *Client, method string, in any) (out Out, err error) {
	payload, err := c.opts.Codec.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("rpc: %s: the payload does not encode: %w", method, err)
	}
	reply, err := c.CallRaw(ctx, nil, method, payload)
	if err != nil {
		return out, err
	}
	if out, err = decode[Out](c.opts.Codec, reply); err != nil {
		return out, fmt.Errorf("rpc: %s: the reply does not decode: %w", method, err)
	}
	return out, nil
}

// Close lets no new call in, waits for the calls in flight until ctx ends, and closes the connections.
// Calls that are then still in flight fail, as the error of Close says.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	select {
	case <-c.done:
		c.mu.Unlock()
		return ErrClosed
	default:
	}
	close(c.done)
	c.mu.Unlock()
	defer c.shut()
	for range cap(c.flight) { // when all places are taken by this loop, no call is in flight
		select {
		case c.flight <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("rpc: calls were in flight: %w", ctx.Err())
		}
	}
	return nil
}

// shut closes all connections and waits for their goroutines.
func (c *Client) shut() {
	c.stop()
	for i := range c.conns {
		if cn := c.conns[i].Load(); cn != nil {
			closeNow(cn.conn)
		}
	}
	c.wg.Wait()
}
