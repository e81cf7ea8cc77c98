// Command rpcpeer is the echo and the addition of ../../../example/rpc, server and load generator,
// written with what people would pick instead: gRPC, net/rpc, or net/http with JSON.
//
//	rpcpeer -stack grpc serve 127.0.0.1:7000
//	rpcpeer -stack grpc -method echo -size 100 -callers 64 -time 2s bench 127.0.0.1:7000
//
// The server prints how many allocations its process has made whenever it reads a line.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A stack is a way to make calls.
type stack struct {
	serve func(l net.Listener) error
	// dial connects for a number of callers.
	dial func(addr string, callers int) (peer, error)
}

// A peer makes calls to the server. It is safe for several goroutines.
type peer interface {
	Echo(ctx context.Context, payload []byte) ([]byte, error)
	Add(ctx context.Context, a, b int64, note string) (int64, error)
}

var stacks = map[string]stack{
	"grpc":    {serveGRPC, dialGRPC},
	"net-rpc": {serveNetRPC, dialNetRPC},
	"http":    {serveHTTP, dialHTTP},
}

func main() {
	name := flag.String("stack", "grpc", "grpc, net-rpc or http")
	method := flag.String("method", "echo", "echo or calc.add")
	size := flag.Int("size", 100, "bytes of the payload")
	callers := flag.Int("callers", 1, "how many call at once")
	length := flag.Duration("time", 2*time.Second, "for how long")
	flag.Parse()
	err := errors.New("usage: rpcpeer [flags] serve|bench ADDR")
	s, ok := stacks[*name]
	switch {
	case !ok || flag.NArg() != 2:
	case flag.Arg(0) == "serve":
		err = serve(s, flag.Arg(1))
	case flag.Arg(0) == "bench":
		err = bench(s, flag.Arg(1), *method, *size, *callers, *length)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rpcpeer:", err)
		os.Exit(1)
	}
}

func serve(s stack, addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			fmt.Println(m.Mallocs)
		}
		os.Exit(0) // who started the server has ended
	}()
	return s.serve(l)
}

// bench makes calls, and prints what rpc bench prints of its own.
func bench(s stack, addr, method string, size, callers int, length time.Duration) error {
	p, err := s.dial(addr, callers)
	if err != nil {
		return err
	}
	ctx := context.Background()
	payload, note := []byte(strings.Repeat("x", size)), strings.Repeat("x", max(0, size-len(`{"a":19,"b":23,"note":""}`)))
	call := func() error {
		reply, err := p.Echo(ctx, payload)
		if err == nil && !slices.Equal(reply, payload) {
			err = fmt.Errorf("echo replied %.64q", reply)
		}
		return err
	}
	if method == "calc.add" {
		call = func() error {
			sum, err := p.Add(ctx, 19, 23, note)
			if err == nil && sum != 42 {
				err = fmt.Errorf("calc.add replied %d", sum)
			}
			return err
		}
	}
	if err := call(); err != nil {
		return err
	}
	took := make([][]time.Duration, callers)
	errs := make([]error, callers)
	for i := range took {
		took[i] = make([]time.Duration, 0, 1<<20/callers)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for begin := time.Now(); begin.Sub(start) < length && errs[i] == nil; {
				errs[i] = call()
				end := time.Now()
				took[i] = append(took[i], end.Sub(begin))
				begin = end
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))] }
	fmt.Println("callers calls calls/s p50 p99 p99.9 allocs/call")
	fmt.Println(callers, len(all), float64(len(all))/elapsed.Seconds(), at(0.5), at(0.99), at(0.999),
		float64(after.Mallocs-before.Mallocs)/float64(len(all)))
	return nil
}
