package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Clone returns a file without a name, on the filesystem of d, that shares the
// content of the open file fd as it is now (ioctl_ficlone(2)): nothing is read,
// and what is written to fd later does not reach it. It is gone when it is
// closed, and after a crash (open(2), O_TMPFILE). Where the filesystem cannot,
// or fd is not on it, that is an error and there is nothing.
func (d *Dir) Clone(fd int) (*os.File, error) {
	clone, err := RetryValue(func() (int, error) {
		return unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, d.fail("make a clone in", "", err)
	}
	f := os.NewFile(uintptr(clone), d.path)
	if err := CloneInto(clone, fd); err != nil {
		f.Close()
		return nil, d.fail("make a clone in", "", err)
	}
	return f, nil
}

// CanClone tries whether the filesystem of d has clones.
func (d *Dir) CanClone() bool {
	empty, err := RetryValue(func() (int, error) {
		return unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return false
	}
	defer unix.Close(empty)
	f, err := d.Clone(empty)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// CloneInto makes the open, empty file to share the content of the open file
// from. On an error it may have some of it.
func CloneInto(to, from int) error {
	return Retry(func() error { return unix.IoctlFileClone(to, from) })
}
