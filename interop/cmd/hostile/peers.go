package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/gomodule/redigo/redis"
	"github.com/mediocregopher/radix/v4/resp"
	"github.com/mediocregopher/radix/v4/resp/resp3"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/redis/rueidis"
	"github.com/secmask/go-redisproto"
	"github.com/tidwall/redcon"
	tidwall "github.com/tidwall/resp"
)

// A peer opens a case and returns what reads it to its end and tells how that came about. What open
// does is not measured.
type peer struct {
	name string
	open func(c *hostileCase) (read func() string, err error)
}

var tables = []struct {
	name, title string
	cases       []*hostileCase
	peers       []peer
}{
	{"replies", "A server sends:", replyCases, replyPeers},
	{"requests", "A client sends:", requestCases, requestPeers},
}

// reader makes a peer of a function that reads one reply of a stream.
func reader(name string, make func(io.Reader) (read func() error)) peer {
	return peer{name, func(c *hostileCase) (func() string, error) {
		read := make(c.stream())
		return func() string { return outcome(read()) }, nil
	}}
}

// outcome says what a parser made of one reply. All streams end before the reply is whole.
func outcome(err error) string {
	switch {
	case err == nil:
		return "a reply"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "waits for more"
	}
	return "error"
}

var replyPeers = []peer{
	reader("redisproto", func(r io.Reader) func() error {
		p := redisproto.NewReplyParser(r)
		return func() error { _, err := p.ReadReply(); return err }
	}),
	{"go-redis", openGoRedis},
	{"rueidis", openRueidis},
	reader("redigo", func(r io.Reader) func() error {
		c := redis.NewConn(conn{r}, 0, 0)
		return func() error { _, err := c.Receive(); return err }
	}),
	reader("radix", func(r io.Reader) func() error {
		br, opts := bufio.NewReader(r), resp.NewOpts()
		return func() error { var v any; return resp3.Unmarshal(br, &v, opts) }
	}),
	reader("tidwall-resp", func(r io.Reader) func() error {
		rd := tidwall.NewReader(r)
		return func() error { _, _, err := rd.ReadValue(); return err }
	}),
	// This one is given bytes, and tells neither what is wrong nor what is missing.
	{"redcon", func(c *hostileCase) (func() string, error) {
		b := c.bytes()
		return func() string {
			if n, _ := redcon.ReadNextRESP(b); n == 0 {
				return "no reply"
			}
			return "a reply"
		}, nil
	}},
}

// conn is a net.Conn that gives what a reader does and takes everything.
type conn struct{ io.Reader }

func (conn) Write(b []byte) (int, error)      { return len(b), nil }
func (conn) Close() error                     { return nil }
func (conn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (conn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (conn) SetDeadline(time.Time) error      { return nil }
func (conn) SetReadDeadline(time.Time) error  { return nil }
func (conn) SetWriteDeadline(time.Time) error { return nil }

// dial connects a client to a server that has the case for an answer to GET and knows no other
// command.
func dial(c *hostileCase) net.Conn {
	client, srv := net.Pipe()
	go func() {
		defer srv.Close()
		p, w := redisproto.NewParser(srv), redisproto.NewWriter(srv)
		for {
			cmd, err := p.ReadCommand()
			if err != nil {
				return
			}
			if string(cmd.Name()) == "GET" {
				io.Copy(struct{ io.Writer }{srv}, c.stream())
				return
			}
			w.WriteError("ERR unknown command '" + string(cmd.Get(0)) + "'")
		}
	}()
	return client
}

// openGoRedis and openRueidis use the clients, whose parsers are internal.
func openGoRedis(c *hostileCase) (func() string, error) {
	client := goredis.NewClient(&goredis.Options{
		Protocol: 2, DisableIdentity: true, PoolSize: 1, MaxRetries: -1, ReadTimeout: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		Dialer:                   func(context.Context, string, string) (net.Conn, error) { return dial(c), nil },
	})
	return func() string { return outcome(client.Do(context.Background(), "GET", "k").Err()) }, nil
}

func openRueidis(c *hostileCase) (func() string, error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"127.0.0.1:6379"}, ForceSingleClient: true, AlwaysRESP2: true,
		DisableCache: true, DisableRetry: true, ConnWriteTimeout: *timeout,
		DialCtxFn: func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return dial(c), nil },
	})
	if err != nil {
		return nil, err
	}
	return func() string {
		return outcome(client.Do(context.Background(), client.B().Arbitrary("GET", "k").Build()).Error())
	}, nil
}

// commands makes a peer of a function that reads one command of a stream and returns its name and
// how many arguments it has. All commands of the stream are read.
func commands(name string, make func(io.Reader) (read func() (string, int, error))) peer {
	return peer{name, func(c *hostileCase) (func() string, error) {
		read := make(c.stream())
		return func() string {
			var ends []string
			for {
				name, n, err := read()
				if err != nil {
					return strings.Join(append(ends, commandError(err)), ", ")
				}
				ends = append(ends, commandRead(name, n))
			}
		}, nil
	}}
}

func commandRead(name string, n int) string {
	switch {
	case n == 0:
		return "empty"
	case n > 1:
		return fmt.Sprintf("%s of %d arguments", name, n)
	}
	return fmt.Sprintf("%q", name)
}

func commandError(err error) string {
	switch {
	case err == io.EOF:
		return "end"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "waits for more"
	}
	return "error"
}

var requestPeers = []peer{
	commands("redisproto", func(r io.Reader) func() (string, int, error) {
		p := redisproto.NewParser(r)
		return func() (string, int, error) {
			c, err := p.ReadCommand()
			return string(c.Get(0)), c.ArgCount(), err
		}
	}),
	commands("redisproto, Parse", func(r io.Reader) func() (string, int, error) {
		var p redisproto.Parser
		return pieces(r, func(b []byte) (string, int, int, error) {
			c, n, err := p.Parse(b)
			return string(c.Get(0)), c.ArgCount(), n, err
		})
	}),
	commands("redcon", func(r io.Reader) func() (string, int, error) {
		rd := redcon.NewReader(r)
		return func() (string, int, error) {
			c, err := rd.ReadCommand()
			if err != nil || len(c.Args) == 0 {
				return "", 0, err
			}
			return string(c.Args[0]), len(c.Args), nil
		}
	}),
	commands("redcon, ReadNextCommand", func(r io.Reader) func() (string, int, error) {
		return pieces(r, func(b []byte) (string, int, int, error) {
			complete, args, _, left, err := redcon.ReadNextCommand(b, nil)
			if err != nil || !complete {
				return "", 0, 0, err
			}
			return string(bytes.Join(args[:min(1, len(args))], nil)), len(args), len(b) - len(left), nil
		})
	}),
	commands("tidwall-resp", func(r io.Reader) func() (string, int, error) {
		rd := tidwall.NewReader(r)
		return func() (string, int, error) {
			v, _, _, err := rd.ReadMultiBulk()
			args := v.Array()
			if err != nil || len(args) == 0 {
				return "", 0, err
			}
			return args[0].String(), len(args), nil
		}
	}),
	{"miniredis", openMiniredis},
}

// pieces reads as an event loop does that parses from a buffer of its own: it appends what a read
// gives and tries again. parse returns the name of a command, its arguments and how many bytes it took.
func pieces(r io.Reader, parse func([]byte) (string, int, int, error)) func() (string, int, error) {
	var held []byte
	buf := make([]byte, 4096)
	var end error
	return func() (string, int, error) {
		for {
			name, args, n, err := parse(held)
			if n > 0 || err != nil {
				held = held[n:]
				return name, args, err
			}
			if end != nil && len(held) > 0 {
				return "", 0, io.ErrUnexpectedEOF
			} else if end != nil {
				return "", 0, end
			}
			n, end = r.Read(buf)
			held = append(held, buf[:n]...)
		}
	}
}

// openMiniredis serves a connection. The server tells nobody of an error: it closes the connection.
func openMiniredis(c *hostileCase) (func() string, error) {
	s, done := server.NewServerConn(), make(chan struct{})
	var ends []string
	s.SetPreHook(func(_ *server.Peer, name string, args ...string) bool {
		ends = append(ends, commandRead(name, len(args)+1))
		return true
	})
	return func() string {
		s.ServeConn(&served{conn{c.stream()}, done})
		<-done
		s.Close()
		return strings.Join(append(ends, "closes"), ", ")
	}, nil
}

// served is a conn that tells when the server has closed it.
type served struct {
	conn
	closed chan struct{}
}

func (s *served) Close() error {
	select {
	case <-s.closed:
	default:
		close(s.closed)
	}
	return nil
}
