package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// Killed at any rename, a restore is undone only if it stayed: not while it is pending, and
// not when its recovery has rolled it back.
func TestAnUndoAfterAKillTellsWhetherTheRestoreStayed(t *testing.T) {
	disktest.Need(t, "strace")
	dir, config, sid := fileHost(t)
	trace := filepath.Join(t.TempDir(), "trace")
	restore := []string{"snap", config, "restore", "files", sid, "--confirm", sid}
	run := func(words ...string) (string, int) {
		cmd := exec.Command(words[0], words[1:]...)
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run(append(straced(trace), restore...)...); code != 0 {
		t.Fatal(out)
	}
	calls := renames(t, trace)
	seen := map[string]int{}
	for _, call := range calls {
		dir, config, sid = fileHost(t)
		restore = []string{"snap", config, "restore", "files", sid, "--confirm", sid}
		run(append(straced(trace, call.inject("KILL")), restore...)...)
		begins, _ := filepath.Glob(filepath.Join(dir, "state/tx/2*/begin"))
		began := false
		for _, path := range begins {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			began = began || strings.Contains(string(text), `"kind": "restore"`)
			if out, code := run("snap", config, "undo", "files", "--plan"); code != 6 || !strings.Contains(out, "hint: snap recover files") {
				t.Errorf("%s: while it is pending an undo ends with %d: %s", call.args, code, out)
			}
		}
		if out, code := run("snap", config, "recover"); code != 0 {
			t.Fatalf("%s: the recovery ends with %d: %s", call.args, code, out)
		}
		page := func() string {
			text, err := os.ReadFile(filepath.Join(dir, "srv/files/page"))
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
		stayed := page() == "first"
		out, code := run("snap", config, "undo", "files", "--plan", "--json")
		if began && !stayed {
			seen["rolled back"]++
			if code != 3 || !strings.Contains(out, `"code":"nothing_to_undo"`) || !strings.Contains(out, "was rolled back") {
				t.Errorf("%s: it was rolled back, and an undo ends with %d: %s", call.args, code, out)
			}
			continue
		}
		var plan struct{ SID string }
		if err := json.Unmarshal([]byte(out), &plan); err != nil || code != 0 {
			t.Fatalf("%s: the plan ends with %d: %s", call.args, code, out)
		}
		if out, code := run("snap", config, "undo", "files", "--confirm", plan.SID); code != 0 {
			t.Fatalf("%s: the undo ends with %d: %s", call.args, code, out)
		}
		want := map[bool]string{true: "live", false: "second"}[stayed] // not begun: the restore before
		if got := page(); got != want {
			t.Errorf("%s: after the undo the data is %q, expected %q", call.args, got, want)
		}
		seen[want]++
	}
	if seen["rolled back"] == 0 || seen["live"] == 0 || seen["second"] == 0 {
		t.Errorf("not every case was there: %v", seen)
	}
}
