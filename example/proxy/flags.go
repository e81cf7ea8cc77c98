package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
)

// options are what the flags say.
type options struct {
	settings
	listen, cert, key, clientCA                             string
	upstream, upstreamName, upstreamCA, upstreamCert, upKey string
	upstreamTLS                                             bool
	seeds                                                   string
	deny, allow                                             string
	passwordFile, upstreamPasswordFile                      string
	metrics                                                 string
	verbose                                                 bool
	given                                                   map[string]bool // flags that were set
}

// Environment variables that hold passwords, where no file does.
const (
	passwordEnv         = "PROXY_REQUIREPASS"
	upstreamPasswordEnv = "PROXY_UPSTREAM_PASSWORD"
)

func (o *options) define(fs *flag.FlagSet) {
	fs.StringVar(&o.listen, "listen", ":6390", "address to listen on")
	fs.StringVar(&o.cert, "tls-cert", "", "certificate file; with -tls-key, clients must speak TLS")
	fs.StringVar(&o.key, "tls-key", "", "private key file")
	fs.StringVar(&o.clientCA, "tls-client-ca", "", "file of authorities; clients need a certificate from one of them")
	fs.StringVar(&o.upstream, "upstream", "127.0.0.1:6379", "address of the Redis behind this")
	fs.StringVar(&o.seeds, "cluster", "", "addresses of some nodes of the Redis Cluster behind this, with commas between")
	fs.IntVar(&o.shared, "shared", 0, "connections to each node that clients share; 0: each client has its own; default 1 with -cluster, else 0")
	fs.BoolVar(&o.upstreamTLS, "upstream-tls", false, "speak TLS to the upstream")
	fs.StringVar(&o.upstreamCA, "upstream-ca", "", "file of authorities that may vouch for the upstream; default the system's")
	fs.StringVar(&o.upstreamName, "upstream-name", "", "name in the upstream's certificate; default the host of its address")
	fs.StringVar(&o.upstreamCert, "upstream-cert", "", "certificate file to show to the upstream")
	fs.StringVar(&o.upKey, "upstream-key", "", "private key file for -upstream-cert")
	fs.StringVar(&o.upstreamUser, "upstream-user", "", "user as whom to authenticate to the upstream")
	fs.StringVar(&o.upstreamPasswordFile, "upstream-password-file", "", "file with the password for the upstream; default $"+upstreamPasswordEnv)
	fs.StringVar(&o.passwordFile, "requirepass-file", "", "file with the password that clients need, where connections are shared; default $"+passwordEnv)
	fs.StringVar(&o.deny, "deny", "", "commands to refuse, with commas between, CONFIG|SET for a subcommand; what scripts call is not looked at")
	fs.StringVar(&o.allow, "allow", "", "commands to let pass, with commas between; all others are refused")
	fs.DurationVar(&o.slow, "slowlog", 0, "log commands that take this long or longer; 0 logs none")
	fs.BoolVar(&o.slowValues, "slowlog-values", false, "log their arguments too, and not only the first key")
	fs.DurationVar(&o.drain, "drain", 5*time.Second, "after SIGTERM, wait so long for replies that are due")
	fs.StringVar(&o.metrics, "metrics", "", "address to serve /metrics, /healthz and /readyz on, over HTTP")
	fs.IntVar(&o.maxClients, "maxclients", 10000, "clients at a time")
	fs.DurationVar(&o.idle, "idle", 0, "close a client that has sent nothing for so long; 0: never")
	fs.DurationVar(&o.tlsTimeout, "handshake", 10*time.Second, "time for a client's TLS handshake")
	fs.DurationVar(&o.connectTimeout, "connect", 3*time.Second, "time for a connection to the upstream to be there")
	fs.DurationVar(&o.answerTimeout, "answer", 10*time.Second, "time for the upstream to answer, but to commands that wait for others")
	fs.IntVar(&o.maxFlying, "inflight", 16<<10, "commands of one client that are not answered yet")
	fs.IntVar(&o.maxOutput, "output", 8<<20, "bytes of replies that wait for a client, where connections are shared; with more it is closed")
	fs.BoolVar(&o.verbose, "v", false, "log connections too")
}

// parseFlags parses and checks the flags. What is wrong has been written to w.
func parseFlags(args []string, w io.Writer) (*options, error) {
	var o options
	fs := flag.NewFlagSet("proxy", flag.ContinueOnError)
	fs.SetOutput(w)
	o.define(fs)
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	o.given = map[string]bool{}
	fs.Visit(func(f *flag.Flag) { o.given[f.Name] = true })
	err := o.check(fs.Args())
	if err != nil {
		fmt.Fprintln(w, "proxy:", err)
	}
	return &o, err
}

// check finds what makes no sense, and names the flag.
func (o *options) check(rest []string) error {
	if len(rest) > 0 {
		return fmt.Errorf("%q is no flag, and there are no other arguments", rest[0])
	}
	if o.seeds != "" && !o.given["shared"] {
		o.shared = 1
	}
	o.sharing = o.shared > 0 || o.seeds != ""
	for _, row := range []struct {
		bad  bool
		text string
	}{
		{o.seeds != "" && o.given["upstream"], "-cluster and -upstream exclude each other"},
		{o.given["cluster"] && o.seeds == "", "-cluster names no address"},
		{o.shared < 0 || o.shared > maxShared, fmt.Sprintf("-shared must be from 0 to %d", maxShared)},
		{o.key != "" && o.cert == "", "-tls-key needs -tls-cert"},
		{o.cert != "" && o.key == "", "-tls-cert needs -tls-key"},
		{o.clientCA != "" && o.cert == "", "-tls-client-ca needs -tls-cert"},
		{o.given["handshake"] && o.cert == "", "-handshake needs -tls-cert"},
		{o.upKey != "" && o.upstreamCert == "", "-upstream-key needs -upstream-cert"},
		{o.upstreamCert != "" && o.upKey == "", "-upstream-cert needs -upstream-key"},
		{o.upstreamCA != "" && !o.upstreamTLS, "-upstream-ca needs -upstream-tls"},
		{o.upstreamCert != "" && !o.upstreamTLS, "-upstream-cert needs -upstream-tls"},
		{o.upstreamName != "" && !o.upstreamTLS, "-upstream-name needs -upstream-tls"},
		{o.upstreamUser != "" && o.upstreamPasswordFile == "" && os.Getenv(upstreamPasswordEnv) == "", "-upstream-user needs -upstream-password-file"},
		{o.upstreamPasswordFile != "" && !o.sharing, "-upstream-password-file needs -shared: without it clients authenticate to the upstream"},
		{o.passwordFile != "" && !o.sharing, "-requirepass-file needs -shared: without it clients authenticate to the upstream"},
		{o.given["output"] && !o.sharing, "-output needs -shared: without it the upstream holds what a client does not read"},
		{o.slowValues && o.slow == 0, "-slowlog-values needs -slowlog"},
		{o.given["allow"] && strings.TrimSpace(o.allow) == "", "-allow names no command"},
		{o.given["deny"] && strings.TrimSpace(o.deny) == "", "-deny names no command"},
		{o.slow < 0, "-slowlog must not be negative"},
		{o.drain < 0, "-drain must not be negative"},
		{o.idle < 0, "-idle must not be negative"},
		{o.tlsTimeout <= 0, "-handshake must be over 0"},
		{o.connectTimeout <= 0, "-connect must be over 0"},
		{o.answerTimeout <= 0, "-answer must be over 0"},
		{o.maxClients < 1, "-maxclients must be at least 1"},
		{o.maxFlying < 1, "-inflight must be at least 1"},
		{o.maxOutput < chunk, fmt.Sprintf("-output must be at least %d", chunk)},
	} {
		if row.bad {
			return errors.New(row.text)
		}
	}
	return o.checkAddresses()
}

// checkAddresses checks that all addresses have a host and a port.
func (o *options) checkAddresses() error {
	if err := checkAddress("-listen", o.listen, true); err != nil {
		return err
	}
	if o.metrics != "" {
		if err := checkAddress("-metrics", o.metrics, true); err != nil {
			return err
		}
	}
	if o.seeds == "" {
		return checkAddress("-upstream", o.upstream, false)
	}
	for _, addr := range strings.Split(o.seeds, ",") {
		if err := checkAddress("-cluster", addr, false); err != nil {
			return err
		}
	}
	return nil
}

// checkAddress checks one address. The host may be left out of one to listen on.
func checkAddress(name, addr string, listens bool) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s: %q is no address with a port", name, addr)
	}
	if _, err := net.LookupPort("tcp", port); err != nil || port == "" {
		return fmt.Errorf("%s: %q has no valid port", name, addr)
	}
	if host == "" && !listens {
		return fmt.Errorf("%s: %q has no host", name, addr)
	}
	return nil
}

// open makes the proxy and its listener.
func (o *options) open(ctx context.Context, log *slog.Logger) (*proxy, net.Listener, error) {
	r, err := parseRules(o.deny, o.allow)
	if err != nil {
		return nil, nil, err
	}
	if err := o.readPasswords(); err != nil {
		return nil, nil, err
	}
	if o.upstreamTLS {
		if o.tls, err = o.clientTLS(); err != nil {
			return nil, nil, err
		}
	}
	serverTLS, err := o.serverTLS()
	if err != nil {
		return nil, nil, err
	}
	o.timed = o.metrics != "" || o.slow > 0
	o.limitClients(log)
	p := newProxy(o.settings, r, log)
	p.setUpstream(o)
	if err := p.ask(ctx, o.deny != "" || o.allow != ""); err != nil {
		return nil, nil, err
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, nil, err
	}
	if serverTLS != nil {
		listener = tls.NewListener(listener, serverTLS)
	}
	return p, listener, nil
}

// limitClients lowers -maxclients to what the file descriptors suffice for.
func (o *options) limitClients(log *slog.Logger) {
	const others = 64 // for shared links, the listener, what the program itself has open
	each := 2         // each client has a connection of its own
	limit := descriptors()
	switch {
	case limit <= 0:
		return
	case o.shared > 0:
		each = 1 // links of a client's own are few, but a part is left for them
		limit = limit / 4 * 3
	case o.seeds != "": // it has one to each master; how many there are is not known yet
		each = 1 + max(3, len(strings.Split(o.seeds, ",")))
	}
	if most := max((limit-others)/each, 1); o.maxClients > most {
		log.Info("the limit of file descriptors suffices for fewer clients than -maxclients says", "clients", most)
		o.maxClients = most
	}
}

// startPatience is how long the proxy waits for the upstream at the start.
var startPatience = 1500 * time.Millisecond

// ask learns the upstream's commands, and checks the rules against them. An upstream that is away does
// not keep the proxy from starting, since it may come.
func (p *proxy) ask(ctx context.Context, rules bool) error {
	err := errors.New("not asked")
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	for err != nil && ctx.Err() == nil {
		if err = p.learn(ctx); err != nil && !rules {
			break
		}
		if err != nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
	if err == nil {
		return p.rules.check(p.vocabulary.Load().table)
	}
	p.log.Warn("the upstream does not tell its commands yet", "err", err)
	if rules {
		p.log.Warn("so the names that -deny and -allow give are not checked")
	}
	return nil
}

// readPasswords reads the passwords from their files, or takes them from the environment.
func (o *options) readPasswords() error {
	var err error
	if o.password, err = readPassword("-requirepass-file", o.passwordFile, passwordEnv); err != nil {
		return err
	}
	if o.upstreamPassword, err = readPassword("-upstream-password-file", o.upstreamPasswordFile, upstreamPasswordEnv); err != nil {
		return err
	}
	if !o.sharing {
		o.password, o.upstreamPassword = "", ""
	}
	return nil
}

func readPassword(name, file, env string) (string, error) {
	if file == "" {
		return os.Getenv(env), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", fmt.Errorf("%s: the first line of %s is empty", name, file)
	}
	return line, nil
}

// serverTLS is how to speak TLS to clients, or nil for plain connections.
func (o *options) serverTLS() (*tls.Config, error) {
	if o.cert == "" {
		return nil, nil
	}
	config := &tls.Config{}
	var err error
	if config.Certificates, err = certificates(o.cert, o.key); err != nil {
		return nil, fmt.Errorf("-tls-cert: %w", err)
	}
	if o.clientCA != "" {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		if config.ClientCAs, err = authorities(o.clientCA); err != nil {
			return nil, fmt.Errorf("-tls-client-ca: %w", err)
		}
	}
	return config, nil
}

// clientTLS is how to speak TLS to the upstream.
func (o *options) clientTLS() (*tls.Config, error) {
	config := &tls.Config{ServerName: o.upstreamName}
	var err error
	if o.upstreamCA != "" {
		if config.RootCAs, err = authorities(o.upstreamCA); err != nil {
			return nil, fmt.Errorf("-upstream-ca: %w", err)
		}
	}
	if o.upstreamCert != "" {
		if config.Certificates, err = certificates(o.upstreamCert, o.upKey); err != nil {
			return nil, fmt.Errorf("-upstream-cert: %w", err)
		}
	}
	return config, nil
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
