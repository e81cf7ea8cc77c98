package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// dialSocket returns a socket, and the connection at its other end.
func dialSocket(t *testing.T) (socket, peer net.Conn) {
	t.Helper()
	peers := make(chan net.Conn)
	addr := listenFake(t, func(conn net.Conn) {
		peers <- conn
		<-peers // so that it is not closed
	})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		peers <- nil
	})
	return newSocket(conn), <-peers
}

func TestSocket(t *testing.T) {
	s, peer := dialSocket(t)
	io.WriteString(peer, "hello")
	b := make([]byte, 9)
	if n, err := s.Read(b); string(b[:n]) != "hello" || err != nil {
		t.Errorf("Read: %q and %v", b[:n], err)
	}

	// tryWrite ends without an error when the peer takes no more, and Write waits.
	block := bytes.Repeat([]byte("0123456789abcdef"), 64<<10)
	tried := 0
	for {
		n, err := tryWrite(s, block)
		tried += n
		if err != nil {
			t.Fatal(err)
		}
		if n < len(block) {
			break
		}
	}
	s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	n, err := s.Write(block)
	if n == len(block) || !isTimeout(err) || !isWriteError(err) {
		t.Errorf("Write after the deadline: %d and %v", n, err)
	}
	s.SetWriteDeadline(time.Time{})
	go func() {
		s.Write(block[n:])
		closeWrite(s)
	}()
	got, err := io.ReadAll(peer)
	if len(got) != tried+len(block) || err != nil || !bytes.Equal(got[tried:], block) {
		t.Errorf("the peer got %d bytes and %v, want %d", len(got), err, tried+len(block))
	}

	s.SetReadDeadline(past)
	if n, err := s.Read(b); n != 0 || !isTimeout(err) || isWriteError(err) {
		t.Errorf("Read after the deadline: %d and %v", n, err)
	}
	s.SetReadDeadline(time.Time{})
	peer.Close()
	if n, err := s.Read(b); n != 0 || err != io.EOF {
		t.Errorf("Read at the end: %d and %v, want io.EOF", n, err)
	}
	for err = nil; err == nil; { // the first one is answered with a reset
		_, err = s.Write(b)
	}
	if !isWriteError(err) {
		t.Errorf("Write to a peer that is gone: %v", err)
	}
	s.Close()
	if _, err := s.Read(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read after Close: %v", err)
	}
	if _, err := s.Write(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

func TestSocketAllocs(t *testing.T) {
	s, peer := dialSocket(t)
	go io.Copy(peer, peer)
	b := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		s.Write(b)
		tryWrite(s, b)
		for n := 0; n < 2*len(b); {
			k, _ := s.Read(b)
			n += k
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
