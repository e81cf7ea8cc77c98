package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// get returns the status and the body of a page.
func get(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	res, err := http.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

var sample = regexp.MustCompile(`^([a-z_]+)(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? ([0-9.e+-]+|\+Inf)$`)

// samples parses Prometheus' text format. Every line is checked.
func samples(t *testing.T, text string) map[string]float64 {
	t.Helper()
	values, types := map[string]float64{}, map[string]bool{}
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if f := strings.Fields(line); len(f) >= 4 && f[0] == "#" {
			types[f[2]] = types[f[2]] || f[1] == "TYPE"
			continue
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("no sample: %q", line)
		}
		family := regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(m[1], "")
		if !types[family] && !types[m[1]] {
			t.Errorf("no type before %q", line)
		}
		if _, ok := values[m[1]+m[2]]; ok {
			t.Errorf("twice: %q", line)
		}
		values[m[1]+m[2]], _ = strconv.ParseFloat(m[4], 64)
	}
	return values
}

func TestMetrics(t *testing.T) {
	redis := startRedis(t)
	forEachMode(t, func(t *testing.T, flags []string) {
		p := startProxy(t, redis.addr, append(flags, "-deny", "flushall", "-slowlog", "1h")...) // so that calls are timed
		listener, err := p.serveMetrics("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		addr := listener.Addr().String()
		c := dial(t, p.addr, nil)
		c.send("SET k x", "INCR k", "get k", "FLUSHALL", "NOSUCH", "CLIENT REPLY OFF", "GET k", "CLIENT REPLY ON")
		for range 6 {
			c.read()
		}
		// Names that only clients have invented fill nothing, whatever state their connection is in.
		for i := range 5 {
			c := dial(t, p.addr, nil)
			c.send("CLIENT REPLY OFF")
			for n := range 600 {
				c.send(fmt.Sprintf("INVENTED%d-%d a", i, n))
			}
			c.send("CLIENT REPLY ON", "LPUSH list x")
			c.read()
			c.read()
		}
		status, text := get(t, addr, "/metrics")
		if status != http.StatusOK || strings.Contains(strings.ToLower(text), "invented") {
			t.Fatalf("got status %d, and %s", status, text)
		}
		got := samples(t, text)
		for name, want := range map[string]float64{
			`redisproxy_commands_total{command="set"}`:                            1,
			`redisproxy_command_errors_total{command="set"}`:                      0,
			`redisproxy_commands_total{command="incr"}`:                           1,
			`redisproxy_command_errors_total{command="incr"}`:                     1,
			`redisproxy_commands_total{command="get"}`:                            2,
			`redisproxy_commands_total{command="lpush"}`:                          5,
			`redisproxy_commands_total{command="other"}`:                          3001,
			`redisproxy_commands_refused_total`:                                   1,
			`redisproxy_clients`:                                                  6,
			`redisproxy_command_duration_seconds_count{command="set"}`:            1,
			`redisproxy_command_duration_seconds_bucket{command="set",le="+Inf"}`: 1,
			`redisproxy_node_up{node="` + redis.addr + `"}`:                       1,
		} {
			if got[name] != want {
				t.Errorf("%s: got %v, want %v", name, got[name], want)
			}
		}
		for _, row := range []struct {
			path string
			want int
		}{{"/healthz", 200}, {"/readyz", 200}, {"/", 404}, {"/nosuch", 404}, {"/debug/vars", 404}} {
			if status, text := get(t, addr, row.path); status != row.want {
				t.Errorf("%s: got status %d and %q, want %d", row.path, status, text, row.want)
			}
		}
	})
}

// /readyz follows the upstream.
func TestReady(t *testing.T) {
	redis := startRedis(t)
	p := startProxy(t, redis.addr)
	listener, err := p.serveMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	redis.stop()
	if status, _ := get(t, listener.Addr().String(), "/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("without the upstream: got %d, want 503", status)
	}
	if status, _ := get(t, listener.Addr().String(), "/healthz"); status != http.StatusOK {
		t.Errorf("/healthz without the upstream: got %d, want 200", status)
	}
	if !redis.start() {
		t.Fatal("redis-server does not start again")
	}
	for status := 0; status != http.StatusOK; time.Sleep(5 * time.Millisecond) {
		status, _ = get(t, listener.Addr().String(), "/readyz")
	}
}
