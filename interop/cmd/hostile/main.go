// Command hostile shows what a few malicious bytes cost this library and others:
//
//	cd interop && go run ./cmd/hostile
//
// It needs Linux. Each case runs in a process of its own whose address space is limited, because
// some of the cases end the process. The tables that it prints are Markdown, for results.md.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var (
	memory  = flag.Int("memory", 12, "GiB of address space that each process may have")
	timeout = flag.Duration("timeout", time.Minute, "how long each process may take")
	child   = flag.String("child", "", "run one case, table/case/peer, in this process (used by the program itself)")
)

func main() {
	flag.Parse()
	err := error(nil)
	if *child != "" {
		err = runChild(*child)
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

// run measures every case with every peer and prints a table for each side of the protocol.
func run() error {
	for _, t := range tables {
		fmt.Printf("%s\n\n| |", t.title)
		for _, p := range t.peers {
			fmt.Printf(" %s |", p.name)
		}
		fmt.Printf("\n|---|%s\n", strings.Repeat("---|", len(t.peers)))
		for i, c := range t.cases {
			fmt.Printf("| %s |", c.label)
			for _, p := range t.peers {
				fmt.Fprintf(os.Stderr, "%s %d of %d: %s\n", t.name, i+1, len(t.cases), p.name)
				m, err := measure(strings.Join([]string{t.name, c.name, p.name}, "/"))
				if err != nil {
					return err
				}
				fmt.Printf(" %v |", m)
			}
			fmt.Println()
		}
		fmt.Println()
	}
	return nil
}

// A measurement is what a process tells of its case, and what the system tells of the process.
type measurement struct {
	allocated, peak int // bytes
	took            time.Duration
	end             string
}

func (m measurement) String() string {
	s := fmt.Sprintf("%s, %s", megabytes(m.allocated), megabytes(m.peak))
	if m.took >= 10*time.Millisecond {
		s += fmt.Sprintf(", %.2f s", m.took.Seconds())
	}
	return s + ": " + m.end
}

func megabytes(n int) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

// measure runs one case in a child process and waits for its end, whatever that is.
func measure(name string) (m measurement, err error) {
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	cmd := exec.Command(self, "-child", name, "-memory", strconv.Itoa(*memory))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return m, err
	}
	timer := time.AfterFunc(*timeout, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	killed := !timer.Stop()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		m.peak = int(usage.Maxrss) << 10
	}
	// The child reports every few milliseconds, so that the last line is there if it dies.
	for line := range strings.Lines(stdout.String()) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		if len(parts) != 3 {
			continue // a line that was being written when the child died
		}
		allocated, err1 := strconv.Atoi(parts[0])
		took, err2 := strconv.Atoi(parts[1])
		if err := errors.Join(err1, err2); err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		m.allocated, m.took, m.end = allocated, time.Duration(took), parts[2]
	}
	switch reason := death(stderr.Bytes()); {
	case killed:
		m.took, m.end = *timeout, fmt.Sprintf("**not done after %v**", *timeout)
	case reason != "":
		m.end = "**" + reason + "**"
	case err != nil:
		return m, fmt.Errorf("%s: %w\n%s", name, err, &stderr)
	}
	return m, nil
}

var deaths = regexp.MustCompile(`(?m)^(fatal error|panic|runtime): (.*)$`)

// death returns what the Go runtime says of the end of a process, or "" if it did not die.
func death(stderr []byte) string {
	switch found := deaths.FindSubmatch(stderr); {
	case found == nil:
		return ""
	case bytes.Contains(stderr, []byte("stack overflow")):
		return "dies of a stack overflow"
	case bytes.Contains(stderr, []byte("out of memory")), bytes.Contains(stderr, []byte("cannot allocate memory")):
		return "dies: out of memory"
	case string(found[1]) == "panic":
		return "panics: " + strings.TrimPrefix(string(found[2]), "runtime error: ")
	default:
		return "dies: " + string(found[2])
	}
}
