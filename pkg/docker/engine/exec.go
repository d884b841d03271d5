package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/pkg/stdcopy"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// errStuck says that a command may still run in a container, although it should not.
var errStuck = errors.New("it cannot be told whether the command has ended")

// errKilled says that a command was killed because its time was up.
var errKilled = errors.New("the command was killed")

// Exec runs a command in a container that runs, and returns its exit code and the end of
// what it said. When ctx ends, it is killed together with what it has started, and the
// error is that of ctx.
func (e *Engine) Exec(ctx context.Context, c *Container, x runtime.Exec) (code int, said string, err error) {
	var end runtime.End
	options := container.ExecOptions{Cmd: x.Command, User: x.User, Env: x.Env}
	code, err = e.exec(ctx, c, options, &end, func() { runtime.KillMarked(x.Mark) })
	if errors.Is(err, errKilled) {
		err = context.Cause(ctx)
	}
	return code, end.String(), err
}

// exec runs a command in a container, and writes what it says to said. When ctx ends, the
// command is killed, and with kill, where it is not nil, what else belongs to it.
func (e *Engine) exec(ctx context.Context, c *Container, options container.ExecOptions, said io.Writer, kill func()) (code int, err error) {
	uncut, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	asked, cancel := Detached(ctx)
	defer cancel()
	options.AttachStdout, options.AttachStderr = true, true
	made, err := e.API.ContainerExecCreate(asked, c.ID, options)
	if err != nil {
		return 0, Failed(err, "run a command in container %s", c.Name)
	}
	conn, err := e.API.ContainerExecAttach(uncut, made.ID, container.ExecAttachOptions{})
	if err != nil {
		return 0, Failed(err, "run a command in container %s", c.Name)
	}
	defer conn.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = stdcopy.StdCopy(said, said, conn.Reader)
	}()
	var killed bool
	var deadline time.Time
	for ; ; time.Sleep(poll / 5) {
		now, err := e.inspectExec(uncut, made.ID)
		if err != nil {
			return 0, fmt.Errorf("%w: %w", errStuck, err)
		}
		if !now.Running {
			code = now.ExitCode
			break
		}
		if ctx.Err() == nil {
			continue
		}
		if deadline.IsZero() {
			deadline = time.Now().Add(Steady)
		}
		switch {
		case time.Now().After(deadline):
			return 0, errStuck
		case now.Pid == 0: // it counts as running before it has a process
		case !killed:
			killed = true
			if err := killIn(c.ID, now.Pid); err != nil && kill == nil {
				return 0, fmt.Errorf("%w: %w", errStuck, err)
			}
			if kill != nil {
				kill()
			}
		}
	}
	if killed {
		return 0, errKilled
	}
	select { // a child of the command may hold its output open
	case <-read:
	case <-time.After(often):
		conn.Close()
		<-read
	}
	return code, nil
}

// inspectExec asks how a command goes. It runs as long as it likes, but the engine has to
// answer.
func (e *Engine) inspectExec(ctx context.Context, id string) (container.ExecInspect, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return e.API.ContainerExecInspect(ctx, id)
}

// killIn kills a process of a container. No request to the engine does that. By the
// descriptor the signal reaches the process that was looked at, or none.
func killIn(container string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pidfd_open %d: %w", pid, err)
	}
	defer unix.Close(fd)
	groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err
	}
	if !bytes.Contains(groups, []byte(container)) {
		return fmt.Errorf("process %d is not in container %.12s", pid, container)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	return nil
}
