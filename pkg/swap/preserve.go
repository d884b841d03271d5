package swap

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// preservedMark is part of the name of everything that was preserved.
func preservedMark(tx string) string { return ".snap-kept-" + tx }

// PreservedName is the first name that Preserve gives beside a live directory.
func (x *Tx) PreservedName(v *Volume) string { return v.base + preservedMark(x.ID) }

// preserve moves a tree that must not be deleted out of the wrapper, which is about to
// be removed, to a name beside the live directory.
func (x *Tx) preserve(v *Volume) error {
	slot, name, err := v.slot()
	if err != nil || slot == nil {
		return err
	}
	defer slot.Close()
	if err := moveBeside(slot, name, v.parent, v.base, x.ID); err != nil {
		return err
	}
	x.at("put aside " + v.Name)
	return nil
}

// PreserveTaken preserves all trees that are not kept.
func (x *Tx) PreserveTaken() error {
	for _, v := range x.Volumes {
		o, err := v.Observe()
		if err == nil && o.Staged != Absent {
			err = x.preserve(v)
		}
		if err != nil {
			return err
		}
	}
	return x.Sync()
}

// preserveWrappers renames wrappers that still hold something that is not snap's: a
// later restore would take them for orphans.
func (x *Tx) preserveWrappers() error {
	for _, v := range x.Volumes {
		wrapper, err := v.openWrapper()
		if err == nil && wrapper != nil {
			wrapper.Close()
			err = moveBeside(v.parent, v.wrapper, v.parent, "wrapper", x.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// moveBeside moves a name to the first free one of <base>.snap-kept-<tx>, …-2, ….
func moveBeside(from *disk.Dir, name string, to *disk.Dir, base, tx string) error {
	const most = 200 // of the 255 bytes that a name may have
	first := base[:min(len(base), most)] + preservedMark(tx)
	free := first
	for n := 2; ; n++ {
		err := from.RenameNoReplace(name, to, free)
		if !errors.Is(err, unix.EEXIST) || n > 100 {
			return err
		}
		free = fmt.Sprintf("%s-%d", first, n)
	}
}

// Preserved returns the paths of what was preserved beside the volumes of a
// transaction, by this process or by one that was killed.
func (x *Tx) Preserved() ([]string, error) {
	var found []string
	for _, v := range x.Volumes {
		if v.parent == nil {
			continue
		}
		names, err := v.parent.Names()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			path := v.parent.Path() + "/" + name
			if strings.Contains(name, preservedMark(x.ID)) && !slices.Contains(found, path) {
				found = append(found, path)
			}
		}
	}
	slices.Sort(found)
	return found, nil
}
