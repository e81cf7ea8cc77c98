package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A worker is a client that counts on keys of its own and on shared ones, and keeps the books.
type worker struct {
	id     int
	addr   string
	keys   []string
	random *rand.Rand
	sent   int  // commands, so far
	wait   bool // ask for a replica's confirmation after each pipeline

	acked     map[string]int // increments that were acknowledged, by key
	confirmed map[string]int // those that a replica has
	maybe     map[string]int // those that may have been executed
	refused   map[string]int // errors that say that nothing was executed, by their text
	rounds    atomic.Int64   // pipelines that were answered without an error
}

// runWorkers runs clients on keys until stop is closed, and returns them when they are over.
func runWorkers(t *testing.T, addr string, n int, wait bool, keys []string, stop chan struct{}) (workers []*worker, finish func()) {
	var running sync.WaitGroup
	for id := range n {
		w := &worker{id: id, addr: addr, keys: keys, random: rand.New(rand.NewSource(int64(id))), wait: wait,
			acked: map[string]int{}, confirmed: map[string]int{}, maybe: map[string]int{}, refused: map[string]int{}}
		workers = append(workers, w)
		running.Add(1)
		go func() {
			defer running.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := w.connect(t, stop); err != nil {
					t.Errorf("client %d: %v", w.id, err)
					return
				}
			}
		}()
	}
	return workers, running.Wait
}

// connect works on one connection until that ends or stop is closed.
func (w *worker) connect(t *testing.T, stop chan struct{}) error {
	k := dial(t, w.addr, nil)
	defer k.Conn.Close()
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		k.SetDeadline(time.Now().Add(20 * time.Second))
		if err := w.pipeline(k); err != nil {
			if errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset by peer") || strings.Contains(err.Error(), "broken pipe") {
				return nil // the proxy has closed it; connect again
			}
			return err
		}
	}
}

// A sentCommand is a command of a worker whose reply is due.
type sentCommand struct {
	key  string // it increments this one; or
	echo string // the reply has to be this
}

// pipeline sends some commands and reads their replies. Those that get none, because the connection
// ends, may have been executed. The pause before leaves the machine time for the nodes and other tests.
func (w *worker) pipeline(k *conn) error {
	time.Sleep(time.Duration(w.random.Intn(10)) * time.Millisecond)
	var sent []sentCommand
	for range 1 + w.random.Intn(20) {
		key := w.keys[w.random.Intn(len(w.keys))]
		w.sent++
		switch w.random.Intn(3) {
		case 0:
			k.WriteBulkStrings([]string{"RPUSH", w.list(key), fmt.Sprintf("%08d", w.sent)})
			sent = append(sent, sentCommand{})
		case 1:
			token := fmt.Sprintf("%d:%d", w.id, w.sent)
			k.WriteBulkStrings([]string{"EVAL", "return ARGV[1]", "1", key, token})
			sent = append(sent, sentCommand{echo: fmt.Sprintf("$%d\r\n%s\r\n", len(token), token)})
		default:
			k.WriteBulkStrings([]string{"INCR", key})
			sent = append(sent, sentCommand{key: key})
		}
	}
	if w.wait {
		k.WriteBulkStrings([]string{"WAIT", "1", "500"})
	}
	err := k.Flush()
	before := maps.Clone(w.acked)
	good := true
	for i, c := range sent {
		var r string
		if err == nil {
			r, err = readRaw(k)
		}
		if err != nil {
			for _, c := range sent[i:] {
				w.maybe[c.key]++
			}
			return err
		}
		if r[0] == '-' {
			good = false
		}
		if err := w.take(c, r); err != nil {
			return err
		}
	}
	if good {
		w.rounds.Add(1)
	}
	if w.wait {
		r, err := readRaw(k)
		if err != nil {
			return err
		}
		if r != ":0\r\n" && r[0] == ':' {
			for key, n := range w.acked {
				w.confirmed[key] += n - before[key]
			}
		}
	}
	return nil
}

func readRaw(k *conn) (string, error) {
	r, err := k.ReadReply()
	if err != nil {
		return "", err
	}
	return string(r.Raw()), nil
}

// list is the list of the worker's own in the slot of a key.
func (w *worker) list(key string) string { return fmt.Sprintf("{%s}list%d", key, w.id) }

// take takes the reply to a command. It is an error if the reply is one that no client must see.
func (w *worker) take(c sentCommand, r string) error {
	switch {
	case strings.HasPrefix(r, "-MOVED"), strings.HasPrefix(r, "-ASK"), strings.HasPrefix(r, "-TRYAGAIN"):
		return fmt.Errorf("got %q", r)
	case strings.Contains(r, "may have been executed"), strings.Contains(r, "did not answer"):
		w.maybe[c.key]++
	case r[0] == '-':
		w.refused[strings.TrimSpace(r)]++
	case c.echo != "" && r != c.echo:
		return fmt.Errorf("got the foreign reply %q, want %q", r, c.echo)
	case c.echo == "" && r[0] != ':':
		return fmt.Errorf("got the foreign reply %q, want an integer", r)
	case c.key != "":
		w.acked[c.key]++
	}
	return nil
}

// checkBooks compares what the workers were told with what the cluster has. If some nodes were lost,
// only the increments that a replica has confirmed have to be there.
func checkBooks(t *testing.T, addr string, workers []*worker, lost bool) {
	t.Helper()
	k := dial(t, addr, nil)
	defer k.Conn.Close()
	total, errs := 0, map[string]int{}
	for _, key := range workers[0].keys {
		least, most := 0, 0
		for _, w := range workers {
			if lost {
				least += w.confirmed[key]
			} else {
				least += w.acked[key]
			}
			most += w.acked[key] + w.maybe[key]
		}
		k.send("INCRBY " + key + " 0")
		r, err := k.ReadReply()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := r.Int(); err != nil || int(n) < least || int(n) > most {
			t.Errorf("%s is %s; the clients know of %d increments for certain, and of %d at most", key, r.Raw(), least, most)
		}
		total += most
		for _, w := range workers {
			w.checkOrder(t, k, key)
		}
	}
	for _, w := range workers {
		for text, n := range w.refused {
			errs[text] += n
		}
	}
	t.Logf("%d increments by %d clients; errors: %v", total, len(workers), errs)
}

// checkOrder checks that what the worker pushed is in the order in which it did that.
func (w *worker) checkOrder(t *testing.T, k *conn, key string) {
	t.Helper()
	k.send("LRANGE " + w.list(key) + " 0 -1")
	r, err := k.ReadReply()
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for element := range r.All() {
		if this := string(element.Bytes()); this <= last {
			t.Errorf("client %d pushed %s after %s", w.id, last, this)
			return
		} else {
			last = this
		}
	}
}

// keysOfSlots returns keys of n different slots of the i-th master of a cluster as it starts.
func keysOfSlots(i, n int) (keys []string) {
	for m := 0; len(keys) < n; m++ {
		if key := fmt.Sprintf("k%d", m); keySlot([]byte(key))*mastersOfCluster/slotCount == i {
			keys = append(keys, key)
		}
	}
	return keys
}
