package main

import (
	"fmt"
	"os"
	"runtime/metrics"
	"strings"
	"sync"
	"syscall"
	"time"
)

// runChild runs one case under the memory limit. It prints what has been allocated so far and the
// time, every few milliseconds and at the end.
func runChild(name string) error {
	parts := strings.SplitN(name, "/", 3)
	limit := uint64(*memory) << 30
	if err := syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	for _, t := range tables {
		for _, c := range t.cases {
			for _, p := range t.peers {
				if len(parts) == 3 && t.name == parts[0] && c.name == parts[1] && p.name == parts[2] {
					return runCase(c, p)
				}
			}
		}
	}
	return fmt.Errorf("there is no case %s", name)
}

func runCase(c *hostileCase, p peer) error {
	read, err := p.open(c)
	if err != nil {
		return err
	}
	begun, before := time.Now(), allocated()
	var mu sync.Mutex // the last line is the one that says how it ended
	report := func(end string) {
		fmt.Printf("%d %d %s\n", allocated()-before, time.Since(begun), end)
	}
	go func() {
		for {
			mu.Lock()
			report("-")
			mu.Unlock()
			time.Sleep(5 * time.Millisecond)
		}
	}()
	end := read()
	mu.Lock()
	report(end)
	os.Exit(0)
	return nil
}

// allocated returns how many bytes the heap has given out since the start of the process.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
