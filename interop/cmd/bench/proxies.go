package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	var started processes
	defer started.stop()
	vias, err := started.vias(dir)
	if err != nil {
		return err
	}
	var targets []target
	for _, v := range vias {
		targets = append(targets, target{"via=" + v.name, v.drive})
	}
	return r.inTurn("proxies", "BenchmarkProxy", proxyClients, targets, p)
}

// Processes are servers that end together.
type processes []*server

func (p *processes) stop() {
	for _, s := range *p {
		s.stop()
	}
}

// run starts a server that takes connections at addr.
func (p *processes) run(name, addr string, args ...string) (*server, error) {
	s := &server{name: name, addr: addr, cmd: exec.Command(args[0], args[1:]...)}
	if err := s.launch(); err != nil {
		return nil, err
	}
	*p = append(*p, s)
	return s, nil
}

// vias starts a redis-server, one that is a cluster of its own, and the proxies.
func (p *processes) vias(dir string) ([]*via, error) {
	redis, err := p.redis(dir, "redis")
	if err != nil {
		return nil, err
	}
	node, err := p.clusterOfOne(dir)
	if err != nil {
		return nil, err
	}
	vias := []*via{{name: "none", addr: redis.addr, redis: redis}}
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
			return nil, err
		}
		args := append([]string{filepath.Join(dir, "proxy"), "-listen", addr, row.upstream, row.redis.addr}, row.flags...)
		s, err := p.run(row.name, addr, args...)
		if err != nil {
			return nil, err
		}
		vias = append(vias, &via{row.name, addr, row.redis, s})
	}
	path, err := exec.LookPath("nutcracker")
	if err != nil {
		step("nutcracker is not installed, so it is not measured")
		return vias, nil
	}
	nutcracker, err := p.nutcracker(dir, path, redis)
	if err != nil {
		return nil, err
	}
	return append(vias, nutcracker), nil
}

// redis starts a redis-server that saves nothing.
func (p *processes) redis(dir, name string, args ...string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	home := filepath.Join(dir, name)
	if err := os.Mkdir(home, 0o777); err != nil {
		return nil, err
	}
	return p.run(name, addr, append([]string{"redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", home,
		"--save", "", "--appendonly", "no", "--loglevel", "warning"}, args...)...)
}

// clusterOfOne starts a redis-server that serves all slots of a cluster.
func (p *processes) clusterOfOne(dir string) (*server, error) {
	busAddr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, bus, _ := net.SplitHostPort(busAddr)
	node, err := p.redis(dir, "node", "--cluster-enabled", "yes", "--cluster-port", bus)
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(node.addr)
	if _, err := output("redis-cli", "-p", port, "cluster", "addslotsrange", "0", "16383"); err != nil {
		return nil, err
	}
	for range 100 {
		if text, _ := output("redis-cli", "-p", port, "cluster", "info"); strings.Contains(text, "cluster_state:ok") {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return node, nil
}

// nutcracker starts the nutcracker at path in front of redis.
func (p *processes) nutcracker(dir, path string, redis *server) (*via, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	stats, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, statsPort, _ := net.SplitHostPort(stats)
	file := filepath.Join(dir, "nutcracker.yml")
	config := fmt.Sprintf("bench:\n  listen: %s\n  redis: true\n  servers:\n   - %s:1\n", addr, redis.addr)
	if err := os.WriteFile(file, []byte(config), 0o666); err != nil {
		return nil, err
	}
	s, err := p.run("nutcracker", addr, path, "-c", file, "-s", statsPort, "-a", "127.0.0.1")
	return &via{"nutcracker", addr, redis, s}, err
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
	proxy, redis, err := v.spent()
	if err != nil {
		return "", 0, err
	}
	persec, err = benchmarkSet(v.addr, proxyClients, pipeline, n, "-r", "100000", "--csv", "SET", "key:__rand_int__", value)
	if err != nil {
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
