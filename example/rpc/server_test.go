package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secmask/go-redisproto"
)

// TestRequests has what clients send and what they get, on one connection.
func TestRequests(t *testing.T) {
	s := start(t, quiet(), "", func(s *Server) {
		demo(s)
		HandleRaw(s, "sum.lengths", -2, func(_ context.Context, args [][]byte, w *redisproto.Writer) error {
			n := 0
			for _, arg := range args {
				n += len(arg)
			}
			return w.WriteInt(int64(n))
		})
		Handle(s, "left", func(ctx context.Context, _ struct{}) (bool, error) {
			_, ok := ctx.Deadline()
			return ok, nil
		})
	})
	const expects = "a JSON payload like {\"a\":0,\"b\":0}"
	for _, tt := range []struct {
		name, request, reply string
	}{
		{"typed", words("calc.add", `{"a": 19, "b": 23}`), bulk(`{"sum":42}`)},
		{"inline", "calc.add '{\"a\": 19, \"b\": 23}'\r\n", bulk(`{"sum":42}`)},
		{"raw", words("echo", "hi"), bulk("hi")},
		{"an empty argument", words("echo", ""), bulk("")},
		{"a name in capitals", words("CALC.Add", `{"a":1}`), bulk(`{"sum":1}`)},
		{"a code", words("calc.add", `{"a":9223372036854775807,"b":1}`), "-OVERFLOW the sum is not an int64\r\n"},
		{"negative numbers", words("calc.add", `{"a":-9223372036854775808,"b":-1}`), "-OVERFLOW the sum is not an int64\r\n"},
		{"zero", words("calc.add", `{"a":5,"b":0}`), bulk(`{"sum":5}`)},

		{"no payload", words("Calc.Add"), "-ERR calc.add: wrong number of arguments: expected " + expects + ", got 0\r\n"},
		{"too many arguments", words("calc.add", "1", "2", "3", "4"), "-ERR calc.add: wrong number of arguments: expected " + expects + ", got 4\r\n"},
		{"not JSON", words("calc.add", "x"), "-ERR calc.add: the payload does not decode: invalid character 'x' looking for beginning of value; expected " + expects + "\r\n"},
		{"an empty payload", words("calc.add", ""), "-ERR calc.add: the payload does not decode: unexpected end of JSON input; expected " + expects + "\r\n"},
		{"no argument", words("ECHO"), "-ERR echo: wrong number of arguments: expected 1 argument, got 0\r\n"},
		{"too few", words("sum.lengths", "a"), "-ERR sum.lengths: wrong number of arguments: expected at least 2 arguments, got 1\r\n"},
		{"unknown", words("nope\r\n+OK", "x"), "-ERR unknown command 'nope  +OK': there is no such method; COMMAND DOCS lists those that there are\r\n"},

		{"a deadline", words("left", "{}", "TIMEOUT", "1000"), bulk("true")},
		{"a deadline in small letters", words("left", "{}", "timeout", "1"), bulk("true")},
		{"no deadline", words("left", "{}"), bulk("false")},
		{"a raw method's deadline", words("echo", "hi", "TIMEOUT", "8796093022207"), bulk("hi")},
		{"any number of arguments", words("sum.lengths", "a", "bc", "def"), ":6\r\n"},
		{"any number of arguments, and a deadline", words("sum.lengths", "a", "bc", "TIMEOUT", "5"), ":3\r\n"},
		{"arguments that look like a deadline", words("sum.lengths", "TIMEOUT", "5"), ":8\r\n"},
		{"no milliseconds", words("echo", "hi", "TIMEOUT"), "-ERR echo: expected 1 argument, or that and TIMEOUT <ms> behind it; got 'TIMEOUT' behind it\r\n"},
		{"another word", words("echo", "hi", "WITHIN", "5"), "-ERR echo: expected 1 argument, or that and TIMEOUT <ms> behind it; got 'WITHIN' behind it\r\n"},
		{"no number", words("echo", "hi", "TIMEOUT", "5s"), "-ERR echo: TIMEOUT: expected milliseconds from 1 to 8796093022207, got '5s'\r\n"},
		{"an empty number", words("echo", "hi", "TIMEOUT", ""), "-ERR echo: TIMEOUT: expected milliseconds from 1 to 8796093022207, got ''\r\n"},
		{"zero milliseconds", words("echo", "hi", "TIMEOUT", "0"), "-ERR echo: TIMEOUT: expected milliseconds from 1 to 8796093022207, got '0'\r\n"},
		{"a negative number", words("echo", "hi", "TIMEOUT", "-1"), "-ERR echo: TIMEOUT: expected milliseconds from 1 to 8796093022207, got '-1'\r\n"},
		{"a number too large", words("echo", "hi", "TIMEOUT", "8796093022208"), "-ERR echo: TIMEOUT: expected milliseconds from 1 to 8796093022207, got '8796093022208'\r\n"},
		{"a number beyond int64", words("echo", "hi", "TIMEOUT", strings.Repeat("9", 100)), "-ERR echo: TIMEOUT: expected milliseconds from 1 to 8796093022207, got '" + strings.Repeat("9", 64) + "...'\r\n"},

		{"ping", words("PING"), "+PONG\r\n"},
		{"ping with text", words("ping", "x"), bulk("x")},
		{"client setinfo", words("CLIENT", "SETINFO", "LIB-NAME", "x"), "+OK\r\n"},
		{"client tracking", words("CLIENT", "TRACKING", "ON"), "-ERR unknown subcommand 'TRACKING' of CLIENT, or wrong number of arguments\r\n"},
		{"command count", words("COMMAND", "COUNT"), ":5\r\n"},
		{"command docs of none", words("COMMAND", "DOCS", "nope"), "*0\r\n"},
		{"auth without a password", words("AUTH", "x"), "-ERR AUTH was called, but this server has no password\r\n"},
		{"hello of a protocol that is none", words("HELLO", "4"), "-NOPROTO unsupported protocol version\r\n"},
		{"command docs", words("COMMAND", "DOCS", "CALC.ADD"), "*2\r\n" + bulk("calc.add") + "*8\r\n" +
			bulk("summary") + bulk("Adds two numbers.") + bulk("since") + bulk("1.0.0") + bulk("group") + bulk("rpc") + bulk("arguments") + "*2\r\n" +
			"*4\r\n" + bulk("name") + bulk("payload") + bulk("type") + bulk("string") +
			"*8\r\n" + bulk("name") + bulk("milliseconds") + bulk("type") + bulk("integer") + bulk("token") + bulk("TIMEOUT") + bulk("flags") + "*1\r\n+optional\r\n"},
		{"quit", words("QUIT"), "+OK\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) { dialRaw(t, s.addr).want(tt.request, tt.reply) })
	}
	t.Run("a pipeline", func(t *testing.T) {
		dialRaw(t, s.addr).want(words("echo", "1")+words("nope")+words("echo", "2")+"*x\r\n", bulk("1")+
			"-ERR unknown command 'nope': there is no such method; COMMAND DOCS lists those that there are\r\n"+bulk("2")+
			"-ERR Protocol error: invalid multibulk length\r\n")
	})
}

func TestPassword(t *testing.T) {
	opts := quiet()
	opts.Password = "secret"
	s := start(t, opts, "", demo)
	c := dialRaw(t, s.addr)
	c.want(words("echo", "hi"), "-NOAUTH Authentication required.\r\n")
	c.want(words("COMMAND"), "-NOAUTH Authentication required.\r\n")
	c.want(words("AUTH", "wrong"), "-WRONGPASS invalid username-password pair or user is disabled.\r\n")
	c.want(words("AUTH", "default", "secret"), "+OK\r\n")
	c.want(words("echo", "hi"), bulk("hi"))
	c = dialRaw(t, s.addr)
	c.want(words("HELLO", "3", "AUTH", "default", "secret", "SETNAME", "x"), "%7\r\n"+bulk("server")+bulk("redis"))
	dialRaw(t, s.addr).want(words("echo", strings.Repeat("x", 20_000)), "-ERR Protocol error: unauthenticated bulk length\r\n")

	client := dial(t, s.addr, Options{Password: "secret"})
	if got, err := client.CallRaw(context.Background(), nil, "echo", []byte("hi")); string(got) != "hi" {
		t.Errorf("a client with the password: got %q, %v", got, err)
	}
	_, err := Dial(context.Background(), s.addr, Options{Password: "wrong"})
	var reply *redisproto.ReplyError
	if !errors.As(err, &reply) || reply.Code != "WRONGPASS" {
		t.Errorf("a client with a wrong password: got %v, want WRONGPASS", err)
	}
}

// TestErrorReplies has handlers that fail in all ways. The caller gets the code, and the connection lives on.
func TestErrorReplies(t *testing.T) {
	var log strings.Builder
	var mu sync.Mutex
	opts := ServerOptions{Log: slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil))}
	notFound := &redisproto.ReplyError{Code: "NOTFOUND", Message: "no such user"}
	handlers := map[string]error{
		"plain":     errors.New("it does not work"),
		"coded":     notFound,
		"wrapped":   fmt.Errorf("looking for 7: %w", notFound),
		"lowercase": &redisproto.ReplyError{Code: "notfound", Message: "x"},
		"lines":     errors.New("one\r\n+two"),
	}
	s := start(t, opts, "", func(s *Server) {
		demo(s)
		for name, err := range handlers {
			Handle(s, name, func(context.Context, struct{}) (struct{}, error) { return struct{}{}, err })
			HandleRaw(s, "raw."+name, 0, func(_ context.Context, _ [][]byte, w *redisproto.Writer) error {
				w.WriteArrayHeader(3) // is taken back
				w.WriteBulkString(strings.Repeat("x", 100_000))
				return err
			})
		}
		Handle(s, "panic", func(context.Context, struct{}) (struct{}, error) { panic("on purpose") })
		HandleRaw(s, "raw.panic", 0, func(_ context.Context, _ [][]byte, w *redisproto.Writer) error {
			w.WriteArrayHeader(3)
			w.WriteBulkFrom(panickingReader{}, 10)
			return nil
		})
		HandleRaw(s, "slow.panic", 0, func(context.Context, [][]byte, *redisproto.Writer) error { panic("slowly") }, Slow())
		HandleRaw(s, "short", 0, func(_ context.Context, _ [][]byte, w *redisproto.Writer) error {
			return w.WriteBulkFrom(strings.NewReader("short"), 10)
		})
		HandleRaw(s, "silent", 0, func(context.Context, [][]byte, *redisproto.Writer) error { return nil })
		Handle(s, "unencodable", func(context.Context, struct{}) (chan int, error) { return nil, nil })
	})
	c := dial(t, s.addr, Options{})
	for _, tt := range []struct{ method, payload, code, message string }{
		{"plain", "{}", "ERR", "it does not work"},
		{"coded", "{}", "NOTFOUND", "no such user"},
		{"wrapped", "{}", "NOTFOUND", "looking for 7: NOTFOUND no such user"},
		{"lowercase", "{}", "ERR", "notfound x"},
		{"lines", "{}", "ERR", "one  +two"},
		{"raw.plain", "", "ERR", "it does not work"},
		{"raw.coded", "", "NOTFOUND", "no such user"},
		{"panic", "{}", "ERR", "panic: internal error"},
		{"raw.panic", "", "ERR", "raw.panic: internal error"},
		{"slow.panic", "", "ERR", "slow.panic: internal error"},
		{"short", "", "ERR", "unexpected EOF"},
		{"silent", "", "ERR", "silent: the handler wrote no reply"},
		{"unencodable", "{}", "ERR", "unencodable: the reply does not encode: json: unsupported type: chan int"},
	} {
		var args [][]byte
		if tt.payload != "" {
			args = [][]byte{[]byte(tt.payload)}
		}
		_, err := c.CallRaw(context.Background(), nil, tt.method, args...)
		var reply *redisproto.ReplyError
		if !errors.As(err, &reply) || reply.Code != tt.code || reply.Message != tt.message {
			t.Errorf("%s: got %v, want %s %s", tt.method, err, tt.code, tt.message)
		}
		if sum, err := Call[AddReply](context.Background(), c, "calc.add", AddRequest{A: 1, B: 2}); err != nil || sum.Sum != 3 {
			t.Errorf("after %s: got %v, %v", tt.method, sum, err)
		}
	}
	if s.lastID != 1 {
		t.Errorf("connections: got %d, want 1", s.lastID)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, want := range []string{"on purpose", "slowly", "server_test.go:"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log.String())
		}
	}
}

// TestRESP3: a connection keeps the protocol that HELLO gave it, after a panic too, and slow calls have it.
func TestRESP3(t *testing.T) {
	null := func(_ context.Context, _ [][]byte, w *redisproto.Writer) error { return w.WriteNull() }
	s := start(t, quiet(), "", func(s *Server) {
		HandleRaw(s, "null", 0, null)
		HandleRaw(s, "null.slow", 0, null, Slow())
		HandleRaw(s, "panic", 0, func(context.Context, [][]byte, *redisproto.Writer) error { panic("on purpose") })
	})
	c := dialRaw(t, s.addr)
	c.want(words("null")+words("null.slow"), "$-1\r\n$-1\r\n")
	c.want(words("HELLO", "3"), "%7\r\n"+bulk("server")+bulk("redis")+bulk("version")+bulk("7.0.0")+bulk("proto")+":3\r\n"+
		bulk("id")+":1\r\n"+bulk("mode")+bulk("standalone")+bulk("role")+bulk("master")+bulk("modules")+"*0\r\n")
	c.want(words("panic")+words("null")+words("null.slow"), "-ERR panic: internal error\r\n_\r\n_\r\n")
	c.want(words("HELLO", "2")+words("null"), "*14\r\n")
}

type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

type panickingReader struct{}

func (panickingReader) Read([]byte) (int, error) { panic("in a reader") }

// TestRegister has the names that cannot be registered.
func TestRegister(t *testing.T) {
	for _, name := range []string{"", "two words", "line\n", "Calc.Add", "ping", "HELLO"} {
		t.Run(name, func(t *testing.T) {
			s := NewServer(quiet())
			demo(s)
			defer func() {
				if recover() == nil {
					t.Error("got no panic")
				}
			}()
			echo(s, name)
		})
	}
}

// TestSlow: calls behind a slow one are executed before it ends, their replies come after its own, and
// no more slow calls run at a time than are allowed.
func TestSlow(t *testing.T) {
	opts := quiet()
	opts.MaxSlow = 3
	g, executed := newGate(), make(chan string, 100)
	s := start(t, opts, "", func(s *Server) {
		held(s, "slow", g, Slow())
		HandleRaw(s, "fast", 1, func(_ context.Context, args [][]byte, w *redisproto.Writer) error {
			executed <- string(args[0])
			return w.WriteBulk(args[0])
		})
	})
	t.Cleanup(g.release)
	c := dialRaw(t, s.addr)
	var replies string
	io.WriteString(c, words("fast", "first"))
	replies += bulk("first")
	for i := range 5 {
		name := fmt.Sprint("slow", i)
		io.WriteString(c, words("slow", name)+words("fast", "behind "+name))
		replies += bulk(name) + bulk("behind "+name)
	}
	for _, want := range []string{"first", "behind slow0", "behind slow1", "behind slow2"} {
		if got := <-executed; got != want {
			t.Fatalf("executed: got %q, want %q", got, want)
		}
	}
	for range 3 {
		<-g.entered
	}
	c.wantReply(bulk("first"))
	replies = strings.TrimPrefix(replies, bulk("first"))
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if b, err := c.r.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("before the gate opens: got %q, %v", b, err)
	}
	if len(g.entered) > 0 || len(executed) > 0 {
		t.Fatalf("running: got %d more slow and %d more fast calls, want none", len(g.entered), len(executed))
	}
	c.SetReadDeadline(time.Now().Add(patience))
	g.release()
	c.wantReply(replies)
}

// TestSlowOrder has slow calls end in another order than they came.
func TestSlowOrder(t *testing.T) {
	gates := map[string]*gate{"a": newGate(), "b": newGate(), "c": newGate()}
	s := start(t, quiet(), "", func(s *Server) {
		HandleRaw(s, "slow", 1, func(_ context.Context, args [][]byte, w *redisproto.Writer) error {
			gates[string(args[0])].pass()
			return w.WriteBulk(args[0])
		}, Slow())
	})
	c := dialRaw(t, s.addr)
	io.WriteString(c, words("slow", "a")+words("slow", "b")+words("PING")+words("slow", "c"))
	for _, name := range []string{"c", "b", "a"} {
		<-gates[name].entered
		gates[name].release()
	}
	c.wantReply(bulk("a") + bulk("b") + "+PONG\r\n" + bulk("c"))
}

// TestBehindSlow: the replies that wait behind a slow call are bounded.
func TestBehindSlow(t *testing.T) {
	g := newGate()
	s := start(t, quiet(), "", func(s *Server) {
		held(s, "slow", g, Slow())
		echo(s, "echo")
	})
	t.Cleanup(g.release)
	c := dialRaw(t, s.addr)
	text := strings.Repeat("x", 100_000)
	const n = 100
	go io.WriteString(c, words("slow", "s")+strings.Repeat(words("echo", text), n))
	<-g.entered
	s.mu.Lock()
	var out *output
	for sc := range s.conns {
		out = sc.out
	}
	s.mu.Unlock()
	behind := func() int {
		out.mu.Lock()
		defer out.mu.Unlock()
		return out.behind
	}
	waitFor(t, "a full queue", func() bool { return behind() > mostBehind })
	time.Sleep(50 * time.Millisecond) // for it to become fuller, if nothing bounds it
	if got, most := behind(), mostBehind+2*len(text); got > most {
		t.Errorf("bytes behind a slow call: got %d, want at most %d", got, most)
	}
	g.release()
	c.wantReply(bulk("s") + strings.Repeat(bulk(text), n))
}

// TestContextEnds has handlers wait for what ends their contexts.
func TestContextEnds(t *testing.T) {
	ended := make(chan error, 1)
	entered := make(chan struct{}, 1)
	wait := func(ctx context.Context, _ [][]byte, w *redisproto.Writer) error {
		entered <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	register := func(s *Server) {
		HandleRaw(s, "wait", 0, wait)
		HandleRaw(s, "wait.slow", 0, wait, Slow())
	}
	want := func(t *testing.T, want error) {
		t.Helper()
		select {
		case got := <-ended:
			if got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		case <-time.After(patience):
			t.Fatal("the context did not end")
		}
	}
	for _, method := range []string{"wait", "wait.slow"} {
		t.Run("the connection's end, "+method, func(t *testing.T) {
			s := start(t, quiet(), "", register)
			c := dialRaw(t, s.addr)
			io.WriteString(c, words(method)+words("PING")+words("PING"))
			<-entered
			io.WriteString(c, words("PING"))
			c.Close()
			want(t, context.Canceled)
			waitFor(t, "the connection's end", func() bool { return s.connections() == 0 })
		})
		t.Run("the caller's deadline, "+method, func(t *testing.T) {
			s := start(t, quiet(), "", register)
			c := dialRaw(t, s.addr)
			c.want(words(method, "TIMEOUT", "1")+words("PING"), "-ERR context deadline exceeded\r\n+PONG\r\n")
			<-entered
			want(t, context.DeadlineExceeded)
			c.want(words("PING"), "+PONG\r\n")
		})
		t.Run("the server's shutdown, "+method, func(t *testing.T) {
			opts := quiet()
			opts.DrainTimeout = time.Millisecond
			s := start(t, opts, "", register)
			c := dialRaw(t, s.addr)
			io.WriteString(c, words(method))
			<-entered
			s.stop()
			want(t, context.Canceled)
			c.wantReply("-ERR context canceled\r\n")
			c.wantClosed()
			c.Close()
			within(t, "the server's end", s.done)
			if s.err != nil {
				t.Errorf("Serve: %v", s.err)
			}
		})
	}
}

// TestIdle: a connection without a call is closed, and one with a call that takes long is not.
func TestIdle(t *testing.T) {
	opts := quiet()
	opts.IdleTimeout = 30 * time.Millisecond
	sleep := func(ctx context.Context, _ [][]byte, w *redisproto.Writer) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * opts.IdleTimeout):
			return w.WriteSimpleString("done")
		}
	}
	s := start(t, opts, "", func(s *Server) {
		HandleRaw(s, "sleep", 0, sleep)
		HandleRaw(s, "sleep.slow", 0, sleep, Slow())
	})
	for _, method := range []string{"PING", "sleep", "sleep.slow"} {
		c := dialRaw(t, s.addr)
		reply := "+done\r\n"
		if method == "PING" {
			reply = "+PONG\r\n"
		}
		c.want(words(method), reply)
		c.wantClosed()
	}
}

func TestMaxConns(t *testing.T) {
	opts := quiet()
	opts.MaxConns = 1
	s := start(t, opts, "", demo)
	first := dialRaw(t, s.addr)
	first.want(words("PING"), "+PONG\r\n")
	c := dialRaw(t, s.addr)
	c.wantReply("-ERR max number of clients reached\r\n")
	c.wantClosed()
	if _, err := Dial(context.Background(), s.addr, Options{}); err == nil || !strings.Contains(err.Error(), "max number of clients") {
		t.Errorf("Dial over the limit: got %v", err)
	}
	first.want(words("QUIT"), "+OK\r\n")
	first.wantClosed()
	first.Close()
	waitFor(t, "the first one's end", func() bool { return s.connections() == 0 })
	dialRaw(t, s.addr).want(words("PING"), "+PONG\r\n")
}
