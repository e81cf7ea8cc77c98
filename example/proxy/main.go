// Command proxy stands between Redis's clients and a Redis, or a whole Redis Cluster, and is one Redis
// to them:
//
//	go run ./example/proxy -listen :6390 -upstream 127.0.0.1:6379
//	go run ./example/proxy -listen :6390 -cluster 127.0.0.1:7001,127.0.0.1:7002
//
// This is the way of a command from the client to the node, and of its reply back:
//
//	main.go         the program: flags, signals
//	flags.go        what the flags say, and whether it makes sense
//	proxy.go        accepts clients, drains, and looks after what takes too long
//	session.go      one client: reads its commands, one after the other
//	input.go        what a session reads from its client
//	commands.go     what is known of each command, and which ones are refused
//	own.go          sends a command on a link that only its client uses
//	route.go        decides which link a command goes to where links are shared
//	local.go        answers what a shared link must not remember: HELLO, AUTH, CLIENT
//	batch.go        collects what goes to the links, and sends it
//	node.go         makes the links to a node
//	link.go         one connection to a node: sends calls, reads replies
//	match.go        finds the call that a reply belongs to
//	call.go         puts replies in the order of the commands
//	output.go       writes them to the client
//	large.go        passes on commands and replies that are too large to be held
//	socket….go      makes the system calls that read and write
//	redirect.go     sends again what was not executed
//	wire.go         makes commands and replies of the proxy's own
//	unblock.go      ends what waits for others
//	slowlog.go      logs slow commands
//	metrics.go      serves what is counted
//
// With a cluster, there are also:
//
//	cluster.go      decides which nodes a command goes to
//	table.go        what the nodes themselves say of each command
//	keys.go         which arguments of a command are keys
//	slot.go         which slot a key has
//	topology.go     which node serves a slot, as most nodes see it
//	nodesview.go    how one node sees that
//	gather.go       splits a command, and makes one reply of several
//	scan.go         SCAN, from slot to slot, with the patterns of glob.go
//	transaction.go  MULTI and WATCH, which are on one node
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is main; it returns the exit status.
func run(args []string) int {
	o, err := parseFlags(args, os.Stderr)
	if err != nil {
		return 2
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if os.Getenv("GOMAXPROCS") == "" {
		// Nearly all work here is to read and to write, and most of that is the kernel's. With a thread for
		// each processor, fewer commands gather for one write, and the threads wake each other more often.
		runtime.GOMAXPROCS(max(1, runtime.GOMAXPROCS(0)/2))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	p, listener, err := o.open(ctx, log)
	if err == nil && o.metrics != "" {
		_, err = p.serveMetrics(o.metrics)
	}
	if err != nil {
		log.Error("cannot start", "err", err)
		return 1
	}
	log.Info("listening", "addr", listener.Addr().String())
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	p.run(ctx, listener)
	log.Info("stopped")
	return 0
}
