package main

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"
)

// BenchmarkCall is a call with client and server in one process.
func BenchmarkCall(b *testing.B) {
	s := start(b, quiet(), "", demo)
	c, err := Dial(context.Background(), s.addr, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close(context.Background())
	payload := bytes.Repeat([]byte("x"), 100)
	forever, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for _, bb := range []struct {
		name string
		call func(reply []byte) ([]byte, error)
	}{
		{"raw", func(reply []byte) ([]byte, error) {
			return c.CallRaw(context.Background(), reply[:0], "echo", payload)
		}},
		{"raw/deadline", func(reply []byte) ([]byte, error) { return c.CallRaw(forever, reply[:0], "echo", payload) }},
		{"json", func([]byte) ([]byte, error) {
			_, err := Call[AddReply](context.Background(), c, "calc.add", AddRequest{A: 19, B: 23})
			return nil, err
		}},
	} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("call=%s/callers=%d", bb.name, callers), func(b *testing.B) {
				b.ReportAllocs()
				errs := make(chan error, callers)
				for i := range callers {
					go func() {
						var reply []byte
						var err error
						for j := i; j < b.N && err == nil; j += callers {
							reply, err = bb.call(reply)
						}
						errs <- err
					}()
				}
				for range callers {
					if err := <-errs; err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
