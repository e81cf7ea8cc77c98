package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/secmask/go-redisproto"
)

// This file measures remote procedure calls: example/rpc, and the same service in ../rpcpeer with what
// people would pick instead. Client and server are a process each.

// rpcStacks are the columns of the tables. All but the first are rpcpeer's.
var rpcStacks = []string{"redisproto", "grpc", "net-rpc", "http"}

// rpcCalls are the calls, with the bytes of their payloads.
var rpcCalls = []struct {
	method string
	size   int
}{{"echo", 100}, {"echo", 10 << 10}, {"calc.add", 100}, {"calc.add", 10 << 10}}

// An rpcServer is a server that tells how many allocations it has made.
type rpcServer struct {
	*server
	mallocs func() (uint64, error)
}

// startRPC starts the server of a stack.
func startRPC(stack, dir string) (*rpcServer, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &rpcServer{server: &server{name: stack, addr: addr}}
	if stack == "redisproto" {
		s.cmd = exec.Command(filepath.Join(dir, "rpc"), "-addr", s.addr)
		s.mallocs = func() (uint64, error) { return askStats(s.addr) }
		return s, s.launch()
	}
	s.cmd = exec.Command(filepath.Join(dir, "rpcpeer"), "-stack", stack, "serve", s.addr)
	in, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	lines := bufio.NewReader(out)
	s.mallocs = func() (uint64, error) {
		if _, err := io.WriteString(in, "\n"); err != nil {
			return 0, err
		}
		line, err := lines.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.ParseUint(strings.TrimSpace(line), 10, 64)
	}
	return s, s.launch()
}

// askStats calls runtime.stats of example/rpc.
func askStats(addr string) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := redisproto.NewWriter(conn).WriteCommand("runtime.stats", "{}"); err != nil {
		return 0, err
	}
	reply, err := redisproto.NewReplyParser(conn).ReadReply()
	if err != nil {
		return 0, err
	}
	var stats struct {
		Mallocs uint64 `json:"mallocs"`
	}
	err = json.Unmarshal(reply.Bytes(), &stats)
	return stats.Mallocs, err
}

// rpc measures all stacks, which take turns.
func (r *results) rpc(dir string, p plan) error {
	for _, args := range [][]string{
		{"build", "-o", filepath.Join(dir, "rpc"), "github.com/secmask/go-redisproto/example/rpc"},
		{"build", "-o", dir, "./cmd/rpcpeer"},
	} {
		if _, err := output("go", args...); err != nil {
			return err
		}
	}
	var servers []*rpcServer
	for _, stack := range rpcStacks {
		s, err := startRPC(stack, dir)
		if err != nil {
			return err
		}
		defer s.stop()
		servers = append(servers, s)
	}
	for round := range p.serverRounds {
		for _, callers := range []int{1, 64} {
			for _, call := range rpcCalls {
				step("calls, round %d of %d: %d callers, %s of %d bytes", round+1, p.serverRounds, callers, call.method, call.size)
				for _, s := range servers {
					line, err := s.bench(dir, callers, call.method, call.size, p.serverTime/4)
					if err != nil {
						return err
					}
					r.record(fmt.Sprintf("BenchmarkRPC/callers=%d/call=%s/payload=%d/stack=%s-%d \t%s",
						callers, call.method, call.size, s.name, runtime.NumCPU(), line))
				}
			}
		}
	}
	return nil
}

// bench has a client make calls, and returns what that took as a benchmark's line has it.
func (s *rpcServer) bench(dir string, callers int, method string, size int, length time.Duration) (line string, err error) {
	args := []string{"-callers", strconv.Itoa(callers), "-method", method, "-size", strconv.Itoa(size), "-time", length.String()}
	client := exec.Command(filepath.Join(dir, "rpc"), append(append([]string{"bench"}, args...), s.addr)...)
	if s.name != "redisproto" {
		client = exec.Command(filepath.Join(dir, "rpcpeer"), append(append([]string{"-stack", s.name}, args...), "bench", s.addr)...)
	}
	before, err := s.mallocs()
	if err != nil {
		return "", err
	}
	user, system, err := s.cpu()
	if err != nil {
		return "", err
	}
	var stderr strings.Builder
	client.Stderr = &stderr
	out, err := client.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", s.name, err, stderr.String())
	}
	user2, system2, err := s.cpu()
	if err != nil {
		return "", err
	}
	after, err := s.mallocs()
	if err != nil {
		return "", err
	}
	// The last line is: callers, calls, calls a second, p50, p99, p99.9, the client's allocations a call.
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	fields := strings.Fields(lines[len(lines)-1])
	if len(fields) != 7 {
		return "", fmt.Errorf("%s: the client printed %q", s.name, out)
	}
	n, err := strconv.Atoi(fields[1])
	if err != nil || n == 0 {
		return "", fmt.Errorf("%s: the client printed %q", s.name, out)
	}
	p99, err := time.ParseDuration(fields[4])
	each := func(d time.Duration) float64 { return float64(d) / float64(n) }
	return fmt.Sprintf("%d\t%s calls/s\t%d p99-ns\t%.1f server-ns/op\t%.1f client-ns/op\t%.2f server-allocs/op\t%s client-allocs/op",
		n, fields[2], p99, each(user2-user+system2-system), each(client.ProcessState.UserTime()+client.ProcessState.SystemTime()),
		float64(after-before)/float64(n), fields[6]), err
}

// rpcReport is the section of the report.
func (r *results) rpcReport() string {
	const bench, base = "BenchmarkRPC", "/stack=redisproto"
	var b strings.Builder
	table := func(title string, cell func(name, base string) string) {
		fmt.Fprintf(&b, "%s\n\n%s\n", title, r.table(bench, base, cell))
	}
	cost := func(unit string) func(name, base string) string {
		return func(name, base string) string {
			if name == base {
				return duration(r.median(name, unit))
			}
			return fmt.Sprintf("%s (%s×)", duration(r.median(name, unit)), digits(r.median(name, unit)/r.median(base, unit)))
		}
	}
	b.WriteString("example/rpc beside gRPC with protobuf, net/rpc with gob, and net/http with JSON. Client and server are " +
		"a process each, with one connection; HTTP/1.1 has one for each caller. redisproto's echo has a raw payload and its calc.add JSON. " +
		"In brackets: how many times that of redisproto.\n\n")
	table("Calls per second:", func(name, base string) string {
		if name == base {
			return fmt.Sprintf("%.0f", r.median(name, "calls/s"))
		}
		return fmt.Sprintf("%.0f (%.2f×)", r.median(name, "calls/s"), r.median(name, "calls/s")/r.median(base, "calls/s"))
	})
	table("The server's processor time per call:", cost("server-ns/op"))
	table("The client's:", cost("client-ns/op"))
	table("Time that 99 of 100 calls do not take:", cost("p99-ns"))
	table("Allocations per call, server + client:", func(name, _ string) string {
		return fmt.Sprintf("%.0f + %.0f", r.median(name, "server-allocs/op"), r.median(name, "client-allocs/op"))
	})
	return strings.TrimRight(b.String(), "\n")
}

// rpcPanels are the panels of the chart.
func (r *results) rpcPanels() []panel {
	const bench = "BenchmarkRPC/callers=%s/call=echo/payload=100/stack="
	callers := [][2]string{{"1", "1 caller"}, {"64", "64 callers"}}
	return []panel{
		{"Remote calls per second, echo of 100 bytes, one connection", bench, callers, rpcStacks,
			func(name string) float64 { return r.median(name, "calls/s") / 1e3 },
			func(v float64) string { return digits(v) + " thousand" }},
		{"The server's processor time per call: less is better", bench, callers, rpcStacks,
			func(name string) float64 { return r.median(name, "server-ns/op") }, duration},
	}
}
