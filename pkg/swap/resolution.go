package swap

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// Step is one thing that a resolution does with a volume.
type Step int

// The steps.
const (
	SwapIn   Step = iota // exchange what is live for the data to keep, which is in the wrapper
	MoveIn               // the same, where nothing is live
	Preserve             // move what is not snap's from the wrapper to a name beside the live directory
)

// Resolution is what was observed of a volume, and the steps that make the data to
// keep live.
type Resolution struct {
	Observation
	Steps []Step
}

// Drops reports whether any of the data that is not kept is there.
func (r *Resolution) Drops(keep Occupant) bool {
	return r.Live == keep.Other() || r.Staged == keep.Other()
}

// PlanResolution looks at all volumes and returns the steps that make all of them
// old, or all new. An error names a volume for which that is impossible; then none
// may be touched. With an error the list is nil, unless the data itself is missing.
func (x *Tx) PlanResolution(keep Occupant) ([]Resolution, error) {
	seen, err := x.Observe()
	if err != nil {
		return nil, err
	}
	list := make([]Resolution, len(x.Volumes))
	m := &Mismatch{}
	var missing []string
	for i, v := range x.Volumes {
		o := seen[i]
		list[i] = Resolution{Observation: o}
		if o.Live != keep && o.Staged != keep {
			missing = append(missing, fmt.Sprintf("the %s data of volume %s is at neither of its places (%s): %s", keep.Word(), v.Name, v.Path(), v.Describe()))
			m.Ways = append(m.Ways, x.bringBack(v, keep))
			continue
		}
		if list[i].Steps = stepsTo(keep, o); len(list[i].Steps) == 0 {
			continue
		}
		if err := v.noMounts(); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 {
		m.Text = strings.Join(missing, "; ")
		return list, m
	}
	return list, nil
}

func stepsTo(keep Occupant, o Observation) []Step {
	switch {
	case o.Live == keep && o.Staged == Foreign:
		return []Step{Preserve}
	case o.Live == keep:
		return nil
	case o.Live == Absent:
		return []Step{MoveIn}
	case o.Live == Foreign:
		return []Step{SwapIn, Preserve}
	}
	return []Step{SwapIn}
}

// noMounts refuses where something is mounted at one of the names. A mount cannot
// be renamed, and hides what is below it.
func (v *Volume) noMounts() error {
	slot, name, err := v.slot()
	if err != nil {
		return err
	}
	defer slot.Close()
	dirs, err := v.directories(slot, name)
	defer closeDirs(dirs)
	for _, d := range dirs {
		mounted, err := d.IsMountRoot()
		if err != nil {
			return err
		}
		if mounted {
			return &Mismatch{fmt.Sprintf("volume %s: something is mounted at %s", v.Name, d.Path()), []Way{{Do: Unmount, Path: d.Path()}}}
		}
	}
	return err
}

// directories opens the directories, or files where the volume is one, at the live name
// and in the wrapper, as far as there are any. The caller closes them, after an error
// too.
func (v *Volume) directories(slot *disk.Dir, slotName string) (dirs []*disk.Dir, err error) {
	for _, at := range []struct {
		dir  *disk.Dir
		name string
	}{{v.parent, v.base}, {slot, slotName}} {
		if at.dir == nil {
			continue
		}
		open := at.dir.Open
		if v.File {
			open = func(name string) (*disk.Dir, error) { return v.openEither(at.dir, name) }
		}
		d, err := open(at.name)
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
		case err != nil:
			return dirs, err
		default:
			dirs = append(dirs, d)
		}
	}
	return dirs, nil
}

// NeedsSteps reports whether a resolution moves anything.
func NeedsSteps(plan []Resolution) bool {
	return slices.ContainsFunc(plan, func(r Resolution) bool { return len(r.Steps) > 0 })
}

// Resolve takes the steps of a plan that makes keep live, and makes them durable. The
// caller records the operator's decision first.
func (x *Tx) Resolve(keep Occupant, plan []Resolution) error {
	for i, v := range x.Volumes {
		for _, step := range plan[i].Steps {
			var err error
			if step == Preserve {
				err = x.preserve(v)
			} else {
				err = x.resolveOne(v, keep, step)
			}
			if err != nil {
				return fmt.Errorf("volume %s (%s): %w", v.Name, v.Path(), err)
			}
		}
	}
	return x.Sync()
}

func (x *Tx) resolveOne(v *Volume, keep Occupant, how Step) error {
	slot, name, err := v.slot()
	if err != nil {
		return err
	}
	if slot == nil {
		return fmt.Errorf("the wrapper %s is gone", v.wrapper)
	}
	defer slot.Close()
	dirs, err := v.directories(slot, name)
	defer closeDirs(dirs)
	if err != nil {
		return err
	}
	if err := x.journalsAside(v); err != nil {
		return err
	}
	after, err := v.bringIn(slot, name, how, dirs)
	if err != nil {
		return err
	}
	x.at("brought in " + v.Name)
	if after.Live != keep {
		return renamedMeanwhile(after)
	}
	return nil
}
