package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// step is one thing that a decision does with a volume.
type step int

const (
	swapIn   step = iota // exchange what is live for what is kept, which lies in the wrapper
	moveIn               // the same, where nothing is live
	putAside             // give what is not snap's, and now lies in the wrapper, a name beside the live directory
)

// settlement is how a volume comes to what is kept: what it finds, and the
// steps.
type settlement struct {
	view
	steps []step
}

// drops reports whether there is anything of what a decision does not keep.
func (l *settlement) drops(word string) bool {
	lost := generation(other(word))
	return l.live == lost || l.staged == lost
}

// generation is the data that a decision keeps.
func generation(word string) what {
	return map[string]what{journal.KeepOld: theOld, journal.KeepNew: theNew}[word]
}

// settlement looks at all volumes and returns the steps that make all of them
// old, or all new. An error says for which volume that cannot be had; then none
// may be touched. What each step leaves is again a line of this list, so it may
// be cut anywhere.
func (x *txn) settlement(word string) ([]settlement, error) {
	views, err := x.views()
	if err != nil {
		return nil, err
	}
	keep := generation(word)
	list := make([]settlement, len(x.sites))
	o := &oddity{}
	var missing []string
	for i, s := range x.sites {
		v := views[i]
		list[i].view = v
		switch {
		case v.live == keep && v.staged == stranger:
			list[i].steps = []step{putAside}
		case v.live == keep:
		case v.staged != keep:
			missing = append(missing, fmt.Sprintf("the %s data of volume %s is at neither of its places (%s): %s", word, s.Name, s.path(), s.tell()))
			o.next = append(o.next, s.bringBack(x, keep)...)
		case v.live == absent:
			list[i].steps = []step{moveIn}
		case v.live == stranger:
			list[i].steps = []step{swapIn, putAside}
		default:
			list[i].steps = []step{swapIn}
		}
		if len(list[i].steps) > 0 {
			if err := s.noMounts(); err != nil {
				return nil, err
			}
		}
	}
	if len(missing) > 0 {
		o.text = strings.Join(missing, "; ")
		return list, o
	}
	return list, nil
}

// bringBack says what can be done about a directory that is at neither name.
func (s *site) bringBack(x *txn, keep what) []string {
	if _, path := s.whereabouts(keep); path != "" {
		return []string{fmt.Sprintf("put it back: mv %s %s (first move aside what stands there), then snap recover %s", shell(path), shell(s.path()), x.Begin.Workload)}
	}
	if keep == theOld && x.preRestore() == "" {
		return []string{"keep the new data of all volumes: of what was live before the restore there is no snapshot yet (--guard after), so what is left of it becomes one then"}
	}
	if keep == theOld {
		return []string{fmt.Sprintf("keep the new data of all volumes, then snap restore %s %s (the data from before, if snap list shows it)", x.Begin.Workload, x.preRestore())}
	}
	return []string{fmt.Sprintf("keep the old data of all volumes, then snap restore %s %s again", x.Begin.Workload, x.Begin.SID)}
}

// noMounts refuses where something is mounted at one of the names: that cannot
// be renamed, and hides what is below it.
func (s *site) noMounts() error {
	wrapper, err := s.openWrapper()
	if err != nil {
		return err
	}
	defer wrapper.Close()
	for _, at := range []struct {
		dir  *disk.Dir
		name string
	}{{s.parent, s.base}, {wrapper, s.Entry}} {
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
		mounted, err := d.IsMountRoot()
		if err = errors.Join(err, d.Close()); err != nil {
			return err
		}
		if mounted {
			path := at.dir.Path() + "/" + at.name
			return &oddity{fmt.Sprintf("volume %s: something is mounted at %s", s.Name, path), []string{fmt.Sprintf("umount %s, then try again", shell(path))}}
		}
	}
	return nil
}

// settleAs takes the steps of a decision that is recorded.
func (s *session) settleAs(ctx context.Context, x *txn, word string, offline bool) error {
	list, err := x.settlement(word)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(list, func(l settlement) bool { return len(l.steps) > 0 }) {
		return nil
	}
	if err := s.stopped(ctx, x, offline); err != nil {
		return err
	}
	for i, site := range x.sites {
		for _, step := range list[i].steps {
			if step == putAside {
				err = x.putAside(site)
			} else {
				err = x.bringIn(site, x.decision().kept(), step)
			}
			if err != nil {
				return fmt.Errorf("volume %s (%s): %w", site.Name, site.path(), err)
			}
		}
	}
	return x.sync()
}

// bringIn gives what is kept the live name, and looks whether just that has
// happened.
func (x *txn) bringIn(s *site, keep what, how step) error {
	wrapper, err := s.openWrapper()
	if err != nil {
		return err
	}
	if wrapper == nil {
		return fmt.Errorf("the wrapper %s is gone", s.wrapper)
	}
	defer wrapper.Close()
	restoreTimes, err := ownTimes(wrapper, s.Entry, s.parent, s.base)
	if err != nil {
		return err
	}
	if how == moveIn {
		err = wrapper.RenameNoReplace(s.Entry, s.parent, s.base)
	} else {
		err = s.parent.Exchange(s.base, wrapper, s.Entry)
	}
	if err = errors.Join(err, restoreTimes()); err != nil {
		return err
	}
	x.at("brought in " + s.Name)
	after, err := s.view()
	if err != nil {
		return err
	}
	if after.live != keep {
		return fmt.Errorf("somebody renamed at the same moment: %s", after)
	}
	return nil
}

// ownTimes returns a function that gives two directories their own times back:
// see journal.Times. What is no directory keeps its time by itself.
func ownTimes(a *disk.Dir, nameA string, b *disk.Dir, nameB string) (func() error, error) {
	var back []func() error
	undo := func() error {
		var errs []error
		for _, f := range back {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	for _, at := range []struct {
		dir  *disk.Dir
		name string
	}{{a, nameA}, {b, nameB}} {
		d, err := at.dir.Open(at.name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			continue
		}
		if err != nil {
			return nil, errors.Join(err, undo())
		}
		sec, nsec, err := d.Mtime()
		if err != nil {
			return nil, errors.Join(err, d.Close(), undo())
		}
		back = append(back, func() error { return errors.Join(d.SetMtime(sec, nsec), d.Close()) })
	}
	return undo, nil
}

// keptMark is in the names of what was put aside.
func keptMark(tx string) string { return ".snap-kept-" + tx }

// putAside moves what is not to be deleted out of a wrapper, which is going to be
// removed, to a name beside the live directory.
func (x *txn) putAside(s *site) error {
	wrapper, err := s.openWrapper()
	if err != nil || wrapper == nil {
		return err
	}
	defer wrapper.Close()
	if err := aside(wrapper, s.Entry, s.parent, s.base, x.ID); err != nil {
		return err
	}
	x.at("put aside " + s.Name)
	return nil
}

// putTakenAside puts all trees aside that are not kept.
func (x *txn) putTakenAside() error {
	for _, s := range x.sites {
		if v, err := s.view(); err != nil || v.staged == absent {
			if err != nil {
				return err
			}
			continue
		}
		if err := x.putAside(s); err != nil {
			return err
		}
	}
	return x.sync()
}

// putWrappersAside renames wrappers in which something is left that is none of
// snap's: under its own name a later restore would take the wrapper for that of
// a transaction that the store does not know.
func (x *txn) putWrappersAside() error {
	for _, s := range x.sites {
		wrapper, err := s.openWrapper()
		if err != nil {
			return err
		}
		if wrapper == nil {
			continue
		}
		wrapper.Close()
		if err := aside(s.parent, s.wrapper, s.parent, "wrapper", x.ID); err != nil {
			return err
		}
	}
	return nil
}

// aside moves a name to the first free one of <base>.snap-kept-<tx>, …-2, ….
func aside(from *disk.Dir, name string, to *disk.Dir, base, tx string) error {
	const most = 200 // of the 255 bytes that a name may have
	free := base[:min(len(base), most)] + keptMark(tx)
	for n := 2; ; n++ {
		err := from.RenameNoReplace(name, to, free)
		if !errors.Is(err, unix.EEXIST) || n > 100 {
			return err
		}
		free = fmt.Sprintf("%s%s-%d", base[:min(len(base), most)], keptMark(tx), n)
	}
}

// aside returns what was put aside beside the volumes of a transaction, by this
// process or by one that was killed.
func (x *txn) aside() ([]string, error) {
	var found []string
	for _, s := range x.sites {
		if s.parent == nil {
			continue
		}
		names, err := s.parent.Names()
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			path := s.parent.Path() + "/" + name
			if strings.Contains(name, keptMark(x.ID)) && !slices.Contains(found, path) {
				found = append(found, path)
			}
		}
	}
	slices.Sort(found)
	return found, nil
}
