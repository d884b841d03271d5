package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

func FuzzBegin(f *testing.F)   { fuzzRecord(f, "begin") }
func FuzzReady(f *testing.F)   { fuzzRecord(f, "ready") }
func FuzzTimes(f *testing.F)   { fuzzRecord(f, "times") }
func FuzzCommit(f *testing.F)  { fuzzRecord(f, "commit") }
func FuzzRevert(f *testing.F)  { fuzzRecord(f, "revert") }
func FuzzResolve(f *testing.F) { fuzzRecord(f, "resolve") }

// fuzzRecord gives any bytes, with a true checksum, as one record beside
// good ones of all others. The transaction is then refused as damaged or too new, or it is
// one on which a recovery may rely, and neither changes a byte of it.
func fuzzRecord(f *testing.F, name string) {
	good := records(f)
	f.Add(good[name])
	for _, other := range good {
		f.Add(other)
	}
	for _, change := range [][2]string{
		{`"version": 1`, `"version": 2`}, {goldenTx, "../../evil"}, {`"live"`, `"staged"`}, {`"tx"`, `"TX"`}, {`"sec": 1`, `"sec": 1e400`},
		{`"root": "/srv/apps"`, `"root": "../.."`}, {`"volumes": [`, `"volumes": [[`}, {`"commit"`, `"revert"`},
	} {
		f.Add(bytes.Replace(good[name], []byte(change[0]), []byte(change[1]), 1))
	}
	// On tmpfs where there is one: Load syncs what it reads.
	store, err := os.MkdirTemp(memoryOr(f.TempDir()), "snap-fuzz-")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { os.RemoveAll(store) })
	dir := filepath.Join(store, "tx", goldenTx)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		f.Fatal(err)
	}
	root, err := disk.OpenRoot(store)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { root.Close() })
	j, err := journal.Open(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { j.Close() })
	for other, data := range good {
		if err := os.WriteFile(filepath.Join(dir, other), data, 0o600); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		const sum = `"checksum": "sha256:`
		if at := bytes.Index(data, []byte(sum)); at >= 0 {
			data = reseal(filled(data, at+len(sum)+64))
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		tx, err := j.Load(goldenTx)
		if now, _ := os.ReadFile(filepath.Join(dir, name)); !bytes.Equal(now, data) {
			t.Error("the record has changed")
		}
		if err != nil {
			if !errors.Is(err, disk.ErrDamaged) && !errors.Is(err, disk.ErrTooNew) || errors.Is(err, os.ErrNotExist) {
				t.Errorf("the answer is %v", err)
			}
			return
		}
		defer tx.Close()
		if why := unreliable(tx); why != "" {
			t.Errorf("%s was loaded: %s: %s", name, why, data)
		}
	})
}

// FuzzRuns: whatever a power cut has left of a history, it is read, no run of it is without
// a time, and the next run that is added is read as it was.
func FuzzRuns(f *testing.F) {
	f.Add([]byte(`{"time":"2026-11-23T17:04:47Z","verb":"capture","result":"ok","seconds":1}` + "\n"))
	f.Add([]byte(`{"time":"2026-11-23T17:04:47Z","verb":"capt`))
	f.Add([]byte("{\"time\":7}\n{}\nnull\n\x00\x00\n[]\n\"\u001b[2J\"\n"))
	f.Add([]byte(`{"time":"2026-11-23T17:04:47Z","seconds":1e400,"bytes":-9223372036854775808}`))
	f.Add([]byte(nil))
	path := f.TempDir()
	if err := os.Mkdir(filepath.Join(path, "history"), 0o700); err != nil {
		f.Fatal(err)
	}
	j := journalAt(f, path)
	own := journal.Run{Time: time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC), Verb: "capture", Result: "failed", Error: "no\nspace \xff"}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(filepath.Join(path, "history/blog.jsonl"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := j.Runs("blog")
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range before {
			if r.Time.IsZero() {
				t.Errorf("%+v", r)
			}
		}
		if err := j.AddRun("blog", own); err != nil {
			t.Fatal(err)
		}
		after, err := j.Runs("blog")
		if err != nil || len(after) == 0 || len(data) < 1<<19 && len(after) != len(before)+1 {
			t.Fatalf("after %d runs there are %d: %v", len(before), len(after), err)
		}
		if last := after[len(after)-1]; !last.Time.Equal(own.Time) || last.Result != own.Result || !strings.HasPrefix(last.Error, "no\nspace") {
			t.Errorf("the last run is %+v", last)
		}
	})
}

// unreliable says what of a loaded transaction a recovery could not act upon.
func unreliable(tx *journal.Tx) string {
	b := tx.Begin
	switch {
	case b.Tx != goldenTx || tx.ReadyRecord.Tx != goldenTx || tx.TimesRecord.Tx != goldenTx:
		return "it is of another transaction"
	case tx.Found() != "resolve" || !tx.Committed || !tx.Reverted:
		return "it is found as " + tx.Found()
	case len(tx.ReadyRecord.Volumes) != len(b.Volumes) || len(tx.TimesRecord.Live) != len(b.Volumes):
		return "its records are of different volumes"
	}
	for i, v := range b.Volumes {
		if v.Root == "" || v.Rel == "" || v.Entry == "" {
			return fmt.Sprintf("volume %d has no place", i)
		}
		if h := tx.ReadyRecord.Volumes[i]; h.Live == "" || h.Staged == "" || h.Live == h.Staged {
			return fmt.Sprintf("the directories of volume %d cannot be told apart", i)
		}
	}
	again, err := disk.MarshalSealed(b, "snap-tx-begin", 1)
	if err != nil {
		return err.Error()
	}
	read := &journal.Begin{}
	if err := disk.UnmarshalSealed(again, read, "snap-tx-begin", 1); err != nil || !reflect.DeepEqual(read, b) {
		return fmt.Sprintf("begin, written again, is %+v: %v", read, err)
	}
	return ""
}

// filled fills data up to n bytes at least.
func filled(data []byte, n int) []byte {
	if len(data) >= n {
		return data
	}
	return append(bytes.Clone(data), strings.Repeat(" ", n-len(data))...)
}

// memoryOr is a directory in memory, where there is one.
func memoryOr(dir string) string {
	if unix.Access("/dev/shm", unix.W_OK) == nil {
		return "/dev/shm"
	}
	return dir
}
