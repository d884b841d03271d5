package journal_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMain is also another process that works on a store: SNAP_TEST_STORE names
// it, SNAP_TEST_DO says what to do there.
func TestMain(m *testing.M) {
	if store := os.Getenv("SNAP_TEST_STORE"); store != "" {
		os.Exit(other(store, strings.Split(os.Getenv("SNAP_TEST_DO"), " ")))
	}
	os.Exit(m.Run())
}

// other does "lock WORKLOAD [PATH…]", "lock share-the-store" or "lock
// lock-the-store" and holds it, "begin WORKLOAD", or "load TX" and says how far
// that came.
func other(store string, do []string) int {
	root, err := disk.OpenRoot(store)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	j, err := journal.Open(root)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if do[0] == "load" {
		tx, err := j.Load(do[1])
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(tx.Found())
		return 0
	}
	var held *journal.Held
	switch do[1] {
	case "share-the-store":
		held, err = j.ShareStore("test")
	case "lock-the-store":
		held, err = j.LockStore(context.Background(), "prune")
	default:
		if held, err = j.Lock(do[1], "test"); err == nil {
			err = held.Volumes(do[2:])
		}
	}
	if err == nil && do[0] == "begin" {
		_, err = j.Begin(held, begin())
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	if do[0] == "lock" {
		_, _ = io.Copy(io.Discard, os.Stdin)
	}
	return 0
}

// another runs the test's program as another process.
func another(store string, do ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SNAP_TEST_STORE="+store, "SNAP_TEST_DO="+strings.Join(do, " "))
	return cmd
}

func dirAt(t testing.TB, path string) *disk.Dir {
	t.Helper()
	d, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func journalAt(t testing.TB, store string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(dirAt(t, store))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func lock(t testing.TB, j *journal.Journal, workload string, paths ...string) *journal.Held {
	t.Helper()
	h, err := j.Lock(workload, "test")
	if err == nil {
		err = h.Volumes(paths)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Release)
	return h
}

// begin is a begin record with every field set.
func begin() *journal.Begin {
	return &journal.Begin{
		Kind: journal.Restore, Snap: "1.0.0", SID: "20260101T000000Z-000001", PreRestoreSID: "20260101T000000Z-000002",
		Volumes:    []journal.Volume{{Name: "content", Root: "/srv/apps", Rel: "web/content", Entry: "content", Created: []string{"web", "web/content"}}, {Name: "b", Root: "/srv", Rel: "b", Entry: "b"}},
		Quiesce:    runtime.Pause,
		Containers: []runtime.Container{container()}, OnUnhealthy: "revert", HealthTimeout: time.Minute, StopTimeout: 10 * time.Second,
	}
}

func container() runtime.Container {
	return runtime.Container{
		ID: "c1", Name: "web-1", Service: "web", Image: "ghost:5", ImageID: "sha256:aa", Digest: "ghost@sha256:bb", Running: true, Paused: true,
		Policy: runtime.Policy{Name: "on-failure", Retries: 3}, Also: true, Mounts: []runtime.Mount{{Source: "/srv/b", Target: "/b", Writable: true}},
	}
}

func ready() *journal.Ready {
	return &journal.Ready{
		Volumes:    []journal.ReadyVolume{{Live: "ext4-1.1.aa", Staged: "ext4-1.1.bb"}, {Live: "ext4-1.1.cc", Staged: "ext4-1.1.dd"}},
		Containers: []runtime.Container{container()}, Pin: map[string]runtime.Pin{"web": {Image: "ghost:5", ImageID: "sha256:aa", Digest: "ghost@sha256:bb"}},
	}
}

func times() *journal.Times {
	return &journal.Times{Live: []journal.Time{{Sec: 1, Nsec: 2}, {Sec: -3}}}
}

// transaction opens one and takes it to where steps says.
func transaction(t testing.TB, store string, steps string) *journal.Tx {
	t.Helper()
	j := journalAt(t, store)
	tx, err := j.Begin(lock(t, j, "blog"), begin())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Close() })
	for step := range strings.FieldsSeq(steps) {
		switch step {
		case "ready":
			err = tx.Ready(ready())
		case "times":
			err = tx.Times(times())
		case "commit":
			err = tx.Commit()
		case "revert":
			err = tx.Revert()
		case "resolve":
			err = tx.Resolve(journal.KeepNew, "20260101T000000Z-000004")
		}
		if err != nil {
			t.Fatalf("%s: %v", step, err)
		}
	}
	return tx
}

func TestATransactionIsFoundAsFarAsItCame(t *testing.T) {
	for _, c := range []struct{ steps, found string }{
		{"", "begin"}, {"ready", "ready"}, {"ready times", "ready"}, {"ready times commit", "commit"}, {"ready times commit revert", "revert"},
		{"ready resolve", "resolve"}, {"ready times commit revert resolve", "resolve"},
	} {
		t.Run(c.steps, func(t *testing.T) {
			store := t.TempDir()
			id := transaction(t, store, c.steps).ID
			j := journalAt(t, store)
			if ids, err := j.List(); err != nil || len(ids) != 1 || ids[0] != id {
				t.Fatalf("the list is %v: %v", ids, err)
			}
			tx, err := j.Load(id)
			if err != nil {
				t.Fatal(err)
			}
			if tx.Found() != c.found || (tx.ReadyRecord != nil) != strings.Contains(c.steps, "ready") || (tx.TimesRecord != nil) != strings.Contains(c.steps, "times") {
				t.Errorf("found %s: %+v", tx.Found(), tx)
			}
			if err := tx.End(); err != nil {
				t.Fatal(err)
			}
			if names, err := os.ReadDir(store + "/tx"); len(names) > 0 {
				t.Errorf("the end left %v: %v", names, err)
			}
			if _, err := j.Load(id); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("after its end: %v", err)
			}
		})
	}
}

// Deciding is a rename: it works where not a byte can be written any more.
func TestDecidingNeedsNoSpace(t *testing.T) {
	store := disktest.Mount(t, "ext4", 32)
	tx := transaction(t, store, "ready")
	_ = os.WriteFile(store+"/ballast", make([]byte, 64<<20), 0o600)
	for i := 0; ; i++ { // the last blocks, and the inodes
		if err := os.WriteFile(fmt.Sprintf("%s/ballast%d", store, i), []byte("x"), 0o600); err != nil {
			break
		}
	}
	if err := os.WriteFile(store+"/probe", []byte("x"), 0o600); err == nil {
		t.Fatal("the disk is not full")
	}
	if err := errors.Join(tx.Commit(), tx.Revert()); err != nil {
		t.Error(err)
	}
}

func TestAnythingButAnIDIsNoTransaction(t *testing.T) {
	store := t.TempDir()
	j := journalAt(t, store)
	for _, id := range []string{"", ".", "..", "../lock", "x", ".new-20260101T000000Z-000001", "20260101T000000Z-000001/.."} {
		if _, err := j.Load(id); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", id, err)
		}
	}
	disktest.Write(t, store, map[string]string{"tx/notes.txt": "", "tx/.new-x/": "", "tx/.done-20260101T000000Z-000001/": "", "tx/20260101T000000Z-000001/": ""})
	strangers, err := j.Strangers()
	if err != nil || len(strangers) != 2 {
		t.Errorf("strangers are %v: %v", strangers, err)
	}
	if ids, err := j.List(); err != nil || len(ids) != 1 {
		t.Errorf("the list is %v: %v", ids, err)
	}
}

// traced runs cmd with its n-th call of that name failing, and returns what it
// said.
func traced(t *testing.T, call string, n int, cmd *exec.Cmd) (string, error) {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip(err)
	}
	cmd.Args = []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", call, n), cmd.Path}
	cmd.Path = strace
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestABeginThatFailsLeavesNothingThatHasBegun(t *testing.T) {
	failed := 0
	for _, call := range []string{"fsync", "renameat", "mkdirat", "write", "openat2", "flock", "fchmod"} {
		for n := 1; n < 40; n++ {
			store := t.TempDir()
			j := journalAt(t, store)
			out, err := traced(t, call, n, another(store, "begin", "blog"))
			if err == nil {
				break // the n-th did not happen
			}
			failed++
			if ids, err := j.List(); err != nil || len(ids) > 0 {
				t.Errorf("%s %d failed (%s), and a transaction is there: %v, %v", call, n, out, ids, err)
			}
			if err := j.Sweep(); err != nil {
				t.Error(err)
			}
			if names, err := os.ReadDir(filepath.Join(store, "tx")); len(names) > 0 {
				t.Errorf("%s %d failed, and the sweep left %v: %v", call, n, names, err)
			}
		}
	}
	if failed < 10 {
		t.Errorf("only %d calls could be made to fail: the test shows nothing", failed)
	}
}
