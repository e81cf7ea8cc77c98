package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

type (
	jsonPayload struct {
		Data string `json:"data"`
	}
	jsonAddRequest struct {
		A    int64  `json:"a"`
		B    int64  `json:"b"`
		Note string `json:"note,omitempty"`
	}
	jsonAddReply struct {
		Sum int64 `json:"sum"`
	}
)

// handle serves a method: JSON comes in the body, and goes back in the body.
func handle[In, Out any](mux *http.ServeMux, pattern string, h func(In) Out) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		var in In
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &in)
		}
		var reply []byte
		if err == nil {
			reply, err = json.Marshal(h(in))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(reply)
	})
}

func serveHTTP(l net.Listener) error {
	mux := http.NewServeMux()
	handle(mux, "POST /echo", func(in jsonPayload) jsonPayload { return in })
	handle(mux, "POST /add", func(in jsonAddRequest) jsonAddReply { return jsonAddReply{in.A + in.B} })
	return http.Serve(l, mux)
}

type httpPeer struct {
	c    *http.Client
	base string
}

// dialHTTP prepares for a connection for each caller, because HTTP/1.1 has one call at a time on each.
func dialHTTP(addr string, callers int) (peer, error) {
	return httpPeer{&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: callers}}, "http://" + addr}, nil
}

// post makes a call.
func post[Out any](ctx context.Context, p httpPeer, path string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+path, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.c.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, reply)
	}
	if err == nil {
		err = json.Unmarshal(reply, &out)
	}
	return out, err
}

func (p httpPeer) Echo(ctx context.Context, data []byte) ([]byte, error) {
	out, err := post[jsonPayload](ctx, p, "/echo", jsonPayload{string(data)})
	return []byte(out.Data), err
}

func (p httpPeer) Add(ctx context.Context, a, b int64, note string) (int64, error) {
	out, err := post[jsonAddReply](ctx, p, "/add", jsonAddRequest{a, b, note})
	return out.Sum, err
}
