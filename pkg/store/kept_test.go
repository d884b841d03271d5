package store_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

func TestAManifestOfVersion5WithAConfigIsWrittenAndReadAsEver(t *testing.T) {
	m := summed(1)
	m.Config = strings.Repeat("fedcba9876543210", 4)
	want := golden(t, "manifest.v5.config.json", sealedAs(t, m, "snap-manifest", 5))
	m, err := loaded(t, want)
	if err != nil || m.Config[:4] != "fedc" {
		t.Fatalf("%+v: %v", m, err)
	}
	if err := disk.UnmarshalSealed(want, &store.Manifest{}, "snap-manifest", 4); !errors.Is(err, disk.ErrTooNew) || errors.Is(err, disk.ErrDamaged) {
		t.Errorf("to an older program it is: %v", err)
	}
	for name, forge := range map[string][2]string{
		"in version 4": {`"version": 5`, `"version": 4`},
		"in capitals":  {`"config": "fe`, `"config": "FE`},
		"that is cut":  {`"config": "fe`, `"config": "`},
		"of a path":    {`"config": "fedcba98/`, `"config": "../../..`},
	} {
		forged := bytes.Replace(want, []byte(strings.TrimSuffix(forge[0], "/")), []byte(forge[1]), 1)
		if bytes.Equal(forged, want) {
			t.Fatalf("%s: nothing is forged", name)
		}
		if _, err := loaded(t, reseal(forged)); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("a config %s: %v", name, err)
		}
	}
}

// What a snapshot keeps comes and goes with it, and is the document that the manifest means.
func TestWhatASnapshotKeepsIsThereWithIt(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	publish := func(sid string, document []byte) *store.Manifest {
		t.Helper()
		b := s.NewBatch(t.Context(), scratch(t, s), false, archive.Gzip)
		m := manifest("blog", sid, put(t, b, strings.Repeat(sid, 400)))
		if document != nil {
			if err := b.Keep(document); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Publish(m, ""); err != nil {
			t.Fatal(err)
		}
		m, err := s.Load("blog", sid)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := publish(sid, []byte("a document"))
	file := filepath.Join(path, "snapshots/blog", sid, "config.json")
	if got, err := s.Kept(m); string(got) != "a document" || err != nil {
		t.Errorf("it keeps %q: %v", got, err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file is %v: %v", info, err)
	}
	without := publish("20260102T030405Z-000009", nil)
	if got, err := s.Kept(without); got != nil || err != nil || without.Config != "" {
		t.Errorf("without one it keeps %q, %q: %v", got, without.Config, err)
	}
	for name, damage := range map[string]func() error{
		"another document": func() error { return os.WriteFile(file, []byte("another"), 0o600) },
		"a symlink":        func() error { return errors.Join(os.Remove(file), os.Symlink("manifest.json", file)) },
		"a fifo":           func() error { return errors.Join(os.Remove(file), unix.Mkfifo(file, 0o600)) },
		"a long file": func() error {
			return errors.Join(os.Remove(file), os.WriteFile(file, nil, 0o600), os.Truncate(file, store.MaxKept+1))
		},
		"nothing": func() error { return os.Remove(file) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Kept(m); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s in its place: %q, %v", name, got, err)
		}
		if err := errors.Join(os.RemoveAll(file), os.WriteFile(file, []byte("a document"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete("blog", []string{sid}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(file)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there after its snapshot: %v", err)
	}
	b := s.NewBatch(t.Context(), scratch(t, s), false, archive.Gzip)
	if err := b.Keep(make([]byte, store.MaxKept+1)); err == nil {
		t.Error("a document that cannot be read was kept")
	}
}
