package restore

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// proxy stands between snap and a real engine, on a unix socket of the test's.
// It passes everything on, and can be told to meddle with one of the requests
// that change something: the n-th from then on.
type proxy struct {
	forward *httputil.ReverseProxy

	mu     sync.Mutex
	at     int
	seen   []string // "POST /containers/{id}/stop", from the arming on
	before func()   // called instead of nothing before the n-th is passed on
	lose   bool     // its answer does not come back
	late   time.Duration
}

// between puts a proxy before the engine that DOCKER_HOST names, and makes it
// the one of DOCKER_HOST for the rest of the test.
func between(t *testing.T, host string) *proxy {
	t.Helper()
	engine := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
	}}
	p := &proxy{forward: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})}
	p.forward.Transport = engine
	p.forward.FlushInterval = -1
	p.forward.ErrorLog = log.New(io.Discard, "", 0)
	// An engine that is away is a connection that breaks, not a status.
	p.forward.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	socket := filepath.Join(t.TempDir(), "proxy.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: p, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close(); engine.CloseIdleConnections() })
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	return p
}

// meddle arms the proxy for the n-th request that changes something: before is
// called ahead of it, it takes late, and its answer is lost when lose is set.
// The engine carries it out all the same.
func (p *proxy) meddle(n int, before func(), late time.Duration, lose bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.seen, p.before, p.late, p.lose = n, nil, before, late, lose
}

// stop disarms the proxy and returns the requests since it was armed.
func (p *proxy) stop() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = -1
	return p.seen
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.hit(r) {
		p.forward.ServeHTTP(w, r)
		return
	}
	if p.before != nil {
		p.before()
	}
	time.Sleep(p.late)
	if !p.lose {
		p.forward.ServeHTTP(w, r)
		return
	}
	// Whoever asked may be gone meanwhile; the engine is not to notice.
	r = r.WithContext(context.WithoutCancel(r.Context()))
	p.forward.ServeHTTP(&discard{header: http.Header{}}, r)
	panic(http.ErrAbortHandler)
}

func (p *proxy) hit(r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at < 0 || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return false
	}
	p.seen = append(p.seen, r.Method+" "+kindOfRequest(r.URL.Path))
	return len(p.seen) == p.at
}

// kindOfRequest is a path without the API's version and without ids.
func kindOfRequest(path string) string {
	words := strings.Split(strings.Trim(path, "/"), "/")
	if len(words) > 0 && strings.HasPrefix(words[0], "v1.") {
		words = words[1:]
	}
	if len(words) > 1 && words[1] != "create" && words[1] != "json" {
		words[1] = "{id}"
	}
	return "/" + strings.Join(words, "/")
}

// discard is an answer that nobody gets.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
