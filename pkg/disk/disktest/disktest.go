// Package disktest gives tests real filesystems, a tree with everything that a
// volume may contain, and a comparison of trees that shares no code with snap.
// Everything it mounts is unmounted when the test ends.
package disktest

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// filesystems are the filesystems on which snap keeps its promises.
var filesystems = []string{"ext4", "xfs", "btrfs"}

// EachFS runs test on a new filesystem of each supported type.
func EachFS(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	for _, name := range filesystems {
		t.Run(name, func(t *testing.T) { test(t, Mount(t, name, 512)) })
	}
}

// Mount makes a filesystem of mib MiB in a file, mounts it and returns the mount
// point.
func Mount(t *testing.T, fstype string, mib int64) string {
	t.Helper()
	NeedRoot(t)
	Need(t, "mkfs."+fstype)
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err == nil {
		err = f.Truncate(mib << 20)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	args := map[string][]string{"ext4": {"-q", "-F", "-m", "0"}, "xfs": {"-q"}, "btrfs": {"-q"}}[fstype]
	Run(t, "mkfs."+fstype, append(args, image)...)
	return Loop(t, image)
}

// Loop mounts the filesystem in the file image and returns the mount point.
func Loop(t *testing.T, image string) string {
	t.Helper()
	point := mountPoint(t)
	MountAt(t, point, "-o", "loop", image)
	return point
}

// FailingDisk mounts an ext4 filesystem on a disk that works until fail is
// called; the disk then refuses every write. The filesystem has no journal,
// because a journal that fails reports its error to every caller of syncfs.
//
// The disk lies in a memfd. An image on a tmpfs of the test's own would keep that
// tmpfs busy as long as any other mount namespace has a copy of the ext4 mount,
// and a container that starts at the same time has such a copy.
func FailingDisk(t *testing.T) (point string, fail func()) {
	t.Helper()
	NeedRoot(t)
	Need(t, "mkfs.ext4")
	fd, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	memory := os.NewFile(uintptr(fd), "disk")
	t.Cleanup(func() { memory.Close() })
	if err := memory.Truncate(32 << 20); err != nil {
		t.Fatal(err)
	}
	mkfs := exec.Command("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-E", "lazy_itable_init=0", "/proc/self/fd/3")
	mkfs.ExtraFiles = []*os.File{memory}
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", mkfs, err, out)
	}
	device, err := attach(memory)
	if err != nil {
		t.Fatalf("attach a loop device: %v", err)
	}
	defer device.Close() // the mount holds it from then on
	point = mountPoint(t)
	MountAt(t, point, device.Name())
	return point, func() {
		if _, err := unix.FcntlInt(memory.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); err != nil {
			t.Fatal(err)
		}
	}
}

// attach makes a loop device of an open file. The kernel detaches it when nobody
// has it open or mounted any more. losetup(8) cannot do this: it takes a path,
// and a memfd has none.
func attach(file *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, err
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		config := unix.LoopConfig{Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody else was faster
			return nil, err
		}
	}
}

// Attach makes a loop device of a file with losetup(8), which the words of before
// precede on the command line (nsenter and its flags, for instance), and returns
// the device. The device is detached when the test ends.
func Attach(t *testing.T, before []string, args ...string) (device string) {
	t.Helper()
	argv := append(append(before, "losetup", "-f", "--show"), args...)
	device = strings.TrimSpace(Run(t, argv[0], argv[1:]...))
	t.Cleanup(func() { Run(t, "losetup", "-d", device) })
	return device
}

// Tmpfs mounts a tmpfs, with further arguments of mount(8), and returns the mount
// point.
func Tmpfs(t *testing.T, args ...string) string {
	t.Helper()
	point := t.TempDir()
	MountAt(t, point, append(args, "-t", "tmpfs", "tmpfs")...)
	return point
}

// Bind mounts the directory or file what at where.
func Bind(t *testing.T, what, where string) {
	t.Helper()
	MountAt(t, where, "--bind", what)
}

// MountAt runs mount(8) with args and the mount point. It is unmounted when the
// test ends.
func MountAt(t *testing.T, point string, args ...string) {
	t.Helper()
	NeedRoot(t)
	// Before the mount: mount(8) can fail after it has mounted.
	t.Cleanup(func() { unmount(t, point) })
	Run(t, "mount", append(args, point)...)
}

func mountPoint(t *testing.T) string {
	t.Helper()
	point := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	return point
}

// unmount unmounts point, if something is mounted there. A mount that is still in
// use after five seconds fails the test; it is then detached, so that it outlives
// at most those who use it. The kernel has no event for the end of such a use.
func unmount(t *testing.T, point string) {
	var err error
	for range 50 {
		err = unix.Unmount(point, unix.UMOUNT_NOFOLLOW)
		if !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EINTR) {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	// EINVAL: nothing is mounted there (umount(2)).
	if err == nil || errors.Is(err, unix.EINVAL) {
		return
	}
	t.Errorf("unmount %s: %v", point, err)
	if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH); err != nil {
		t.Errorf("detach %s: %v", point, err)
	}
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

// Need skips the test if a program is not installed.
func Need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("needs %s: %v", program, err)
	}
}

// Run runs a program and returns its output. If the program fails, so does the test.
func Run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Write writes files below dir, by path and content, and the directories that they
// need. A path that ends in "/" is an empty directory.
func Write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Tree describes everything below dir that a copy must keep, in one line for each
// name: type, mode, owner, mtime to the nanosecond, content, target, extended
// attributes, the other names of the same file, and whether the file is sparse.
func Tree(t *testing.T, dir string) []string {
	t.Helper()
	first := map[uint64]string{}
	var lines []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		line, err := describe(path, rel, first)
		lines = append(lines, line)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func describe(path, rel string, first map[uint64]string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return "", err
	}
	line := fmt.Sprintf("%q mode=%o owner=%d:%d mtime=%d.%09d", rel, st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		return line + fmt.Sprintf(" -> %q", target), err
	case unix.S_IFREG:
		if name, ok := first[st.Ino]; ok && st.Nlink > 1 {
			return line + fmt.Sprintf(" same-as=%q", name), nil
		}
		first[st.Ino] = rel
		data, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		sum := sha256.Sum256(data)
		line += fmt.Sprintf(" size=%d sha256=%s sparse=%t", len(data), hex.EncodeToString(sum[:8]), st.Blocks*512 < st.Size/2)
	}
	attrs, err := xattrs(path)
	return line + attrs, err
}

func xattrs(path string) (string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return "", err
	}
	names := strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
	slices.Sort(names)
	out := ""
	for _, name := range names {
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return "", err
		}
		out += fmt.Sprintf(" %s=%x", name, buf[:n])
	}
	return out, nil
}

// Same fails the test if two descriptions differ.
func Same(t *testing.T, what string, want, got []string) {
	t.Helper()
	if d := Diff(want, got); d != "" {
		t.Fatalf("%s: the trees differ (- expected, + found):\n%s", what, d)
	}
}

// Diff returns the lines that are in only one of two descriptions.
func Diff(want, got []string) string {
	var out []string
	for _, line := range want {
		if _, ok := slices.BinarySearch(got, line); !ok {
			out = append(out, "- "+line)
		}
	}
	for _, line := range got {
		if _, ok := slices.BinarySearch(want, line); !ok {
			out = append(out, "+ "+line)
		}
	}
	if len(out) > 20 {
		out = append(out[:20], "…")
	}
	return strings.Join(out, "\n")
}

// Rich fills dir with everything that a volume may contain: owners, unusual modes,
// times to the nanosecond and before 1970, attributes, ACLs, symbolic and hard
// links, holes, empty directories, names with unusual bytes, and files whose sizes
// are close to those at which a stream is cut.
func Rich(t *testing.T, dir string) {
	t.Helper()
	NeedRoot(t)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	files := map[string]string{
		"empty": "", "dir/file": "content\n", "dir/deep/er/file": "deeper", "void/": "",
		"nl\nname": "n", "tab\tname": "t", "bad\xff\xfeutf8": "b", "ünïcode": "u", "esc\x1b[2Jape": "e",
		strings.Repeat("x", 255): "longest name", strings.Repeat("d", 200) + "/" + strings.Repeat("e", 200): "long path",
		"blank name ": "b", "-dash": "d", "back\\slash": "s", "quote\"": "q",
		"owned": "o", "huge-owner": "h", "attrs": "a", "acl": "a", "first": "hardlinked", "old": "before 1970",
	}
	seed := strings.Repeat("0123456789abcdef\n", 1<<16)
	for _, n := range []int{1, 511, 512, 513, 256 << 10, 256<<10 + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1} {
		files[fmt.Sprintf("sizes/%d", n)] = (seed + seed)[:n]
	}
	for i := range 200 {
		files[fmt.Sprintf("many/%03d", i)] = strings.Repeat(fmt.Sprint(i), i)
	}
	Write(t, dir, files)
	at := func(name string) string { return filepath.Join(dir, name) }
	check(os.Symlink("dir/file", at("link")))
	check(os.Symlink("/etc/passwd", at("link-outside")))
	check(os.Symlink(strings.Repeat("../", 40)+"nowhere", at("link-dangling")))
	check(os.Symlink(strings.Repeat("t", 300), at("link-long")))
	check(os.Lchown(at("link"), 1234, 4321))
	check(os.Link(at("first"), at("second")))
	check(os.Link(at("first"), at("dir/third")))
	check(os.Chown(at("owned"), 1000, 1001))
	check(os.Chown(at("huge-owner"), 3_000_000_000, 2_999_999_999))
	check(os.Chmod(at("owned"), 0o604))
	check(os.Chmod(at("dir"), 0o2755|fs.ModeSetgid))
	check(os.Chmod(at("void"), 0o700|fs.ModeSticky))
	check(unix.Setxattr(at("attrs"), "user.snap", []byte("v\x00=\n1"), 0))
	check(unix.Setxattr(at("dir"), "user.on-dir", []byte(""), 0))
	check(unix.Setxattr(at("acl"), "system.posix_acl_access", acl(), 0))
	check(unix.Setxattr(at("dir/deep"), "system.posix_acl_default", acl(), 0))
	Sparse(t, at("sparse"), 8<<20, 1<<20, 5<<20)
	Sparse(t, at("sparse-empty"), 4<<20)
	touch := func(name string, sec, nsec int64) {
		check(unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{{Sec: sec, Nsec: nsec}, {Sec: sec, Nsec: nsec}}, unix.AT_SYMLINK_NOFOLLOW))
	}
	touch("owned", 1600000000, 123456789)
	touch("link", 1500000000, 987654321)
	touch("old", -3, 250000000)
	touch("dir/deep", 1400000000, 1)
	touch(".", 1300000000, 999999999)
}

// acl returns u::rw-,u:1000:r--,g::r--,m::rw-,o::--- in the kernel's format.
func acl() []byte {
	entry := func(tag, perm byte, id uint32) []byte {
		return []byte{tag, 0, perm, 0, byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)}
	}
	const none = 0xffffffff
	out := []byte{2, 0, 0, 0}
	for _, e := range [][]byte{entry(1, 6, none), entry(2, 4, 1000), entry(4, 4, none), entry(0x10, 6, none), entry(0x20, 0, none)} {
		out = append(out, e...)
	}
	return out
}

// Sparse makes a file of the given size with 4 KiB of data at each offset.
func Sparse(t *testing.T, path string, size int64, at ...int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, offset := range at {
		if _, err := f.WriteAt([]byte(strings.Repeat("data", 1024)), offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}
