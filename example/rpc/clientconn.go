package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

// A call is one that waits for its reply. Its caller and the goroutine that reads replies share it:
// the first of the two to change state from pending decides what becomes of it.
//
//	pending ── answered    the reader has set reply and err, and sends on done; the caller puts it back
//	   └────── abandoned   the caller's context has ended; the reader drops the reply and puts it back
type call struct {
	state atomic.Int32
	next  *call // in the connection's queue
	start int64 // where the call begins in the stream of all that is sent on the connection
	reply []byte
	err   error
	done  chan struct{} // has room for one
}

const (
	pending = iota
	answered
	abandoned
)

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func getCall(dst []byte) *call {
	k := calls.Get().(*call)
	k.state.Store(pending)
	k.reply, k.err, k.next = dst, nil, nil
	return k
}

// wait waits for the reply, or the end of ctx.
func (k *call) wait(ctx context.Context) ([]byte, error) {
	if ended := ctx.Done(); ended == nil {
		<-k.done
	} else {
		select {
		case <-k.done:
		case <-ended:
			if k.state.CompareAndSwap(pending, abandoned) {
				return nil, fmt.Errorf("%w: %w", ErrMaybeExecuted, ctx.Err())
			}
			<-k.done
		}
	}
	reply, err := k.reply, k.err
	k.reply = nil
	calls.Put(k)
	return reply, err
}

// finish hands the outcome to the caller, or drops it if the caller has gone.
func (k *call) finish(r redisproto.Reply, err error) {
	if !k.state.CompareAndSwap(pending, answered) {
		k.reply = nil
		calls.Put(k)
		return
	}
	if k.err = err; err == nil {
		if k.err = r.Err(); k.err == nil {
			switch r.Kind() {
			case redisproto.Array, redisproto.Map, redisproto.Set, redisproto.Push:
				k.err = fmt.Errorf("the reply is of kind %v, which has no text", r.Kind())
			default:
				k.reply = append(k.reply, r.Bytes()...)
			}
		}
	}
	k.done <- struct{}{}
}

// soonWritten is how many bytes the system takes without a wait when it has none that wait for the peer.
const soonWritten = 16 << 10

// A clientConn is one connection of a Client, from the time it was made until it fails. Callers put
// their calls into out, one goroutine writes what has come together there, and another reads the
// replies. A caller that finds no other call in flight writes itself, which saves a switch between
// goroutines: the server has taken all that was sent before, so writing a little does not wait for it.
type clientConn struct {
	slot     *atomic.Pointer[clientConn] // where the client finds it
	conn     net.Conn
	parser   *redisproto.ReplyParser
	flight   <-chan struct{} // the client's: an element is taken for each call that ends
	calls    atomic.Int64    // in flight
	answered bool            // a call has been; belongs to run

	mu      sync.Mutex
	out     *batch
	written int64 // bytes of the stream that the system may have got; out has what comes after them
	first   *call // the queue of calls without a reply, as they are in the stream
	last    *call
	writing bool      // somebody is writing, and will look at out again
	ended   sync.Cond // writing has become false
	failed  bool
	spare   []byte   // memory for out
	digits  [20]byte // a number for the stream, here so that it is not allocated

	wake chan struct{} // has room for one
}

func newClientConn(slot *atomic.Pointer[clientConn], conn net.Conn, limits redisproto.Limits, flight <-chan struct{}) *clientConn {
	cn := &clientConn{slot: slot, conn: conn, flight: flight, out: newBatch(2, 1<<20), wake: make(chan struct{}, 1)}
	cn.ended.L = &cn.mu
	cn.parser = redisproto.NewReplyParser(conn)
	limits.Stream = 0 // replies are taken whole
	cn.parser.SetLimits(limits)
	return cn
}

// greet sends the first command, which shows that there is a server, and wants a good answer.
func (cn *clientConn) greet(password string) error {
	if password != "" {
		cn.out.w.WriteCommand("AUTH", password)
	} else {
		cn.out.w.WriteCommand("PING")
	}
	_, err := cn.conn.Write(cn.out.bytes())
	cn.out.reset(nil)
	if err != nil {
		return err
	}
	reply, err := cn.parser.ReadReply()
	if err != nil {
		return err
	}
	return reply.Err()
}

// send puts a call into the stream. It reports false if the connection has failed.
func (cn *clientConn) send(k *call, method string, args [][]byte, timeout time.Duration) bool {
	cn.mu.Lock()
	if cn.failed {
		cn.mu.Unlock()
		return false
	}
	k.start = cn.written + int64(cn.out.size())
	cn.encode(method, args, timeout)
	alone := cn.last == nil
	if alone {
		cn.first = k
	} else {
		cn.last.next = k
	}
	cn.last = k
	cn.calls.Add(1)
	idle := !cn.writing
	cn.writing = true
	cn.mu.Unlock()
	if idle && (!alone || cn.flush(soonWritten)) {
		cn.wake <- struct{}{}
	}
	return true
}

// encode writes a call to out. The caller holds mu.
func (cn *clientConn) encode(method string, args [][]byte, timeout time.Duration) {
	w, n := cn.out.w, 1+len(args)
	if timeout > 0 {
		n += 2
	}
	w.WriteArrayHeader(n)
	w.WriteBulkString(method)
	for _, arg := range args {
		if arg == nil { // which WriteBulk would make a null, and a call has none
			arg = empty
		}
		w.WriteBulk(arg)
	}
	if timeout > 0 {
		w.WriteBulkString("TIMEOUT")
		w.WriteBulk(strconv.AppendInt(cn.digits[:0], int64((timeout-1)/time.Millisecond+1), 10))
	}
}

var empty = []byte{}

// flush writes the calls that have come together, unless they have more than most bytes. The caller
// has set writing. It reports whether there are calls left to be written; if not, writing is false again.
func (cn *clientConn) flush(most int) (more bool) {
	runtime.Gosched() // callers that are ready to run add their calls to what is written
	cn.mu.Lock()
	defer cn.mu.Unlock()
	b := cn.out.bytes()
	if len(b) > most {
		return true
	}
	if len(b) > 0 && !cn.failed {
		cn.out.reset(cn.spare)
		cn.spare = b // once it has been written
		cn.written += int64(len(b))
		cn.mu.Unlock()
		n, err := cn.conn.Write(b)
		cn.mu.Lock()
		if err != nil {
			cn.written -= int64(len(b) - n)
			cn.failed = true
			closeNow(cn.conn) // so that reading ends too
		}
	}
	if cn.out.size() > 0 && !cn.failed {
		return true
	}
	cn.writing = false
	cn.ended.Signal()
	return false
}

// write is the writing goroutine. Calls that are made while a write is going on go out together with
// the next one.
func (cn *clientConn) write() {
	for range cn.wake {
		for cn.flush(math.MaxInt) {
		}
	}
}

// read reads replies and ends their calls until the connection fails.
func (cn *clientConn) read() error {
	for {
		reply, err := cn.parser.ReadReply()
		if err == io.EOF {
			return errors.New("the server closed the connection")
		}
		if err != nil {
			return err
		}
		k := cn.next()
		if k == nil {
			return fmt.Errorf("the server sent a reply to no call: %.64q", reply.Raw())
		}
		cn.answered = true
		<-cn.flight
		k.finish(reply, nil)
	}
}

// next takes the call that the next reply is for from the queue. It returns nil if no call without a
// reply has been written.
func (cn *clientConn) next() *call {
	cn.mu.Lock()
	defer cn.mu.Unlock()
	k := cn.first
	if k == nil || k.start >= cn.written {
		return nil
	}
	if cn.first = k.next; cn.first == nil {
		cn.last = nil
	}
	cn.calls.Add(-1)
	return k
}

// leave makes the client send no more calls here.
func (cn *clientConn) leave() { cn.slot.CompareAndSwap(cn, nil) }

// run writes calls and reads replies until the connection fails. Then it ends the calls that have no
// reply; those of which nothing was written can be made again.
func (cn *clientConn) run() {
	go cn.write()
	err := cn.read()
	cn.leave()
	closeNow(cn.conn)
	cn.mu.Lock()
	cn.failed = true // so that nobody uses the queue any more
	for cn.writing {
		cn.ended.Wait()
	}
	cn.mu.Unlock()
	close(cn.wake)
	maybe := fmt.Errorf("%w: %w", ErrMaybeExecuted, err)
	for k := cn.first; k != nil; {
		next := k.next // k belongs to somebody else when it has been finished
		<-cn.flight
		if k.start < cn.written {
			k.finish(redisproto.Reply{}, maybe)
		} else {
			k.finish(redisproto.Reply{}, errNotWritten)
		}
		k = next
	}
}
