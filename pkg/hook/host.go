package hook

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// grace is how long a hook may take to end by itself after SIGTERM, and how long one
// that has ended may leave its output open.
const grace = 5 * time.Second

// onHost runs a hook as a child of snap: without a shell, in a process group of its own,
// in the directory /. It gets SIGTERM when snap is killed.
func onHost(ctx context.Context, x *workload.Hook, env []string, mark string) (code int, said string, err error) {
	var end runtime.End
	cmd := exec.CommandContext(ctx, x.Command[0], x.Command[1:]...)
	cmd.Env, cmd.Dir = append(os.Environ(), env...), "/"
	cmd.Stdout, cmd.Stderr = &end, &end
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = grace
	// See golang.org/issue/27505 for the thread and Pdeathsig.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, "", fmt.Errorf("could not be run: %w", err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	switch ended := errors.As(err, &exit); {
	case err == nil || errors.Is(err, exec.ErrWaitDelay): // something that it left behind may have its output
		return 0, end.String(), nil
	case ctx.Err() != nil:
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // fails where nobody is left
		runtime.KillMarked(mark)
		err = context.Cause(ctx)
	case ended && exit.Exited():
		return exit.ExitCode(), end.String(), nil
	case ended:
		err = fmt.Errorf("was killed by %s", unix.SignalName(exit.Sys().(syscall.WaitStatus).Signal()))
	}
	return 0, end.String(), err
}
