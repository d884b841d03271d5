package swap

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// Tx is the data side of a restore's transaction: its records, and the volumes
// that they name. The restore itself and its recovery both work through it.
type Tx struct {
	*journal.Tx
	Volumes []*Volume

	// GuardUnknown is why it could not be seen whether, with guard after, the
	// pre-restore snapshot exists; nil where it could.
	GuardUnknown error

	// Aside are the paths of journals of SQLite that Apply and Resolve have given another
	// name, because they belong to a file that is no longer live. [Tx.Preserved] has the
	// new names.
	Aside []string

	at      func(point string)
	guarded bool
}

// Open opens the volumes of a transaction as they are now, except those in gone, which
// somebody has removed: while no volume has been exchanged, the others can go back
// without them. guarded tells whether
// the pre-restore snapshot exists (see [Decide]). at is told of each step, for
// tests; nil is allowed. The caller closes what it returns; tx stays its own.
func Open(tx *journal.Tx, guarded bool, at func(point string), gone ...string) (*Tx, error) {
	if at == nil {
		at = func(string) {}
	}
	x := &Tx{Tx: tx, at: at, guarded: guarded}
	for i, record := range tx.Begin.Volumes {
		if tx.TimesRecord == nil && slices.Contains(gone, record.Name) {
			continue
		}
		v, err := openVolume(record)
		if v != nil {
			v.wrapper = journal.Wrapper(tx.ID)
			if tx.ReadyRecord != nil {
				v.handles = tx.ReadyRecord.Volumes[i]
			}
			x.Volumes = append(x.Volumes, v)
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = &Unmounted{record.Name, record.Root + "/" + record.Rel}
		}
		if err != nil {
			x.CloseVolumes()
			return nil, fmt.Errorf("volume %s: %w", record.Name, err)
		}
	}
	return x, nil
}

// WithoutWrapper returns the volumes of a transaction that has not exchanged any yet
// beside which there is no wrapper.
func WithoutWrapper(tx *journal.Tx) (list []journal.Volume) {
	if tx.TimesRecord != nil {
		return nil
	}
	for _, record := range tx.Begin.Volumes {
		if lacks(record, journal.Wrapper(tx.ID)) {
			list = append(list, record)
		}
	}
	return list
}

// lacks reports whether a name beside the live directory is certainly absent.
func lacks(record journal.Volume, name string) bool {
	v, err := openVolume(record)
	if v == nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	defer v.Close()
	if err != nil || v.parent == nil {
		return err == nil
	}
	there, err := v.parent.Exists(name)
	return err == nil && !there
}

// CloseVolumes closes the volumes, and leaves the transaction open. It does
// nothing for nil.
func (x *Tx) CloseVolumes() {
	if x != nil {
		CloseAll(x.Volumes)
	}
}

// Decision is what the records say now.
func (x *Tx) Decision() Decision { return Decide(x.Tx, x.guarded) }

// Goal is which data the records want live.
func (x *Tx) Goal() Goal { return x.Decision().Goal }

// Guarded notes that the pre-restore snapshot exists now.
func (x *Tx) Guarded() { x.guarded = true }

// PreRestoreSID returns the id of the pre-restore snapshot where there may be
// one, and "" where there is certainly none.
func (x *Tx) PreRestoreSID() string {
	if x.Begin.Guard == journal.GuardAfter && !x.guarded {
		return ""
	}
	return x.Begin.PreRestoreSID
}

// Observe looks at all volumes.
func (x *Tx) Observe() ([]Observation, error) {
	list := make([]Observation, len(x.Volumes))
	for i, v := range x.Volumes {
		var err error
		if list[i], err = v.Observe(); err != nil {
			return nil, fmt.Errorf("volume %s (%s) cannot be read: %w", v.Name, v.Path(), err)
		}
	}
	return list, nil
}

// Plan looks at all volumes before any is touched, and returns the action for
// each. An error says what was found: [*Mismatch], [*Unmounted], or what kept Plan
// from seeing.
func (x *Tx) Plan() ([]Action, error) {
	seen, err := x.Observe()
	if err != nil {
		return nil, err
	}
	list := make([]Action, len(seen))
	for i, o := range seen {
		list[i] = ActionFor(o.Layout(), x.Goal())
	}
	if slices.Contains(list, Freeze) {
		return nil, x.mismatch(seen)
	}
	return list, nil
}

// PlanSwap is the plan of a restore that has not exchanged anything yet: all
// volumes, each of which must be as it was staged.
func (x *Tx) PlanSwap() ([]Action, error) {
	list := make([]Action, len(x.Volumes))
	for i, v := range x.Volumes {
		seen, err := v.Observe()
		if err != nil {
			return nil, err
		}
		if seen.Layout() != OldNew {
			return nil, fmt.Errorf("volume %s (%s): %s", v.Name, v.Path(), seen)
		}
		list[i] = Exchange
	}
	return list, nil
}

// AllDisplaced reports whether every volume's old tree is whole beside its new
// one, so that a committed restore can still be reverted.
func (x *Tx) AllDisplaced() bool {
	for _, v := range x.Volumes {
		if now, err := v.Observe(); err != nil || now.Layout() != NewOld {
			return false
		}
	}
	return true
}

// Apply takes the actions of a plan, gives old directories that are live again
// their own times, and makes all of it durable.
func (x *Tx) Apply(plan []Action) error {
	for i, v := range x.Volumes {
		if plan[i] != Exchange {
			continue
		}
		err := x.journalsAside(v)
		if err == nil {
			err = v.exchange()
		}
		if err != nil {
			return fmt.Errorf("volume %s (%s): %w", v.Name, v.Path(), err)
		}
		x.at("exchanged " + v.Name)
	}
	if slices.Contains(plan, Exchange) || x.Goal().Keeps() == Old {
		if err := x.repairTimes(); err != nil {
			return err
		}
	}
	return x.Sync()
}

// exchange swaps live and staged, and checks that exactly that has happened.
func (v *Volume) exchange() error {
	before, err := v.Observe()
	if err != nil {
		return err
	}
	want, known := map[Layout]Layout{OldNew: NewOld, NewOld: OldNew}[before.Layout()]
	slot, name, err := v.slot()
	if err != nil {
		return err
	}
	defer slot.Close()
	if slot == nil || !known {
		return fmt.Errorf("not exchanged: %s", before)
	}
	staged, err := v.open(slot, name)
	if err != nil {
		return err
	}
	defer staged.Close()
	after, err := v.bringIn(slot, name, SwapIn, []*disk.Dir{staged})
	if err != nil {
		return err
	}
	if after.Layout() != want {
		return renamedMeanwhile(after)
	}
	return nil
}

// bringIn gives what lies in the wrapper, under a name of slot, the live name, and gives
// dirs their own times back (see journal.Times). It returns what is then there: the
// kernel exchanges names, and somebody may have renamed a directory in between.
func (v *Volume) bringIn(slot *disk.Dir, name string, how Step, dirs []*disk.Dir) (after Observation, err error) {
	dirs = slices.DeleteFunc(slices.Clone(dirs), func(d *disk.Dir) bool { return d.File() != "" }) // a file keeps its time by itself
	times := make([]journal.Time, len(dirs))
	for i, d := range dirs {
		if times[i].Sec, times[i].Nsec, err = d.Mtime(); err != nil {
			return after, err
		}
	}
	if how == MoveIn {
		err = slot.RenameNoReplace(name, v.parent, v.base)
	} else {
		err = v.parent.Exchange(v.base, slot, name)
	}
	if err != nil {
		return after, err
	}
	for i, d := range dirs {
		err = errors.Join(err, d.SetMtime(times[i].Sec, times[i].Nsec))
	}
	if err != nil {
		return after, err
	}
	return v.Observe()
}

func renamedMeanwhile(after Observation) error {
	return fmt.Errorf("something was renamed at the same moment: %s", after)
}

// RecordTimes notes, before the first exchange, the directories' own times, and sums: the
// checksums of the staged trees (see [Tx.AsStaged]), in the order of the volumes.
func (x *Tx) RecordTimes(sums []string) error {
	times := &journal.Times{At: &journal.Time{}}
	for i, v := range x.Volumes {
		live, err := v.open(v.parent, v.base)
		if err != nil {
			return err
		}
		own, err := mtimeOf(live)
		if err != nil {
			return err
		}
		staged, err := v.OpenTaken(New)
		if err == nil && staged == nil {
			err = fmt.Errorf("volume %s: the staged tree is gone", v.Name)
		}
		if err != nil {
			return err
		}
		fresh, err := mtimeOf(staged)
		if err != nil {
			return err
		}
		times.Live = append(times.Live, own)
		times.Staged = append(times.Staged, journal.Staged{Time: fresh, Sum: sums[i]})
	}
	// Files are stamped by the coarse clock, which lags behind the real one by up to a tick
	// (ktime_get_coarse_real_ts64 in the kernel). So no change from now on gets an earlier
	// stamp than this.
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return fmt.Errorf("read the clock: %w", err)
	}
	times.At.Sec, times.At.Nsec = now.Sec, now.Nsec
	return x.Times(times)
}

// mtimeOf returns the time of a directory, and closes it.
func mtimeOf(d *disk.Dir) (t journal.Time, err error) {
	t.Sec, t.Nsec, err = d.Mtime()
	return t, errors.Join(err, d.Close())
}

// AsStaged reports whether the records prove that the staged tree of a volume is as it
// was before the first exchange. sum is its checksum now, in which the times of its
// files are, and newest the newest of those times.
//
// A clock that was set back does no harm: a change has another time than before,
// whichever. With a clock that stands still a change may have the time that was there,
// and then that is not before the exchange.
func (x *Tx) AsStaged(volume, sum string, newest journal.Time) bool {
	r := x.TimesRecord
	i := slices.IndexFunc(x.Begin.Volumes, func(v journal.Volume) bool { return v.Name == volume })
	if r == nil || r.Staged == nil || i < 0 { // an earlier version of snap has recorded less
		return false
	}
	return sum != "" && sum == r.Staged[i].Sum && (newest.Sec < r.At.Sec || newest.Sec == r.At.Sec && newest.Nsec < r.At.Nsec)
}

// repairTimes gives old directories that are live again their times of the record. No
// exchange changes the time of a file.
func (x *Tx) repairTimes() error {
	if x.TimesRecord == nil {
		return nil
	}
	for i, v := range x.Volumes {
		if v.File {
			continue
		}
		live, err := v.parent.Open(v.base)
		if err != nil {
			return err
		}
		handle, err := live.Handle()
		if err == nil && handle == v.handles.Live {
			err = live.SetMtime(x.TimesRecord.Live[i].Sec, x.TimesRecord.Live[i].Nsec)
		}
		if err = errors.Join(err, live.Close()); err != nil {
			return err
		}
	}
	return nil
}

// OpenDisplaced opens the displaced tree of volume i, and gives it its own time from
// before the exchange. It returns nil where there is none. The caller closes it.
func (x *Tx) OpenDisplaced(i int) (*disk.Dir, error) {
	tree, err := x.Volumes[i].OpenTaken(Old)
	if err != nil || tree == nil || tree.File() != "" { // a time of a file that is another now says that somebody wrote to it
		return tree, err
	}
	if err := tree.SetMtime(x.TimesRecord.Live[i].Sec, x.TimesRecord.Live[i].Nsec); err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}

// OpenStaged opens the staged tree of volume i, and gives it its own time from before the
// exchange, where that is recorded. It returns nil where there is none. The caller closes
// it.
func (x *Tx) OpenStaged(i int) (*disk.Dir, error) {
	tree, err := x.Volumes[i].OpenTaken(New)
	if err != nil || tree == nil || tree.File() != "" || x.TimesRecord == nil || x.TimesRecord.Staged == nil {
		return tree, err // no exchange changes the time of a file
	}
	if err := tree.SetMtime(x.TimesRecord.Staged[i].Sec, x.TimesRecord.Staged[i].Nsec); err != nil {
		return nil, errors.Join(err, tree.Close())
	}
	return tree, nil
}

// EntryPaths are where the staged or displaced trees are.
func (x *Tx) EntryPaths() []string {
	var list []string
	for _, v := range x.Volumes {
		list = append(list, v.EntryPath())
	}
	return list
}

// RecordReady records the handles of all live and staged directories, unless check,
// which is called right before that, fails.
func (x *Tx) RecordReady(ready *journal.Ready, check func() error) error {
	for _, v := range x.Volumes {
		var err error
		if v.handles, err = v.readHandles(); err != nil {
			return err
		}
		ready.Volumes = append(ready.Volumes, v.handles)
	}
	if err := check(); err != nil {
		return err
	}
	x.at("before ready")
	return x.Ready(ready)
}

func (v *Volume) readHandles() (journal.ReadyVolume, error) {
	var h journal.ReadyVolume
	slot, name, err := v.slot()
	if err != nil {
		return h, err
	}
	if slot == nil {
		return h, fmt.Errorf("volume %s: the staged tree is gone", v.Name)
	}
	defer slot.Close()
	if h.Staged, err = v.handleOf(slot, name); err == nil {
		h.Live, err = v.handleOf(v.parent, v.base)
	}
	if err == nil && (h.Live == "" || h.Staged == "") {
		err = fmt.Errorf("volume %s: the live or the staged %s is gone", v.Name, v.kind())
	}
	return h, err
}

// Untouched makes sure that a transaction without a ready record has moved no live
// directory. Otherwise the record was lost, and the trees in the wrappers may be the
// only copy of the old data.
func (x *Tx) Untouched() error {
	for _, v := range x.Volumes {
		ok, err := v.anchored()
		if err != nil {
			return fmt.Errorf("volume %s (%s) cannot be read: %w", v.Name, v.Path(), err)
		}
		if !ok {
			return &Unmounted{v.Name, v.Path()}
		}
		if err := v.notDisplaced(); err != nil {
			return err
		}
	}
	return nil
}

// notDisplaced returns an error where the directory that was live when a restore
// with guard after began lies in its wrapper, which is going to be deleted.
func (v *Volume) notDisplaced() error {
	if v.Volume.Live == "" {
		return nil
	}
	slot, name, err := v.slot()
	if err != nil || slot == nil {
		return err
	}
	defer slot.Close()
	got, err := v.handleOf(slot, name)
	if err == nil && got == v.Volume.Live {
		err = fmt.Errorf("volume %s: the ready record is missing, though the old data is at %s: %w", v.Name, v.EntryPath(), disk.ErrDamaged)
	}
	return err
}

// Sync makes the filesystems of all volumes durable.
func (x *Tx) Sync() error {
	// By device: two filesystems may have one UUID, a copy and its original.
	done := map[uint64]bool{}
	for _, v := range x.Volumes {
		if v.parent == nil {
			continue
		}
		st, err := v.parent.Stat()
		if err == nil && !done[st.Dev] {
			done[st.Dev] = true
			err = v.parent.SyncFS()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
