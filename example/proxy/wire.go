package main

import (
	"bytes"
	"strconv"

	"github.com/secmask/go-redisproto"
)

// parseRaw returns one whole reply as the library's Reply. It is valid as long as raw is unchanged.
func parseRaw(raw []byte) (redisproto.Reply, bool) {
	r, err := redisproto.NewReplyParser(bytes.NewReader(raw)).ReadReply()
	if err != nil {
		return redisproto.Reply{}, false
	}
	return r, true
}

// appendHeader appends the line that begins an aggregate or a bulk string.
func appendHeader(dst []byte, kind byte, n int) []byte {
	return append(strconv.AppendInt(append(dst, kind), int64(n), 10), "\r\n"...)
}

// appendBulk appends an argument.
func appendBulk[T string | []byte](dst []byte, arg T) []byte {
	return append(append(appendHeader(dst, '$', len(arg)), arg...), "\r\n"...)
}

// appendCommand appends a command as it is sent.
func appendCommand(dst []byte, words ...string) []byte {
	dst = appendHeader(dst, '*', len(words))
	for _, word := range words {
		dst = appendBulk(dst, word)
	}
	return dst
}
