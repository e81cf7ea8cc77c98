package main

import (
	"bytes"
	"fmt"
	"math"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

// A link is one connection to one node. It sends calls in the order in which they are given to it, and
// hands each reply to the call that it belongs to. It is shared by all sessions, or one session's own.
//
// A shared link has a goroutine that writes. Whatever sessions add while the last write goes on is
// written together. What goes out on a link of its own a session writes itself. Either link has a
// goroutine that reads.
type link struct {
	proxy  *proxy
	node   *node
	shared bool
	owner  atomic.Pointer[session] // whose own it is; nil while it is shared, or in a pool
	conn   net.Conn                // nil until it is connected
	id     string                  // what the upstream calls this connection, if it has said so
	resp3  bool                    // what the connection spoke when it was opened
	setup  string                  // what was said on it then; a session takes it again only if it would say the same

	needsPassword bool // the upstream answered PING with NOAUTH when this link was opened

	mu      sync.Mutex
	filled  sync.Cond // there is something in out, or err is set
	out     []byte    // the commands of unsent
	unsent  []*call
	sent    []*call // written, or being written, and not taken by the reader yet
	err     error   // why it is lost; nil while it is not
	idle    bool    // the writer waits for filled
	closing bool    // nothing more is sent, and the other side has been told

	wmu   sync.Mutex // held while writing, so that bytes and calls have the same order
	spare []byte     // the other buffer; out and spare take turns

	uploading atomic.Pointer[call] // the call of which the client is still sending the command; nil if there is none

	matcher
	dirty []*session // those whose replies the reader has collected since its last read
	done  chan struct{}

	// For the sweeper.
	reads   atomic.Int64 // reads that have returned
	taking  atomic.Int32 // calls that the reader has taken and whose replies are due
	waiting atomic.Bool  // the reader waits for the upstream, and not for a client
	seen    int64        // reads when the sweeper looked
	since   time.Time    // when the sweeper saw them change last
}

func newLink(n *node, p *proxy, shared bool) *link {
	l := &link{proxy: p, node: n, shared: shared, done: make(chan struct{})}
	l.filled.L = &l.mu
	l.matcher.link = l
	return l
}

// maxSpare is how many bytes a buffer of a shared link may have to be kept. There are few such links.
const maxSpare = 1 << 20

// send adds calls to what is sent with the next flush. It reports false if the link is lost.
func (l *link) send(calls []*call, raw []byte) (ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return false
	}
	l.out = append(l.out, raw...)
	l.unsent = append(l.unsent, calls...)
	return true
}

// sendCall is send for one call that may be sent again.
func (l *link) sendCall(c *call) (ok bool) {
	if !c.asking {
		return l.send([]*call{c}, c.raw)
	}
	return l.send([]*call{dropped, c}, append(appendCommand(nil, "ASKING"), c.raw...))
}

// flush sends what was added, or has the writer of a shared link do so. If much has gathered there, it
// does not leave that to the writer: more at a time would take longer, since the processor's caches
// would not hold it.
func (l *link) flush() error {
	if !l.shared {
		return l.write()
	}
	if l.wake() >= 4*chunk {
		l.write() // the reader sees to an error
	}
	return nil
}

// wake has the writer of a shared link send what was added. It does not wait for that, and returns how
// many bytes there are.
func (l *link) wake() (gathered int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return 0 // connect begins with what is there
	}
	if l.idle && len(l.out) > 0 {
		l.idle = false
		l.filled.Signal()
	}
	return len(l.out)
}

// write writes what was added.
func (l *link) write() error {
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.mu.Lock()
	if l.err != nil || len(l.out) == 0 {
		defer l.mu.Unlock()
		return l.err
	}
	b := l.out
	l.out = l.spare[:0]
	l.sent = append(l.sent, l.unsent...)
	l.unsent = l.unsent[:0]
	l.mu.Unlock()
	n, err := l.conn.Write(b)
	l.proxy.bytesUp.Add(int64(n))
	if cap(b) > 4*chunk && !l.shared || cap(b) > maxSpare {
		b = nil
	}
	l.spare = b
	if err != nil {
		l.conn.Close() // the reader sees to the rest
	}
	return err
}

// yields is how often the writer of a shared link lets others run before it writes, so that sessions which
// have something for the link add it. Some are about to come back from a system call, which takes a few
// microseconds. Measured with 50 clients that send one command at a time, 20 saves a tenth of the time
// beside 1, of the upstream too, and 100 costs time where clients pipeline.
const yields = 20

// writeLoop is the goroutine of a shared link that writes.
func (l *link) writeLoop() {
	for {
		l.mu.Lock()
		for len(l.out) == 0 && l.err == nil {
			l.idle = true
			l.filled.Wait()
		}
		l.idle = false
		lost := l.err != nil
		l.mu.Unlock()
		if lost {
			return
		}
		for range yields {
			runtime.Gosched()
		}
		if l.write() != nil {
			return
		}
	}
}

// linkInput is what the reader's parser reads from. It reads when it holds no further whole reply:
// the time to write to the clients what was collected.
type linkInput struct{ l *link }

func (in linkInput) Read(b []byte) (int, error) {
	l := in.l
	if err := l.settle(); err != nil {
		return 0, err
	}
	l.taking.Store(int32(due(l.taken[l.next:])))
	l.waiting.Store(true)
	n, err := l.conn.Read(b)
	l.waiting.Store(false)
	l.reads.Add(1)
	l.proxy.bytesDown.Add(int64(n))
	if l.proxy.timed {
		l.now = time.Since(l.proxy.start)
	}
	return n, err
}

// settle writes the replies that were collected to their clients. An error says that the client to
// whom the link belongs is gone.
func (l *link) settle() error {
	l.unlockSession()
	var err error
	for i, s := range l.dirty {
		l.dirty[i] = nil
		if s.flush(l) != nil && !l.shared {
			err = errOver // which is no fault of the upstream
		}
	}
	l.dirty = l.dirty[:0]
	l.slowest.report(l.proxy.log)
	l.before = l.now
	return err
}

// readLoop is the goroutine that reads.
func (l *link) readLoop() {
	defer close(l.done)
	parser := redisproto.NewReplyParser(linkInput{l})
	// What the upstream may send is its own affair.
	parser.SetLimits(redisproto.Limits{Bulk: math.MaxInt, Total: math.MaxInt, Depth: 1 << 20, Stream: maxWhole})
	for {
		r, err := parser.ReadReply()
		if err == nil {
			err = l.take(r)
		}
		if err != nil {
			l.lose(err)
			return
		}
	}
}

// close ends the link because of err.
func (l *link) close(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.idle = false
	l.filled.Signal()
	conn := l.conn
	l.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
}

// finish tells the upstream that nothing more comes on a link of a session's own, and waits for the
// last replies. The upstream closes then, also on a command that blocks, as on the client itself.
func (l *link) finish() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	if l.write() == nil {
		closeWrite(l.conn)
		defer time.AfterFunc(replyGrace, func() { l.close(errOver) }).Stop()
		<-l.done
	}
}

// lose ends a link that is lost. What was written may have been executed, so that it is answered with
// an error; what was not is routed again.
func (l *link) lose(err error) {
	l.close(err)
	l.settle() // the replies that came with the error are sent
	s := l.owner.Load()
	if s != nil && l.uploading.Load() != nil {
		s.cutOff()
	}
	l.wmu.Lock() // no write goes on any more
	l.mu.Lock()
	written := append(l.taken[l.next:], l.sent...)
	unsent := l.unsent
	l.sent, l.unsent, l.taken, l.next = nil, nil, nil, 0
	err, closing := l.err, l.closing
	l.mu.Unlock()
	if n := len(written); n > 0 && written[n-1].endsMatching {
		written = written[:n-1]
	}
	l.wmu.Unlock()
	l.node.links.forget(l)
	// No error is sent if the session ended the link itself, or if the upstream has said that it closes.
	quiet := s != nil && (l.leaving || closing || err == errOver || len(written) > 0 && written[0].cmd.kind == quit)
	if closing { // the session has waited for these replies in vain, as for that of a BLPOP
		l.failAll(written, err)
	}
	if !quiet {
		if l.proxy.cluster != nil {
			l.proxy.cluster.refresh("")
		}
		l.failAll(written, err)
		if err != errOver && (l.shared || len(written) > 0) {
			l.proxy.failures.Add(1)
			l.proxy.log.Warn("upstream lost", "upstream", l.node.addr, "shared", l.shared, "unanswered", len(written), "err", err)
		}
	}
	for _, c := range unsent {
		l.proxy.again(c)
	}
	if s != nil && !closing { // a session that closes the link waits for its end, and goes on by itself
		s.log.Debug("upstream closed the connection", "err", err)
		s.abort()
	}
}

// failAll answers calls that may have been executed.
func (l *link) failAll(calls []*call, err error) {
	text := "-ERR upstream closed the connection; the command may have been executed\r\n"
	switch err {
	case errSlow:
		text = "-ERR upstream did not answer in time; the command may have been executed\r\n"
	case errStopped:
		text = "-ERR upstream did not answer before the proxy stopped; the command may have been executed\r\n"
	case errUnblocked:
		text = "-UNBLOCKED the proxy is stopping\r\n"
	}
	for i, c := range calls {
		s := c.session // a call that is answered is used again
		switch {
		case i == 0 && l.left > 0: // some of its confirmations have come
			c.answer(nil)
		default:
			c.fail(text)
		}
		if s != nil {
			s.flush(nil)
		}
	}
}

// handshake sends commands on a new connection and returns their replies, without their framing.
func handshake(conn net.Conn, timeout time.Duration, commands ...[]string) ([]handshakeReply, error) {
	conn.SetDeadline(time.Now().Add(timeout))
	defer conn.SetDeadline(time.Time{})
	var b bytes.Buffer
	w := redisproto.NewWriter(&b)
	for _, command := range commands {
		w.WriteBulkStrings(command)
	}
	w.Flush()
	if _, err := conn.Write(b.Bytes()); err != nil {
		return nil, err
	}
	var replies []handshakeReply
	parser := redisproto.NewReplyParser(conn)
	for range commands {
		r, err := parser.ReadReply()
		if err != nil {
			return nil, err
		}
		replies = append(replies, handshakeReply{string(r.Bytes()), r.Err()})
	}
	if parser.Buffered() > 0 {
		return nil, fmt.Errorf("the upstream has said %d bytes that nobody asked for", parser.Buffered())
	}
	return replies, nil
}

type handshakeReply struct {
	text string
	err  error
}
