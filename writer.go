package redisproto

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// A Writer writes replies, and with WriteCommand commands. NewWriter makes one, or Reset of a zero
// one. Over a bufio.Writer it is a thin layer that holds no bytes of its own: several Writers on one
// bufio.Writer, and bytes written to that in between, come out in order. It is not safe for
// concurrent use.
//
// It speaks RESP2 until SetProtocol changes that. The types that only RESP3 has may be written all
// the same: a RESP2 client gets them as Redis would send them to it.
//
// The first error sticks: every later call returns it and writes nothing.
type Writer struct {
	bw    *bufio.Writer    // the destination, or nil if that is
	whole *whole           // any other writer
	resp3 bool             // the protocol in force; else RESP2
	err   error            // why nothing more may be written, where bw does not know
	src   io.LimitedReader // WriteBulkFrom's, here so that it is not allocated each time
}

// whole collects a reply, so that it goes out in one Write.
type whole struct {
	dst  io.Writer
	held []byte
	open int // aggregates begun and not ended; elements wait for them
}

const (
	maxHead  = 24       // bytes: type, int64, CR LF
	maxHeld  = 64 << 10 // bytes: what a whole keeps, and collects of a reader
	maxDepth = 100_000  // levels of []any; a value that holds itself has more
)

// errUnfinished is kept when a panic of the caller's code cuts a reply off.
var errUnfinished = errors.New("redisproto: a panic left a reply unfinished")

// NewWriter returns a Writer to w. If w is a *bufio.Writer, that one is used and replies stay in it
// until it is full or flushed. To any other writer each reply goes whole, in one Write, before the
// call that writes it returns.
func NewWriter(w io.Writer) *Writer {
	wr := new(Writer)
	wr.Reset(w)
	return wr
}

// Reset makes w write to dst in RESP2, as NewWriter would, and forgets its error. A bufio.Writer
// that it had is neither flushed nor reset.
func (w *Writer) Reset(dst io.Writer) {
	w.resp3, w.err, w.src.R = false, nil, nil
	if bw, ok := dst.(*bufio.Writer); ok {
		w.bw, w.whole = bw, nil
		return
	}
	w.bw = nil
	if w.whole == nil {
		w.whole = new(whole)
	}
	*w.whole = whole{dst: dst, held: w.whole.held[:0]}
}

// SetProtocol makes w speak RESP3 if version is 3, else RESP2, from the next call on. HELLO is the
// command that asks for it; its reply is in the new protocol already. Before that, a connection
// speaks RESP2.
func (w *Writer) SetProtocol(version int) { w.resp3 = version == 3 }

// Protocol returns the version of RESP that w speaks, 2 or 3.
func (w *Writer) Protocol() int {
	if w.resp3 {
		return 3
	}
	return 2
}

// Flush flushes the bufio.Writer. Without one there is nothing to flush.
func (w *Writer) Flush() error {
	if w.err != nil || w.whole != nil {
		return w.err
	}
	return w.bw.Flush()
}

// Write writes b as it is: bytes that are RESP already, such as a Raw. Nothing is checked.
func (w *Writer) Write(b []byte) (int, error) {
	if w.err == nil && w.whole == nil {
		return w.bw.Write(b)
	}
	if err := w.collect(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// free returns the free space of bw if n bytes fit there and nothing else is to be seen to: the way
// of nearly all replies, for which room and send would be two calls more.
func (w *Writer) free(n int) []byte {
	if w.bw == nil || w.err != nil || w.bw.Available() < n {
		return nil
	}
	return w.bw.AvailableBuffer()
}

// room returns the buffer's free space to append n bytes to, if the buffer can have so many.
func (w *Writer) room(n int) []byte {
	if h := w.whole; h != nil {
		h.held = slices.Grow(h.held, n)
		return h.held[len(h.held):]
	}
	if w.bw.Available() < n && w.err == nil {
		w.bw.Flush() // an error shows again in what follows
	}
	return w.bw.AvailableBuffer()
}

// send writes b, which is best the space that room gave.
func (w *Writer) send(b []byte) error {
	if w.err != nil || w.whole != nil {
		return w.collect(b)
	}
	_, err := w.bw.Write(b)
	return err
}

// sendString is send for a string.
func (w *Writer) sendString(s string) error {
	if w.err != nil || w.whole != nil {
		return w.collect([]byte(s))
	}
	_, err := w.bw.WriteString(s)
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

// collect is send where there is no bufio.Writer, or an error.
func (w *Writer) collect(b []byte) error {
	if w.err != nil {
		return w.err
	}
	w.whole.held = append(w.whole.held, b...)
	return w.deliver()
}

// deliver hands a reply that is complete to the destination.
func (w *Writer) deliver() error {
	h := w.whole
	if h.open > 0 || w.err != nil || len(h.held) == 0 {
		return w.err
	}
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
	if buf := w.free(len(s) + 3); buf != nil {
		_, err := w.bw.Write(appendLine(buf, '+', s))
		return err
	}
	return w.send(appendLine(w.room(len(s)+3), '+', s))
}

// WriteError writes s as an error. By convention its first word is a code in capitals: "ERR no such
// thing". CR and LF in it become spaces, as in Redis.
func (w *Writer) WriteError(s string) error {
	return w.send(appendLine(w.room(len(s)+3), '-', s))
}

// WriteInt writes n as an integer.
func (w *Writer) WriteInt(n int64) error {
	if buf := w.free(maxHead); buf != nil {
		_, err := w.bw.Write(appendHead(buf, ':', n))
		return err
	}
	return w.send(appendHead(w.room(maxHead), ':', n))
}

// WriteBulk writes b as a bulk string, or null if b is nil.
func (w *Writer) WriteBulk(b []byte) error {
	if b == nil {
		return w.WriteNull()
	}
	if buf := w.free(maxHead + len(b) + 2); buf != nil {
		_, err := w.bw.Write(appendBulk(buf, b))
		return err
	}
	buf := appendHead(w.room(maxHead), '$', int64(len(b)))
	if len(b)+2 <= cap(buf)-len(buf) {
		buf = append(buf, b...)
		return w.send(append(buf, "\r\n"...))
	}
	w.begin()
	w.send(buf)
	w.send(b)
	return w.end(w.sendString("\r\n"))
}

// WriteBulkString writes s as a bulk string.
func (w *Writer) WriteBulkString(s string) error {
	if buf := w.free(maxHead + len(s) + 2); buf != nil {
		_, err := w.bw.Write(appendBulk(buf, s))
		return err
	}
	return w.blob('$', "", s)
}

// blob writes head and s as a string of one of the types that give their length first.
func (w *Writer) blob(kind byte, head, s string) error {
	n := len(head) + len(s)
	buf := append(appendHead(w.room(maxHead+len(head)), kind, int64(n)), head...)
	if len(s)+2 <= cap(buf)-len(buf) {
		buf = append(buf, s...)
		return w.send(append(buf, "\r\n"...))
	}
	w.begin()
	w.send(buf)
	w.sendString(s)
	return w.end(w.sendString("\r\n"))
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
	return w.end(w.sendString("\r\n"))
}

// copyFrom copies n bytes. If r panics, w stays at errUnfinished.
func (w *Writer) copyFrom(r io.Reader, n int64) (err error) {
	h := w.whole
	if h != nil && n > maxHeld {
		h.open-- // WriteBulkFrom's
		err = w.deliver()
		h.open++
		if err != nil {
			return err
		}
	}
	w.src = io.LimitedReader{R: r, N: n}
	w.err = errUnfinished
	switch {
	case h == nil:
		_, err = w.bw.ReadFrom(&w.src)
	case n > maxHeld:
		_, err = io.Copy(h.dst, &w.src)
	default:
		start := len(h.held)
		h.held = slices.Grow(h.held, int(n)+2)[:start+int(n)]
		_, err = io.ReadFull(&w.src, h.held[start:])
	}
	if w.src.N > 0 && (err == nil || err == io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	w.src.R = nil
	return err
}

// WriteNull writes null. RESP2: a null bulk string, "$-1".
func (w *Writer) WriteNull() error {
	null := "$-1\r\n"
	if w.resp3 {
		null = "_\r\n"
	}
	return w.send(append(w.room(maxHead), null...))
}

// WriteBool writes v. RESP2: the integer 1 or 0.
func (w *Writer) WriteBool(v bool) error {
	text := ":0\r\n"
	switch {
	case w.resp3 && v:
		text = "#t\r\n"
	case w.resp3:
		text = "#f\r\n"
	case v:
		text = ":1\r\n"
	}
	return w.send(append(w.room(maxHead), text...))
}

// WriteDouble writes f in the fewest digits that read back as f; inf, -inf and nan are written so.
// RESP2: a bulk string.
func (w *Writer) WriteDouble(f float64) error { return w.writeFloat(f, 64) }

// WriteBigNumber writes n, or null if n is nil. RESP2: a bulk string.
func (w *Writer) WriteBigNumber(n *big.Int) error {
	if n == nil {
		return w.WriteNull()
	}
	if !w.resp3 {
		return w.WriteBulk(n.Append(nil, 10))
	}
	buf := n.Append(append(w.room(0), '('), 10)
	return w.send(append(buf, "\r\n"...))
}

// WriteVerbatim writes text that is to be shown as it is; format says what it is in three bytes:
// "txt" for plain text, "mkd" for Markdown. RESP2: a bulk string, without the format.
//
// Any other length of format, and ':', CR or LF in it, is refused before anything is written.
func (w *Writer) WriteVerbatim(format, text string) error {
	if len(format) != 3 || strings.ContainsAny(format, ":\r\n") {
		return fmt.Errorf("redisproto: verbatim string of format %q", format)
	}
	if !w.resp3 {
		return w.WriteBulkString(text)
	}
	var head [4]byte
	copy(head[:], format)
	head[3] = ':'
	return w.blob('=', string(head[:]), text)
}

// WriteBlobError writes s as an error that may hold any bytes, lines too. RESP2: as WriteError does.
func (w *Writer) WriteBlobError(s string) error {
	if !w.resp3 {
		return w.WriteError(s)
	}
	return w.blob('!', "", s)
}

// WriteArrayHeader begins an array of n elements, which are what is written next. A negative n
// writes a null array: "*-1" in RESP2, and in RESP3 the null that there is for all types.
func (w *Writer) WriteArrayHeader(n int) error { return w.writeHeader('*', int64(n)) }

// WriteMapHeader begins a map of n pairs: what is written next is a key, its value, the next key,
// and so on. RESP2: an array of 2n elements. A negative n writes a null array.
func (w *Writer) WriteMapHeader(n int) error {
	if w.resp3 {
		return w.writeHeader('%', int64(n))
	}
	if int64(n) > math.MaxInt64/2 {
		return fmt.Errorf("redisproto: map of %d pairs", n)
	}
	return w.writeHeader('*', 2*max(int64(n), -1))
}

// WriteSetHeader begins a set of n elements, of which no two should be equal. RESP2: an array. A
// negative n writes a null array.
func (w *Writer) WriteSetHeader(n int) error { return w.writeHeader('~', int64(n)) }

// WritePushHeader begins a push of n elements: data that is no reply, such as a message of a channel
// that the client is subscribed to. The first element says what it is. RESP2: an array.
func (w *Writer) WritePushHeader(n int) error { return w.writeHeader('>', int64(n)) }

// writeHeader begins an aggregate.
func (w *Writer) writeHeader(kind byte, n int64) error {
	switch {
	case n < 0 && w.resp3:
		return w.WriteNull()
	case !w.resp3:
		kind = '*'
	}
	return w.send(appendHead(w.room(maxHead), kind, max(n, -1)))
}

// WriteBulks writes an array of bulk strings. A nil element is null; no element at all, which Go
// passes as a nil slice, is a null array.
func (w *Writer) WriteBulks(bulks ...[]byte) error { return w.WriteBulksSlice(bulks) }

// WriteBulksSlice writes an array of bulk strings. A nil element is null, a nil slice a null array.
func (w *Writer) WriteBulksSlice(bulks [][]byte) error {
	return writeBulks(w, bulks, (*Writer).WriteBulk)
}

// WriteBulkStrings writes an array of bulk strings, or a null array if the slice is nil.
func (w *Writer) WriteBulkStrings(bulks []string) error {
	return writeBulks(w, bulks, (*Writer).WriteBulkString)
}

// writeBulks writes an array of bulk strings, putting together as many as the buffer has room for.
// The others, and those that may be null, are left to one.
func writeBulks[T []byte | string](w *Writer, bulks []T, one func(*Writer, T) error) error {
	if bulks == nil {
		return w.WriteArrayHeader(-1)
	}
	w.begin()
	buf := appendHead(w.room(maxHead), '*', int64(len(bulks)))
	for _, b := range bulks {
		if len(b) > 0 && maxHead+len(b)+2 <= cap(buf)-len(buf) {
			buf = appendBulk(buf, b)
			continue
		}
		w.send(buf)
		if err := one(w, b); err != nil {
			return w.end(err)
		}
		buf = w.room(maxHead)
	}
	return w.end(w.send(buf))
}

// WriteObjects writes an array of the values given: see [Writer.WriteObjectsSlice].
func (w *Writer) WriteObjects(objs ...any) error { return w.WriteObjectsSlice(objs) }

// WriteObjectsSlice writes an array of values of any of these types, or a null array if objs is nil:
//
//	nil                               null
//	bool                              as WriteBool
//	int..., uint...                   integer; a uint over the int64 range: big number
//	float32, float64                  as WriteDouble
//	*big.Int                          big number; nil: null
//	string, []byte                    bulk string; a nil []byte: null
//	error                             error
//	[]string, [][]byte, []any         array, to any depth; nil: null array
//	map[string]any                    map, its keys sorted; nil: null array
//
// A value of any other type is refused with an error before a byte is written, and w goes on.
func (w *Writer) WriteObjectsSlice(objs []any) error {
	for _, v := range objs {
		if err := checkObject(v, 1); err != nil {
			return err
		}
	}
	return writeArray(w, objs, (*Writer).writeObject)
}

// checkObject returns an error if v, or a value in it, cannot be written.
func checkObject(v any, depth int) (err error) {
	if depth > maxDepth {
		return errors.New("redisproto: value is nested too deeply to be written")
	}
	switch v := v.(type) {
	case nil, bool, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64,
		*big.Int, string, []byte, error, []string, [][]byte:
	case []any:
		for i := 0; i < len(v) && err == nil; i++ {
			err = checkObject(v[i], depth+1)
		}
	case map[string]any:
		for _, e := range v {
			if err = checkObject(e, depth+1); err != nil {
				break
			}
		}
	default:
		err = fmt.Errorf("redisproto: a value of type %T cannot be written", v)
	}
	return err
}

// writeObject writes a value that checkObject has passed.
func (w *Writer) writeObject(v any) error {
	switch v := v.(type) {
	case nil:
		return w.WriteNull()
	case bool:
		return w.WriteBool(v)
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
	case *big.Int:
		return w.WriteBigNumber(v)
	case string:
		return w.WriteBulkString(v)
	case []byte:
		return w.WriteBulk(v)
	case error:
		w.err = errUnfinished // stays if Error panics
		text := v.Error()
		w.err = nil
		return w.WriteError(text)
	case []string:
		return w.WriteBulkStrings(v)
	case [][]byte:
		return w.WriteBulksSlice(v)
	case map[string]any:
		return w.writeMap(v)
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

// writeMap writes a map, or a null array if m is nil. The keys are sorted so that the same value
// is always the same bytes.
func (w *Writer) writeMap(m map[string]any) error {
	if m == nil {
		return w.WriteArrayHeader(-1)
	}
	w.begin()
	err := w.WriteMapHeader(len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if err == nil {
			err = w.WriteBulkString(k)
		}
		if err == nil {
			err = w.writeObject(m[k])
		}
	}
	return w.end(err)
}

// writeUint writes n as an integer, or as a big number where RESP's 64 bits with a sign end.
func (w *Writer) writeUint(n uint64) error {
	if n <= math.MaxInt64 {
		return w.WriteInt(int64(n))
	}
	return w.WriteBigNumber(new(big.Int).SetUint64(n))
}

// writeFloat writes f, which came from as many bits, as a double.
func (w *Writer) writeFloat(f float64, bits int) error {
	buf := w.room(2 * maxHead)
	if w.resp3 {
		buf = appendFloat(append(buf, ','), f, bits)
		return w.send(append(buf, "\r\n"...))
	}
	var digits [32]byte
	return w.send(appendBulk(buf, appendFloat(digits[:0], f, bits)))
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

// appendHead appends a line with a number: an integer, or the length that begins another type. The
// usual ones are written out, which takes a third off the time of WriteInt.
func appendHead(b []byte, kind byte, n int64) []byte {
	const zero = '0'
	switch u := uint64(n); {
	case u < 10:
		return append(b, kind, zero+byte(u), '\r', '\n')
	case u < 100:
		return append(b, kind, zero+byte(u/10), zero+byte(u%10), '\r', '\n')
	case u < 1000:
		return append(b, kind, zero+byte(u/100), zero+byte(u/10%10), zero+byte(u%10), '\r', '\n')
	case u < 10_000:
		return append(b, kind, zero+byte(u/1000), zero+byte(u/100%10), zero+byte(u/10%10), zero+byte(u%10), '\r', '\n')
	}
	b = strconv.AppendInt(append(b, kind), n, 10)
	return append(b, "\r\n"...)
}

// appendBulk appends a bulk string.
func appendBulk[T []byte | string](b []byte, s T) []byte {
	b = append(appendHead(b, '$', int64(len(s))), s...)
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

// WriteCommand writes a command: its name and arguments, to be sent to a server. Each is a string,
// a []byte, or a number of any of Go's types but complex ones, and goes as a bulk string: a float as
// the shortest decimal that reads back the same, a nil []byte as an empty string. Any other value,
// and a command of nothing, to which no server replies, is refused with an error before a byte is
// written, and w goes on.
//
// Commands that are written before Flush go as a pipeline.
func (w *Writer) WriteCommand(args ...any) error {
	if len(args) == 0 {
		return errors.New("redisproto: a command without a name cannot be written")
	}
	for _, v := range args {
		switch v.(type) {
		case string, []byte, int, int8, int16, int32, int64, uint, uint8, uint16, uint32, uint64, float32, float64:
		default:
			return fmt.Errorf("redisproto: a value of type %T cannot be an argument of a command", v)
		}
	}
	return writeArray(w, args, (*Writer).writeArg)
}

// writeArg writes a value that WriteCommand has passed.
func (w *Writer) writeArg(v any) error {
	var digits [32]byte
	num := digits[:0]
	switch v := v.(type) {
	case string:
		return w.WriteBulkString(v)
	case []byte:
		if v == nil {
			v = []byte{}
		}
		return w.WriteBulk(v)
	case int:
		num = strconv.AppendInt(num, int64(v), 10)
	case int8:
		num = strconv.AppendInt(num, int64(v), 10)
	case int16:
		num = strconv.AppendInt(num, int64(v), 10)
	case int32:
		num = strconv.AppendInt(num, int64(v), 10)
	case int64:
		num = strconv.AppendInt(num, v, 10)
	case uint:
		num = strconv.AppendUint(num, uint64(v), 10)
	case uint8:
		num = strconv.AppendUint(num, uint64(v), 10)
	case uint16:
		num = strconv.AppendUint(num, uint64(v), 10)
	case uint32:
		num = strconv.AppendUint(num, uint64(v), 10)
	case uint64:
		num = strconv.AppendUint(num, v, 10)
	case float32:
		num = appendFloat(num, float64(v), 32)
	case float64:
		num = appendFloat(num, v, 64)
	}
	return w.send(appendBulk(w.room(maxHead+len(num)+2), num))
}
