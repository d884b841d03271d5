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
	return r.Live == keep.other() || r.Staged == keep.other()
}

// PlanResolution looks at all volumes and returns the steps that make all of them
// old, or all new. An error names a volume for which that is impossible; then none
// may be touched. With an error the list is nil, unless the data itself is missing.
// PlanResolution finds a plan after every step, so a resolution may be cut anywhere.
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
			m.Ways = append(m.Ways, v.bringBack(x, keep))
			continue
		}
		list[i].Steps = stepsTo(keep, o)
		if len(list[i].Steps) > 0 {
			if err := v.noMounts(); err != nil {
				return nil, err
			}
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
	wrapper, err := v.openWrapper()
	if err != nil {
		return err
	}
	defer wrapper.Close()
	return v.eachName(wrapper, func(path string, d *disk.Dir) error {
		mounted, err := d.IsMountRoot()
		if err = errors.Join(err, d.Close()); err != nil {
			return err
		}
		if mounted {
			return &Mismatch{fmt.Sprintf("volume %s: something is mounted at %s", v.Name, path), []Way{{Do: Unmount, Path: path}}}
		}
		return nil
	})
}

// eachName opens the directories at the live name and in the wrapper, as far as
// there are any, and gives them to do, which closes them.
func (v *Volume) eachName(wrapper *disk.Dir, do func(path string, d *disk.Dir) error) error {
	for _, at := range []struct {
		dir  *disk.Dir
		name string
	}{{v.parent, v.base}, {wrapper, v.Entry}} {
		if at.dir == nil {
			continue
		}
		d, err := at.dir.Open(at.name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return err
		}
		if err := do(at.dir.Path()+"/"+at.name, d); err != nil {
			return err
		}
	}
	return nil
}

// NeedsSteps reports whether a resolution moves anything.
func NeedsSteps(plan []Resolution) bool {
	return slices.ContainsFunc(plan, func(r Resolution) bool { return len(r.Steps) > 0 })
}

// Resolve takes the steps of a plan that makes keep live, and makes them durable. The
// caller records the operator's decision first. Resolve may be cut anywhere, and a
// new plan takes it from there.
func (x *Tx) Resolve(keep Occupant, plan []Resolution) error {
	for i, v := range x.Volumes {
		for _, step := range plan[i].Steps {
			var err error
			if step == Preserve {
				err = x.preserve(v)
			} else {
				err = x.bringIn(v, keep, step)
			}
			if err != nil {
				return fmt.Errorf("volume %s (%s): %w", v.Name, v.Path(), err)
			}
		}
	}
	return x.Sync()
}

// bringIn gives the data to keep the live name, and checks that exactly that has
// happened.
func (x *Tx) bringIn(v *Volume, keep Occupant, how Step) error {
	wrapper, err := v.openWrapper()
	if err != nil {
		return err
	}
	if wrapper == nil {
		return fmt.Errorf("the wrapper %s is gone", v.wrapper)
	}
	defer wrapper.Close()
	restoreTimes, err := v.ownTimes(wrapper)
	if err != nil {
		return err
	}
	if how == MoveIn {
		err = wrapper.RenameNoReplace(v.Entry, v.parent, v.base)
	} else {
		err = v.parent.Exchange(v.base, wrapper, v.Entry)
	}
	if err = errors.Join(err, restoreTimes()); err != nil {
		return err
	}
	x.at("brought in " + v.Name)
	after, err := v.Observe()
	if err != nil {
		return err
	}
	if after.Live != keep {
		return fmt.Errorf("a directory was renamed at the same moment: %s", after)
	}
	return nil
}

// ownTimes returns a function that gives both directories of a volume their own
// times back: see journal.Times. Non-directories keep their mtime.
func (v *Volume) ownTimes(wrapper *disk.Dir) (func() error, error) {
	var back []func() error
	undo := func() error {
		var errs []error
		for _, f := range back {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	err := v.eachName(wrapper, func(_ string, d *disk.Dir) error {
		sec, nsec, err := d.Mtime()
		if err != nil {
			return errors.Join(err, d.Close())
		}
		back = append(back, func() error { return errors.Join(d.SetMtime(sec, nsec), d.Close()) })
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}
