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

// proxy sits between snap and a real engine, on a unix socket of its own. It
// forwards everything, and can be armed to disturb one changing request: the n-th
// from then on.
type proxy struct {
	forward *httputil.ReverseProxy

	mu     sync.Mutex
	at     int
	seen   []string // "POST /containers/{id}/stop", since the proxy was armed
	before func()   // called before the n-th request is forwarded; may be nil
	lose   bool     // the answer to the n-th request is dropped
	late   time.Duration
}

// newProxy puts a proxy before the engine at host, and points DOCKER_HOST at the
// proxy for the rest of the test.
func newProxy(t *testing.T, host string) *proxy {
	t.Helper()
	engine := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
	}}
	p := &proxy{forward: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "docker"})}
	p.forward.Transport = engine
	p.forward.FlushInterval = -1
	p.forward.ErrorLog = log.New(io.Discard, "", 0)
	// While the engine is away the connection breaks; there is no status code.
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

// arm prepares the proxy for the n-th changing request: before is called ahead of
// it, the request is delayed by late, and its answer is dropped if lose is set. The
// engine carries it out in any case.
func (p *proxy) arm(n int, before func(), late time.Duration, lose bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.seen, p.before, p.late, p.lose = n, nil, before, late, lose
}

// disarm disarms the proxy and returns the requests since it was armed.
func (p *proxy) disarm() []string {
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
	// The client may be gone meanwhile, which must not cancel the request.
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

// kindOfRequest returns a path without the API version and without ids.
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

// discard is a ResponseWriter that drops the answer.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
