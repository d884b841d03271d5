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
)

// The guard is a second process of snap, started before the containers are
// touched. It reads a pipe that snap alone can write to:
//
//	a byte       snap is done, one way or the other: the guard ends
//	end of file  snap is dead: the guard recovers its transaction
//
// It is in a session of its own, so that what kills the process group of a
// terminal passes it by, and holds nothing of snap's but that pipe: whoever
// waits for the end of snap's output does not wait for the guard. What it did
// is in the audit log.

const (
	// guardMark is in the environment of the commands that snap runs while a
	// guard stands by, with the transaction as its value: the guard tells by it
	// which processes snap has left behind.
	guardMark = "SNAP_GUARDED_TX"
	// guardPatience bounds the wait for the guard's start, and for its end.
	guardPatience = 5 * time.Second
	// orphanPatience is how long the commands of a killed snap have to end: they
	// were told to when it died.
	orphanPatience = 20 * time.Second
	// guardScore is the guard's proc_pid_oom_score_adj(5): when memory runs out
	// snap goes first, and the guard, which is small, about last.
	guardScore = -900
)

// guard starts the guard of a transaction. release sends it away and returns
// when it has ended.
func (a *app) guard(workload, tx string) (release func(), err error) {
	config, err := filepath.Abs(a.config)
	if err != nil {
		return nil, err
	}
	// Closed on exec, both ends: a write end in another process would keep the
	// guard from ever seeing the end of file.
	watched, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer watched.Close()
	if err := keepInherited("/proc/self/fd"); err != nil {
		return nil, errors.Join(err, hold.Close())
	}
	cmd := exec.Command("/proc/self/exe", "--config", config, "guard", workload, tx)
	cmd.Args[0] = os.Args[0]
	cmd.Dir = "/" // it must not keep a filesystem busy
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
		_ = os.Unsetenv(guardMark)
		_, _ = hold.Write([]byte{'d'}) // a guard that has gone needs no farewell
		hold.Close()
		impatient := time.AfterFunc(guardPatience, func() { _ = cmd.Process.Kill() })
		defer impatient.Stop()
		_ = cmd.Wait() // how it ended changes nothing
	}
	if err := standsBy(ready); err != nil {
		release()
		return nil, err
	}
	// For the commands that are to come; the guard itself must not bear it.
	if err := os.Setenv(guardMark, tx); err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// keepInherited sees to it that what this process was started with, beyond its
// standard files, goes no further: the pipe of a script that waits for its end.
// All else that snap opens is closed on exec in any case.
func keepInherited(list string) error {
	names, err := os.ReadDir(list)
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd) // that of the list is closed by now: nothing happens
		}
	}
	return err
}

// standsBy waits until the guard says that it is ready.
func standsBy(ready io.ReadCloser) error {
	said := make(chan error, 1)
	go func() {
		_, err := ready.Read(make([]byte, 1))
		said <- err
	}()
	select {
	case err := <-said:
		return err
	case <-time.After(guardPatience):
		return fmt.Errorf("it is not ready after %s", guardPatience)
	}
}

func (a *app) guardCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "guard <workload> <tx>",
		Short:  "Recover a transaction when the process at the other end of stdin dies",
		Hidden: true, // snap alone starts it
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a.entered = true
			// Signals have no effect: they are for snap, and snap's end is what
			// the guard goes by. They are caught and not ignored, so that the
			// commands it runs can be ended.
			return a.stand(context.WithoutCancel(cmd.Context()), args[0], args[1])
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
	endOrphans("/proc", guardMark+"="+tx)
	a.recovers, a.waitDocker = true, time.Minute
	e, done, err := a.engine(anyStore)
	if err != nil {
		return err
	}
	defer done()
	r, _ := e.RecoverKilled(ctx, workload, tx)
	return r.Err
}

// spare asks the OOM killer to take others first. To go below the score that
// one began with takes a capability that root may lack, in a container; then a
// raised one is at least taken back.
func spare(file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	now, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	for _, score := range []int{guardScore, 0} {
		if err != nil || score >= now {
			return
		}
		if writeTo(file, strconv.Itoa(score)) == nil {
			return
		}
	}
}

func writeTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// endOrphans waits until the commands that snap ran have ended, and kills those
// that do not: docker compose must not go on making containers while they are
// put right.
func endOrphans(proc, mark string) {
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		orphans := marked(proc, mark)
		if len(orphans) == 0 {
			return
		}
		late := time.Since(start)
		for _, p := range orphans {
			if late > orphanPatience {
				_ = p.Kill()
			}
			_ = p.Release()
		}
		if late > 2*orphanPatience {
			return // not even a kill ends them: they wait for a disk
		}
	}
}

// marked returns the processes that have the mark in their environment.
func marked(proc, mark string) []*os.Process {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	var list []*os.Process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		environ := filepath.Join(proc, entry.Name(), "environ")
		if err != nil || !bears(environ, mark) {
			continue
		}
		p, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		// Asked again: the number may have become another's meanwhile. From here on
		// the process is held by a descriptor (pidfd_open(2)).
		if bears(environ, mark) {
			list = append(list, p)
		} else {
			_ = p.Release()
		}
	}
	return list
}

func bears(environ, mark string) bool {
	env, err := os.ReadFile(environ)
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+mark+"\x00"))
}
