package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
)

// txn is the data side of a restore's transaction: its records, and the places
// that they name. The restore itself and its recovery both work through it.
type txn struct {
	*journal.Tx
	sites []*site
	at    func(point string)
	// unguarded: with guard after, the snapshot of the old data does not exist.
	unguarded bool
	noStore   error // why that could not be seen: the store is not there
}

// site is one volume of a transaction.
type site struct {
	journal.Volume
	handles journal.ReadyVolume // zero before ready
	wrapper string
	root    *disk.Dir
	parent  *disk.Dir // nil where it does not exist
	base    string
}

// openTxn opens the places of a transaction as they are now.
func (e *Engine) openTxn(tx *journal.Tx) (*txn, error) {
	x := &txn{Tx: tx, at: e.at}
	if err := e.lookForGuard(x); err != nil {
		return nil, err
	}
	for i, v := range tx.Begin.Volumes {
		s := &site{Volume: v, wrapper: journal.Wrapper(tx.ID)}
		if tx.ReadyRecord != nil {
			s.handles = tx.ReadyRecord.Volumes[i]
		}
		x.sites = append(x.sites, s)
		if err := s.open(); err != nil {
			x.close()
			return nil, fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return x, nil
}

func (x *txn) close() {
	for _, s := range x.sites {
		s.root.Close()
		s.parent.Close()
	}
}

func (s *site) open() error {
	root, err := disk.OpenRoot(s.Root)
	if errors.Is(err, fs.ErrNotExist) {
		return &unmounted{s.Name, s.path()}
	}
	if err != nil {
		return err
	}
	s.root = root
	parent, base := dirName(s.Rel)
	s.base = base
	s.parent, err = openBelow(root, parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *site) path() string { return s.Root + "/" + s.Rel }

// anchored reports whether the directory that the site was found in is the one
// that is there now: not, where a filesystem is not mounted.
func (s *site) anchored() (bool, error) {
	if s.AnchorHandle == "" {
		return true, nil
	}
	now, err := s.root.HandleOf(s.Anchor)
	return now == s.AnchorHandle, err
}

// openWrapper returns the wrapper, nil where there is none.
func (s *site) openWrapper() (*disk.Dir, error) {
	if s.parent == nil {
		return nil, nil
	}
	w, err := s.parent.OpenSameMount(s.wrapper)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return w, err
}

// look says where the two directories are. Anything but ENOENT that keeps it
// from seeing is an error, which freezes.
func (s *site) look() (sight, error) {
	v, err := s.view()
	if err != nil {
		return strange, err
	}
	return v.sight(), nil
}

// decision is what the records say. What the operator has decided stands above
// what snap had.
func (x *txn) decision() decision {
	switch {
	case x.Resolved == journal.KeepOld:
		return reverted
	case x.Resolved == journal.KeepNew:
		return committed
	case x.Reverted:
		return reverted
	case x.Committed && x.unguarded:
		return guarding
	case x.Committed:
		return committed
	}
	return undecided
}

// decide looks at all volumes before any is touched, and returns the move for
// each. An error means that none may be touched, and says what was found.
func (x *txn) decide() ([]move, error) {
	list := make([]move, len(x.sites))
	views, err := x.views()
	if err != nil {
		return nil, err
	}
	for i, v := range views {
		list[i] = moves[v.sight()][x.decision()]
	}
	if slices.Contains(list, freeze) {
		return nil, x.odd(views)
	}
	return list, nil
}

// views looks at all volumes.
func (x *txn) views() ([]view, error) {
	list := make([]view, len(x.sites))
	for i, s := range x.sites {
		var err error
		if list[i], err = s.view(); err != nil {
			return nil, fmt.Errorf("volume %s (%s) cannot be looked at: %w", s.Name, s.path(), err)
		}
	}
	return list, nil
}

// carryOut makes the moves and makes them durable.
func (x *txn) carryOut(list []move) error {
	for i, s := range x.sites {
		if list[i] != exchange {
			continue
		}
		if err := s.exchange(); err != nil {
			return fmt.Errorf("volume %s (%s): %w", s.Name, s.path(), err)
		}
		x.at("exchanged " + s.Name)
	}
	if err := x.restoreTimes(); err != nil {
		return err
	}
	return x.sync()
}

// restoreTimes gives the old directories, when they are live again, the times
// that they had before the first exchange.
func (x *txn) restoreTimes() error {
	if x.TimesRecord == nil {
		return nil
	}
	for i, s := range x.sites {
		live, err := s.parent.Open(s.base)
		if err != nil {
			return err
		}
		handle, err := live.Handle()
		if err == nil && handle == s.handles.Live {
			err = live.SetMtime(x.TimesRecord.Live[i].Sec, x.TimesRecord.Live[i].Nsec)
		}
		if err = errors.Join(err, live.Close()); err != nil {
			return err
		}
	}
	return nil
}

// recordTimes notes the live directories' own times before the first exchange.
func (x *txn) recordTimes() error {
	times := &journal.Times{}
	for _, s := range x.sites {
		live, err := s.parent.Open(s.base)
		if err != nil {
			return err
		}
		sec, nsec, err := live.Mtime()
		if err = errors.Join(err, live.Close()); err != nil {
			return err
		}
		times.Live = append(times.Live, journal.Time{Sec: sec, Nsec: nsec})
	}
	return x.Times(times)
}

// exchange swaps live and staged, and looks whether just that has happened: the
// kernel exchanges names, and somebody may have renamed in between.
func (s *site) exchange() error {
	before, err := s.look()
	if err != nil {
		return err
	}
	wrapper, err := s.openWrapper()
	if err != nil {
		return err
	}
	if wrapper == nil || (before != oldNew && before != newOld) {
		return fmt.Errorf("not exchanged: %s", before)
	}
	defer wrapper.Close()
	staged, err := wrapper.Open(s.Entry)
	if err != nil {
		return err
	}
	defer staged.Close()
	sec, nsec, err := staged.Mtime()
	if err != nil {
		return err
	}
	if err := s.parent.Exchange(s.base, wrapper, s.Entry); err != nil {
		return err
	}
	if err := staged.SetMtime(sec, nsec); err != nil { // see journal.Times
		return err
	}
	after, err := s.look()
	if err != nil {
		return err
	}
	if want := map[sight]sight{oldNew: newOld, newOld: oldNew}[before]; after != want {
		return fmt.Errorf("somebody renamed at the same moment: %s", after)
	}
	return nil
}

// sync makes the filesystems of all volumes durable.
func (x *txn) sync() error {
	// By device: two filesystems may have one UUID, a copy and its original.
	done := map[uint64]bool{}
	for _, s := range x.sites {
		if s.parent == nil {
			continue
		}
		st, err := s.parent.Stat()
		if err != nil {
			return err
		}
		id := st.Dev
		if done[id] {
			continue
		}
		if err := s.parent.SyncFS(); err != nil {
			return err
		}
		done[id] = true
	}
	return nil
}

// trash is what a tree that is to be deleted is renamed to first, so that a
// tree of which a part is gone can never be taken for a whole one.
func trash(entry string) string { return entry + ".trash" }

// clean deletes what the transaction no longer needs: the staged trees of one
// that did not happen, the displaced trees of one that did. Then it ends the
// transaction. Each tree is checked against the handle of the ready record;
// without one it lies in a wrapper that only this transaction has made.
func (x *txn) clean() error {
	if x.decision() == guarding { // whoever comes here has lost his way
		return errors.New("the displaced trees are the only copy of the old data, and are kept")
	}
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	var errs []error
	trees := false
	for _, s := range x.sites {
		there, err := s.discard(x.decision())
		if err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", s.Name, err))
		}
		trees = trees || there
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	// A tree may only lose its first file when its name is lost for good.
	if trees {
		if err := x.sync(); err != nil {
			return err
		}
	}
	x.at("discarded")
	for _, s := range x.sites {
		if err := s.remove(mounts, x.decision()); err != nil {
			errs = append(errs, fmt.Errorf("volume %s: %w", s.Name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := x.putWrappersAside(); err != nil {
		return err
	}
	if err := x.sync(); err != nil { // or the store could forget what the volume still has
		return err
	}
	x.at("removed")
	return x.End()
}

// discard takes its name from the tree that is to be deleted, marks it, and
// reports whether there is one: an earlier run may have done so and been killed
// before it synced that.
func (s *site) discard(d decision) (bool, error) {
	wrapper, err := s.openWrapper()
	if err != nil || wrapper == nil {
		return false, err
	}
	defer wrapper.Close()
	there, err := wrapper.Exists(s.Entry)
	if err != nil {
		return false, err
	}
	if there {
		if err := wrapper.RenameNoReplace(s.Entry, wrapper, trash(s.Entry)); err != nil {
			return true, err
		}
	}
	return s.condemn(wrapper, d)
}

// condemn marks the tree that is to be deleted, whatever its name will be, and
// reports whether there is one. Before ready there is none that could be taken
// for data.
func (s *site) condemn(wrapper *disk.Dir, d decision) (bool, error) {
	want := s.handle(d.lost())
	tree, err := wrapper.Open(trash(s.Entry))
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

func (s *site) remove(mounts disk.Mounts, d decision) error {
	wrapper, err := s.openWrapper()
	if err != nil {
		return err
	}
	if wrapper != nil {
		defer wrapper.Close()
		if err := s.removeTree(wrapper, mounts, d); err != nil {
			return err
		}
		err := s.parent.Rmdir(s.wrapper)
		// Another volume in the same directory may still have its tree there, or
		// somebody something that is none of snap's.
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	if d == committed {
		return nil
	}
	return s.uncreate()
}

func (s *site) removeTree(wrapper *disk.Dir, mounts disk.Mounts, d decision) error {
	name := trash(s.Entry)
	want := s.handles.Staged
	if d == committed {
		want = s.handles.Live
	}
	if want != "" {
		return wrapper.RemoveTreeIf(name, want, mounts)
	}
	for _, dir := range []string{name, "probe-a", "probe-b"} {
		if err := wrapper.RemoveTree(dir); err != nil {
			return err
		}
	}
	return nil
}

// uncreate removes the directories that the restore made, while they are empty.
func (s *site) uncreate() error {
	for i := len(s.Created) - 1; i >= 0; i-- {
		parent, base := dirName(s.Created[i])
		d, err := openBelow(s.root, parent)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = d.Rmdir(base)
		d.Close()
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}
