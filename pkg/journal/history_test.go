package journal_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// A history grows to a bound, keeps what is new, and bears lines that are none.
func TestAHistoryIsBoundedAndKeepsWhatIsNew(t *testing.T) {
	path := t.TempDir()
	root, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	j, err := journal.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	if runs, err := j.Runs("app"); len(runs) > 0 || err != nil {
		t.Fatalf("of nothing: %v, %v", runs, err)
	}
	const n = 1500
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range n {
		if err := j.AddRun("app", journal.Run{Time: at.Add(time.Duration(i) * time.Hour), Verb: "capture", Result: "ok", Error: strings.Repeat("x", 1000)}); err != nil {
			t.Fatal(err)
		}
	}
	file := path + "/history/app.jsonl"
	info, err := os.Stat(file)
	if err != nil || info.Size() > 1<<20+2000 || info.Mode().Perm() != 0o600 {
		t.Fatalf("the file: %v, %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, append(text, "no JSON\n{\"time\":7}\n{}\n{\"time\":\"20"...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	runs, err := j.Runs("app")
	if err != nil || len(runs) < 400 || len(runs) == n {
		t.Fatalf("%d runs: %v", len(runs), err)
	}
	for i, r := range runs {
		if want := at.Add(time.Duration(n-len(runs)+i) * time.Hour); !r.Time.Equal(want) {
			t.Fatalf("run %d is of %v, expected %v", i, r.Time, want)
		}
	}
	if runs, err := j.Runs("other"); len(runs) > 0 || err != nil {
		t.Errorf("of another workload: %v, %v", runs, err)
	}
}
