package store_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

// FuzzIndexLine: nothing reads an index yet, so what counts is that it can be
// read: whatever a file is called, it takes one line of printable text, and the
// line says what the file was.
func FuzzIndexLine(f *testing.F) {
	f.Add("a", int64(1), uint32(0o644), uint32(0), int64(1700000000), int64(5), uint64(7))
	f.Add("a\nb\x1b\xff ü\"", int64(1)<<40, uint32(0o4644), uint32(4294967294), int64(-1), int64(500000000), uint64(1<<63))
	f.Add("tab\there\\", int64(0), uint32(0), uint32(1), int64(-1)<<63, int64(999999999), uint64(0))
	path := f.TempDir()
	f.Fuzz(func(t *testing.T, name string, size int64, mode, uid uint32, sec, nsec int64, inode uint64) {
		d, err := disk.OpenRoot(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		_ = os.Remove(filepath.Join(path, "index.gz"))
		x, err := store.NewIndex(d, "index.gz", store.Origin{Machine: "machine", Boot: "boot"})
		if err != nil {
			t.Fatal(err)
		}
		at := archive.Timespec{Sec: sec, Nsec: int64(uint64(nsec) % 1e9)}
		line := &archive.Line{Entry: archive.Entry{Name: name, Type: archive.Regular, Size: size, Mode: mode, UID: uid, Mtime: at}, Ctime: at, Inode: inode, Member: 3}
		for _, err := range []error{x.Volume(name, "fs", at), x.Add(line), x.Close()} {
			if err != nil {
				t.Fatal(err)
			}
		}
		lines := readIndex(t, filepath.Join(path, "index.gz"))
		if len(lines) != 3 {
			t.Fatalf("%q takes the lines %q", name, lines)
		}
		for i, wanted := range []int{4, 4, 14} {
			if fields := strings.Split(lines[i], "\t"); len(fields) != wanted {
				t.Fatalf("line %d has the fields %q", i, fields)
			}
		}
		for i, field := range []string{strings.Split(lines[1], "\t")[1], strings.Split(lines[2], "\t")[0]} {
			if got, err := strconv.Unquote(field); err != nil || got != name {
				t.Errorf("in line %d %q is %q: %v", i+1, name, got, err)
			}
		}
		if got := strings.Split(lines[2], "\t")[2]; got != strconv.FormatInt(size, 10) {
			t.Errorf("the size %d is %s", size, got)
		}
		for _, r := range strings.Join(lines, "") {
			if r != '\t' && !strconv.IsPrint(r) {
				t.Errorf("%q stands there raw", r)
			}
		}
	})
}

func readIndex(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// The index of another snapshot is whole, and would say that other files are unchanged. A
// manifest of an earlier version means none, and takes what is there.
func TestTheIndexOfAnotherSnapshotIsNotUsed(t *testing.T) {
	const other = "20260102T030406Z-abcdef"
	path := t.TempDir()
	s := storeAt(t, path)
	m := publish(t, s, "blog", sid, piece("a"))
	publish(t, s, "blog", other, piece("b"))
	of := store.Origin{Machine: "machine", Boot: "boot"}
	open := func(m *store.Manifest) []error {
		x, err := s.OpenIndex(m, of)
		y, placesErr := s.OpenPlaces(m)
		for _, r := range []*store.IndexReader{x, y} {
			if r != nil {
				r.Close()
			}
		}
		return []error{err, placesErr}
	}
	if errs := open(m); m.Index == "" || errs[0] != nil || errs[1] != nil {
		t.Fatalf("its own, %q: %v", m.Index, errs)
	}
	at := filepath.Join(path, "snapshots/blog", sid, "index.gz")
	data, err := os.ReadFile(filepath.Join(path, "snapshots/blog", other, "index.gz"))
	if err == nil {
		var own []byte
		if own, err = os.ReadFile(at); bytes.Equal(own, data) { // but for a comment they are alike
			data[9] ^= 0xff // OS (RFC 1952): no reader minds
		}
	}
	if err == nil {
		err = os.WriteFile(at, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range open(m) {
		if !errors.Is(err, store.ErrIndex) {
			t.Errorf("another's was opened: %v", err)
		}
	}
	m.Index = ""
	if errs := open(m); errs[0] != nil || errs[1] != nil {
		t.Errorf("with a manifest of before: %v", errs)
	}
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	for _, err := range open(m) {
		if !errors.Is(err, store.ErrIndex) {
			t.Errorf("none was opened: %v", err)
		}
	}
}
