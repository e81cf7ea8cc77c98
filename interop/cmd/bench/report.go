package main

import (
	"fmt"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// results holds what was measured: the lines of the benchmarks, and their values.
type results struct {
	text   strings.Builder
	head   map[string]bool // configuration lines that text has
	names  []string        // of benchmarks, in order
	values map[string]map[string][]float64

	hostileTables string
}

var procs = regexp.MustCompile(`-\d+$`)

// record keeps a line. It reports false for one that is no result and no configuration.
func (r *results) record(line string) bool {
	if r.values == nil {
		r.values, r.head = make(map[string]map[string][]float64), make(map[string]bool)
	}
	if key, _, ok := strings.Cut(line, ": "); ok && slices.Contains([]string{"goos", "goarch", "pkg", "cpu"}, key) {
		if !r.head[line] {
			r.head[line] = true
			r.text.WriteString(line + "\n")
		}
		return true
	}
	fields := strings.Fields(line)
	if !strings.HasPrefix(line, "Benchmark") || len(fields) < 4 {
		return false
	}
	name := procs.ReplaceAllString(fields[0], "")
	if r.values[name] == nil {
		r.values[name] = make(map[string][]float64)
		r.names = append(r.names, name)
	}
	for i := 2; i+1 < len(fields); i += 2 {
		v, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			return false
		}
		r.values[name][fields[i+1]] = append(r.values[name][fields[i+1]], v)
	}
	r.text.WriteString(line + "\n")
	return true
}

// median is 0 for what was not measured.
func (r *results) median(name, unit string) float64 {
	v := slices.Sorted(slices.Values(r.values[name][unit]))
	if len(v) == 0 {
		return 0
	}
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// table has a row for each part between a benchmark's name and its last element, which are the
// columns. cell is given a benchmark, and the one in the same row whose column is base.
func (r *results) table(bench, base string, cell func(name, base string) string) string {
	var rows, cols []string
	for _, name := range r.names {
		if !strings.HasPrefix(name, bench+"/") {
			continue
		}
		i := strings.LastIndexByte(name, '/')
		if row := name[:i]; !slices.Contains(rows, row) {
			rows = append(rows, row)
		}
		if col := name[i:]; !slices.Contains(cols, col) {
			cols = append(cols, col)
		}
	}
	var b strings.Builder
	b.WriteString("| |")
	for _, col := range cols {
		_, label, _ := strings.Cut(col, "=")
		b.WriteString(" " + label + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(cols)) + "\n")
	for _, row := range rows {
		b.WriteString("| " + strings.ReplaceAll(strings.TrimPrefix(row, bench+"/"), "/", ", ") + " |")
		for _, col := range cols {
			text := "–"
			if r.values[row+col] != nil {
				text = cell(row+col, row+base)
			}
			b.WriteString(" " + text + " |")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (r *results) markdown() (string, error) {
	modules, err := output("go", "list", "-m", "-f", `{{if not (or .Main .Indirect .Replace)}}{{.Path}} {{.Version}}{{end}}`, "all")
	if err != nil {
		return "", err
	}
	redis, err := output("redis-server", "--version")
	if err != nil {
		return "", err
	}
	kernel, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", err
	}
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	_, cpu, _ := strings.Cut(string(cpus), "model name\t: ")
	cpu, _, _ = strings.Cut(cpu, "\n")
	version, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# Measured\n\nBy `go run ./cmd/bench`, %s, on %d cores of %s, Linux %s, with %s.",
		time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), cpu, version, runtime.Version())
	if *quick {
		p("\n**A quick run: rough figures.**")
	}
	p("\n%s, redis-server %s.", strings.Join(strings.Fields(strings.ReplaceAll(strings.TrimSpace(modules), "\n", ",\n")), " "),
		strings.TrimPrefix(strings.Fields(redis)[2], "v="))
	p("Medians. A cell has the time, in brackets how many times that of redisproto (or of ready, or of null), MB/s, and allocations.\n")

	in := func(title, bench, base string) {
		if !r.has(bench) {
			return
		}
		p("## %s\n\n%s", title, r.table(bench, base, r.inProcess))
	}
	in("Reading commands", "BenchmarkCommand", "/impl=redisproto")
	in("One command of 50,000 arguments", "BenchmarkPieces", "/impl=redisproto")
	in("Large values", "BenchmarkLarge", "/impl=ready")
	in("Commands in bytes that are there", "BenchmarkParse", "/impl=redisproto")
	in("Writing replies", "BenchmarkWriter", "/impl=redisproto")
	in("Reading 100 replies", "BenchmarkReply", "/impl=redisproto")

	if r.has("BenchmarkServer") {
		p("## Servers\n\n%s", r.servers())
	}
	if r.has("BenchmarkIdle") {
		p("## Idle connections\n\nMemory that the server takes from the system for each, in bytes:\n\n%s",
			r.table("BenchmarkIdle", "/server=redisproto", func(name, _ string) string {
				return fmt.Sprintf("%.0f", r.median(name, "B/conn"))
			}))
	}
	if r.hostileTables != "" {
		p("## What a few bytes cost\n\n%s\n\n%s", hostileText, r.hostileTables)
	}
	if r.has("BenchmarkRPC") {
		p("## Remote procedure calls\n\n%s", r.rpcReport())
	}
	return strings.TrimSpace(b.String()) + "\n", nil
}

// has reports whether a benchmark has been measured.
func (r *results) has(bench string) bool {
	return slices.ContainsFunc(r.names, func(name string) bool { return strings.HasPrefix(name, bench+"/") })
}

func (r *results) servers() string {
	persec := r.table("BenchmarkServer", "/server=null", func(name, _ string) string {
		return fmt.Sprintf("%.0f", r.median(name, "req/s"))
	})
	cpu := r.table("BenchmarkServer", "/server=null", func(name, base string) string {
		return fmt.Sprintf("%s (%.2f×): %s + %s", duration(r.median(name, "cpu-ns/op")),
			r.median(name, "cpu-ns/op")/r.median(base, "cpu-ns/op"),
			duration(r.median(name, "user-ns/op")), duration(r.median(name, "sys-ns/op")))
	})
	return fmt.Sprintf(`redis-benchmark, SET of %d bytes, %d connections. Requests per second:

%s
Processor time per request, user + system:

%s`, len(value), clients, persec, cpu)
}

func (r *results) inProcess(name, base string) string {
	ns, ratio := r.median(name, "ns/op"), ""
	if of := r.median(base, "ns/op"); of > 0 && name != base {
		ratio = fmt.Sprintf(" (%s×)", digits(ns/of))
	}
	return fmt.Sprintf("%s%s, %s MB/s, %.0f", duration(ns), ratio, digits(r.median(name, "MB/s")), r.median(name, "allocs/op"))
}

// digits gives three digits of a number, or all that stand before the point.
func digits(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// duration gives three digits of a time in nanoseconds.
func duration(ns float64) string {
	for _, unit := range []string{"ns", "µs", "ms"} {
		if ns < 999.5 {
			return fmt.Sprintf("%s %s", digits(ns), unit)
		}
		ns /= 1000
	}
	return digits(ns) + " s"
}
