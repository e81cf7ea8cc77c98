package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

const (
	clientName = "interop"        // of every session but redis-cli's, which cannot
	patience   = 30 * time.Second // with a server that hangs
)

// database is the one that every session selects: that of $REDISPROTO_DB, as a cluster has only 0.
var database = func() int {
	if text := os.Getenv("REDISPROTO_DB"); text != "" {
		if n, err := strconv.Atoi(text); err == nil {
			return n
		}
		panic("REDISPROTO_DB is no number")
	}
	return 3
}()

// A session is a client as the checks use it. A reply that is an error is an error; a null is nil.
// Values are of the client's own types.
type session interface {
	do(args ...string) (any, error)
	// many sends all commands before it waits for replies; errors are among them.
	many(cmds [][]string) ([]any, error)
	// subscribe returns when the server has confirmed it. next gives the messages.
	subscribe(channel string) (next func() (string, error), end func(), err error)
	// idioms does what users of the client write, with its own types. key makes names of keys.
	idioms(t *testing.T, key func(string) string)
	close()
}

// A client is a way to open sessions, in each of the protocols.
type client struct {
	name      string
	protocols []int
	refused   string // what it says if it has a wrong password
	open      func(s *endpoint, protocol int) (session, error)
}

var clients = []client{
	{"go-redis", []int{2, 3}, "WRONGPASS", openGoRedis},
	{"rueidis", []int{2, 3}, "WRONGPASS", openRueidis},
	{"redigo", []int{2}, "WRONGPASS", openRedigo},
	{"redis-cli", []int{2, 3}, "NOAUTH", openCLI}, // the other error is on its terminal
}

// go-redis

type goRedis struct{ *goredis.Client }

func openGoRedis(s *endpoint, protocol int) (session, error) {
	c := goredis.NewClient(&goredis.Options{
		Addr: s.addr, Password: s.password, TLSConfig: s.tls(), DB: database, ClientName: clientName,
		Protocol: protocol, ReadTimeout: patience, WriteTimeout: patience, MaxRetries: -1,
	})
	return goRedis{c}, nil
}

func values(args []string) []any {
	var list []any
	for _, a := range args {
		list = append(list, a)
	}
	return list
}

func notNil(v any, err error) (any, error) {
	if err == goredis.Nil || rueidis.IsRedisNil(err) {
		return nil, nil
	}
	return v, err
}

func (c goRedis) do(args ...string) (any, error) {
	return notNil(c.Client.Do(context.Background(), values(args)...).Result())
}

func (c goRedis) many(cmds [][]string) (replies []any, err error) {
	p := c.Pipeline()
	for _, args := range cmds {
		p.Do(context.Background(), values(args)...)
	}
	results, err := p.Exec(context.Background())
	if _, ok := err.(goredis.Error); err != nil && !ok { // of a reply: it is among the results too
		return nil, err
	}
	for _, r := range results {
		replies = append(replies, either(notNil(r.(*goredis.Cmd).Result())))
	}
	return replies, nil
}

func (c goRedis) subscribe(channel string) (func() (string, error), func(), error) {
	s := c.Subscribe(context.Background(), channel)
	_, err := s.ReceiveTimeout(context.Background(), patience)
	next := func() (string, error) {
		got, err := s.ReceiveTimeout(context.Background(), patience)
		if m, ok := got.(*goredis.Message); ok {
			return m.Payload, nil
		}
		return "", errors.Join(err, fmt.Errorf("not a message: %v", got))
	}
	return next, func() { s.Unsubscribe(context.Background(), channel); s.Close() }, err
}

func (c goRedis) close() { c.Client.Close() }

// either is for results of which the error is as good as a value.
func either[T any](v T, err error) any {
	if err != nil {
		return err
	}
	return v
}

// rueidis

type rueidisClient struct{ rueidis.Client }

func openRueidis(s *endpoint, protocol int) (session, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.addr}, Password: s.password, TLSConfig: s.tls(), SelectDB: database, ClientName: clientName,
		AlwaysRESP2: protocol == 2, DisableCache: true, ForceSingleClient: true, DisableRetry: true,
		ConnWriteTimeout: patience, Dialer: net.Dialer{Timeout: patience},
	})
	return rueidisClient{c}, err
}

func (c rueidisClient) command(args []string) rueidis.Completed {
	return c.B().Arbitrary(args[0]).Args(args[1:]...).Build()
}

// result gives a reply. rueidis takes the word ERR off an error's text; it is put back.
func result(r rueidis.RedisResult) (any, error) {
	v, err := notNil(r.ToAny())
	if e, ok := rueidis.IsRedisErr(err); ok {
		if word, _, _ := strings.Cut(e.Error(), " "); word != strings.ToUpper(word) {
			err = errors.New("ERR " + e.Error())
		}
	}
	return v, err
}

func (c rueidisClient) do(args ...string) (any, error) {
	return result(c.Do(context.Background(), c.command(args)))
}

func (c rueidisClient) many(cmds [][]string) (replies []any, err error) {
	var list rueidis.Commands
	for _, args := range cmds {
		list = append(list, c.command(args))
	}
	for _, r := range c.DoMulti(context.Background(), list...) {
		if r.NonRedisError() != nil {
			return nil, r.NonRedisError()
		}
		replies = append(replies, either(result(r)))
	}
	return replies, nil
}

func (c rueidisClient) subscribe(channel string) (func() (string, error), func(), error) {
	ctx, cancel := context.WithCancel(context.Background())
	confirmed, messages := make(chan error, 10), make(chan string, 10)
	hooked := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { confirmed <- nil })
	go func() {
		confirmed <- c.Receive(hooked, c.B().Subscribe().Channel(channel).Build(), func(m rueidis.PubSubMessage) {
			select {
			case messages <- m.Message:
			case <-ctx.Done():
			}
		})
	}()
	next := func() (string, error) { return receive(messages) }
	end := func() {
		cancel()
		c.Do(context.Background(), c.B().Unsubscribe().Channel(channel).Build())
	}
	return next, end, <-confirmed
}

func (c rueidisClient) close() { c.Client.Close() }

// receive waits for what comes from a client's own goroutine.
func receive[T any](from <-chan T) (v T, err error) {
	select {
	case v = <-from:
		return v, nil
	case <-time.After(patience):
		return v, errors.New("nothing is received")
	}
}

// redigo

type redigoPool struct{ *redigo.Pool }

func openRedigo(s *endpoint, protocol int) (session, error) {
	pool := &redigo.Pool{MaxIdle: 20, Dial: func() (redigo.Conn, error) {
		return redigo.Dial("tcp", s.addr, redigo.DialPassword(s.password), redigo.DialTLSConfig(s.tls()), redigo.DialUseTLS(s.roots != nil),
			redigo.DialDatabase(database), redigo.DialClientName(clientName), redigo.DialReadTimeout(patience), redigo.DialWriteTimeout(patience))
	}}
	return redigoPool{pool}, nil
}

func (p redigoPool) do(args ...string) (any, error) {
	c := p.Get()
	defer c.Close()
	return c.Do(args[0], values(args[1:])...)
}

func (p redigoPool) many(cmds [][]string) ([]any, error) {
	c := p.Get()
	defer c.Close()
	for _, args := range cmds {
		if err := c.Send(args[0], values(args[1:])...); err != nil {
			return nil, err
		}
	}
	return redigo.Values(c.Do(""))
}

func (p redigoPool) subscribe(channel string) (func() (string, error), func(), error) {
	s := redigo.PubSubConn{Conn: p.Get()}
	next := func() (string, error) {
		switch m := s.ReceiveWithTimeout(patience).(type) {
		case redigo.Message:
			return string(m.Data), nil
		case error:
			return "", m
		default:
			return "", fmt.Errorf("not a message: %v", m)
		}
	}
	err := s.Subscribe(channel)
	if err == nil {
		err, _ = s.ReceiveWithTimeout(patience).(error)
	}
	return next, func() { s.Unsubscribe(channel); s.Close() }, err
}

func (p redigoPool) close() { p.Pool.Close() }

// redis-cli

// A cli is a redis-cli that reads commands from a pipe, a line each, and prints replies as JSON.
type cli struct {
	args []string
	mu   sync.Mutex // one command at a time
	in   io.WriteCloser
	out  *bufio.Reader
	cmd  *exec.Cmd
}

func openCLI(s *endpoint, protocol int) (session, error) {
	host, port, err := net.SplitHostPort(s.addr)
	if err != nil {
		return nil, err
	}
	c := &cli{args: []string{"-h", host, "-p", port, "-n", fmt.Sprint(database), fmt.Sprint("-", protocol), "--json"}}
	if s.password != "" {
		c.args = append(c.args, "-a", s.password, "--no-auth-warning")
	}
	if s.roots != nil {
		c.args = append(c.args, "--tls", "--cacert", s.caFile)
	}
	return c, c.start()
}

// start runs redis-cli with more arguments; without any it reads commands.
func (c *cli) start(args ...string) (err error) {
	c.cmd = exec.Command("redis-cli", slices.Concat(c.args, args)...)
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.out = bufio.NewReaderSize(out, 1<<20)
	return c.cmd.Start()
}

// quoted gives args as redis-cli reads them.
func quoted(args []string) []byte {
	var b []byte
	for _, a := range args {
		b = append(b, '"')
		for _, ch := range []byte(a) {
			if ch < ' ' || ch > '~' || ch == '"' || ch == '\\' {
				b = fmt.Appendf(b, `\x%02x`, ch)
			} else {
				b = append(b, ch)
			}
		}
		b = append(b, '"', ' ')
	}
	return append(b, '\n')
}

// reply reads one that was printed.
func (c *cli) reply() (any, error) {
	line, err := c.out.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSpace(line)
	text, failed := strings.CutPrefix(line, "error:")
	if text == "inf" || text == "-inf" { // which JSON has not
		return strconv.ParseFloat(text, 64)
	}
	runes := make([]rune, 0, len(text)) // bytes of strings are printed as they are, and need not be UTF-8
	for _, ch := range []byte(text) {
		runes = append(runes, rune(ch))
	}
	d := json.NewDecoder(strings.NewReader(string(runes)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("redis-cli printed %.100q: %w", line, err)
	}
	if v = fromJSON(v); failed {
		return nil, fmt.Errorf("%s", v)
	}
	return v, nil
}

// fromJSON makes integers of numbers that look so, and bytes of the runes that reply made of bytes.
func fromJSON(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		return either(v.Float64())
	case string:
		b := make([]byte, 0, len(v))
		for _, r := range v {
			b = append(b, byte(r))
		}
		return string(b)
	case []any:
		for i := range v {
			v[i] = fromJSON(v[i])
		}
	case map[string]any:
		m := map[string]any{}
		for name, value := range v {
			m[fromJSON(name).(string)] = fromJSON(value)
		}
		return m
	}
	return v
}

func (c *cli) do(args ...string) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := c.in.Write(quoted(args)); err != nil {
		return nil, err
	}
	return c.reply()
}

// many has redis-cli read ahead; it sends one command after the other. idioms has its real pipeline.
func (c *cli) many(cmds [][]string) (replies []any, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	go func() {
		var b []byte
		for _, args := range cmds {
			b = append(b, quoted(args)...)
		}
		c.in.Write(b) // an error shows in the replies
	}()
	for range cmds {
		replies = append(replies, either(c.reply()))
	}
	return replies, nil
}

func (c *cli) subscribe(channel string) (func() (string, error), func(), error) {
	s := &cli{args: c.args}
	if err := s.start("SUBSCRIBE", channel); err != nil {
		return nil, nil, err
	}
	messages := make(chan any, 10)
	go func() {
		s.out.ReadString('\n') // how to quit
		for err := error(nil); err == nil; {
			var v any
			v, err = s.reply()
			messages <- either(v, err)
		}
	}()
	next := func() (string, error) {
		got, err := receive(messages)
		if m, ok := got.([]any); ok && len(m) == 3 {
			return fmt.Sprint(m[2]), nil
		}
		return "", errors.Join(err, fmt.Errorf("not a message: %v", got))
	}
	_, err := next()
	return next, func() { s.cmd.Process.Kill(); s.cmd.Wait() }, err
}

func (c *cli) close() {
	c.in.Close()
	c.cmd.Wait()
}
