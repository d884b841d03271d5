package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// WriteSize is how many bytes a caller with much to write should write in one call.
// The kernel caches a write in pieces of memory as large as the write. A virtual
// machine has given its large pieces back to its host, and it takes two seconds a
// GiB to get them again (free page reporting works on blocks of 2 MiB).
const WriteSize = 64 << 10

// Sync makes the names in d durable (fsync(2) of the directory).
func (d *Dir) Sync() error {
	return d.fail("fsync", "", Retry(func() error { return unix.Fsync(d.fd) }))
}

// SyncFS makes everything on d's filesystem durable, data and names. It reports a
// failed write-back only if that failed after d was opened (syncfs(2), Linux 5.8).
// So open d before the first write that must not be lost.
func (d *Dir) SyncFS() error {
	return d.fail("syncfs", "", Retry(func() error { return unix.Syncfs(d.fd) }))
}

// RenameSync is Rename that returns when both directories are durable. After an error
// the file may have either name.
func (d *Dir) RenameSync(from string, dst *Dir, to string) error {
	if err := d.Rename(from, dst, to); err != nil {
		return err
	}
	if err := dst.Sync(); err != nil || dst.fd == d.fd {
		return err
	}
	return d.Sync()
}

// Rename moves from in d to the name to in dst, where it replaces a file. It is atomic
// but not durable: the caller syncs both directories.
func (d *Dir) Rename(from string, dst *Dir, to string) error {
	if err := errors.Join(component(from), component(to)); err != nil {
		return d.fail("rename", from, err)
	}
	return d.fail("rename", from, Retry(func() error { return unix.Renameat(d.fd, from, dst.fd, to) }))
}

// RenameNoReplace is like Rename, but it fails with EEXIST if to exists.
func (d *Dir) RenameNoReplace(from string, dst *Dir, to string) error {
	return d.renameat2("rename", from, dst, to, unix.RENAME_NOREPLACE)
}

func (d *Dir) renameat2(op, from string, dst *Dir, to string, flags uint) error {
	if err := errors.Join(component(from), component(to)); err != nil {
		return d.fail(op, from, err)
	}
	return d.fail(op, from, Retry(func() error { return unix.Renameat2(d.fd, from, dst.fd, to, flags) }))
}

// WriteTemp writes data to a new file name with mode 0600 and makes the content
// durable, but not the name. It fails with EEXIST if name exists. After any other
// error it leaves no file.
func (d *Dir) WriteTemp(name string, data []byte) error {
	if err := d.WriteUnsynced(name, data); err != nil {
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

// WriteUnsynced is like WriteTemp, but neither content nor name is durable before
// SyncFS.
func (d *Dir) WriteUnsynced(name string, data []byte) error {
	f, err := d.CreateFile(name)
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

// Publish creates or replaces the small file name. When it returns nil, the file is
// durable under its name. After an error the name has either its old content or all
// of the new content.
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

// CreateFile creates the file name with mode 0600 for reading and writing. It fails
// with EEXIST if anything has that name, a symbolic link included (O_EXCL).
func (d *Dir) CreateFile(name string) (*os.File, error) {
	if err := component(name); err != nil {
		return nil, d.fail("create", name, err)
	}
	fd, err := Openat2(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW, 0o600, beneath)
	if err != nil {
		return nil, d.fail("create", name, err)
	}
	return os.NewFile(uintptr(fd), d.path+"/"+name), nil
}

// OpenShared opens the file name, which several processes write to, for reading and
// appending. If it does not exist, OpenShared creates it with mode 0600.
func (d *Dir) OpenShared(name string) (*os.File, error) {
	fd, err := Openat2(d.fd, name, unix.O_RDWR|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW, 0o600, beneath)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	return os.NewFile(uintptr(fd), d.path+"/"+name), nil
}

// OpenFile opens the regular file at rel for reading. It never blocks. A symbolic
// link at rel is ELOOP; for anything else that is not a regular file the error wraps
// [ErrDamaged].
func (d *Dir) OpenFile(rel string) (*os.File, error) {
	fd, _, err := d.openRegular(rel)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), d.path+"/"+rel), nil
}

// openRegular is OpenFile that returns a bare descriptor and the size of the file.
func (d *Dir) openRegular(rel string) (fd int, size int64, err error) {
	if d.file != "" && rel == d.file {
		fd, err = reopen(d.fd)
	} else {
		fd, err = Openat2(d.fd, rel, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0, beneath)
	}
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

// ReadFile returns the content of the regular file at rel. If the file is longer than
// limit bytes, or is not a regular file, the error wraps [ErrDamaged].
func (d *Dir) ReadFile(rel string, limit int64) ([]byte, error) {
	return d.ReadFileInto(rel, limit, nil)
}

// ReadFileInto is like ReadFile, but it uses the memory of buf if that suffices.
func (d *Dir) ReadFileInto(rel string, limit int64, buf []byte) ([]byte, error) {
	fd, size, err := d.openRegular(rel)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if size > limit {
		return nil, d.tooLong(rel, limit)
	}
	// One byte more, so that reading finds the end without a larger buffer.
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
		if buf = buf[:len(buf)+n]; int64(len(buf)) > limit { // the file has grown
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
