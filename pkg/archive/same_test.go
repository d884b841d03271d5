package archive

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// statSumOf is the checksum of a directory, and its newest time.
func statSumOf(t *testing.T, dir string) (string, Timespec) {
	t.Helper()
	d, err := disk.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	sum, newest, err := StatSum(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return sum, newest
}

// blank makes an image file of mib MiB.
func blank(t *testing.T, mib int64) string {
	t.Helper()
	disktest.NeedRoot(t)
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, mib<<20)); err != nil {
		t.Fatal(err)
	}
	return image
}

// What a rename of the root does, an exchange and a new mount do not change the checksum
// of a tree, on each filesystem.
func TestAStatSumSurvivesARenameAndAMount(t *testing.T) {
	for _, fstype := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fstype, func(t *testing.T) {
			image := blank(t, 512)
			args := map[string][]string{"ext4": {"-F"}, "xfs": {}, "btrfs": {}}[fstype]
			disktest.Run(t, "mkfs."+fstype, append(args, "-q", image)...)
			top := disktest.Loop(t, image)
			disktest.Rich(t, filepath.Join(top, "a/tree"))
			disktest.Write(t, top, map[string]string{"b/": "", "tree/other": "x"})
			want, newest := statSumOf(t, top+"/a/tree")
			same := func(what, path string) {
				t.Helper()
				if sum, now := statSumOf(t, path); sum != want || now != newest {
					t.Errorf("%s: %s, %v; it was %s, %v", what, sum, now, want, newest)
				}
			}
			if err := os.Rename(top+"/a/tree", top+"/b/tree"); err != nil {
				t.Fatal(err)
			}
			same("renamed", top+"/b/tree")
			if err := unix.Renameat2(unix.AT_FDCWD, top+"/b/tree", unix.AT_FDCWD, top+"/tree", unix.RENAME_EXCHANGE); err != nil {
				t.Fatal(err)
			}
			same("exchanged", top+"/tree")
			disktest.Run(t, "umount", top)
			disktest.Run(t, "mount", "-o", "loop", image, top)
			same("mounted anew", top+"/tree")
		})
	}
}

// On a filesystem that keeps whole seconds a time may be any of its second.
func TestAStatSumOfWholeSecondsEndsTheSecond(t *testing.T) {
	image := blank(t, 64)
	disktest.Run(t, "mkfs.ext4", "-q", "-F", "-I", "128", image)
	dir := disktest.Loop(t, image)
	disktest.Write(t, dir, map[string]string{"tree/file": "x"})
	if _, newest := statSumOf(t, dir+"/tree"); newest.Nsec != 999_999_999 {
		t.Errorf("the newest time is %+v", newest)
	}
}
