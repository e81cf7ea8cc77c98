package main

import (
	"testing"

	"github.com/secmask/go-redisproto"
)

// SIGTERM ends what waits for others, also if the session itself waits for that.
func TestDrainWhileAwaiting(t *testing.T) {
	t.Parallel()
	redis := startRedis(t)
	other := dial(t, redis.addr, nil)
	p := startProxy(t, redis.addr, "-shared", "1", "-drain", "30s")
	k := dial(t, p.addr, nil)
	k.send("BLPOP none 0", "CLIENT SETNAME me", "WAIT 0 0", "PING")
	other.untilInfo("blocked_clients:1")
	waitFor(t, "the session waits", func() bool { return isAwaiting(p) })
	p.stop()
	if got, want := k.rest(), unblocked+"+OK\r\n:0\r\n+PONG\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	<-p.done
}

// A node that does not answer keeps the proxy from stopping for no longer than -drain.
func TestDrainGivesUp(t *testing.T) {
	for _, commands := range [][]string{{"BLPOP none 0"}, {"BLPOP none 0", "WAIT 0 0"}} {
		t.Run(commands[len(commands)-1], func(t *testing.T) {
			t.Parallel()
			node, _ := startTwoNodes(t, slotCount)
			p := startProxyWith(t, "-cluster", node.addr, "-drain", "100ms")
			k := dial(t, p.addr, nil)
			k.send("PING")
			k.want("+PONG\r\n")
			over := make(chan struct{})
			t.Cleanup(func() { close(over) }) // before the node ends
			node.answer = func(*redisproto.Command) string { <-over; return "*-1\r\n" }
			k.send(commands...)
			waitFor(t, "the node is asked", func() bool { return node.calls.Load() > 0 })
			p.stop()
			if got, want := k.read(), "-ERR upstream did not answer before the proxy stopped; the command may have been executed\r\n"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
			<-p.done
		})
	}
}
