package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// WriteSize is how many bytes one call should write where much is written. The
// kernel takes as large a piece of memory for the cache as a write is long;
// large ones are what a virtual machine has given back to its host, and getting
// them again takes two seconds a GiB (free page reporting: blocks of 2 MiB).
const WriteSize = 64 << 10

// Sync makes the names in d durable (fsync of the directory).
func (d *Dir) Sync() error {
	return d.fail("fsync", "", Retry(func() error { return unix.Fsync(d.fd) }))
}

// SyncFS makes everything on d's filesystem durable, data and names. It
// reports a write-back error only when that happened after d was opened
// (syncfs(2), Linux 5.8), so d is to be opened before the first write whose
// fate matters.
func (d *Dir) SyncFS() error {
	return d.fail("syncfs", "", Retry(func() error { return unix.Syncfs(d.fd) }))
}

// RenameSync moves from, in d, to the name to in dst, replacing a file there,
// and returns when both directories are durable. After an error either name
// may be in force.
func (d *Dir) RenameSync(from string, dst *Dir, to string) error {
	if err := d.Rename(from, dst, to); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	if dst.fd == d.fd {
		return nil
	}
	return d.Sync()
}

// Rename moves from, in d, to the name to in dst. It is atomic but not durable:
// the caller syncs both directories.
func (d *Dir) Rename(from string, dst *Dir, to string) error {
	if err := errors.Join(component(from), component(to)); err != nil {
		return d.fail("rename", from, err)
	}
	return d.fail("rename", from, Retry(func() error { return unix.Renameat(d.fd, from, dst.fd, to) }))
}

// RenameNoReplace is Rename that fails with EEXIST where to is taken.
func (d *Dir) RenameNoReplace(from string, dst *Dir, to string) error {
	if err := errors.Join(component(from), component(to)); err != nil {
		return d.fail("rename", from, err)
	}
	return d.fail("rename", from, Retry(func() error {
		return unix.Renameat2(d.fd, from, dst.fd, to, unix.RENAME_NOREPLACE)
	}))
}

// WriteTemp writes data to a new file name with mode 0600 and makes its
// content durable, but not its name. It fails with EEXIST where the name is
// taken, and leaves nothing behind on any other error.
func (d *Dir) WriteTemp(name string, data []byte) error {
	if err := d.write(name, data); err != nil {
		return err
	}
	f, err := d.OpenFile(name)
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		_ = d.Remove(name)
		return err
	}
	return nil
}

// WriteUnsynced writes data to a new file name with mode 0600; nothing of it
// is durable before SyncFS. It fails with EEXIST where the name is taken, and
// leaves nothing behind on any other error.
func (d *Dir) WriteUnsynced(name string, data []byte) error { return d.write(name, data) }

func (d *Dir) write(name string, data []byte) error {
	f, err := d.CreateFile(name, 0o600)
	if err != nil {
		return err
	}
	for len(data) > 0 && err == nil {
		var n int
		n, err = f.Write(data[:min(len(data), WriteSize)])
		data = data[n:]
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = d.Remove(name)
		return err
	}
	return nil
}

// Publish puts a small immutable file in place: a temporary file, its fsync,
// the rename, the fsync of the directory. When it returns nil the file is
// durable under its name; after an error the name holds either what it held
// before or the whole new content, never a part.
func (d *Dir) Publish(name string, data []byte) error {
	tmp := name + ".tmp"
	if err := d.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := d.WriteTemp(tmp, data); err != nil {
		return err
	}
	return d.RenameSync(tmp, d, name)
}

// CreateFile creates the file name for writing and reading; nothing may stand
// there (O_EXCL, which follows no symbolic link either).
func (d *Dir) CreateFile(name string, perm uint32) (*os.File, error) {
	if err := component(name); err != nil {
		return nil, d.fail("create", name, err)
	}
	fd, err := Openat2(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, uint64(perm), beneath)
	if err != nil {
		return nil, d.fail("create", name, err)
	}
	return os.NewFile(uintptr(fd), d.path+"/"+name), nil
}

// OpenFile opens the regular file at rel for reading; anything else that
// stands there is refused, with [ErrDamaged] unless it is a symbolic link
// (ELOOP), and opening never blocks.
func (d *Dir) OpenFile(rel string) (*os.File, error) {
	fd, _, err := d.openRegular(rel)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.path+"/"+rel), nil
}

// openRegular is OpenFile with a bare descriptor. It returns the file's size too.
func (d *Dir) openRegular(rel string) (fd int, size int64, err error) {
	fd, err = d.openat2(rel, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, beneath)
	if err != nil {
		return -1, 0, d.fail("open", rel, err)
	}
	var st unix.Stat_t
	if err := Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		unix.Close(fd)
		return -1, 0, d.fail("stat", rel, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, 0, d.fail("open", rel, fmt.Errorf("%w: not a regular file", ErrDamaged))
	}
	return fd, st.Size, nil
}

// ReadFile returns the content of the regular file at rel. A file that is longer
// than limit bytes is not read: the error wraps [ErrDamaged], as it does where
// something else than a regular file stands.
func (d *Dir) ReadFile(rel string, limit int64) ([]byte, error) {
	return d.ReadFileInto(rel, limit, nil)
}

// ReadFileInto is ReadFile into the memory of buf, whatever that holds, if it has
// the capacity.
func (d *Dir) ReadFileInto(rel string, limit int64, buf []byte) ([]byte, error) {
	fd, size, err := d.openRegular(rel)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if size > limit {
		return nil, d.tooLong(rel, limit)
	}
	// Room for one byte more, by which the end shows without a larger buffer.
	if buf = buf[:0]; int64(cap(buf)) <= size {
		buf = make([]byte, 0, size+1)
	}
	for {
		n, err := RetryValue(func() (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return nil, d.fail("read", rel, err)
		}
		if n == 0 {
			return buf, nil
		}
		if buf = buf[:len(buf)+n]; int64(len(buf)) > limit { // it has grown since
			return nil, d.tooLong(rel, limit)
		}
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, 4<<10)
		}
	}
}

func (d *Dir) tooLong(rel string, limit int64) error {
	return d.fail("read", rel, fmt.Errorf("%w: longer than %d bytes", ErrDamaged, limit))
}

// SyncFile makes the content of the file at rel durable.
func (d *Dir) SyncFile(rel string) error {
	f, err := d.OpenFile(rel)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
