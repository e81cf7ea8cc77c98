package main

import (
	"net"
	"sync"
	"time"
)

const (
	writeChunk = 64 << 10 // bytes that a client has the write time-out to take
	mostBehind = 1 << 20  // bytes of replies that may wait behind slow calls before no more calls are read
)

// An output sends the replies of one connection in the order of its calls. While slow calls are
// running it keeps the replies to the calls behind them.
type output struct {
	conn    net.Conn
	timeout time.Duration // for the client to take writeChunk bytes

	mu     sync.Mutex
	fewer  sync.Cond   // the queue has become shorter
	queue  []*slowCall // those that run, and those whose replies wait for one that runs
	behind int         // bytes of all slowCall.behind
	err    error       // why nothing more can be sent
}

// A slowCall is a call whose handler runs on a goroutine of its own.
type slowCall struct {
	reply  *batch
	done   bool
	behind []byte // the replies that come after this one and before the next slow call's
}

func newOutput(conn net.Conn, timeout time.Duration) *output {
	o := &output{conn: conn, timeout: timeout}
	o.fewer.L = &o.mu
	return o
}

// send sends replies, or keeps a copy of them while slow calls are ahead of them.
func (o *output) send(b []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return o.write(b)
	}
	last := o.queue[len(o.queue)-1]
	last.behind = append(last.behind, b...)
	o.behind += len(b)
	for o.behind > mostBehind && o.err == nil {
		o.fewer.Wait()
	}
	return o.err
}

// start has run write a reply on a goroutine of its own, when the queue has fewer than most calls.
func (o *output) start(most int, reply *batch, run func()) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) >= most && o.err == nil {
		o.fewer.Wait()
	}
	if o.err != nil {
		return o.err
	}
	s := &slowCall{reply: reply}
	o.queue = append(o.queue, s)
	go func() {
		run()
		o.end(s)
	}()
	return nil
}

// end sends the reply to a slow call and what waited behind it, unless another one is still ahead.
func (o *output) end(s *slowCall) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.done = true
	for len(o.queue) > 0 && o.queue[0].done {
		first := o.queue[0]
		o.write(first.reply.bytes())
		o.write(first.behind)
		o.behind -= len(first.behind)
		o.queue = o.queue[1:]
		o.fewer.Broadcast()
	}
}

// running reports whether there are slow calls whose replies have not been sent.
func (o *output) running() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) > 0
}

// wait waits until there are none.
func (o *output) wait() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 {
		o.fewer.Wait()
	}
}

// write writes b to the connection. The caller holds mu. An error closes the connection, so that its
// reading ends too.
func (o *output) write(b []byte) error {
	for len(b) > 0 && o.err == nil {
		o.conn.SetWriteDeadline(time.Now().Add(o.timeout))
		var n int
		if n, o.err = o.conn.Write(b[:min(len(b), writeChunk)]); o.err != nil {
			closeNow(o.conn)
		}
		b = b[n:]
	}
	return o.err
}
