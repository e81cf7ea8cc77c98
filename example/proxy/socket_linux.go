package main

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// A socket is a TCP connection whose system calls Go's scheduler does not see. One goroutine may read and
// one may write at a time.
//
// The scheduler lets another thread run when a system call takes longer than about 20 µs, and while there are
// such calls its monitor wakes up every 20 µs. This program does little else than to read and to write, so that
// takes up to a third of its time. No system call of a socket waits, so the scheduler need not see it.
type socket struct {
	net.Conn
	raw syscall.RawConn

	// What read and write do once the connection is ready. They are made once, so that nothing is allocated.
	read, write func(fd uintptr) (done bool)

	in       []byte // where to read to
	got      int    // bytes that were read
	readErr  error
	out      []byte // what to write
	written  int    // bytes of out
	waits    bool   // write goes on until all of out is written
	writeErr error
}

// newSocket makes a socket of a TCP connection. It returns any other connection, as one of TLS, as it is.
func newSocket(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	s := &socket{Conn: conn, raw: raw}
	s.read = func(fd uintptr) bool {
		s.got, s.readErr = transfer(syscall.SYS_READ, fd, s.in)
		return s.readErr != syscall.EAGAIN
	}
	s.write = func(fd uintptr) bool {
		n, err := transfer(syscall.SYS_WRITE, fd, s.out[s.written:])
		s.written += n
		if err == syscall.EAGAIN {
			return !s.waits
		}
		s.writeErr = err
		return err != nil || !s.waits || s.written == len(s.out)
	}
	return s
}

// transfer has the system move bytes from or to a file. It returns EAGAIN if it would have to wait.
func transfer(call, fd uintptr, b []byte) (n int, err error) {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

func (s *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.in = b
	err := s.raw.Read(s.read)
	s.in = nil
	if err == nil {
		err = s.readErr
	}
	switch {
	case err != nil:
		return 0, s.opError("read", err)
	case s.got == 0:
		return 0, io.EOF
	}
	return s.got, nil
}

func (s *socket) Write(b []byte) (int, error) { return s.writeOut(b, true) }

// tryWrite writes as much as a connection takes at once. Fewer bytes than all without an error means that it
// takes no more for now.
func tryWrite(conn net.Conn, b []byte) (int, error) {
	if s, ok := conn.(*socket); ok {
		return s.writeOut(b, false)
	}
	return 0, nil
}

func (s *socket) writeOut(b []byte, waits bool) (int, error) {
	s.out, s.written, s.waits, s.writeErr = b, 0, waits, nil
	err := s.raw.Write(s.write)
	s.out = nil
	if err == nil {
		err = s.writeErr
	}
	if err != nil {
		err = s.opError("write", err)
	}
	return s.written, err
}

// opError makes an error what it is if package net reads or writes.
func (s *socket) opError(op string, err error) error {
	var inner *net.OpError // of a deadline, or of a connection that is closed
	if errors.As(err, &inner) {
		err = inner.Err
	} else {
		err = os.NewSyscallError(op, err)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: err}
}

// CloseWrite tells the peer that nothing more comes.
func (s *socket) CloseWrite() error { return closeWrite(s.Conn) }

// descriptors is how many files this process may have open.
func descriptors() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return int(min(uint64(limit.Cur), 1<<30))
}
