package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

func open(t *testing.T, path string) *disk.Dir {
	t.Helper()
	d, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func handle(t *testing.T, path string) disk.Handle {
	t.Helper()
	d, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	h, err := d.Handle()
	if err != nil || h == "" {
		t.Fatalf("handle %q: %v", h, err)
	}
	return h
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func TestAHandleFollowsItsDirectoryAndNoOther(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{"a/": "", "b/": "", "sub/": ""})
		first, second := handle(t, dir+"/a"), handle(t, dir+"/b")
		if first == second || first == handle(t, dir) {
			t.Fatal("two directories have the same handle")
		}
		if strings.ContainsAny(string(first), "/\x00 ") {
			t.Errorf("%q cannot be a file name", first)
		}
		if err := os.Rename(dir+"/a", dir+"/sub/c"); err != nil {
			t.Fatal(err)
		}
		if handle(t, dir+"/sub/c") != first {
			t.Error("a rename changed the handle")
		}
		device := strings.TrimSpace(disktest.Run(t, "findmnt", "-no", "SOURCE", dir))
		image := strings.TrimSpace(disktest.Run(t, "losetup", "-nO", "BACK-FILE", device))
		other := t.TempDir()
		disktest.MountAt(t, other, device) // mounts the same filesystem a second time
		if handle(t, other+"/sub/c") != first {
			t.Error("another mount changed the handle")
		}
		disktest.Run(t, "umount", other)
		disktest.Run(t, "umount", dir)
		disktest.Run(t, "mount", "-o", "loop", image, dir)
		if handle(t, dir+"/sub/c") != first || handle(t, dir+"/b") != second {
			t.Error("a handle changed when the filesystem was mounted anew")
		}
	})
}

// The number of an inode alone would name the wrong directory: a filesystem gives
// the number of a removed directory to the next one.
func TestADirectoryOnARecycledInodeHasAnotherHandle(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		recycled := 0
		seen := map[disk.Handle]bool{}
		for range 50 {
			path := filepath.Join(dir, "d")
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
			ino, h := inode(t, path), handle(t, path)
			if seen[h] {
				t.Fatalf("two directories had the handle %s", h)
			}
			seen[h] = true
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
			if inode(t, path) == ino {
				recycled++
			}
			if handle(t, path) == h {
				t.Fatal("a new directory has the handle of the old one")
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%d of 50 inodes were recycled", recycled)
		if recycled == 0 && strings.Contains(t.Name(), "ext4") {
			t.Error("no inode was recycled: the test shows nothing")
		}
	})
}

func TestOnlyENOENTIsAbsence(t *testing.T) {
	dir := t.TempDir()
	disktest.Write(t, dir, map[string]string{"file": "", "d/": ""})
	if err := errors.Join(os.Symlink("d", dir+"/link"), os.Symlink("gone", dir+"/dangling")); err != nil {
		t.Fatal(err)
	}
	d := open(t, dir)
	if h, err := d.HandleOf("gone"); h != "" || err != nil {
		t.Errorf("no such directory: %q, %v", h, err)
	}
	for _, name := range []string{"file", "link", "dangling", "file/x", "link/x", "../x", "/etc"} {
		if h, err := d.HandleOf(name); h != "" || err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", name, h, err)
		}
	}
	if _, err := d.Exists("d/x"); err == nil {
		t.Error("Exists accepted two components")
	}
}

// Before Linux 6.9 there is no FS_IOC_GETFSUUID, and snap uses an ioctl of XFS. Both
// must agree, or a later switch to the new one would change every handle.
func TestBothWaysToAskXFSForItsUUIDAgree(t *testing.T) {
	dir := disktest.Mount(t, "xfs", 512)
	d := open(t, dir)
	id, err := d.Filesystem()
	if err != nil {
		t.Fatal(err)
	}
	var geometry [112]byte
	const xfsIocFSGeometryV1 = 0x80705864
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(d.FD()), xfsIocFSGeometryV1, uintptr(unsafe.Pointer(&geometry))); e != 0 {
		t.Fatal(e)
	}
	var modern [17]byte
	const fsIocGetFSUUID = 0x80111500
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(d.FD()), fsIocGetFSUUID, uintptr(unsafe.Pointer(&modern))); e != 0 {
		t.Skipf("the kernel has no FS_IOC_GETFSUUID: %v", e)
	}
	if !bytes.Equal(geometry[64:80], modern[1:]) {
		t.Errorf("XFS_IOC_FSGEOMETRY_V1 says %x, FS_IOC_GETFSUUID %x", geometry[64:80], modern[1:])
	}
	uuid := strings.ReplaceAll(strings.TrimSpace(disktest.Run(t, "findmnt", "-no", "UUID", dir)), "-", "")
	if uuid != "" && string(id) != "xfs-"+uuid {
		t.Errorf("the filesystem is %s, its UUID %s", id, uuid)
	}
}

func TestFilesystemsHaveDifferentIdentities(t *testing.T) {
	seen := map[disk.FSID]string{}
	for _, name := range []string{"ext4", "xfs", "btrfs"} {
		id, err := open(t, disktest.Mount(t, name, 512)).Filesystem()
		if err != nil || !strings.HasPrefix(string(id), name+"-") || seen[id] != "" || strings.ContainsAny(string(id), "./") {
			t.Errorf("%s is %q: %v", name, id, err)
		}
		seen[id] = name
	}
}

func TestUnsuitableFilesystemsAreNamedWithTheReason(t *testing.T) {
	if why, err := open(t, disktest.Tmpfs(t)).Unsuitable(); err != nil || !strings.Contains(why, "reboot") {
		t.Errorf("tmpfs: %q, %v", why, err)
	}
	disktest.EachFS(t, func(t *testing.T, dir string) {
		if why, err := open(t, dir).Unsuitable(); why != "" || err != nil {
			t.Errorf("%q, %v", why, err)
		}
	})
	lower := t.TempDir()
	disktest.Write(t, lower, map[string]string{"l/": "", "u/": "", "w/": "", "m/": ""})
	if err := exec.Command("mount", "-t", "overlay", "overlay", "-o", "lowerdir="+lower+"/l,upperdir="+lower+"/u,workdir="+lower+"/w", lower+"/m").Run(); err != nil {
		t.Skip("no overlayfs")
	}
	t.Cleanup(func() { disktest.Run(t, "umount", lower+"/m") })
	if why, err := open(t, lower+"/m").Unsuitable(); err != nil || !strings.Contains(why, "overlayfs") {
		t.Errorf("overlayfs: %q, %v", why, err)
	}
}

func TestADirectoryIsFoundWhereverItIsMoved(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		disktest.Write(t, dir, map[string]string{"from/tree/file": "x", "to/": ""})
		root, err := disk.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		h, err := root.HandleOf("from/tree")
		if err != nil {
			t.Fatal(err)
		}
		moved := filepath.Join(dir, "to", "another name")
		if err := os.Rename(filepath.Join(dir, "from/tree"), moved); err != nil {
			t.Fatal(err)
		}
		if path, err := root.Locate(h); err != nil || path != moved {
			t.Errorf("Locate finds it at %q: %v", path, err)
		}
		open, err := disk.OpenRoot(moved) // keeps the inode
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(moved); err != nil {
			t.Fatal(err)
		}
		if path, err := root.Locate(h); err != nil || path != "" {
			t.Errorf("Locate finds it, deleted and still open, at %q: %v", path, err)
		}
		open.Close()
		if path, err := root.Locate(h); err != nil || path != "" {
			t.Errorf("Locate finds it, deleted, at %q: %v", path, err)
		}
		for _, h := range []disk.Handle{"", "ext4-00.1.aa", disk.Handle(string(h) + "zz")} {
			if path, err := root.Locate(h); err == nil {
				t.Errorf("Locate finds %q at %q", h, path)
			}
		}
	})
}
