package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
)

// stagePrefix begins the name of the directory in a target in which everything is made.
// While it is there, the target is not finished. It is not the name of a wrapper of a
// restore, which recovery looks for.
const stagePrefix = ".snap-to-"

// target is the directory that an extraction fills.
//
// From make on the directory is root's alone. Everything is made in the stage inside,
// which has a lock, and takes its place at the end, when it is durable. So after a power
// cut the stage says that the target is not finished, and nobody mistakes a part for the
// whole.
type target struct {
	path   string
	real   string    // as the kernel calls it
	dir    *disk.Dir // nil while it does not exist
	parent *disk.Dir // of a directory that did not exist; else nil
	back   func() error
	stage  *disk.Dir
	name   string   // of the stage
	placed []string // what has left the stage
}

// openTarget opens the directory at an absolute path, which need not exist, and refuses
// one that cannot be filled. It changes nothing.
func openTarget(path string, admit func(real string, dir *disk.Dir, exists bool) error) (*target, error) {
	t := &target{path: filepath.Clean(path)}
	err := t.open(admit)
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *target) open(admit func(real string, dir *disk.Dir, exists bool) error) (err error) {
	t.dir, err = disk.OpenTrusted(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		t.parent, err = disk.OpenTrusted(filepath.Dir(t.path))
	}
	if err != nil {
		return unopened(err)
	}
	if t.dir != nil {
		if t.real, err = t.dir.RealPath(); err != nil {
			return err
		}
		if err := admit(t.real, t.dir, true); err != nil {
			return err
		}
		return t.empty()
	}
	above, err := t.parent.RealPath()
	if err != nil {
		return err
	}
	t.real = filepath.Join(above, filepath.Base(t.path))
	there, err := t.parent.Exists(filepath.Base(t.path))
	if err == nil && there {
		err = fault.Refuse("not_a_directory", remedy.Of("remove it, or name another directory"), "%s is a symbolic link that leads nowhere", t.path)
	}
	if err != nil {
		return err
	}
	return admit(t.real, t.parent, false)
}

// unopened refuses a path that leads to no directory, or through a link that somebody
// else may have placed.
func unopened(err error) error {
	var placed *disk.Placed
	var at *fs.PathError
	switch {
	case errors.As(err, &placed):
		return fault.Refuse("symlink_in_path", remedy.Of("name the real directory"), "%w, and may lead anywhere", err)
	case errors.Is(err, fs.ErrNotExist) && errors.As(err, &at):
		return fault.Refuse("not_a_directory", remedy.Of("mkdir -p "+remedy.Quote(at.Path)), "the directory above it does not exist: %w", err)
	case errors.Is(err, unix.ENOTDIR):
		return fault.Refuse("not_a_directory", remedy.Of("name another directory"), "%w", err)
	}
	return err
}

// empty refuses a directory that holds something, and says what to do about what an
// extraction that was cut has left.
func (t *target) empty() error {
	names, err := t.dir.Names()
	if err != nil || len(names) == 0 {
		return err
	}
	slices.Sort(names)
	stage := slices.IndexFunc(names, func(name string) bool { return strings.HasPrefix(name, stagePrefix) })
	switch {
	case stage < 0:
		return fault.Refuse("target_not_empty", remedy.Of("name a directory that does not exist yet, such as "+remedy.Quote(t.path+"/restored")), "%s is not empty: it holds %q", t.path, names[0])
	case !t.dir.Abandoned(names[stage]):
		return t.busy()
	}
	return fault.Refuse("target_unfinished", remedy.Of("rm -rf "+remedy.Quote(t.path)+", then try again"),
		"%s holds an extraction that was interrupted (%s), so what is there is only a part", t.path, names[stage])
}

func (t *target) busy() error {
	return fault.New(fault.Busy, "busy", remedy.Of("wait until it has ended, or name another directory"), "%s is being filled by another process", t.path)
}

// make makes the directory, or takes it over, and makes the stage in it. After an error
// abort puts back what it did.
func (t *target) make() (err error) {
	if t.dir == nil {
		base := filepath.Base(t.path)
		t.dir, err = t.parent.MakePrivate(base)
		switch {
		case errors.Is(err, fs.ErrExist): // since the first look
			return t.busy()
		case err == nil:
			err = t.parent.Sync()
		}
	} else {
		t.back, err = t.dir.Seclude()
	}
	if err != nil {
		return err
	}
	name := stagePrefix + disk.NewID(time.Now())
	if t.stage, err = t.dir.MakePrivate(name); err != nil {
		return err
	}
	t.name = name
	if err := t.stage.Flock(unix.LOCK_EX | unix.LOCK_NB); err != nil {
		return err
	}
	// Somebody may have put something there since the first look. From here on only root
	// could.
	names, err := t.dir.Names()
	if err == nil && len(names) > 1 {
		return t.busy()
	}
	if err != nil {
		return err
	}
	return t.dir.Sync()
}

// finish gives everything its place, durably. The stage goes last. at is told of each step.
func (t *target) finish(at func(point string)) error {
	if err := t.stage.SyncFS(); err != nil {
		return err
	}
	if err := t.stillThere(); err != nil {
		return err
	}
	names, err := t.stage.Names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if err := t.stage.RenameNoReplace(name, t.dir, name); err != nil {
			return err
		}
		t.placed = append(t.placed, name)
		at("placed " + name)
	}
	if err := t.dir.Sync(); err != nil {
		return err
	}
	if err := t.dir.Rmdir(t.name); err != nil {
		return err
	}
	t.placed, t.name = nil, "" // from here on there is nothing to take back
	at("finished")
	err = t.dir.Sync()
	if t.back != nil {
		err = errors.Join(err, t.back())
	}
	if err != nil {
		return fault.New(fault.Pending, "cleanup", remedy.Of("look at the owner and the mode of "+remedy.Quote(t.path)+", and run sync"), "everything is in %s, but: %w", t.path, err)
	}
	return nil
}

// stillThere makes sure that the path leads to the directory that was filled: whoever
// owns a directory above it may have moved it meanwhile.
func (t *target) stillThere() error {
	now, err := disk.OpenTrusted(t.path)
	same := false
	if err == nil {
		defer now.Close()
		same, err = now.SameAs(t.dir)
	}
	if err == nil && same {
		return nil
	}
	where, pathErr := t.dir.RealPath()
	if pathErr != nil {
		where = "removed"
	}
	return fault.New(fault.Failed, "target_moved", remedy.Of("find out who moves it, or name a directory that only root can write to"),
		"%s was moved or replaced meanwhile (it is now %s)", t.path, where)
}

// abort removes everything that was made. While it could not, the stage says that the
// target is not finished.
func (t *target) abort() error {
	if t.dir == nil || t.stage != nil && t.name == "" { // not made, or finished
		return nil
	}
	for _, name := range t.placed {
		if err := t.dir.RenameNoReplace(name, t.stage, name); err != nil {
			return t.left(err)
		}
	}
	t.placed = nil
	if t.name != "" {
		if err := t.dir.RemoveTree(t.name); err != nil {
			return t.left(err)
		}
		t.name = ""
	}
	if t.back != nil {
		return t.left(t.back())
	}
	if t.parent == nil {
		return nil
	}
	// Only the directory that was made, and not another that has its name by now.
	base := filepath.Base(t.path)
	now, err := t.parent.Lstat(base)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t.left(err)
	}
	own, ownErr := t.dir.Stat()
	if err != nil || ownErr != nil || now.Dev != own.Dev || now.Ino != own.Ino {
		return t.left(ownErr)
	}
	return t.left(t.parent.Rmdir(base))
}

func (t *target) left(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("what was made could not be removed from %s: %w", t.path, err)
}

func (t *target) close() {
	for _, d := range []*disk.Dir{t.stage, t.dir, t.parent} {
		d.Close()
	}
}
