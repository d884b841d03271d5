package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Remove removes the file name, one component of d.
func (d *Dir) Remove(name string) error { return d.unlink(name, 0) }

// Rmdir removes the directory name when it is empty; ENOTEMPTY otherwise.
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

// whyNot adds to the EPERM of an unlink(2) the flag that forbids it, where it is
// one.
func (d *Dir) whyNot(name string, err error) error {
	who := "it"
	locked, _ := lockedAt(d.fd, name, 0)
	if !locked {
		who = "the directory that it is in"
		locked, _ = d.Locked()
	}
	if !locked {
		return err
	}
	return fmt.Errorf("%w: %s has the immutable or the append-only flag (chattr -i -a takes it away)", err, who)
}

// RemoveTree removes the directory name and all below it. It descends by
// descriptor, follows no symbolic link, and stops at a mount with EXDEV or
// EBUSY rather than empty what is mounted. Nothing at name is no error, nor is
// what somebody else removes at the same time. After an error a part of the
// tree may be gone.
func (d *Dir) RemoveTree(name string) error {
	if err := component(name); err != nil {
		return d.fail("remove", name, err)
	}
	err := d.Rmdir(name)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	// ENOTEMPTY on most filesystems, EEXIST on some (rmdir(2)).
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	sub, err := d.OpenSameMount(name)
	if err != nil {
		return err
	}
	defer sub.Close()
	if err := sub.empty(); err != nil {
		return err
	}
	// Two processes may be clearing away the same leftover.
	if err := d.Rmdir(name); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// empty removes everything in d.
func (d *Dir) empty() error {
	names, err := d.Names()
	if err != nil && !errors.Is(err, unix.ENOENT) { // d itself is gone
		return err
	}
	for _, name := range names {
		err := d.Remove(name)
		// unlink(2): EISDIR is Linux's answer to a directory, EPERM POSIX's.
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

// condemned is the mode of a directory that is being deleted: nobody but root
// may enter it, and with its three special bits it is no mode that anybody gives.
const condemned = unix.S_ISUID | unix.S_ISGID | unix.S_ISVTX

// Condemn marks d as being deleted, wherever it is moved. It needs no space on
// the disk, and is durable after SyncFS.
func (d *Dir) Condemn() error {
	return d.fail("chmod", "", Retry(func() error { return unix.Fchmod(d.fd, condemned) }))
}

// Condemned reports whether d is marked by Condemn: what is in it may be a part.
func (d *Dir) Condemned() (bool, error) {
	st, err := d.Stat()
	return err == nil && st.Mode&0o7777 == condemned, err
}

// RemoveTreeIf is RemoveTree for a directory that must be the one with handle
// want, with nothing mounted in it. Where something else stands at name, or a
// mount does, nothing is removed and the error says so.
func (d *Dir) RemoveTreeIf(name string, want Handle, mounts Mounts) error {
	got, err := d.HandleOf(name)
	if err != nil || got == "" {
		return err
	}
	if got != want {
		return d.fail("remove", name, fmt.Errorf("another directory stands here: handle %s, expected %s", got, want))
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
