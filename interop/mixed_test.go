package interop

import (
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/secmask/go-redisproto"
	"github.com/tidwall/redcon"
)

// mixedTraffic returns a pipeline of at least 4 MB as real clients send it, and how many commands it
// has: the same bytes as in the library's own benchmarks. The processor cannot learn it by heart, as
// it does with one repeated command.
var mixedTraffic = sync.OnceValues(func() (pipeline []byte, commands int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func(least, most int) string {
		b := make([]byte, least+rnd.IntN(most-least+1))
		for i := range b {
			b[i] = 'a' + byte(rnd.IntN(26))
		}
		return string(b)
	}
	for len(pipeline) < 4<<20 {
		args := []string{strings.ToUpper(text(3, 7))}
		for i := range rnd.IntN(6) {
			if i == 0 {
				args = append(args, text(4, 40))
			} else {
				args = append(args, text(1, 400))
			}
		}
		pipeline = append(pipeline, request(args...)...)
		commands++
	}
	return pipeline, commands
})

// TestMixedTraffic: all parsers find all commands, and the bytes are those that were measured before.
func TestMixedTraffic(t *testing.T) {
	pipeline, commands := mixedTraffic()
	if got, want := crc32.ChecksumIEEE(pipeline), uint32(0x510f08de); got != want {
		t.Errorf("mixed traffic: got checksum %#x, want %#x", got, want)
	}
	arguments := 0
	for i, impl := range parsers {
		read, n := impl.make(&endless{data: pipeline, n: 16 << 10}), 0
		for range commands {
			args, _, err := read()
			if err != nil {
				t.Fatalf("%s: %v", impl.name, err)
			}
			n += args
		}
		if i == 0 {
			arguments = n
		}
		if n != arguments || n < commands {
			t.Errorf("%s: got %d arguments in %d commands, want %d", impl.name, n, commands, arguments)
		}
	}
}

// commandMixed is the part of BenchmarkCommand that reads the mixed traffic.
func commandMixed(b *testing.B) {
	pipeline, commands := mixedTraffic()
	const name = "traffic=mixed/pipeline=16k/impl="
	size := len(pipeline) / commands
	source := func() io.Reader { return &endless{data: pipeline, n: 16 << 10} }
	for _, impl := range parsers {
		b.Run(name+impl.name, func(b *testing.B) {
			read := impl.make(source())
			benchmark(b, size, func() error { _, _, err := read(); return err })
		})
	}
	b.Run(name+"miniredis", func(b *testing.B) { serveMiniredis(b, command{bytes: make([]byte, size)}, source()) })
}

// parseMixed is the part of BenchmarkParse that looks for the commands of the mixed traffic.
func parseMixed(b *testing.B) {
	pipeline, commands := mixedTraffic()
	size := len(pipeline) / commands
	b.Run("traffic=mixed/impl=redisproto", func(b *testing.B) {
		var p redisproto.Parser
		rest := pipeline
		benchmark(b, size, func() error {
			_, n, err := p.Parse(rest)
			if rest = rest[n:]; len(rest) == 0 {
				rest = pipeline
			}
			return err
		})
	})
	b.Run("traffic=mixed/impl=redcon", func(b *testing.B) {
		rest := pipeline
		var args [][]byte
		benchmark(b, size, func() error {
			var err error
			_, args, _, rest, err = redcon.ReadNextCommand(rest, args[:0])
			if len(rest) == 0 {
				rest = pipeline
			}
			return err
		})
	})
}
