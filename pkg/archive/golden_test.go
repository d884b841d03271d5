package archive_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// The stream of a fixed tree has the same bytes in this version of snap and in later
// ones. Other bytes would make other members, and a new snapshot would share no members
// with older ones.
func TestTheStreamOfAFixedTreeIsTheGoldenFile(t *testing.T) {
	disktest.NeedRoot(t)
	m, result := capture(t, goldenTree(t), archive.WriteOptions{})
	r := archive.NewReader(context.Background(), m, result.Members)
	defer r.Close()
	got, err := rest(r)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "stream.v1.tar")
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s differs: %d bytes, expected %d; the first other byte is byte %d of block %d", path, len(got), len(want), at%512, at/512)
	}
}

// A stream of an earlier version is accepted, and the restored tree gives the same
// stream.
func TestTheGoldenStreamIsRestored(t *testing.T) {
	disktest.NeedRoot(t)
	want, err := os.ReadFile(filepath.Join("testdata", "stream.v1.tar"))
	if err != nil {
		t.Fatal(err)
	}
	into := mkdir(t, filepath.Join(t.TempDir(), "into"))
	if _, err := extractTar(context.Background(), want, open(t, into),
		archive.ExtractOptions{MaxEntries: 100, MaxBytes: 100 << 20, MaxDepth: 10, KeepPrivileges: true}); err != nil {
		t.Fatal(err)
	}
	m, result := capture(t, into, archive.WriteOptions{})
	r := archive.NewReader(context.Background(), m, result.Members)
	defer r.Close()
	if got, err := rest(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the restored tree is captured as %d other bytes, error %v", len(got), err)
	}
}

// goldenTree makes a directory with an entry of each kind, and with values at the limits
// of what a header holds.
func goldenTree(t *testing.T) string {
	t.Helper()
	root := mkdir(t, filepath.Join(t.TempDir(), "volume"))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, name) }
	file := func(name, content string) {
		t.Helper()
		must(os.WriteFile(at(name), []byte(content), 0o600))
	}
	long := "dir/" + strings.Repeat("a long name ", 10) + "end"
	must(os.Mkdir(at("dir"), 0o700))
	must(os.Mkdir(at("empty"), 0o700))
	file("dir/file", "content\n")
	file("dir/nothing", "")
	file("dir/block", strings.Repeat("0123456789abcdef", 32))
	file("dir/setuid", "#!/bin/sh\n")
	file(long, "with a pax record for its name\n")
	file("attributes", "with extended attributes\n")
	file("large ids", "with pax records for its owner\n")
	file("before 1970", "an odd time\n")
	file("after 2242", "a time that no header holds\n")
	must(unix.Setxattr(at("attributes"), "user.name=%", []byte("a value\x00with = and\nanything"), 0))
	must(unix.Setxattr(at("empty"), "user.empty", nil, 0))
	must(os.Link(at("dir/file"), at("hardlink")))
	must(os.Symlink("../outside/target", at("symlink")))
	must(os.Symlink(strings.Repeat("long/", 30), at("symlink to a long name")))

	sparse, err := os.Create(at("sparse"))
	must(err)
	_, err = sparse.WriteAt(bytes.Repeat([]byte("data"), 16<<10), 1<<20) // 64 KiB, whole blocks of any filesystem
	must(err)
	must(sparse.Truncate(3 << 20))
	must(sparse.Close())

	for _, e := range []struct {
		name     string
		uid, gid int
		mode     uint32
		sec      int64
		nsec     int64
	}{
		{"dir/file", 1, 2, 0o644, 1_700_000_000, 123_456_789},
		{"dir/nothing", 0, 0, 0, 1, 0},
		{"dir/block", 65534, 65534, 0o777, 1_700_000_000, 500_000_000},
		{"dir/setuid", 7, 8, 0o6755, 0, 0},
		{long, 0, 0, 0o640, 0, 1},
		{"attributes", 1000, 1000, 0o604, 1_700_000_000, 0},
		{"large ids", 1<<21 - 1, 1 << 21, 0o600, 1_700_000_000, 0},
		{"before 1970", 0, 0, 0o600, -2, 500_000_000},
		{"after 2242", 0, 0, 0o600, 1 << 33, 0},
		{"sparse", 33, 33, 0o600, 1_700_000_001, 0},
		{"symlink", 5, 6, 0, 1_700_000_002, 3},
		{"symlink to a long name", 0, 0, 0, 1_700_000_002, 0},
		{"empty", 9, 9, 0o1777, 1_700_000_003, 0},
		{"dir", 1, 1, 0o2750, 1_700_000_004, 4},
		{".", 0, 10, 0o755, 1_700_000_005, 0},
	} {
		must(os.Lchown(at(e.name), e.uid, e.gid))
		if !strings.HasPrefix(e.name, "symlink") {
			must(unix.Chmod(at(e.name), e.mode))
		}
		when := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: e.sec, Nsec: e.nsec}}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, at(e.name), when, unix.AT_SYMLINK_NOFOLLOW))
		var st unix.Stat_t
		must(unix.Lstat(at(e.name), &st))
		if st.Mtim != when[1] { // XFS without bigtime ends in 2038
			t.Skipf("the filesystem of the tests stores the time %v as %v", when[1], st.Mtim)
		}
	}
	return root
}
