package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNotRegular means that what has a name is neither a directory nor a regular file,
// or not the one of the two that was asked for.
var ErrNotRegular = errors.New("not a regular file")

// OpenSingle opens the regular file name, one component of d, as the data of a volume
// that is this one file. What is asked of the file itself (its handle, times and
// properties, its filesystem) is asked as of a directory. A lookup below it is
// ENOTDIR, but for [Dir.OpenFile] of the file's own name.
//
// It follows no symbolic link, and it may cross into another mount. Nothing but a
// regular file is opened, because opening a device has effects. For anything else the
// error wraps [ErrNotRegular].
func (d *Dir) OpenSingle(name string) (*Dir, error) {
	if err := component(name); err != nil {
		return nil, d.fail("open", name, err)
	}
	pin, err := Openat2(d.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0, beneath)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	defer unix.Close(pin)
	var st unix.Stat_t
	if err := Retry(func() error { return unix.Fstat(pin, &st) }); err != nil {
		return nil, d.fail("stat", name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, d.fail("open", name, ErrNotRegular)
	}
	fd, err := reopen(pin)
	if err != nil {
		return nil, d.fail("open", name, err)
	}
	return &Dir{fd: fd, path: filepath.Join(d.path, name), file: name}, nil
}

// reopen opens the file behind a descriptor, which may be O_PATH, for reading.
func reopen(fd int) (int, error) {
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	return RetryValue(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0) })
}

// File returns the name of the file that d is, and "" for a directory.
func (d *Dir) File() string {
	if d == nil {
		return ""
	}
	return d.file
}

// HandleOfSingle is HandleOf for the regular file name.
func (d *Dir) HandleOfSingle(name string) (Handle, error) {
	file, err := d.OpenSingle(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer file.Close()
	return file.Handle()
}

// EnsureSingle makes the empty file name, with mode 0600, unless something has that
// name. The new file is durable when EnsureSingle returns.
func (d *Dir) EnsureSingle(name string) error {
	f, err := d.CreateFile(name)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return d.Sync()
}

// RemoveEmptySingle removes the regular file name, unless it is gone or something is
// in it.
func (d *Dir) RemoveEmptySingle(name string) error {
	st, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) || err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.Remove(name)
}

// RemoveSingleIf removes the regular file name, and nothing if that does not have the
// handle want. A file that does not exist is no error.
func (d *Dir) RemoveSingleIf(name string, want Handle) error {
	got, err := d.HandleOfSingle(name)
	if err != nil || got == "" {
		return err
	}
	if got != want {
		return d.fail("remove", name, fmt.Errorf("this is another file: its handle is %s, expected %s", got, want))
	}
	return d.Remove(name)
}

// xflagExtentInherit is FS_XFLAG_EXTSZINHERIT.
const xflagExtentInherit = 0x1000

// MakeForFile is MakePrivate for a directory in which a new file gets the project id and the
// inode flags of a file with the properties p. The label is the caller's business.
func (d *Dir) MakeForFile(name string, p Properties) (*Dir, error) {
	made, err := d.MakePrivate(name)
	if err != nil {
		return nil, err
	}
	if err := made.handDown(p); err != nil {
		return nil, errors.Join(err, made.Close(), d.Rmdir(name))
	}
	return made, nil
}

func (d *Dir) handDown(p Properties) error {
	now, err := d.Properties()
	if err != nil {
		return err
	}
	if p.Project != 0 {
		p.xflags |= xflagProjectInherit
	}
	if p.extent != 0 {
		p.xflags |= xflagExtentInherit
	}
	if err := d.giveXattr(p, now); err != nil {
		return err
	}
	if now, err = d.inherited(); err != nil {
		return err
	}
	flags := p.flags | now.flags&flagProjectInherit // another view of the same flag
	if p.compression != "" {                        // the attribute sets the flag
		flags &^= flagCompress | flagNoCompress
	}
	if err := d.setFlags(flags); err != nil {
		return err
	}
	if p.compression != "" {
		return d.setAttribute(btrfsCompression, p.compression)
	}
	return nil
}

// OnlyProject returns the properties that decide whether a file may be moved into a
// directory: its project id.
func (p Properties) OnlyProject() Properties { return Properties{Project: p.Project} }

// StatIn describes what a path leads to for a process, from the root directory and
// through the mounts that it has.
func StatIn(pid int, path string) (*unix.Stat_t, error) {
	proc := fmt.Sprintf("/proc/%d/root", pid)
	root, err := RetryValue(func() (int, error) { return unix.Open(proc, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: proc, Err: err}
	}
	defer unix.Close(root)
	found, err := Openat2(root, path, unix.O_PATH|unix.O_NOFOLLOW, 0, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: proc + path, Err: err}
	}
	defer unix.Close(found)
	var st unix.Stat_t
	if err := Retry(func() error { return unix.Fstat(found, &st) }); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: proc + path, Err: err}
	}
	return &st, nil
}
