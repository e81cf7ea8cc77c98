package main

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const proxyClients = 50

// A via is a way from redis-benchmark to a redis-server: directly, or through a proxy.
type via struct {
	name  string
	addr  string
	redis *server // what it leads to
	proxy *server // nil for none
}

// proxies measures example/proxy beside nutcracker, if that is installed, and beside no proxy: the
// requests a second, and the processor time a request of the proxy and of redis-server.
func (r *results) proxies(dir string, p plan) error {
	vias, stop, err := startProxies(dir)
	defer stop()
	if err != nil {
		return err
	}
	requests := make(map[string]int)
	for round := range p.serverRounds {
		for _, pipeline := range []int{1, 16, 128} {
			step("proxies, round %d of %d: pipeline=%d", round+1, p.serverRounds, pipeline)
			for _, v := range vias {
				name := fmt.Sprintf("BenchmarkProxy/pipeline=%d/via=%s", pipeline, v.name)
				if requests[name] == 0 {
					_, persec, err := v.drive(pipeline, 50*proxyClients*pipeline)
					if err != nil {
						return err
					}
					turns := int(persec*p.serverTime.Seconds())/(proxyClients*pipeline) + 1
					requests[name] = turns * proxyClients * pipeline
				}
				line, _, err := v.drive(pipeline, requests[name])
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				r.record(fmt.Sprintf("%s-%d \t%s", name, runtime.NumCPU(), line))
			}
		}
	}
	return nil
}

// startProxies starts a redis-server, one that is a cluster of its own, and the proxies.
func startProxies(dir string) (vias []*via, stop func(), err error) {
	var started []*server
	stop = func() {
		for _, s := range started {
			s.stop()
		}
	}
	run := func(name, addr string, args ...string) (*server, error) {
		s := &server{name: name, addr: addr, cmd: exec.Command(args[0], args[1:]...)}
		if err := s.cmd.Start(); err != nil {
			return nil, err
		}
		started = append(started, s)
		return s, s.await()
	}
	redisAt := func(name string, args ...string) (*server, error) {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		_, port, _ := net.SplitHostPort(addr)
		home := filepath.Join(dir, name)
		if err := os.Mkdir(home, 0o777); err != nil {
			return nil, err
		}
		return run(name, addr, append([]string{"redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", home,
			"--save", "", "--appendonly", "no", "--loglevel", "warning"}, args...)...)
	}
	redis, err := redisAt("redis")
	if err != nil {
		return nil, stop, err
	}
	clusterAddr, err := freeAddr() // for the port of its bus
	if err != nil {
		return nil, stop, err
	}
	_, bus, _ := net.SplitHostPort(clusterAddr)
	node, err := redisAt("node", "--cluster-enabled", "yes", "--cluster-port", bus)
	if err != nil {
		return nil, stop, err
	}
	_, port, _ := net.SplitHostPort(node.addr)
	if _, err := output("redis-cli", "-p", port, "cluster", "addslotsrange", "0", "16383"); err != nil {
		return nil, stop, err
	}
	for range 100 {
		if text, _ := output("redis-cli", "-p", port, "cluster", "info"); strings.Contains(text, "cluster_state:ok") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	vias = []*via{{name: "none", addr: redis.addr, redis: redis}}
	for _, row := range []struct {
		name, upstream string
		redis          *server
		flags          []string
	}{
		{"own-links", "-upstream", redis, nil},
		{"shared-1", "-upstream", redis, []string{"-shared", "1"}},
		{"cluster-of-one", "-cluster", node, nil},
	} {
		addr, err := freeAddr()
		if err != nil {
			return nil, stop, err
		}
		args := append([]string{filepath.Join(dir, "proxy"), "-listen", addr, row.upstream, row.redis.addr}, row.flags...)
		s, err := run(row.name, addr, args...)
		if err != nil {
			return nil, stop, err
		}
		vias = append(vias, &via{row.name, addr, row.redis, s})
	}
	nutcracker, err := exec.LookPath("nutcracker")
	if err != nil {
		step("nutcracker is not installed, so it is not measured")
		return vias, stop, nil
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, stop, err
	}
	stats, err := freeAddr()
	if err != nil {
		return nil, stop, err
	}
	_, statsPort, _ := net.SplitHostPort(stats)
	file := filepath.Join(dir, "nutcracker.yml")
	config := fmt.Sprintf("bench:\n  listen: %s\n  redis: true\n  servers:\n   - %s:1\n", addr, redis.addr)
	if err := os.WriteFile(file, []byte(config), 0o666); err != nil {
		return nil, stop, err
	}
	s, err := run("nutcracker", addr, nutcracker, "-c", file, "-s", statsPort, "-a", "127.0.0.1")
	return append(vias, &via{"nutcracker", addr, redis, s}), stop, err
}

// freeAddr returns an address of the loopback that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// await waits until the server takes connections.
func (s *server) await() error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
}

// spent returns the processor time that the proxy and the redis-server of v have used.
func (v *via) spent() (proxy, redis time.Duration, err error) {
	user, system, err := v.redis.cpu()
	if err != nil || v.proxy == nil {
		return 0, user + system, err
	}
	redis = user + system
	user, system, err = v.proxy.cpu()
	return user + system, redis, err
}

// drive sends n requests, and returns what that took as a benchmark's line has it.
func (v *via) drive(pipeline, n int) (line string, persec float64, err error) {
	host, port, _ := net.SplitHostPort(v.addr)
	proxy, redis, err := v.spent()
	if err != nil {
		return "", 0, err
	}
	text, err := output("redis-benchmark", "-h", host, "-p", port, "-c", strconv.Itoa(proxyClients), "-P", strconv.Itoa(pipeline),
		"-n", strconv.Itoa(n), "-r", "100000", "--csv", "SET", "key:__rand_int__", value)
	if err != nil {
		return "", 0, err
	}
	rows, err := csv.NewReader(strings.NewReader(text[max(strings.IndexByte(text, '"'), 0):])).ReadAll()
	if err != nil {
		return "", 0, err
	}
	if persec, err = strconv.ParseFloat(rows[len(rows)-1][1], 64); err != nil {
		return "", 0, err
	}
	proxy2, redis2, err := v.spent()
	each := func(d time.Duration) float64 { return float64(d) / float64(n) }
	return fmt.Sprintf("%d\t%.1f ns/op\t%.0f req/s\t%.1f proxy-ns/op\t%.1f redis-ns/op", n,
		1e9/persec, persec, each(proxy2-proxy), each(redis2-redis)), persec, err
}

// proxyTable is the part of the report about proxies.
func (r *results) proxyTable() string {
	var b bytes.Buffer
	if r.values["BenchmarkProxy/pipeline=1/via=none"] == nil {
		return ""
	}
	fmt.Fprintf(&b, "\n## A proxy in front of redis-server\n\nSET of 64 bytes by %d clients, medians. Processor time a request, of the proxy and of redis-server.\n\n", proxyClients)
	fmt.Fprintf(&b, "| pipeline | through | requests a second | proxy | redis-server |\n|---:|---|---:|---:|---:|\n")
	for _, name := range r.names {
		rest, ok := strings.CutPrefix(name, "BenchmarkProxy/pipeline=")
		if !ok {
			continue
		}
		pipeline, through, _ := strings.Cut(rest, "/via=")
		fmt.Fprintf(&b, "| %s | %s | %.0f | %.2f µs | %.2f µs |\n", pipeline, through, r.median(name, "req/s"),
			r.median(name, "proxy-ns/op")/1e3, r.median(name, "redis-ns/op")/1e3)
	}
	return b.String()
}
