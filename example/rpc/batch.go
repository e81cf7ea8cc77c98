package main

import (
	"bufio"

	"github.com/secmask/go-redisproto"
)

// A batch is a Writer and the bytes that it has written, which go to a connection together. Nothing
// leaves a batch by itself, so what was written last can be taken back: a handler that fails in the
// middle of its reply has replied nothing yet.
type batch struct {
	w   *redisproto.Writer // over buf
	buf *bufio.Writer      // over the batch, which it appends to
	b   []byte
	max int // bytes of memory that an empty batch keeps
}

func newBatch(protocol, max int) *batch {
	t := &batch{max: max}
	t.buf = bufio.NewWriterSize(t, 2<<10)
	t.w = redisproto.NewWriter(t.buf)
	t.w.SetProtocol(protocol)
	return t
}

// Write appends p. It is for buf.
func (t *batch) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	return len(p), nil
}

// size returns how many bytes have been written.
func (t *batch) size() int { return len(t.b) + t.buf.Buffered() }

// bytes returns all that has been written.
func (t *batch) bytes() []byte {
	t.buf.Flush()
	return t.b
}

// truncate takes back all but the first n bytes, and the error that the rest ended in, if any.
func (t *batch) truncate(n int) {
	t.buf.Flush()
	t.b = t.b[:n]
	protocol := t.w.Protocol()
	t.w.Reset(t.buf)
	t.w.SetProtocol(protocol)
}

// reset empties the batch. What is written next goes to memory, if that is not too large to keep.
func (t *batch) reset(memory []byte) {
	if cap(memory) > t.max {
		memory = nil
	}
	t.b = memory[:0]
}
