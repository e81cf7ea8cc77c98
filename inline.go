package redisproto

import (
	"bytes"
	"encoding/hex"
)

// This file parses inline commands: a line of words with blanks between them, as a person types it
// into telnet. The rules are those of Redis's sdssplitargs.

// parseInline parses the inline command at the front of b. The result is that of parse.
func (c *Command) parseInline(b []byte, lim *bounds, buf *buffer) (n int, err *ProtocolError) {
	if lim.Inline < 0 && !blankLine(b) {
		return 0, ErrInlineRefused.at(0)
	}
	limit := max(lim.Inline, 1)
	fresh := b[c.seen:min(len(b), limit+1)]
	lf := bytes.IndexByte(fresh, '\n')
	if lf >= 0 {
		fresh = fresh[:lf]
	}
	if i := bytes.IndexByte(fresh, 0); i >= 0 && c.seen+i < limit {
		return 0, ErrInlineNUL.at(0)
	}
	end := c.seen + len(fresh)
	switch {
	case lf < 0 && end > limit:
		return 0, ErrInlineTooLong.at(0)
	case lf < 0:
		c.seen, c.need = end, len(b)+1
		return 0, nil
	case !c.split(bytes.TrimSuffix(b[:end], []byte{'\r'}), buf):
		return 0, ErrUnbalancedQuotes.at(0)
	}
	c.restart()
	return end + 1, nil
}

// blankLine reports whether b is an empty line, or the part of one that has arrived.
func blankLine(b []byte) bool {
	return b[0] == '\n' || b[0] == '\r' && (len(b) == 1 || b[1] == '\n')
}

// split finds the words of line. If there are quotes it goes on in a copy of the line, and decodes
// them there. It reports false for a quote that is not closed, or is closed inside a word.
func (c *Command) split(line []byte, buf *buffer) (ok bool) {
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return true
		}
		start := i
		for i < len(line) && !endsWord(line[i]) {
			i++
		}
		end := i
		if i < len(line) && (line[i] == '"' || line[i] == '\'') {
			if len(c.line.s) == 0 {
				line = c.copyLine(line, buf)
			}
			if end, i, ok = unquote(line, i); !ok {
				return false
			}
		}
		n := len(c.found.s)
		if n == cap(c.found.s) {
			c.grow(len(line)-i+1, buf)
		}
		c.found.s = c.found.s[:n+1]
		c.found.s[n] = span{uint32(start), uint32(end)}
	}
}

// copyLine makes a copy of line the one that the arguments are in.
func (c *Command) copyLine(line []byte, buf *buffer) []byte {
	if cap(c.line.s) < len(line) {
		grow(&c.line, len(line), buf, spareLine)
	}
	c.line.s = append(c.line.s, line...)
	return c.line.s
}

// isSpace reports whether ch is a blank before a word or behind a quote.
func isSpace(ch byte) bool { return ch == ' ' || '\t' <= ch && ch <= '\r' }

// endsWord reports whether ch ends the part of a word that has no quotes.
func endsWord(ch byte) bool {
	return ch == ' ' || ch == '\t' || ch == '\r' || ch == '"' || ch == '\''
}

// unquote decodes, in place, the quoted part of a word that begins at line[i]. The decoded part ends
// at end, and the line goes on at next.
func unquote(line []byte, i int) (end, next int, ok bool) {
	quote := line[i]
	end = i
	for i++; i < len(line); i++ {
		ch := line[i]
		switch {
		case ch == quote:
			return end, i + 1, i+1 == len(line) || isSpace(line[i+1])
		case ch == '\\' && i+1 < len(line) && quote == '"':
			ch, i = unescape(line, i+1)
		case ch == '\\' && i+1 < len(line) && line[i+1] == quote:
			ch, i = quote, i+1
		}
		line[end] = ch
		end++
	}
	return 0, 0, false
}

// unescape decodes what stands behind a backslash in double quotes, at line[i], and returns the
// index of its last byte.
func unescape(line []byte, i int) (ch byte, last int) {
	switch line[i] {
	case 'n':
		return '\n', i
	case 'r':
		return '\r', i
	case 't':
		return '\t', i
	case 'b':
		return '\b', i
	case 'a':
		return '\a', i
	case 'x':
		if i+2 < len(line) {
			if n, err := hex.Decode(line[i:i+1], line[i+1:i+3]); n == 1 && err == nil {
				return line[i], i + 2
			}
		}
	}
	return line[i], i
}
