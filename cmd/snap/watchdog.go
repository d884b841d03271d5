package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/cmd/snap/process"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// The watchdog is a second process of snap. It is started before the containers
// are touched, and reads a pipe that only snap can write to:
//
//	a byte       snap has finished, with or without success: the watchdog ends
//	end of file  snap is dead: the watchdog recovers its transaction
//
// The watchdog has a session of its own, so that a signal to the terminal's
// process group does not end it. It holds nothing of snap's but the pipe, so that
// whoever reads snap's output to its end does not wait for the watchdog.

const (
	watchdogPatience = 5 * time.Second  // for the watchdog's start, and for its end
	commandPatience  = 20 * time.Second // for the commands of a dead snap, which got SIGTERM when it died
	watchdogScore    = -900             // proc_pid_oom_score_adj(5): when memory runs out, snap is killed first
)

// watchdog starts the watchdog of a transaction. release dismisses the watchdog
// and returns when it has ended. The engine does not call release when it panics.
func (a *app) watchdog(workload, tx string) (release func(), err error) {
	config, err := filepath.Abs(a.config)
	if err != nil {
		return nil, err
	}
	// Both ends are closed on exec: with a write end in another process the
	// watchdog would never see the end of file.
	watched, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer watched.Close()
	if err := keepInherited("/proc/self/fd"); err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	words := append([]string{"--config", config}, a.engineWords()...)
	cmd := exec.Command("/proc/self/exe", append(words, "watchdog", workload, tx)...)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/" // the watchdog must not keep a filesystem busy
	cmd.Stdin = watched
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ready, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	release = func() {
		process.UnmarkCommands()
		_, _ = hold.Write([]byte{'d'}) // fails if the watchdog has gone
		hold.Close()
		impatient := time.AfterFunc(watchdogPatience, func() { _ = cmd.Process.Kill() })
		defer impatient.Stop()
		_ = cmd.Wait() // however it ended, snap is done
	}
	if err = standsBy(ready); err == nil {
		// Set after the start: the watchdog must not find itself by the mark.
		err = process.MarkCommands(tx)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// keepInherited marks the files that this process was started with, beyond the
// standard three, to be closed on exec: one may be the pipe of a script that waits
// for its end.
func keepInherited(list string) error {
	names, err := os.ReadDir(list)
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd) // the list's own is closed by now: that does no harm
		}
	}
	return err
}

func standsBy(ready io.ReadCloser) error {
	said := make(chan error, 1)
	go func() {
		_, err := ready.Read(make([]byte, 1))
		said <- err
	}()
	select {
	case err := <-said:
		return err
	case <-time.After(watchdogPatience):
		return fmt.Errorf("the watchdog is not ready after %s", watchdogPatience)
	}
}

func (a *app) watchdogCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "watchdog <workload> <tx>",
		Short:  "Recover a transaction when the process at the other end of stdin dies",
		Hidden: true, // only snap starts it
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.entered = true
			// Signals are meant for snap, so they have no effect here: the watchdog
			// acts when snap ends. They are caught and not ignored, because
			// commands would inherit that and could not be ended by a signal.
			return a.stand(restore.Observe(context.WithoutCancel(cmd.Context()), a), args[0], args[1])
		},
	}
}

func (a *app) stand(ctx context.Context, workload, tx string) error {
	spare("/proc/self/oom_score_adj")
	if _, err := a.out.Write([]byte{'r'}); err != nil {
		return err
	}
	if n, _ := a.in.Read(make([]byte, 1)); n == 1 {
		return nil
	}
	endCommands("/proc", runtime.Mark+"="+tx)
	a.waitDocker = time.Minute
	e, done, err := a.engine(anyStore)
	if err != nil {
		return err
	}
	defer done()
	r, found := e.RecoverKilled(ctx, workload, tx)
	if found {
		a.tellKilled(ctx, e, r)
		a.measure(e)
	}
	return r.Err
}

// spare asks the OOM killer to choose other processes first. A score below the
// initial one needs a capability that root may lack in a container. There a score
// that somebody raised is at least set back to 0.
func spare(file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	now, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	for _, score := range []int{watchdogScore, 0} {
		if err != nil || score >= now || writeTo(file, strconv.Itoa(score)) == nil {
			return
		}
	}
}

// beFirst asks the OOM killer to choose this process before all others.
func beFirst(file string) { _ = writeTo(file, "1000") }

func writeTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// endCommands waits until the commands of a dead snap have ended, and kills those
// that do not end: docker compose must not make containers while the recovery
// puts them right.
func endCommands(proc, mark string) {
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		left := runtime.Marked(proc, mark)
		if len(left) == 0 {
			return
		}
		late := time.Since(start)
		for _, p := range left {
			if late > commandPatience {
				_ = p.Kill()
			}
			_ = p.Release()
		}
		if late > 2*commandPatience {
			return // a process that waits for a disk cannot be killed
		}
	}
}
