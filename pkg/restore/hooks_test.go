package restore

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// hooked is a world whose hooks turn a maintenance mode on and off: a file beside the
// volumes. before is what the hook before it does more; after what the one after it does.
func hooked(t *testing.T, dir, before, after string, volumes int) *world {
	t.Helper()
	mode := filepath.Join(dir, "maintenance")
	hook := func(script string) string {
		return "{command: [sh, -c, " + `"` + strings.ReplaceAll(script, `"`, `\"`) + `"` + "], timeout: 1s}"
	}
	on, off := hook("echo on >> "+dir+"/log; echo $SNAP_SID > "+mode+"; "+before), hook("echo $SNAP_OPERATION $SNAP_OUTCOME >> "+dir+"/log; rm -f "+mode+"; "+after)
	w := newWorld(t, dir, volumes, "hooks: {before_quiesce: "+on+", after_thaw: "+off+", before_restore: "+on+", after_restore: "+off+"}")
	w.fill("old")
	return w
}

// modeIsOff fails the test where the maintenance mode is on. It returns the lines that the
// hooks wrote.
func (w *world) modeIsOff() string {
	w.Helper()
	if _, err := os.Stat(filepath.Join(w.dir, "maintenance")); err == nil {
		w.Error("the maintenance mode is on")
	}
	text, err := os.ReadFile(filepath.Join(w.dir, "log"))
	w.must(err)
	w.must(os.Remove(filepath.Join(w.dir, "log")))
	return strings.Join(strings.Split(strings.TrimSpace(string(text)), "\n"), ", ")
}

func TestWhatAHookTurnsOnForACaptureIsTurnedOff(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string
		killed        bool
		kind          fault.Kind
		code, log     string
	}{
		"it succeeds":                 {"", "", false, -1, "", "on, capture ok"},
		"the hook fails":              {"exit 1", "", false, fault.Failed, "hook_failed", "on, capture failed"},
		"the hook hangs":              {"sleep 300", "", false, fault.Failed, "hook_failed", "on, capture failed"},
		"the capture fails after it":  {"mkfifo live/v0/fifo", "", false, fault.Refused, "unrestorable", "on, capture failed"},
		"the hook after it fails":     {"", "exit 1", false, fault.Pending, "hook_failed", "on, capture ok"},
		"both hooks fail":             {"exit 1", "exit 2", false, fault.Pending, "hook_failed", "on, capture failed"},
		"snap is killed in the hook":  {"kill -9 $PPID; sleep 1", "", true, -1, "", "on, capture failed"},
		"killed and the hook fails":   {"kill -9 $PPID", "exit 1", true, fault.Pending, "hook_failed", "on, capture failed"},
		"killed and the hook hangs":   {"kill -9 $PPID", "sleep 300", true, fault.Pending, "hook_failed", "on, capture failed"},
		"killed after the hook after": {"", "[ $SNAP_OUTCOME = failed ] || kill -9 $PPID", true, -1, "", "on, capture ok, capture failed"},
	} {
		t.Run(name, func(t *testing.T) {
			w := hooked(t, t.TempDir(), strings.Replace(c.before, "live", "$DIR/live", 1), c.after, 1)
			t.Setenv("DIR", w.dir)
			var err error
			if c.killed {
				if _, killed := w.run("capture", "", 0, "SNAP_TEST_QUIESCE=none"); !killed {
					t.Fatal("it was not killed")
				}
				_, err = w.engine().Recover(t.Context(), RecoverRequest{})
			} else {
				var r *CaptureResult
				r, err = w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
				if (r != nil) != (len(w.snapshots()) == 1) {
					t.Errorf("the result is %+v, and there are %d snapshots", r, len(w.snapshots()))
				}
			}
			if got := w.modeIsOff(); got != c.log {
				t.Errorf("the hooks wrote %q, expected %q", got, c.log)
			}
			if c.kind < 0 && err != nil || c.kind >= 0 && (fault.KindOf(err) != c.kind || codeOf(err) != c.code) {
				t.Errorf("it ended with %v (%v %s)", err, fault.KindOf(err), codeOf(err))
			}
			w.clean()
		})
	}
}

func TestASignalInAHookEndsTheCaptureAndTheHookAfterRuns(t *testing.T) {
	w := hooked(t, t.TempDir(), "kill -USR1 $PPID; exec sleep 300", "", 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	onUSR1(t, func() { cancel(&fault.Signal{Name: "SIGINT", Code: 130}) })
	_, err := w.engine().Capture(ctx, CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	if fault.KindOf(err) != fault.Interrupted || w.modeIsOff() != "on, capture failed" {
		t.Errorf("it ended with %v", err)
	}
	w.clean()
}

// What a hook before the second pass writes into a volume is in the snapshot.
func TestADumpOfAHookIsInTheSnapshot(t *testing.T) {
	w := hooked(t, disktest.Mount(t, "ext4", 256), "echo dumped > $DIR/live/v0/dump", "", 1)
	t.Setenv("DIR", w.dir)
	sid := w.capture()
	w.modeIsOff()
	m, err := w.engine().Store.Load(w.name, sid)
	w.must(err)
	if m.Volumes[0].Files != 4 {
		t.Errorf("the snapshot has %+v", m.Volumes[0].Stats)
	}
}

func TestWhatAHookTurnsOnForARestoreIsTurnedOff(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string
		kind          fault.Kind
		log, data     string
	}{
		"it succeeds":             {"", "", -1, "on, restore ok", "new"},
		"the hook fails":          {"exit 1", "", fault.Failed, "on, restore failed", "old"},
		"the hook hangs":          {"sleep 300", "", fault.Failed, "on, restore failed", "old"},
		"the hook after it fails": {"", "exit 1", fault.Pending, "on, restore ok", "new"},
		"both hooks fail":         {"exit 1", "exit 2", fault.Failed, "on, restore failed", "old"},
		"somebody holds it then":  {"sleep 300 >> $DIR/live/v0/generation 2>&1 & echo $! > $DIR/pid", "", fault.RolledBack, "on, restore failed", "old"},
	} {
		for _, guard := range []string{"before", "after"} {
			t.Run(name+" guard "+guard, func(t *testing.T) {
				w := hooked(t, disktest.Mount(t, "ext4", 256), "[ $SNAP_OPERATION = capture ] || { "+orTrue(c.before)+"; }", "[ $SNAP_OPERATION = capture ] || { "+orTrue(c.after)+"; }", 2)
				t.Setenv("DIR", w.dir)
				w.fill("new")
				states := map[string][][]string{"new": w.trees()}
				sid := w.capture()
				w.modeIsOff()
				w.fill("old")
				states["old"] = w.trees()
				req := w.request(sid)
				req.Guard = guard
				_, err := w.engine().Restore(t.Context(), req)
				if got := w.modeIsOff(); got != c.log {
					t.Errorf("the hooks wrote %q, expected %q", got, c.log)
				}
				if c.kind < 0 && err != nil || c.kind >= 0 && fault.KindOf(err) != c.kind {
					t.Errorf("it ended with %v (%v)", err, fault.KindOf(err))
				}
				if strings.Contains(c.before, "pid") {
					w.kill("pid")
				}
				if got := w.generation(states); got != c.data {
					t.Errorf("the data is %s", got)
				}
				w.clean()
			})
		}
	}
}

func orTrue(script string) string { return cmp.Or(script, "true") }

// A restore is killed at each point, in its hooks too. After the recovery, with an offline
// one before it, the maintenance mode is off, and all is old or all is new.
func TestAKilledRestoreTurnsOffWhatAHookTurnedOn(t *testing.T) {
	for _, guard := range []string{"before", "after"} {
		t.Run(guard, func(t *testing.T) {
			w := hooked(t, disktest.Mount(t, "ext4", 256), "", "", 2)
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			w.modeIsOff()
			seen := map[string]bool{}
			for at := 1; ; at++ {
				w.fill("old")
				states["old"] = w.trees()
				points, killed := w.run("restore", sid, at, "SNAP_TEST_GUARD="+guard)
				if !killed {
					break
				}
				last := points[len(points)-1]
				if _, err := os.Stat(filepath.Join(w.dir, "maintenance")); err == nil {
					seen[last] = true
				}
				if at%2 == 0 {
					_, err := w.engine().Recover(t.Context(), RecoverRequest{Offline: true})
					w.must(err)
				}
				w.recoverTwice()
				w.generation(states)
				if left, err := w.engine().Journal.List(); err != nil || len(left) > 0 {
					t.Errorf("killed at %s: transactions %q are left, %v", last, left, err)
				}
				if _, err := os.Stat(filepath.Join(w.dir, "maintenance")); !errors.Is(err, os.ErrNotExist) {
					t.Fatalf("killed at %s: the maintenance mode is on (%v)", last, err)
				}
			}
			for _, point := range []string{"hooks", "ready", "before swap", "commit", "redeploy"} {
				if !seen[point] {
					t.Errorf("no kill at %q found the mode on: %v", point, seen)
				}
			}
		})
	}
}

// A hook that fails in a recovery does not keep the next operation from the workload.
func TestAFailedHookLeavesNothingUnfinished(t *testing.T) {
	w := hooked(t, t.TempDir(), "kill -9 $PPID", "exit 1", 1)
	if _, killed := w.run("capture", "", 0, "SNAP_TEST_QUIESCE=none"); !killed {
		t.Fatal("it was not killed")
	}
	list, err := w.engine().Recover(t.Context(), RecoverRequest{})
	if fault.KindOf(err) != fault.Pending || codeOf(err) != "hook_failed" || len(list) != 1 || list[0].Pending || list[0].Action != Cleaned {
		t.Errorf("the recovery is %+v, %v", list, err)
	}
	if list, err := w.engine().Recover(t.Context(), RecoverRequest{}); err != nil || len(list) > 0 {
		t.Errorf("the second found %+v, %v", list, err)
	}
	w.clean()
}

// kill kills the process that a file names.
func (w *world) kill(file string) {
	w.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, file))
	w.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	w.must(err)
	w.must(syscall.Kill(pid, syscall.SIGKILL))
}

func onUSR1(t *testing.T, do func()) {
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	t.Cleanup(func() { signal.Stop(caught) })
	go func() { <-caught; do() }()
}

// An offline recovery runs no hook: the containers are down. The next run does.
func TestAnOfflineRecoveryLeavesHooksToTheNext(t *testing.T) {
	for verb, log := range map[string]string{"capture": "on, capture failed", "restore": "on, restore failed"} {
		t.Run(verb, func(t *testing.T) {
			w := hooked(t, disktest.Mount(t, "ext4", 256), "[ ! -e $DIR/armed ] || kill -9 $PPID", "", 1)
			t.Setenv("DIR", w.dir)
			sid := w.capture()
			w.modeIsOff()
			disktest.Write(t, w.dir, map[string]string{"armed": ""})
			if _, killed := w.run(verb, sid, 0, "SNAP_TEST_QUIESCE=none"); !killed {
				t.Fatal("it was not killed")
			}
			list, err := w.engine().Recover(t.Context(), RecoverRequest{Offline: true})
			if err != nil || len(list) != 1 || !list[0].Pending {
				t.Errorf("offline: %+v, %v", list, err)
			}
			if _, err := os.Stat(filepath.Join(w.dir, "maintenance")); err != nil {
				t.Errorf("offline, the hook has run: %v", err)
			}
			w.recoverTwice()
			if got := w.modeIsOff(); got != log {
				t.Errorf("the hooks wrote %q, expected %q", got, log)
			}
		})
	}
}
