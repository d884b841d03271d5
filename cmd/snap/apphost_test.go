package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

const testApp = "../../testdata/app"

// appHost is a host in one directory, with one workload: a tiny web app in a real
// container. The app has two volumes, its posts and their number, so that a mixture
// of two moments shows.
type appHost struct {
	*testing.T
	dir, config string
	name        string
	url         string
	posts       string // live directories
	meta        string
	wrap        []string // what to start snap under
}

// newAppHost makes a host and deploys the app. The lines of more are added to the
// workload's config.
func newAppHost(t *testing.T, more ...string) *appHost {
	t.Helper()
	h := bareHost(t)
	h.lines(append([]string{
		"image: " + dockertest.Image(t, testApp), "restart: unless-stopped", "environment: {META: /meta}",
		"ports: [" + strings.TrimPrefix(h.url, "http://") + ":8080]",
		"healthcheck: {test: [CMD, /app, healthcheck], interval: 500ms, timeout: 30s, retries: 3}",
	}, more...)...)
	h.Cleanup(h.undeploy)
	h.snap("deploy", h.name)
	return h
}

// bareHost is a host without a config.
func bareHost(t *testing.T) *appHost {
	t.Helper()
	disktest.NeedRoot(t)
	dir := t.TempDir()
	h := &appHost{
		T: t, dir: dir, config: filepath.Join(dir, "snap.yaml"), name: "watched" + disk.NewID(time.Now())[17:],
		posts: filepath.Join(dir, "srv/posts"), meta: filepath.Join(dir, "srv/meta"), url: "http://" + freePort(t),
	}
	h.must(os.MkdirAll(h.posts, 0o755))
	h.must(os.MkdirAll(h.meta, 0o755))
	h.write("old")
	return h
}

func (h *appHost) lines(lines ...string) {
	h.Helper()
	text := fmt.Sprintf("version: 1\nstate: %[1]s/state\nstore: %[1]s/store\nbase: %[1]s\nabsolute_roots: [%[1]s/srv]\nworkloads:\n  %[2]s:\n", h.dir, h.name)
	for _, line := range append(lines,
		"volumes:", "  - {scope: absolute, source: "+h.posts+", target: /data}", "  - {scope: absolute, source: "+h.meta+", target: /meta}") {
		text += "    " + line + "\n"
	}
	h.must(os.WriteFile(h.config, []byte(text), 0o600))
}

func (h *appHost) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// freePort returns a free address of this machine, with a port below those that
// the kernel assigns.
func freePort(t *testing.T) string {
	t.Helper()
	for port := 20000 + os.Getpid()%5000; port < 32000; port++ {
		address := "127.0.0.1:" + strconv.Itoa(port)
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func (h *appHost) undeploy() { dockertest.Undeploy(h.T, h.name) }

// app is the app's only container.
func (h *appHost) app() dockertest.Container {
	h.Helper()
	list := dockertest.Containers(h.T, h.name)
	if len(list) != 1 {
		h.Fatalf("%d containers, expected one", len(list))
	}
	return list[0]
}

// write gives the app one of its states: old has one post, new has two.
func (h *appHost) write(state string) {
	h.Helper()
	posts, count := "old\n", "1\n"
	if state == "new" {
		posts, count = "new\nnew\n", "2\n"
	}
	disktest.Write(h.T, h.posts, map[string]string{"posts.txt": posts})
	disktest.Write(h.T, h.meta, map[string]string{"count": count})
}

// state returns which of its states the app has on disk, and fails the test if
// they are mixed.
func (h *appHost) state() string {
	h.Helper()
	posts, err := os.ReadFile(filepath.Join(h.posts, "posts.txt"))
	h.must(err)
	count, err := os.ReadFile(filepath.Join(h.meta, "count"))
	h.must(err)
	switch string(posts) + string(count) {
	case "old\n1\n":
		return "old"
	case "new\nnew\n2\n":
		return "new"
	}
	h.Fatalf("the volumes are mixed: posts %q, count %q", posts, count)
	return ""
}

// captured makes a snapshot of the new state and goes back to the old one.
func (h *appHost) captured() string {
	h.Helper()
	h.write("new")
	sid := strings.TrimSpace(h.snap("capture", h.name))
	h.write("old")
	return sid
}

// command is snap, under h.wrap.
func (h *appHost) command(args ...string) *exec.Cmd {
	words := append(append([]string{}, h.wrap...), append([]string{"snap", "--config", h.config}, args...)...)
	return exec.Command(words[0], words[1:]...)
}

// snap runs snap, which must succeed, and returns its stdout.
func (h *appHost) snap(args ...string) string {
	h.Helper()
	out, err := h.command(args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		h.Fatalf("snap %s: %v: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	h.must(err)
	return string(out)
}

// runningSnap is a running snap.
type runningSnap struct {
	*exec.Cmd
	mu   sync.Mutex
	said bytes.Buffer
	eof  chan struct{} // closed at the end of its output
}

func (p *runningSnap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

// start starts snap in its own process group. Its stdout, its stderr and one
// further file are the same pipe.
func (h *appHost) start(args ...string) *runningSnap {
	h.Helper()
	p := &runningSnap{Cmd: h.command(args...), eof: make(chan struct{})}
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w, err := os.Pipe()
	h.must(err)
	p.Stdout, p.Stderr = w, w
	p.ExtraFiles = []*os.File{w} // as a script's "exec 3>…" leaves it open
	h.must(p.Start())
	w.Close()
	go func() {
		_, _ = io.Copy(p, r)
		r.Close()
		close(p.eof)
	}()
	h.Cleanup(func() { _ = p.Process.Kill() })
	return p
}

// ended waits until snap is dead and its output has ended, and returns the
// signal that killed it.
func (h *appHost) ended(p *runningSnap) (sig syscall.Signal, code int) {
	h.Helper()
	_ = p.Wait() // how it ended is looked at below
	select {
	case <-p.eof:
	case <-time.After(10 * time.Second):
		h.Fatal("snap is dead, and somebody holds its output open")
	}
	ws := p.ProcessState.Sys().(syscall.WaitStatus)
	h.Logf("snap said:\n%s", p.said.String())
	return ws.Signal(), p.ProcessState.ExitCode()
}

// kill kills snap with SIGKILL and returns the time.
func (h *appHost) kill(p *runningSnap) time.Time {
	h.Helper()
	when := time.Now()
	h.must(p.Process.Signal(syscall.SIGKILL))
	if sig, code := h.ended(p); sig != syscall.SIGKILL {
		h.Fatalf("snap ended with signal %d, exit code %d, before it was killed", sig, code)
	}
	return when
}

func (h *appHost) until(what string, holds func() bool) {
	h.Helper()
	until(h.T, what, holds)
}

// until waits until a condition holds.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for start := time.Now(); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}

// stopsWhen lets a process run in short turns until a condition holds, and leaves
// it stopped. The process is stopped while the condition is evaluated, so it does
// not run past the moment.
func stopsWhen(t *testing.T, p *os.Process, what string, holds func() bool) {
	t.Helper()
	signal := func(sig syscall.Signal) {
		if err := p.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	until(t, what, func() bool {
		signal(syscall.SIGSTOP)
		if holds() {
			return true
		}
		signal(syscall.SIGCONT)
		return false
	})
}

// rests reports whether the app's container is paused or stopped.
func (h *appHost) rests() bool {
	h.Helper()
	c := dockertest.Inspect(h.T, h.name)
	return c.Paused || !c.Running
}

// answer asks the app for its posts; "" when it does not answer.
func (h *appHost) answer() string {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(h.url + "/")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// comesBack waits, after a kill of snap at that time, until the app answers again
// and the watchdog has ended. Then it checks that nothing is left to do. Nobody
// runs recover.
func (h *appHost) comesBack(killed time.Time) (state string) {
	h.Helper()
	h.until("the app answers", func() bool { return h.answer() != "" })
	answered := time.Since(killed)
	h.until("the watchdog has ended", func() bool { return len(h.watchdogs()) == 0 })
	h.Logf("the app answered %.1f s after the kill; all was done after %.1f s", answered.Seconds(), time.Since(killed).Seconds())
	h.settled()
	if got := h.answer(); !strings.HasPrefix(got, h.state()) {
		h.Errorf("the app serves %q, and its data is the %s", got, h.state())
	}
	return h.state()
}

// settled fails the test unless the app runs as before and no operation has left
// anything.
func (h *appHost) settled() {
	h.Helper()
	if c := h.app(); c.Name != h.name || !c.Running || c.Paused || c.Policy != "unless-stopped" {
		h.Errorf("the app's container is %+v", c)
	}
	h.nothingLeft()
	h.state()
}

func (h *appHost) nothingLeft() {
	h.Helper()
	for _, pattern := range []string{"srv/.snap-*", "state/tx/*", "state/tx/.*", "store/scratch/*"} {
		if left, _ := filepath.Glob(filepath.Join(h.dir, pattern)); len(left) > 0 {
			h.Errorf("left behind: %q", left)
		}
	}
	if left := h.watchdogs(); len(left) > 0 {
		h.Errorf("watchdogs still run: %v", left)
	}
	h.snap("lock", h.name, "--", "true") // nobody holds it, and nothing is unfinished
}

// watchdogs returns the process ids of the workload's watchdogs.
func (h *appHost) watchdogs() (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		words, err := os.ReadFile(file)
		if err == nil && bytes.Contains(words, []byte("\x00watchdog\x00"+h.name+"\x00")) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// audit returns the last line of the audit log.
func (h *appHost) audit() (line struct{ Verb, Tx, Action, Result, Error string }) {
	h.Helper()
	text, err := os.ReadFile(filepath.Join(h.dir, "state/audit.jsonl"))
	h.must(err)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	h.must(json.Unmarshal([]byte(lines[len(lines)-1]), &line))
	return line
}

// pending returns the transactions that have not ended.
func (h *appHost) pending() []string {
	found, _ := filepath.Glob(filepath.Join(h.dir, "state/tx/[0-9]*"))
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	return found
}

// recorded reports whether the pending transaction has a record.
func (h *appHost) recorded(record string) bool {
	found, _ := filepath.Glob(filepath.Join(h.dir, "state/tx/[0-9]*", record))
	return len(found) > 0
}
