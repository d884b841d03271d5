package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Clone returns a file without a name on the filesystem of d that shares the
// present content of the open file fd (ioctl_ficlone(2)). The clone disappears when
// it is closed, and in a crash (open(2), O_TMPFILE). If the filesystem has no clones,
// or fd is on another filesystem, Clone fails and leaves nothing.
func (d *Dir) Clone(fd int) (*os.File, error) {
	clone, err := d.nameless()
	if err != nil {
		return nil, err
	}
	if err := CloneInto(int(clone.Fd()), fd); err != nil {
		clone.Close()
		return nil, d.fail("make a clone in", "", err)
	}
	return clone, nil
}

func (d *Dir) nameless() (*os.File, error) {
	fd, err := RetryValue(func() (int, error) {
		return unix.Openat(d.fd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return nil, d.fail("make a file without a name in", "", err)
	}
	return os.NewFile(uintptr(fd), d.path), nil
}

// CanClone tries whether the filesystem of d has clones.
func (d *Dir) CanClone() bool {
	empty, err := d.nameless()
	if err != nil {
		return false
	}
	defer empty.Close()
	f, err := d.Clone(int(empty.Fd()))
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// CloneInto makes the empty open file to share the content of the open file from.
// After an error, to may have a part of the content.
func CloneInto(to, from int) error {
	return Retry(func() error { return unix.IoctlFileClone(to, from) })
}
