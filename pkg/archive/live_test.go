package archive_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

func write(t *testing.T, dir string, opt archive.WriteOptions) (*archive.Result, error) {
	t.Helper()
	return archive.Write(context.Background(), open(t, dir), newMemory(), opt)
}

// extract restores a capture below a new directory, and returns its path.
func extract(t *testing.T, m *memory, result *archive.Result, into string) string {
	t.Helper()
	r := archive.NewReader(context.Background(), m, result.Members)
	defer r.Close()
	_, err := archive.Extract(context.Background(), r, open(t, mkdir(t, into)), archive.ExtractOptions{
		MaxEntries: result.Stats.Entries(), MaxBytes: result.Stats.Bytes, MaxDepth: result.Stats.Depth,
	})
	if err != nil {
		t.Fatal(err)
	}
	return into
}

func TestWhatCannotBeRestoredIsNotCaptured(t *testing.T) {
	disktest.NeedRoot(t)
	node := func(kind uint32, dev int) func(string) error {
		return func(path string) error { return unix.Mknod(path, kind|0o600, dev) }
	}
	for name, c := range map[string]struct {
		make func(path string) error
		opt  archive.WriteOptions
	}{
		"fifo":             {node(unix.S_IFIFO, 0), archive.WriteOptions{}},
		"character device": {node(unix.S_IFCHR, int(unix.Mkdev(1, 3))), archive.WriteOptions{}},
		"block device":     {node(unix.S_IFBLK, int(unix.Mkdev(7, 200))), archive.WriteOptions{}},
		"symlink":          {func(path string) error { return os.Symlink("x", path) }, archive.WriteOptions{RejectSymlinks: true}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			disktest.Write(t, dir, map[string]string{"a": "1", "d/b": "2"})
			for i := range 7 {
				if err := c.make(fmt.Sprintf("%s/d/odd\x1b%d", dir, i)); err != nil {
					t.Fatal(err)
				}
			}
			_, err := write(t, dir, c.opt)
			var bad *archive.Unrestorable
			if !errors.As(err, &bad) {
				t.Fatalf("the capture returned %v", err)
			}
			if len(bad.Offenders) != 5 || bad.More != 2 || !strings.Contains(err.Error(), name+` "d/odd\x1b0"`) {
				t.Errorf("the offenders are %q and %d more: %v", bad.Offenders, bad.More, err)
			}
		})
	}
}

func TestSocketsAreLeftOutAndCounted(t *testing.T) {
	dir := t.TempDir()
	disktest.Write(t, dir, map[string]string{"a": "1"})
	for _, name := range []string{"s1", "s2"} {
		l, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	result, err := write(t, dir, archive.WriteOptions{})
	if err != nil || result.Sockets != 2 || result.Stats.Entries() != 2 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestAMountInsideAVolumeIsAnError(t *testing.T) {
	for name, mount := range map[string]func(t *testing.T, where string){
		"another filesystem": func(t *testing.T, where string) {
			disktest.Run(t, "mount", "-t", "tmpfs", "tmpfs", where)
			t.Cleanup(func() { disktest.Run(t, "umount", where) })
		},
		"a bind mount of the same filesystem": func(t *testing.T, where string) { disktest.Bind(t, mkdir(t, filepath.Dir(where)+"/x"), where) },
	} {
		t.Run(name, func(t *testing.T) {
			disktest.NeedRoot(t)
			dir := t.TempDir()
			disktest.Write(t, dir, map[string]string{"a": "1", "d/mnt/": ""})
			mount(t, dir+"/d/mnt")
			if _, err := write(t, dir, archive.WriteOptions{}); !errors.Is(err, unix.EXDEV) || !strings.Contains(err.Error(), `"d/mnt"`) {
				t.Errorf("the capture returned %v", err)
			}
		})
	}
}

func TestASubvolumeInsideAVolumeIsAnError(t *testing.T) {
	disktest.Need(t, "btrfs")
	dir := disktest.Mount(t, "btrfs", 128)
	disktest.Write(t, dir, map[string]string{"live/a": "1"})
	disktest.Run(t, "btrfs", "subvolume", "create", dir+"/live/sub")
	if _, err := write(t, dir+"/live", archive.WriteOptions{}); !errors.Is(err, unix.EXDEV) || !strings.Contains(err.Error(), `"sub"`) {
		t.Errorf("the capture returned %v", err)
	}
}

func TestTheVolumeItselfMayBeAMount(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 64)
	disktest.Write(t, dir, map[string]string{"a": "1"})
	result, err := write(t, dir, archive.WriteOptions{})
	if err != nil || result.Stats.Files != 1 {
		t.Errorf("%+v, %v", result, err)
	}
}

func TestATreeOfAThousandLevelsIsRestoredAndNoDeeperOne(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 64)
	live := mkdir(t, dir+"/live")
	at := open(t, live)
	for i := range archive.MaxDepth {
		if err := at.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		below, err := at.OpenSameMount("d")
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			at.Close()
		}
		at = below
	}
	defer at.Close()
	m, result := capture(t, live, archive.WriteOptions{})
	if result.Stats.Dirs != archive.MaxDepth+1 || result.Stats.Depth != archive.MaxDepth {
		t.Fatalf("captured %+v", result.Stats)
	}
	staged := extract(t, m, result, dir+"/staged")
	if m2, again := capture(t, staged, archive.WriteOptions{}); m2 == nil || again.Stats != result.Stats {
		t.Errorf("restored %+v, captured %+v", again.Stats, result.Stats)
	}
	if err := at.WriteTemp("deeper", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := write(t, live, archive.WriteOptions{}); err == nil || !strings.Contains(err.Error(), "deep") {
		t.Errorf("a file deeper than that: %v", err)
	}
	for _, name := range []string{"live", "staged"} {
		if err := open(t, dir).RemoveTree(name); err != nil {
			t.Errorf("remove %s: %v", name, err)
		}
	}
}

// btrfs stores any 64-bit time, and the owner of a file can set it. The restore must
// accept every time that the capture accepts.
func TestTheEarliestAndTheLatestTimeAreRestored(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		live := mkdir(t, dir+"/live")
		for i, sec := range []int64{math.MinInt64, math.MinInt64 + 1, -1 << 62, -1 << 31, -1, 0, 1<<33 - 1, 1 << 33, 1 << 62, math.MaxInt64} {
			for _, nsec := range []int64{0, 1, 999_999_999} {
				path := fmt.Sprintf("%s/%d-%d", live, i, nsec)
				disktest.Write(t, live, map[string]string{filepath.Base(path): ""})
				ts := unix.Timespec{Sec: sec, Nsec: nsec}
				if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		m, result := capture(t, live, archive.WriteOptions{})
		staged := extract(t, m, result, dir+"/staged")
		disktest.Same(t, "restored", disktest.Tree(t, live), disktest.Tree(t, staged))
	})
}

// The sizes of two files of 2^62 bytes, which take no space on XFS, overflow the sum.
func TestAVolumeWhoseBytesOverflowIsNotCaptured(t *testing.T) {
	live := disktest.Mount(t, "xfs", 512)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		disktest.Write(t, live, map[string]string{name: "x"})
		if err := os.Truncate(filepath.Join(live, name), 1<<62); err != nil {
			t.Fatal(err)
		}
	}
	if result, err := write(t, live, archive.WriteOptions{}); err == nil {
		t.Errorf("captured as %+v", result.Stats)
	}
}

func TestTooMuchMetadataIsNotCaptured(t *testing.T) {
	live := disktest.Mount(t, "xfs", 512)
	disktest.Write(t, live, map[string]string{"small": "x", "large": strings.Repeat("x", 1<<20)})
	value := make([]byte, 60<<10)
	for i := range 40 {
		for _, name := range []string{"small", "large"} {
			if err := unix.Setxattr(filepath.Join(live, name), fmt.Sprintf("user.%d", i), value, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, index := range []func(*archive.Line) error{nil, func(*archive.Line) error { return nil }} {
		_, err := write(t, live, archive.WriteOptions{Index: index})
		var bad *archive.Unrestorable
		if !errors.As(err, &bad) || len(bad.Offenders) != 2 || !strings.Contains(err.Error(), `"large"`) {
			t.Errorf("the capture returned %v", err)
		}
	}
}

func TestTheSameTreeGivesTheSameMembers(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 256)
	live := mkdir(t, dir+"/live")
	disktest.Rich(t, live)
	for i := range 3000 {
		disktest.Write(t, live, map[string]string{fmt.Sprintf("flat/%x", uint32(i)*2654435761): fmt.Sprint(i)})
	}
	var names []string
	_, first := capture(t, live, archive.WriteOptions{Index: func(l *archive.Line) error {
		names = append(names, strings.ReplaceAll(l.Name, "/", "\x00"))
		return nil
	}})
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(7)) // other pieces are compressed at the same time
	_, second := capture(t, live, archive.WriteOptions{})
	if !slices.Equal(first.Members, second.Members) {
		t.Error("two captures of one tree have different members")
	}
	if !slices.IsSorted(names[1:]) {
		t.Error("the walk is not sorted")
	}
}
