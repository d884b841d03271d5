package swap

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// Occupant is what was found at a name.
type Occupant int

// The occupants.
const (
	Absent  Occupant = iota
	Old              // the directory or file that was live before the restore, by handle
	New              // the one that the restore staged, by handle
	Foreign          // anything else: it is not snap's, and snap never deletes it
)

// Other is the other generation.
func (o Occupant) Other() Occupant {
	if o == Old {
		return New
	}
	return Old
}

func (o Occupant) String() string {
	return [...]string{Absent: "nothing", Old: "the old data", New: "the new data", Foreign: "something that is not snap's"}[o]
}

// Observation is what was found at the two names of a volume.
type Observation struct {
	Live, Staged Occupant
	live, staged string // what a foreign occupant is
}

// Foreign says what stands at one of the names and is not snap's, "" for nothing.
func (o Observation) Foreign() string { return cmp.Or(o.live, o.staged) }

// Layout is the row of the table of recovery.
func (o Observation) Layout() Layout {
	if l, ok := layouts[[2]Occupant{o.Live, o.Staged}]; ok {
		return l
	}
	return Unknown
}

func (o Observation) String() string {
	if l := o.Layout(); l != Unknown {
		return l.String()
	}
	return fmt.Sprintf("%s stands at the live name, %s in the wrapper", cmp.Or(o.live, o.Live.String()), cmp.Or(o.staged, o.Staged.String()))
}

// Observe looks at both names of a volume.
func (v *Volume) Observe() (Observation, error) {
	var o Observation
	if v.parent == nil {
		return o, &Unmounted{v.Name, v.Path()}
	}
	var err error
	if o.Live, o.live, err = v.identify(v.parent, v.base); err != nil {
		return o, err
	}
	slot, name, err := v.slot()
	if err != nil || slot == nil {
		return o, v.notAWrapper(err)
	}
	defer slot.Close()
	o.Staged, o.staged, err = v.identify(slot, name)
	return o, err
}

// notAWrapper explains what was found at the wrapper's name instead of a wrapper.
func (v *Volume) notAWrapper(err error) error {
	path := v.parent.Path() + "/" + v.wrapper
	if at := (*fs.PathError)(nil); errors.As(err, &at) {
		path = at.Path
	}
	switch {
	case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		return &Mismatch{fmt.Sprintf("%s is not a directory", path), []Way{{Do: MoveAway, Path: path}}}
	case errors.Is(err, unix.EXDEV):
		return &Mismatch{fmt.Sprintf("something is mounted at %s", path), []Way{{Do: Unmount, Path: path}}}
	}
	return err
}

func (v *Volume) identify(d *disk.Dir, name string) (Occupant, string, error) {
	h, err := v.handleOf(d, name)
	switch {
	case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, disk.ErrNotRegular):
		st, err := d.Lstat(name)
		if err != nil {
			return Foreign, "", err
		}
		return Foreign, kindOfFile(st.Mode), nil
	case err != nil:
		return Foreign, "", err
	case h == "":
		return Absent, "", nil
	case h == v.handles.Live:
		return v.whole(d, name, Old)
	case h == v.handles.Staged:
		return v.whole(d, name, New)
	}
	return Foreign, "another " + v.kind(), nil
}

// whole tells a whole tree from a partial one, whose deletion had begun when somebody
// moved it. A partial tree no longer counts as data. A file is deleted in one step.
func (v *Volume) whole(d *disk.Dir, name string, o Occupant) (Occupant, string, error) {
	if v.File {
		return o, "", nil
	}
	tree, err := d.Open(name)
	if err != nil {
		return Foreign, "", err
	}
	partial, err := tree.Condemned()
	if err = errors.Join(err, tree.Close()); err != nil {
		return Foreign, "", err
	}
	if partial {
		return Foreign, "what is left of " + o.String() + ", which was being deleted,", nil
	}
	return o, "", nil
}

func kindOfFile(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFDIR:
		return "a directory"
	}
	return "a special file"
}

// whereabouts says where a directory is that was found at neither name, in words, and
// its path if it still exists.
func (v *Volume) whereabouts(o Occupant) (words, path string) {
	if v.parent == nil {
		return "", ""
	}
	path, err := v.locate(v.Handle(o))
	if v.File && path == "" { // it may be in another folder
		return "", ""
	}
	switch {
	case err != nil: // the path only helps the operator
		return "", ""
	case path == "":
		return o.String() + " no longer exists", ""
	case v.condemned(path):
		return o.String() + " was being deleted (what is left is at " + path + ")", ""
	}
	return o.String() + " is at " + path, path
}

// locate returns the path of a directory wherever it is, and that of a file if it is
// still in the live one's folder or in the wrapper: the kernel does not tell the path of
// a file that nobody has open.
func (v *Volume) locate(h disk.Handle) (string, error) {
	if !v.File {
		return v.parent.Locate(h)
	}
	places := []*disk.Dir{v.parent}
	if wrapper, _ := v.openWrapper(); wrapper != nil {
		defer wrapper.Close()
		for _, name := range []string{v.Entry, trash(v.Entry)} {
			if dir, _ := wrapper.OpenIfThere(name); dir != nil {
				defer dir.Close()
				places = append(places, dir)
			}
		}
	}
	for _, dir := range places {
		names, err := dir.Names()
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if found, err := dir.HandleOfSingle(name); err == nil && found == h {
				return dir.Path() + "/" + name, nil
			}
		}
	}
	return "", nil
}

func (v *Volume) condemned(path string) bool {
	if filepath.Base(path) == trash(v.Entry) {
		return true
	}
	d, err := disk.OpenRoot(path)
	if err != nil {
		return false
	}
	defer d.Close()
	partial, err := d.Condemned()
	return err == nil && partial
}

// Describe says of each volume, in a line, where its directories are.
func (x *Tx) Describe() []string {
	var lines []string
	for _, v := range x.Volumes {
		lines = append(lines, fmt.Sprintf("%s (%s): %s", v.Name, v.Path(), v.Describe()))
	}
	return lines
}

// Describe says in words where the two directories of a volume are.
func (v *Volume) Describe() string {
	o, err := v.Observe()
	if err != nil {
		return fmt.Sprintf("cannot be read: %v", err)
	}
	if o.Layout() == NewGone {
		if _, path := v.whereabouts(Old); path != "" { // somebody moved it
			return "the new data is live; the old data is at " + path
		}
	}
	text := o.String()
	for _, g := range []Occupant{Old, New} {
		if o.Layout() != Unknown || o.Live == g || o.Staged == g {
			continue
		}
		if words, _ := v.whereabouts(g); words != "" {
			text += "; " + words
		}
	}
	return text
}

// FindOrphan returns the transaction of a wrapper beside root/rel that known does
// not list, or "". The name is read before known is called: a transaction is
// known before its wrapper is made.
func FindOrphan(root, rel string, known func() ([]string, error)) (string, error) {
	v, err := openVolume(journal.Volume{Root: root, Rel: rel})
	if v == nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return "", err
	}
	defer v.Close()
	// A restore follows no symbolic link, so it has left nothing beyond one.
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return v.Orphan(known)
}

// Orphan is [FindOrphan] for an open volume.
func (v *Volume) Orphan(known func() ([]string, error)) (string, error) {
	if v.parent == nil {
		return "", nil
	}
	names, err := v.parent.Names()
	if err != nil {
		return "", err
	}
	ids, err := known()
	if err != nil {
		return "", err
	}
	for _, name := range names {
		id, ok := strings.CutPrefix(name, journal.Wrapper(""))
		if !ok || !disk.ValidID(id) || slices.Contains(ids, id) {
			continue
		}
		there, err := v.parent.Exists(name)
		if err != nil {
			return "", err
		}
		if there { // else it ended meanwhile
			return id, nil
		}
	}
	return "", nil
}
