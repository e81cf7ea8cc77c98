package main

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// Flags that make no sense are refused in one line that names the flag.
func TestFlags(t *testing.T) {
	tests := []struct {
		flags, want string // the flag named; "" if there is nothing to refuse
	}{
		{"", ""},
		{"-shared 2", ""},
		{"-cluster 127.0.0.1:7000,[::1]:7001", ""},
		{"-upstream-tls -upstream-ca a -upstream-cert a -upstream-key b -upstream-name c", ""},
		{"-upstream-ca ca.pem", "-upstream-ca"},
		{"-upstream-name redis", "-upstream-name"},
		{"-upstream-tls -upstream-key k", "-upstream-key"},
		{"-upstream-tls -upstream-cert c", "-upstream-cert"},
		{"-tls-key k", "-tls-key"},
		{"-tls-cert c", "-tls-cert"},
		{"-tls-client-ca c", "-tls-client-ca"},
		{"-upstream nonsense", "-upstream"},
		{"-upstream :6379", "-upstream"},
		{"-upstream host:", "-upstream"},
		{"-upstream host:99999", "-upstream"},
		{"-listen 6390", "-listen"},
		{"-metrics localhost", "-metrics"},
		{"-cluster a:1,b", "-cluster"},
		{"-cluster a:1,", "-cluster"},
		{"-cluster a:1 -upstream b:2", "-cluster"},
		{"-cluster a:1 -shared 0", ""},
		{"-shared -1", "-shared"},
		{"-shared 1000", "-shared"},
		{"-drain -5s", "-drain"},
		{"-slowlog -1ms", "-slowlog"},
		{"-idle -1s", "-idle"},
		{"-answer 0s", "-answer"},
		{"-connect -1s", "-connect"},
		{"-maxclients 0", "-maxclients"},
		{"-inflight 0", "-inflight"},
		{"-shared 1 -output 1", "-output"},
		{"-output 100000", "-output"},
		{"-slowlog-values", "-slowlog-values"},
		{"-requirepass-file f", "-requirepass-file"},
		{"-upstream-password-file f", "-upstream-password-file"},
		{"-shared 1 -upstream-user u", "-upstream-user"},
		{"extra", "extra"},
		{"-drain 1s extra", "extra"},
		{"-nosuch", "-nosuch"},
		{"-drain soon", "-drain"},
	}
	for _, tt := range tests {
		var said strings.Builder
		_, err := parseFlags(strings.Fields(tt.flags), &said)
		line, _, _ := strings.Cut(said.String(), "\n")
		if (err == nil) != (tt.want == "") || !strings.Contains(line, tt.want) {
			t.Errorf("%q: got %v, %q, want a line that names %q", tt.flags, err, line, tt.want)
		}
	}
}

// Names that the upstream does not know, files that are not there and the like are found at the start.
func TestCannotStart(t *testing.T) {
	redis := startRedis(t)
	for _, row := range []struct{ flags, want string }{
		{"-deny NOSUCH", `-deny: the upstream has no command "nosuch"`},
		{"-allow GET,NOSUCH", `-allow: the upstream has no command "nosuch"`},
		{"-deny CONFIG|NOSUCH", `-deny: the upstream has no command "config|nosuch"`},
		{"-deny a+b", "is no command's name"},
		{"-deny GET,,SET", "is no command's name"},
		{"-shared 1 -requirepass-file /nosuch/file", "-requirepass-file"},
		{"-upstream-tls -upstream-ca /nosuch/file", "-upstream-ca"},
		{"-tls-cert /nosuch/file -tls-key /nosuch/file", "-tls-cert"},
	} {
		o, err := parseFlags(append(strings.Fields(row.flags), "-listen", "127.0.0.1:0", "-upstream", redis.addr), io.Discard)
		if err != nil {
			t.Errorf("%s: %v", row.flags, err)
			continue
		}
		_, listener, err := o.open(context.Background(), slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err == nil {
			listener.Close()
		}
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.flags, err, row.want)
		}
	}
}
