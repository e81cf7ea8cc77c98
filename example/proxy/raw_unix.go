//go:build unix

package main

import (
	"io"
	"net"
	"syscall"
)

// A tcpWriter writes to a socket without waiting for it.
type tcpWriter struct {
	conn syscall.RawConn
	try  func(fd uintptr) (done bool) // made once, so that a write allocates nothing
	b    []byte
	n    int
	err  error
}

func newRawWriter(conn net.Conn) rawWriter {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return unwilling{}
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return unwilling{}
	}
	w := &tcpWriter{conn: rc}
	w.try = func(fd uintptr) bool {
		w.n, w.err = syscall.Write(int(fd), w.b)
		return true
	}
	return w
}

func (w *tcpWriter) write(b []byte) (int, error) {
	w.b = b
	err := w.conn.Write(w.try)
	w.b = nil
	if err != nil {
		return 0, err
	}
	switch {
	case w.err == syscall.EAGAIN || w.err == syscall.EINTR:
		return 0, nil
	case w.err != nil:
		return 0, w.err
	case w.n == 0 && len(b) > 0:
		return 0, io.ErrUnexpectedEOF
	}
	return w.n, nil
}

// descriptors is how many files this process may have open.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<30))
}
