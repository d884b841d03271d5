package restore

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// what is what stands at a name.
type what int

const (
	absent   what = iota
	theOld        // the directory that was live before the restore, by handle
	theNew        // the one that the restore staged, by handle
	stranger      // whatever else: not snap's, and never deleted by it
)

// view is what stands at the two names of a volume.
type view struct {
	live, staged         what
	liveKind, stagedKind string // of a stranger, in words
}

// view looks at both names. Only ENOENT is absence; what keeps it from seeing
// is an error.
func (s *site) view() (view, error) {
	var v view
	if s.parent == nil {
		return v, &unmounted{s.Name, s.path()}
	}
	var err error
	if v.live, v.liveKind, err = s.identify(s.parent, s.base); err != nil {
		return v, err
	}
	wrapper, err := s.openWrapper()
	if err != nil || wrapper == nil {
		return v, s.notAWrapper(err)
	}
	defer wrapper.Close()
	v.staged, v.stagedKind, err = s.identify(wrapper, s.Entry)
	return v, err
}

// notAWrapper puts into words what stands at the wrapper's name and is none.
func (s *site) notAWrapper(err error) error {
	path := s.parent.Path() + "/" + s.wrapper
	switch {
	case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		return &oddity{fmt.Sprintf("%s is not a directory", path), []string{fmt.Sprintf("mv %s to another name, then run snap recover again", shell(path))}}
	case errors.Is(err, unix.EXDEV):
		return &oddity{fmt.Sprintf("something is mounted at %s", path), []string{fmt.Sprintf("umount %s, then run snap recover again", shell(path))}}
	}
	return err
}

func (s *site) identify(d *disk.Dir, name string) (what, string, error) {
	h, err := d.HandleOf(name)
	switch {
	case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		st, err := d.Lstat(name)
		if err != nil {
			return stranger, "", err
		}
		return stranger, kindOfFile(st.Mode), nil
	case err != nil:
		return stranger, "", err
	case h == "":
		return absent, "", nil
	case h == s.handles.Live:
		return remains(d, name, theOld)
	case h == s.handles.Staged:
		return remains(d, name, theNew)
	}
	return stranger, "another directory", nil
}

// remains tells a whole tree from what is left of one that was being deleted,
// and that somebody has moved: that is nobody's data any more.
func remains(d *disk.Dir, name string, w what) (what, string, error) {
	tree, err := d.Open(name)
	if err != nil {
		return stranger, "", err
	}
	half, err := tree.Condemned()
	if err = errors.Join(err, tree.Close()); err != nil {
		return stranger, "", err
	}
	if half {
		return stranger, "what is left of " + w.name("") + ", which was being deleted,", nil
	}
	return w, "", nil
}

func kindOfFile(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFDIR:
		return "another directory"
	}
	return "a special file"
}

// sight is the view as a line of the table of recovery.
func (v view) sight() sight {
	switch [2]what{v.live, v.staged} {
	case [2]what{theOld, theNew}:
		return oldNew
	case [2]what{theNew, theOld}:
		return newOld
	case [2]what{theOld, absent}:
		return oldGone
	case [2]what{theNew, absent}:
		return newGone
	}
	return strange
}

func (v view) String() string {
	if s := v.sight(); s != strange {
		return s.String()
	}
	return fmt.Sprintf("%s stands at the live name, %s in the wrapper", v.live.name(v.liveKind), v.staged.name(v.stagedKind))
}

func (w what) name(kind string) string {
	if w == stranger {
		return kind
	}
	return [...]string{absent: "nothing", theOld: "the old data", theNew: "the new data"}[w]
}

// handle returns the recorded handle of a volume's old or new directory.
func (s *site) handle(w what) disk.Handle {
	if w == theOld {
		return s.handles.Live
	}
	return s.handles.Staged
}

// whereabouts says in words where a directory is that stands at neither name,
// and returns its path where it still exists.
func (s *site) whereabouts(w what) (words, path string) {
	name := w.name("")
	if s.parent == nil {
		return "", ""
	}
	path, err := s.parent.Locate(s.handle(w))
	switch {
	case err != nil: // it is a help, no more
		return "", ""
	case path == "":
		return name + " exists no more", ""
	case s.condemned(path):
		return name + " was being deleted (what is left is at " + path + ")", ""
	}
	return name + " is at " + path, path
}

// condemned reports whether the tree at a path is being deleted.
func (s *site) condemned(path string) bool {
	if filepath.Base(path) == trash(s.Entry) {
		return true
	}
	d, err := disk.OpenRoot(path)
	if err != nil {
		return false
	}
	defer d.Close()
	half, err := d.Condemned()
	return err == nil && half
}

// tell says of each volume in a line where its directories are.
func (x *txn) tell() []string {
	var lines []string
	for _, s := range x.sites {
		lines = append(lines, fmt.Sprintf("%s (%s): %s", s.Name, s.path(), s.tell()))
	}
	return lines
}

func (s *site) tell() string {
	v, err := s.view()
	if err != nil {
		return fmt.Sprintf("cannot be looked at: %v", err)
	}
	text := v.String()
	if v.sight() == newGone {
		if _, path := s.whereabouts(theOld); path != "" { // it was taken away
			return "the new data is live; the old data is at " + path
		}
	}
	if v.sight() != strange {
		return text
	}
	for _, w := range []what{theOld, theNew} {
		if words, _ := s.whereabouts(w); words != "" && v.live != w && v.staged != w {
			text += "; " + words
		}
	}
	return text
}

// unmounted says that a volume's directories are not to be seen.
type unmounted struct{ volume, path string }

func (u *unmounted) Error() string {
	return fmt.Sprintf("volume %s: the directory that %s was in is not there: its filesystem is not mounted, or it was moved away", u.volume, u.path)
}

// untouched makes sure of a restore without a ready record that no live
// directory has moved: otherwise what lies in the wrappers may be the only copy
// of the old data, and the record was lost.
func (e *Engine) untouched(x *txn) error {
	for _, s := range x.sites {
		if ok, err := s.anchored(); err != nil {
			return fmt.Errorf("volume %s (%s) cannot be looked at: %w", s.Name, s.path(), err)
		} else if !ok {
			return &unmounted{s.Name, s.path()}
		}
		if err := s.notDisplaced(); err != nil {
			return err
		}
	}
	if x.Begin.Kind != journal.Restore {
		return nil
	}
	published, err := e.published(x.Begin)
	if err != nil {
		return err
	}
	if published {
		return fmt.Errorf("the ready record is missing: the pre-restore snapshot %s, which is made after it, exists: %w", x.Begin.PreRestoreSID, disk.ErrDamaged)
	}
	return nil
}
