package swap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// Volume is a volume's directories, opened one below the other: the root of
// trust, the parent of the live directory, and the live name in it. Of a volume that is
// one file, the live directory is a file: see the package's documentation.
type Volume struct {
	journal.Volume
	root, parent *disk.Dir // parent is nil where it does not exist
	base         string    // the live directory's name in parent

	Live    *disk.Dir // of [OpenLive]; nil where it does not exist
	Missing []string  // directories below the root that do not exist, the live one last

	wrapper string              // of the transaction
	handles journal.ReadyVolume // zero before ready
}

// Path is where the live directory is.
func (v *Volume) Path() string { return v.Root + "/" + v.Rel }

// Parent is the directory that the live one is in; nil where it does not exist.
func (v *Volume) Parent() *disk.Dir { return v.parent }

// Below reports whether a path leads to the live directory or to one above it. The
// path may lead there through a symbolic link or another mount.
func (v *Volume) Below(path string) bool {
	if path == "/" || v.Path() == path || strings.HasPrefix(v.Path(), path+"/") {
		return true
	}
	info, err := os.Stat(path)
	if err != nil || v.Live == nil {
		return false
	}
	real, err := v.Live.RealPath()
	for dir := real; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if above, statErr := os.Stat(dir); statErr == nil && os.SameFile(info, above) {
			return true
		}
	}
	return false
}

// Close closes what is open of the volume.
func (v *Volume) Close() { closeDirs([]*disk.Dir{v.root, v.parent, v.Live}) }

func closeDirs(dirs []*disk.Dir) {
	for _, d := range dirs {
		d.Close()
	}
}

// CloseAll closes volumes.
func CloseAll(volumes []*Volume) {
	for _, v := range volumes {
		v.Close()
	}
}

// LiveOf are the live directories that exist.
func LiveOf(volumes []*Volume) []*disk.Dir {
	var dirs []*disk.Dir
	for _, v := range volumes {
		if v.Live != nil {
			dirs = append(dirs, v.Live)
		}
	}
	return dirs
}

// openVolume opens root and parent. It returns no volume if the root cannot be
// opened.
func openVolume(record journal.Volume) (*Volume, error) {
	root, err := disk.OpenRoot(record.Root)
	if err != nil {
		return nil, err
	}
	v := &Volume{Volume: record, root: root, base: path.Base(record.Rel)}
	v.parent, err = root.Open(path.Dir(record.Rel))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return v, err
}

// OpenLive opens a volume for a look at its live directory, which need not exist.
// check is given the path that root and rel really lead to, since the root may be a
// symbolic link of the operator's. The error is [*Unfit] where the volume could never
// be exchanged.
func OpenLive(name, root, rel string, check func(real string) error) (*Volume, error) {
	v, err := openVolume(journal.Volume{Name: name, Root: root, Rel: rel})
	if v == nil {
		return nil, &Unfit{"no_root", "make the directory, or correct `base` or `absolute_roots` in the config", fmt.Errorf("volume %s: %w", name, err)}
	}
	if err := v.openLive(err, check); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

func (v *Volume) openLive(opening error, check func(string) error) error {
	real, err := v.root.RealPath()
	if err != nil {
		return err
	}
	if err := check(real + "/" + v.Rel); err != nil {
		return &Unfit{"system_directory", "choose a directory that belongs to the workload alone", fmt.Errorf("volume %s: %w", v.Name, err)}
	}
	if opening != nil {
		return v.unreachable(opening)
	}
	if v.parent != nil {
		if v.Live, err = v.openEither(v.parent, v.base); err == nil {
			v.File = v.Live.File() != ""
			return nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return v.unreachable(err)
		}
	}
	return v.findMissing()
}

// findMissing fills in what must be made for the live directory to exist.
func (v *Volume) findMissing() error {
	for rel := v.Rel; rel != "."; rel = path.Dir(rel) {
		d, err := v.root.Open(rel)
		if err == nil {
			return d.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return v.unreachable(err)
		}
		v.Missing = slices.Insert(v.Missing, 0, rel)
	}
	return nil
}

// Is refuses, with [*Unfit], a volume at whose path another directory than the opened
// one has been found, or none.
func (v *Volume) Is(found disk.Handle) error {
	h, err := v.Live.Handle()
	if err != nil || h == found {
		return err
	}
	return v.unfit("in_use", fmt.Sprintf("find out what renames or replaces %s there, stop it, then try again", v.kinds()),
		"%s is no longer the same %s: something has renamed or replaced it", v.Path(), v.kind())
}

// kind and kinds are the words for what the volume is.
func (v *Volume) kind() string {
	if v.File {
		return "file"
	}
	return "directory"
}

func (v *Volume) kinds() string {
	if v.File {
		return "files"
	}
	return "directories"
}

// open opens what the volume is, a directory or a file, at a name.
func (v *Volume) open(d *disk.Dir, name string) (*disk.Dir, error) {
	if v.File {
		return d.OpenSingle(name)
	}
	return d.Open(name)
}

// openEither opens what has a name if it is a directory or a regular file.
func (v *Volume) openEither(d *disk.Dir, name string) (*disk.Dir, error) {
	found, err := d.Open(name)
	if !errors.Is(err, unix.ENOTDIR) {
		return found, err
	}
	file, fileErr := d.OpenSingle(name)
	if errors.Is(fileErr, disk.ErrNotRegular) {
		return nil, err
	}
	return file, fileErr
}

func (v *Volume) handleOf(d *disk.Dir, name string) (disk.Handle, error) {
	if v.File {
		return d.HandleOfSingle(name)
	}
	return d.HandleOf(name)
}

// slot opens the directory that holds what is staged or displaced, and returns its name
// there: a tree is the entry of the wrapper; a file has its own name, in a directory
// that is the entry. It returns nil where there is none. The caller closes it.
func (v *Volume) slot() (*disk.Dir, string, error) {
	wrapper, err := v.openWrapper()
	if err != nil || wrapper == nil || !v.File {
		return wrapper, v.Entry, err
	}
	defer wrapper.Close()
	dir, err := wrapper.OpenIfThere(v.Entry)
	return dir, v.base, err
}

// Nearest returns the closest existing directory to the live one that is not the
// live one: the directory in which a missing one would be made.
func (v *Volume) Nearest() *disk.Dir {
	if v.parent != nil {
		return v.parent
	}
	return v.root
}

// Begin is how the begin record names the volume. entry is its name in the
// wrapper. With handle the record also holds the handle of the live directory.
func (v *Volume) Begin(entry string, handle bool) (journal.Volume, error) {
	record := journal.Volume{Name: v.Name, Root: v.Root, Rel: v.Rel, Entry: entry, Created: v.Missing, EngineVolume: v.EngineVolume, File: v.File, Anchor: path.Dir(v.nearestRel())}
	if v.EngineVolume != "" {
		record.Created = nil // only the engine may remove its volume
	}
	var err error
	if record.AnchorHandle, err = v.root.HandleOf(record.Anchor); err == nil && handle && v.Live != nil {
		record.Live, err = v.Live.Handle()
	}
	return record, err
}

// ByEngine says that the engine makes the missing directories: they are a named volume.
func (v *Volume) ByEngine(name string) { v.EngineVolume = name }

// nearestRel is the highest directory that a restore makes, or the live one: its
// parent exists.
func (v *Volume) nearestRel() string {
	if len(v.Missing) > 0 {
		return v.Missing[0]
	}
	return v.Rel
}

// anchored reports whether the nearest directory above the live one is still the
// recorded one. It is another if a filesystem is not mounted.
func (v *Volume) anchored() (bool, error) {
	if v.AnchorHandle == "" {
		return true, nil
	}
	now, err := v.root.HandleOf(v.Anchor)
	return now == v.AnchorHandle, err
}

// Create makes the missing directories, and the file where the volume is one, durably,
// and opens what is then there. The begin record names them first.
func (v *Volume) Create() error {
	if v.Live != nil {
		return nil
	}
	for _, rel := range v.Missing {
		if err := v.create(rel); err != nil {
			return err
		}
	}
	var err error
	if v.parent == nil {
		if v.parent, err = v.root.Open(path.Dir(v.Rel)); err != nil {
			return err
		}
	}
	v.Live, err = v.open(v.parent, v.base)
	return err
}

func (v *Volume) create(rel string) error {
	d, err := v.root.Open(path.Dir(rel))
	if err != nil {
		return err
	}
	defer d.Close()
	if v.File && rel == v.Rel {
		return d.EnsureSingle(v.base)
	}
	made, err := d.Ensure(path.Base(rel), 0o755)
	return errors.Join(err, made.Close())
}

// uncreate removes what the restore made, if it is empty.
func (v *Volume) uncreate() error {
	for _, rel := range slices.Backward(v.Created) {
		d, err := v.root.Open(path.Dir(rel))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		remove := rmdirEmpty
		if v.File && rel == v.Rel {
			remove = (*disk.Dir).RemoveEmptySingle
		}
		if err := errors.Join(remove(d, path.Base(rel)), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// rmdirEmpty removes a directory, unless it is gone or something is in it.
func rmdirEmpty(d *disk.Dir, name string) error {
	err := d.Rmdir(name)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// openWrapper returns the wrapper, nil where there is none.
func (v *Volume) openWrapper() (*disk.Dir, error) {
	if v.parent == nil {
		return nil, nil
	}
	w, err := v.parent.OpenSameMount(v.wrapper)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return w, err
}

// MakeStaged makes the empty directory that the new tree is staged in, and the
// wrapper around it. The staged directory has the live one's properties, because the
// files of the new tree take them over. A new file is staged in such a directory too,
// under its own name. The caller closes what it returns.
func (v *Volume) MakeStaged() (*disk.Dir, error) {
	live, err := v.open(v.parent, v.base)
	if err != nil {
		return nil, err
	}
	p, err := live.Properties()
	if err = errors.Join(err, live.Close()); err != nil {
		return nil, err
	}
	wrapper, err := v.makeWrapper()
	if err != nil {
		return nil, err
	}
	defer wrapper.Close()
	if v.File {
		return wrapper.MakeForFile(v.Entry, p)
	}
	return wrapper.MakeAlike(v.Entry, p)
}

// Holds refuses a staged directory without the file that the volume is. For a volume
// that is a directory it does nothing.
func (v *Volume) Holds(staged *disk.Dir) error {
	if !v.File {
		return nil
	}
	h, err := staged.HandleOfSingle(v.base)
	if err == nil && h == "" {
		err = fs.ErrNotExist
	}
	if err != nil {
		return fmt.Errorf("the archive of a volume that is one file must hold %q: %w", v.base, err)
	}
	return nil
}

// makeWrapper opens the wrapper, and makes it where there is none: another volume in
// the same directory has the same one.
func (v *Volume) makeWrapper() (*disk.Dir, error) {
	wrapper, err := v.openWrapper()
	if err != nil || wrapper != nil {
		return wrapper, err
	}
	if wrapper, err = v.parent.MakePrivate(v.wrapper); err != nil {
		return nil, err
	}
	if err := wrapper.AdmitAnyProject(); err != nil {
		return nil, errors.Join(err, wrapper.Close())
	}
	return wrapper, nil
}

// OpenTaken opens the tree of generation w in the wrapper, nil if there is none. It is
// an error if another directory is there. The caller closes it.
func (v *Volume) OpenTaken(w Occupant) (*disk.Dir, error) {
	slot, name, err := v.slot()
	if err != nil || slot == nil {
		return nil, err
	}
	defer slot.Close()
	tree, err := v.open(slot, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if h, err := tree.Handle(); err != nil || h != v.Handle(w) {
		return nil, errors.Join(err, fmt.Errorf("volume %s: there is another %s at %s", v.Name, v.kind(), tree.Path()), tree.Close())
	}
	return tree, nil
}

// EntryPath is where the staged or displaced tree is.
func (v *Volume) EntryPath() string { return path.Join(path.Dir(v.Path()), v.EntryName()) }

// Handle is the recorded handle of the old or the new directory, "" before ready.
func (v *Volume) Handle(w Occupant) disk.Handle {
	if w == Old {
		return v.handles.Live
	}
	return v.handles.Staged
}

// EntryName is the name of the staged or displaced tree below the live one's
// parent.
func (v *Volume) EntryName() string {
	if v.File {
		return path.Join(v.wrapper, v.Entry, v.base)
	}
	return v.wrapper + "/" + v.Entry
}
