package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/store"
)

func TestFormerNamesOfVersion1AreWrittenAndReadAsEver(t *testing.T) {
	data, err := disk.MarshalSealed(&store.Was{Names: []string{"blog", "journal"}}, "snap-was", 1)
	if err != nil {
		t.Fatal(err)
	}
	want := golden(t, "was.v1.json", data)
	path := t.TempDir()
	disktest.Write(t, path, map[string]string{"snapshots/diary/was.json": string(want)})
	s := storeAt(t, path)
	for name, is := range map[string]bool{"blog": true, "journal": true, "diary": false, "": false} {
		if was, err := s.Recognise("diary", name); was != is || err != nil {
			t.Errorf("diary was %q: %v, %v", name, was, err)
		}
	}
}

// published makes a snapshot of a workload.
func published(t *testing.T, s *store.Store, workload, sid string) {
	t.Helper()
	b := s.NewBatch(t.Context(), scratch(t, s), false, archive.Gzip)
	m := manifest(workload, sid, put(t, b, strings.Repeat(sid, 400)))
	if err := errors.Join(b.Keep([]byte(sid)), b.Publish(m, "")); err != nil {
		t.Fatal(err)
	}
}

// Snapshots are found under the name of now, whatever their manifests call it, as often as
// it changes; those of another folder are not.
func TestSnapshotsAreThoseOfTheNewName(t *testing.T) {
	const second, third = "20260102T030405Z-000002", "20260102T030405Z-000003"
	path := t.TempDir()
	s := storeAt(t, path)
	published(t, s, "blog", sid)
	if err := s.Rename("blog", "journal"); err != nil {
		t.Fatal(err)
	}
	published(t, s, "journal", second)
	published(t, s, "blog", third) // of another workload, which has the old name now
	if err := s.Rename("journal", "diary"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{sid, second} {
		m, err := s.Load("diary", id)
		if err != nil || m.Workload != "diary" {
			t.Errorf("%s: %+v, %v", id, m, err)
			continue
		}
		blind(t, filepath.Join(path, "snapshots/diary", id, "manifest.json")) // the summary alone says it
		if sum, err := s.Summary("diary", id); err != nil || sum.Workload != "diary" {
			t.Errorf("the summary of %s: %+v, %v", id, sum, err)
		}
		if kept, err := s.Kept(m); string(kept) != id || err != nil {
			t.Errorf("%s keeps %q: %v", id, kept, err)
		}
	}
	if err := s.Rename("diary", "blog"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a name that has snapshots: %v", err)
	}
	if err := s.Rename("nobody", "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a name without snapshots: %v", err)
	}
	if m, err := s.Load("blog", third); err != nil || m.Workload != "blog" {
		t.Errorf("the other workload's: %+v, %v", m, err)
	}
	// What a capture that failed, or a rename and a delete, have left is not a snapshot.
	disktest.Write(t, path, map[string]string{"snapshots/empty/was.json": "anything", "snapshots/full/notes": "of somebody"})
	if err := s.Rename("blog", "empty"); err != nil {
		t.Errorf("onto an empty folder: %v", err)
	}
	if err := s.Rename("empty", "full"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("onto a folder that somebody uses: %v", err)
	}
	if m, err := s.Load("empty", third); err != nil || m.Workload != "empty" {
		t.Errorf("after both: %+v, %v", m, err)
	}
}

// Only the folder's own list of names counts, and only while it is whole.
func TestAManifestOfAnotherWorkloadIsDamaged(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	published(t, s, "blog", sid)
	if err := s.Rename("blog", "journal"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "snapshots/journal/was.json")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newer, err := disk.MarshalSealed(&store.Was{Names: []string{"blog"}}, "snap-was", 2)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"flipped":            {bytes.Replace(good, []byte("blog"), []byte("blob"), 1), disk.ErrDamaged},
		"of other names":     {reseal(bytes.Replace(good, []byte("blog"), []byte("blob"), 1)), disk.ErrDamaged},
		"of a later version": {newer, disk.ErrTooNew},
		"gone":               {nil, disk.ErrDamaged},
	} {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if c.data != nil {
			disktest.Write(t, filepath.Dir(file), map[string]string{"was.json": string(c.data)})
		}
		if m, err := s.Load("journal", sid); !errors.Is(err, c.want) {
			t.Errorf("a list %s: %+v, %v", name, m, err)
		}
		disktest.Write(t, filepath.Dir(file), map[string]string{"was.json": string(good)})
	}
	if _, err := s.Load("journal", sid); err != nil {
		t.Error(err)
	}

	// The operator can say what the list said, of what the manifests say too.
	disktest.Write(t, filepath.Dir(file), map[string]string{"was.json": "damaged"})
	for name, is := range map[string]bool{"nobody": false, "blog": true} {
		if was, err := s.Recognise("journal", name); was != is || err != nil {
			t.Errorf("recognised as %s: %v, %v", name, was, err)
		}
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, good) {
		t.Errorf("the list is\n%s\nand was\n%s: %v", again, good, err)
	}
}

// Whatever stands in the list of names, a snapshot is found under the name of its folder or
// not at all.
func FuzzWas(f *testing.F) {
	names, err := disk.MarshalSealed(&store.Was{Names: []string{"blog"}}, "snap-was", 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(names)
	f.Add(reseal(bytes.Replace(names, []byte(`"blog"`), []byte(`"", 7`), 1)))
	path := f.TempDir()
	disktest.Write(f, path, map[string]string{"snapshots/journal/" + sid + "/manifest.json": string(sealedManifest(f))})
	s := storeAt(f, path)
	file := filepath.Join(path, "snapshots/journal/was.json")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := s.Load("journal", sid); err == nil && m.Workload != "journal" || err != nil && !errors.Is(err, disk.ErrDamaged) && !errors.Is(err, disk.ErrTooNew) {
			t.Errorf("%q: %+v, %v", data, m, err)
		}
	})
}
