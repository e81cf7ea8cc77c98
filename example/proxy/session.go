package main

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

const (
	chunk      = 16 << 10        // bytes that are collected before they are written
	goodbye    = time.Second     // for a client to read the last replies and close
	replyGrace = 5 * time.Second // for the replies that are due to a client which sends nothing more
)

// A session is one client. Its goroutine reads commands and gives each to a link; the readers of the
// links bring the replies, which are written in the order of the commands.
type session struct {
	*proxy
	id     int64
	conn   net.Conn
	log    *slog.Logger
	active atomic.Int64 // nanoseconds since the proxy's start: when the client sent something last

	// The session's goroutine alone uses these.
	in        input
	endDrain  func() // ends what beginDrain began
	parser    *redisproto.Parser
	v         *vocabulary   // of the last command
	cmd       *command      // what is known of it
	received  time.Duration // since start: when the commands in parser were read
	batches   []*batch      // what is to be sent to the links
	fresh     queue         // the calls in batches
	spare     *call         // calls to be used again
	room      int           // how many more calls may be in flight
	roomBytes int           // of their commands
	silent    bool          // the client wants no reply to what it sends: CLIENT REPLY OFF
	skipping  bool          // nor to this command: CLIENT REPLY SKIP
	said      said
	txn       transaction
	scratch   []int
	writtenTo []*node   // those that were sent what may have changed something
	routes    *topology // by which the calls in flight were routed
	seen      int32     // owned when the last command was routed

	owned atomic.Int32 // how many links of its own the session has, for a look without its mutex
	large atomic.Int32 // for how many commands links of the session's own are used, see largeFor

	mu           sync.Mutex
	changed      sync.Cond     // a wait of await, or of flush, is over
	flying       queue         // the calls in flight
	moved        int           // calls among them that were redirected
	free         *call         // calls that are over
	blocked      int           // calls in flight that may wait for others
	blockedUntil time.Duration // since start: when they have waited for as long as they want to
	awaiting     bool          // await waits until no more than enough calls are in flight
	enough       int           // calls in flight at which it returns
	reading      bool          // await reads meanwhile
	out          *[]byte       // replies for the client, in order
	held         int           // bytes of replies that wait for their turn
	queued       int           // links that wait with a large reply for its turn
	dirty        bool          // a link is going to flush out
	writing      bool          // somebody writes to the client
	owns         []*link       // links of the session's own; see setOwns
	resent       []resending   // what resend is sending again on them
	over         bool          // the connection is not to be used any more
	inputEnd     error         // why nothing more is read: errOver or errDraining; nil while the client is read
}

// A transaction is the state of a session's MULTI or WATCH.
type transaction struct {
	begun     bool // there was a MULTI on the session's own link
	unmatched bool // the replies on the session's own link cannot be matched with commands any more

	// In a cluster, the first key says which node the transaction is on.
	pending bool     // there was a MULTI, and no key yet
	aborted bool     // a command was refused; EXEC is to fail
	leaves  bool     // a command in it leaves something behind on the link, once it is executed
	doomed  bool     // the node has refused one, so that EXEC will fail there; see transactOpen
	held    [][]byte // what was queued while it was pending
	bytes   int      // of that
	open    *link    // where the MULTI was sent
	watched *link    // where a key is watched
	slot    int      // of its keys, and of those watched
}

// What a client has said of its connection, in place of the shared one, which must not remember it.
type said struct {
	resp3    bool
	name     string
	lib, ver string
	user     bool       // it has authenticated, or need not
	setup    [][]string // commands that a link of its own is told when it is taken: CLIENT TRACKING and the like
	skip     bool       // CLIENT REPLY SKIP: the next command is not answered
}

func newSession(p *proxy, conn net.Conn) *session {
	s := &session{proxy: p, conn: newSocket(conn), id: p.lastID.Add(1)}
	s.log = p.log.With("client", conn.RemoteAddr().String())
	s.changed.L = &s.mu
	s.in.s = s
	s.parser = redisproto.NewParser(&s.in)
	s.measure()
	s.holdToLimits(false) // until greet knows better
	return s
}

// run serves the client until one of the two ends the connection.
func (s *session) run() {
	defer s.release()
	if err := s.greet(); err != nil {
		return
	}
	var err error
	for err == nil {
		var c *redisproto.Command
		if c, err = s.parser.ReadCommand(); err == nil {
			err = s.command(c)
		}
	}
	s.finish(err)
	s.hangUp()
}

// greet waits for the client's first bytes, so that a connection that says nothing costs the upstream
// nothing, and finds out whether the client must authenticate before it can do anything else.
func (s *session) greet() error {
	s.in.readAhead()
	if s.in.err != nil {
		return s.in.err
	}
	demanded := s.password != ""
	if !s.sharing {
		l, err := s.openOwn(s.single, s)
		if err != nil {
			s.refuseAll(err)
			return err
		}
		s.mu.Lock()
		s.setOwns([]*link{l})
		s.seen = 1
		s.mu.Unlock()
		demanded = l.needsPassword
	}
	s.said.user = !demanded
	s.holdToLimits(demanded)
	return nil
}

// holdToLimits holds the client to what Redis allows before AUTH, or to the usual limits.
func (s *session) holdToLimits(unauthenticated bool) {
	s.parser.SetLimits(redisproto.Limits{Unauthenticated: unauthenticated, Total: math.MaxInt, Stream: maxWhole})
}

// command takes one command of the client.
func (s *session) command(c *redisproto.Command) error {
	v := s.vocabulary.Load()
	if s.sharing && v.table == nil {
		var err error
		if v, err = s.knowCommands(); err != nil {
			s.local(v.other, awayText(err))
			return nil
		}
	}
	if name := c.Name(); v != s.v || s.cmd.name != string(name) { // most are the same as the one before
		s.v, s.cmd = v, v.find(name)
	}
	cmd := s.cmd
	if cmd.kind == attack {
		s.log.Warn("possible cross-protocol attack", "command", cmd.name)
		return errAttack
	}
	if s.isCrowded() {
		if err := s.await(s.maxFlying / 2); err != nil {
			return err
		}
	}
	refused := s.rules.refusal(cmd, c)
	if refused != "" {
		s.rules.refused.Add(1)
	}
	if !s.sharing {
		return s.pass(s.owns[0], cmd, c, refused)
	}
	return s.route(cmd, c, refused)
}

// refuseAll answers what the client has sent so far with an error, and closes. Going on would be wrong:
// the upstream could come back between a MULTI and the commands that belong to it.
func (s *session) refuseAll(cause error) {
	c, err := s.parser.ReadCommand()
	for ; err == nil; c, err = s.parser.ReadCommand() {
		s.local(s.vocabulary.Load().find(c.Name()), awayText(cause))
		if c.IsLast() { // as one that is not whole is
			break
		}
	}
	s.hangUp()
}

// local answers a command without any link, in its place in the order.
func (s *session) local(cmd *command, text string) {
	c := s.begin(cmd, 0)
	cmd.calls.Add(1)
	if text[0] == '-' {
		cmd.errors.Add(1)
	}
	if s.sendBatches() == nil {
		c.answer([]byte(text))
	}
}

// finish waits for the replies that are due after the client's last command, for as long as err, which
// ended its input, allows.
func (s *session) finish(err error) {
	var bad *redisproto.ProtocolError
	if errors.As(err, &bad) {
		s.malformed(bad)
		return
	}
	if s.await(0) != nil {
		return
	}
	if l := s.passing(); l != nil { // calls that cannot be counted may be in flight
		l.finish()
	}
}

// passing returns the link that all commands go to just as they come, or nil if there is no such link.
func (s *session) passing() *link {
	switch {
	case !s.sharing:
		return s.owns[0]
	case s.txn.unmatched:
		return s.ownWith(stateForever)
	}
	return nil
}

// malformed answers what is no command, behind the replies that are due. Where these cannot be counted, the
// upstream is sent such as well, and its error shows where that of the client belongs.
func (s *session) malformed(bad *redisproto.ProtocolError) {
	text := "-" + bad.Error() + "\r\n"
	if !s.txn.unmatched {
		s.local(malformedCommand, text)
		s.await(0)
		return
	}
	l := s.passing()
	l.fault.Store(&text)
	s.give(l, nil, []byte("*x\r\n"))
	if s.flushLinks() == nil {
		for s.in.err == nil { // until the client hangs up, or the answer is there
			s.in.ahead = nil
			s.in.readAhead()
		}
		l.finish()
	}
}

var malformedCommand = &command{stats: &stats{}, kind: malformed}

// beginDrain ends, while the proxy stops, what waits for others, and after some time everything, until
// endDrain is called. Its second call does nothing.
func (s *session) beginDrain() {
	if s.endDrain == nil {
		timer, stop := time.AfterFunc(s.drain, s.giveUp), s.unblock()
		s.endDrain = func() { timer.Stop(); stop() }
	}
}

// giveUp ends what a stopping proxy has waited for in vain.
func (s *session) giveUp() {
	s.closeOwns(errStopped)
	time.AfterFunc(goodbye, s.abort)
}

// closeOwns closes the session's own links because of err.
func (s *session) closeOwns(err error) {
	s.mu.Lock()
	owns := slices.Clone(s.owns)
	s.mu.Unlock()
	for _, l := range owns {
		l.close(err)
	}
}

// abort makes the session over: whoever reads from the client or writes to it stops.
func (s *session) abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// end is abort while s.mu is held.
func (s *session) end() {
	s.over = true
	s.endInput(errOver)
}

// cutOff has the session read nothing more, since the link to which it is sending a large command is lost.
func (s *session) cutOff() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endInput(errOver)
}

// stop has the session read nothing more and end when what was received is answered.
func (s *session) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inputEnd == nil {
		s.endInput(errDraining)
	}
}

// endInput sets the reason why the session reads nothing more, and ends what it waits for, so that it
// looks at that. s.mu is held.
func (s *session) endInput(reason error) {
	s.inputEnd = reason
	s.changed.Broadcast()
	s.conn.SetReadDeadline(past)
}

// hangUp ends the client's connection such that the replies reach it: if something unread were left
// when it is closed, the system would send a reset, which can overtake them.
func (s *session) hangUp() {
	s.conn.SetDeadline(time.Now().Add(goodbye))
	// The upstream may not go on with what is being passed to the client.
	defer time.AfterFunc(goodbye, func() { s.closeOwns(errOver) }).Stop()
	if s.flushAll() != nil || closeWrite(s.conn) != nil {
		return
	}
	io.Copy(io.Discard, s.conn)
}

// closeWrite tells the peer that nothing more comes.
func closeWrite(conn net.Conn) error {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// release gives up the links and the connection.
func (s *session) release() {
	s.mu.Lock()
	s.over = true
	owns := s.owns
	s.setOwns(nil)
	s.mu.Unlock()
	if s.endDrain != nil {
		s.endDrain()
	}
	if s.in.grace != nil {
		s.in.grace.Stop()
	}
	for _, l := range owns {
		l.close(errOver)
	}
	s.conn.Close()
}
