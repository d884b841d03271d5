package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// installed is a folder with the command as users install it, built once: a test
// binary, or one with the race detector, needs another amount of memory. The folder
// lies beside testscript's own commands and is removed with them.
var installed = sync.OnceValues(func() (string, error) {
	beside, err := exec.LookPath("snap")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(filepath.Dir(beside), "installed")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", ".", "./testdata/measure")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the command: %w\n%s", err, out)
	}
	return dir, nil
})

func installedSnap(t *testing.T) string {
	t.Helper()
	dir, err := installed()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// outcome is the result of one run of the command.
type outcome struct {
	exit           int
	stdout, stderr string
	took           time.Duration
	peak           int64 // memory, in bytes
	read           int64 // bytes, of all files
}

// code is error.code of a run with --json.
func (o outcome) code() string {
	var object struct {
		Error struct{ Code string }
	}
	_ = json.Unmarshal([]byte(o.stdout), &object) // checked by tidy
	return object.Error.Code
}

// host is a small host with canaries around every place that a restore may write
// to.
type host struct {
	*testing.T
	snap   string // where the command lies
	dir    string
	before []string
	live   disk.Handle
	sids   int
	env    []string
}

const hostConfig = `version: 1
state: %[1]s/state
store: %[1]s/store
base: %[1]s/srv/base
absolute_roots: [%[1]s/srv]
workloads:
  files: {volumes: [{name: files, scope: absolute, source: %[1]s/srv/files, target: /data}]}
  strict: {volumes: [{name: files, scope: absolute, source: %[1]s/srv/files, target: /data, symlinks: reject}]}
  special: {volumes: [{name: files, scope: absolute, source: %[1]s/srv/files, target: /data, special: keep}]}
  two:
    volumes:
      - {name: files, scope: absolute, source: %[1]s/srv/files, target: /data}
      - {name: second, scope: absolute, source: %[1]s/srv/second, target: /second}
`

// newHost makes a host in dir.
func newHost(t *testing.T, snap, dir string) *host {
	t.Helper()
	disktest.NeedRoot(t)
	h := &host{T: t, snap: snap, dir: dir}
	disktest.Write(t, dir, map[string]string{
		"snap.yaml":      fmt.Sprintf(hostConfig, dir),
		"srv/files/page": "live", "srv/files/d/page": "live", "srv/files/x": "live", "srv/second/page": "live",
		"srv/passwd": "canary", "srv/x": "canary", "srv/a/b": "canary", "srv/d/evil": "canary", "srv/base/files/page": "canary",
		"outside/passwd": "root:canary", "outside/shadow": "canary", "outside/dir/file": "canary", "passwd": "canary", "x": "canary",
	})
	for _, link := range [][2]string{{h.outside(), "srv/files/out"}, {"../../passwd", "srv/files/up"}} {
		if err := os.Symlink(link[0], filepath.Join(dir, link[1])); err != nil {
			t.Fatal(err)
		}
	}
	h.emptyStore()
	h.remember()
	return h
}

// emptyStore takes away whatever the store holds, but for its identity, and the archives
// in folder in. It makes the folders of these and of the state where they are missing.
func (h *host) emptyStore() {
	h.Helper()
	_ = os.RemoveAll(filepath.Join(h.dir, "in"))
	for _, dir := range []string{"store", "state", "in"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o700); err != nil {
			h.Fatal(err)
		}
	}
	names, err := os.ReadDir(filepath.Join(h.dir, "store"))
	for _, name := range names {
		if name.Name() != "store.json" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(h.dir, "store", name.Name())))
		}
	}
	if err != nil {
		h.Fatal(err)
	}
}

// outside is the directory that hostile names and links aim at.
func (h *host) outside() string { return filepath.Join(h.dir, "outside") }

func (h *host) liveDir() string { return filepath.Join(h.dir, "srv/files") }

// remember records the host, which has to stay as it is now.
func (h *host) remember() {
	h.Helper()
	h.before, h.live = h.tree(), h.handle()
}

func (h *host) handle() disk.Handle {
	h.Helper()
	d, err := disk.OpenRoot(h.liveDir())
	if err != nil {
		h.Fatal(err)
	}
	defer d.Close()
	handle, err := d.Handle()
	if err != nil {
		h.Fatal(err)
	}
	return handle
}

// tree describes the whole host except the store, some of whose files must not be
// read to their end. It leaves out the times of directories that hold a wrapper for
// a while.
func (h *host) tree() []string {
	h.Helper()
	var lines []string
	for _, part := range []string{"srv", "outside", "passwd", "x", "snap.yaml"} {
		for _, line := range disktest.Tree(h.T, filepath.Join(h.dir, part)) {
			if part == "srv" && strings.HasPrefix(line, `"." `) {
				line, _, _ = strings.Cut(line, " mtime=")
			}
			lines = append(lines, part+" "+line)
		}
	}
	slices.Sort(lines)
	names, err := os.ReadDir(h.dir)
	if err != nil || len(names) != 8 {
		h.Errorf("on the host stand %v: %v", names, err)
	}
	return lines
}

// untouched fails the test if anything except the store has changed, or if
// something is left over.
func (h *host) untouched() {
	h.Helper()
	if d := disktest.Diff(h.before, h.tree()); d != "" {
		h.Errorf("the host has changed (- before, + now):\n%s", d)
	}
	if now := h.handle(); now != h.live {
		h.Errorf("the live directory is another: handle %s, before %s", now, h.live)
	}
	h.clean()
}

// outsideUntouched is untouched, but allows changes in the live directory.
func (h *host) outsideUntouched() {
	h.Helper()
	notLive := func(lines []string) []string {
		return slices.DeleteFunc(slices.Clone(lines), func(line string) bool { return strings.HasPrefix(line, `srv "files`) })
	}
	if d := disktest.Diff(notLive(h.before), notLive(h.tree())); d != "" {
		h.Errorf("outside the volume has changed (- before, + now):\n%s", d)
	}
	h.clean()
}

// clean fails the test if an operation has left something over.
func (h *host) clean() {
	h.Helper()
	for _, pattern := range []string{"srv/.snap-*", "state/tx/*", "state/tx/.*", "store/scratch/*"} {
		if left, _ := filepath.Glob(filepath.Join(h.dir, pattern)); len(left) > 0 {
			h.Errorf("left behind: %q", left)
		}
	}
}

// snapshots returns the manifests of a workload.
func (h *host) snapshots(workload string) []string {
	found, _ := filepath.Glob(filepath.Join(h.dir, "store/snapshots", workload, "*/manifest.json"))
	return found
}

// hangs is how long a run may take before it counts as hanging.
const hangs = 60 * time.Second

func (h *host) run(args ...string) outcome {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	defer cancel()
	c := exec.CommandContext(ctx, h.snap+"/measure", slices.Concat([]string{h.snap + "/snap", "--config=" + filepath.Join(h.dir, "snap.yaml")}, args)...)
	c.Env = append(os.Environ(), "DOCKER_HOST=unix:///nonexistent/docker.sock")
	c.Env = append(c.Env, h.env...)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	measure, w, err := os.Pipe()
	if err != nil {
		h.Fatal(err)
	}
	defer measure.Close()
	c.ExtraFiles = []*os.File{w}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	begun := time.Now()
	err = c.Run()
	w.Close()
	o := outcome{exit: c.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String(), took: time.Since(begun)}
	if ctx.Err() != nil {
		h.Fatalf("snap %q hangs: %s", args, o.stderr)
	}
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		h.Fatal(err)
	}
	text, _ := io.ReadAll(measure)
	if _, err := fmt.Sscan(string(text), &o.peak, &o.read); err != nil {
		h.Fatalf("snap %q: no measure: %q: %s", args, text, o.stderr)
	}
	o.peak <<= 10
	h.tidy(args, o)
	return o
}

// tidy fails the test if a printed byte could control a terminal, or if --json did
// not print exactly one object.
func (h *host) tidy(args []string, o outcome) {
	h.Helper()
	asJSON := slices.Contains(args, "--json")
	for what, text := range map[string]string{"stdout": o.stdout, "stderr": o.stderr} {
		if at := unprintable(text, asJSON && what == "stdout"); at >= 0 {
			h.Errorf("snap %q prints on %s: %q", args, what, text[max(0, at-20):min(len(text), at+20)])
		}
	}
	if !asJSON {
		return
	}
	var object struct {
		OK   bool
		Exit int
	}
	dec := json.NewDecoder(strings.NewReader(o.stdout))
	if err := dec.Decode(&object); err != nil || dec.More() || object.OK != (o.exit == 0) || object.Exit != o.exit {
		h.Errorf("snap %q ended with %d and printed %q: %v", args, o.exit, o.stdout, err)
	}
}

// unprintable returns the place of the first rune that a terminal obeys or that is
// invisible; -1 if there is none.
func unprintable(text string, asJSON bool) int {
	for i, r := range text {
		control := r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r <= 0x9f
		broken := r == utf8.RuneError && !strings.HasPrefix(text[i:], "\uFFFD")
		if control || broken || !asJSON && r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return i
		}
	}
	return -1
}

// modest fails the test if a run took more than that many MiB of memory, or too
// long for an operator to wait.
func (h *host) modest(o outcome, mib int64) {
	h.Helper()
	if o.peak > mib<<20 {
		h.Errorf("it took %d MiB of memory, at most %d are expected", o.peak>>20, mib)
	}
	if o.took > hangs/2 {
		h.Errorf("it took %v", o.took)
	}
}

// field returns a text field of the object that --json printed.
func field(t *testing.T, object, name string) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(object), &fields); err != nil {
		t.Fatalf("%q: %v", object, err)
	}
	text, _ := fields[name].(string)
	if text == "" {
		t.Fatalf("there is no %s in %s", name, object)
	}
	return text
}
