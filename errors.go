package redisproto

import "errors"

// A ProtocolError says that the peer's bytes are not RESP, or go over a limit. The stream has no
// known boundary after it. A server sends Error's text to the peer with [Writer.WriteError] and closes
// the connection, as Redis does; a client just closes.
//
// errors.Is tells the cases apart by the values below; errors.Is(err, &ProtocolError{}) matches
// them all.
type ProtocolError struct {
	// Offset is where the line or the line's end that is wrong begins, in bytes from the first one
	// that the parser has read since it was made or reset. For [Parser.Parse] and
	// [ReplyParser.Parse] it counts from the start of the slice.
	Offset int64

	text string
	kind *ProtocolError // the exported value that it is a case of; nil in those values
}

// Error gives the text to send, without the leading '-' and the final CR LF. Where Redis has the
// case, it is Redis's text to the byte.
func (e *ProtocolError) Error() string {
	if e.text == "" {
		return "ERR Protocol error"
	}
	return e.text
}

// Is reports whether target is the kind of e, or the zero ProtocolError, which stands for any kind.
func (e *ProtocolError) Is(target error) bool {
	t, ok := target.(*ProtocolError)
	return ok && (t == e || t == e.kind || *t == ProtocolError{})
}

// The kinds of protocol error, for errors.Is. The limits that they speak of are in [Limits].
var (
	// ErrMultibulkLength: the count after '*', or that of another aggregate in a reply, is not a
	// decimal int64, or it is over Limits.Args.
	ErrMultibulkLength = protocolError("invalid multibulk length")
	// ErrBulkLength: the length after '$', or that of another string in a reply, is not a decimal
	// number from 0 to Limits.Bulk; or a line in a reply is longer.
	ErrBulkLength = protocolError("invalid bulk length")
	// ErrExpectedBulk: an argument does not begin with '$'. The text of the error that is
	// returned goes on with the byte that was found in its place.
	ErrExpectedBulk = protocolError("expected '$'")
	// ErrCountTooLong: there is no CR in the first 65,537 bytes of a line that begins with '*'.
	ErrCountTooLong = protocolError("too big mbulk count string")
	// ErrLengthTooLong: there is no CR in 65,537 bytes where a line with '$' is expected.
	ErrLengthTooLong = protocolError("too big bulk count string")
	// ErrInlineTooLong: there is no LF in the first Limits.Inline + 1 bytes of an inline command.
	// Redis accepts a line that is longer than its 64 KiB if its end has arrived already.
	ErrInlineTooLong = protocolError("too big inline request")
	// ErrUnbalancedQuotes: an inline command leaves a quote open, or a closing quote is not
	// followed by a blank.
	ErrUnbalancedQuotes = protocolError("unbalanced quotes in request")
	// ErrUnauthenticatedCount: Limits.Unauthenticated is set, and the count is over 10.
	ErrUnauthenticatedCount = protocolError("unauthenticated multibulk length")
	// ErrUnauthenticatedLength: Limits.Unauthenticated is set, and an argument is over 16,384 bytes.
	ErrUnauthenticatedLength = protocolError("unauthenticated bulk length")

	// ErrCRLF: a CR in a header is not followed by LF, or an argument is not followed by CR LF. In a
	// reply, there is a CR without LF, or a LF without CR, outside the bytes of a bulk string.
	// Redis does not look at these bytes; Valkey has the rule since version 9.1.
	ErrCRLF = protocolError("invalid CRLF in request")
	// ErrInlineNUL: an inline command has a NUL byte. Redis would wait for ever.
	ErrInlineNUL = protocolError("NUL in inline request")
	// ErrTooBig: a command or a reply is longer than Limits.Total; or, with Limits.Stream, a number
	// or the attributes in front of a reply are longer than that. Redis closes without a word.
	ErrTooBig = protocolError("too big request")
	// ErrInlineRefused: this is an inline command, and Limits.Inline is negative.
	ErrInlineRefused = protocolError("inline requests are not accepted")

	// ErrReplyType: a reply begins with no type of RESP, or with one whose length is "?": such
	// streamed strings and aggregates are not read. The text of the error goes on with the byte.
	ErrReplyType = protocolError("invalid reply type")
	// ErrReplyValue: a boolean, a null or a verbatim string of a reply is not written as RESP has it.
	// The texts of numbers are judged by Reply.Int and the like, and never cause this error.
	ErrReplyValue = protocolError("invalid value in reply")
	// ErrReplyDepth: the aggregates of a reply are nested deeper than Limits.Depth.
	ErrReplyDepth = protocolError("too deeply nested reply")
)

// ErrBroken is returned by every read after the one that returned a *ProtocolError, until Reset.
// It is no *ProtocolError, so that a loop which answers those answers once.
var ErrBroken = errors.New("redisproto: read after a protocol error")

func protocolError(text string) *ProtocolError {
	return &ProtocolError{text: "ERR Protocol error: " + text}
}

// at gives the kind e as an error whose line begins at byte pos.
func (e *ProtocolError) at(pos int) *ProtocolError {
	return &ProtocolError{Offset: int64(pos), text: e.text, kind: e}
}

// got adds the byte that was found to the text. CR and LF would end the line, so they show as a space,
// as in Redis.
func (e *ProtocolError) got(c byte) *ProtocolError {
	if c == '\r' || c == '\n' {
		c = ' '
	}
	e.text += ", got '" + string([]byte{c}) + "'"
	return e
}
