package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// bench measures a server under load, and prints a line for each number of callers.
func bench(ctx context.Context, out io.Writer, args []string) error {
	fs := flag.NewFlagSet("rpc bench", flag.ExitOnError)
	var opts Options
	finish := clientFlags(fs, &opts)
	fs.IntVar(&opts.Connections, "connections", 1, "connections that the callers share")
	callers := fs.String("callers", "1,8,64,256", "how many call at once, one `list` element after the other")
	method := fs.String("method", "echo", "echo, with a raw payload, or calc.add, with JSON")
	size := fs.Int("size", 100, "bytes of the payload, at least")
	length := fs.Duration("time", 3*time.Second, "time for each number of callers")
	fs.Parse(args)
	if fs.NArg() != 1 {
		return errors.New("usage: rpc bench [flags] ADDR")
	}
	if err := finish(); err != nil {
		return err
	}
	c, err := Dial(ctx, fs.Arg(0), opts)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	one, err := caller(c, *method, *size)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%8s %10s %12s %10s %10s %10s %12s\n", "callers", "calls", "calls/s", "p50", "p99", "p99.9", "allocs/call")
	for _, field := range strings.Split(*callers, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return fmt.Errorf("rpc: -callers: %q is no number of callers", field)
		}
		fmt.Fprintf(os.Stderr, "%d callers of %s, for %v\n", n, *method, *length)
		m, err := measure(ctx, n, *length, one)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%8d %10d %12.0f %10v %10v %10v %12.2f\n", n, m.calls, m.rate, m.p50, m.p99, m.p999, m.allocs)
	}
	return nil
}

// caller returns what makes the calls of one goroutine.
func caller(c *Client, method string, size int) (func() func(context.Context) error, error) {
	switch method {
	case "echo":
		payload := bytes.Repeat([]byte("x"), size)
		return func() func(context.Context) error {
			var reply []byte
			return func(ctx context.Context) (err error) {
				reply, err = c.CallRaw(ctx, reply[:0], "echo", payload)
				if err == nil && !bytes.Equal(reply, payload) {
					err = fmt.Errorf("rpc: echo replied %.64q", reply)
				}
				return err
			}
		}, nil
	case "calc.add":
		in := AddRequest{A: 19, B: 23, Note: strings.Repeat("x", max(0, size-len(`{"a":19,"b":23,"note":""}`)))}
		return func() func(context.Context) error {
			return func(ctx context.Context) error {
				out, err := Call[AddReply](ctx, c, "calc.add", in)
				if err == nil && out.Sum != 42 {
					err = fmt.Errorf("rpc: calc.add replied %d", out.Sum)
				}
				return err
			}
		}, nil
	}
	return nil, fmt.Errorf("rpc: bench has no calls of %q: it is echo or calc.add", method)
}

// A measurement is what came of a run.
type measurement struct {
	calls          int
	rate           float64 // calls a second
	p50, p99, p999 time.Duration
	allocs         float64 // a call, in this process
}

// measure has n goroutines call for a time.
func measure(ctx context.Context, n int, length time.Duration, one func() func(context.Context) error) (measurement, error) {
	took := make([][]time.Duration, n)
	for i := range took {
		took[i] = make([]time.Duration, 0, 1<<20/n)
	}
	errs := make(chan error, n)
	var wg sync.WaitGroup
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			call := one()
			for begin := time.Now(); begin.Sub(start) < length; {
				if err := call(ctx); err != nil {
					errs <- err
					return
				}
				end := time.Now()
				took[i] = append(took[i], end.Sub(begin))
				begin = end
			}
		}()
	}
	wg.Wait()
	elapsed := time.Since(start)
	runtime.ReadMemStats(&after)
	select {
	case err := <-errs:
		return measurement{}, err
	default:
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	at := func(q float64) time.Duration { return all[int(q*float64(len(all)-1))].Round(100 * time.Nanosecond) }
	return measurement{len(all), float64(len(all)) / elapsed.Seconds(), at(0.5), at(0.99), at(0.999),
		float64(after.Mallocs-before.Mallocs) / float64(len(all))}, nil
}
