package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/secmask/go-redisproto"
)

// A Codec turns the values that typed handlers and Call deal with into bytes and back. Unmarshal must
// not keep data.
type Codec interface {
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// JSON is the codec that servers and clients have unless their options say otherwise.
type JSON struct{}

func (JSON) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (JSON) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// A RawHandler answers one call. The arguments, without the method's name, are views that are valid
// until it returns. It either writes exactly one reply to w and returns nil, or returns an error,
// which becomes the reply; what it has written before that is dropped. It must not keep args or w.
type RawHandler func(ctx context.Context, args [][]byte, w *redisproto.Writer) error

// A method is what a server can be called for.
type method struct {
	name    string // as it was registered
	summary string // for COMMAND DOCS
	args    int    // how many arguments it has, at least
	more    bool   // it may have more
	param   string // what one argument is called in COMMAND DOCS
	expects string // the arguments in words
	slow    bool
	handler RawHandler
}

// A MethodOption changes a method that is being registered.
type MethodOption func(*method)

// Summary is the line that COMMAND DOCS, and so redis-cli, has to say about the method.
func Summary(text string) MethodOption { return func(m *method) { m.summary = text } }

// Slow is for a handler that waits: for a database, for another server, for an event. Replies have
// to come in the order of the calls, so a handler holds up the calls behind it on the same
// connection. A slow one runs on a goroutine of its own, up to ServerOptions.MaxSlow of them, so that
// those are executed meanwhile, and only their replies wait.
func Slow() MethodOption { return func(m *method) { m.slow = true } }

// Handle registers a typed handler. Its payload is one argument, which the server's codec decodes.
// If In is a pointer, the handler gets one to a new value. An error that wraps a
// *redisproto.ReplyError is replied with its code, any other with ERR.
//
// Methods are registered before Serve. A name that is taken already is a panic.
func Handle[In, Out any](s *Server, name string, h func(context.Context, In) (Out, error), options ...MethodOption) {
	codec := s.opts.Codec
	m := &method{name: name, args: 1, param: "payload", expects: "a payload that decodes to " + reflect.TypeFor[In]().String()}
	if _, ok := codec.(JSON); ok {
		if sample, err := json.Marshal(newMessage[In]()); err == nil {
			m.expects = "a JSON payload like " + string(sample)
		}
	}
	m.handler = func(ctx context.Context, args [][]byte, w *redisproto.Writer) error {
		in, err := decode[In](codec, args[0])
		if err != nil {
			return fmt.Errorf("%s: the payload does not decode: %w; expected %s", m.name, err, m.expects)
		}
		out, err := h(ctx, in)
		if err != nil {
			return err
		}
		payload, err := codec.Marshal(out)
		if err != nil {
			return fmt.Errorf("%s: the reply does not encode: %w", m.name, err)
		}
		if payload == nil { // the empty message of some codecs; WriteBulk would make it a null
			payload = []byte{}
		}
		return w.WriteBulk(payload)
	}
	s.register(m, options)
}

// HandleRaw registers a handler that takes its arguments as they came: args of them, or -args or
// more if it is negative. A caller's deadline is not among them.
func HandleRaw(s *Server, name string, args int, h RawHandler, options ...MethodOption) {
	m := &method{name: name, args: max(args, -args), more: args < 0, param: "argument", handler: h}
	m.expects = fmt.Sprintf("%d arguments", m.args)
	if m.args == 1 {
		m.expects = "1 argument"
	}
	if m.more {
		m.expects = "at least " + m.expects
	}
	s.register(m, options)
}

// newMessage returns the zero T, or a new value if T is a pointer.
func newMessage[T any]() (v T) {
	if t := reflect.TypeFor[T](); t.Kind() == reflect.Pointer {
		v = reflect.New(t.Elem()).Interface().(T)
	}
	return v
}

// decode decodes a T. If that is a pointer, as the messages of protobuf are, the codec gets it as it
// is; else it gets a pointer to a T.
func decode[T any](codec Codec, data []byte) (v T, err error) {
	if reflect.TypeFor[T]().Kind() == reflect.Pointer {
		v = newMessage[T]()
		return v, codec.Unmarshal(data, v)
	}
	err = codec.Unmarshal(data, &v)
	return v, err
}

// split takes apart the arguments of a call: those of the handler, and the caller's deadline, which
// is TIMEOUT and a number of milliseconds behind them. The error is for the caller.
func (m *method) split(args [][]byte) (own [][]byte, timeout time.Duration, err error) {
	n := len(args)
	extra := n - m.args
	timed := extra >= 2 && len(args[n-2]) == len("TIMEOUT") && strings.EqualFold(string(args[n-2]), "TIMEOUT")
	switch {
	case extra < 0, !m.more && extra > 2:
		return nil, 0, fmt.Errorf("wrong number of arguments: expected %s, got %d", m.expects, n)
	case !m.more && extra > 0 && !timed:
		return nil, 0, fmt.Errorf("expected %s, or that and TIMEOUT <ms> behind it; got '%s' behind it", m.expects, clip(args[m.args]))
	case !timed:
		return args, 0, nil
	}
	ms, err := strconv.ParseUint(string(args[n-1]), 10, 43) // bits, so that a time.Duration can hold it
	if err != nil || ms == 0 {
		return nil, 0, fmt.Errorf("TIMEOUT: expected milliseconds from 1 to %d, got '%s'", int64(1<<43-1), clip(args[n-1]))
	}
	return args[:n-2], time.Duration(ms) * time.Millisecond, nil
}

// clip returns the beginning of what a client sent, for an error text.
func clip(b []byte) string {
	if len(b) > 64 {
		return string(b[:64]) + "..."
	}
	return string(b)
}

// invoke has the handler write its reply to t. Whatever the handler does, t has one reply more.
func (m *method) invoke(ctx context.Context, args [][]byte, t *batch, log *slog.Logger) {
	start := t.size()
	defer func() {
		if p := recover(); p != nil {
			log.Error("a handler panicked", "method", m.name, "panic", p, "stack", string(debug.Stack()))
			t.truncate(start)
			t.w.WriteError("ERR " + m.name + ": internal error")
		}
	}()
	err := m.handler(ctx, args, t.w)
	if err == nil {
		err = t.w.Flush() // the error of a value that failed while it was being written
	}
	if err == nil && t.size() == start {
		err = fmt.Errorf("%s: the handler wrote no reply", m.name)
		log.Error("a raw handler wrote no reply", "method", m.name)
	}
	if err != nil {
		t.truncate(start)
		t.w.WriteError(errorText(err))
	}
}

// errorText is the error reply for err: its code and its message.
func errorText(err error) string {
	var coded *redisproto.ReplyError
	if !errors.As(err, &coded) || !isCode(coded.Code) {
		return "ERR " + err.Error()
	}
	if err == error(coded) {
		return coded.Error()
	}
	return coded.Code + " " + err.Error()
}

// isCode reports whether code is one that clients tell from a message: capitals, digits and _.
func isCode(code string) bool {
	for _, ch := range code {
		if (ch < 'A' || ch > 'Z') && (ch < '0' || ch > '9') && ch != '_' {
			return false
		}
	}
	return code != ""
}
