package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Placed says that there is a symbolic link on the way to a directory that somebody else
// may have put there.
type Placed struct {
	Path string // of the link
}

func (p *Placed) Error() string {
	return fmt.Sprintf("%s is a symbolic link in a directory that others than root can write to", p.Path)
}

// maxLinks is how many symbolic links a path may lead through, as in path_resolution(7).
const maxLinks = 40

// OpenTrusted is [OpenRoot] for a path below which root is going to write on somebody's
// word. It follows a symbolic link only where nobody but root, or the user that runs
// snap, can have placed it: the link and the directory that it is in are theirs, and
// nobody else can write to that directory. For any other link the error is [*Placed].
func OpenTrusted(path string) (*Dir, error) {
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return nil, fmt.Errorf("open %q: not an absolute path", path)
	}
	var in unix.Stat_t // the directory that was passed last
	w := &way{todo: strings.Split(filepath.Clean(path), "/"), pass: func(p Passed) error {
		switch p.Stat.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			in = p.Stat
		case unix.S_IFLNK:
			if !rootsOwn(p.Stat.Uid) || !rootsOwn(in.Uid) || in.Mode&0o022 != 0 {
				return &Placed{p.Path}
			}
		}
		return nil
	}}
	defer func() { unix.Close(w.fd) }()
	if err := w.walk(); err != nil {
		return nil, err
	}
	fd, err := Openat2(w.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{fd: fd, path: filepath.Clean(path)}, nil
}

// Passed is what a path leads through: a directory, a symbolic link, or the file at its
// end.
type Passed struct {
	Path string
	Stat unix.Stat_t
	ACL  bool // it has an access control list besides its mode (acl(5))
}

// OpenPassing opens the file at an absolute path for reading. It calls pass with all that
// the path leads through, from / to the file, each while it is held open; an error of
// pass ends it. real is the path without symbolic links. OpenPassing does not wait for the
// writer of a fifo.
func OpenPassing(path string, pass func(Passed) error) (f *os.File, real string, err error) {
	w := &way{todo: strings.Split(filepath.Clean(path), "/"), pass: pass}
	defer func() { unix.Close(w.fd) }()
	if err := w.walk(); err != nil {
		return nil, "", err
	}
	f, err = os.OpenFile(procSelf(w.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: errors.Unwrap(err)}
	}
	return f, w.at, nil
}

func procSelf(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// way is a path that is walked one component at a time.
type way struct {
	fd    int    // what was reached, O_PATH
	at    string // its path, for messages
	todo  []string
	links int
	pass  func(Passed) error
}

func (w *way) walk() error {
	if err := w.root(); err != nil {
		return err
	}
	for len(w.todo) > 0 {
		name := w.todo[0]
		w.todo = w.todo[1:]
		if name == "" || name == "." {
			continue
		}
		if err := w.step(name); err != nil {
			return err
		}
	}
	return nil
}

func (w *way) root() error {
	fd, err := RetryValue(func() (int, error) {
		return unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	w.fd, w.at = fd, "/"
	var st unix.Stat_t
	if err := Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return &fs.PathError{Op: "stat", Path: "/", Err: err}
	}
	return w.passed("/", fd, &st)
}

func (w *way) passed(path string, fd int, st *unix.Stat_t) error {
	_, err := unix.Getxattr(procSelf(fd), "system.posix_acl_access", nil) // of an O_PATH descriptor
	return w.pass(Passed{path, *st, err == nil && st.Mode&unix.S_IFMT != unix.S_IFLNK})
}

func (w *way) step(name string) error {
	path := filepath.Join(w.at, name)
	fail := func(err error) error { return &fs.PathError{Op: "open", Path: path, Err: err} }
	next, err := Openat2(w.fd, name, unix.O_PATH|unix.O_NOFOLLOW, 0, 0)
	if err != nil {
		return fail(err)
	}
	var st unix.Stat_t
	if err := Retry(func() error { return unix.Fstat(next, &st) }); err != nil {
		unix.Close(next)
		return fail(err)
	}
	if err := w.passed(path, next, &st); err != nil {
		unix.Close(next)
		return err
	}
	kind := st.Mode & unix.S_IFMT
	switch {
	case kind == unix.S_IFDIR, kind != unix.S_IFLNK && len(w.todo) == 0:
		unix.Close(w.fd)
		w.fd, w.at = next, path
		return nil
	case kind == unix.S_IFLNK:
		defer unix.Close(next)
		if w.links++; w.links > maxLinks {
			return fail(unix.ELOOP)
		}
		return w.follow(next, path)
	}
	unix.Close(next)
	return fail(unix.ENOTDIR)
}

// follow goes on at the target of an open symbolic link.
func (w *way) follow(link int, path string) error {
	// Of the open link: the name may be another one's by now.
	target, err := readlink(link)
	if err != nil {
		return &fs.PathError{Op: "readlink", Path: path, Err: err}
	}
	w.todo = append(strings.Split(target, "/"), w.todo...)
	if !filepath.IsAbs(target) {
		return nil
	}
	unix.Close(w.fd)
	w.fd = -1
	return w.root()
}

func rootsOwn(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// readlink reads the target of a symbolic link that is open with O_PATH.
func readlink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := RetryValue(func() (int, error) { return unix.Readlinkat(fd, "", buf) })
	if err == nil && n == len(buf) {
		err = unix.ENAMETOOLONG
	}
	return string(buf[:max(n, 0)]), err
}

// Seclude makes d the directory of the user that runs snap alone: nobody else can look
// up or make a name in it, whatever they have open. back gives it its owner and its mode
// again, durably.
func (d *Dir) Seclude() (back func() error, err error) {
	st, err := d.Stat()
	if err != nil {
		return nil, err
	}
	set := func(uid, gid int, mode uint32) error {
		return errors.Join(
			d.fail("chown", "", Retry(func() error { return unix.Fchown(d.fd, uid, gid) })), // first: it clears bits of the mode
			d.fail("chmod", "", Retry(func() error { return unix.Fchmod(d.fd, mode) })),
		)
	}
	back = func() error {
		if err := set(int(st.Uid), int(st.Gid), st.Mode&0o7777); err != nil {
			return err
		}
		return d.Sync()
	}
	if err := set(os.Geteuid(), os.Getegid(), 0o700); err != nil {
		return nil, errors.Join(err, back())
	}
	return back, nil
}
