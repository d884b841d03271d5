package hook_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/hook"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// containers remembers what was run in which container, and answers so.
type containers struct {
	ran  []runtime.Exec
	code int
	said string
	err  error
}

func (c *containers) Exec(_ context.Context, x runtime.Exec) (int, string, error) {
	c.ran = append(c.ran, x)
	return c.code, c.said, c.err
}

type lines []string

func (l *lines) say(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

// sh is a hook that a shell runs.
func sh(script string) workload.Hook {
	return workload.Hook{Command: workload.Command{"sh", "-c", script}, Timeout: workload.Duration(time.Minute), OnFailure: workload.HookFails}
}

func of(kind journal.Kind, hooks workload.Hooks, in *containers, said *lines) *hook.Hooks {
	return hook.Of(&workload.Workload{Name: "blog", Hooks: hooks}, &journal.Begin{Kind: kind, SID: "20260101T000000Z-000001"}, in, said.say)
}

func TestAHookKnowsWhatItIsFor(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("OUT", out)
	write := `echo "$SNAP_WORKLOAD $SNAP_SID $SNAP_OPERATION ${SNAP_OUTCOME-none} $(pwd) $(cat)" >> "$OUT"`
	all := workload.Hooks{BeforeQuiesce: workload.HookList{sh(write)}, AfterThaw: workload.HookList{sh(write)}, BeforeRestore: workload.HookList{sh(write)}, AfterRestore: workload.HookList{sh(write)}}
	for _, kind := range []journal.Kind{journal.Capture, journal.Restore, journal.Deploy} {
		h := of(kind, all, nil, &lines{})
		if err := errors.Join(h.Before(t.Context()), h.After(t.Context(), true), h.After(t.Context(), false)); err != nil {
			t.Fatal(err)
		}
		if h.Any() == (kind == journal.Deploy) || h.Owed() == (kind == journal.Deploy) {
			t.Errorf("%s: any %v, owed %v", kind, h.Any(), h.Owed())
		}
	}
	text, err := os.ReadFile(out)
	const sid = "blog 20260101T000000Z-000001 "
	want := sid + "capture none / \n" + sid + "capture ok / \n" + sid + "capture failed / \n" + sid + "restore none / \n" + sid + "restore ok / \n" + sid + "restore failed / \n"
	if err != nil || string(text) != want {
		t.Errorf("they wrote\n%s, %v", text, err)
	}
}

// No shell reads a command: it is an argument vector.
func TestNoShellReadsACommand(t *testing.T) {
	dir := t.TempDir()
	h := of(journal.Capture, workload.Hooks{BeforeQuiesce: workload.HookList{{
		Command: workload.Command{"touch", dir + "/$(id) > x; y"}, Timeout: workload.Duration(time.Minute), OnFailure: workload.HookFails,
	}}}, nil, &lines{})
	if err := h.Before(t.Context()); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(dir + "/*"); !slices.Equal(names, []string{dir + "/$(id) > x; y"}) {
		t.Errorf("it made %q", names)
	}
}

// What comes before stops at the first failure; what comes after undoes, so all of it
// runs.
func TestAFailureStopsWhatComesBeforeAndNotWhatComesAfter(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	t.Setenv("OUT", out)
	warns := sh(`echo warns >> "$OUT"; exit 4`)
	warns.OnFailure = workload.HookWarns
	list := workload.HookList{warns, sh(`echo fails >> "$OUT"; printf 'no \033[2J room\n'; exit 3`), sh(`echo last >> "$OUT"`)}
	said := &lines{}
	h := of(journal.Capture, workload.Hooks{BeforeQuiesce: list, AfterThaw: list}, nil, said)
	ran := func() string {
		text, _ := os.ReadFile(out)
		_ = os.Truncate(out, 0)
		return strings.Join(strings.Fields(string(text)), " ")
	}
	err := h.Before(t.Context())
	if fault.KindOf(err) != fault.Failed || err.Error() != "the hook before_quiesce (sh) ended with exit code 3" || ran() != "warns fails" {
		t.Errorf("before: %v", err)
	}
	err = h.After(t.Context(), true)
	if fault.KindOf(err) != fault.Pending || err.Error() != "the hook after_thaw (sh) ended with exit code 3" || ran() != "warns fails last" {
		t.Errorf("after: %v", err)
	}
	var failed *hook.Failed
	if !errors.As(err, &failed) || fault.Classify(err).Code != "hook_failed" {
		t.Errorf("the error is %#v", err)
	}
	want := []string{
		"warning: the hook before_quiesce (sh) ended with exit code 4",
		"warning: the hook before_quiesce (sh) said: no \uFFFD[2J room",
		"warning: the hook after_thaw (sh) ended with exit code 4",
		"warning: the hook after_thaw (sh) said: no \uFFFD[2J room",
	}
	if !slices.Equal(*said, want) {
		t.Errorf("it said %q", *said)
	}
}

func TestAHookThatCannotBeRunSaysWhy(t *testing.T) {
	for _, c := range []struct{ command, want string }{
		{"/nonexistent/pg_dump", "no such file"}, {"no-such-command", "not found in $PATH"}, {"/etc/passwd", "permission denied"},
	} {
		h := of(journal.Capture, workload.Hooks{BeforeQuiesce: workload.HookList{{Command: workload.Command{c.command}, Timeout: workload.Duration(time.Minute)}}}, nil, &lines{})
		if err := h.Before(t.Context()); err == nil || !strings.Contains(err.Error(), "could not be run") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.command, err)
		}
	}
	h := of(journal.Capture, workload.Hooks{BeforeQuiesce: workload.HookList{sh("kill -9 $$")}}, nil, &lines{})
	if err := h.Before(t.Context()); err == nil || !strings.Contains(err.Error(), "was killed by SIGKILL") {
		t.Errorf("a killed one: %v", err)
	}
}

// alive reports whether a process of this id runs.
func alive(t *testing.T, file string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ") // nobody may have reaped it yet
}

// A hook that hangs is killed with all that it has started: deaf to SIGTERM, in another
// process group, in another session.
func TestAHookThatHangsIsKilledWithItsChildren(t *testing.T) {
	for name, start := range map[string]string{
		"a child":          "sleep 300 & echo $! > \"$DIR/child\"; wait",
		"a deaf one":       "trap '' TERM; sleep 300 & echo $! > \"$DIR/child\"; wait; wait",
		"a session leader": "setsid sh -c 'echo $$ > \"$DIR/child\"; exec sleep 300' & wait",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			x := sh("DIR=" + dir + "; export DIR; " + start)
			x.Timeout = workload.Duration(500 * time.Millisecond)
			h := of(journal.Capture, workload.Hooks{BeforeQuiesce: workload.HookList{x}}, nil, &lines{})
			begun := time.Now()
			err := h.Before(t.Context())
			if err == nil || err.Error() != "the hook before_quiesce (sh) was killed: it took longer than 500ms" {
				t.Errorf("it ended with %v", err)
			}
			if time.Since(begun) > 20*time.Second {
				t.Errorf("it took %v", time.Since(begun))
			}
			if alive(t, dir+"/child") {
				t.Error("its child is alive")
			}
		})
	}
}

// A signal to snap ends a hook, and is the reason, also where the hook may fail.
func TestASignalEndsAHook(t *testing.T) {
	dir := t.TempDir()
	x := sh("echo $$ > " + dir + "/child; kill -USR1 $PPID; exec sleep 300")
	x.OnFailure = workload.HookWarns
	ctx, cancel := context.WithCancelCause(t.Context())
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, syscall.SIGUSR1)
	defer signal.Stop(caught)
	go func() { <-caught; cancel(&fault.Signal{Name: "SIGINT", Code: 130}) }()
	err := of(journal.Capture, workload.Hooks{BeforeQuiesce: workload.HookList{x}}, nil, &lines{}).Before(ctx)
	var sig *fault.Signal
	if !errors.As(err, &sig) || alive(t, dir+"/child") {
		t.Errorf("it ended with %v", err)
	}
}

// Something that a hook leaves behind, with its output open, does not keep snap waiting for
// ever, and is not a failure.
func TestAHookMayLeaveADaemonBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := sh("sleep 60 & echo $! > " + dir + "/child")
	x.Timeout = workload.Duration(2 * time.Second) // less than snap waits for the output
	h := of(journal.Capture, workload.Hooks{BeforeQuiesce: workload.HookList{x}}, nil, &lines{})
	if err := h.Before(t.Context()); err != nil || !alive(t, dir+"/child") {
		t.Errorf("it ended with %v", err)
	}
	text, _ := os.ReadFile(dir + "/child")
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

func TestWhatAHookSaysIsBounded(t *testing.T) {
	said := &lines{}
	h := of(journal.Capture, workload.Hooks{BeforeQuiesce: workload.HookList{sh("head -c 50000000 /dev/zero | tr '\\0' x; echo the end; exit 1")}}, nil, said)
	if err := h.Before(t.Context()); err == nil {
		t.Error("no error")
	}
	if text := strings.Join(*said, ""); len(text) > 2000 || !strings.HasSuffix(text, "the end") {
		t.Errorf("it said %d bytes", len(text))
	}
}

func TestAHookInAContainerIsGivenWhatOneOnTheHostIs(t *testing.T) {
	t.Setenv(runtime.Mark, "20260101T000000Z-000002")
	in := &containers{code: 7, said: "no"}
	said := &lines{}
	x := workload.Hook{Command: workload.Command{"pg_dump", "-f", "/d"}, Container: "db", User: "postgres", Timeout: workload.Duration(time.Minute), OnFailure: workload.HookFails}
	err := of(journal.Restore, workload.Hooks{AfterRestore: workload.HookList{x}}, in, said).After(t.Context(), false)
	if err == nil || err.Error() != "the hook after_restore (pg_dump in container db) ended with exit code 7" {
		t.Errorf("it ended with %v", err)
	}
	got := in.ran[0]
	mark, rest := got.Env[0], got.Env[1:]
	if got.Container != "db" || got.User != "postgres" || !slices.Equal(got.Command, []string{"pg_dump", "-f", "/d"}) || got.Mark != mark || !strings.HasPrefix(mark, "SNAP_HOOK=") {
		t.Errorf("it ran %+v", got)
	}
	if want := []string{"SNAP_WORKLOAD=blog", "SNAP_SID=20260101T000000Z-000001", "SNAP_OPERATION=restore", "SNAP_OUTCOME=failed", runtime.Mark + "=20260101T000000Z-000002"}; !slices.Equal(rest, want) {
		t.Errorf("its environment is %q", rest)
	}
	in.err = errors.New("no such container")
	err = of(journal.Restore, workload.Hooks{AfterRestore: workload.HookList{x}}, in, said).After(t.Context(), false)
	if err == nil || err.Error() != "the hook after_restore (pg_dump in container db) could not be run: no such container" {
		t.Errorf("it ended with %v", err)
	}
}
