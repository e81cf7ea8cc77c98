package main

import (
	"maps"
	"slices"
	"sync"

	"github.com/secmask/go-redisproto"
)

// A subscriber's writer has two users: its own loop, which answers its requests, and messages that
// others publish. A publisher never touches it. It leaves the message in the subscriber's mail, which
// is memory, and starts a postman if none is on the way. The postman waits for the client's writing
// lock, which the loop has from the first command of a pipeline to its flush; then it writes what is
// in the mail, and flushes. So one who does not read never keeps the one who publishes, replies and
// messages do not mix, and a client without messages pays one uncontended lock a pipeline. What waits
// in the mail or is being written is counted; over config.outputLimit the client is closed.
type pubsub struct {
	mu       sync.Mutex
	channels map[string]map[*client]struct{}
}

// mail is what a client has still to be sent.
type mail struct {
	items []message
	size  int  // bytes, about, of items and of what is being written
	busy  bool // a postman waits for the writing lock
	over  bool // the limit
}

type message struct{ channel, text string }

// size is about what m takes, though subscribers share the text.
func (m message) size() int { return 64 + len(m.channel) + len(m.text) }

// put leaves a message for c. p.mu is held.
func (p *pubsub) put(c *client, m message) {
	if c.mail.over {
		return
	}
	if c.mail.size += m.size(); c.mail.size > c.srv.outputLimit {
		c.mail.over, c.mail.items = true, nil
		c.kill("it does not read its messages")
		return
	}
	c.mail.items = append(c.mail.items, m)
	if !c.mail.busy {
		c.mail.busy = true
		go c.postman()
	}
}

// postman delivers once the loop waits for requests. A failed write is found by the loop too: it
// sticks to the Writer, and the connection is closed.
func (c *client) postman() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.srv.pubsub.mu.Lock()
	c.mail.busy = false // what comes from here on has a postman of its own
	c.srv.pubsub.mu.Unlock()
	c.deliver()
	c.w.Flush()
}

// deliver writes the mail until there is no more. c.writing is held.
func (c *client) deliver() {
	for written := 0; ; {
		c.srv.pubsub.mu.Lock()
		items := c.mail.items
		c.mail.items = nil
		c.mail.size -= written
		c.srv.pubsub.mu.Unlock()
		if items == nil {
			return
		}
		written = 0
		for _, m := range items {
			c.w.WritePushHeader(3)
			c.writeTexts("message", m.channel, m.text)
			written += m.size()
		}
	}
}

// join makes c a subscriber of a channel.
func (p *pubsub) join(c *client, channel string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.channels[channel] == nil {
		p.channels[channel] = map[*client]struct{}{}
	}
	c.subs[channel], p.channels[channel][c] = struct{}{}, struct{}{}
}

// leave is the reverse of join. After it, deliver writes the last messages of the channel.
func (p *pubsub) leave(c *client, channel string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(c.subs, channel)
	delete(p.channels[channel], c)
	if len(p.channels[channel]) == 0 {
		delete(p.channels, channel)
	}
}

// leaveAll makes c a subscriber of nothing.
func (p *pubsub) leaveAll(c *client) {
	for channel := range c.subs {
		p.leave(c, channel)
	}
}

// The answer to SUBSCRIBE comes before the first message, for which the loop still has the writing
// lock; the answer to UNSUBSCRIBE comes after the last.

func subscribe(c *client, cmd *redisproto.Command) (err error) {
	for _, arg := range cmd.Args()[1:] {
		c.srv.pubsub.join(c, string(arg))
		c.w.WritePushHeader(3)
		c.writeTexts("subscribe", string(arg))
		err = c.w.WriteInt(int64(len(c.subs)))
	}
	return err
}

func unsubscribe(c *client, cmd *redisproto.Command) (err error) {
	var channels []string
	for _, arg := range cmd.Args()[1:] {
		channels = append(channels, string(arg))
	}
	if channels == nil { // from all
		channels = slices.Collect(maps.Keys(c.subs))
	}
	for _, channel := range channels {
		c.srv.pubsub.leave(c, channel)
		c.deliver()
		c.w.WritePushHeader(3)
		c.writeTexts("unsubscribe", channel)
		err = c.w.WriteInt(int64(len(c.subs)))
	}
	if channels == nil {
		c.w.WritePushHeader(3)
		c.writeTexts("unsubscribe")
		c.w.WriteNull()
		err = c.w.WriteInt(0)
	}
	return err
}

func publish(c *client, cmd *redisproto.Command) error {
	p := &c.srv.pubsub
	p.mu.Lock()
	subscribers := p.channels[string(cmd.Get(1))]
	n := len(subscribers)
	if n > 0 {
		m := message{string(cmd.Get(1)), string(cmd.Get(2))}
		for s := range subscribers {
			p.put(s, m)
		}
	}
	p.mu.Unlock()
	if len(c.subs) > 0 {
		c.deliver() // what it sent to itself comes before the reply, as in Redis
	}
	return c.w.WriteInt(int64(n))
}
