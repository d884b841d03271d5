package journal_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
)

// A history grows to a bound, keeps what is new, and bears lines that are none.
func TestAHistoryIsBoundedAndKeepsWhatIsNew(t *testing.T) {
	path := t.TempDir()
	j := journalAt(t, path)
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

// A history moves to another workload before that one's own, whole lines and each once,
// however often the move was cut.
func TestAHistoryMovesToAnotherWorkload(t *testing.T) {
	path := t.TempDir()
	j := journalAt(t, path)
	line := func(n int) string {
		return fmt.Sprintf(`{"time":"2026-01-02T03:04:%02dZ","verb":"capture","result":"ok","seconds":1}`+"\n", n)
	}
	old, own := line(1)+line(2)+`{"time":"2026-`, line(3)
	move := func(what, from, to, want string) {
		t.Helper()
		disktest.Write(t, path, map[string]string{"history/a.jsonl": from, "history/b.jsonl": to})
		if from == "" {
			_ = os.Remove(path + "/history/a.jsonl")
		}
		if err := j.MoveRuns("a", "b"); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got, err := os.ReadFile(path + "/history/b.jsonl"); err != nil || string(got) != want {
			t.Errorf("%s it is\n%s\nexpected\n%s: %v", what, got, want, err)
		}
		if _, err := os.Stat(path + "/history/a.jsonl"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s the old one is there: %v", what, err)
		}
	}
	if err := j.MoveRuns("a", "b"); err != nil {
		t.Errorf("without any: %v", err)
	}
	move("onto one", old, own, line(1)+line(2)+own)
	move("onto none", old, "", line(1)+line(2))
	move("again, after it was cut", old, line(1)+line(2)+own, line(1)+line(2)+own)
	move("of none", "", own, own)
	long := strings.Repeat(line(4), 12000)
	disktest.Write(t, path, map[string]string{"history/a.jsonl": long})
	if err := j.MoveRuns("a", "c"); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path + "/history/c.jsonl"); err != nil || info.Size() > 1<<20 {
		t.Errorf("a long one is %d bytes: %v", info.Size(), err)
	}
}
