package interop

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	redigo "github.com/gomodule/redigo/redis"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// REDISPROTO_ADDR names a server to use instead of example/kv: a Redis, or a proxy in front of one.
// Nothing of it is changed but keys and channels that begin with "interop:".
const otherServer = "REDISPROTO_ADDR"

// TestClients runs every client in every protocol against every kind of server.
func TestClients(t *testing.T) {
	other := os.Getenv(otherServer)
	var kv string
	if other == "" {
		kv = buildKV(t)
	}
	for _, kind := range []struct {
		name, password string
		tls            bool
	}{
		{"plain", "", false},
		{"password", "s3cret \"word\"", false},
		{"tls", "s3cret", true},
	} {
		t.Run("server="+kind.name, func(t *testing.T) {
			s := &endpoint{addr: other}
			if other == "" {
				s = startKV(t, kv, kind.password, kind.tls)
			} else if kind.name != "plain" {
				t.Skip(otherServer + " is set: a server with flags of its own is not started")
			}
			for _, c := range clients {
				for _, protocol := range c.protocols {
					t.Run(fmt.Sprintf("client=%s/resp=%d", c.name, protocol), func(t *testing.T) { check(t, s, c, protocol) })
				}
			}
		})
	}
}

// check runs all checks in one session.
func check(t *testing.T, s *endpoint, c client, protocol int) {
	if c.name == "redis-cli" {
		if _, err := exec.LookPath(c.name); err != nil {
			t.Skip("no redis-cli: ", err)
		}
	}
	if s.password != "" {
		checkPassword(t, s, c, protocol)
	}
	open, err := c.open(s, protocol)
	if err != nil {
		t.Fatalf("connecting: %v", err)
	}
	defer open.close()
	key := func(name string) string { return strings.ReplaceAll("interop:"+t.Name()+":"+name, "/", ":") }
	h := &harness{t, open, protocol, key}
	t.Run("steps", h.with((*harness).steps))
	t.Run("binary", h.with((*harness).binary))
	t.Run("pipeline", h.with((*harness).pipeline))
	t.Run("concurrent", h.with((*harness).concurrent))
	t.Run("pubsub", h.with((*harness).pubsub))
	if c.name != "redis-cli" { // its idioms have it: as text it would take seconds
		t.Run("large", h.with((*harness).large))
	}
	t.Run("idioms", func(t *testing.T) { open.idioms(t, key) })
}

// checkPassword tries no password and a wrong one.
func checkPassword(t *testing.T, s *endpoint, c client, protocol int) {
	for _, row := range []struct{ password, want string }{{"", "NOAUTH"}, {s.password + "!", c.refused}} {
		wrong := *s
		wrong.password = row.password
		open, err := c.open(&wrong, protocol)
		if err == nil {
			_, err = open.do("GET", "interop:k")
			open.close()
		}
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("password %q: got error %v, want %s", row.password, err, row.want)
		}
	}
}

// A harness has a session, and what to expect of it.
type harness struct {
	*testing.T
	session  session
	protocol int
	key      func(name string) string
}

// with makes a subtest of a check.
func (h harness) with(check func(*harness)) func(*testing.T) {
	return func(t *testing.T) {
		h.T = t
		check(&h)
	}
}

// A failure is the text of an error reply.
type failure string

// plain gives a reply in Go's usual types, whichever client made it.
func plain(v any) any {
	switch v := v.(type) {
	case []byte:
		return string(v)
	case error:
		return failure(v.Error())
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[any]any: // go-redis's
		m := map[string]any{}
		for name, value := range v {
			m[fmt.Sprint(name)] = plain(value)
		}
		return m
	}
	return v
}

// upTo is wanted of a time to live, which passes: a number over 0, at most this.
type upTo int64

// matches reports whether got is what want says: an equal, an error of its kind, or up to it.
func matches(got, want any) bool {
	switch want := want.(type) {
	case upTo:
		n := reflect.ValueOf(got)
		return n.CanInt() && n.Int() > 0 && n.Int() <= int64(want)
	case error:
		err, _ := got.(error)
		return errors.Is(err, want)
	}
	return reflect.DeepEqual(got, want)
}

// want sends a command, and compares.
func (h *harness) want(want any, args ...string) {
	h.Helper()
	got := plain(either(h.session.do(args...)))
	if list, ok := got.([]any); ok && (args[0] == "SMEMBERS" || args[0] == "HGETALL") { // in any order
		slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
	if !matches(got, want) {
		h.Errorf("%.100q: got %#v, want %#v", args, got, want)
	}
}

type (
	list = []any
	dict = map[string]any
)

const wrongType = failure("WRONGTYPE Operation against a key holding the wrong kind of value")

// steps are sent one after the other, so that each finds what those before it have left.
var steps = []struct {
	command string // a word that begins with @ is a key
	want    any
	want3   any // in RESP3, if that is another
}{
	{"PING", "PONG", nil},
	{"ECHO hello", "hello", nil},
	{"NOSUCH a b", failure("ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' "), nil},
	{"GET", failure("ERR wrong number of arguments for 'get' command"), nil},

	{"SET @s 10", "OK", nil},
	{"GET @s", "10", nil},
	{"GET @none", nil, nil},
	{"SET @s 11 NX", nil, nil},
	{"SET @s 11 XX GET", "10", nil},
	{"SET @s 12 NX XX", failure("ERR syntax error"), nil},
	{"INCR @s", int64(12), nil},
	{"INCRBY @s -20", int64(-8), nil},
	{"DECR @s", int64(-9), nil},
	{"APPEND @s !", int64(3), nil},
	{"STRLEN @s", int64(3), nil},
	{"INCR @s", failure("ERR value is not an integer or out of range"), nil},
	{"MSET @s1 a @s2 b", "OK", nil},
	{"MGET @s1 @none @s2", list{"a", nil, "b"}, nil},
	{"TYPE @s", "string", nil},
	{"TYPE @none", "none", nil},
	{"EXISTS @s @s1 @none @s", int64(3), nil},
	{"DEL @s1 @none", int64(1), nil},

	{"TTL @s", int64(-1), nil},
	{"EXPIRE @s 1000", int64(1), nil},
	{"TTL @s", upTo(1000), nil},
	{"SET @s x KEEPTTL", "OK", nil},
	{"PERSIST @s", int64(1), nil},
	{"PTTL @s", int64(-1), nil},
	{"SET @s x EX 1000", "OK", nil},
	{"TTL @s", upTo(1000), nil},
	{"EXPIRE @s -1", int64(1), nil},
	{"TTL @s", int64(-2), nil},
	{"SET @s x EX 0", failure("ERR invalid expire time in 'set' command"), nil},

	{"RPUSH @l b c", int64(2), nil},
	{"LPUSH @l a z", int64(4), nil},
	{"LRANGE @l 0 -1", list{"z", "a", "b", "c"}, nil},
	{"LRANGE @none 0 -1", list{}, nil},
	{"LPOP @l", "z", nil},
	{"RPOP @l 2", list{"c", "b"}, nil},
	{"LPOP @none 2", nil, nil},
	{"LLEN @l", int64(1), nil},
	{"GET @l", wrongType, nil},

	{"SADD @set a b c a", int64(3), nil},
	{"SMEMBERS @set", list{"a", "b", "c"}, nil},
	{"SMEMBERS @none", list{}, nil},
	{"SISMEMBER @set a", int64(1), nil},
	{"SREM @set a b x", int64(2), nil},
	{"SPOP @set", "c", nil},
	{"SCARD @set", int64(0), nil},
	{"SPOP @set", nil, nil},

	{"HSET @h f 1 g 2", int64(2), nil},
	{"HGET @h f", "1", nil},
	{"HGET @h x", nil, nil},
	{"HGETALL @h", list{"1", "2", "f", "g"}, dict{"f": "1", "g": "2"}}, // in RESP2, sorted
	{"HGETALL @none", list{}, dict{}},
	{"HDEL @h f x", int64(1), nil},
	{"HLEN @h", int64(1), nil},
	{"LPUSH @h x", wrongType, nil},

	{"ZADD @z 1.5 a 2.25 b -inf c", int64(3), nil},
	{"ZSCORE @z a", "1.5", 1.5},
	{"ZSCORE @z c", "-inf", math.Inf(-1)},
	{"ZSCORE @z x", nil, nil},
	{"ZRANGE @z 0 -1", list{"c", "a", "b"}, nil},
	{"ZREM @z c", int64(1), nil},
	{"ZRANGE @z 0 -1 WITHSCORES", list{"a", "1.5", "b", "2.25"}, list{list{"a", 1.5}, list{"b", 2.25}}},
	{"ZPOPMIN @z", list{"a", "1.5"}, list{"a", 1.5}},
	{"ZPOPMIN @z 1", list{"b", "2.25"}, list{list{"b", 2.25}}},
	{"ZCARD @z", int64(0), nil},
	{"ZADD @z x a", failure("ERR value is not a valid float"), nil},

	{"DEL @s @s2 @l @h", int64(3), nil},
}

func (h *harness) steps() {
	for _, row := range steps {
		args := strings.Fields(row.command)
		for i, a := range args {
			if name, ok := strings.CutPrefix(a, "@"); ok {
				args[i] = h.key(name)
			}
		}
		if h.protocol == 3 && row.want3 != nil {
			row.want = row.want3
		}
		h.want(row.want, args...)
	}
}

// every is a value with all bytes there are, and what a protocol is made of.
var every = func() string {
	b := []byte("\r\n$-1\r\n*3\r\n+OK\r\n-ERR no\r\n\x00 \"'\\ é \xff\xfe")
	for i := range 256 {
		b = append(b, byte(i))
	}
	return string(b)
}()

func (h *harness) binary() {
	h.want("OK", "SET", h.key(every), every)
	h.want(every, "GET", h.key(every))
	h.want(int64(1), "HSET", h.key("h"), every, every)
	if h.protocol == 2 {
		h.want(list{every, every}, "HGETALL", h.key("h"))
	} else {
		h.want(dict{every: every}, "HGETALL", h.key("h"))
	}
	h.want(int64(2), "RPUSH", h.key("l"), "", every)
	h.want(list{"", every}, "LRANGE", h.key("l"), "0", "-1")
	h.want(int64(3), "DEL", h.key(every), h.key("h"), h.key("l"))
}

// pipeline sends 10,000 commands at once, of which every tenth fails.
func (h *harness) pipeline() {
	const n = 10000
	h.want("OK", "SET", h.key("n"), "0")
	h.want(int64(1), "LPUSH", h.key("l"), "x")
	var cmds [][]string
	for i := range n {
		if i%10 == 9 {
			cmds = append(cmds, []string{"INCR", h.key("l")})
		} else {
			cmds = append(cmds, []string{"INCR", h.key("n")})
		}
	}
	replies, err := h.session.many(cmds)
	if err != nil || len(replies) != n {
		h.Fatalf("replies: got %d, %v, want %d", len(replies), err, n)
	}
	for i, got := range replies {
		want := any(int64(i/10*9 + i%10 + 1))
		if i%10 == 9 {
			want = wrongType
		}
		if got = plain(got); got != want {
			h.Fatalf("reply %d: got %#v, want %#v", i, got, want)
		}
	}
	h.want(int64(2), "DEL", h.key("n"), h.key("l"))
}

// concurrent has many goroutines use the session, which takes more connections or pipelines them.
func (h *harness) concurrent() {
	const goroutines, each = 20, 50
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			mine := h.key(fmt.Sprint("mine", i))
			for n := range each {
				h.want("OK", "SET", mine, fmt.Sprint(n))
				h.want(fmt.Sprint(n), "GET", mine)
				h.session.do("INCR", h.key("all"))
			}
			h.want(int64(1), "DEL", mine)
		})
	}
	wg.Wait()
	h.want(fmt.Sprint(goroutines*each), "GET", h.key("all"))
	h.want(int64(1), "DEL", h.key("all"))
}

// pubsub publishes from the session that has subscribed too.
func (h *harness) pubsub() {
	channel := h.key("news")
	next, end, err := h.session.subscribe(channel)
	if err != nil {
		h.Fatalf("SUBSCRIBE: %v", err)
	}
	const n = 1000
	var cmds [][]string
	for i := range n {
		cmds = append(cmds, []string{"PUBLISH", channel, fmt.Sprint(i, every)})
	}
	published := make(chan any, 1)
	go func() { published <- either(h.session.many(cmds)) }()
	for i := range n {
		got, err := next()
		if want := fmt.Sprint(i, every); err != nil || got != want {
			h.Fatalf("message %d: got %q, %v, want %q", i, got, err, want)
		}
	}
	counts, ok := (<-published).([]any)
	if want := slices.Repeat(list{int64(1)}, n); !ok || !reflect.DeepEqual(counts, want) {
		h.Errorf("PUBLISH: got %v, want %v", counts, want)
	}
	end()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		got, err := h.session.do("PUBLISH", channel, "nobody")
		if err != nil || time.Now().After(deadline) {
			h.Fatalf("PUBLISH after the end: got %v, %v, want 0", got, err)
		}
		if got == int64(0) {
			break
		}
	}
	h.want("PONG", "PING")
}

const largeSize = 64 << 20

// largeValue repeats itself, at no power of two.
var largeValue = sync.OnceValue(func() string { return strings.Repeat(every, largeSize/len(every)+1)[:largeSize] })

func (h *harness) large() {
	h.want("OK", "SET", h.key("big"), largeValue())
	h.want(int64(largeSize), "STRLEN", h.key("big"))
	got, err := h.session.do("GET", h.key("big"))
	if text, _ := plain(got).(string); text != largeValue() {
		h.Errorf("GET: got %d bytes, %v, want the %d that were set", len(text), err, largeSize)
	}
	h.want(int64(1), "DEL", h.key("big"))
}

// A call is one that a user of a client makes, its result or error, and what that is to be.
type call struct {
	name      string
	got, want any
}

func compare(t *testing.T, calls []call) {
	for _, c := range calls {
		if !matches(c.got, c.want) {
			t.Errorf("%s: got %#v, want %#v", c.name, c.got, c.want)
		}
	}
}

func (c goRedis) idioms(t *testing.T, key func(string) string) {
	ctx := context.Background()
	s, h, z, set, l := key("s"), key("h"), key("z"), key("set"), key("l")
	type person struct {
		Name string `redis:"name"`
		Age  int    `redis:"age"`
	}
	var found person
	compare(t, []call{
		{"ClientGetName", either(c.ClientGetName(ctx).Result()), clientName},
		{"Set", either(c.Set(ctx, s, 42, time.Hour).Result()), "OK"},
		{"Get.Int", either(c.Get(ctx, s).Int()), 42},
		{"Get of none", either(c.Get(ctx, key("none")).Result()), goredis.Nil},
		{"TTL", either(c.TTL(ctx, s).Result()), upTo(time.Hour)},
		{"TTL of none", either(c.TTL(ctx, key("none")).Result()), time.Duration(-2)},
		{"SetNX", either(c.SetNX(ctx, s, 1, 0).Result()), false},
		{"Expire", either(c.Expire(ctx, s, time.Minute).Result()), true},
		{"Persist", either(c.Persist(ctx, s).Result()), true},
		{"MGet", either(c.MGet(ctx, s, key("none")).Result()), []any{"42", nil}},
		{"HSet", either(c.HSet(ctx, h, person{"Ann", 33}).Result()), int64(2)},
		{"HGetAll", either(c.HGetAll(ctx, h).Result()), map[string]string{"name": "Ann", "age": "33"}},
		{"HGetAll.Scan", either(&found, c.HGetAll(ctx, h).Scan(&found)), &person{"Ann", 33}},
		{"ZAdd", either(c.ZAdd(ctx, z, goredis.Z{Score: 1.5, Member: "a"}, goredis.Z{Score: 2, Member: "b"}).Result()), int64(2)},
		{"ZScore", either(c.ZScore(ctx, z, "a").Result()), 1.5},
		{"ZRangeWithScores", either(c.ZRangeWithScores(ctx, z, 0, -1).Result()), []goredis.Z{{Score: 1.5, Member: "a"}, {Score: 2, Member: "b"}}},
		{"ZPopMin", either(c.ZPopMin(ctx, z, 2).Result()), []goredis.Z{{Score: 1.5, Member: "a"}, {Score: 2, Member: "b"}}},
		{"SAdd", either(c.SAdd(ctx, set, "x", "y").Result()), int64(2)},
		{"SMembersMap", either(c.SMembersMap(ctx, set).Result()), map[string]struct{}{"x": {}, "y": {}}},
		{"SIsMember", either(c.SIsMember(ctx, set, "x").Result()), true},
		{"RPush", either(c.RPush(ctx, l, 1, 2, 3).Result()), int64(3)},
		{"LPopCount", either(c.LPopCount(ctx, l, 2).Result()), []string{"1", "2"}},
		{"Del", either(c.Del(ctx, s, h, set, l).Result()), int64(4)},
	})
}

func (c rueidisClient) idioms(t *testing.T, key func(string) string) {
	ctx := context.Background()
	s, h, z, set := key("s"), key("h"), key("z"), key("set")
	ask := func(cmd rueidis.Completed) rueidis.RedisResult { return c.Do(ctx, cmd) }
	err := ask(c.B().Get().Key(key("none")).Build()).Error()
	compare(t, []call{
		{"ClientGetname", either(ask(c.B().ClientGetname().Build()).ToString()), clientName},
		{"Set", ask(c.B().Set().Key(s).Value("42").Nx().Ex(time.Hour).Build()).Error(), nil},
		{"AsInt64", either(ask(c.B().Get().Key(s).Build()).AsInt64()), int64(42)},
		{"Get of none", rueidis.IsRedisNil(err), true},
		{"Ttl", either(ask(c.B().Ttl().Key(s).Build()).AsInt64()), upTo(3600)},
		{"MGet", either(rueidis.MGet(c, ctx, []string{s})), map[string]rueidis.RedisMessage{s: either(ask(c.B().Get().Key(s).Build()).ToMessage()).(rueidis.RedisMessage)}},
		{"Hset", either(ask(c.B().Hset().Key(h).FieldValue().FieldValue("f", "1").FieldValue("g", "2").Build()).AsInt64()), int64(2)},
		{"AsStrMap", either(ask(c.B().Hgetall().Key(h).Build()).AsStrMap()), map[string]string{"f": "1", "g": "2"}},
		{"Zadd", either(ask(c.B().Zadd().Key(z).ScoreMember().ScoreMember(1.5, "a").ScoreMember(2, "b").Build()).AsInt64()), int64(2)},
		{"AsFloat64", either(ask(c.B().Zscore().Key(z).Member("a").Build()).AsFloat64()), 1.5},
		{"AsZScores", either(ask(c.B().Zrange().Key(z).Min("0").Max("-1").Withscores().Build()).AsZScores()), []rueidis.ZScore{{Member: "a", Score: 1.5}, {Member: "b", Score: 2}}},
		{"Sadd", either(ask(c.B().Sadd().Key(set).Member("x").Build()).AsInt64()), int64(1)},
		{"AsStrSlice", either(ask(c.B().Smembers().Key(set).Build()).AsStrSlice()), []string{"x"}},
		{"AsBool", either(ask(c.B().Sismember().Key(set).Member("x").Build()).AsBool()), true},
		{"Dedicated", c.Dedicated(func(d rueidis.DedicatedClient) error {
			return errors.Join(d.Do(ctx, d.B().Select().Index(int64(max(database-1, 0))).Build()).Error(), d.Do(ctx, d.B().Select().Index(int64(database)).Build()).Error())
		}), nil},
		{"Del", either(ask(c.B().Del().Key(s, h, z, set).Build()).AsInt64()), int64(4)},
	})
}

func (p redigoPool) idioms(t *testing.T, key func(string) string) {
	c := p.Get()
	defer c.Close()
	s, h, z := key("s"), key("h"), key("z")
	type person struct {
		Name string `redis:"name"`
		Age  int    `redis:"age"`
	}
	var found person
	compare(t, []call{
		{"CLIENT GETNAME", either(redigo.String(c.Do("CLIENT", "GETNAME"))), clientName},
		{"SET", either(c.Do("SET", s, 42, "EX", 3600)), "OK"},
		{"Int", either(redigo.Int(c.Do("GET", s))), 42},
		{"GET of none", either(redigo.Int(c.Do("GET", key("none")))), redigo.ErrNil},
		{"Bool", either(redigo.Bool(c.Do("EXISTS", s))), true},
		{"HSET", either(redigo.Int(c.Do("HSET", redigo.Args{}.Add(h).AddFlat(person{"Ann", 33})...))), 2},
		{"StringMap", either(redigo.StringMap(c.Do("HGETALL", h))), map[string]string{"name": "Ann", "age": "33"}},
		{"ScanStruct", either(&found, redigo.ScanStruct(either(redigo.Values(c.Do("HGETALL", h))).([]any), &found)), &person{"Ann", 33}},
		{"ZADD", either(redigo.Int(c.Do("ZADD", z, 1.5, "a"))), 1},
		{"Float64", either(redigo.Float64(c.Do("ZSCORE", z, "a"))), 1.5},
		{"Float64Map", either(redigo.Float64Map(c.Do("ZRANGE", z, 0, -1, "WITHSCORES"))), map[string]float64{"a": 1.5}},
		{"DEL", either(redigo.Int(c.Do("DEL", s, h, z))), 3},
	})
}

// idioms has what redis-cli is run for: --pipe sends requests as they are, and as many as the sockets
// take; -x has the last argument from a file; --raw prints a reply as it is.
func (c *cli) idioms(t *testing.T, key func(string) string) {
	const n = 10000
	var requests []byte
	for i := range n {
		requests = append(requests, request("RPUSH", key("l"), fmt.Sprint(i, "\r\n"))...)
	}
	run := func(stdin string, args ...string) (string, error) {
		cmd := exec.Command("redis-cli", append(c.args, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		return strings.TrimSuffix(string(out), "\n"), err
	}
	piped, err := run(string(requests), "--pipe")
	compare(t, []call{
		{"--pipe", err, nil},
		{"--pipe: the last line", piped[strings.LastIndexByte(piped, '\n')+1:], fmt.Sprintf("errors: 0, replies: %d", n)},
		{"LLEN", either(c.do("LLEN", key("l"))), int64(n)},
		{"LPOP", either(c.do("LPOP", key("l"))), "0\r\n"},
		{"-x", either(run(largeValue(), "-x", "SET", key("big"))), `"OK"`},
		{"STRLEN", either(c.do("STRLEN", key("big"))), int64(largeSize)},
	})
	if got, err := run("", "--raw", "GET", key("big")); got != largeValue() {
		t.Errorf("--raw: got %d bytes, %v, want the %d that were set", len(got), err, largeSize)
	}
	compare(t, []call{{"DEL", either(c.do("DEL", key("l"), key("big"))), int64(2)}})
}
