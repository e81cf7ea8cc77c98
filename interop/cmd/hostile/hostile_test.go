package main

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

// TestMain makes the test binary the child process too, as the program itself is.
func TestMain(m *testing.M) {
	flag.Parse()
	if *child != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestThisLibrary runs all cases against this library: it allocates no more than a small multiple
// of the bytes that arrive, and the process lives.
func TestThisLibrary(t *testing.T) {
	const bound = 8 << 20 // bytes allocated; the largest command has 1 MiB, and is held twice while its buffer grows
	for _, row := range []struct{ table, hostile, end string }{
		{"replies", "array", "waits for more"},
		{"replies", "map", "waits for more"},
		{"replies", "bulk", "waits for more"},
		{"replies", "nested", "error"},
		{"requests", "bulk", "error"},
		{"requests", "negative", "error"},
		{"requests", "newline", `"PING", end`},
		{"requests", "empty", `"PING", end`},
		{"requests", "count", "waits for more"},
		{"requests", "pieces", "MSET of 50001 arguments, end"},
	} {
		for _, peer := range []string{"redisproto", "redisproto, Parse"} {
			if row.table == "replies" && peer != "redisproto" {
				continue
			}
			name := strings.Join([]string{row.table, row.hostile, peer}, "/")
			t.Run(name, func(t *testing.T) {
				if peer == "redisproto, Parse" && (row.hostile == "newline" || row.hostile == "empty") {
					row.end = "empty, " + row.end // which the push form tells its caller of
				}
				m, err := measure(name)
				if err != nil {
					t.Fatal(err)
				}
				if m.end != row.end {
					t.Errorf("end: got %s, want %s", m.end, row.end)
				}
				if m.allocated > bound {
					t.Errorf("allocated: got %d bytes, want at most %d", m.allocated, bound)
				}
			})
		}
	}
}

// TestMeasure has cases that end in all the ways there are, among them a process that dies.
func TestMeasure(t *testing.T) {
	if testing.Short() {
		t.Skip("a stack overflow takes a GiB of memory and some seconds")
	}
	for name, want := range map[string]string{
		"replies/nested/redcon":    "**dies of a stack overflow**",
		"replies/array/redigo":     "waits for more",
		"requests/empty/miniredis": "**panics: slice bounds out of range [1:0]**",
	} {
		m, err := measure(name)
		if err != nil {
			t.Fatal(err)
		}
		if m.end != want {
			t.Errorf("%s: got %s, want %s", name, m.end, want)
		}
		if name == "replies/array/redigo" && m.allocated < 1e9 {
			t.Errorf("%s: got %d bytes allocated, want the 1.6 GB of the list", name, m.allocated)
		}
	}
	if m, err := measure("requests/none/redcon"); err == nil {
		t.Errorf("a case that there is not: got %v, want an error", m)
	}
}

func TestDeath(t *testing.T) {
	for _, row := range []struct{ stderr, want string }{
		{"", ""},
		{"hostile: a plain error\n", ""},
		{"panic: runtime error: makeslice: len out of range\n\ngoroutine 1 [running]:\n", "panics: makeslice: len out of range"},
		{"runtime: goroutine stack exceeds 1000000000-byte limit\nfatal error: stack overflow\n", "dies of a stack overflow"},
		{"fatal error: runtime: out of memory\n", "dies: out of memory"},
		{"runtime: VirtualAlloc failed\nfatal error: runtime: cannot allocate memory\n", "dies: out of memory"},
		{"fatal error: all goroutines are asleep - deadlock!\n", "dies: all goroutines are asleep - deadlock!"},
	} {
		if got := death([]byte(row.stderr)); got != row.want {
			t.Errorf("death(%q): got %q, want %q", row.stderr, got, row.want)
		}
	}
}

// TestStreams: a case has the bytes that it says, in reads of any size.
func TestStreams(t *testing.T) {
	c := &hostileCase{unit: "*1\r\n", times: 5003}
	if got, want := c.bytes(), bytes.Repeat([]byte("*1\r\n"), 5003); !bytes.Equal(got, want) {
		t.Errorf("bytes: got %d, want %d, of the unit repeated", len(got), len(want))
	}
	c.single = true
	buf := make([]byte, 10)
	if n, err := c.stream().Read(buf); n != 1 || err != nil {
		t.Errorf("read: got %d bytes, error %v; want 1, nil", n, err)
	}
}
