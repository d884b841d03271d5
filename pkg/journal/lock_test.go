package journal_test

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
)

// holding starts another process that holds locks until end is called.
func holding(t *testing.T, store string, do ...string) (end func(), kill func()) {
	t.Helper()
	cmd := another(store, append([]string{"lock"}, do...)...)
	end = disktest.Process(t, cmd)
	return end, func() { _ = cmd.Process.Kill(); end() }
}

// attempt takes the locks as another process would, and gives them back.
func attempt(t *testing.T, store, workload string, paths ...string) error {
	t.Helper()
	h, err := journalAt(t, store).Lock(workload, "test")
	if err != nil {
		return err
	}
	defer h.Release()
	return h.Volumes(paths)
}

// whenWaiting is a context that calls do as soon as somebody waits for its end.
type whenWaiting struct {
	context.Context
	do func()
}

func (w whenWaiting) Done() <-chan struct{} {
	w.do()
	return w.Context.Done()
}

func TestTwoProcessesExcludeEachOther(t *testing.T) {
	store := t.TempDir()
	end, _ := holding(t, store, "blog")
	err := attempt(t, store, "blog")
	if !errors.Is(err, journal.ErrBusy) || !strings.Contains(err.Error(), "snap test blog, process ") {
		t.Errorf("while it is held: %v", err)
	}
	if err := attempt(t, store, "shop"); err != nil {
		t.Errorf("another workload: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := journalAt(t, store).LockWait(whenWaiting{ctx, cancel}, "blog", "test"); !errors.Is(err, journal.ErrBusy) {
		t.Errorf("after waiting: %v", err)
	}
	h, err := journalAt(t, store).LockWait(whenWaiting{context.Background(), end}, "blog", "test")
	if err != nil {
		t.Fatalf("waiting until it ends: %v", err)
	}
	h.Release()
}

// Whoever removes members has the stores alone; whoever works on a workload or
// reads a snapshot shares them.
func TestTheStoreIsLockedByManyOrByOne(t *testing.T) {
	state := t.TempDir()
	j := journalAt(t, state)
	soon := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	free := func(h *journal.Held, err error) error {
		if err == nil {
			h.Release()
		}
		return err
	}
	for _, holder := range []string{"blog", "share-the-store"} {
		end, _ := holding(t, state, holder)
		if err := free(j.LockStore(soon(), "prune")); !errors.Is(err, journal.ErrBusy) {
			t.Errorf("%s holds it, and it was had alone: %v", holder, err)
		}
		if err := errors.Join(free(j.Lock("shop", "test")), free(j.ShareStore("test"))); err != nil {
			t.Errorf("%s holds it, and it cannot be shared: %v", holder, err)
		}
		time.AfterFunc(200*time.Millisecond, end)
		if err := free(j.LockStore(t.Context(), "prune")); err != nil {
			t.Errorf("waiting until %s ends: %v", holder, err)
		}
	}
	end, _ := holding(t, state, "lock-the-store")
	_, lock := j.Lock("blog", "test")
	_, share := j.ShareStore("test")
	_, alone := j.LockStore(soon(), "prune")
	for what, err := range map[string]error{"a workload": lock, "shared": share, "alone": alone} {
		if !errors.Is(err, journal.ErrBusy) || !strings.Contains(err.Error(), "held by snap prune, process ") {
			t.Errorf("another has the stores alone, and %s: %v", what, err)
		}
	}
	// The workload is not left locked by the attempt.
	end()
	if err := attempt(t, state, "blog"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	// Who shared it has not written who it is, and nobody else is named.
	shared, _ := holding(t, state, "share-the-store")
	if err := free(j.LockStore(soon(), "prune")); !errors.Is(err, journal.ErrBusy) || strings.Contains(err.Error(), "prune, process") {
		t.Errorf("somebody shares it: %v", err)
	}
	shared()
	h, err := j.LockStore(t.Context(), "prune")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	if _, err := j.Begin(h, begin()); err == nil {
		t.Error("a transaction was opened without a workload")
	}
}

func TestALockEndsWithItsProcessHoweverThatEnds(t *testing.T) {
	store, vol := t.TempDir(), t.TempDir()
	_, kill := holding(t, store, "blog", vol)
	if err := attempt(t, store, "shop", vol); !errors.Is(err, journal.ErrBusy) {
		t.Errorf("while it lives: %v", err)
	}
	kill()
	if err := attempt(t, store, "blog", vol); err != nil {
		t.Errorf("after SIGKILL: %v", err)
	}
}

// A child such as docker compose may outlive snap; it must not keep the lock.
func TestAChildDoesNotInheritALock(t *testing.T) {
	store := t.TempDir()
	h := lock(t, journalAt(t, store), "blog", t.TempDir())
	child := exec.Command("sleep", "30")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	h.Release()
	if err := attempt(t, store, "blog"); err != nil {
		t.Errorf("while a child lives: %v", err)
	}
}

func TestVolumesExcludeEachOtherUnderWhateverPath(t *testing.T) {
	disktest.NeedRoot(t)
	root := t.TempDir()
	disktest.Write(t, root, map[string]string{"srv/a/b/": "", "srv/ab/": "", "srv/c/": "", "bind/": "", "real/data/x/": ""})
	for link, to := range map[string]string{"/alias": "srv", "/srv/link": "../real/data"} {
		if err := os.Symlink(to, root+link); err != nil {
			t.Fatal(err)
		}
	}
	disktest.Bind(t, root+"/srv/a", root+"/bind")
	for _, c := range []struct {
		name      string
		held, ask string
		free      bool
	}{
		{"the same", "srv/a", "srv/a", false},
		{"a sibling", "srv/a", "srv/c", true},
		{"a sibling whose name begins alike", "srv/a", "srv/ab", true},
		{"one inside", "srv/a", "srv/a/b", false},
		{"one above", "srv/a/b", "srv/a", false},
		{"two levels above", "srv/a/b", "srv", false},
		{"through a bind mount", "srv/a", "bind", false},
		{"inside, through a bind mount", "srv/a", "bind/b", false},
		{"above, through a bind mount", "bind/b", "srv/a", false},
		{"through a symlink on the way", "srv/a", "alias/a", false},
		{"inside, through a symlink on the way", "srv/a", "alias/a/b", false},
		{"above, through a symlink on the way", "alias/a/b", "srv/a", false},
		{"above what a symlink leads to", "srv/link/x", "real", false},
		{"what a symlink leads to, from above", "real", "srv/link/x", false},
		{"the symlink's own directory is above too", "srv/link/x", "srv", false},
		{"missing, the same", "srv/new", "srv/new", false},
		{"missing, another", "srv/new", "srv/new2", true},
		{"missing, the one above is there", "srv/new", "srv", false},
		{"missing, from above", "srv", "srv/new", false},
		{"missing, inside one that is there", "srv/a", "srv/a/new/deep", false},
		{"missing, beside one that is there", "srv/a", "srv/new", true},
		{"missing, through a bind mount", "srv/a/new", "bind/new", false},
		{"missing, deeper", "srv/new/deep", "srv/new/deep", false},
		{"missing, siblings", "srv/new/deep", "srv/new/other", true},
		{"missing, one inside the other", "srv/new", "srv/new/deep", false},
		{"missing, one above the other", "srv/new/deep", "srv/new", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := t.TempDir()
			h := lock(t, journalAt(t, store), "blog", root+"/"+c.held)
			defer h.Release()
			err := attempt(t, store, "shop", root+"/"+c.ask)
			if c.free && err != nil || !c.free && !errors.Is(err, journal.ErrBusy) {
				t.Errorf("%s is held and %s asked for: %v", c.held, c.ask, err)
			}
		})
	}
}

// A restore creates what is missing and then locks again: from then on the
// directory is held by its own handle.
func TestADirectoryThatWasMissingIsLockedOnceItIsThere(t *testing.T) {
	root, store := t.TempDir(), t.TempDir()
	h := lock(t, journalAt(t, store), "blog", root+"/new/deep")
	disktest.Write(t, root, map[string]string{"new/deep/": ""})
	if err := h.Volumes([]string{root + "/new/deep"}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/new/deep", "/new", "/new/deep/er"} {
		if err := attempt(t, store, "shop", root+path); !errors.Is(err, journal.ErrBusy) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Two workloads that want the same volumes in another order never wait for each
// other: one has all of them, the other is told so.
func TestOfTwoThatWantTheSameVolumesOneGetsThem(t *testing.T) {
	root, store := t.TempDir(), t.TempDir()
	disktest.Write(t, root, map[string]string{"a/": "", "b/": "", "c/": ""})
	a, b := []string{root + "/a", root + "/b", root + "/c"}, []string{root + "/c", root + "/a", root + "/b"}
	for range 50 {
		errs := make(chan error, 2)
		gate := make(chan struct{})
		var tried sync.WaitGroup
		tried.Add(2)
		for name, paths := range map[string][]string{"blog": a, "shop": b} {
			j := journalAt(t, store)
			go func() {
				<-gate
				h, err := j.Lock(name, "test")
				if err == nil {
					err = h.Volumes(paths)
				}
				tried.Done()
				if err == nil { // hold them until the other one has tried
					tried.Wait()
				}
				if h != nil {
					h.Release()
				}
				errs <- err
			}()
		}
		close(gate)
		first, second := <-errs, <-errs
		if (first == nil) == (second == nil) {
			t.Fatalf("both failed, or both have the volumes: %v, %v", first, second)
		}
	}
}

func TestASweepTakesWhatTheDeadLeftAndNothingElse(t *testing.T) {
	store := t.TempDir()
	j := journalAt(t, store)
	tx := transaction(t, store, "ready")
	const dead, done, living = ".new-20260101T000000Z-000001", ".done-20260101T000000Z-000002", ".new-20260101T000000Z-000003"
	disktest.Write(t, store, map[string]string{
		"tx/" + dead + "/begin": "x", "tx/" + done + "/deep/file": "x", "tx/" + living + "/begin": "x",
		"tx/.new-mine/x": "x", "tx/.done-/x": "x", "tx/notes": "x", "tx/20260101T000000Z-000004/begin": "x",
	})
	// The builder of a transaction holds its folder locked.
	script := "exec 9<'" + store + "/tx/" + living + "'; flock 9; echo ready; read x"
	builder := exec.Command("sh", "-c", script)
	in, err := builder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := builder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := builder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	there := func(name string) bool { _, err := os.Lstat(store + "/tx/" + name); return err == nil }
	if err := j.Sweep(); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]bool{
		dead: false, done: false, living: true, tx.ID: true, ".new-mine": true, ".done-": true, "notes": true, "20260101T000000Z-000004": true,
	} {
		if there(name) != want {
			t.Errorf("%s is there: %t", name, there(name))
		}
	}
	in.Close()
	_ = builder.Wait()
	if err := j.Sweep(); err != nil || there(living) {
		t.Errorf("when its builder is dead: %v, %t", err, there(living))
	}
}
