package journal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/journal"
)

// fullAudit is a log of 10 MiB whose lines have this verb.
func fullAudit(t *testing.T, path, verb string) {
	t.Helper()
	line := fmt.Sprintf("{\"verb\":%q,\"workload\":%q}\n", verb, strings.Repeat("w", 1000))
	if err := os.WriteFile(path, bytes.Repeat([]byte(line), 10<<20/len(line)+1), 0o600); err != nil {
		t.Fatal(err)
	}
}

// verbs are those of a log's lines, each once.
func verbs(t *testing.T, path string) (list []string, lines int) {
	t.Helper()
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var a journal.Audit
		if err := json.Unmarshal(line, &a); err != nil {
			t.Fatalf("%s has the line %q: %v", path, line, err)
		}
		lines++
		if len(list) == 0 || list[len(list)-1] != a.Verb {
			list = append(list, a.Verb)
		}
	}
	return list, lines
}

func TestAFullAuditLogIsPutAside(t *testing.T) {
	dir := t.TempDir()
	j, log := journalAt(t, dir), dir+"/audit.jsonl"
	for n := range 8 {
		fullAudit(t, log, fmt.Sprint("full", n))
		if err := j.Record(journal.Audit{Verb: "capture"}); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{log: "capture", log + ".1": "full7", log + ".2": "full6", log + ".3": "full5", log + ".4": "full4", log + ".5": "full3", log + ".6": ""} {
		if list, _ := verbs(t, file); strings.Join(list, " ") != want {
			t.Errorf("%s has lines of %q, expected %q", file, list, want)
		}
	}
}

// Whatever rename is the last before a power cut, no log is lost but the oldest, and that
// only where all are there.
func TestARotationThatWasCutLosesNoLog(t *testing.T) {
	for gap := 1; gap <= 5; gap++ {
		t.Run(strconv.Itoa(gap), func(t *testing.T) {
			dir := t.TempDir()
			log := dir + "/audit.jsonl"
			for n := range 6 {
				if n == gap {
					continue
				}
				name := log
				if n > 0 {
					name += fmt.Sprint(".", n)
				}
				fullAudit(t, name, fmt.Sprint("full", n))
			}
			if err := journalAt(t, dir).Record(journal.Audit{Verb: "capture"}); err != nil {
				t.Fatal(err)
			}
			found := map[string]bool{}
			for _, n := range []string{"", ".1", ".2", ".3", ".4", ".5"} {
				list, _ := verbs(t, log+n)
				for _, verb := range list {
					found[verb] = true
				}
			}
			if len(found) != 6 {
				t.Errorf("there are lines of %v", found)
			}
		})
	}
}

func TestALineAfterACutOneIsWhole(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/audit.jsonl", []byte(`{"verb":"cut`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := journalAt(t, dir).Record(journal.Audit{Verb: "capture"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(dir + "/audit.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	cut, whole, _ := strings.Cut(string(text), "\n")
	if cut != `{"verb":"cut` || !json.Valid([]byte(whole)) {
		t.Errorf("the log is %q", text)
	}
}

// Several processes fill the log at a time: each line is there, whole, in one of the
// files.
func TestProcessesThatFillTheAuditLogLoseNoLine(t *testing.T) {
	const processes, lines = 3, 60
	if dir := os.Getenv("AUDIT_DIR"); dir != "" {
		j := journalAt(t, dir)
		for i := range lines {
			if err := j.Record(journal.Audit{Verb: os.Getenv("AUDIT_VERB"), Error: strings.Repeat("e", 256<<10), SID: strconv.Itoa(i)}); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	dir := t.TempDir()
	journalAt(t, dir)
	var writers []*exec.Cmd
	for n := range processes {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), "AUDIT_DIR="+dir, fmt.Sprint("AUDIT_VERB=w", n))
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, cmd)
	}
	for _, cmd := range writers {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	// 45 MiB fill fewer files than are kept.
	all := 0
	for n := range 7 {
		name := dir + "/audit.jsonl"
		if n > 0 {
			name += fmt.Sprint(".", n)
		}
		_, found := verbs(t, name)
		all += found
	}
	if all != processes*lines {
		t.Errorf("%d lines are there of %d", all, processes*lines)
	}
}
