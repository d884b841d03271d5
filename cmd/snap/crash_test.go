package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// What the command of a test is told by its environment. Its watchdog has the same
// environment, and does not panic.
const (
	panicAt    = "SNAP_TEST_PANIC"       // a call of the runtime: "after Quiesce"
	panicWhere = "SNAP_TEST_PANIC_WHERE" // and only when something matches this path
	panicAlone = "SNAP_TEST_PANIC_ALONE" // without a watchdog
)

// testCommand is the command as the tests run it: the real one, which panics where
// the environment says so.
func testCommand() int {
	a := &app{ui: newUI(os.Stdin, os.Stdout, os.Stderr)}
	if point := os.Getenv(panicAt); point != "" && !slices.Contains(os.Args, "watchdog") {
		a.opened = func(e *restore.Engine) {
			open := e.Runtime
			e.Runtime = func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error) {
				rt, err := open(ctx, w)
				return faulty{rt, point, os.Getenv(panicWhere)}, err
			}
			if os.Getenv(panicAlone) != "" {
				e.Watchdog = nil
			}
		}
	}
	return a.run(os.Args[1:])
}

// faulty is a runtime that panics at one of its calls.
type faulty struct {
	runtime.Runtime
	point, where string
}

func (f faulty) at(point string) {
	if found, _ := filepath.Glob(f.where); point == f.point && (f.where == "" || len(found) > 0) {
		theFault()
	}
}

func theFault() { panic("a fault") }

// Containers panics as an operation does whose worker has panicked.
func (f faulty) Containers(ctx context.Context) ([]runtime.Container, error) {
	worker := make(chan error)
	go func() { worker <- crew.Catch(func() error { f.at("Containers"); return nil }) }()
	crew.Raise(<-worker)
	return f.Runtime.Containers(ctx)
}

func (f faulty) Quiesce(ctx context.Context, mode string, timeout time.Duration) (runtime.Thaw, error) {
	thaw, err := f.Runtime.Quiesce(ctx, mode, timeout)
	f.at("after Quiesce")
	return thaw, err
}

func (f faulty) FenceAndStop(ctx context.Context, timeout time.Duration) error {
	err := f.Runtime.FenceAndStop(ctx, timeout)
	f.at("after FenceAndStop")
	return err
}

func (f faulty) Redeploy(ctx context.Context, held runtime.Lock, r runtime.Redeploy) error {
	f.at("before Redeploy")
	err := f.Runtime.Redeploy(ctx, held, r)
	f.at("after Redeploy")
	return err
}

// crashes runs a command that panics, and looks at what it prints and how it ends.
func (h *appHost) crashes(env []string, args ...string) (when time.Time) {
	h.Helper()
	cmd := h.command(args...)
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	h.must(ignoreExit(cmd.Run()))
	when = time.Now()
	if code := cmd.ProcessState.ExitCode(); code != 2 {
		h.Errorf("it ended with %d: %s", code, stderr.String())
	}
	if !strings.Contains(stderr.String(), "theFault") || !strings.Contains(stderr.String(), "goroutine ") {
		h.Errorf("the stack does not lead to the fault: %s", stderr.String())
	}
	remedy := "snap recover --config " + h.config
	told := "error: snap crashed: a fault\nhint: " + remedy + "\n"
	if asJSON := slices.Contains(args, "--json"); asJSON == strings.HasSuffix(stderr.String(), told) {
		h.Errorf("with --json: %v, and stderr is %s", asJSON, stderr.String())
	} else if !asJSON {
		if stdout.Len() > 0 {
			h.Errorf("stdout is %q", stdout.String())
		}
		return when
	}
	want := `{"error":{"code":"crashed","message":"snap crashed: a fault","hint":"` + remedy + `"},"exit":2,"ok":false}` + "\n"
	if got := stdout.String(); got != want || !json.Valid([]byte(got)) {
		h.Errorf("stdout is %q, expected %q", got, want)
	}
	return when
}

// TestAPanicIsRecoveredByTheWatchdog has a restore, a capture and a deploy panic
// while the app is down or half replaced.
func TestAPanicIsRecoveredByTheWatchdog(t *testing.T) {
	h := newAppHost(t)
	sid := h.captured()
	replaces := []string{"restore", h.name, sid, "--confirm", sid}
	for _, c := range []struct {
		name         string
		point, where string
		args         []string
		want, action string
	}{
		{"the app is stopped", "after FenceAndStop", "", replaces, "old", "rolled_back"},
		{"all volumes are exchanged", "Containers", "tx/*/times", replaces, "old", "rolled_back"},
		{"the restore is committed", "before Redeploy", "tx/*/commit", replaces, "new", "rolled_forward"},
		{"the new app is up", "after Redeploy", "tx/*/commit", replaces, "new", "rolled_forward"},
		{"the app is paused", "after Quiesce", "", []string{"capture", h.name}, "old", "thawed"},
		{"the new container is up", "after Redeploy", "", []string{"deploy", h.name}, "old", "thawed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			h.write("old")
			if c.args[0] == "deploy" {
				text, err := os.ReadFile(h.config)
				h.must(err)
				h.must(os.WriteFile(h.config, append(text, []byte("    hostname: another\n")...), 0o600))
			}
			env := []string{panicAt + "=" + c.point}
			if c.where != "" {
				env = append(env, panicWhere+"="+filepath.Join(h.dir, "state", c.where))
			}
			before := h.app().ID
			if state := h.comesBack(h.crashes(env, append(c.args, "--json")...)); state != c.want {
				t.Errorf("the data is %s, expected %s", state, c.want)
			}
			if line := h.audit(); line.Verb != "watchdog" || line.Action != c.action || line.Result != "ok" {
				t.Errorf("the audit log says %+v", line)
			}
			// A deploy has removed the old container by then: it is made anew.
			if after := h.app().ID; c.want == "old" && c.args[0] != "deploy" && after != before {
				t.Error("the container was replaced")
			}
		})
	}
}

// TestAPanicWithoutAWatchdogLeavesItsTransaction: what a dying snap does itself is
// no recovery, and takes nothing from the one that its hint names.
func TestAPanicWithoutAWatchdogLeavesItsTransaction(t *testing.T) {
	h := newAppHost(t)
	sid := h.captured()
	h.crashes([]string{
		panicAlone + "=1", panicAt + "=Containers", panicWhere + "=" + filepath.Join(h.dir, "state/tx/*/times"),
	}, "restore", h.name, sid, "--confirm", sid)
	if got := h.state(); len(h.pending()) != 1 || !h.rests() || got != "new" {
		t.Errorf("pending are %v; the app rests: %v; the data is %s", h.pending(), h.rests(), got)
	}
	h.snap("recover")
	h.until("the app answers", func() bool { return h.answer() != "" })
	if state := h.state(); state != "old" {
		t.Errorf("the data is %s", state)
	}
	h.settled()
}

func TestAPanicBeforeAnythingIsRecordedChangesNothing(t *testing.T) {
	h := newAppHost(t)
	sid := h.captured()
	before := h.app().Run()
	h.crashes([]string{panicAt + "=Containers"}, "restore", h.name, sid, "--confirm", sid)
	if after := h.app().Run(); h.state() != "old" || after != before {
		t.Errorf("the app was %s, and is %s", before, after)
	}
	h.settled()
}
