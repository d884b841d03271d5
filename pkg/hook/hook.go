package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Hooks are the hooks of one operation on one workload.
type Hooks struct {
	before, after step
	workload      string
	sid           string
	operation     journal.Kind
	containers    Containers
	say           func(format string, args ...any)
}

// Containers is what runs a command in a container.
type Containers interface {
	Exec(ctx context.Context, x runtime.Exec) (code int, said string, err error)
}

// step are the hooks of one moment, with its key in the config.
type step struct {
	key  string
	list workload.HookList
}

// Of returns the hooks of the operation that a transaction records. An operation that is
// neither a capture nor a restore has none. say is told, in a line each, what a hook that
// fails says.
func Of(w *workload.Workload, b *journal.Begin, containers Containers, say func(format string, args ...any)) *Hooks {
	h := &Hooks{workload: w.Name, sid: b.SID, operation: b.Kind, containers: containers, say: say}
	switch b.Kind {
	case journal.Capture:
		h.before, h.after = step{"before_quiesce", w.Hooks.BeforeQuiesce}, step{"after_thaw", w.Hooks.AfterThaw}
	case journal.Restore:
		h.before, h.after = step{"before_restore", w.Hooks.BeforeRestore}, step{"after_restore", w.Hooks.AfterRestore}
	}
	return h
}

// Any reports whether there is a hook.
func (h *Hooks) Any() bool { return len(h.before.list)+len(h.after.list) > 0 }

// Owed reports whether After has something to do.
func (h *Hooks) Owed() bool { return len(h.after.list) > 0 }

// Failed is the error of a hook: it could not be started, or it did not end well, or not
// in time.
type Failed struct {
	key  string // of the config
	name string
	err  error
}

func (f *Failed) Error() string { return fmt.Sprintf("the hook %s (%s) %v", f.key, f.name, f.err) }
func (f *Failed) Unwrap() error { return f.err }

// Before runs the hooks that come before. The error, of the code hook_failed, is that of
// the first that fails and may not. When ctx ends, the hook is killed.
func (h *Hooks) Before(ctx context.Context) error {
	for i := range h.before.list {
		if err := h.run(ctx, h.before.key, &h.before.list[i], ""); err != nil {
			return fault.New(fault.Failed, "hook_failed", remedy.Of("read what it said, and try its command by hand; with `on_failure: warn` in the config snap goes on without it"), "%w", err)
		}
	}
	return nil
}

// After runs the hooks that come after, for an operation that has done what it was asked
// for (ok) or has not. The error, of kind Pending and the code hook_failed, joins those of
// all that fail and may not.
func (h *Hooks) After(ctx context.Context, ok bool) error {
	outcome := map[bool]string{true: "ok", false: "failed"}[ok]
	var errs []error
	for i := range h.after.list {
		errs = append(errs, h.run(ctx, h.after.key, &h.after.list[i], outcome))
	}
	if err := errors.Join(errs...); err != nil {
		return fault.New(fault.Pending, "hook_failed", remedy.Of("read what it said, and run its command by hand: nothing runs it again before the next "+string(h.operation)), "%w", err)
	}
	return nil
}

// Because returns an error with more words around that of After; nil where err is not that
// of a hook.
func Because(err error, format string, args ...any) error {
	if _, ours := errors.AsType[*Failed](err); !ours {
		return nil
	}
	return fault.New(fault.Pending, "hook_failed", fault.Classify(err).Remedy, format, args...)
}

// run runs one hook. Where it may fail, its error is only said.
func (h *Hooks) run(ctx context.Context, key string, x *workload.Hook, outcome string) error {
	mark := "SNAP_HOOK=" + disk.NewID(time.Now())
	env := []string{mark, "SNAP_WORKLOAD=" + h.workload, "SNAP_SID=" + h.sid, "SNAP_OPERATION=" + string(h.operation)}
	if outcome != "" {
		env = append(env, "SNAP_OUTCOME="+outcome)
	}
	within, cancel := context.WithTimeoutCause(ctx, time.Duration(x.Timeout), fmt.Errorf("was killed: it took longer than %s", time.Duration(x.Timeout)))
	defer cancel()
	name, do := x.Command[0], onHost
	if x.Container != "" {
		name += " in container " + x.Container
		do = h.inContainer
	}
	code, said, err := do(within, x, env, mark)
	switch {
	case within.Err() != nil && err != nil:
		err = context.Cause(within)
	case err == nil && code != 0:
		err = fmt.Errorf("ended with exit code %d", code)
	}
	if err == nil {
		return nil
	}
	failed := &Failed{key, name, err}
	if text := runtime.Tail(said); text != "" {
		h.say("warning: the hook %s (%s) said: %s", key, name, text)
	}
	if x.OnFailure == workload.HookWarns && ctx.Err() == nil {
		h.say("warning: %v", failed)
		return nil
	}
	return failed
}

func (h *Hooks) inContainer(ctx context.Context, x *workload.Hook, env []string, mark string) (int, string, error) {
	if tx := os.Getenv(runtime.Mark); tx != "" { // the watchdog finds it by that
		env = append(env, runtime.Mark+"="+tx)
	}
	code, said, err := h.containers.Exec(ctx, runtime.Exec{Container: x.Container, User: x.User, Command: x.Command, Env: env, Mark: mark})
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("could not be run: %w", err)
	}
	return code, said, err
}
