package redisproto

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
)

const maxDepth = 100_000 // levels of []any and map; a value that holds itself has more

// WriteObjects writes an array of values: see [Writer.WriteObjectsSlice]. No value at all, which Go
// passes as a nil slice, is written as a null array.
func (w *Writer) WriteObjects(objs ...any) error { return w.WriteObjectsSlice(objs) }

// WriteObjectsSlice writes an array of values. A nil slice is written as a null array, as
// WriteArrayHeader does. The values may have these types:
//
//	nil                               null
//	bool                              as WriteBool
//	int..., uint...                   integer; a uint over the int64 range: as WriteBigNumber
//	float32, float64                  as WriteDouble
//	*big.Int                          as WriteBigNumber; nil: null
//	string, []byte                    bulk string; a nil []byte: null
//	error                             as WriteError, with the text of its method Error
//	[]string, [][]byte, []any         array, to any depth; nil: null array
//	map[string]any                    as WriteMapHeader, the keys sorted; nil: null array
//
// A value of any other type, on any level, is refused. So is a value that holds itself.
func (w *Writer) WriteObjectsSlice(objs []any) error {
	for _, v := range objs {
		if err := checkObject(v, 1); err != nil {
			return err
		}
	}
	return writeArray(w, objs, (*Writer).writeObject)
}

// checkObject returns an error if writeObject cannot write v, which is on the level depth.
func checkObject(v any, depth int) (err error) {
	if depth > maxDepth {
		return errors.New("redisproto: value is nested too deeply to be written")
	}
	switch v := v.(type) {
	case int, float64, nil, bool, *big.Int, string, []byte, error, []string, [][]byte:
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
		if _, ok := numberOf(v); !ok {
			err = fmt.Errorf("redisproto: a value of type %T cannot be written", v)
		}
	}
	return err
}

// writeObject writes a value that checkObject has passed.
func (w *Writer) writeObject(v any) error {
	switch v := v.(type) {
	case int:
		return w.WriteInt(int64(v))
	case float64:
		return w.WriteDouble(v)
	case nil:
		return w.WriteNull()
	case bool:
		return w.WriteBool(v)
	case string:
		return w.WriteBulkString(v)
	case []byte:
		return w.WriteBulk(v)
	case *big.Int:
		return w.WriteBigNumber(v)
	case error:
		return w.writeErrorText(v)
	case []string:
		return w.WriteBulkStrings(v)
	case [][]byte:
		return w.WriteBulksSlice(v)
	case []any:
		return writeArray(w, v, (*Writer).writeObject)
	case map[string]any:
		return w.writeMap(v)
	}
	n, _ := numberOf(v)
	if n.kind == ':' {
		return w.WriteInt(int64(n.integer))
	}
	return w.writeNumber(n.kind, n.append(w.scratch[:0]))
}

// writeErrorText writes the text of err as an error.
func (w *Writer) writeErrorText(err error) error {
	if w.err != nil {
		return w.err
	}
	w.err = errUnfinished // stays if Error panics
	text := err.Error()
	w.err = nil
	return w.WriteError(text)
}

// writeArray writes an array whose elements are written by one, or a null array if s is nil.
func writeArray[T any](w *Writer, s []T, one func(*Writer, T) error) error {
	if s == nil {
		return w.WriteArrayHeader(-1)
	}
	autoFlush := w.hold()
	err := w.WriteArrayHeader(len(s))
	for i := 0; i < len(s) && err == nil; i++ {
		err = one(w, s[i])
	}
	return w.release(autoFlush, err)
}

// writeMap writes a map, or a null array if m is nil. The keys are sorted so that the same value
// is always the same bytes.
func (w *Writer) writeMap(m map[string]any) error {
	if m == nil {
		return w.WriteArrayHeader(-1)
	}
	autoFlush := w.hold()
	err := w.WriteMapHeader(len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if err == nil {
			err = w.WriteBulkString(k)
		}
		if err == nil {
			err = w.writeObject(m[k])
		}
	}
	return w.release(autoFlush, err)
}

// WriteCommand writes a command, its name and its arguments, as an array of bulk strings. An argument
// may be a string, a []byte, or a number of any of Go's integer and float types but uintptr. A float is
// written as WriteDouble has it. A nil []byte is an empty string, since a command has no nulls.
//
// A value of any other type is refused, and so is a command without a name, to which no server
// would reply.
//
// Go allocates memory for most values that it passes as an any. For arguments that are []byte already,
// WriteBulks sends the same bytes without allocating.
//
// Commands that are written to a bufio.Writer go as one pipeline when it is flushed. To write a long
// pipeline without reading can block both sides for ever: the server waits until its replies are
// read. Read in another goroutine, or after a bounded number of commands.
func (w *Writer) WriteCommand(args ...any) error {
	if len(args) == 0 {
		return errors.New("redisproto: a command without a name cannot be written")
	}
	for _, v := range args {
		switch v.(type) {
		case string, []byte:
			continue
		}
		if _, ok := numberOf(v); !ok {
			return fmt.Errorf("redisproto: a value of type %T cannot be an argument of a command", v)
		}
	}
	return writeArray(w, args, (*Writer).writeArgument)
}

// writeArgument writes a value that WriteCommand has passed.
func (w *Writer) writeArgument(v any) error {
	switch v := v.(type) {
	case string:
		return w.WriteBulkString(v)
	case []byte:
		if v == nil {
			v = []byte{}
		}
		return w.WriteBulk(v)
	}
	n, _ := numberOf(v)
	return w.WriteBulk(n.append(w.scratch[:0]))
}

// A number is a value of one of Go's number types.
type number struct {
	kind    byte    // its type in RESP: ':' for an int64, '(' for a greater uint64, ',' for a float
	integer uint64  // for ':', the bits of the int64
	float   float64 // for ','
	bits    int     // for ',': 32 or 64, the size of the type that float came from
}

// numberOf returns v as a number. ok is false if it is none.
func numberOf(v any) (n number, ok bool) {
	switch v := v.(type) {
	case int:
		return number{kind: ':', integer: uint64(v)}, true
	case float64:
		return number{kind: ',', float: v, bits: 64}, true
	case float32:
		return number{kind: ',', float: float64(v), bits: 32}, true
	case int8, int16, int32, int64:
		return number{kind: ':', integer: uint64(reflect.ValueOf(v).Int())}, true
	case uint, uint8, uint16, uint32, uint64:
		n = number{kind: ':', integer: reflect.ValueOf(v).Uint()}
		if n.integer > math.MaxInt64 {
			n.kind = '('
		}
		return n, true
	}
	return number{}, false
}

// append appends the decimal text of n.
func (n number) append(b []byte) []byte {
	switch n.kind {
	case ':':
		return strconv.AppendInt(b, int64(n.integer), 10)
	case '(':
		return strconv.AppendUint(b, n.integer, 10)
	default:
		return appendFloat(b, n.float, n.bits)
	}
}
