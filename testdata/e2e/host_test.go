//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

// host is a machine with one workload. All of its files are below one directory.
type host struct {
	snap     string // the program
	dir      string
	config   string
	workload string
}

// newHost builds snap. The workload gets a unique name, so that its container and
// network cannot collide with others. Both are removed at the end of the test.
func newHost(t *testing.T) *host {
	t.Helper()
	if os.Geteuid() != 0 {
		unavailable(t, "not root: containers own the data")
	}
	for _, tool := range []string{"docker", "strace"} {
		if _, err := exec.LookPath(tool); err != nil {
			unavailable(t, "no "+tool+": testdata/setup.sh installs it")
		}
	}
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		unavailable(t, "no Docker engine answers: "+string(out))
	}
	h := &host{dir: diskDir(t)}
	h.snap = filepath.Join(h.dir, "snap")
	build := exec.Command("go", "build", "-o", h.snap, "github.com/tiny-forge/snap/cmd/snap")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build snap: %v\n%s", err, out)
	}
	h.config = filepath.Join(h.dir, "snap.yaml")
	h.workload = strings.TrimPrefix(filepath.Base(h.dir), "snap-")
	t.Cleanup(func() { dockertest.Undeploy(t, h.workload) })
	return h
}

// unavailable skips the test, or fails it if skips are not allowed.
func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("SNAP_TEST_DOCKER") == "require" || os.Getenv("SNAP_TEST_SKIPS") == "fail" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// diskDir returns a new directory on a filesystem that snap supports, which that of
// /tmp often is not.
func diskDir(t *testing.T) string {
	t.Helper()
	parent := os.Getenv("TMPDIR")
	if parent == "" {
		parent = "/var/tmp"
	}
	dir, err := os.MkdirTemp(parent, "snap-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	out, err := exec.Command("stat", "-f", "-c", "%T", dir).Output()
	if err != nil {
		t.Fatal(err)
	}
	kind := strings.TrimSpace(string(out))
	// stat cannot tell ext4 from ext2 and ext3, which have the same magic number.
	if !slices.Contains([]string{"ext2/ext3", "xfs", "btrfs", "f2fs"}, kind) {
		unavailable(t, fmt.Sprintf("%s is on %s: set TMPDIR to a directory on ext4, xfs or btrfs", parent, kind))
	}
	return dir
}

// object is a JSON object printed by snap.
type object map[string]any

func (o object) str(key string) string   { s, _ := o[key].(string); return s }
func (o object) num(key string) float64  { n, _ := o[key].(float64); return n }
func (o object) list(key string) []any   { l, _ := o[key].([]any); return l }
func (o object) first(key string) object { return objectAt(o.list(key), 0) }

func objectAt(list []any, i int) object {
	if i >= len(list) {
		return nil
	}
	m, _ := list[i].(map[string]any)
	return m
}

// run runs snap and returns its exit code and its output, which must be one JSON
// object with these fields.
func (h *host) run(t *testing.T, fields string, args ...string) (int, object) {
	t.Helper()
	return h.under(t, nil, fields, args...)
}

// under is like run, with snap started by another program.
func (h *host) under(t *testing.T, wrap []string, fields string, args ...string) (int, object) {
	t.Helper()
	cmd := h.command(wrap, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	code := cmd.ProcessState.ExitCode()
	t.Logf("snap %s: exit %d\n%s%.1000s", strings.Join(args, " "), code, &stderr, &stdout)
	dec := json.NewDecoder(&stdout)
	var o object
	if err := dec.Decode(&o); err != nil {
		t.Fatalf("stdout is not a JSON object: %v", err)
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		t.Fatalf("stdout holds more than one JSON object: %v", err)
	}
	if ok, is := o["ok"].(bool); !is || ok != (code == 0) {
		t.Errorf("ok is %v with exit code %d", o["ok"], code)
	}
	need(t, o, fields)
	return code, o
}

func (h *host) command(wrap []string, args ...string) *exec.Cmd {
	args = append(append([]string{h.snap, "--config", h.config}, args...), "--json")
	args = append(slices.Clone(wrap), args...)
	return exec.Command(args[0], args[1:]...)
}

// do is like run for a command that must succeed.
func (h *host) do(t *testing.T, fields string, args ...string) object {
	t.Helper()
	code, o := h.run(t, fields, args...)
	if code != 0 {
		t.Fatalf("snap %s: exit %d, want 0", strings.Join(args, " "), code)
	}
	return o
}

// need checks that an object has these fields, separated by blanks.
func need(t *testing.T, o object, fields string) {
	t.Helper()
	for _, field := range strings.Fields(fields) {
		if _, ok := o[field]; !ok {
			t.Errorf("field %s is missing in %v", field, o)
		}
	}
}

const (
	captureFields = "workload sid quiesce quiesced_seconds seconds files bytes stored_bytes volumes phases"
	restoreFields = "workload sid pre_restore_sid outcome downtime_seconds seconds files bytes volumes phases"
	listFields    = "workload sid created reason note files bytes"
	recoverFields = "workload tx found action"
	statusFields  = "workload state last_sid containers pending"
)

var sidForm = regexp.MustCompile(`^\d{8}T\d{6}Z-[0-9a-f]{6}$`)

// capture captures and returns the sid.
func (h *host) capture(t *testing.T, quiesce string) string {
	t.Helper()
	o := h.do(t, captureFields, "capture", h.workload, "--quiesce", quiesce)
	sid := o.str("sid")
	if !sidForm.MatchString(sid) || o.str("workload") != h.workload || o.str("quiesce") != quiesce {
		t.Errorf("sid %q, workload %q, quiesce %q", sid, o.str("workload"), o.str("quiesce"))
	}
	if len(o.list("volumes")) != 2 || o.num("files") < 1 || o.num("bytes") < 1 || o.num("quiesced_seconds") <= 0 {
		t.Errorf("volumes %v, files %v, bytes %v, quiesced %v s", o["volumes"], o["files"], o["bytes"], o["quiesced_seconds"])
	}
	t.Logf("captured %.0f files, %.0f bytes: quiesced %.2f s of %.2f s", o.num("files"), o.num("bytes"), o.num("quiesced_seconds"), o.num("seconds"))
	return sid
}

// restore restores under strace, which writes the renameat2 calls to trace, and
// checks that the old data has become a snapshot.
func (h *host) restore(t *testing.T, sid, trace string) {
	t.Helper()
	wrap := []string{"strace", "-f", "-y", "-qq", "-o", trace, "-e", "trace=renameat2"}
	code, o := h.under(t, wrap, restoreFields, "restore", h.workload, sid, "--confirm", sid)
	if code != 0 || o.str("outcome") != "restored" || o.str("sid") != sid || len(o.list("volumes")) != 2 {
		t.Fatalf("exit %d, %v", code, o)
	}
	t.Logf("restored %.0f files, %.0f bytes: down %.2f s of %.2f s", o.num("files"), o.num("bytes"), o.num("downtime_seconds"), o.num("seconds"))
	newest := h.do(t, "snapshots", "list", h.workload).first("snapshots")
	need(t, newest, listFields)
	if newest.str("sid") != o.str("pre_restore_sid") || newest.str("reason") != "pre-restore" {
		t.Errorf("the newest snapshot is %v, want the pre-restore snapshot %s", newest, o.str("pre_restore_sid"))
	}
}

var exchange = regexp.MustCompile(`^(\d+) +renameat2\((.*)`)

// secondSwap returns which renameat2 call of its thread swaps the second volume,
// according to a trace of restore. It counts by thread because strace does too.
func secondSwap(t *testing.T, trace string, volumes ...string) int {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	calls, swaps := map[string]int{}, 0
	for line := range strings.Lines(string(text)) {
		m := exchange.FindStringSubmatch(line)
		if m == nil { // the end of a call whose beginning was an earlier line
			continue
		}
		calls[m[1]]++
		if strings.Contains(m[2], "RENAME_EXCHANGE") && slices.ContainsFunc(volumes, func(v string) bool { return strings.Contains(m[2], `"`+v+`"`) }) {
			if swaps++; swaps == 2 {
				return calls[m[1]]
			}
		}
	}
	t.Fatalf("no second swap in the trace:\n%s", text)
	return 0
}

// killed runs a restore that is killed at the n-th renameat2 of a thread. Its
// watchdog is kept from starting, because a power cut would kill that too.
func (h *host) killed(t *testing.T, n int, sid string) {
	t.Helper()
	inject := fmt.Sprintf("inject=renameat2:signal=SIGKILL:when=%d", n)
	cmd := h.command([]string{"strace", "-f", "-qq", "-o", os.DevNull, "-e", "trace=renameat2,setsid", "-e", "inject=setsid:error=EPERM", "-e", inject},
		"restore", h.workload, sid, "--confirm", sid)
	out, err := cmd.CombinedOutput()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("restore ended with %v, want SIGKILL\n%s", err, out)
	}
	t.Logf("a restore to %s was killed at renameat2 number %d of its thread", sid, n)
}

// inode returns the inode number of a directory, which a swap changes.
func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatal(path, ": ", err)
	}
	return st.Ino
}

// owned checks that a tree belongs to uid and is closed to all other users. It
// ignores files that the running server removes meanwhile.
func owned(t *testing.T, dir string, uid uint32) {
	t.Helper()
	count := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil {
			err = syscall.Lstat(path, &st)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		count++
		if st.Uid != uid || st.Gid == 0 {
			t.Errorf("%s belongs to %d:%d, want %d", path, st.Uid, st.Gid, uid)
		}
		if d.Type()&fs.ModeSymlink == 0 && st.Mode&0o077 != 0 {
			t.Errorf("%s has mode %#o, open to others", path, st.Mode&0o7777)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(dir, &st); err != nil || st.Mode&0o7777 != 0o700 {
		t.Errorf("%s has mode %#o, want 0700 (%v)", dir, st.Mode&0o7777, err)
	}
	if count == 0 {
		t.Errorf("no file of %s was checked", dir)
	}
}

// docker runs the docker command and returns its output without surrounding space.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("docker", args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = append(out, exit.Stderr...)
		}
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// runs checks that the workload has exactly one container, which is running and
// healthy and would start again after a reboot.
func (h *host) runs(t *testing.T) {
	t.Helper()
	names := docker(t, "ps", "-a", "--filter", "label=snap.workload="+h.workload, "--format", "{{.Names}}")
	if names != h.workload {
		t.Errorf("containers %q, want %s alone", names, h.workload)
	}
	const format = "{{.State.Status}} {{.State.Health.Status}} {{.HostConfig.RestartPolicy.Name}}"
	const want = "running healthy unless-stopped"
	// Recovery waits for the containers to run, not for their health.
	waitFor(t, "the container: "+want, func() bool { return docker(t, "inspect", "--format", format, h.workload) == want })
}
