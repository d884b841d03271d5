package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestTheBenchmarkRuns runs it on tiny data, with what there is, and looks at
// whether everything was measured and nothing was left behind. The numbers mean
// nothing.
func TestTheBenchmarkRuns(t *testing.T) {
	disktest.NeedRoot(t)
	disktest.Need(t, "mkfs.ext4")
	t.Run("small", func(t *testing.T) {
		r := runTiny(t, "small,capture,verify,again,restore,sparse,scale")
		for _, k := range []key{
			{"capture", "small", whoSnap, stored}, {"verify", "small", whoSnap, seconds}, {"verify", "small", whoSum, seconds},
			{unchanged, "small", whoSnap, seconds}, {changed, "small", whoSnap, grown},
			{"restore", "small", whoSnap, peakMiB}, {"restore", sceneSparse, whoSnap, seconds},
			{"capture", sceneFiles(1000), whoSnap, perFile}, {unchanged, sceneFiles(1000), whoSnap, perFile}, {"restore", sceneFiles(100), whoSnap, perFile},
		} {
			r.has(t, k)
		}
		for program, who := range map[string]string{"restic": whoRestic, "borg": "borg", "pigz": "pigz -d | tar x", "zstd": "zstd -d | tar x"} {
			if have(program) {
				r.has(t, key{"restore", "small", who, seconds})
			}
		}
	})
	t.Run("pg", func(t *testing.T) {
		if r := runTiny(t, "pg,capture"); postgresHere() {
			r.has(t, key{"capture", "pg", whoSnap, seconds})
		}
	})
	t.Run("downtime", func(t *testing.T) {
		if r := runTiny(t, "downtime"); have("docker") && firstLine(t.Context(), "docker", "version") != "" {
			for _, scene := range []string{sceneEmpty, sceneMiB(1), sceneHot} {
				r.has(t, key{"downtime", scene, whoSnap, inner})
				r.has(t, key{"downtime", scene, whoSnap, outage})
			}
			r.has(t, key{"downtime", sceneMiB(1), whoSwap, outage})
		}
	})
}

func (r *report) has(t *testing.T, k key) {
	t.Helper()
	if len(r.of(k.Scenario, k.Set, k.Who, k.Metric)) != 1 {
		t.Errorf("%+v was not measured once", k)
	}
}

func runTiny(t *testing.T, only string) *report {
	t.Helper()
	p := tinyPlan()
	if err := p.choose(only); err != nil {
		t.Fatal(err)
	}
	parent := os.Getenv("TMPDIR")
	if parent == "" {
		parent = "/var/tmp"
	}
	dir, err := os.MkdirTemp(parent, "snap-benchtest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL goes through it
		t.Fatal(err)
	}
	var log bytes.Buffer
	r, err := measureAll(t.Context(), p, dir, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("something is still mounted in %s (%v)", dir, err)
	}
	if !strings.Contains(tables(r), "Not a measurement") || !strings.Contains(log.String(), "NOT a measurement") {
		t.Error("it does not say that this is no measurement")
	}
	for _, note := range r.Notes {
		if os.Getenv("SNAP_TEST_SKIPS") == "fail" && !expected(note) {
			t.Errorf("left out: %s", note)
		} else {
			t.Log("left out: ", note)
		}
	}
	return r
}

// expected are the notes that say nothing of the machine's setup.
func expected(note string) bool {
	return strings.Contains(note, "kopia") || strings.Contains(note, "this snap does not know") || strings.Contains(note, "no PostgreSQL")
}
