package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	clients = 32
	key     = "key:000000000001"
	ping    = "*1\r\n$4\r\nPING\r\n"
	pong    = "+PONG\r\n"
)

var (
	value       = strings.Repeat("x", 64)
	set         = fmt.Sprintf("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(key), key, len(value), value)
	serverNames = []string{"redisproto", "redisproto-gnet", "null", "redcon", "redis-server"}
)

// A server is a process of its own.
type server struct {
	name string
	addr string
	cmd  *exec.Cmd
}

// start starts a server; request and reply are for the one that knows no others.
func start(name, dir, request, reply string) (*server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &server{name: name, addr: addr}
	_, port, _ := net.SplitHostPort(addr)
	switch name {
	case "redisproto":
		s.cmd = exec.Command(filepath.Join(dir, "demo"), "-addr", s.addr)
	case "redisproto-gnet":
		s.cmd = exec.Command(filepath.Join(dir, "gnetserver"), "-addr", s.addr)
	case "redcon":
		s.cmd = exec.Command(filepath.Join(dir, "redconserver"), "-addr", s.addr)
	case "null":
		s.cmd = exec.Command(filepath.Join(dir, "nullserver"), "-addr", s.addr,
			"-size", strconv.Itoa(len(request)), "-reply", reply)
	case "redis-server":
		s.cmd = exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--dir", dir,
			"--save", "", "--appendonly", "no", "--maxclients", "11000", "--protected-mode", "no", "--loglevel", "warning")
	}
	return s, s.launch()
}

// freeAddr returns an address of the loopback that nobody listens on.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// launch starts the process, and waits until it accepts connections.
func (s *server) launch() error {
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
}

func (s *server) stop() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// cpu returns the processor time that the server has used. Linux counts it in ticks of 10 ms.
func (s *server) cpu() (user, system time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	u, err1 := strconv.Atoi(fields[11])
	sys, err2 := strconv.Atoi(fields[12])
	const tick = 10 * time.Millisecond
	return time.Duration(u) * tick, time.Duration(sys) * tick, errors.Join(err1, err2)
}

// rss returns the bytes of memory that the server has.
func (s *server) rss() (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "\nRss:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0, errors.New("no Rss in smaps_rollup")
	}
	kib, err := strconv.Atoi(fields[0])
	return kib << 10, err
}

// throughput has redis-benchmark drive the servers, which take turns.
func (r *results) throughput(dir string, p plan) error {
	var targets []target
	for _, name := range serverNames {
		s, err := start(name, dir, set, "$2\r\nOK\r\n")
		if err != nil {
			return err
		}
		defer s.stop()
		targets = append(targets, target{"server=" + name, s.drive})
	}
	return r.inTurn("servers", "BenchmarkServer", clients, targets, p)
}

// A target is what redis-benchmark drives.
type target struct {
	name  string // in the name of its benchmark
	drive func(pipeline, n int) (line string, persec float64, err error)
}

// inTurn has redis-benchmark drive the targets, which take turns. what is named in the log.
func (r *results) inTurn(what, benchmark string, clients int, targets []target, p plan) error {
	requests := make(map[string]int) // of a run, by target and pipeline
	for round := range p.serverRounds {
		for _, pipeline := range []int{1, 16, 128} {
			step("%s, round %d of %d: pipeline=%d", what, round+1, p.serverRounds, pipeline)
			for _, t := range targets {
				name := fmt.Sprintf("%s/pipeline=%d/%s", benchmark, pipeline, t.name)
				if requests[name] == 0 {
					_, persec, err := t.drive(pipeline, 50*clients*pipeline)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					turns := int(persec*p.serverTime.Seconds())/(clients*pipeline) + 1
					requests[name] = turns * clients * pipeline
				}
				line, _, err := t.drive(pipeline, requests[name])
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				r.record(fmt.Sprintf("%s-%d \t%s", name, runtime.NumCPU(), line))
			}
		}
	}
	return nil
}

// benchmarkSet has redis-benchmark send n requests, as args say what, and returns how many it sent a second.
func benchmarkSet(addr string, clients, pipeline, n int, args ...string) (persec float64, err error) {
	host, port, _ := net.SplitHostPort(addr)
	text, err := output("redis-benchmark", append([]string{"-h", host, "-p", port, "-c", strconv.Itoa(clients),
		"-P", strconv.Itoa(pipeline), "-n", strconv.Itoa(n)}, args...)...)
	if err != nil {
		return 0, err
	}
	rows, err := csv.NewReader(strings.NewReader(text[max(strings.IndexByte(text, '"'), 0):])).ReadAll()
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(rows[len(rows)-1][1], 64)
}

// drive sends n requests, and returns what that took as a benchmark's line has it.
func (s *server) drive(pipeline, n int) (line string, persec float64, err error) {
	user, system, err := s.cpu()
	if err != nil {
		return "", 0, err
	}
	if persec, err = benchmarkSet(s.addr, clients, pipeline, n, "--csv", "SET", key, value); err != nil {
		return "", 0, err
	}
	user2, system2, err := s.cpu()
	each := func(d time.Duration) float64 { return float64(d) / float64(n) }
	return fmt.Sprintf("%d\t%.1f ns/op\t%.0f req/s\t%.1f user-ns/op\t%.1f sys-ns/op\t%.1f cpu-ns/op", n,
		1e9/persec, persec, each(user2-user), each(system2-system), each(user2-user+system2-system)), persec, err
}

// idle counts the memory of connections that have sent a PING and wait.
func (r *results) idle(dir string, p plan) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	n := min(10_000, int(limit.Max)-100)
	for round := range p.idleRounds {
		for _, name := range serverNames {
			step("idle connections, round %d of %d: %s", round+1, p.idleRounds, name)
			s, err := start(name, dir, ping, pong)
			if err != nil {
				return err
			}
			each, err := s.perConn(n)
			s.stop()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			r.record(fmt.Sprintf("BenchmarkIdle/conns=%d/server=%s-%d \t%d\t%d B/conn", n, name, runtime.NumCPU(), n, each))
		}
	}
	return nil
}

// perConn returns how many bytes the server's memory grows by for each of n connections.
func (s *server) perConn(n int) (int, error) {
	first, err := s.pinged(0)
	if err != nil {
		return 0, err
	}
	defer first.Close()
	before, err := s.rss()
	if err != nil {
		return 0, err
	}
	for i := range n {
		conn, err := s.pinged(i)
		if err != nil {
			return 0, fmt.Errorf("connection %d: %w", i, err)
		}
		defer conn.Close()
	}
	time.Sleep(time.Second)
	after, err := s.rss()
	return (after - before) / n, err
}

// pinged opens connection i, from one of several addresses for the sake of their ports, and has a
// PING answered.
func (s *server) pinged(i int) (*net.TCPConn, error) {
	from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+i%8))}
	d := net.Dialer{LocalAddr: from, Timeout: 5 * time.Second}
	conn, err := d.Dial("tcp", s.addr)
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	tcp.SetLinger(0) // no port is to be held after the close
	tcp.SetDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, len(pong))
	_, err = io.WriteString(tcp, ping)
	if err == nil {
		_, err = io.ReadFull(tcp, buf)
	}
	if err == nil && string(buf) != pong {
		err = fmt.Errorf("got %q, want %q", buf, pong)
	}
	return tcp, err
}
