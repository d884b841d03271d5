package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/restore"
)

type deployJSON struct {
	Workload   string          `json:"workload"`
	Changed    bool            `json:"changed"` // false: it was up to date
	Containers []containerJSON `json:"containers"`
	Seconds    float64         `json:"seconds"`
}

func (a *app) deployCommand() *cobra.Command {
	var req restore.DeployRequest
	cmd := &cobra.Command{
		Use:         "deploy <workload>",
		Annotations: doing,
		Short:       "Bring a workload up from the current config",
		Long: `Bring a workload up from the current config and wait until it is healthy. Only
then are the old containers removed. If the new ones do not come up, the old ones
are brought back. A missing image is pulled. Containers that already run as the
config says are left alone.`,
		Args: cobra.ExactArgs(1),
	}
	durationVar(cmd.Flags(), &req.HealthTimeout, "health-timeout", "how long to wait for health, if the app's own check does not ask for longer (default 2m)")
	cmd.Flags().BoolVar(&req.TakeOver, "take-over", false, "take over containers that another config made")
	cmd.RunE = a.with(ownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Workload = args[0]
		r, err := e.Deploy(ctx, req)
		if err != nil {
			return err
		}
		a.result = deployJSON{r.Workload, r.Changed, showContainers(r.Containers), r.Seconds}
		for _, c := range r.Containers {
			a.say("%s runs %s", c.Name, c.Image)
		}
		if !r.Changed {
			a.progress("%s is up to date", r.Workload)
			return nil
		}
		a.effect = replaces
		a.progress("deployed %s in %.1f s", r.Workload, r.Seconds)
		return nil
	})
	return cmd
}

func (a *app) lockCommand() *cobra.Command {
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "lock <workload> [--wait D] -- COMMAND...",
		Short: "Run another deploy tool under the workload's lock",
		Long: `Run a command while the workload is locked, so that no capture, restore or
recovery runs at the same time. snap ends with the command's exit code.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("name the workload and, after --, the command to run")
			}
			return nil
		},
	}
	durationVar(cmd.Flags(), &wait, "wait", "how long to wait for the lock")
	cmd.RunE = a.with(ownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		held, err := e.Lock(ctx, args[0], wait)
		if err != nil {
			return err
		}
		defer held.Release()
		return a.locked(ctx, args[1:])
	})
	return cmd
}

// locked runs the command and returns when it has ended: the lock must be held
// that long. SIGTERM is passed on. SIGINT and SIGQUIT are not: the terminal sends
// them to the command too, and a second one makes many tools give up at once.
func (a *app) locked(ctx context.Context, command []string) error {
	c := exec.Command(command[0], command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = a.in, os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		return &usageError{fmt.Errorf("the command could not be started: %w", err), "check the command's name and path; nothing has run"}
	}
	stop := context.AfterFunc(ctx, func() {
		var sig *fault.Signal
		if errors.As(context.Cause(ctx), &sig) && sig.Name == "SIGTERM" {
			_ = c.Process.Signal(syscall.SIGTERM) // fails if it has just ended
		}
	})
	defer stop()
	err := c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if code := exit.ExitCode(); code >= 0 {
			return exitStatus(code)
		}
		return exitStatus(128 + int(exit.Sys().(syscall.WaitStatus).Signal()))
	}
	return err
}
