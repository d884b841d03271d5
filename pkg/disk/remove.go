package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Remove removes the file name, one component, from d.
func (d *Dir) Remove(name string) error { return d.unlink(name, 0) }

// Rmdir removes the directory name; it fails with ENOTEMPTY if that is not empty.
func (d *Dir) Rmdir(name string) error { return d.unlink(name, unix.AT_REMOVEDIR) }

func (d *Dir) unlink(name string, flags int) error {
	if err := component(name); err != nil {
		return d.fail("remove", name, err)
	}
	err := Retry(func() error { return unix.Unlinkat(d.fd, name, flags) })
	if errors.Is(err, unix.EPERM) {
		err = d.whyNot(name, err)
	}
	return d.fail("remove", name, err)
}

// whyNot adds the flag that forbids an unlink(2) to its EPERM, if a flag does.
func (d *Dir) whyNot(name string, err error) error {
	who := "it"
	locked, _ := lockedAt(d.fd, name, 0)
	if !locked {
		who = "its directory"
		locked, _ = d.Locked()
	}
	if !locked {
		return err
	}
	return fmt.Errorf("%w: %s has the immutable or the append-only flag (chattr -i -a removes it)", err, who)
}

// RemoveTree removes the directory name and everything below it, but fails at a
// mount, with EXDEV or EBUSY. If name does not exist, or somebody else removes files
// at the same time, that is not an error. After an error a part of the tree may be
// gone.
func (d *Dir) RemoveTree(name string) error {
	err := d.Rmdir(name)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// ENOTEMPTY on most filesystems, EEXIST on some (rmdir(2)).
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	// From here on ENOENT says that another process removes the tree too.
	sub, err := d.OpenSameMount(name)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := sub.empty(); err != nil {
		return err
	}
	if err := d.Rmdir(name); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// empty removes everything in d.
func (d *Dir) empty() error {
	names, err := d.Names()
	if err != nil && !errors.Is(err, unix.ENOENT) { // ENOENT: d itself is gone
		return err
	}
	for _, name := range names {
		err := d.Remove(name)
		// For a directory, Linux returns EISDIR, and POSIX asks for EPERM (unlink(2)).
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EPERM) {
			st, e := d.Lstat(name)
			switch {
			case errors.Is(e, unix.ENOENT):
				continue
			case e == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR:
				err = d.RemoveTree(name)
			}
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// condemned is the mode of a directory that is being deleted. Nobody else would give
// a directory these three bits and no others.
const condemned = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX

// Condemn marks d as being deleted. The mark moves with d, needs no space on the
// disk, and is durable after SyncFS.
func (d *Dir) Condemn() error {
	return d.fail("chmod", "", Retry(func() error { return unix.Fchmod(d.fd, condemned) }))
}

// Condemned reports whether Condemn has marked d, which may then hold only a part of
// its tree.
func (d *Dir) Condemned() (bool, error) {
	st, err := d.Stat()
	return err == nil && st.Mode&0o7777 == condemned, err
}

// RemoveTreeIf is like RemoveTree, but it removes nothing if the directory does not
// have the handle want, or if one of mounts is inside it.
func (d *Dir) RemoveTreeIf(name string, want Handle, mounts Mounts) error {
	got, err := d.HandleOf(name)
	if err != nil || got == "" {
		return err
	}
	if got != want {
		return d.fail("remove", name, fmt.Errorf("this is another directory: its handle is %s, expected %s", got, want))
	}
	sub, err := d.Open(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if m, err := mounts.Inside(sub); err != nil || m != "" {
		return errors.Join(err, d.fail("remove", name, fmt.Errorf("%s is mounted inside", m)))
	}
	return d.RemoveTree(name)
}
