package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestSignals sends a signal to a restore when it begins to stage. SIGHUP does not
// interrupt it; after the others everything is as before.
func TestSignals(t *testing.T) {
	for sig, want := range map[syscall.Signal]struct {
		exit int
		page string
	}{
		syscall.SIGHUP:  {0, "new"},
		syscall.SIGINT:  {130, "old"},
		syscall.SIGQUIT: {131, "old"},
		syscall.SIGTERM: {143, "old"},
	} {
		t.Run(sig.String(), func(t *testing.T) {
			disktest.NeedRoot(t)
			dir := t.TempDir()
			files := map[string]string{"page": "new"}
			for i := range 1000 {
				files[fmt.Sprintf("d/%d", i)] = "content"
			}
			disktest.Write(t, filepath.Join(dir, "srv/files"), files)
			disktest.Write(t, dir, map[string]string{"snap.yaml": fmt.Sprintf(
				"version: 1\nstate: %[1]s/state\nstore: %[1]s/store\nabsolute_roots: [%[1]s/srv]\nworkloads:\n  files: {volumes: [{scope: absolute, source: %[1]s/srv/files}]}\n", dir)})
			config := "--config=" + filepath.Join(dir, "snap.yaml")
			out, err := exec.Command("snap", config, "capture", "files").Output()
			if err != nil {
				t.Fatal(err)
			}
			sid := strings.TrimSpace(string(out))
			disktest.Write(t, filepath.Join(dir, "srv/files"), map[string]string{"page": "old"})

			restore := exec.Command("snap", config, "restore", "files", sid, "--confirm", sid)
			stderr, err := os.Create(filepath.Join(dir, "stderr"))
			if err != nil {
				t.Fatal(err)
			}
			defer stderr.Close()
			restore.Stderr = stderr
			if err := restore.Start(); err != nil {
				t.Fatal(err)
			}
			said := func() string {
				text, err := os.ReadFile(stderr.Name())
				if err != nil {
					t.Fatal(err)
				}
				return string(text)
			}
			stopsWhen(t, restore.Process, "it says that it stages", func() bool { return strings.HasPrefix(said(), "staging") })
			for _, sig := range []syscall.Signal{sig, syscall.SIGCONT} {
				if err := restore.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
			}
			_ = restore.Wait() // the exit code is looked at below
			if got := restore.ProcessState.ExitCode(); got != want.exit {
				t.Errorf("exit code %d, expected %d: %s", got, want.exit, said())
			}
			if page, err := os.ReadFile(filepath.Join(dir, "srv/files/page")); err != nil || string(page) != want.page {
				t.Errorf("the data is %q (%v), expected %q", page, err, want.page)
			}
			for _, pattern := range []string{"srv/.snap-*", "state/tx/*", "store/scratch/*"} {
				if left, _ := filepath.Glob(filepath.Join(dir, pattern)); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			}
		})
	}
}

// TestSignalsAtEveryRename sends a signal at each rename of a restore under a real
// app. Before the commit everything is as before; after it the restore finishes.
func TestSignalsAtEveryRename(t *testing.T) {
	disktest.Need(t, "strace")
	h := newAppHost(t)
	sid := h.captured()
	restore := []string{"restore", h.name, sid, "--confirm", sid}
	trace := filepath.Join(h.dir, "trace")
	h.wrap = straced(trace)
	h.snap(restore...)
	calls := renames(t, trace)
	commit := slices.IndexFunc(calls, func(c renaming) bool { return strings.Contains(c.args, `"commit"`) })
	if commit < 1 {
		t.Fatalf("no commit in %v", calls)
	}
	seen := map[int]int{}
	for n, call := range calls {
		sig := []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP}[n%4]
		h.write("old")
		before := h.app().ID
		h.wrap = straced(trace, call.inject(unix.SignalName(sig)))
		_, code := h.ended(h.start(restore...))
		h.wrap = nil
		seen[code]++
		what := fmt.Sprintf("%s at %s(%s", unix.SignalName(sig), call.name, call.args)
		interrupted := code == 128+int(sig)
		switch {
		case code != 0 && !interrupted, interrupted && sig == syscall.SIGHUP, interrupted && n > commit:
			t.Errorf("%s: exit code %d", what, code)
		// A signal at the commit itself may come before or after it.
		case code == 0 && sig != syscall.SIGHUP && n < commit:
			t.Errorf("%s: not heard", what)
		}
		want := map[bool]string{true: "old", false: "new"}[interrupted]
		if got := h.state(); got != want {
			t.Errorf("%s: exit code %d, and the data is %s", what, code, got)
		}
		if after := h.app().ID; interrupted && after != before {
			t.Errorf("%s: the container was replaced", what)
		}
		h.settled()
	}
	if seen[0] == 0 || seen[130] == 0 || seen[131] == 0 || seen[143] == 0 {
		t.Errorf("the exit codes were %v", seen)
	}
}

// TestSIGQUITIsNoCrash sends it in the middle of a restore: before the commit the
// restore is undone, and after the commit it is finished. No stack is printed.
func TestSIGQUITIsNoCrash(t *testing.T) {
	h := newAppHost(t)
	sid := h.captured()
	for _, c := range []struct {
		name  string
		holds func() bool
		code  int
		want  string
	}{
		{"before the commit", h.rests, 131, "old"},
		{"after the commit", func() bool { return h.recorded("commit") }, 0, "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := h.in(t)
			h.write("old")
			before := h.app().ID
			p := h.start("restore", h.name, sid, "--confirm", sid)
			stopsWhen(h.T, p.Process, c.name, c.holds)
			h.must(p.Process.Signal(syscall.SIGQUIT))
			h.must(p.Process.Signal(syscall.SIGCONT))
			if _, code := h.ended(p); code != c.code {
				t.Errorf("exit code %d, expected %d", code, c.code)
			}
			if said := p.said.String(); strings.Contains(said, "goroutine ") || c.code != 0 && !strings.Contains(said, "interrupted by SIGQUIT") {
				t.Errorf("snap said %q", said)
			}
			if got := h.state(); got != c.want {
				t.Errorf("the data is %s, expected %s", got, c.want)
			}
			if after := h.app().ID; c.want == "old" && after != before {
				t.Error("the container was replaced")
			}
			h.settled()
		})
	}
}

func TestASignalWhileTheAppRestsWakesIt(t *testing.T) {
	h := newAppHost(t)
	h.bulk(192)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP} {
		for _, quiesce := range []string{"pause", "stop"} {
			before := h.app().ID
			p := h.start("capture", h.name, "--quiesce", quiesce)
			stopsWhen(h.T, p.Process, "the app rests", h.rests)
			h.must(p.Process.Signal(sig))
			h.must(p.Process.Signal(syscall.SIGCONT))
			want := 128 + int(sig)
			if sig == syscall.SIGHUP {
				want = 0
			}
			if _, code := h.ended(p); code != want {
				t.Errorf("%s during %s: exit code %d, expected %d", unix.SignalName(sig), quiesce, code, want)
			}
			if after := h.app().ID; after != before {
				t.Error("the container was replaced")
			}
			h.settled()
		}
	}
}
