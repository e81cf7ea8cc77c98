package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// An input is what a connection's parser reads from.
//
// Only a read tells that a client is gone, and while a handler runs nobody reads. From the first
// handler on that looks at its context, a goroutine reads ahead for the parser, a bounded number of
// bytes, and so sees the end of the connection. Handlers that do not look do not pay for it.
type input struct {
	conn    net.Conn
	gone    func()          // is called when the reading goroutine sees the end of the connection
	closed  <-chan struct{} // is closed when nobody reads from the input any more
	waiting atomic.Int64    // since when the parser waits for input, in Unix nanoseconds; 0 when it does not

	mu      sync.Mutex
	watched bool        // a handler has looked at its context
	reading bool        // the parser's own goroutine is in conn.Read
	chunks  chan []byte // what the reading goroutine has read; nil before there is one
	chunk   []byte      // the rest of the chunk that the parser is at
	err     error       // why chunks was closed
}

// watch makes sure that the end of the connection is noticed from now on.
func (in *input) watch() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.watched = true
	in.readAhead()
}

// readAhead starts the reading goroutine if it is called for. The caller holds mu.
func (in *input) readAhead() {
	if !in.watched || in.reading || in.chunks != nil {
		return
	}
	in.chunks = make(chan []byte, 4)
	go func() {
		defer close(in.chunks)
		for in.err == nil {
			b := make([]byte, 16<<10)
			var n int
			if n, in.err = in.conn.Read(b); n > 0 {
				select {
				case in.chunks <- b[:n]:
				case <-in.closed:
				}
			}
		}
		if !errors.Is(in.err, os.ErrDeadlineExceeded) { // which ends the reading when the server drains
			in.gone()
		}
	}()
}

// Read is the parser's.
func (in *input) Read(b []byte) (n int, err error) {
	in.waiting.Store(time.Now().UnixNano())
	defer in.waiting.Store(0)
	in.mu.Lock()
	in.readAhead()
	in.reading = in.chunks == nil
	in.mu.Unlock()
	if in.reading {
		n, err = in.conn.Read(b)
		in.mu.Lock()
		in.reading = false
		in.readAhead()
		in.mu.Unlock()
		return n, err
	}
	for ok := true; len(in.chunk) == 0; {
		if in.chunk, ok = <-in.chunks; !ok {
			return 0, in.err
		}
	}
	n = copy(b, in.chunk)
	in.chunk = in.chunk[n:]
	return n, nil
}

// A watchedContext ends with its connection, which is watched as soon as somebody looks at the context.
type watchedContext struct {
	context.Context
	in *input
}

func (c watchedContext) Done() <-chan struct{} {
	c.in.watch()
	return c.Context.Done()
}

func (c watchedContext) Err() error {
	c.in.watch()
	return c.Context.Err()
}
