package store_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

// shoot publishes a snapshot of the pieces, compressed by codec, and loads it
// again. It returns what the store grew by.
func shoot(t *testing.T, s *store.Store, sid string, codec archive.Codec, verify bool, pieces ...string) (*store.Manifest, int64) {
	t.Helper()
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, verify, codec)
	var list []archive.Member
	for _, p := range pieces {
		list = append(list, put(t, b, p))
	}
	m := manifest("blog", sid, list...)
	m.Volumes[0].Compression = codec
	if err := b.Publish(m, index(t, dir)); err != nil {
		t.Fatal(err)
	}
	m, err := s.Load("blog", sid)
	if err != nil {
		t.Fatal(err)
	}
	return m, b.Added()
}

// One store holds both: what one codec has stored is not there for the other,
// so that the members of each snapshot are wholly of one.
func TestTheSameBytesAreStoredOnceForEachCodec(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	const a, b, c, d = "20260102T030405Z-00000a", "20260102T030405Z-00000b", "20260102T030405Z-00000c", "20260102T030405Z-00000d"
	one, two := piece("a"), piece("b")
	for _, verify := range []bool{false, true} {
		for i, codec := range []archive.Codec{archive.Gzip, archive.Zstd} {
			id := []string{a, b, c, d}[i]
			if verify {
				id = []string{a, b, c, d}[2+i]
			}
			m, added := shoot(t, s, id, codec, verify, one, two, one)
			if (added > 0) == verify {
				t.Errorf("%s, verify %v: the store grew by %d bytes", codec, verify, added)
			}
			for _, member := range m.Volumes[0].Members {
				if member.Codec != codec {
					t.Errorf("a %s member in a %s snapshot", member.Codec, codec)
				}
			}
		}
	}
	id1, id2 := archive.MemberID([]byte(one)), archive.MemberID([]byte(two))
	want := []string{id1 + ".gz", id1 + ".zst", id2 + ".gz", id2 + ".zst"}
	got := members(t, path)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the store holds %v", got)
	}
}

func TestConcatenatedMembersAreAFileOfTheirCodec(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	want := piece("a") + piece("b") + piece("c")
	for codec, command := range map[archive.Codec][]string{archive.Gzip: {"gzip", "-dc"}, archive.Zstd: {"zstd", "-dc"}} {
		m, _ := shoot(t, s, "20260102T030405Z-00000"+string(rune('0'+codec)), codec, false, piece("a"), piece("b"), piece("c"))
		var files []byte
		for _, member := range m.Volumes[0].Members {
			data, err := os.ReadFile(filepath.Join(path, "members", member.ID[:2], member.ID+codec.Ext()))
			if err != nil || int64(len(data)) != member.Stored {
				t.Fatalf("%d bytes, stored are %d: %v", len(data), member.Stored, err)
			}
			files = append(files, data...)
		}
		if _, err := exec.LookPath(command[0]); err != nil {
			t.Skip("without zstd: testdata/setup.sh installs it")
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdin = bytes.NewReader(files)
		if out, err := cmd.Output(); err != nil || string(out) != want {
			t.Errorf("%q of the members gives %d bytes: %v", command, len(out), err)
		}
	}
}

func TestAMemberOfTheOtherCodecDoesNotReplaceOne(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	_, _ = shoot(t, s, "20260102T030405Z-00000a", archive.Gzip, false, piece("a"))
	m, _ := shoot(t, s, "20260102T030405Z-00000b", archive.Zstd, false, piece("a"))
	v := &m.Volumes[0]
	file := filepath.Join(path, "members", v.Members[0].ID[:2], v.Members[0].ID)
	if err := os.Remove(file + ".zst"); err != nil {
		t.Fatal(err)
	}
	if lack, err := s.Lacking(t.Context(), v.Members); lack != (store.Lacking{Missing: 1, First: v.Members[0].ID}) || err != nil {
		t.Errorf("lacking are %+v: %v", lack, err)
	}
	if _, err := s.Open(t.Context(), v.Members[0], nil); !errors.Is(err, archive.ErrRefused) {
		t.Errorf("it is opened: %v", err)
	}
	// Nor does it pass for one under the other's name.
	if err := os.Link(file+".gz", file+".zst"); err != nil {
		t.Fatal(err)
	}
	data, err := s.Open(t.Context(), v.Members[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Inflate(nil, data, v.Members[0]); !errors.Is(err, archive.ErrRefused) || !strings.Contains(err.Error(), "not zstd") {
		t.Errorf("gzip under the name of zstd: %v", err)
	}
	if _, added := shoot(t, s, "20260102T030405Z-00000c", archive.Zstd, true, piece("a")); added == 0 {
		t.Error("the damaged member is relied upon")
	}
}

func TestASnapshotThatDeniesItsCodecIsNotPublished(t *testing.T) {
	s := storeAt(t, t.TempDir())
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, false, archive.Zstd)
	if err := b.Publish(manifest("blog", sid, put(t, b, piece("a"))), index(t, dir)); err == nil || !strings.Contains(err.Error(), "its members are zstd") {
		t.Errorf("published: %v", err)
	}
	if _, err := s.Load("blog", sid); err == nil || errors.Is(err, disk.ErrDamaged) {
		t.Errorf("afterwards: %v", err)
	}
}
