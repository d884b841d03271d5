package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// This file is `--guard after`. The displaced trees themselves are the copy of
// the old data until the pre-restore snapshot has been made of them, with the
// app up on the new data. While that is not so the decision of the records is
// guarding, under which nothing is deleted (txn.clean) and a tree that is
// missing freezes (moves).

// guardsBefore are the steps that a restore leaves out when it guards after.
var guardsBefore = []string{"pass_one", "pass_two", "publish"}

// guard returns when a restore guards: as it was asked, else as configured.
func (s *session) guard(req RestoreRequest) (string, error) {
	switch req.Guard {
	case "":
		return s.w.Guard, nil
	case workload.GuardBefore, workload.GuardAfter:
		return req.Guard, nil
	}
	return "", fault(Usage, "usage", "snap restore --help", "there is no guard %q: %s or %s", req.Guard, workload.GuardBefore, workload.GuardAfter)
}

func (r *restoration) guardsAfter() bool { return r.plan.Guard == workload.GuardAfter }

// guardsAfter reports whether the old data of a restore that stays must become
// a snapshot before it is deleted. What an operator has decided against becomes
// one in any case: see keepTaken.
func (x *txn) guardsAfter() bool {
	return x.Begin.Guard == journal.GuardAfter && x.Resolved == "" && x.decision().kept() == theNew
}

// lookForGuard finds out whether the snapshot of the old data exists.
func (e *Engine) lookForGuard(x *txn) error {
	if x.Begin.Guard != journal.GuardAfter {
		return nil
	}
	there, err := e.published(x.Begin)
	x.unguarded = !there
	var missing *store.Missing
	if errors.As(err, &missing) {
		// Nothing that the records lead to then is wrong where the snapshot does
		// exist: what guarding keeps, a later recovery deletes.
		x.noStore = err
		return nil
	}
	// Before the commit and after a revert the live directory is the old data.
	if err != nil && x.guardsAfter() {
		return fmt.Errorf("whether the old data is a snapshot cannot be seen: %w", err)
	}
	return nil
}

// preRestore returns the id of the pre-restore snapshot where there may be one,
// and "" where there is certainly none.
func (x *txn) preRestore() string {
	if x.unguarded {
		return ""
	}
	return x.Begin.PreRestoreSID
}

// guardAfter makes the pre-restore snapshot of the displaced trees. When it
// returns nil that snapshot exists, durably, and the trees may be deleted.
// Otherwise they are as they were, and it may be called again.
func (s *session) guardAfter(ctx context.Context, x *txn) *Error {
	err := s.time.run("guard", func() error {
		if x.decision() == committed { // an earlier run has done it, and may have been killed before it synced that
			return s.Store.Root().SyncFS()
		}
		if !x.Guarding {
			s.at("before guarding")
			if err := x.Guard(); err != nil {
				return err
			}
		}
		s.at("guarding")
		return s.publishDisplaced(ctx, x)
	})
	if err != nil {
		return s.keepsDisplaced(x, because(ctx, err))
	}
	x.unguarded = false
	s.at("guarded")
	return nil
}

func (s *session) publishDisplaced(ctx context.Context, x *txn) error {
	sid := x.Begin.PreRestoreSID
	sweep := func() error { // of what a run that was cut has left; and a store that is full needs the room
		return errors.Join(s.discard(s.w.Name, sid), s.clear(x.ID))
	}
	if err := sweep(); err != nil {
		return err
	}
	places, err := s.displaced(x)
	defer func() {
		for _, p := range places {
			p.live.Close()
		}
	}()
	if err != nil {
		return err
	}
	if err := holders(places, disk.AllProcesses); err != nil {
		return err
	}
	shot, err := s.newShooting(ctx, x.Tx, places, true)
	if err != nil {
		return err
	}
	defer shot.close()
	defer gently(s.fullSpeed)() // the app is up
	s.say("what was there before becomes snapshot %s", sid)
	// Nobody writes to these trees, and reading them takes long: who has kept a
	// way in and does is seen by the second pass, which is a walk by stat alone.
	if err = shot.ahead(ctx); err == nil {
		s.at("displaced read")
		err = holders(places, disk.AllProcesses)
	}
	if err == nil {
		err = shot.second(ctx)
	}
	if err == nil {
		err = shot.still()
	}
	if err == nil {
		_, err = shot.publish(sid, store.PreRestore, beforeRestore(x.Begin.SID), journal.Stop, x.ReadyRecord.Containers)
	}
	if err != nil {
		return errors.Join(err, sweep())
	}
	return nil
}

// beforeRestore is the note of a pre-restore snapshot.
func beforeRestore(sid string) string { return "before the restore of " + sid }

// displaced opens the displaced trees, all of them, each after a look whether
// it is the directory that was live. The caller closes them, after an error too.
func (s *session) displaced(x *txn) ([]*place, error) {
	places, err := s.taken(x)
	if err != nil {
		return places, err
	}
	if len(places) != len(x.sites) {
		return places, fmt.Errorf("of %d volumes only %d displaced trees are there", len(x.sites), len(places))
	}
	for i, p := range places {
		// What an exchange did to the directory's own time: see journal.Times.
		want := x.TimesRecord.Live[i]
		sec, nsec, err := p.live.Mtime()
		if err == nil && (sec != want.Sec || nsec != want.Nsec) {
			err = p.live.SetMtime(want.Sec, want.Nsec)
		}
		if err != nil {
			return places, err
		}
	}
	return places, nil
}

// keepsDisplaced says why the old data is not a snapshot yet, where it is, and
// what can be done.
func (s *session) keepsDisplaced(x *txn, err error) *Error {
	again := "snap recover " + s.w.Name
	where := strings.Join(x.displacedPaths(), ", ")
	hint := "mend that, then " + again
	var bad *archive.Unrestorable
	switch own := classify(err); {
	case own.Kind == Interrupted:
		hint = again
	case errors.As(err, &bad):
		hint = "move what it names out of " + where + ", then " + again
	case isNoSpace(err):
		hint = "free space on the filesystem of the store, then " + again
	case own.Hint != "":
		hint = own.Hint + "; then " + again
	}
	return fault(Pending, "guarding", hint, "what was there before is not yet a snapshot, and is kept as it is (%s): %w", where, err)
}

func (x *txn) displacedPaths() []string {
	var list []string
	for _, s := range x.sites {
		list = append(list, s.entryPath())
	}
	return list
}

func (s *site) entryPath() string {
	parent, _ := dirName(s.path())
	return parent + "/" + s.wrapper + "/" + s.Entry
}

// unguarded is the error of a restore whose old data is not yet a snapshot.
func (end *ending) unguarded(what string) *Error {
	if end.sick != nil {
		return fault(Pending, end.guard.Code, end.guard.Hint, "%s, but %w; and %w", what, end.sick, end.guard)
	}
	return fault(Pending, end.guard.Code, end.guard.Hint, "%s and the app is up, but %w", what, end.guard)
}

// astray tells of a displaced tree that was taken away before it was a
// snapshot, and how it comes back.
func (s *site) astray(x *txn) (text string, next []string) {
	text = fmt.Sprintf("volume %s (%s): the new data is live, and the old data, of which there is no snapshot yet, is not at %s", s.Name, s.path(), s.entryPath())
	words, path := s.whereabouts(theOld)
	if words != "" {
		text += "; " + words
	}
	if path != "" {
		next = []string{fmt.Sprintf("put it back: mv %s %s, then snap recover %s", shell(path), shell(s.entryPath()), x.Begin.Workload)}
	}
	return text, next
}

// notDisplaced returns an error where the directory that was live when a
// restore with guard after began lies in its wrapper: without a ready record
// that is going to be deleted.
func (s *site) notDisplaced() error {
	if s.Live == "" {
		return nil
	}
	wrapper, err := s.openWrapper()
	if err != nil || wrapper == nil {
		return err
	}
	defer wrapper.Close()
	got, err := wrapper.HandleOf(s.Entry)
	if err == nil && got == s.Live {
		err = fmt.Errorf("volume %s: the ready record is missing: what was live lies at %s: %w", s.Name, s.entryPath(), disk.ErrDamaged)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
