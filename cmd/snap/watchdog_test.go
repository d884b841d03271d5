package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/runtime"
)

func TestACaptureThatIsKilledLeavesTheAppAwake(t *testing.T) {
	h := newAppHost(t)
	h.bulk(192)
	for _, quiesce := range []string{runtime.Pause, runtime.Stop} {
		t.Run(quiesce, func(t *testing.T) {
			h := h.in(t)
			before := h.app().ID
			p := h.start("capture", h.name, "--quiesce", quiesce)
			stopsWhen(h.T, p.Process, "the app rests", h.rests)
			when := h.kill(p)
			h.comesBack(when)
			if after := h.app().ID; after != before {
				t.Error("the container was replaced")
			}
			if line := h.audit(); line.Verb != "watchdog" || line.Action != "thawed" || line.Result != "ok" {
				t.Errorf("the audit log says %+v", line)
			}
		})
	}
}

// The engine is named on the command line alone: without these words the watchdog would
// look for the app elsewhere.
func TestTheWatchdogUsesTheEngineThatWasChosen(t *testing.T) {
	h := newAppHost(t)
	h.bulk(256)
	socket := dockertest.Connect(t).DaemonHost()
	h.wrap = []string{"env", "DOCKER_HOST=unix:///nonexistent/docker.sock"}
	p := h.start("--host", socket, "capture", h.name)
	stopsWhen(h.T, p.Process, "the app rests", h.rests)
	h.comesBack(h.kill(p))
	if line := h.audit(); line.Verb != "watchdog" || line.Action != "thawed" || line.Result != "ok" {
		t.Errorf("the audit log says %+v", line)
	}
}

// in is the same host in a subtest.
func (h *appHost) in(t *testing.T) *appHost {
	sub := *h
	sub.T = t
	return &sub
}

// bulk adds so many MiB to the posts, so that a second pass takes a while.
func (h *appHost) bulk(mib int) {
	h.Helper()
	block := []byte(strings.Repeat("0123456789abcdef", 1<<16))
	f, err := os.Create(filepath.Join(h.posts, "bulk"))
	h.must(err)
	for i := range mib {
		block[0] = byte(i)
		_, err := f.Write(block)
		h.must(err)
	}
	h.must(f.Close())
}

// slowStop are config lines for an app that ignores the signal to stop. The engine
// kills it after the grace period.
var slowStop = []string{"stop_signal: SIGWINCH", "stop_grace_period: 3s"}

func TestAStopThatOutlivesSnapIsWaitedForAndUndone(t *testing.T) {
	h := newAppHost(t, slowStop...)
	sid := h.captured()
	for _, args := range [][]string{
		{"capture", h.name, "--quiesce", runtime.Stop},
		{"restore", h.name, sid, "--confirm", sid},
	} {
		t.Run(args[0], func(t *testing.T) {
			h := h.in(t)
			before := h.app().Run()
			began := time.Now()
			p := h.start(args...)
			h.until("a watchdog stands by", func() bool { return len(h.watchdogs()) > 0 })
			h.until("the app has been told to stop", func() bool { return h.signalled(began) })
			if !h.app().Running {
				t.Fatal("the app has stopped too soon")
			}
			if state := h.comesBackRestarted(h.kill(p), before); state != "old" {
				t.Errorf("the data is %s", state)
			}
		})
	}
}

// signalled reports whether the engine has sent the app a signal since then.
func (h *appHost) signalled(since time.Time) bool {
	h.Helper()
	return dockertest.Happened(h.T, h.name, "kill", since)
}

// comesBackRestarted is comesBack for an app that is still up at the kill, but is
// about to stop.
func (h *appHost) comesBackRestarted(killed time.Time, before string) string {
	h.Helper()
	h.until("the app was started again", func() bool {
		c := h.app()
		return c.Running && c.Run() != before
	})
	return h.comesBack(killed)
}

// TestARestoreThatIsKilledIsUndoneOrFinished kills a restore at every rename from
// the fence on, that is, between any two records and any two exchanges.
func TestARestoreThatIsKilledIsUndoneOrFinished(t *testing.T) {
	disktest.Need(t, "strace")
	h := newAppHost(t)
	sid := h.captured()
	restore := []string{"restore", h.name, sid, "--confirm", sid}

	trace := filepath.Join(h.dir, "trace")
	h.wrap = straced(trace)
	h.snap(restore...)
	calls := renames(t, trace)
	first := slices.IndexFunc(calls, func(c renaming) bool { return strings.Contains(c.args, `"times"`) })
	commit := slices.IndexFunc(calls, func(c renaming) bool { return strings.Contains(c.args, `"commit"`) })
	if first < 0 || commit < first {
		t.Fatalf("no times before a commit in %v", calls)
	}
	for n, call := range calls {
		if n < first {
			continue
		}
		t.Run(fmt.Sprint("rename ", n+1), func(t *testing.T) {
			t.Logf("killed at %s%s", call.name, call.args)
			h := h.in(t)
			h.write("old")
			h.wrap = straced(trace, call.inject("SIGKILL"))
			p := h.start(restore...)
			h.must(ignoreExit(p.Wait()))
			when := time.Now()
			h.wrap = nil
			if sig, _ := h.ended(p); sig != syscall.SIGKILL {
				t.Fatal("it was not killed")
			}
			want := "old"
			if n > commit {
				want = "new"
			}
			if state := h.comesBack(when); state != want {
				t.Errorf("the data is %s, expected %s", state, want)
			}
			if line := h.audit(); n < len(calls)-1 && (line.Verb != "watchdog" || line.Result != "ok") {
				t.Errorf("the audit log says %+v", line)
			}
		})
	}
}

// straced runs a command under strace, which traces the renames of that process
// only. It detaches from every program that the process starts, such as the
// watchdog.
func straced(trace string, more ...string) []string {
	words := []string{"strace", "-f", "-b", "execve", "-qq", "-o", trace, "-e", "trace=renameat,renameat2"}
	for _, e := range more {
		words = append(words, "-e", e)
	}
	return words
}

// renaming is a call in a trace.
type renaming struct {
	name, args string
	n          int // the n-th of this name
}

// inject returns the option that makes strace send a signal at this call.
func (r renaming) inject(signal string) string {
	return fmt.Sprintf("inject=%s:signal=%s:when=%d", r.name, signal, r.n)
}

// renames reads from a trace the calls of the thread that made most of them:
// strace counts calls per thread and name.
func renames(t *testing.T, trace string) (calls []renaming) {
	t.Helper()
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	threads, counts := map[string][]renaming{}, map[string]int{}
	for line := range strings.Lines(string(text)) {
		thread, call, _ := strings.Cut(line, " ")
		name, args, found := strings.Cut(strings.TrimSpace(call), "(")
		if found && strings.HasPrefix(name, "renameat") {
			counts[thread+name]++
			threads[thread] = append(threads[thread], renaming{name, strings.TrimSpace(args), counts[thread+name]})
		}
	}
	for _, list := range threads {
		if len(list) > len(calls) {
			calls = list
		}
	}
	return calls
}

// ignoreExit returns nil for the error that a process ended with an exit code.
func ignoreExit(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil
	}
	return err
}

func TestARestoreKilledWhileTheNewAppStartsIsFinished(t *testing.T) {
	h := newAppHost(t)
	sid := h.captured()
	p := h.start("restore", h.name, sid, "--confirm", sid)
	stopsWhen(h.T, p.Process, "the restore is committed", func() bool { return h.recorded("commit") })
	if state := h.comesBack(h.kill(p)); state != "new" {
		t.Errorf("the data is %s", state)
	}
	if line := h.audit(); line.Verb != "watchdog" || line.Action != "rolled_forward" {
		t.Errorf("the audit log says %+v", line)
	}
}

func TestARestoreKilledWhileItGuardsIsFinished(t *testing.T) {
	h := newAppHost(t)
	sid := h.captured()
	h.bulk(100) // what is read when the app is up
	p := h.start("restore", h.name, sid, "--confirm", sid, "--guard", "after")
	stopsWhen(h.T, p.Process, "the restore guards", func() bool { return h.recorded("guarding") })
	app := h.app().Run()
	if list := h.snap("list", h.name); strings.Contains(list, "pre-restore") {
		t.Fatalf("it was stopped too late:\n%s", list)
	}
	if state := h.comesBack(h.kill(p)); state != "new" {
		t.Errorf("the data is %s", state)
	}
	if line := h.audit(); line.Verb != "watchdog" || line.Action != "rolled_forward" || line.Result != "ok" {
		t.Errorf("the audit log says %+v", line)
	}
	if list := h.snap("list", h.name); !strings.Contains(list, "before the restore of "+sid) {
		t.Errorf("the replaced data is not a snapshot:\n%s", list)
	}
	if now := h.app().Run(); now != app {
		t.Errorf("the app was touched: it was %s, and is %s", app, now)
	}
}

func TestADeployThatIsKilledLeavesTheAppFromBefore(t *testing.T) {
	h := newAppHost(t, slowStop...)
	before := h.app().Run()
	text, err := os.ReadFile(h.config)
	h.must(err)
	h.must(os.WriteFile(h.config, append(text, []byte("    hostname: another\n")...), 0o600))
	began := time.Now()
	p := h.start("deploy", h.name)
	h.until("a watchdog stands by", func() bool { return len(h.watchdogs()) > 0 })
	h.until("the old container has been told to stop", func() bool { return h.signalled(began) })
	if policy := h.app().Policy; policy != "no" {
		t.Fatalf("it is stopped with the restart policy %q", policy)
	}
	h.comesBackRestarted(h.kill(p), before)
	if after := h.app().ID; !strings.HasPrefix(before, after) {
		t.Error("the container from before is gone")
	}
}

func TestAnOperationThatEndsTakesItsWatchdogAlong(t *testing.T) {
	h := newAppHost(t)
	for _, args := range [][]string{
		{"capture", h.name},
		{"capture", h.name, "--quiesce", runtime.None}, // puts nothing to rest
		{"lock", h.name, "--", "true"},
	} {
		p := h.start(args...)
		stood := h.watch(p)
		if _, code := h.ended(p); code != 0 {
			t.Errorf("%q ended with %d", args, code)
		}
		if want := len(args) == 2; *stood != want {
			t.Errorf("%q: a watchdog stood by: %v, expected %v", args, *stood, want)
		}
		h.settled()
	}
}

// watch reports whether it saw a watchdog of the workload while a process ran.
func (h *appHost) watch(p *runningSnap) *bool {
	seen := new(bool)
	for {
		select {
		case <-p.eof:
			return seen
		default:
			*seen = *seen || len(h.watchdogs()) > 0
			time.Sleep(time.Millisecond)
		}
	}
}

func TestDataAloneNeedsNoWatchdog(t *testing.T) {
	h := bareHost(t)
	h.lines()
	sid := h.captured()
	for _, args := range [][]string{{"capture", h.name}, {"restore", h.name, sid, "--confirm", sid}} {
		p := h.start(args...)
		if *h.watch(p) {
			t.Errorf("%q had a watchdog", args)
		}
		if _, code := h.ended(p); code != 0 {
			t.Errorf("%q ended with %d", args, code)
		}
		h.nothingLeft()
	}
	if state := h.state(); state != "new" {
		t.Errorf("the data is %s", state)
	}
}

// TestTheWatchdogHoldsNothingOfSnaps looks at the watchdog's descriptors while snap
// holds its locks. If the watchdog held a lock, or the pipe's other end, it would
// wait for itself.
func TestTheWatchdogHoldsNothingOfSnaps(t *testing.T) {
	h := newAppHost(t, slowStop...)
	p := h.start("capture", h.name, "--quiesce", runtime.Stop)
	h.until("a watchdog stands by", func() bool { return len(h.watchdogs()) == 1 && h.held(p.Process.Pid, "/lock/") > 0 })
	watchdog := h.watchdogs()[0]
	h.until("the watchdog is started", func() bool { return descriptors(watchdog)[2] == os.DevNull })
	open := descriptors(watchdog)
	for fd, what := range open {
		// These belong to the Go runtime.
		if fd > 2 && !strings.HasPrefix(what, "anon_inode:") && !strings.HasPrefix(what, "/sys/fs/cgroup/") {
			t.Errorf("the watchdog has descriptor %d open: %s", fd, what)
		}
	}
	if !strings.HasPrefix(open[0], "pipe:") || open[2] != os.DevNull {
		t.Errorf("the watchdog's descriptors are %v", open)
	}
	h.until("snap has only its own end of the pipe open", func() bool {
		own := 0
		for _, what := range descriptors(p.Process.Pid) {
			if what == open[0] {
				own++
			}
		}
		return own == 1
	})
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", watchdog)); err != nil || strings.Fields(string(stat))[5] != fmt.Sprint(watchdog) {
		t.Errorf("the watchdog has no session of its own: %s, %v", stat, err)
	}
	if _, code := h.ended(p); code != 0 {
		t.Errorf("snap ended with %d", code)
	}
	h.settled()
}

// descriptors are the open files of a process.
func descriptors(pid int) map[int]string {
	out := map[int]string{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, link := range links {
		if what, err := os.Readlink(link); err == nil {
			fd, _ := strconv.Atoi(filepath.Base(link))
			out[fd] = what
		}
	}
	return out
}

// held counts the open files of a process whose path contains path.
func (h *appHost) held(pid int, path string) (n int) {
	for _, what := range descriptors(pid) {
		if strings.Contains(what, h.dir) && strings.Contains(what, path) {
			n++
		}
	}
	return n
}

// TestWhatEndsTheTerminalLeavesTheWatchdog sends the signals of a terminal and of a
// service manager to the watchdog, and then SIGKILL to snap's process group.
func TestWhatEndsTheTerminalLeavesTheWatchdog(t *testing.T) {
	h := newAppHost(t)
	h.bulk(192)
	p := h.start("capture", h.name)
	stopsWhen(h.T, p.Process, "the app rests", h.rests)
	watchdogs := h.watchdogs()
	if len(watchdogs) != 1 {
		t.Fatalf("the watchdogs are %v", watchdogs)
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
		h.must(syscall.Kill(watchdogs[0], sig))
		time.Sleep(20 * time.Millisecond) // one at a time
	}
	if now := h.watchdogs(); !slices.Equal(now, watchdogs) || !h.rests() {
		t.Fatalf("the watchdogs were %v and are %v", watchdogs, now)
	}
	when := time.Now()
	h.must(syscall.Kill(-p.Process.Pid, syscall.SIGKILL))
	h.ended(p)
	h.comesBack(when)
}

// TestAWatchdogActsOnItsOwnTransactionAlone starts watchdogs by hand, with a closed
// pipe.
func TestAWatchdogActsOnItsOwnTransactionAlone(t *testing.T) {
	h := newAppHost(t)
	h.bulk(192)
	p := h.start("capture", h.name)
	stopsWhen(h.T, p.Process, "the app rests", h.rests)
	for _, pid := range h.watchdogs() { // like a power cut, which ends snap and watchdog at once
		h.must(syscall.Kill(pid, syscall.SIGKILL))
	}
	h.kill(p)
	tx := h.pending()
	if len(tx) != 1 {
		t.Fatalf("the transactions are %v", tx)
	}
	for _, args := range [][]string{
		{h.name, "20200101T000000Z-000000"}, // of an earlier operation
		{"somebody", tx[0]},
	} {
		h.must(ignoreExit(h.command(append([]string{"watchdog"}, args...)...).Run()))
		if !h.rests() || len(h.pending()) != 1 {
			t.Fatalf("the watchdog of %v has acted on %v", args, tx)
		}
	}
	// A command of the dead snap still runs: the watchdog waits for its end.
	command := exec.Command("sleep", "1")
	command.Env = append(os.Environ(), runtime.Mark+"="+tx[0])
	h.must(command.Start())
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	h.must(h.command("watchdog", h.name, tx[0]).Run())
	select {
	case err := <-ended:
		h.must(err)
	default:
		t.Error("the watchdog did not wait for a command of the dead snap")
	}
	h.settled()
	if line := h.audit(); line.Verb != "watchdog" || line.Tx != tx[0] || line.Action != "thawed" {
		t.Errorf("the audit log says %+v", line)
	}
}

// TestAWatchdogThatDiesIsNoFault: snap's work must not depend on the watchdog.
func TestAWatchdogThatDiesIsNoFault(t *testing.T) {
	h := newAppHost(t, slowStop...)
	p := h.start("capture", h.name, "--quiesce", runtime.Stop)
	h.until("a watchdog stands by", func() bool { return len(h.watchdogs()) > 0 })
	h.must(syscall.Kill(h.watchdogs()[0], syscall.SIGKILL))
	if _, code := h.ended(p); code != 0 {
		t.Errorf("snap ended with %d", code)
	}
	h.settled()
}

// The engine goes on with a hook in a container although snap is dead. It may not outlive
// the hook that undoes what it does.
func TestAHookInAContainerDoesNotOutliveADeadSnap(t *testing.T) {
	h := newAppHost(t)
	f, err := os.OpenFile(h.config, os.O_APPEND|os.O_WRONLY, 0)
	h.must(err)
	after := filepath.Join(h.dir, "after")
	_, err = fmt.Fprintf(f, "    hooks:\n      before_quiesce: {container: %s, command: [/app, wait], timeout: 10m}\n      after_thaw: {command: [sh, -c, 'echo $SNAP_OUTCOME > %s']}\n", h.name, after)
	h.must(errors.Join(err, f.Close()))
	hooks := func() int { return len(commands("SNAP_WORKLOAD=" + h.name)) }
	p := h.start("capture", h.name)
	h.until("the hook runs", func() bool { return hooks() > 0 })
	h.kill(p)
	h.until("the hook after it has run", func() bool { _, err := os.Stat(after); return err == nil })
	h.until("nothing is pending", func() bool { return len(h.pending()) == 0 })
	if n := hooks(); n > 0 {
		t.Errorf("%d processes of the hook are alive", n)
	}
	h.until("the watchdog has written what it did", func() bool { return h.audit().Verb == "watchdog" })
	if line := h.audit(); line.Verb != "watchdog" || line.Action != "cleaned" || line.Result != "ok" {
		t.Errorf("the audit log says %+v", line)
	}
	if !h.app().Running {
		t.Error("the app does not run")
	}
}
