package disk

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/remedy"
)

// Unusable says that a directory cannot hold what snap keeps there, and why.
type Unusable struct {
	What   string // "store" or "state"
	Path   string
	Reason string
	Hint   string
}

func (u *Unusable) Error() string { return fmt.Sprintf("%s %s: %s", u.What, u.Path, u.Reason) }

// Private is a kind of directory that snap keeps for itself.
type Private struct {
	What  string     // the word for it in messages
	Marks [][]string // a directory with all names of one of these is one already
	Names []string   // what else may be in one whose making was interrupted
}

// Open opens the directory at an absolute path. It never changes the mode of a
// directory. The error is [*Unusable] if the directory
//
//   - is reached through a symbolic link: whoever can place the link decides what snap
//     fills and empties;
//   - belongs to another user than the one that runs snap, or others can write to it;
//   - holds something and is not such a directory: a mistake in the config must not
//     fill somebody's folder;
//   - is not on a local filesystem.
func (p Private) Open(path string) (*Dir, error) {
	d, err := openUnlinked(path)
	if errors.Is(err, unix.ELOOP) {
		return nil, p.linked(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the %s: %w", p.What, err)
	}
	if err := p.check(d); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Make is Open that first makes the directory, and those above it, with mode 0700 where
// they do not exist; fresh tells that it did. What it makes is durable when it returns.
func (p Private) Make(path string) (d *Dir, fresh bool, err error) {
	d, err = p.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return d, false, err
	}
	made, err := ensureAll(path)
	if err == nil {
		err = made.Close()
	}
	if err != nil {
		return nil, false, fmt.Errorf("make the %s: %w", p.What, err)
	}
	d, err = p.Open(path)
	return d, true, err
}

// openUnlinked opens the directory at an absolute path in which no component is a
// symbolic link; for one that is, the error is ELOOP.
func openUnlinked(path string) (*Dir, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("open %q: not an absolute path", path)
	}
	path = filepath.Clean(path)
	fd, err := Openat2(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_DIRECTORY, 0, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &Dir{fd: fd, path: path}, nil
}

func ensureAll(path string) (*Dir, error) {
	d, err := openUnlinked(path)
	if !errors.Is(err, fs.ErrNotExist) || path == "/" {
		return d, err
	}
	above, err := ensureAll(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer above.Close()
	return above.Ensure(filepath.Base(path), 0o700)
}

func (p Private) linked(path string) error {
	hint := "give a path without symbolic links"
	if f, real, err := OpenPassing(path, func(Passed) error { return nil }); err == nil {
		_ = f.Close()
		hint = fmt.Sprintf("give the path that it leads to, %s, if that is where it should be", real)
	}
	return &Unusable{p.What, path, "there is a symbolic link on the way", hint}
}

func (p Private) check(d *Dir) error {
	why, err := d.Unsuitable()
	if err != nil {
		return err
	}
	// The upper layer of an overlay is a local filesystem. Only volumes need the
	// handles that an overlay lacks.
	if name, _ := d.FSName(); why != "" && name != "overlayfs" {
		return &Unusable{p.What, d.path, why, fmt.Sprintf("put the %s on a local filesystem (ext4, xfs, btrfs)", p.What)}
	}
	st, err := d.Stat()
	if err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return &Unusable{p.What, d.path, fmt.Sprintf("belongs to user %d, not to the one that runs snap", st.Uid), fmt.Sprintf("chown %d %s", os.Geteuid(), remedy.Quote(d.path))}
	}
	if st.Mode&0o022 != 0 {
		return &Unusable{p.What, d.path, fmt.Sprintf("others may write it (mode %#o), so what it holds cannot be trusted", st.Mode&0o7777),
			"look at its content, then chmod 700 " + remedy.Quote(d.path)}
	}
	if foreign, err := p.foreign(d); err != nil || foreign != "" {
		return cmp.Or(err, error(&Unusable{p.What, d.path, fmt.Sprintf("is not a %s and not empty: there is %q in it", p.What, foreign), "name an empty directory, or one that does not exist"}))
	}
	return nil
}

// foreign returns a name in d that snap has not put there, and "" where d is such a
// directory already.
func (p Private) foreign(d *Dir) (string, error) {
	names, err := d.Names()
	if err != nil {
		return "", err
	}
	there := func(name string) bool { return slices.Contains(names, name) }
	for _, mark := range p.Marks {
		if !slices.ContainsFunc(mark, func(name string) bool { return !there(name) }) {
			return "", nil
		}
	}
	known := append(slices.Concat(p.Marks...), append(p.Names, "lost+found")...)
	slices.Sort(names)
	for _, name := range names {
		if !slices.Contains(known, strings.TrimSuffix(name, ".tmp")) {
			return name, nil
		}
	}
	return "", nil
}

// SameAs reports whether d and other are the same directory.
func (d *Dir) SameAs(other *Dir) (bool, error) {
	a, err := d.Stat()
	if err != nil {
		return false, err
	}
	b, err := other.Stat()
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino, err
}
