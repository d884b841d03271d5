package swap

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/tiny-forge/snap/pkg/disk"
)

// trash is the name that a tree gets before it is deleted, so that a partial tree
// can never be taken for a whole one.
func trash(entry string) string { return entry + ".trash" }

// Discard deletes the trees that the goal drops, and ends the transaction. Each tree
// is checked against the handle of the ready record. Without that record it lies in
// a wrapper that only this transaction has made. After an error the transaction
// stays, and Discard may be called again.
func (x *Tx) Discard() error {
	if x.Goal() == Guarding { // a fault of the caller
		return errors.New("the displaced trees are the only copy of the old data and must not be deleted")
	}
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	trees := false
	err = x.each(func(v *Volume) error {
		there, err := v.discard(x.Goal())
		trees = trees || there
		return err
	})
	if err == nil && trees { // no file of a tree may be deleted before the renames are durable
		err = x.Sync()
	}
	if err != nil {
		return err
	}
	x.at("discarded")
	if err := x.each(func(v *Volume) error { return v.remove(mounts, x.Goal()) }); err != nil {
		return err
	}
	if err := x.preserveWrappers(); err != nil {
		return err
	}
	if err := x.Sync(); err != nil { // the trees must be gone before their record is
		return err
	}
	x.at("removed")
	return x.End()
}

// each calls do for every volume, whatever it returns for the others.
func (x *Tx) each(do func(*Volume) error) error {
	var errs []error
	for _, v := range x.Volumes {
		if err := do(v); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, err))
		}
	}
	return errors.Join(errs...)
}

// discard renames the tree that is to be deleted, marks it, and reports whether there
// is one. It reports a tree that already has the new name too: an earlier run may
// have been killed before the sync.
func (v *Volume) discard(g Goal) (bool, error) {
	wrapper, err := v.openWrapper()
	if err != nil || wrapper == nil {
		return false, err
	}
	defer wrapper.Close()
	there, err := wrapper.Exists(v.Entry)
	if err != nil {
		return false, err
	}
	if there {
		if err := wrapper.RenameNoReplace(v.Entry, wrapper, trash(v.Entry)); err != nil {
			return true, err
		}
	}
	return v.condemn(wrapper, g)
}

// condemn marks the tree that is to be deleted, and reports whether there is one. The
// mark stays if somebody renames the tree. Before the ready record no mark is needed:
// no tree could be taken for data.
func (v *Volume) condemn(wrapper *disk.Dir, g Goal) (bool, error) {
	want := v.Handle(g.Drops())
	if v.File { // it is deleted in one step
		return wrapper.Exists(trash(v.Entry))
	}
	tree, err := wrapper.Open(trash(v.Entry))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || want == "" {
		return true, errors.Join(err, tree.Close())
	}
	got, err := tree.Handle()
	if err == nil && got == want { // another directory is refused by remove
		err = tree.Condemn()
	}
	return true, errors.Join(err, tree.Close())
}

func (v *Volume) remove(mounts disk.Mounts, g Goal) error {
	wrapper, err := v.openWrapper()
	if err != nil {
		return err
	}
	if wrapper != nil {
		defer wrapper.Close()
		if err := v.removeTree(wrapper, mounts, g); err != nil {
			return err
		}
		// Another volume in the same directory may still have its tree in the wrapper,
		// or somebody may have put a file there.
		if err := rmdirEmpty(v.parent, v.wrapper); err != nil {
			return err
		}
	}
	if g.Keeps() == New {
		return nil
	}
	return v.uncreate()
}

func (v *Volume) removeTree(wrapper *disk.Dir, mounts disk.Mounts, g Goal) error {
	name := trash(v.Entry)
	if want := v.Handle(g.Drops()); want != "" && v.File {
		return v.removeFile(wrapper, name, want)
	} else if want != "" {
		return wrapper.RemoveTreeIf(name, want, mounts)
	}
	for _, dir := range []string{name, "probe-a", "probe-b"} {
		if err := wrapper.RemoveTree(dir); err != nil {
			return err
		}
	}
	return nil
}

// removeFile removes the file, and the directory around it if nothing else is in it.
func (v *Volume) removeFile(wrapper *disk.Dir, name string, want disk.Handle) error {
	around, err := wrapper.OpenIfThere(name)
	if err != nil || around == nil {
		return err
	}
	defer around.Close()
	if err := around.RemoveSingleIf(v.base, want); err != nil {
		return err
	}
	return rmdirEmpty(wrapper, name)
}
