package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// A symbolic link on a trusted way counts only where nobody but root can have placed it,
// whatever it leads to and wherever on the way it is.
func TestATrustedWayFollowsOnlyRootsLinks(t *testing.T) {
	disktest.NeedRoot(t)
	top := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(top, name) }
	must(os.Chmod(top, 0o755))
	for name, mode := range map[string]uint32{"real/sub": 0o755, "roots": 0o755, "shared": 0o775, "open": 0o777, "sticky": 0o1777, "theirs": 0o755} {
		must(os.MkdirAll(at(name), 0o755))
		must(unix.Chmod(at(name), mode))
	}
	must(os.Chown(at("theirs"), 1000, 1000))
	for _, dir := range []string{"roots", "shared", "open", "sticky", "theirs"} {
		must(os.Symlink("../real", at(dir+"/relative")))
		must(os.Symlink(at("real"), at(dir+"/absolute")))
		must(os.Symlink("nowhere", at(dir+"/dangling")))
		must(os.Symlink("loop", at(dir+"/loop")))
		must(os.Symlink("../real", at(dir+"/given")))
		must(os.Lchown(at(dir+"/given"), 1000, 1000))
		must(os.Symlink("../"+dir+"/absolute/sub/..", at(dir+"/chain")))
	}
	must(os.Symlink("../open/relative", at("roots/to-open")))
	must(os.WriteFile(at("real/file"), nil, 0o644))
	for path, want := range map[string]error{
		"real/sub": nil, "roots/relative": nil, "roots/relative/sub": nil, "roots/absolute/sub": nil, "roots/chain": nil, "roots/chain/sub/../sub": nil,
		"roots/dangling": unix.ENOENT, "roots/loop": unix.ELOOP, "real/file": unix.ENOTDIR, "real/file/x": unix.ENOTDIR, "real/none": unix.ENOENT,
		"roots/given": new(disk.Placed), "roots/given/sub": new(disk.Placed), "roots/to-open": new(disk.Placed), "roots/to-open/sub": new(disk.Placed),
		"shared/relative": new(disk.Placed), "open/absolute": new(disk.Placed), "sticky/relative": new(disk.Placed), "sticky/chain/sub": new(disk.Placed), "theirs/absolute/sub": new(disk.Placed),
		"theirs/dangling": new(disk.Placed), "open/loop": new(disk.Placed),
	} {
		d, err := disk.OpenTrusted(at(path))
		var placed *disk.Placed
		if _, refused := want.(*disk.Placed); refused {
			if !errors.As(err, &placed) {
				t.Errorf("%s: %v, expected a refusal", path, err)
			}
		} else if !errors.Is(err, want) {
			t.Errorf("%s: %v, expected %v", path, err, want)
		}
		if err != nil {
			continue
		}
		got, gotErr := d.Stat()
		must(gotErr)
		var st unix.Stat_t
		must(unix.Stat(at(path), &st))
		if got.Ino != st.Ino || got.Dev != st.Dev {
			t.Errorf("%s: another directory", path)
		}
		if names, err := d.Names(); err != nil { // it is open for reading
			t.Errorf("%s: %q %v", path, names, err)
		}
		d.Close()
	}
	for _, path := range []string{"", "relative", ".", top + "\x00"} {
		if d, err := disk.OpenTrusted(path); err == nil {
			d.Close()
			t.Errorf("%q was opened", path)
		}
	}
	root, err := disk.OpenTrusted("/")
	must(err)
	root.Close()
}

// Whoever has a directory open from before finds no way into it once it is secluded, and
// gets it back as it was.
func TestASecludedDirectoryIsRootsAlone(t *testing.T) {
	disktest.NeedRoot(t)
	path := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []uint32{0o755, 0o2770, 0o1777, 0o6711} {
		if err := errors.Join(os.Chown(path, 1000, 1001), unix.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
		d, err := disk.OpenTrusted(path)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		back, err := d.Seclude()
		if err != nil {
			t.Fatal(err)
		}
		if st, err := d.Stat(); err != nil || st.Mode&0o7777 != 0o700 || st.Uid != 0 {
			t.Errorf("secluded it has mode %o and owner %d: %v", st.Mode, st.Uid, err)
		}
		if err := back(); err != nil {
			t.Fatal(err)
		}
		if st, err := d.Stat(); err != nil || st.Mode&0o7777 != mode || st.Uid != 1000 || st.Gid != 1001 {
			t.Errorf("given back it has mode %o and owner %d:%d, expected %o: %v", st.Mode, st.Uid, st.Gid, mode, err)
		}
	}
}
