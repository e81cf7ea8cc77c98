package main

import (
	"context"
	"net"
	"net/rpc"
)

// The types are exported because package rpc asks for it.
type (
	Payload    struct{ Data []byte }
	AddRequest struct {
		A, B int64
		Note string
	}
	AddReply struct{ Sum int64 }
)

type netRPCService struct{}

func (netRPCService) Echo(in *Payload, out *Payload) error {
	*out = *in
	return nil
}

func (netRPCService) Add(in *AddRequest, out *AddReply) error {
	out.Sum = in.A + in.B
	return nil
}

func serveNetRPC(l net.Listener) error {
	s := rpc.NewServer()
	if err := s.RegisterName("Peer", netRPCService{}); err != nil {
		return err
	}
	s.Accept(l)
	return nil
}

type netRPCPeer struct{ c *rpc.Client }

func dialNetRPC(addr string, _ int) (peer, error) {
	c, err := rpc.Dial("tcp", addr)
	return netRPCPeer{c}, err
}

func (p netRPCPeer) Echo(_ context.Context, data []byte) ([]byte, error) {
	var out Payload
	err := p.c.Call("Peer.Echo", &Payload{data}, &out)
	return out.Data, err
}

func (p netRPCPeer) Add(_ context.Context, a, b int64, note string) (int64, error) {
	var out AddReply
	err := p.c.Call("Peer.Add", &AddRequest{a, b, note}, &out)
	return out.Sum, err
}
