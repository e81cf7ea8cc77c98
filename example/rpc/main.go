// Command rpc shows remote procedure calls over Redis's protocol: a service that any language calls
// with the Redis client it already has, and a client in Go that many goroutines share.
//
//	go run ./example/rpc                                     # serves on :6381
//	redis-cli -p 6381 calc.add '{"a": 19, "b": 23}'          # {"sum":42}
//	go run ./example/rpc call localhost:6381 calc.add '{"a": 19, "b": 23}'
//	go run ./example/rpc bench localhost:6381                # calls a second, and how long they take
//
// It is there to be copied. From the outside in:
//
//	main.go        the methods of the demonstration, and the command line
//	bench.go       the load generator
//	server.go      Server: connections, from the first to the last
//	handler.go     Handle and HandleRaw, codecs, errors, deadlines
//	builtin.go     what clients of Redis ask of any server
//	input.go       what a connection is read from; contexts that end with it
//	output.go      replies in order, slow calls among them
//	client.go      Client and Call: several connections, reconnecting, closing
//	clientconn.go  one connection of a client: calls go out together, replies are sorted out
//	batch.go       bytes that are written together
//
// Replies come in the order of the calls on a connection. A handler that takes long holds up the
// calls behind it, so register it with Slow, or have the client open several connections.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/secmask/go-redisproto"
)

// AddRequest is what calc.add is called with. Its note is not looked at; the benchmark makes payloads
// of a certain size with it.
type AddRequest struct {
	A    int64  `json:"a"`
	B    int64  `json:"b"`
	Note string `json:"note,omitempty"`
}

// AddReply is what calc.add replies.
type AddReply struct {
	Sum int64 `json:"sum"`
}

// StatsReply is what runtime.stats replies.
type StatsReply struct {
	Goroutines int    `json:"goroutines"`
	Mallocs    uint64 `json:"mallocs"` // since the process began
}

// demo registers the methods of the demonstration.
func demo(s *Server) {
	Handle(s, "calc.add", func(_ context.Context, in AddRequest) (AddReply, error) {
		sum := in.A + in.B
		if (sum > in.A) != (in.B > 0) {
			return AddReply{}, &redisproto.ReplyError{Code: "OVERFLOW", Message: "the sum is not an int64"}
		}
		return AddReply{sum}, nil
	}, Summary("Adds two numbers."))
	HandleRaw(s, "echo", 1, func(_ context.Context, args [][]byte, w *redisproto.Writer) error {
		return w.WriteBulk(args[0])
	}, Summary("Replies its argument."))
	Handle(s, "runtime.stats", func(context.Context, struct{}) (StatsReply, error) {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return StatsReply{runtime.NumGoroutine(), m.Mallocs}, nil
	}, Summary("Tells what the server's process has allocated."))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	command, args := "serve", os.Args[1:]
	if len(args) > 0 && (args[0] == "call" || args[0] == "bench") {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "serve":
		err = serve(ctx, args)
	case "call":
		err = callOnce(ctx, os.Stdout, args)
	case "bench":
		err = bench(ctx, os.Stdout, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve runs the server until ctx ends.
func serve(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("rpc", flag.ExitOnError)
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: rpc [flags] | rpc call [flags] ADDR METHOD [ARGUMENT...] | rpc bench [flags] ADDR\n\nFlags of the server:")
		fs.PrintDefaults()
	}
	var opts ServerOptions
	addr := fs.String("addr", ":6381", "`address` to listen on")
	fs.StringVar(&opts.Password, "password", "", "password that clients must give")
	fs.IntVar(&opts.MaxConns, "max-conns", 10_000, "connections at a time; more are refused")
	fs.IntVar(&opts.MaxSlow, "max-slow", 64, "slow calls at a time of each connection")
	fs.IntVar(&opts.Limits.Bulk, "max-payload", 64<<20, "bytes of one argument")
	fs.DurationVar(&opts.IdleTimeout, "idle", 0, "close a connection after so long without a call; 0 is never")
	fs.DurationVar(&opts.DrainTimeout, "drain", 5*time.Second, "time for running calls to end at shutdown")
	cert := fs.String("tls-cert", "", "certificate `file`; with -tls-key, the server speaks TLS")
	key := fs.String("tls-key", "", "private key `file`")
	verbose := fs.Bool("v", false, "log connections too")
	fs.Parse(args)
	if fs.NArg() > 0 {
		return fmt.Errorf("rpc: there is no command %q: it is call, bench, or none to serve", fs.Arg(0))
	}
	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	opts.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	opts.Limits.Total = 2*opts.Limits.Bulk + 1<<20

	l, err := listen(*addr, *cert, *key)
	if err != nil {
		return fmt.Errorf("rpc: %w", err)
	}
	opts.Log.Info("listening", "addr", l.Addr().String(), "tls", *cert != "", "pid", os.Getpid())
	s := NewServer(opts)
	demo(s)
	if err := s.Serve(ctx, l); err != nil {
		return err
	}
	opts.Log.Info("stopped")
	return nil
}

func listen(addr, cert, key string) (net.Listener, error) {
	if cert == "" && key == "" {
		return net.Listen("tcp", addr)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	return tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
}

// clientFlags are the flags that call and bench have in common.
func clientFlags(fs *flag.FlagSet, opts *Options) (finish func() error) {
	fs.StringVar(&opts.Password, "password", "", "the server's password")
	ca := fs.String("tls-ca", "", "`file` with the certificate that the server's is signed by; speak TLS")
	return func() error {
		if *ca == "" {
			return nil
		}
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return fmt.Errorf("rpc: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return fmt.Errorf("rpc: %s has no certificate", *ca)
		}
		opts.TLS = &tls.Config{RootCAs: roots}
		return nil
	}
}

// callOnce makes one call and prints the reply.
func callOnce(ctx context.Context, out io.Writer, args []string) error {
	fs := flag.NewFlagSet("rpc call", flag.ExitOnError)
	var opts Options
	finish := clientFlags(fs, &opts)
	timeout := fs.Duration("timeout", 5*time.Second, "time that the call may take")
	fs.Parse(args)
	if fs.NArg() < 2 {
		return errors.New("usage: rpc call [flags] ADDR METHOD [ARGUMENT...]")
	}
	if err := finish(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	c, err := Dial(ctx, fs.Arg(0), opts)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	var payload [][]byte
	for _, arg := range fs.Args()[2:] {
		payload = append(payload, []byte(arg))
	}
	reply, err := c.CallRaw(ctx, nil, fs.Arg(1), payload...)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s\n", reply)
	return err
}
