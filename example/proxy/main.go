// Command proxy stands between Redis's clients and a real Redis, unseen by both:
//
//	go run ./example/proxy -listen :6390 -upstream 127.0.0.1:6379
//	redis-cli -p 6390
//
// It refuses commands (-deny), logs slow ones (-slowlog) and counts them all (-metrics). Each client
// has a connection of its own to the upstream, so that transactions, blocking commands, pub/sub and
// all else that a connection remembers are as without it.
//
// From the outside in:
//
//	main.go     flags, listener, signals, TLS
//	proxy.go    accepting, dialing, draining; one client from its first command to its last reply
//	replies.go  which reply belongs to which command
//	command.go  what is known and counted of each command
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"expvar"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is main; it returns the exit status.
func run(args []string) int {
	var o options
	fs := flag.NewFlagSet("proxy", flag.ExitOnError)
	o.define(fs)
	metrics := fs.String("metrics", "", "address to serve calls, errors and latency by command on, over HTTP")
	verbose := fs.Bool("v", false, "log connections too")
	fs.Parse(args)

	level := slog.LevelInfo
	if *verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	o.timed = *metrics != ""
	p, listener, err := o.open(log)
	if err == nil && *metrics != "" {
		_, err = p.serveMetrics(*metrics)
	}
	if err != nil {
		log.Error("cannot start", "err", err)
		return 1
	}
	log.Info("listening", "addr", listener.Addr().String(), "upstream", p.addr)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	p.run(ctx, listener)
	log.Info("stopped")
	return 0
}

// options are what the flags say.
type options struct {
	listen, cert, key, clientCA                             string
	upstream, upstreamName, upstreamCA, upstreamCert, upKey string
	upstreamTLS                                             bool
	deny                                                    string
	slowlog                                                 time.Duration
	drain                                                   time.Duration
	timed                                                   bool
}

func (o *options) define(fs *flag.FlagSet) {
	fs.StringVar(&o.listen, "listen", ":6390", "address to listen on")
	fs.StringVar(&o.cert, "tls-cert", "", "certificate file; with -tls-key, clients must speak TLS")
	fs.StringVar(&o.key, "tls-key", "", "private key file")
	fs.StringVar(&o.clientCA, "tls-client-ca", "", "file of authorities; clients need a certificate from one of them")
	fs.StringVar(&o.upstream, "upstream", "127.0.0.1:6379", "address of the Redis behind this")
	fs.BoolVar(&o.upstreamTLS, "upstream-tls", false, "speak TLS to the upstream")
	fs.StringVar(&o.upstreamCA, "upstream-ca", "", "file of authorities that may vouch for the upstream; default the system's")
	fs.StringVar(&o.upstreamName, "upstream-name", "", "name in the upstream's certificate; default the host of its address")
	fs.StringVar(&o.upstreamCert, "upstream-cert", "", "certificate file to show to the upstream")
	fs.StringVar(&o.upKey, "upstream-key", "", "private key file for -upstream-cert")
	fs.StringVar(&o.deny, "deny", "", "commands to refuse, with commas between; what scripts call is not looked at")
	fs.DurationVar(&o.slowlog, "slowlog", 0, "log commands that take this long or longer; 0 logs none")
	fs.DurationVar(&o.drain, "drain", 5*time.Second, "after SIGTERM, wait so long for replies that are due")
}

// open makes the proxy and its listener.
func (o *options) open(log *slog.Logger) (*proxy, net.Listener, error) {
	p := newProxy(o.upstream, log)
	p.slow, p.drain, p.timed = o.slowlog, o.drain, o.timed || o.slowlog > 0
	if err := p.deny(o.deny); err != nil {
		return nil, nil, fmt.Errorf("-deny: %w", err)
	}
	var err error
	if o.upstreamTLS {
		if p.tls, err = o.clientTLS(); err != nil {
			return nil, nil, err
		}
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil || o.cert == "" && o.key == "" && o.clientCA == "" {
		return p, listener, err
	}
	config := &tls.Config{}
	if config.Certificates, err = certificates(o.cert, o.key); err == nil && o.clientCA != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs, err = authorities(o.clientCA)
	}
	if err != nil {
		listener.Close()
		return nil, nil, err
	}
	return p, tls.NewListener(listener, config), nil
}

// clientTLS is how to speak TLS to the upstream.
func (o *options) clientTLS() (*tls.Config, error) {
	config := &tls.Config{ServerName: o.upstreamName}
	var err error
	if o.upstreamCA != "" {
		if config.RootCAs, err = authorities(o.upstreamCA); err != nil {
			return nil, err
		}
	}
	if o.upstreamCert != "" || o.upKey != "" {
		config.Certificates, err = certificates(o.upstreamCert, o.upKey)
	}
	return config, err
}

func certificates(cert, key string) ([]tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(cert, key)
	return []tls.Certificate{c}, err
}

func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New(file + ": no certificate in it")
	}
	return pool, nil
}

// serveMetrics serves expvar's variables, this program's among them, until the program ends.
func (p *proxy) serveMetrics(addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p.publish()
	server := &http.Server{Handler: expvar.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { p.log.Error("metrics are no longer served", "err", server.Serve(listener)) }()
	p.log.Info("serving metrics", "addr", listener.Addr().String())
	return listener, nil
}
