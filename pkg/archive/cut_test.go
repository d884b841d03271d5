package archive_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// namer is a sink that stores nothing and only returns the members.
type namer struct{}

func (namer) Put(tar []byte) (archive.Member, error) {
	return archive.Member{ID: archive.MemberID(tar), Tar: int64(len(tar))}, nil
}

func cut(t *testing.T, dir string) *archive.Result {
	t.Helper()
	result, err := archive.Write(context.Background(), open(t, dir), namer{}, archive.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// anew returns how many bytes of members the second capture stores that the first did
// not store.
func anew(first, second *archive.Result) (sum int64) {
	have := map[string]bool{}
	for _, m := range first.Members {
		have[m.ID] = true
	}
	for _, m := range second.Members {
		if !have[m.ID] {
			sum += m.Tar
		}
	}
	return sum
}

// The three groups are the one with the name, the next one, and the one with the header
// of the directory, whose time changes too. None is larger than half a MiB.
const threeGroups = 3 << 19

func TestAnAddedOrRemovedFileRewritesAtMostThreeGroups(t *testing.T) {
	live := t.TempDir()
	files := map[string]string{}
	for i := range 5000 {
		files[fmt.Sprintf("d%d/%08x", i%5, uint32(i)*2654435761)] = strings.Repeat(fmt.Sprintln(i), 20+i%100)
	}
	disktest.Write(t, live, files)
	last := cut(t, live)
	var total int64
	for _, m := range last.Members {
		total += m.Tar
	}
	step := func(what string, change func() error) {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		now := cut(t, live)
		sum := anew(last, now)
		if sum == 0 || sum > threeGroups {
			t.Errorf("%s: %d of %d bytes stored anew, at most %d", what, sum, total, threeGroups)
		}
		t.Logf("%s: %d of %d bytes", what, sum, total)
		last = now
	}
	for _, dir := range []string{"d0", "d2"} {
		for _, name := range []string{"0", "zz"} {
			path := filepath.Join(live, dir, name)
			step("add "+dir+"/"+name, func() error { return os.WriteFile(path, []byte("new"), 0o600) })
			step("rename "+dir+"/"+name, func() error { return os.Rename(path, path+"1") })
			step("remove "+dir+"/"+name, func() error { return os.Remove(path + "1") })
		}
	}
}

func TestALargeFileSharesWhatDidNotChange(t *testing.T) {
	live := t.TempDir()
	disktest.Write(t, live, map[string]string{"a": "a", "z": "z"})
	large := filepath.Join(live, "large")
	var content strings.Builder
	for i := range 1 << 20 {
		fmt.Fprintf(&content, "%07d\n", i) // 8 MiB, no two pieces alike
	}
	if err := os.WriteFile(large, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	last := cut(t, live)
	for _, c := range []struct {
		what   string
		change func() error
		most   int64
	}{
		{"only its mode", func() error { return os.Chmod(large, 0o644) }, 8 << 10},
		{"only its owner", func() error { return os.Chown(large, 1, 1) }, 8 << 10},
		{"a file before it grows", func() error { return os.WriteFile(live+"/a", make([]byte, 10_000), 0o600) }, 32 << 10},
		{"one byte in the middle", func() error { return patch(large, 5<<20+1, "x") }, 1<<20 + 32<<10},
		{"a byte at its end", func() error { return patch(large, 8<<20, "x") }, 32 << 10},
	} {
		if err := c.change(); err != nil {
			t.Fatal(err)
		}
		now := cut(t, live)
		if sum := anew(last, now); sum == 0 || sum > c.most {
			t.Errorf("%s: %d bytes stored anew, at most %d", c.what, sum, c.most)
		}
		last = now
	}
}

func patch(path string, at int64, s string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt([]byte(s), at)
	return err
}

func TestNoMemberIsLargerThanAMemberMayBe(t *testing.T) {
	live := t.TempDir()
	disktest.Write(t, live, map[string]string{"large": strings.Repeat("x", 5<<20), "edge": strings.Repeat("x", 256<<10)})
	for i := range 30 {
		disktest.Write(t, live, map[string]string{fmt.Sprint("near", i): strings.Repeat("x", 256<<10)})
	}
	result := cut(t, live)
	for _, m := range result.Members {
		if m.Tar > 2<<20 {
			t.Errorf("member of %d bytes", m.Tar)
		}
	}
}

// With more extents than a map may have, the content is the same, and Extract accepts
// the map.
func TestAFileWithMoreExtentsThanAMapHoldsIsRestored(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 300) // blocks of 1 KiB
	live := mkdir(t, dir+"/live")
	f, err := os.Create(live + "/holey")
	if err != nil {
		t.Fatal(err)
	}
	for i := range int64(1<<16 + 100) {
		if _, err := f.WriteAt([]byte{byte(i), byte(i >> 8), 'x'}, i*2048); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	stretches := 0
	m, result := capture(t, live, archive.WriteOptions{Index: func(l *archive.Line) error {
		stretches = max(stretches, len(l.Extents))
		return nil
	}})
	if stretches == 0 || stretches > 1<<16 {
		t.Fatalf("the map has %d stretches", stretches)
	}
	if err := os.Remove(live + "/holey"); err != nil { // room for the copy
		t.Fatal(err)
	}
	staged := mkdir(t, dir+"/staged")
	opt := archivetest.Limits()
	opt.MaxBytes = result.Stats.Bytes
	r := archive.NewReader(context.Background(), m, result.Members)
	defer r.Close()
	if _, err := archive.Extract(context.Background(), r, open(t, staged), opt); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(staged + "/holey")
	if err != nil || int64(len(got)) != result.Stats.Bytes {
		t.Fatalf("%d bytes came back, %d were captured: %v", len(got), result.Stats.Bytes, err)
	}
	for i := range int64(1<<16 + 100) {
		if at := i * 2048; got[at] != byte(i) || got[at+1] != byte(i>>8) || got[at+2] != 'x' || at+3 < int64(len(got)) && got[at+3] != 0 {
			t.Fatalf("stretch %d came back as %q", i, got[at:at+4])
		}
	}
}
