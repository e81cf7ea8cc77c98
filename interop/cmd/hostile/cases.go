package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing/iotest"
)

// A hostileCase is a stream of bytes: the same ones, so many times.
type hostileCase struct {
	name, label string
	unit        string
	times       int
	single      bool // each read gives one byte
}

// stream gives the bytes of the case without holding them.
func (c *hostileCase) stream() io.Reader {
	var r io.Reader = &repeated{text: strings.Repeat(c.unit, min(c.times, 1000)), left: len(c.unit) * c.times}
	if c.single {
		r = iotest.OneByteReader(r)
	}
	return r
}

// bytes gives the whole case, for the parsers that are given all bytes at once.
func (c *hostileCase) bytes() []byte {
	b := make([]byte, len(c.unit)*c.times)
	if _, err := io.ReadFull(c.stream(), b); err != nil {
		panic(err) // stream gives exactly so many
	}
	return b
}

// repeated gives the same text again and again, until none of its bytes are left.
type repeated struct {
	text      string
	pos, left int
}

func (r *repeated) Read(b []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), r.left)], r.text[r.pos:])
	r.pos = (r.pos + n) % len(r.text)
	r.left -= n
	return n, nil
}

// pingBehind is a whole command. Where it stands behind the hostile bytes, the outcome tells
// whether the parser still finds it.
const pingBehind = "*1\r\n$4\r\nPING\r\n"

var replyCases = []*hostileCase{
	{name: "array", label: "`*100000000`", unit: "*100000000\r\n", times: 1},
	{name: "map", label: "`%100000000`", unit: "%100000000\r\n", times: 1},
	{name: "bulk", label: "`$500000000` `x`", unit: "$500000000\r\nx", times: 1},
	{name: "nested", label: "`*1`, five million times", unit: "*1\r\n", times: 5_000_000},
}

var requestCases = []*hostileCase{
	{name: "bulk", label: "`*1` `$9223372036854775807`", unit: "*1\r\n$9223372036854775807\r\n" + pingBehind, times: 1},
	{name: "negative", label: "`*1` `$-7`", unit: "*1\r\n$-7\r\n" + pingBehind, times: 1},
	{name: "newline", label: "a lone LF, then PING", unit: "\n" + pingBehind, times: 1},
	{name: "empty", label: "`*0`, then PING", unit: "*0\r\n" + pingBehind, times: 1},
	{name: "count", label: "`*2147483647`", unit: "*2147483647\r\n", times: 1},
	{name: "pieces", label: "MSET of 25,000 pairs, in reads of one byte", unit: largeMSET(), times: 1, single: true},
}

// largeMSET is a command of 50,001 arguments, which is not hostile but for how it arrives.
func largeMSET() string {
	var b bytes.Buffer
	b.WriteString("*50001\r\n$4\r\nMSET\r\n")
	for i := range 25_000 {
		fmt.Fprintf(&b, "$16\r\nkey:%012d\r\n$12\r\nval:%08d\r\n", i, i)
	}
	return b.String()
}
