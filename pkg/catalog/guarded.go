package catalog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Guarded are the directories that an extraction keeps away from.
type Guarded struct {
	Config  *workload.Config
	Engines []string // the roots of the engines
	Own     []*disk.Dir
	Volumes []Live
}

// Live is the live directory of a volume.
type Live struct{ Workload, Volume, Path string }

// Add adds the live directories of all workloads. ask returns a workload with the volumes
// that the engine knows, and the engine's root. Where no engine tells a workload's, a
// notice says so.
func (g *Guarded) Add(ask func(*workload.Workload) (*workload.Workload, string, error)) (notices []string) {
	for _, name := range g.Config.Names() {
		w := g.Config.Workloads[name]
		if w.AsksEngine() {
			own, root, err := ask(w)
			if err != nil {
				notices = append(notices, fmt.Sprintf("the engine does not tell where the volumes of workload %s are, so whether the directory lies in one was not checked: %v", name, err))
			} else {
				w = own
				g.Engines = append(g.Engines, root)
			}
		}
		for i := range w.Volumes {
			if v := &w.Volumes[i]; v.Path() != "" {
				g.Volumes = append(g.Volumes, Live{Workload: name, Volume: v.Name, Path: v.Path()})
			}
		}
	}
	return notices
}

// admit refuses a directory that is, contains, or lies in one of them. real is its path,
// and dir the directory itself, or the one that it is to be made in.
func (g *Guarded) admit(real string, dir *disk.Dir, exists bool) error {
	refuse := func(format string, args ...any) error {
		return fault.Refuse("target_refused", remedy.Of("name a directory beside the live data, such as /srv/restored"), format, args...)
	}
	if err := g.Config.CheckPath(real, g.Engines...); err != nil {
		return refuse("%w", err)
	}
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	for _, own := range g.Own {
		if meets, err := meet(mounts, dir, own, exists); err != nil {
			return err
		} else if meets {
			return refuse("%s is refused: it is, contains, or lies in %s", real, own.Path())
		}
	}
	for _, v := range g.Volumes {
		meets := workload.Contains(v.Path, real) || workload.Contains(real, v.Path)
		if !meets {
			if meets, err = meetsLive(mounts, dir, v, exists); err != nil {
				return err
			}
		}
		if meets {
			return refuse("%s is refused: it is, contains, or lies in the live data of workload %s (volume %s, %s)", real, v.Workload, v.Volume, v.Path)
		}
	}
	return nil
}

// meetsLive finds a live directory that dir reaches by another path.
func meetsLive(mounts disk.Mounts, dir *disk.Dir, v Live, exists bool) (bool, error) {
	live, err := disk.OpenRoot(v.Path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || gone(err) { // there is no live data
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("volume %s of workload %s: %w", v.Volume, v.Workload, err)
	}
	defer live.Close()
	return meet(mounts, dir, live, exists)
}

// gone reports whether err is that of a disk that has failed or went away. An extraction
// may be what is left to do then.
func gone(err error) bool {
	return slices.ContainsFunc([]error{unix.EIO, unix.EUCLEAN, unix.ESTALE, unix.ENOTCONN, unix.ENXIO, unix.ENODEV, unix.EHOSTDOWN}, func(disk error) bool { return errors.Is(err, disk) })
}

func meet(mounts disk.Mounts, dir, other *disk.Dir, exists bool) (bool, error) {
	within, err := mounts.Within(dir, other)
	if err != nil || within || !exists {
		return within, err
	}
	return mounts.Within(other, dir)
}
