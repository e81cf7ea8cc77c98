// Command kv is an in-memory server that Redis's clients and tools take for Redis: a start to copy,
// not a database.
//
//	go run ./example/kv -addr :6380
//	redis-cli -p 6380
//
// From the outside in:
//
//	main.go      flags, listener, signals
//	server.go    accepting, refusing, draining; one client's loop and its output
//	commands.go  the table of commands, dispatch, the connection's own commands
//	pubsub.go    messages between connections
//	data.go      keys, expiry, replies; then a file for each family of commands
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is main; it returns the exit status.
func run(args []string) int {
	fs := flag.NewFlagSet("kv", flag.ExitOnError)
	addr := fs.String("addr", ":6380", "address to listen on")
	cfg := defaults
	fs.StringVar(&cfg.password, "requirepass", "", "password that clients must give with AUTH")
	fs.IntVar(&cfg.maxClients, "maxclients", cfg.maxClients, "connections at a time; more are refused")
	fs.DurationVar(&cfg.timeout, "timeout", 0, "close a client after so long without a request; 0 is never")
	cert := fs.String("tls-cert", "", "certificate file; with -tls-key, the server speaks TLS")
	key := fs.String("tls-key", "", "private key file")
	verbose := fs.Bool("v", false, "log connections too")
	fs.Parse(args)

	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if os.Getenv("GOMAXPROCS") == "" {
		// A command takes far less time than to read and answer it, and the data has one lock: a thread
		// for each processor spends more on waking the others than it brings. The other half is left
		// to the kernel's side of the network.
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	listener, err := listen(*addr, *cert, *key)
	if err != nil {
		log.Error("cannot listen", "err", err)
		return 1
	}
	log.Info("listening", "addr", listener.Addr().String(), "tls", *cert != "", "pid", os.Getpid())
	newServer(cfg, log).serve(ctx, listener)
	return 0
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

// config is what an operator may want to change.
type config struct {
	password     string        // "" for none
	maxClients   int           // connections
	timeout      time.Duration // without a request, before a client is closed; 0 is never
	writeTimeout time.Duration // for a client to take writeChunk bytes, before it is closed
	drainTimeout time.Duration // for clients to take their last replies, once told to stop
	outputLimit  int           // bytes of messages that wait for a subscriber, before it is closed
}

// The output limit is Redis's for subscribers.
var defaults = config{
	maxClients:   10000,
	writeTimeout: 20 * time.Second,
	drainTimeout: 5 * time.Second,
	outputLimit:  32 << 20,
}
