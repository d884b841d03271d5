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

// Dir is an open directory, or the one file that a volume may consist of (see
// [Dir.OpenSingle]). Its path is for messages only: every effect goes through the
// descriptor. The zero value is not usable. Close a Dir after use.
type Dir struct {
	fd   int
	path string
	file string // its name, where it is a file
}

// beneath are the rules of every lookup below a Dir: it cannot leave the Dir, and
// no component may be a symbolic link (openat2(2)).
const beneath = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// OpenRoot opens the directory at an absolute path that the operator named. It
// follows symbolic links in that path, because they are the operator's own.
func OpenRoot(path string) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("open %q: not an absolute path", path)
	}
	fd, err := RetryValue(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{fd: fd, path: path}, nil
}

// Open opens the directory at rel, one or more components below d. It follows no
// symbolic link, and it may cross into another mount.
func (d *Dir) Open(rel string) (*Dir, error) {
	return d.open(rel, beneath)
}

// OpenSameMount is like Open, but it fails with EXDEV rather than cross into
// another mount.
func (d *Dir) OpenSameMount(rel string) (*Dir, error) {
	return d.open(rel, beneath|unix.RESOLVE_NO_XDEV)
}

// OpenIfThere is like OpenSameMount, but it returns nil if there is no such directory.
func (d *Dir) OpenIfThere(rel string) (*Dir, error) {
	sub, err := d.OpenSameMount(rel)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return sub, err
}

func (d *Dir) open(rel string, resolve uint64) (*Dir, error) {
	fd, err := Openat2(d.fd, rel, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0, resolve)
	if err != nil {
		return nil, d.fail("open", rel, err)
	}
	return &Dir{fd: fd, path: filepath.Join(d.path, rel)}, nil
}

// Openat2 is openat2(2) with O_CLOEXEC. It repeats the call after EINTR, and after
// EAGAIN, by which the kernel says that a rename raced with the lookup of a bounded
// path (openat2(2), RESOLVE_BENEATH).
func Openat2(dirfd int, rel string, flags, mode, resolve uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Mode: mode, Resolve: resolve}
	var fd int
	var err error
	for range 128 {
		fd, err = RetryValue(func() (int, error) { return unix.Openat2(dirfd, rel, &how) })
		if !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	return fd, err
}

// Retry repeats a system call that a signal interrupted. Go's runtime sends signals
// to itself, and which calls restart by themselves depends on the call and on the
// filesystem (signal(7)).
func Retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// RetryValue is Retry for a call that returns a value.
func RetryValue[T any](call func() (T, error)) (value T, err error) {
	err = Retry(func() error {
		value, err = call()
		return err
	})
	return value, err
}

// Flock is flock(2) on d.
func (d *Dir) Flock(how int) error {
	return d.fail("lock", "", Retry(func() error { return unix.Flock(d.fd, how) }))
}

// Abandoned reports whether no process has locked the directory name.
func (d *Dir) Abandoned(name string) bool {
	sub, err := d.OpenSameMount(name)
	if err != nil {
		return false
	}
	defer sub.Close()
	return sub.Flock(unix.LOCK_EX|unix.LOCK_NB) == nil
}

func (d *Dir) fail(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

// Path returns the path under which d was opened, for messages.
func (d *Dir) Path() string { return d.path }

// Renamed says that d is now called name in parent.
func (d *Dir) Renamed(parent *Dir, name string) { d.path = parent.path + "/" + name }

// FD returns the descriptor, which still belongs to d.
func (d *Dir) FD() int { return d.fd }

// Close closes the descriptor. A second Close does nothing.
func (d *Dir) Close() error {
	if d == nil || d.fd < 0 {
		return nil
	}
	fd := d.fd
	d.fd = -1
	return d.fail("close", "", unix.Close(fd))
}

// Mkdir creates the directory name, one component, with exactly the mode perm:
// neither the umask nor a setgid bit of d changes it. It fails with EEXIST if
// anything has that name.
func (d *Dir) Mkdir(name string, perm uint32) error {
	if err := component(name); err != nil {
		return d.fail("mkdir", name, err)
	}
	// 0700 first, so that nobody can enter between mkdir and chmod.
	if err := Retry(func() error { return unix.Mkdirat(d.fd, name, 0o700) }); err != nil {
		return d.fail("mkdir", name, err)
	}
	made, err := d.OpenSameMount(name)
	if err != nil {
		return err
	}
	defer made.Close()
	return d.fail("chmod", name, Retry(func() error { return unix.Fchmod(made.fd, perm) }))
}

// Ensure opens the directory name, and creates it with mode perm if it does not
// exist. The new directory is durable when Ensure returns.
func (d *Dir) Ensure(name string, perm uint32) (*Dir, error) {
	return d.ensure(name, perm, d.Sync)
}

// EnsureUnsynced is like Ensure, but a new directory is durable only after SyncFS.
func (d *Dir) EnsureUnsynced(name string, perm uint32) (*Dir, error) {
	return d.ensure(name, perm, func() error { return nil })
}

func (d *Dir) ensure(name string, perm uint32, created func() error) (*Dir, error) {
	err := d.Mkdir(name, perm)
	if err == nil {
		err = created()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return d.OpenSameMount(name)
}

// Names returns the names in d, unsorted.
func (d *Dir) Names() ([]string, error) {
	// A second open file: reading a directory moves the offset of the open file.
	fd, err := Openat2(d.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY, 0, beneath)
	if err != nil {
		return nil, d.fail("open", "", err)
	}
	f := os.NewFile(uintptr(fd), d.path)
	defer f.Close()
	return f.Readdirnames(-1)
}

// Exists reports whether anything has the name. Only ENOENT counts as absence.
func (d *Dir) Exists(name string) (bool, error) {
	_, err := d.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Lstat describes what has the name, one component. It does not follow a symbolic
// link.
func (d *Dir) Lstat(name string) (*unix.Stat_t, error) {
	if err := component(name); err != nil {
		return nil, d.fail("stat", name, err)
	}
	var st unix.Stat_t
	err := Retry(func() error { return unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return nil, d.fail("stat", name, err)
	}
	return &st, nil
}

// Stat describes d itself.
func (d *Dir) Stat() (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := Retry(func() error { return unix.Fstat(d.fd, &st) }); err != nil {
		return nil, d.fail("stat", "", err)
	}
	return &st, nil
}

// component checks that name is a single name inside a directory.
func component(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return unix.EINVAL
	}
	return nil
}

// MakePrivate creates the directory name with mode 0700, the caller's owner and
// group, and no ACL, and opens it. What d would hand down (a setgid bit, a default
// ACL), the whole staged tree would inherit.
func (d *Dir) MakePrivate(name string) (*Dir, error) {
	if err := d.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	made, err := d.OpenSameMount(name)
	if err != nil {
		return nil, err
	}
	if err := made.makePrivate(); err != nil {
		return nil, errors.Join(err, made.Close(), d.Rmdir(name))
	}
	return made, nil
}

// Chown gives the directory itself another owner, durably.
func (d *Dir) Chown(uid, gid int) error {
	if err := Retry(func() error { return unix.Fchown(d.fd, uid, gid) }); err != nil {
		return d.fail("chown", "", err)
	}
	return d.Sync()
}

func (d *Dir) makePrivate() error {
	if err := Retry(func() error { return unix.Fchown(d.fd, unix.Geteuid(), unix.Getegid()) }); err != nil {
		return d.fail("chown", "", err)
	}
	for _, acl := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		err := Retry(func() error { return unix.Fremovexattr(d.fd, acl) })
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
			return d.fail("remove the ACL of", "", err)
		}
	}
	return d.fail("chmod", "", Retry(func() error { return unix.Fchmod(d.fd, 0o700) }))
}
