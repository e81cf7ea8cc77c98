package main

import (
	"context"
	"fmt"
	"net"
)

// serveCalc is a whole service. The types of its payloads are in main.go.
func serveCalc(ctx context.Context, listener net.Listener) error {
	server := NewServer(ServerOptions{})
	Handle(server, "calc.add", func(ctx context.Context, in AddRequest) (AddReply, error) {
		return AddReply{Sum: in.A + in.B}, nil
	}, Summary("Adds two numbers."))
	return server.Serve(ctx, listener)
}

// callCalc calls it.
func callCalc(ctx context.Context, addr string) (sum int64, err error) {
	client, err := Dial(ctx, addr, Options{})
	if err != nil {
		return 0, err
	}
	defer client.Close(ctx)
	reply, err := Call[AddReply](ctx, client, "calc.add", AddRequest{A: 19, B: 23})
	return reply.Sum, err
}

func Example() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error)
	go func() { served <- serveCalc(ctx, listener) }()
	fmt.Println(callCalc(ctx, listener.Addr().String()))
	stop()
	fmt.Println(<-served)
	// Output:
	// 42 <nil>
	// <nil>
}
