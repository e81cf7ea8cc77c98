// Command bench measures the library beside its peers, and writes results.txt, which benchstat reads,
// results.md and results.svg:
//
//	cd interop && go run ./cmd/bench
//
// It needs redis-server and redis-benchmark, a Linux /proc, and a machine that does nothing else. It
// measures in rounds, each peer once in each, so that what disturbs a moment disturbs all alike, and
// reports medians. With -only it measures some sections, prints what it found, and leaves the files
// alone, so that all figures in a file are of one run.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

var (
	quick = flag.Bool("quick", false, "one short round of everything: a minute, and rough figures")
	out   = flag.String("o", ".", "directory of the results")
	only  = flag.String("only", "", "measure these sections only, and print the results: "+strings.Join(sectionNames(), ","))

	begun = time.Now()
)

// plan is how much is measured.
type plan struct {
	rounds       int           // of the benchmarks in the process
	benchtime    string        // of each
	serverRounds int           // of the servers
	serverTime   time.Duration // of each run of redis-benchmark
	idleRounds   int

	hostileTimeout time.Duration // of each case
}

// sections are the parts of the measurement, in the order of the report.
var sections = []struct {
	name    string
	measure func(r *results, dir string, p plan) error
}{
	{"parsers", (*results).parsers},
	{"servers", (*results).throughput},
	{"idle", (*results).idle},
	{"hostile", (*results).hostile},
	{"rpc", (*results).rpc},
	{"proxies", (*results).proxies},
}

func sectionNames() (names []string) {
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

// wanted returns which sections to measure.
func wanted() (names []string, err error) {
	if *only == "" {
		return sectionNames(), nil
	}
	names = strings.Split(*only, ",")
	for _, name := range names {
		if !slices.Contains(sectionNames(), name) {
			return nil, fmt.Errorf("-only: there is no section %q", name)
		}
	}
	return names, nil
}

func main() {
	flag.Parse()
	p := plan{6, "100ms", 9, 2 * time.Second, 3, time.Minute}
	if *quick {
		p = plan{1, "20ms", 1, time.Second, 1, 5 * time.Second}
	}
	if err := run(p); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(p plan) error {
	names, err := wanted()
	if err != nil {
		return err
	}
	for _, tool := range []string{"redis-server", "redis-benchmark"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	step("build")
	for _, args := range [][]string{
		{"test", "-c", "-o", filepath.Join(dir, "peers.test"), "."},
		{"build", "-o", filepath.Join(dir, "demo"), "github.com/secmask/go-redisproto/example"},
		{"build", "-o", filepath.Join(dir, "proxy"), "github.com/secmask/go-redisproto/example/proxy"},
		{"build", "-o", dir, "./cmd/redconserver", "./cmd/nullserver", "./cmd/gnetserver", "./cmd/hostile"},
	} {
		if _, err := output("go", args...); err != nil {
			return err
		}
	}
	var r results
	for _, section := range sections {
		if slices.Contains(names, section.name) {
			if err := section.measure(&r, dir, p); err != nil {
				return err
			}
		}
	}
	step("write the results")
	report, err := r.markdown()
	if err != nil {
		return err
	}
	report += r.proxyTable()
	if *only != "" {
		fmt.Print(report)
		return nil
	}
	for name, text := range map[string]string{
		"results.txt": r.text.String(), "results.md": report, "results.svg": r.svg(),
	} {
		if err := os.WriteFile(filepath.Join(*out, name), []byte(text), 0o666); err != nil {
			return err
		}
	}
	step("done")
	return nil
}

func step(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%3.0fs] %s\n", time.Since(begun).Seconds(), fmt.Sprintf(format, args...))
}

// output runs a command and returns what it prints.
func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	b, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", name, args[0], err, b, stderr.String())
	}
	return string(b), err
}

// parsers runs the benchmarks of this module.
func (r *results) parsers(dir string, p plan) error {
	for round := range p.rounds {
		if err := r.benchmarks(dir, p.benchtime, fmt.Sprintf("round %d of %d", round+1, p.rounds)); err != nil {
			return err
		}
	}
	return nil
}

// benchmarks runs them once.
func (r *results) benchmarks(dir, benchtime, round string) error {
	cmd := exec.Command(filepath.Join(dir, "peers.test"), "-test.run=^$", "-test.benchtime="+benchtime,
		"-test.bench=^Benchmark(Command|Pieces|Large|Parse|Writer|Reply)$")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var last string
	var failed []string
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		line := lines.Text()
		if !r.record(line) {
			failed = append(failed, line)
			continue
		}
		if parts := strings.SplitN(line, "/", 3); strings.HasPrefix(line, "Bench") && parts[0]+"/"+parts[1] != last {
			last = parts[0] + "/" + parts[1]
			step("%s: %s", round, last)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("benchmarks: %w\n%s", err, strings.Join(failed, "\n"))
	}
	return nil
}
