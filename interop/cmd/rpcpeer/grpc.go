package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/secmask/go-redisproto/interop/cmd/rpcpeer/peerpb"
)

type grpcService struct{ peerpb.UnimplementedPeerServer }

func (grpcService) Echo(_ context.Context, in *peerpb.Payload) (*peerpb.Payload, error) {
	return in, nil
}

func (grpcService) Add(_ context.Context, in *peerpb.AddRequest) (*peerpb.AddReply, error) {
	return &peerpb.AddReply{Sum: in.A + in.B}, nil
}

func serveGRPC(l net.Listener) error {
	s := grpc.NewServer()
	peerpb.RegisterPeerServer(s, grpcService{})
	return s.Serve(l)
}

type grpcPeer struct{ c peerpb.PeerClient }

// dialGRPC makes one connection, as a grpc.ClientConn to one address does.
func dialGRPC(addr string, _ int) (peer, error) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return grpcPeer{peerpb.NewPeerClient(conn)}, nil
}

func (p grpcPeer) Echo(ctx context.Context, payload []byte) ([]byte, error) {
	out, err := p.c.Echo(ctx, &peerpb.Payload{Data: payload})
	return out.GetData(), err
}

func (p grpcPeer) Add(ctx context.Context, a, b int64, note string) (int64, error) {
	out, err := p.c.Add(ctx, &peerpb.AddRequest{A: a, B: b, Note: note})
	return out.GetSum(), err
}
