package store

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/tiny-forge/snap/pkg/disk"
)

// Was is the file was.json in the folder of a workload's snapshots: the names that the
// workload had when some of them were made. Their manifests have that name, and are never
// written again.
type Was struct {
	disk.Seal
	Names []string `json:"names"`
}

const (
	wasFile    = "was.json"
	wasFormat  = "snap-was"
	wasVersion = 1
	maxWas     = 1 << 20 // bytes
)

// readWas returns the former names of the workload whose folder dir is.
func readWas(dir *disk.Dir) ([]string, error) {
	data, err := dir.ReadFile(wasFile, maxWas)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	w := &Was{}
	if err == nil {
		err = disk.UnmarshalSealed(data, w, wasFormat, wasVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("%s/%s: %w", dir.Path(), wasFile, damaged(err))
	}
	return w.Names, nil
}

// renamed replaces the name of a workload in what lies in its folder by the one that it has
// now, if the folder says that it had that name.
func renamed(dir *disk.Dir, name *string, workload string) error {
	if *name == workload {
		return nil
	}
	names, err := readWas(dir)
	if err == nil && slices.Contains(names, *name) {
		*name = workload
	}
	return err
}

// Recognise reports whether snapshots of a workload were once those of another name. Where
// their manifests say so and their folder does not, it notes it: somebody has moved the
// folder by hand, or the note is damaged.
//
// The caller has the stores' lock alone.
func (s *Store) Recognise(workload, was string) (bool, error) {
	dir, err := s.snapshots.OpenIfThere(workload)
	if err != nil || dir == nil {
		return false, err
	}
	defer dir.Close()
	names, err := readWas(dir)
	if slices.Contains(names, was) {
		return true, nil
	}
	if err != nil && !errors.Is(err, disk.ErrDamaged) {
		return false, err
	}
	sids, err := s.SIDs(workload)
	if err != nil {
		return false, err
	}
	for _, sid := range sids {
		m := &Manifest{}
		data, err := dir.ReadFile(sid+"/"+manifestFile, maxManifest)
		if err == nil && disk.UnmarshalSealed(data, m, manifestFormat, manifestVersion) == nil && m.Workload == was {
			return true, noteWas(dir, append(names, was))
		}
	}
	return false, nil
}

func noteWas(dir *disk.Dir, names []string) error {
	data, err := disk.MarshalSealed(&Was{Names: names}, wasFormat, wasVersion)
	if err != nil {
		return err
	}
	return dir.Publish(wasFile, data)
}

// Rename gives the snapshots of a workload to another name. Their folder notes its old name
// and then gets the new one in one rename, so after a crash all of them are under the one
// name or under the other. When it returns nil that is durable. The error wraps
// fs.ErrNotExist where there are none, and fs.ErrExist where the other name has some.
//
// The caller has the stores' lock alone.
func (s *Store) Rename(from, to string) error {
	dir, err := s.snapshots.OpenIfThere(from)
	if err == nil && dir == nil {
		err = fs.ErrNotExist
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := s.vacate(to); err != nil {
		return err
	}
	names, err := readWas(dir)
	if err != nil {
		return err
	}
	if !slices.Contains(names, from) {
		if err := noteWas(dir, append(names, from)); err != nil {
			return err
		}
	}
	if err := s.snapshots.RenameNoReplace(from, s.snapshots, to); err != nil {
		return err
	}
	return s.snapshots.Sync()
}

// vacate removes the folder of a workload that has no snapshots: a capture that failed left
// it, or a delete.
func (s *Store) vacate(workload string) error {
	dir, err := s.snapshots.OpenIfThere(workload)
	if err != nil || dir == nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Names()
	if err != nil {
		return err
	}
	own := []string{wasFile, wasFile + ".tmp"}
	if i := slices.IndexFunc(names, func(name string) bool { return !slices.Contains(own, name) }); i >= 0 {
		return fmt.Errorf("%s has %s: %w", workload, names[i], fs.ErrExist)
	}
	for _, name := range names {
		if err := dir.Remove(name); err != nil {
			return err
		}
	}
	return s.snapshots.Rmdir(workload)
}
