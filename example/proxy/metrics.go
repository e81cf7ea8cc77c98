package main

import (
	"bufio"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// stats count the calls of one command.
type stats struct {
	calls, errors atomic.Int64
	nanoseconds   atomic.Int64
	slots         [buckets]atomic.Int64 // calls that took less than 1<<i microseconds, and half that or more
}

// buckets is how many parts the histograms of latency have. The last one but one ends at 4 s.
const buckets = 24

// observe counts the latency of a call.
func (s *stats) observe(took time.Duration) {
	s.nanoseconds.Add(int64(took))
	s.slots[min(bits.Len64(uint64(took.Microseconds())), buckets-1)].Add(1)
}

// counters count what is not about one command.
type counters struct {
	clients    atomic.Int64 // now
	accepted   atomic.Int64
	turnedAway atomic.Int64 // over -maxclients
	closedSlow atomic.Int64 // over -output
	failures   atomic.Int64 // connections to upstreams that were lost or not made
	redirects  atomic.Int64
	ownLinks   atomic.Int64 // now
	bytesUp    atomic.Int64
	bytesDown  atomic.Int64
}

// serveMetrics serves the metrics, and whether the proxy lives and is ready, until the program ends.
func (p *proxy) serveMetrics(addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		b := bufio.NewWriter(w)
		p.writeMetrics(b)
		b.Flush()
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := p.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ok\n")
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second}
	go func() { p.log.Error("metrics are no longer served", "err", server.Serve(listener)) }()
	p.log.Info("serving metrics", "addr", listener.Addr().String())
	return listener, nil
}

// writeMetrics writes all metrics in Prometheus' text format. Labels are names that the upstream or
// the proxy knows; what clients invent is counted together, under the name "other".
func (p *proxy) writeMetrics(w io.Writer) {
	one := func(name, kind, help string, v int64) {
		fmt.Fprintf(w, "# HELP redisproxy_%s %s\n# TYPE redisproxy_%s %s\nredisproxy_%s %d\n", name, help, name, kind, name, v)
	}
	one("clients", "gauge", "Clients that are connected.", p.clients.Load())
	one("clients_accepted_total", "counter", "Clients that have connected.", p.accepted.Load())
	one("clients_turned_away_total", "counter", "Clients over -maxclients.", p.turnedAway.Load())
	one("clients_closed_slow_total", "counter", "Clients closed because they did not read their replies.", p.closedSlow.Load())
	one("commands_refused_total", "counter", "Commands refused by -deny, by -allow, or for their names.", p.rules.refused.Load())
	one("upstream_failures_total", "counter", "Connections to upstreams that were lost with calls in flight, or not made.", p.failures.Load())
	one("redirects_total", "counter", "Calls sent again after MOVED, ASK or TRYAGAIN.", p.redirects.Load())
	one("links_own", "gauge", "Connections to upstreams that one client uses, or that wait for a client.", p.ownLinks.Load())
	one("upstream_sent_bytes_total", "counter", "Bytes sent to upstreams.", p.bytesUp.Load())
	one("upstream_received_bytes_total", "counter", "Bytes received from upstreams.", p.bytesDown.Load())
	if p.cluster != nil {
		one("refreshes_total", "counter", "Times that the slots of the cluster were asked for.", p.cluster.refreshes.Load())
		one("refresh_failures_total", "counter", "Times that no node told the slots of the cluster.", p.cluster.failures.Load())
	}
	p.writeNodes(w)
	all := p.vocabulary.Load().all()
	family := func(name, kind, help string, value func(*command) int64) {
		fmt.Fprintf(w, "# HELP redisproxy_%s %s\n# TYPE redisproxy_%s %s\n", name, help, name, kind)
		for _, cmd := range all {
			if cmd.calls.Load() > 0 {
				fmt.Fprintf(w, "redisproxy_%s{command=\"%s\"} %d\n", name, cmd.label(), value(cmd))
			}
		}
	}
	family("commands_total", "counter", "Calls by command.", func(c *command) int64 { return c.calls.Load() })
	family("command_errors_total", "counter", "Calls answered with an error, by command.", func(c *command) int64 { return c.errors.Load() })
	const hist = "redisproxy_command_duration_seconds"
	fmt.Fprintf(w, "# HELP %s Time from a command's arrival to its reply.\n# TYPE %s histogram\n", hist, hist)
	for _, cmd := range all {
		if cmd.calls.Load() > 0 {
			cmd.writeHistogram(w, hist)
		}
	}
}

// writeNodes writes what is counted by node.
func (p *proxy) writeNodes(w io.Writer) {
	fmt.Fprintf(w, "# HELP redisproxy_node_links Shared connections, and those that wait for a client, by node.\n# TYPE redisproxy_node_links gauge\n")
	for _, n := range p.nodes() {
		fmt.Fprintf(w, "redisproxy_node_links{node=\"%s\"} %d\n", n.addr, len(n.links.all()))
	}
	fmt.Fprintf(w, "# HELP redisproxy_node_up Whether the last attempt to connect to the node succeeded.\n# TYPE redisproxy_node_up gauge\n")
	for _, n := range p.nodes() {
		up := 1
		if n.links.isAway() {
			up = 0
		}
		fmt.Fprintf(w, "redisproxy_node_up{node=\"%s\"} %d\n", n.addr, up)
	}
}

// label is the name of a command in the metrics.
func (cmd *command) label() string {
	if cmd.name == "" {
		return "other"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == '"' || r == '\\' {
			return '_'
		}
		return r
	}, strings.ToLower(cmd.name))
}

// writeHistogram writes the latencies of one command, each bucket with those below it.
func (cmd *command) writeHistogram(w io.Writer, name string) {
	var sum int64
	for i := range cmd.slots {
		sum += cmd.slots[i].Load()
		le := "+Inf"
		if i < buckets-1 {
			le = fmt.Sprint(float64(int64(1)<<i) / 1e6)
		}
		fmt.Fprintf(w, "%s_bucket{command=\"%s\",le=\"%s\"} %d\n", name, cmd.label(), le, sum)
	}
	fmt.Fprintf(w, "%s_sum{command=\"%s\"} %g\n%s_count{command=\"%s\"} %d\n", name, cmd.label(),
		float64(cmd.nanoseconds.Load())/1e9, name, cmd.label(), sum)
}

// ready reports why the proxy is not ready, or nil: every node can be reached, and each slot has one.
func (p *proxy) ready() error {
	p.mu.Lock()
	stopping := p.stopping
	p.mu.Unlock()
	if stopping {
		return errDraining
	}
	if p.cluster == nil {
		return p.reach(p.single)
	}
	t := p.cluster.current()
	if t == nil || !t.complete() {
		return fmt.Errorf("not every slot of the cluster has a master")
	}
	for _, n := range t.masters {
		if err := p.reach(n); err != nil {
			return err
		}
	}
	return nil
}

// reach reports whether a node takes connections and answers.
func (p *proxy) reach(n *node) error {
	conn, err := p.dial(n)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = handshake(conn, p.connectTimeout, []string{"PING"}) // NOAUTH is an answer too
	return err
}
