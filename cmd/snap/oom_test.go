package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestTheOOMKillerTakesSnapAndTheWatchdogBringsTheAppBack lets the kernel's OOM
// killer choose between snap, its watchdog and the process that uses up the memory.
// That process writes to a tmpfs, whose pages count for no process, so snap has
// most. Snap's score is raised, as a service manager may do; the watchdog sets its
// own back.
//
// The kernel retries the allocation at once. If it has not freed snap's memory by
// then, it kills the next process as well; the test then starts over.
func TestTheOOMKillerTakesSnapAndTheWatchdogBringsTheAppBack(t *testing.T) {
	h := newAppHost(t)
	for try := 1; ; try++ {
		when, killed := h.outOfMemory()
		if killed == 1 {
			if now := h.watchdogs(); len(now) == 0 && len(h.pending()) > 0 {
				t.Error("the watchdog was killed as well")
			}
			h.comesBack(when)
			break
		}
		if try == 5 {
			t.Fatal("not once was snap the only one that was killed")
		}
		t.Logf("the kernel killed %d processes", killed)
		h.until("recover", func() bool { return h.command("recover").Run() == nil })
	}
	if line := h.audit(); line.Verb != "watchdog" || line.Action != "thawed" {
		t.Errorf("the audit log says %+v", line)
	}
}

// outOfMemory makes the OOM killer kill snap during a capture. It returns the time,
// and how many processes were killed.
func (h *appHost) outOfMemory() (when time.Time, killed int) {
	h.Helper()
	h.bulk(192)
	group := memoryGroup(h.T, 256<<20)
	tmpfs := disktest.Tmpfs(h.T)
	join := fmt.Sprintf("echo $$ > %s/cgroup.procs && ", group)
	h.wrap = []string{"sh", "-c", join + `echo 700 > /proc/self/oom_score_adj && exec "$@"`, "sh"}
	p := h.start("capture", h.name)
	h.wrap = nil
	stopsWhen(h.T, p.Process, "the app rests", h.rests)
	watchdogs := h.watchdogs()
	if len(watchdogs) != 1 {
		h.Fatalf("the watchdogs are %v", watchdogs)
	}
	// Without the capability for less, the score is 0.
	score, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", watchdogs[0]))
	if got := strings.TrimSpace(string(score)); err != nil || got != "0" && got != fmt.Sprint(watchdogScore) {
		h.Errorf("the watchdog's oom_score_adj is %q, %v", got, err)
	}
	// snap is stopped, so that it cannot end before the memory is used up. The hog
	// takes no more memory when it sees that snap is dead.
	hog := exec.Command("sh", "-c", join+fmt.Sprintf(
		"while grep -q '^State:.T' /proc/%d/status 2>/dev/null; do head -c 262144 /dev/zero >> %s/full || exit 1; done", p.Process.Pid, tmpfs))
	h.must(hog.Start())
	h.Cleanup(func() { _ = hog.Process.Kill() })
	gone := time.AfterFunc(time.Minute, func() { _ = hog.Process.Kill() })
	sig, _ := h.ended(p)
	when = time.Now()
	err = hog.Wait()
	killed = oomKills(h.T, group)
	if sig != syscall.SIGKILL || !gone.Stop() || killed == 0 || killed == 1 && err != nil {
		h.Fatalf("snap ended by signal %d, the hog with %v; %d processes were killed for want of memory", sig, err, killed)
	}
	return when, killed
}

// memoryGroup makes a cgroup with that much memory and no swap, of the cgroup
// version that the machine has.
func memoryGroup(t *testing.T, limit int) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	parent, file := "/sys/fs/cgroup", "memory.max"
	for line := range strings.Lines(string(text)) {
		if _, own, v1 := strings.Cut(strings.TrimSpace(line), ":memory:"); v1 {
			parent, file = filepath.Join("/sys/fs/cgroup/memory", own), "memory.limit_in_bytes"
		}
	}
	group := filepath.Join(parent, "snap-test-"+disk.NewID(time.Now())[17:])
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Skipf("no cgroup can be made: %v", err)
	}
	t.Cleanup(func() {
		for range 100 { // the last process may just be on its way out
			if err = os.Remove(group); err == nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		t.Error(err)
	})
	if err := writeTo(filepath.Join(group, file), fmt.Sprint(limit)); err != nil {
		t.Skipf("the cgroup has no limit of memory: %v", err)
	}
	if err := writeTo(filepath.Join(group, "memory.swap.max"), "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return group
}

// oomKills returns how many processes of a cgroup the OOM killer has killed.
func oomKills(t *testing.T, group string) (n int) {
	t.Helper()
	for _, name := range []string{"memory.oom_control", "memory.events"} {
		f, err := os.Open(filepath.Join(group, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if count, found := strings.CutPrefix(lines.Text(), "oom_kill "); found {
				_, err = fmt.Sscan(count, &n)
			}
		}
		if err = errors.Join(err, lines.Err(), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return n
}
