package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/secmask/go-redisproto"
)

const (
	maxShared      = 16      // the most that -shared takes
	maxFlyingBytes = 1 << 20 // bytes of the commands that one client has in flight
)

// A proxy is what its sessions have in common.
type proxy struct {
	settings
	log        *slog.Logger
	start      time.Time // what times count from
	rules      *rules
	vocabulary atomic.Pointer[vocabulary]
	hello      atomic.Pointer[serverHello] // what the upstream says of itself
	single     *node                       // the upstream, if there is one
	cluster    *cluster                    // if there is a cluster
	scanner    *scanner                    // likewise
	pubsub     atomic.Pointer[node]        // see pubsubNode
	lastID     atomic.Int64

	mu       sync.Mutex
	sessions map[*session]bool
	stopping bool
	learning *learnAttempt // the one that goes on, or nil

	counters
}

// Settings are what the flags say.
type settings struct {
	sharing          bool // what a client says of its connection is not for the upstream's
	shared           int  // links of each node that are shared; 0 if each session has its own
	tls              *tls.Config
	upstreamUser     string
	upstreamPassword string
	password         string // what clients authenticate with; "" if they need not
	slow             time.Duration
	slowValues       bool
	timed            bool // each call is timed, for slow or for the metrics
	drain            time.Duration
	idle             time.Duration
	answerTimeout    time.Duration
	connectTimeout   time.Duration
	tlsTimeout       time.Duration
	maxClients       int
	maxFlying        int
	maxOutput        int
}

func newProxy(set settings, r *rules, log *slog.Logger) *proxy {
	p := &proxy{settings: set, rules: r, log: log, start: time.Now(), sessions: map[*session]bool{}}
	p.vocabulary.Store(newVocabulary(nil, r, nil))
	return p
}

// run takes clients until ctx ends, and then drains: what was received is still answered.
func (p *proxy) run(ctx context.Context, listener net.Listener) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if p.cluster != nil {
		go p.cluster.run(work)
	}
	go p.sweep(work)
	var conns sync.WaitGroup
	defer p.closeLinks(errOver)
	defer conns.Wait()
	defer context.AfterFunc(ctx, func() {
		p.log.Info("draining", "clients", p.clients.Load())
		listener.Close()
		p.stopSessions()
		time.AfterFunc(p.drain, func() { p.closeLinks(errStopped) })
	})()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
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
			p.serve(conn)
		}()
	}
}

// serve serves one client.
func (p *proxy) serve(conn net.Conn) {
	defer conn.Close()
	p.accepted.Add(1)
	if n := p.clients.Add(1); n > int64(p.maxClients) {
		p.clients.Add(-1)
		p.turnedAway.Add(1)
		conn.SetDeadline(time.Now().Add(goodbye))
		io.WriteString(conn, "-ERR max number of clients reached\r\n")
		return
	}
	defer p.clients.Add(-1)
	if t, ok := conn.(*tls.Conn); ok {
		t.SetDeadline(time.Now().Add(p.tlsTimeout))
		if err := t.Handshake(); err != nil {
			p.log.Debug("TLS handshake failed", "client", conn.RemoteAddr().String(), "err", err)
			return
		}
		t.SetDeadline(time.Time{})
	}
	s := newSession(p, conn)
	s.active.Store(int64(time.Since(p.start)))
	p.mu.Lock()
	p.sessions[s] = true
	if p.stopping {
		s.stop()
	}
	p.mu.Unlock()
	s.log.Debug("connected")
	s.run()
	s.log.Debug("disconnected")
	p.mu.Lock()
	delete(p.sessions, s)
	p.mu.Unlock()
}

// stopSessions has the sessions read nothing more.
func (p *proxy) stopSessions() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping = true
	for s := range p.sessions {
		s.stop()
	}
}

// nodes are those that there may be links to.
func (p *proxy) nodes() []*node {
	if p.cluster != nil {
		return p.cluster.all()
	}
	return []*node{p.single}
}

// closeLinks closes the shared links, and those that no session has.
func (p *proxy) closeLinks(err error) {
	for _, n := range p.nodes() {
		for _, l := range n.links.all() {
			l.close(err)
		}
	}
}

// sweep looks at all sessions and links now and then, for what has taken too long.
func (p *proxy) sweep(ctx context.Context) {
	tick := time.NewTicker(p.sweepEvery())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			p.sweepOnce(now)
		}
	}
}

func (p *proxy) sweepEvery() time.Duration {
	every := p.answerTimeout / 8
	if p.idle > 0 {
		every = min(every, p.idle/8)
	}
	return min(max(every, 10*time.Millisecond), time.Second)
}

func (p *proxy) sweepOnce(now time.Time) {
	p.mu.Lock()
	sessions := make([]*session, 0, len(p.sessions))
	for s := range p.sessions {
		sessions = append(sessions, s)
	}
	p.mu.Unlock()
	for _, s := range sessions {
		s.mu.Lock()
		owns, flying := slices.Clone(s.owns), s.flying.calls // the session changes the list in place
		mayWait := s.blocked > 0 && time.Since(p.start) < s.blockedUntil
		s.mu.Unlock()
		for _, l := range owns {
			if mayWait && !p.isReplaced(l.node) {
				l.since = time.Time{}
				continue
			}
			l.checkAnswers(now)
		}
		if idle := time.Since(p.start) - time.Duration(s.active.Load()); p.idle > 0 && idle > p.idle && (flying == 0 || isUploading(owns)) && !subscribedOn(owns) {
			s.log.Debug("client closed: it was idle", "for", idle)
			s.abort()
		}
	}
	for _, n := range p.nodes() {
		for _, l := range n.links.all() {
			l.checkAnswers(now)
		}
	}
	if p.vocabulary.Load().table == nil {
		p.startLearning()
	}
}

// isReplaced reports whether a node of a cluster serves no slot any more. What still waits there for
// others, waits in vain.
func (p *proxy) isReplaced(n *node) bool {
	if p.cluster == nil {
		return false
	}
	t := p.cluster.current()
	return t != nil && !slices.Contains(t.masters, n)
}

// checkAnswers closes a link on which the upstream has said nothing for too long although replies are
// due.
func (l *link) checkAnswers(now time.Time) {
	l.mu.Lock()
	n := int(l.taking.Load())
	if l.conn != nil && l.err == nil {
		n += due(l.sent)
	}
	if l.uploading.Load() != nil { // the last one, which the client is still sending
		n--
	}
	due := n > 0
	l.mu.Unlock()
	reads := l.reads.Load()
	if !due || reads != l.seen || !l.waiting.Load() || l.since.IsZero() {
		l.seen, l.since = reads, now
		return
	}
	if now.Sub(l.since) > l.proxy.answerTimeout {
		l.proxy.log.Warn("upstream does not answer", "upstream", l.node.addr, "for", now.Sub(l.since))
		l.close(errSlow)
	}
}

// isUploading reports whether the client has sent only a part of a large command.
func isUploading(links []*link) bool {
	return slices.ContainsFunc(links, func(l *link) bool { return l.uploading.Load() != nil })
}

func subscribedOn(links []*link) bool {
	for _, l := range links {
		if l.state.Load()&(stateSubscribed|stateForever) != 0 {
			return true
		}
	}
	return false
}

// serverHello is what the upstream says of itself.
type serverHello struct{ name, version string }

// knowCommands returns the vocabulary once the upstream has told its commands. Without them it is not
// known what may go to a shared link, or to which node.
func (p *proxy) knowCommands() (*vocabulary, error) {
	a := p.startLearning()
	<-a.over
	return p.vocabulary.Load(), a.err
}

// A learnAttempt is one attempt to learn the upstream's commands. All who need them meanwhile wait for
// it, and share its result.
type learnAttempt struct {
	over chan struct{} // closed when err is set
	err  error
}

// startLearning returns the attempt that goes on, or begins one.
func (p *proxy) startLearning() *learnAttempt {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.learning == nil {
		a := &learnAttempt{over: make(chan struct{})}
		p.learning = a
		go func() {
			if p.vocabulary.Load().table == nil {
				a.err = p.learn(context.Background())
			}
			p.mu.Lock()
			p.learning = nil
			p.mu.Unlock()
			close(a.over)
		}()
	}
	return p.learning
}

// learn asks the upstream for its commands and its version.
func (p *proxy) learn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.connectTimeout+p.answerTimeout)
	defer cancel()
	addr := ""
	if p.cluster != nil && p.cluster.current() == nil {
		if err := p.cluster.update(ctx); err != nil {
			return err
		}
	}
	if p.cluster == nil {
		addr = p.single.addr
	} else if t := p.cluster.current(); t != nil && len(t.masters) > 0 {
		addr = t.masters[rand.IntN(len(t.masters))].addr // any one, since one of them may have stopped
	} else {
		return errors.New("the cluster is not known yet")
	}
	conn, err := p.dialAddr(ctx, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(past) })()
	commands := [][]string{{"HELLO", "2"}, {"COMMAND"}}
	if p.upstreamPassword != "" {
		commands = append([][]string{p.authCommand()}, commands...)
	}
	w := redisproto.NewWriter(conn)
	for _, c := range commands {
		if err := w.WriteBulkStrings(c); err != nil {
			return err
		}
	}
	parser := redisproto.NewReplyParser(conn)
	for range len(commands) - 1 {
		r, err := parser.ReadReply()
		if err != nil {
			return err
		}
		if r.Len() >= 4 && string(r.At(0).Bytes()) == "server" && string(r.At(2).Bytes()) == "version" {
			p.hello.Store(&serverHello{string(r.At(1).Bytes()), string(r.At(3).Bytes())})
		}
	}
	r, err := parser.ReadReply()
	if err != nil {
		return err
	}
	if r.Err() != nil {
		return r.Err()
	}
	t, err := parseTable(r)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.vocabulary.Store(newVocabulary(t, p.rules, p.vocabulary.Load()))
	p.mu.Unlock()
	return nil
}
