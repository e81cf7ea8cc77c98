// Package redisproto reads and writes RESP, the protocol of Redis, without copying and without
// allocating memory for each command.
//
// A server reads commands with a [Parser] and writes replies with a [Writer]. A client or a proxy
// writes commands with [Writer.WriteCommand] and reads replies with a [ReplyParser]. The arguments
// of a [Command] and the values of a [Reply] are views into the buffer of the parser: they are valid
// until its next read. Requests are read as Redis reads them, to the byte; the few places where this
// package is stricter are at [ErrCRLF], [ErrInlineNUL], [ErrTooBig] and [ErrInlineTooLong].
//
// A parser and a Writer of the same connection may be used by two goroutines, one each. None of them is
// safe for several goroutines at once.
package redisproto

import (
	"bytes"
	"io"
	"iter"
	"math"
)

// A Parser reads commands. NewParser makes one for a connection. The zero Parser serves Parse, for
// programs that read into buffers of their own. It must not be copied.
//
// It has two Commands that take turns: one is the caller's, and the other is parsed ahead when IsLast
// asks for it, and by ReadCommand otherwise.
type Parser struct {
	input
	cmds    [2]Command
	current *Command // the one that was returned last; its n is 0 when it is past
	ahead   *Command // the next one, which IsLast may have parsed already
	ended   error    // what ended Commands
}

// NewParser returns a Parser that reads from r, with a buffer of its own; do not put a bufio.Reader
// between. The buffer has 1 KiB at first, up to 32 KiB if reads fill it, and more only for a
// command that needs it, as its bytes arrive.
//
// What is to be done before each read belongs into r: setting a deadline, refusing to read while
// the server shuts down, or flushing the replies before the read blocks.
func NewParser(r io.Reader) *Parser {
	p := new(Parser)
	p.Reset(r)
	return p
}

// Reset makes p read from r as if it were new, with the buffers and the limits that it has. All views
// that p gave end.
func (p *Parser) Reset(r io.Reader) {
	p.current, p.ahead = &p.cmds[0], &p.cmds[1]
	for i := range p.cmds {
		c := &p.cmds[i]
		c.buf, c.lim, c.partner = &p.buf, &p.lim, &p.cmds[1-i]
		c.end()
		c.discard()
		c.giveBack()
	}
	p.reset(r)
	p.tail.next, p.ended = (*partial).parseArg, nil
	p.SetLimits(p.limits)
}

// SetLimits makes l hold from the next command on. What was parsed ahead, an error too, is judged
// again; for a command that has been received in part, l holds from its start. For one that was
// returned before it was whole, l does not change anything. It reads the defaults, such as
// MaxBulkSize, anew.
func (p *Parser) SetLimits(l Limits) {
	p.setLimits(l)
	if p.ahead != nil && !p.broken {
		p.ahead.discard()
	}
}

// Commands returns the commands of the connection, for a range loop that is the whole loop of a
// server. It ends at the first error; Err says which one that was. A command is valid until the
// loop goes on; Clone it to keep it.
func (p *Parser) Commands() iter.Seq[*Command] {
	return func(yield func(*Command) bool) {
		p.ended = nil
		for {
			c, err := p.ReadCommand()
			if err != nil {
				p.ended = err
				return
			}
			if !yield(c) {
				return
			}
		}
	}
}

// Err returns the error that ended Commands: see ReadCommand. It is nil for io.EOF between two
// commands, and while Commands has not ended.
func (p *Parser) Err() error {
	if p.ended == io.EOF {
		return nil
	}
	return p.ended
}

// ReadCommand returns the next command. Empty commands are passed over, as in Redis. The command
// and its views are valid until the next ReadCommand or Reset; Clone it to keep it.
//
// The error is a *ProtocolError if the peer has sent what is no command: answer with its text, flush
// and close. After that it is ErrBroken. At the end of input it is io.EOF, or io.ErrUnexpectedEOF
// inside a command. Any other error is the reader's own. Nothing is lost by it, and the next call
// goes on where this one has stopped.
func (p *Parser) ReadCommand() (*Command, error) {
	c := p.ahead
	if raceEnabled || c == nil || p.buf.large != nil || p.current.tail != nil {
		if err := p.expire(); err != nil {
			return nil, err
		}
	}
	past := p.current
	past.n = 0
	if c.parsed == 0 && c.skip == 0 {
		c.parsed = c.parseSimple(p.buf.unread(), &p.lim)
	}
	if c.parsed == 0 || c.skip > 0 {
		if err := p.readCommand(c); err != nil {
			return nil, err
		}
	}
	if c.tail == nil {
		c.commit(p.buf.take(c.parsed))
	}
	p.current, p.ahead = c, past
	return c, nil
}

// readCommand reads until c is whole and unread bytes begin with it, or until it is returned before it
// is whole.
func (p *Parser) readCommand(c *Command) error {
	for !p.broken {
		if p.buf.r < p.buf.w {
			ok := c.parsed > 0 || c.err != nil || c.parseAny()
			if c.skip > 0 {
				p.buf.take(c.skip)
				c.skip = 0
			}
			switch {
			case ok && c.err == nil:
				return nil
			case ok:
				err := c.err
				c.discard()
				return p.fail(err)
			case c.left > 0 && p.lim.Stream > 0 && c.exceeds(p.lim.Stream) &&
				(len(c.found.s) >= min(headArgs, p.lim.Stream>>12) || c.need > p.lim.Stream):
				p.beginTail(c)
				return nil
			}
		}
		size, have := 0, len(p.buf.data)
		if c.bulk > 0 && c.left == 1 {
			size = c.need
		}
		err := p.buf.fill(size)
		if len(p.buf.data) != have { // nothing may keep the old data in memory
			p.current.end()
			c.end()
		}
		if err != nil {
			return err
		}
		if c.parsed = c.parseSimple(p.buf.unread(), &p.lim); c.parsed > 0 {
			return nil
		}
	}
	return ErrBroken
}

// headArgs is how many arguments of a command have arrived at least when it is returned before it is whole,
// if Stream is not small and they can be held: whoever passes it on has to know its name, and what else
// decides what it does.
const headArgs = 16

// beginTail has c returned before it is whole.
func (p *Parser) beginTail(c *Command) {
	// A read may have brought more arguments than may be held, whose bytes stay unread.
	count, k, n := len(c.found.s)+c.left, len(c.found.s), c.pos+2
	arriving := c.bulk > 0
	if arriving {
		n = c.bulk
	}
	const argSize = 8 + 24 // bytes: a span and a view
	most := max(p.lim.Stream, streamRoom)
	for k > 0 && n+argSize*k > most {
		if k--; k > 0 {
			n = int(c.found.s[k-1].end) + 2
		} else {
			n = bytes.IndexByte(p.buf.unread(), '\n') + 1
		}
		arriving = false
	}
	t := &p.tail
	head := t.begin(n, &p.lim)
	t.left = count - k
	if arriving {
		t.arrive(c.size)
	}
	c.restart()
	c.found.s = c.found.s[:k]
	c.commit(head)
	c.missing, c.tail = count-k, t
}

// expire ends the views of the command that was returned last, passes over what has not been read
// of it, and gives back the memory that only a large command needs.
func (p *Parser) expire() error {
	past := p.current
	if past == nil {
		return errNoReader
	}
	past.n, past.missing, past.base = 0, 0, nil
	if err := p.finish(&past.tail); err != nil {
		return err
	}
	p.buf.poison()
	past.end()
	past.giveBack()
	if c := p.ahead; c.parsed == 0 && c.need == 0 {
		c.giveBack()
	}
	p.buf.release()
	return nil
}

// Parse returns the command at the front of b, and how many bytes of b it has. It is for programs
// that own their buffers, event loops above all. An empty command is returned too: it has no
// arguments, but n is more than 0, so that the caller can drop its bytes.
//
// When n is 0 and err is nil, c is nil, and b holds no whole command yet: call again with the same
// bytes and more after them, which may stand elsewhere in memory by then. Parse goes on where it has
// stopped. The views of c are into b. They are valid until the next Parse or Reset, and as long as b
// is unchanged; Parse does not change it. IsLast is true, since c knows of no other command.
//
// The error is a *ProtocolError, whose Offset counts from the start of b. After it every call
// returns ErrBroken until Reset. The limits are those of SetLimits, but nothing is streamed. A
// Parser that has a reader does not serve Parse.
func (p *Parser) Parse(b []byte) (c *Command, n int, err error) {
	if !p.push || p.buf.large != nil {
		if err := p.startParse(); err != nil {
			return nil, 0, err
		}
	}
	c = p.ahead
	if n = c.parseSimple(b, &p.lim); n > 0 {
		c.commit(b[:n:n])
		return c, n, nil
	}
	return p.parse(b)
}

// startParse prepares p for Parse, and gives back large memory between two commands.
func (p *Parser) startParse() error {
	if p.buf.rd != nil {
		return errHasReader
	}
	if !p.push {
		p.Reset(nil)
		p.push = true
		p.SetLimits(p.limits)
	}
	if p.ahead.need == 0 {
		p.ahead.giveBack()
		p.buf.release()
	}
	return nil
}

// parse is Parse for any command.
func (p *Parser) parse(b []byte) (*Command, int, error) {
	c := p.ahead
	c.end()
	clear(p.buf.views.s) // b is the caller's
	switch {
	case p.broken:
		return nil, 0, ErrBroken
	case len(b) == 0:
		return nil, 0, nil
	}
	n, err := c.parse(b, &p.lim, &p.buf)
	switch {
	case err != nil:
		c.need = math.MaxInt // parseSimple passes over it from now on
		p.broken = true
		return nil, 0, err
	case n == 0:
		return nil, 0, nil
	}
	c.commit(b[:n:n])
	return c, n, nil
}
