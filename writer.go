package redisproto

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
)

// A Writer writes replies. It is a thin layer over a bufio.Writer and holds no bytes of its own:
// several Writers on one bufio.Writer, and bytes written to that in between, come out in order. It
// is not safe for concurrent use.
//
// The first error sticks: every later call returns it and writes nothing.
type Writer struct {
	bw    *bufio.Writer
	whole *whole           // between bw and a destination that is no bufio.Writer; else nil
	err   error            // why nothing more may be written, where bw does not know
	src   io.LimitedReader // WriteBulkFrom's, here so that it is not allocated each time
}

// whole is where bw writes to if the caller gave no bufio.Writer: it collects a reply, so that it
// goes out in one Write.
type whole struct {
	dst  io.Writer
	held []byte
	open int // aggregates begun and not ended; elements wait for them
}

func (h *whole) Write(b []byte) (int, error) {
	h.held = append(h.held, b...)
	return len(b), nil
}

const (
	maxHead   = 24       // bytes: type, int64, CR LF
	smallBulk = 512      // bytes: up to here a bulk is put together before it goes to bw
	wholeSize = 128      // bytes: bw's buffer in front of a whole
	maxHeld   = 64 << 10 // bytes: what a whole keeps, and collects of a reader
	maxDepth  = 100_000  // levels of []any; a value that holds itself has more
)

// NewWriter returns a Writer to w. If w is a *bufio.Writer, that one is used and replies stay in it
// until it is full or flushed. To any other writer each reply goes whole, in one Write, before the
// call that writes it returns.
func NewWriter(w io.Writer) *Writer {
	wr := new(Writer)
	wr.Reset(w)
	return wr
}

// Reset makes w write to dst, as NewWriter would, and forgets its error. A bufio.Writer that it had
// is neither flushed nor reset.
func (w *Writer) Reset(dst io.Writer) {
	w.err, w.src.R = nil, nil
	if bw, ok := dst.(*bufio.Writer); ok {
		w.bw, w.whole = bw, nil
		return
	}
	w.whole = &whole{dst: dst}
	w.bw = bufio.NewWriterSize(w.whole, wholeSize)
}

// Flush flushes the bufio.Writer.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	return w.bw.Flush()
}

// Write writes b as it is: bytes that are RESP already, such as a Raw.
func (w *Writer) Write(b []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.bw.Write(b)
	if w.whole != nil {
		err = w.deliver()
	}
	return n, err
}

// room returns the buffer's free space to append n bytes to, if the buffer can have so many.
func (w *Writer) room(n int) []byte {
	if w.bw.Available() < n && w.err == nil {
		w.bw.Flush() // an error shows again in what follows
	}
	return w.bw.AvailableBuffer()
}

// send writes b, which is best the space that room gave.
func (w *Writer) send(b []byte) error {
	if w.err != nil {
		return w.err
	}
	_, err := w.bw.Write(b)
	if w.whole != nil {
		return w.deliver()
	}
	return err
}

// begin and end stand around the parts of one reply.
func (w *Writer) begin() {
	if w.whole != nil {
		w.whole.open++
	}
}

func (w *Writer) end(err error) error {
	if w.whole != nil {
		w.whole.open--
		return w.deliver()
	}
	return err
}

// deliver hands a reply that is complete to the destination.
func (w *Writer) deliver() error {
	h := w.whole
	if h.open > 0 || w.err != nil {
		return w.err
	}
	w.bw.Flush() // to h, which gives no error
	n, err := h.dst.Write(h.held)
	if err == nil && n < len(h.held) {
		err = io.ErrShortWrite
	}
	w.err = err
	h.held = h.held[:0]
	if cap(h.held) > maxHeld {
		h.held = nil
	}
	return err
}

// WriteSimpleString writes s as a simple string: "+OK". CR and LF in it become spaces, as in Redis,
// so that it cannot forge a second reply.
func (w *Writer) WriteSimpleString(s string) error {
	return w.send(appendLine(w.room(len(s)+3), '+', s))
}

// WriteError writes s as an error. By convention its first word is a code in capitals: "ERR no such
// thing". CR and LF in it become spaces, as in Redis.
func (w *Writer) WriteError(s string) error {
	return w.send(appendLine(w.room(len(s)+3), '-', s))
}

// WriteInt writes n as an integer.
func (w *Writer) WriteInt(n int64) error {
	return w.send(appendHead(w.room(maxHead), ':', n))
}

// WriteBulk writes b as a bulk string, or null if b is nil.
func (w *Writer) WriteBulk(b []byte) error {
	if b == nil {
		return w.WriteNull()
	}
	if len(b) <= smallBulk {
		buf := appendHead(w.room(maxHead+len(b)+2), '$', int64(len(b)))
		buf = append(buf, b...)
		return w.send(append(buf, "\r\n"...))
	}
	w.begin()
	w.send(appendHead(w.room(maxHead), '$', int64(len(b))))
	w.send(b)
	return w.end(w.send(append(w.room(2), "\r\n"...)))
}

// WriteBulkString writes s as a bulk string.
func (w *Writer) WriteBulkString(s string) error {
	if len(s) <= smallBulk {
		buf := appendHead(w.room(maxHead+len(s)+2), '$', int64(len(s)))
		buf = append(buf, s...)
		return w.send(append(buf, "\r\n"...))
	}
	w.begin()
	w.send(appendHead(w.room(maxHead), '$', int64(len(s))))
	if w.err == nil {
		w.bw.WriteString(s)
	}
	return w.end(w.send(append(w.room(2), "\r\n"...)))
}

// WriteBulkFrom writes a bulk string of n bytes that it reads from r, without holding them: a file
// goes to a TCP connection as the operating system does it best. If r has fewer bytes, or fails,
// the peer can never be brought back in step: the error, io.ErrUnexpectedEOF or r's own, stays with
// w for good, and the connection must be closed. A negative n is refused before anything is written.
//
// Without a bufio.Writer, a bulk of more than 64 KiB is not held to be sent in one Write.
func (w *Writer) WriteBulkFrom(r io.Reader, n int64) error {
	if n < 0 {
		return fmt.Errorf("redisproto: bulk string of %d bytes", n)
	}
	w.begin()
	w.send(appendHead(w.room(maxHead), '$', n))
	if w.err == nil {
		w.err = w.copyFrom(r, n)
	}
	return w.end(w.send(append(w.room(2), "\r\n"...)))
}

// copyFrom copies n bytes.
func (w *Writer) copyFrom(r io.Reader, n int64) (err error) {
	w.src = io.LimitedReader{R: r, N: n}
	if h := w.whole; h != nil && n > maxHeld {
		h.open--
		if err = w.deliver(); err == nil {
			_, err = io.Copy(h.dst, &w.src)
		}
		h.open++
	} else {
		_, err = w.bw.ReadFrom(&w.src)
	}
	if err == nil && w.src.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	w.src.R = nil
	return err
}

// WriteNull writes null: "$-1".
func (w *Writer) WriteNull() error {
	return w.send(append(w.room(maxHead), "$-1\r\n"...))
}

// WriteArrayHeader begins an array of n elements, which are what is written next. A negative n
// writes a null array.
func (w *Writer) WriteArrayHeader(n int) error {
	return w.send(appendHead(w.room(maxHead), '*', max(int64(n), -1)))
}

// WriteBulks writes an array of bulk strings. A nil element is null; no element at all, which Go
// passes as a nil slice, is a null array.
func (w *Writer) WriteBulks(bulks ...[]byte) error { return w.WriteBulksSlice(bulks) }

// WriteBulksSlice writes an array of bulk strings. A nil element is null, a nil slice a null array.
func (w *Writer) WriteBulksSlice(bulks [][]byte) error {
	return writeArray(w, bulks, (*Writer).WriteBulk)
}

// WriteBulkStrings writes an array of bulk strings, or a null array if the slice is nil.
func (w *Writer) WriteBulkStrings(bulks []string) error {
	return writeArray(w, bulks, (*Writer).WriteBulkString)
}

// WriteObjects writes an array of the values given: see [Writer.WriteObjectsSlice].
func (w *Writer) WriteObjects(objs ...any) error { return w.WriteObjectsSlice(objs) }

// WriteObjectsSlice writes an array of values of any of these types, or a null array if objs is nil:
//
//	nil                               null
//	bool                              integer, 1 or 0
//	int..., uint...                   integer; a uint over the int64 range: bulk string
//	float32, float64                  bulk string, the shortest that reads back the same
//	string, []byte                    bulk string; a nil []byte: null
//	error                             error
//	[]string, [][]byte, []any         array, to any depth; nil: null array
//
// A value of any other type is refused with an error before a byte is written, and w goes on.
func (w *Writer) WriteObjectsSlice(objs []any) error {
	if err := checkObjects(objs, 0); err != nil {
		return err
	}
	return writeArray(w, objs, (*Writer).writeObject)
}

// checkObjects returns an error if there is a value among objs that cannot be written.
func checkObjects(objs []any, depth int) error {
	if depth > maxDepth {
		return errors.New("redisproto: value is nested too deeply to be written")
	}
	for _, v := range objs {
		switch v := v.(type) {
		case nil, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64,
			string, []byte, error, []string, [][]byte:
		case []any:
			if err := checkObjects(v, depth+1); err != nil {
				return err
			}
		default:
			return fmt.Errorf("redisproto: a value of type %T cannot be written", v)
		}
	}
	return nil
}

// writeObject writes a value that checkObjects has passed.
func (w *Writer) writeObject(v any) error {
	switch v := v.(type) {
	case nil:
		return w.WriteNull()
	case bool:
		if v {
			return w.WriteInt(1)
		}
		return w.WriteInt(0)
	case int:
		return w.WriteInt(int64(v))
	case int8:
		return w.WriteInt(int64(v))
	case int16:
		return w.WriteInt(int64(v))
	case int32:
		return w.WriteInt(int64(v))
	case int64:
		return w.WriteInt(v)
	case uint:
		return w.writeUint(uint64(v))
	case uint8:
		return w.WriteInt(int64(v))
	case uint16:
		return w.WriteInt(int64(v))
	case uint32:
		return w.WriteInt(int64(v))
	case uint64:
		return w.writeUint(v)
	case float32:
		return w.writeFloat(float64(v), 32)
	case float64:
		return w.writeFloat(v, 64)
	case string:
		return w.WriteBulkString(v)
	case []byte:
		return w.WriteBulk(v)
	case error:
		return w.WriteError(v.Error())
	case []string:
		return w.WriteBulkStrings(v)
	case [][]byte:
		return w.WriteBulksSlice(v)
	default:
		return writeArray(w, v.([]any), (*Writer).writeObject)
	}
}

// writeArray writes an array whose elements are written by one, or a null array if s is nil.
func writeArray[T any](w *Writer, s []T, one func(*Writer, T) error) error {
	if s == nil {
		return w.WriteArrayHeader(-1)
	}
	w.begin()
	err := w.WriteArrayHeader(len(s))
	for i := 0; i < len(s) && err == nil; i++ {
		err = one(w, s[i])
	}
	return w.end(err)
}

// writeUint writes n as an integer, or as a bulk string where RESP's 64 bits with a sign end.
func (w *Writer) writeUint(n uint64) error {
	if n <= math.MaxInt64 {
		return w.WriteInt(int64(n))
	}
	var digits [20]byte
	return w.WriteBulk(strconv.AppendUint(digits[:0], n, 10))
}

// writeFloat writes f as a bulk string.
func (w *Writer) writeFloat(f float64, bits int) error {
	var text [32]byte
	return w.WriteBulk(appendFloat(text[:0], f, bits))
}

// appendFloat appends the shortest decimal that reads back as f, in the notation of C's "%.17g":
// with an exponent where it is below -4 or above 16.
func appendFloat(b []byte, f float64, bits int) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "inf"...)
	case math.IsInf(f, -1):
		return append(b, "-inf"...)
	case math.IsNaN(f):
		return append(b, "nan"...)
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e17) {
		format = 'e'
	}
	return strconv.AppendFloat(b, f, format, -1, bits)
}

// appendHead appends a line with a number: an integer, or the length that begins another type.
func appendHead(b []byte, kind byte, n int64) []byte {
	b = append(b, kind)
	b = strconv.AppendInt(b, n, 10)
	return append(b, "\r\n"...)
}

// appendLine appends a line of text, without the bytes that would end it early.
func appendLine(b []byte, kind byte, s string) []byte {
	b = append(b, kind)
	start := len(b)
	b = append(b, s...)
	for i, ch := range b[start:] {
		if ch == '\r' || ch == '\n' {
			b[start+i] = ' '
		}
	}
	return append(b, "\r\n"...)
}
