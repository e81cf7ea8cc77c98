package redisproto

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"strings"
)

// A Writer writes replies, and with [Writer.WriteCommand] commands. NewWriter makes one, and Reset
// makes the zero Writer ready. It is not safe for concurrent use, but one goroutine may write while
// another one reads from the same connection.
//
// A Writer speaks RESP2 until SetProtocol changes that. Types that only RESP3 has may be written in
// RESP2 as well: the client then gets what Redis would send to it, as each method says.
//
// Every method returns the error of the destination, if there was one. The first error sticks:
// every later call returns it and writes nothing. A panic of the destination or of the caller's
// code inside a call counts as an error, since it leaves a reply cut off. A method that refuses its
// arguments returns an error before the first byte is written, and the Writer goes on.
type Writer struct {
	bw *bufio.Writer // takes every byte: the caller's, or one that the Writer has made
	// autoFlush says that bw is flushed at the end of a call. It is set while bw is the Writer's
	// own, except inside a call that is made of several: see hold.
	autoFlush bool
	resp3     bool
	err       error            // why nothing more may be written, if bw does not know
	limited   io.LimitedReader // for WriteBulkFrom, here so that it is not allocated each time
	checked   checkedReader    // for copyFrom, likewise
	scratch   [maxFloat]byte   // for the text of a number or a format, likewise
}

const (
	maxHead  = 24 // bytes: the type, a sign or not, 20 digits, CR LF
	maxFloat = 32 // bytes: more than the text of any float has
)

var errUnfinished = errors.New("redisproto: a panic left a reply unfinished")

// NewWriter returns a Writer to dst. If dst is a *bufio.Writer, that one is used, and what is
// written stays in it until it is full or flushed. The Writer itself holds no bytes: several
// Writers on one bufio.Writer, and bytes that are written to it in between, come out in order. A
// *bufio.ReadWriter is another type; pass its Writer.
//
// For any other dst the Writer has a bufio.Writer of its own, and what a call writes reaches dst
// before the call returns, up to 4,096 bytes in one Write. A reply that begins with a header takes
// several calls, and so several Writes. In both cases a large string is not held, but passed on from
// where it is.
func NewWriter(dst io.Writer) *Writer {
	w := new(Writer)
	w.Reset(dst)
	return w
}

// Reset makes w write to dst as NewWriter does, in RESP2, and drops its error. A bufio.Writer that
// the caller had passed is neither flushed nor reset.
func (w *Writer) Reset(dst io.Writer) {
	bw, isBuffer := dst.(*bufio.Writer)
	switch {
	case isBuffer:
	case w.autoFlush: // w.bw is the Writer's own and can be used again
		bw = w.bw
		bw.Reset(dst)
	default:
		bw = bufio.NewWriter(dst)
	}
	*w = Writer{bw: bw, autoFlush: !isBuffer}
}

// SetProtocol makes w speak RESP3 if version is 3, and RESP2 otherwise, from the next call on. A
// client asks for RESP3 with the command HELLO, whose reply is in the new protocol already.
func (w *Writer) SetProtocol(version int) { w.resp3 = version == 3 }

// Protocol returns the version of RESP that w speaks, 2 or 3.
func (w *Writer) Protocol() int {
	if w.resp3 {
		return 3
	}
	return 2
}

// Flush flushes the bufio.Writer that was passed to NewWriter. If it was another writer, nothing
// is left to flush.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	w.err = errUnfinished // stays if the destination panics
	err := w.bw.Flush()
	w.err = nil
	return err
}

// Write writes b, which is RESP already, such as the Raw of a command or a reply. Nothing is
// checked. With an error it returns 0, because how many bytes have reached the peer is unknown.
func (w *Writer) Write(b []byte) (int, error) {
	if err := w.send(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// ReadFrom writes what r gives until io.EOF. It is RESP already, and nothing is checked. io.Copy
// and io.CopyN call ReadFrom, so that the operating system can copy from one TCP connection to
// another, or from a file to a TCP connection.
//
// An error of r sticks, because what was written is cut off. A reader that gives neither a byte nor
// an error 100 times in a row is given up with io.ErrNoProgress.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	n, err := w.copyFrom(r)
	return n, w.sent(err)
}

// free returns bw's free space, to append n bytes to, or nil if the slow path has to be taken. What
// is appended may go to bw.Write at once, which then calls no code but its own. Most replies go
// this way, since room and send would be two function calls more.
func (w *Writer) free(n int) []byte {
	if w.err != nil || w.autoFlush || w.bw.Available() < n {
		return nil
	}
	return w.bw.AvailableBuffer()
}

// room returns space to append n bytes to. It is bw's free space, after a flush if need be, unless
// bw is smaller than that.
func (w *Writer) room(n int) []byte {
	if w.bw.Available() < n {
		w.Flush() // put returns the error
	}
	if w.bw.Available() < n {
		return make([]byte, 0, n)
	}
	return w.bw.AvailableBuffer()
}

// send writes b, the last or only part of what a call writes.
func (w *Writer) send(b []byte) error { return w.sent(put(w, b, (*bufio.Writer).Write)) }

// sent ends a call that writes. It takes and returns the error of the last part.
func (w *Writer) sent(err error) error {
	if err == nil && w.autoFlush {
		return w.Flush()
	}
	return err
}

// put writes a part of what a call writes, with the method of bufio.Writer for it. putString is put
// for a string.
func put[T []byte | string](w *Writer, s T, write func(*bufio.Writer, T) (int, error)) error {
	if w.err != nil {
		return w.err
	}
	if len(s) > w.bw.Available() {
		w.err = errUnfinished // stays if the destination panics
	}
	_, err := write(w.bw, s)
	w.err = nil
	return err
}

func (w *Writer) putString(s string) error { return put(w, s, (*bufio.Writer).WriteString) }

// hold puts flushing off until release, for a call that is made of several. It returns what
// release takes.
func (w *Writer) hold() (autoFlush bool) {
	autoFlush, w.autoFlush = w.autoFlush, false
	return autoFlush
}

// release ends what hold has begun. It takes and returns the error of the last call.
func (w *Writer) release(autoFlush bool, err error) error {
	w.autoFlush = autoFlush
	return w.sent(err)
}

// copyFrom writes what r gives until it ends. Whatever fails, w writes nothing afterwards.
func (w *Writer) copyFrom(r io.Reader) (int64, error) {
	if w.err != nil {
		return 0, w.err
	}
	source := &r
	if l, ok := r.(*io.LimitedReader); ok {
		source = &l.R
	}
	// A connection or a file is not wrapped: package net knows it by its type, also inside an
	// io.LimitedReader, and has the system copy it. Any other reader is checked.
	if !isSystem(*source) {
		w.checked = checkedReader{r: *source}
		*source = &w.checked
		defer func() { *source, w.checked.r = w.checked.r, nil }()
	}
	w.err = errUnfinished // stays if r or the destination panics
	n, err := w.bw.ReadFrom(r)
	w.err = err
	return n, err
}

// WriteSimpleString writes s as a simple string: "+OK". CR and LF in s become spaces, as in Redis,
// so that s cannot forge a second reply.
func (w *Writer) WriteSimpleString(s string) error { return w.writeLine('+', s) }

// WriteError writes s as a simple error: "-ERR no such thing". By convention the first word is a
// code in capitals. CR and LF in s become spaces, as in Redis.
func (w *Writer) WriteError(s string) error { return w.writeLine('-', s) }

// WriteInt writes n as an integer: ":42".
func (w *Writer) WriteInt(n int64) error { return w.writeHead(':', n) }

// writeLine writes a line of text.
func (w *Writer) writeLine(kind byte, s string) error {
	if buf := w.free(len(s) + 3); buf != nil {
		_, err := w.bw.Write(appendLine(buf, kind, s))
		return err
	}
	return w.send(appendLine(w.room(len(s)+3), kind, s))
}

// writeHead writes a line that holds a number.
func (w *Writer) writeHead(kind byte, n int64) error {
	if buf := w.free(maxHead); buf != nil {
		_, err := w.bw.Write(appendHead(buf, kind, n))
		return err
	}
	return w.send(appendHead(w.room(maxHead), kind, n))
}

// WriteBulk writes b as a bulk string, or null as WriteNull does if b is nil. An empty slice that is
// not nil is an empty string. Beware of append([]byte(nil), v...) as a copy of v: it is nil if v is
// empty, and so it is written as null. bytes.Clone(v) is nil only if v is nil.
func (w *Writer) WriteBulk(b []byte) error {
	if b == nil {
		return w.WriteNull()
	}
	if buf := w.free(maxHead + len(b) + 2); buf != nil {
		_, err := w.bw.Write(appendBulk(buf, b))
		return err
	}
	return writeBlob(w, '$', nil, b, (*bufio.Writer).Write)
}

// WriteBulkString writes s as a bulk string.
func (w *Writer) WriteBulkString(s string) error {
	if buf := w.free(maxHead + len(s) + 2); buf != nil {
		_, err := w.bw.Write(appendBulk(buf, s))
		return err
	}
	return writeBlob(w, '$', nil, s, (*bufio.Writer).WriteString)
}

// writeBlob writes head and s as a string of one of the types that begin with a length. It does
// not copy a large s.
func writeBlob[T []byte | string](w *Writer, kind byte, head []byte, s T, write func(*bufio.Writer, T) (int, error)) error {
	autoFlush := w.hold()
	w.writeHead(kind, int64(len(head)+len(s)))
	put(w, head, (*bufio.Writer).Write)
	put(w, s, write)
	return w.release(autoFlush, w.putString("\r\n"))
}

// WriteBulkFrom writes a bulk string of n bytes, which it reads from r without holding them. They
// go to the destination as ReadFrom has it. Bytes that r has after these n are left to r.
//
// If r has fewer bytes, or fails, the peer can never be brought back in step. The error,
// io.ErrUnexpectedEOF or that of r, sticks, and the connection must be closed. A negative n is
// refused.
func (w *Writer) WriteBulkFrom(r io.Reader, n int64) error {
	if n < 0 {
		return fmt.Errorf("redisproto: bulk string of %d bytes", n)
	}
	autoFlush := w.hold()
	w.writeHead('$', n)
	w.limited = io.LimitedReader{R: r, N: n}
	if _, err := w.copyFrom(&w.limited); w.limited.N > 0 && (err == nil || err == io.EOF) {
		w.err = io.ErrUnexpectedEOF
	}
	w.limited.R = nil
	return w.release(autoFlush, w.putString("\r\n"))
}

// WriteNull writes null: "_" in RESP3. RESP2 has a null bulk string in its place, "$-1".
func (w *Writer) WriteNull() error { return w.writeEither("$-1\r\n", "_\r\n") }

// WriteBool writes v as a boolean in RESP3, "#t" or "#f", and in RESP2 as the integer 1 or 0.
func (w *Writer) WriteBool(v bool) error {
	if v {
		return w.writeEither(":1\r\n", "#t\r\n")
	}
	return w.writeEither(":0\r\n", "#f\r\n")
}

// writeEither writes the text for the protocol in force.
func (w *Writer) writeEither(resp2, resp3 string) error {
	if w.resp3 {
		return w.sent(w.putString(resp3))
	}
	return w.sent(w.putString(resp2))
}

// WriteDouble writes f as a double in RESP3, ",1.5", and in RESP2 as a bulk string. The text has the
// fewest digits that read back as f, or is inf, -inf or nan.
func (w *Writer) WriteDouble(f float64) error {
	return w.writeNumber(',', appendFloat(w.scratch[:0], f, 64))
}

// WriteBigNumber writes n as a big number in RESP3, "(123", and in RESP2 as a bulk string. If n is
// nil, it writes null as WriteNull does.
func (w *Writer) WriteBigNumber(n *big.Int) error {
	if n == nil {
		return w.WriteNull()
	}
	return w.writeNumber('(', n.Append(nil, 10))
}

// writeNumber writes text as a number of a type that RESP3 alone has.
func (w *Writer) writeNumber(kind byte, text []byte) error {
	if !w.resp3 {
		return w.WriteBulk(text)
	}
	return w.send(appendLine(w.room(len(text)+3), kind, text))
}

// WriteVerbatim writes text as a verbatim string in RESP3, "=8\r\ntxt:text", and in RESP2 as a bulk
// string without the format. A client shows such text as it is. The format says what it is in three
// bytes: "txt" for plain text, "mkd" for Markdown. A format of another length, or one that holds ':',
// CR or LF, is refused.
func (w *Writer) WriteVerbatim(format, text string) error {
	if len(format) != 3 || strings.ContainsAny(format, ":\r\n") {
		return fmt.Errorf("redisproto: verbatim string of format %q", format)
	}
	if !w.resp3 {
		return w.WriteBulkString(text)
	}
	head := append(append(w.scratch[:0], format...), ':')
	return writeBlob(w, '=', head, text, (*bufio.Writer).WriteString)
}

// WriteBlobError writes s as a bulk error in RESP3, "!5\r\nERR x", which may hold any bytes, line
// breaks too. In RESP2 it does what WriteError does.
func (w *Writer) WriteBlobError(s string) error {
	if !w.resp3 {
		return w.WriteError(s)
	}
	return writeBlob(w, '!', nil, s, (*bufio.Writer).WriteString)
}

// WriteArrayHeader begins an array of n elements, "*3", which are the next n values written. The
// Writer does not count them. A negative n writes a null array: "*-1" in RESP2, and in RESP3 the one
// null that there is, "_".
func (w *Writer) WriteArrayHeader(n int) error { return w.writeHeader('*', int64(n)) }

// WriteMapHeader begins a map of n pairs in RESP3, "%2", and in RESP2 an array of 2n elements. What is
// written next is a key, its value, the next key, and so on. A negative n writes a null array, as
// WriteArrayHeader does. An n whose double is no int64 is refused in RESP2.
func (w *Writer) WriteMapHeader(n int) error {
	if w.resp3 {
		return w.writeHeader('%', int64(n))
	}
	if int64(n) > math.MaxInt64/2 {
		return fmt.Errorf("redisproto: map of %d pairs", n)
	}
	return w.writeHeader('*', 2*max(int64(n), -1))
}

// WriteSetHeader begins a set of n elements in RESP3, "~3", and in RESP2 an array. No two elements
// should be equal. A negative n writes a null array, as WriteArrayHeader does.
func (w *Writer) WriteSetHeader(n int) error { return w.writeHeader('~', int64(n)) }

// WritePushHeader begins a push of n elements in RESP3, ">3", and in RESP2 an array. A push is no
// reply to a command: a message of a channel that the client has subscribed to, for instance. Its
// first element says what it is. A negative n writes a null array, as WriteArrayHeader does.
func (w *Writer) WritePushHeader(n int) error { return w.writeHeader('>', int64(n)) }

// writeHeader begins an aggregate, or writes the null in its place.
func (w *Writer) writeHeader(kind byte, n int64) error {
	if !w.resp3 {
		kind = '*'
	} else if n < 0 {
		return w.WriteNull()
	}
	return w.writeHead(kind, max(n, -1))
}

// WriteBulks writes an array of bulk strings. A nil element is written as null, and no element at
// all, which Go passes as a nil slice, as a null array.
//
// It also sends a command whose arguments are []byte, without allocating; none of them may be nil.
func (w *Writer) WriteBulks(bulks ...[]byte) error { return w.WriteBulksSlice(bulks) }

// WriteBulksSlice writes an array of bulk strings. A nil element is written as null, and a nil
// slice as a null array, as WriteArrayHeader does.
func (w *Writer) WriteBulksSlice(bulks [][]byte) error {
	return writeBulks(w, bulks, (*Writer).WriteBulk)
}

// WriteBulkStrings writes an array of bulk strings. A nil slice is written as a null array, as
// WriteArrayHeader does.
func (w *Writer) WriteBulkStrings(bulks []string) error {
	return writeBulks(w, bulks, (*Writer).WriteBulkString)
}

// writeBulks writes an array of bulk strings. It puts together as many as the buffer has room for
// before it writes them. The others, and those that may be null, are left to one.
func writeBulks[T []byte | string](w *Writer, bulks []T, one func(*Writer, T) error) error {
	if bulks == nil {
		return w.WriteArrayHeader(-1)
	}
	autoFlush := w.hold()
	buf := appendHead(w.room(maxHead), '*', int64(len(bulks)))
	for _, b := range bulks {
		if len(b) > 0 && maxHead+len(b)+2 <= cap(buf)-len(buf) {
			buf = appendBulk(buf, b)
			continue
		}
		put(w, buf, (*bufio.Writer).Write)
		if err := one(w, b); err != nil {
			return w.release(autoFlush, err)
		}
		buf = w.room(0)
	}
	return w.release(autoFlush, put(w, buf, (*bufio.Writer).Write))
}
