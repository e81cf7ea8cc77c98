package main

import (
	"sync"

	"github.com/secmask/go-redisproto"
)

// A subscriber's writer has two users: its own loop, which answers its requests, and messages that
// others publish.
//
// A publisher never touches it. It leaves the message in the subscriber's mail, which is memory, and
// sees to it that a goroutine is on its way to deliver: that one waits for the client's writing
// lock, which the loop has from the first command of a pipeline to its flush, then writes what is in
// the mail, flushes, and ends when the mail is empty. So the one who publishes is never kept by one
// who does not read, replies and messages do not mix, and a client without messages pays one
// uncontended lock a pipeline. What waits in the mail, or is being written, is counted; over
// config.outputLimit the client is closed.
//
// The answers to SUBSCRIBE and UNSUBSCRIBE take the same way, put into the mail under the lock that
// publishers need: so no message comes before the one or after the other.
type pubsub struct {
	mu       sync.Mutex
	channels map[string]map[*client]struct{}
}

// mail is what a client has still to be sent.
type mail struct {
	items []message
	size  int  // bytes, about, of items and of what is being written
	busy  bool // a goroutine is on its way
	over  bool // the limit, or closed: nothing more is taken
}

type message struct {
	kind    string
	channel string
	none    bool   // there is no channel, but null
	text    []byte // of kind "message"
	count   int    // of the other kinds
}

// size is about what m takes, though subscribers share text.
func (m *message) size() int { return 96 + len(m.channel) + len(m.text) }

func (m *message) write(w *redisproto.Writer) {
	w.WritePushHeader(3)
	w.WriteBulkString(m.kind)
	if m.none {
		w.WriteNull()
	} else {
		w.WriteBulkString(m.channel)
	}
	if m.kind == "message" {
		w.WriteBulk(m.text)
	} else {
		w.WriteInt(int64(m.count))
	}
}

// put leaves a message for c. p.mu is held.
func (p *pubsub) put(c *client, m message) {
	if c.mail.over {
		return
	}
	c.mail.size += m.size()
	if c.mail.size > c.srv.outputLimit {
		c.mail.over, c.mail.items = true, nil
		c.kill("it does not read its messages")
		return
	}
	c.mail.items = append(c.mail.items, m)
}

// publish leaves text for all subscribers of the channel, and returns how many there are.
func (p *pubsub) publish(channel, text []byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	subscribers := p.channels[string(channel)]
	if len(subscribers) == 0 {
		return 0
	}
	m := message{kind: "message", channel: string(channel), text: append([]byte{}, text...)}
	for c := range subscribers {
		p.put(c, m)
		if !c.mail.busy {
			c.mail.busy = true
			go c.postman()
		}
	}
	return len(subscribers)
}

// take empties c's mail, of which written bytes have been delivered since the last call.
func (p *pubsub) take(c *client, written int) (items []message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.mail.size -= written
	items, c.mail.items = c.mail.items, nil
	return items
}

// deliver writes the mail. c.writing is held.
func (c *client) deliver() {
	size := 0
	for {
		items := c.srv.pubsub.take(c, size)
		if len(items) == 0 {
			return
		}
		size = 0
		for i := range items {
			items[i].write(c.w)
			size += items[i].size()
		}
	}
}

// postman delivers until there is nothing more. An error is found by the loop too: after one of a
// write the connection is closed, and a Writer keeps it.
func (c *client) postman() {
	p := &c.srv.pubsub
	for again := true; again; {
		c.writing.Lock()
		c.deliver()
		err := c.w.Flush()
		c.writing.Unlock()
		p.mu.Lock()
		again = len(c.mail.items) > 0 && err == nil
		c.mail.busy = again
		p.mu.Unlock()
	}
}

// join makes c a subscriber of a channel. p.mu is held.
func (p *pubsub) join(c *client, channel string) {
	if c.subs == nil {
		c.subs = map[string]struct{}{}
	}
	if p.channels[channel] == nil {
		p.channels[channel] = map[*client]struct{}{}
	}
	c.subs[channel], p.channels[channel][c] = struct{}{}, struct{}{}
}

// part is the reverse of join.
func (p *pubsub) part(c *client, channel string) {
	delete(c.subs, channel)
	delete(p.channels[channel], c)
	if len(p.channels[channel]) == 0 {
		delete(p.channels, channel)
	}
}

// leave makes c a subscriber of nothing. For one that is closed there is no mail any more.
func (p *pubsub) leave(c *client, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for channel := range c.subs {
		p.part(c, channel)
	}
	if closed {
		c.mail.over, c.mail.items = true, nil
	}
}

func subscribe(c *client, cmd *redisproto.Command) error {
	p := &c.srv.pubsub
	p.mu.Lock()
	for _, arg := range cmd.Args()[1:] {
		channel := string(arg)
		p.join(c, channel)
		p.put(c, message{kind: "subscribe", channel: channel, count: len(c.subs)})
	}
	p.mu.Unlock()
	c.deliver()
	return nil
}

func unsubscribe(c *client, cmd *redisproto.Command) error {
	p := &c.srv.pubsub
	p.mu.Lock()
	var channels []string
	for _, arg := range cmd.Args()[1:] {
		channels = append(channels, string(arg))
	}
	if channels == nil { // from all
		for channel := range c.subs {
			channels = append(channels, channel)
		}
	}
	for _, channel := range channels {
		p.part(c, channel)
		p.put(c, message{kind: "unsubscribe", channel: channel, count: len(c.subs)})
	}
	if channels == nil {
		p.put(c, message{kind: "unsubscribe", none: true})
	}
	p.mu.Unlock()
	c.deliver()
	return nil
}

func publish(c *client, cmd *redisproto.Command) error {
	n := c.srv.pubsub.publish(cmd.Get(1), cmd.Get(2))
	if len(c.subs) > 0 {
		c.deliver() // what it sent to itself comes before the reply, as in Redis
	}
	return c.w.WriteInt(int64(n))
}
