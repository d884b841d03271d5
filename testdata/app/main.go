// Command app is the web app of the demo and of the tests. It is server, health
// check and client in one static program, so that it can be the only file of an
// image.
//
//	app              serve: POST / appends the body as a line to $DATA/posts.txt,
//	                 GET / returns that file, GET /count returns $META/count,
//	                 GET /healthz answers ok while the directories can be read
//	app healthcheck  check the health of the server in this container
//	app post TEXT    send a line
//	app get [PATH]   print the answer to GET PATH
//	app wait         do nothing, for an hour
//
// DATA defaults to /data. If META is set, the app keeps the number of lines there,
// in a second volume: a count that does not match the lines shows that the volumes
// are of two different moments. LISTEN is the address to serve on and defaults to
// :8080. URL is the address that the client asks and defaults to the port of LISTEN
// on 127.0.0.1.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal("app: ", err)
	}
}

func run(args []string) error {
	listen := env("LISTEN", ":8080")
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("LISTEN: %w", err)
	}
	c := client{url: env("URL", "http://127.0.0.1:"+port)}
	switch {
	case len(args) == 0:
		return serve(listen, &app{data: env("DATA", "/data"), meta: os.Getenv("META")})
	case args[0] == "healthcheck" && len(args) == 1:
		return c.do(io.Discard, http.MethodGet, "/healthz", "")
	case args[0] == "wait" && len(args) == 1:
		time.Sleep(time.Hour)
		return nil
	case args[0] == "post" && len(args) == 2:
		return c.do(os.Stdout, http.MethodPost, "/", args[1])
	case args[0] == "get" && len(args) == 1:
		return c.do(os.Stdout, http.MethodGet, "/", "")
	case args[0] == "get" && len(args) == 2:
		return c.do(os.Stdout, http.MethodGet, args[1], "")
	}
	return errors.New("usage: app [healthcheck | post TEXT | get [PATH]]")
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// serve serves until SIGTERM, then lets open requests finish. It handles the signal
// because process 1 of a container has no default action for it.
func serve(listen string, a *app) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	srv := &http.Server{Addr: listen, Handler: a.handler(), ReadHeaderTimeout: 5 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}

// maxPost is the longest line, in bytes.
const maxPost = 64 << 10

// app opens its files for each request, so that it holds no file of a volume between
// requests.
type app struct {
	data, meta string
	mu         sync.Mutex
}

func (a *app) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{$}", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPost))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		n, err := a.post(string(body))
		answer(w, fmt.Appendf(nil, "%d\n", n), err)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		text, err := read(a.posts())
		answer(w, text, err)
	})
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) {
		text, err := read(a.count())
		answer(w, text, err)
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, []byte("ok\n"), a.healthy())
	})
	return mux
}

func answer(w http.ResponseWriter, text []byte, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write(text) // an error means that the client has gone
}

func (a *app) posts() string { return filepath.Join(a.data, "posts.txt") }
func (a *app) count() string { return filepath.Join(a.meta, "count") }

// post appends one line and returns the number of lines. When it returns, the line
// and the number are on disk.
func (a *app) post(line string) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	line = strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\n", " ") + "\n"
	if err := write(a.posts(), os.O_APPEND, line); err != nil {
		return 0, err
	}
	text, err := os.ReadFile(a.posts())
	if err != nil {
		return 0, err
	}
	n := bytes.Count(text, []byte("\n"))
	if a.meta == "" {
		return n, nil
	}
	return n, write(a.count(), os.O_TRUNC, fmt.Sprintln(n))
}

func (a *app) healthy() error {
	if _, err := os.ReadDir(a.data); err != nil {
		return err
	}
	if a.meta != "" {
		if _, err := os.ReadDir(a.meta); err != nil {
			return err
		}
	}
	_, err := read(a.posts())
	return err
}

// read returns the content of a file, or nothing if the file does not exist yet.
func read(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

// write writes text to a file and syncs the file. It syncs the directory too,
// because the file may be new.
func write(path string, how int, text string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|how, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// client sends requests to the app. It is in the same program because the image has
// no other one, and the host may have no HTTP client.
type client struct{ url string }

func (c client) do(out io.Writer, method, path, body string) error {
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Timeout: 5 * time.Second}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(text))
	}
	_, err = io.Copy(out, resp.Body)
	return err
}
