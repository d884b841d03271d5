package restore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// unfinishedRestore kills a restore soon after it has begun, and returns its
// transaction.
func (w *world) unfinishedRestore() string {
	w.Helper()
	w.fill("new")
	sid := w.capture()
	w.fill("old")
	if _, killed := w.run("restore", sid, 4); !killed {
		w.Fatal("the restore was not killed")
	}
	ids, err := w.engine().Journal.List()
	w.must(err)
	if len(ids) != 1 {
		w.Fatalf("the transactions are %v", ids)
	}
	return ids[0]
}

// A dead snap's locks may be held a little longer than its process lives. The
// watchdog waits for them, and a second one finds nothing to do.
func TestTheWatchdogWaitsForTheLocksOfADeadSnap(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	tx := w.unfinishedRestore()
	held, err := w.engine().Journal.Lock(w.name, "test")
	w.must(err)
	type outcome struct {
		r     Recovery
		found bool
	}
	done := make(chan outcome)
	go func() {
		r, found := w.engine().RecoverKilled(t.Context(), w.name, tx)
		done <- outcome{r, found}
	}()
	select {
	case o := <-done:
		t.Fatalf("the watchdog did not wait for the lock: %+v", o)
	case <-time.After(300 * time.Millisecond):
	}
	held.Release()
	if o := <-done; !o.found || o.r.Err != nil || o.r.Action != Cleaned {
		t.Errorf("the watchdog found %+v", o)
	}
	w.clean()
	if r, found := w.engine().RecoverKilled(t.Context(), w.name, tx); found || r.Err != nil {
		t.Errorf("a second watchdog found %+v", r)
	}
}

// The watchdog cannot recover because the config has changed. It has no terminal,
// so the failure goes into the audit log.
func TestAFailedWatchdogIsInTheAuditLog(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	tx := w.unfinishedRestore()
	e := w.engine()
	w.write(map[string][]string{"another": {"volumes: [{scope: absolute, source: " + filepath.Join(w.dir, "live/x") + "}]"}})
	other := w.engine()
	r, found := other.RecoverKilled(t.Context(), w.name, tx)
	if !found || fault.KindOf(r.Err) != fault.Frozen {
		t.Errorf("the watchdog found %+v, %v", r, found)
	}
	log, err := os.ReadFile(filepath.Join(w.dir, "state/audit.jsonl"))
	w.must(err)
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, `"verb":"watchdog"`) || !strings.Contains(last, tx) || !strings.Contains(last, `"result":"frozen"`) {
		t.Errorf("the audit log says %s", last)
	}
	_, err = e.Recover(t.Context(), RecoverRequest{})
	w.must(err)
	w.clean()
}

// The watchdog cannot be started. The operation warns and goes on, and it asks for
// the watchdog before it touches a container.
func TestAWatchdogThatCannotStartIsAWarning(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	asked := 0
	e := w.engine()
	seen := &lines{}
	ctx := Observe(t.Context(), seen)
	e.Watchdog = func(workload, tx string) (func(), error) {
		asked++
		if ids, _ := e.Journal.List(); workload != w.name || len(ids) != 1 || ids[0] != tx {
			t.Errorf("the watchdog is for transaction %s of %s, but the transactions are %v", tx, workload, ids)
		}
		if c := w.containers(); !c[0].Running || c[0].Paused || c[0].Policy == "no" {
			t.Error("the containers were touched before the watchdog was asked for")
		}
		return nil, errors.New("no more processes")
	}
	_, err := e.Restore(ctx, w.request(sid))
	w.must(err)
	_, err = e.Capture(ctx, CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
	w.must(err)
	if warned := strings.Count(strings.Join(seen.list, "\n"), "no watchdog could be started (no more processes)"); asked != 2 || warned != 2 {
		t.Errorf("asked for %d watchdogs, warned %d times: %q", asked, warned, seen.list)
	}
	w.appRuns()
	w.clean()
}

// A data-only workload lists the container of another one under also_stop. A
// capture pauses that container, and has a watchdog meanwhile.
func TestACaptureOfDataPausesTheListedContainers(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("data")
	w.deploy()
	app := w.name
	w.name = "data" + app
	w.write(map[string][]string{w.name: {"also_stop: [" + app + "]", "volumes: [{scope: absolute, source: " + w.volumes[0] + "}]"}})
	paused, watched := false, false
	e := w.engine()
	e.Watchdog = func(string, string) (func(), error) { watched = true; return func() {}, nil }
	e.reached = func(point string) {
		if point == "quiesced" {
			paused = dockertest.Inspect(t, app).Paused
		}
	}
	_, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
	w.must(err)
	w.name = app
	if !paused || !watched {
		t.Errorf("paused: %v, with a watchdog: %v", paused, watched)
	}
	w.appRuns()
}

// lines is an observer that collects the lines.
type lines struct {
	mu   sync.Mutex
	list []string
}

func (*lines) Phase(Phase)                   {}
func (*lines) Progress(string, int64, int64) {}

func (l *lines) Line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, text)
}
