package interop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

// TestRPC calls the methods of example/rpc with clients of Redis, as their users would.
func TestRPC(t *testing.T) {
	addr := startExample(t, buildExample(t, "rpc"), "-addr", "127.0.0.1:0", "-password", "secret")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// call makes one call and returns the text of the reply.
	clients := map[string]func(t *testing.T) (call func(args ...string) (string, error)){
		"go-redis, RESP3": func(t *testing.T) func(args ...string) (string, error) { return callGoRedis(ctx, t, addr, 3) },
		"go-redis, RESP2": func(t *testing.T) func(args ...string) (string, error) { return callGoRedis(ctx, t, addr, 2) },
		"rueidis": func(t *testing.T) func(args ...string) (string, error) {
			c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, Password: "secret", ClientName: "test", DisableCache: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			return func(args ...string) (string, error) {
				reply := c.Do(ctx, c.B().Arbitrary(args...).Build())
				if err := reply.Error(); err != nil { // whose text rueidis gives without "ERR "
					return "", err
				}
				return reply.ToString()
			}
		},
	}
	for name, dial := range clients {
		t.Run(name, func(t *testing.T) {
			call := dial(t)
			for _, tt := range []struct {
				args        []string
				reply, fail string
			}{
				{[]string{"calc.add", `{"a": 19, "b": 23}`}, `{"sum":42}`, ""},
				{[]string{"Calc.ADD", `{"a": 1}`, "TIMEOUT", "1000"}, `{"sum":1}`, ""},
				{[]string{"echo", "h\r\ni\x00"}, "h\r\ni\x00", ""},
				{[]string{"echo", strings.Repeat("x", 1<<20)}, strings.Repeat("x", 1<<20), ""},
				{[]string{"calc.add", `{"a": 9223372036854775807, "b": 1}`}, "", "OVERFLOW the sum is not an int64"},
				{[]string{"calc.add"}, "", "calc.add: wrong number of arguments"},
				{[]string{"nope"}, "", "unknown command 'nope'"},
			} {
				reply, err := call(tt.args...)
				if reply != tt.reply || (err == nil) != (tt.fail == "") || err != nil && !strings.HasPrefix(strings.TrimPrefix(err.Error(), "ERR "), tt.fail) {
					t.Errorf("%.80q: got %.80q, %v, want %.80q, %q", tt.args, reply, err, tt.reply, tt.fail)
				}
			}
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Go(func() {
					for j := range 50 {
						want := fmt.Sprint(i, "/", j)
						if got, err := call("echo", want); got != want || err != nil {
							t.Errorf("echo: got %q, %v, want %q", got, err, want)
						}
					}
				})
			}
			wg.Wait()
		})
	}
	t.Run("go-redis, a wrong password", func(t *testing.T) {
		c := goredis.NewClient(&goredis.Options{Addr: addr, Password: "wrong", MaxRetries: -1})
		defer c.Close()
		var reply goredis.Error
		if err := c.Do(ctx, "echo", "hi").Err(); !errors.As(err, &reply) || !strings.HasPrefix(err.Error(), "WRONGPASS") {
			t.Errorf("got %v, want WRONGPASS", err)
		}
	})
}

func callGoRedis(ctx context.Context, t *testing.T, addr string, protocol int) func(args ...string) (string, error) {
	c := goredis.NewClient(&goredis.Options{Addr: addr, Password: "secret", Protocol: protocol})
	t.Cleanup(func() { c.Close() })
	return func(args ...string) (string, error) {
		list := make([]any, len(args))
		for i, arg := range args {
			list[i] = arg
		}
		return c.Do(ctx, list...).Text()
	}
}
