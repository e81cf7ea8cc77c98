// Command kv is an in-memory server that Redis's clients and tools take for Redis: a start to copy,
// not a database. Its -help lists the commands, and what is not there.
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
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is main; it returns the exit status.
func run(args []string) int {
	cfg, err := parseFlags(args)
	if err == flag.ErrHelp {
		return 0
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "kv:", err)
		return 2
	}
	level := slog.LevelInfo
	if cfg.verbose {
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

	listener, err := listen(cfg.addr, cfg.cert, cfg.key)
	if err != nil {
		log.Error("cannot listen", "err", err)
		return 1
	}
	log.Info("listening", "addr", listener.Addr().String(), "tls", cfg.cert != "", "pid", os.Getpid())
	newServer(cfg, log).serve(ctx, listener)
	return 0
}

func listen(addr, cert, key string) (net.Listener, error) {
	if cert == "" {
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
	addr         string
	cert, key    string        // files, for TLS
	verbose      bool          // logs
	password     string        // "" for none
	maxClients   int           // connections
	timeout      time.Duration // without a request, before a client is closed; 0 is never
	writeTimeout time.Duration // for a client to take writeChunk bytes, before it is closed
	drainTimeout time.Duration // for clients to take their last replies, once told to stop
	outputLimit  int           // bytes of messages that wait for a subscriber, before it is closed
}

// The output limit is Redis's for subscribers.
var defaults = config{
	addr:         ":6380",
	maxClients:   10000,
	writeTimeout: 20 * time.Second,
	drainTimeout: 5 * time.Second,
	outputLimit:  32 << 20,
}

// parseFlags returns an error of one line that names the flag, or flag.ErrHelp after printing the help.
func parseFlags(args []string) (cfg config, err error) {
	cfg = defaults
	fs := flag.NewFlagSet("kv", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&cfg.addr, "addr", cfg.addr, "`address` to listen on")
	fs.StringVar(&cfg.password, "requirepass", "", "`password` that clients must give with AUTH; better said in the environment,\nas KV_REQUIREPASS, or in a file, since all users see a process's flags")
	fs.Func("requirepass-file", "`file` that holds that password and nothing else", func(name string) error {
		b, err := os.ReadFile(name)
		cfg.password = strings.TrimRight(string(b), "\r\n")
		if err == nil && cfg.password == "" {
			err = errors.New("it is empty")
		}
		return err
	})
	fs.IntVar(&cfg.maxClients, "maxclients", cfg.maxClients, "connections at a time; more are refused")
	fs.DurationVar(&cfg.timeout, "timeout", 0, "close a client after so long without a request; 0 is never")
	fs.StringVar(&cfg.cert, "tls-cert", "", "certificate `file`; with -tls-key, the server speaks TLS")
	fs.StringVar(&cfg.key, "tls-key", "", "private key `file`")
	fs.BoolVar(&cfg.verbose, "v", false, "log connections too")
	switch err = fs.Parse(args); {
	case err == flag.ErrHelp:
		fs.SetOutput(os.Stdout)
		fmt.Print(about())
		fs.PrintDefaults()
	case err != nil:
	case fs.NArg() > 0:
		err = fmt.Errorf("argument %q: there are flags only", fs.Arg(0))
	case cfg.maxClients < 1:
		err = fmt.Errorf("-maxclients %d: want 1 or more", cfg.maxClients)
	case cfg.timeout < 0:
		err = fmt.Errorf("-timeout %v: want 0 or more", cfg.timeout)
	case (cfg.cert == "") != (cfg.key == ""):
		err = fmt.Errorf("-tls-cert %q -tls-key %q: want both or neither", cfg.cert, cfg.key)
	}
	if cfg.password == "" {
		cfg.password = os.Getenv("KV_REQUIREPASS")
	}
	return cfg, err
}

// about says what the server has and what it has not.
func about() string {
	text := fmt.Sprintf("kv keeps data in memory and answers %d commands as Redis %s does:\n\n", len(commands), version)
	for names := range slices.Chunk(slices.Sorted(maps.Keys(commands)), 9) {
		text += "  " + strings.Join(names, " ") + "\n"
	}
	return text + `
Not there: transactions, scripts, SCAN and KEYS, blocking commands, PSUBSCRIBE, streams, users other
than default, persistence, replication; EXAT and PXAT of SET; NX, XX, GT and LT of EXPIRE; the options
of ZADD; those of ZRANGE but WITHSCORES. Flags:

`
}
