package swap

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// trash is the name that a tree gets before it is deleted, so that a partial tree
// can never be taken for a whole one.
func trash(entry string) string { return entry + ".trash" }

// Discard deletes what the transaction no longer needs: the staged trees of a
// restore that did not happen, the displaced trees of one that did. Then it ends
// the transaction. Each tree is checked against the handle of the ready record.
// Without that record it lies in a wrapper that only this transaction has made.
// After an error the transaction stays, and Discard may be called again.
func (x *Tx) Discard() error {
	if x.Goal() == Guarding { // no caller may come here
		return errors.New("the displaced trees are the only copy of the old data, and are kept")
	}
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	var errs []error
	trees := false
	for _, v := range x.Volumes {
		there, err := v.discard(x.Goal())
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, err))
		}
		trees = trees || there
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// A tree may lose its first file only when its name is lost for good.
	if trees {
		if err := x.Sync(); err != nil {
			return err
		}
	}
	x.at("discarded")
	for _, v := range x.Volumes {
		if err := v.remove(mounts, x.Goal()); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", v.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := x.preserveWrappers(); err != nil {
		return err
	}
	if err := x.Sync(); err != nil { // else the journal could forget what the volume still has
		return err
	}
	x.at("removed")
	return x.End()
}

// discard takes its name from the tree that is to be deleted, marks it, and
// reports whether there is one: an earlier run may have done so and been killed
// before it synced that.
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

// condemn marks the tree that is to be deleted, whatever its name will be, and
// reports whether there is one. Before ready no tree could be taken for data.
func (v *Volume) condemn(wrapper *disk.Dir, g Goal) (bool, error) {
	want := v.handle(g.Drops())
	tree, err := wrapper.Open(trash(v.Entry))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || want == "" {
		return true, errors.Join(err, tree.Close())
	}
	got, err := tree.Handle()
	if err == nil && got == want { // else remove refuses it
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
		err := v.parent.Rmdir(v.wrapper)
		// Another volume in the same directory may still have its tree in the wrapper,
		// or somebody may have put a file there.
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
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
	if want := v.handle(g.Drops()); want != "" {
		return wrapper.RemoveTreeIf(name, want, mounts)
	}
	for _, dir := range []string{name, "probe-a", "probe-b"} {
		if err := wrapper.RemoveTree(dir); err != nil {
			return err
		}
	}
	return nil
}
