package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
)

// ending is how a restore's transaction ended.
type ending struct {
	action    string
	frozen    error     // nothing was touched
	app       error     // the data is in place, the app is not up; the transaction stays
	sick      error     // the app is up but not healthy, and that was asked to be kept
	guard     *Error    // the old data could not be made a snapshot and stays; the transaction stays
	cleanup   error     // all but the deleting and the last record; the transaction stays
	postponed bool      // offline: the rest is left to the next run
	why       error     // why it was reverted
	guarded   bool      // with guard after: the snapshot of the old data exists
	kept      []string  // what was put aside
	up        time.Time // when the app was up, or was given up
}

// resolve brings a restore's transaction to its end by the table of phase.go.
// The restore itself comes here after its commit, or when it failed before;
// the recovery of a crash comes here too. Only an ending whose app, guard and
// cleanup are nil has ended the transaction.
func (s *session) resolve(ctx context.Context, tx *journal.Tx, offline bool) (end ending) {
	defer func() {
		if end.frozen != nil || end.app != nil || end.guard != nil || end.cleanup != nil || end.postponed {
			tx.Close()
		}
	}()
	end = ending{action: FrozenTx, up: time.Now()}
	x, err := s.openTxn(tx)
	if err != nil {
		end.frozen = frozen(tx.ID, "its directories cannot be opened: %w", err)
		return end
	}
	defer x.close()
	defer func() {
		if end.kept, err = x.aside(); err != nil {
			s.say("looking for what was put aside: %v", err)
		}
	}()
	if tx.ReadyRecord == nil { // nothing that is live has been touched
		if err := s.untouched(x); err != nil {
			end.frozen = frozen(tx.ID, "%w", err)
			return end
		}
		end.action = Cleaned
		end.cleanup = s.discardUnready(x)
		return end
	}
	err = s.follow(ctx, x, offline)
	var own *Error
	switch {
	case errors.As(err, &own):
		end.frozen = err
		return end
	case err != nil:
		end.frozen = frozen(tx.ID, "%w", err)
		return end
	}
	end.action = RolledBackTx
	if x.decision().kept() == theNew {
		end.action = RolledForwardTx
	}
	if offline {
		end.postponed = true
		return end
	}
	if !x.Guarding || x.Resolved != "" { // else it was up; what became of it since is the operator's
		_ = s.time.run("redeploy", func() error { s.bringUp(ctx, x, &end); return nil })
	}
	end.up = time.Now()
	if end.app != nil || end.frozen != nil {
		return end
	}
	if x.guardsAfter() {
		if end.guard = s.guardAfter(ctx, x); end.guard != nil {
			return end
		}
		end.guarded = true
	}
	end.cleanup = s.time.run("settle", func() error { return s.settle(ctx, x) })
	return end
}

// follow brings every volume to where the records want it, or touches none.
func (s *session) follow(ctx context.Context, x *txn, offline bool) error {
	if x.Resolved != "" {
		if err := s.settleAs(ctx, x, x.Resolved, offline); err != nil {
			return err
		}
	}
	list, err := x.decide()
	if err != nil {
		return err
	}
	return s.moveAll(ctx, x, list, offline)
}

func (s *session) discardUnready(x *txn) error {
	if x.Begin.PreRestoreSID != "" {
		if err := errors.Join(s.discard(s.w.Name, x.Begin.PreRestoreSID), s.clear(x.ID)); err != nil {
			return err
		}
	}
	return x.clean()
}

// moveAll makes the moves, with the app stopped where there are any.
func (s *session) moveAll(ctx context.Context, x *txn, list []move, offline bool) error {
	for _, m := range list {
		if m != exchange {
			continue
		}
		if err := s.stopped(ctx, x, offline); err != nil {
			return err
		}
		return x.carryOut(list)
	}
	if x.decision().kept() == theOld {
		if err := x.restoreTimes(); err != nil {
			return err
		}
	}
	return x.sync()
}

// stopped stops the app before directories are exchanged. Offline the operator
// says that the engine is down.
func (s *session) stopped(ctx context.Context, x *txn, offline bool) error {
	if offline {
		return nil
	}
	if err := s.rt.FenceAndStop(ctx, x.Begin.StopTimeout); err != nil {
		return fault(Frozen, "docker_unreachable", "start the engine and run snap recover again; if it is meant to be down, snap recover --offline",
			"transaction %s: the volumes are not all old and not all new, and must not be exchanged while the app may run: stop %s: %w", x.ID, s.w.Name, err)
	}
	return nil
}

// bringUp starts the app on the data that is now in place: the new one after a
// commit, the old one otherwise, or after the new one did not become healthy.
func (s *session) bringUp(ctx context.Context, x *txn, end *ending) {
	before := x.ReadyRecord.Containers
	if x.decision().kept() == theOld || !ran(before) {
		end.app = s.rt.Resume(ctx, s.held, before)
		return
	}
	err := s.rt.Redeploy(ctx, s.held, journal.Redeploy{
		Pins: x.ReadyRecord.Pin, Before: before, HealthTimeout: x.Begin.HealthTimeout, StopTimeout: x.Begin.StopTimeout,
	})
	s.at("redeployed")
	if err == nil {
		return
	}
	var sick *journal.Unhealthy
	if (x.Begin.OnUnhealthy == KeepUnhealthy || x.Resolved != "") && errors.As(err, &sick) {
		end.sick, end.app = err, s.rt.Settle(ctx, before)
		return
	}
	if !revertible(x, err) {
		end.app = err
		return
	}
	s.say("%v: going back to the data from before", err)
	end.why = err
	if err := s.revert(ctx, x); err != nil {
		end.frozen = err
		return
	}
	end.action = RolledBackTx
	end.app = s.rt.Resume(ctx, s.held, before)
}

// ran reports whether a container of the workload ran.
func ran(list []Container) bool {
	for _, c := range list {
		if c.Running && !c.Also {
			return true
		}
	}
	return false
}

// revertible reports whether an app that did not come up may go back: that was
// asked for, and not overruled by the operator, the engine answers, and every
// displaced tree is whole.
func revertible(x *txn, err error) bool {
	if x.Begin.OnUnhealthy == KeepUnhealthy || x.Resolved != "" || errors.Is(err, journal.ErrUnreachable) {
		return false
	}
	for _, site := range x.sites {
		if now, err := site.look(); err != nil || now != newOld {
			return false
		}
	}
	return true
}

// revert takes a committed restore back.
func (s *session) revert(ctx context.Context, x *txn) error {
	s.at("before revert")
	if err := x.Revert(); err != nil {
		return frozen(x.ID, "%w", err)
	}
	s.at("revert")
	if err := s.rt.FenceAndStop(ctx, x.Begin.StopTimeout); err != nil {
		return fault(Frozen, "docker_unreachable", "snap recover "+s.w.Name, "stop %s to go back: %w", s.w.Name, err)
	}
	list, err := x.decide()
	if err != nil {
		return frozen(x.ID, "%w", err)
	}
	return x.carryOut(list)
}

// settle deletes what is no longer needed and ends the transaction. When the
// restore was undone before its snapshot was published, what is left of that
// goes too.
func (s *session) settle(ctx context.Context, x *txn) error {
	s.at("before settle")
	if err := s.discard(s.w.Name, x.Begin.PreRestoreSID); err != nil {
		return err
	}
	if x.Resolved != "" { // a revert that was cut may have left of its own
		if err := s.discard(s.w.Name, x.Begin.RevertSID); err != nil {
			return err
		}
	}
	if x.decision() == reverted || x.Resolved != "" {
		err := s.keepTaken(ctx, x)
		var bad *archive.Unrestorable
		if errors.As(err, &bad) {
			// No snapshot can hold it, and it is nowhere else.
			s.say("what is taken away is put aside, for no snapshot can hold it: %v", err)
			err = x.putTakenAside()
		}
		if err != nil {
			return fmt.Errorf("keep the data that was taken back, as snapshot %s: %w", x.takenSID(), err)
		}
	}
	if err := s.clear(x.ID); err != nil {
		return err
	}
	if err := x.clean(); err != nil {
		return fmt.Errorf("clean up after transaction %s: %w", x.ID, err)
	}
	s.at("settled")
	return nil
}

// keepTaken publishes a snapshot of what is taken away, before that is deleted:
// of the new data after a revert, since the app was up on it and what it was
// told to keep is nowhere else; and of whatever an operator has decided
// against, since the app may have been started on it by hand.
func (s *session) keepTaken(ctx context.Context, x *txn) error {
	sid, note := x.takenSID(), "taken back: the restore of "+x.Begin.SID
	if x.decision() == committed {
		note = "from before the restore of " + x.Begin.SID + ", which the operator kept"
	}
	if _, err := s.Store.Load(s.w.Name, sid); err == nil {
		return s.Store.Root().SyncFS() // an earlier run has done it, and may have been killed before it synced that
	}
	if err := errors.Join(s.discard(s.w.Name, sid), s.clear(x.ID)); err != nil {
		return err
	}
	places, err := s.taken(x)
	defer func() {
		for _, p := range places {
			p.live.Close()
		}
	}()
	if err != nil || len(places) == 0 {
		return err
	}
	shot, err := s.newShooting(ctx, x.Tx, places, true) // the only copy that will be left
	if err != nil {
		return err
	}
	defer shot.close()
	shot.leaving = true
	if err := shot.second(ctx); err != nil {
		return err
	}
	s.say("what is taken away is kept as snapshot %s (%s)", sid, note)
	_, err = shot.publish(sid, store.PreRestore, note, journal.Stop, nil)
	return err
}

// takenSID is the snapshot that what is taken away becomes.
func (x *txn) takenSID() string {
	if x.Resolved != "" {
		return x.ResolvedSID
	}
	return x.Begin.RevertSID
}

// taken opens the trees that are not kept, where they lie in the wrappers. The
// caller closes them, after an error too.
func (s *session) taken(x *txn) ([]*place, error) {
	var places []*place
	for _, site := range x.sites {
		vol, err := s.w.Volume(site.Name)
		if err != nil {
			return places, err
		}
		wrapper, err := site.openWrapper()
		if err != nil {
			return places, err
		}
		if wrapper == nil {
			continue
		}
		tree, err := wrapper.Open(site.Entry)
		wrapper.Close()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return places, err
		}
		places = append(places, &place{vol: vol, live: tree})
		if h, err := tree.Handle(); err != nil || h != site.handle(x.decision().lost()) {
			return places, errors.Join(err, fmt.Errorf("volume %s: another directory stands at %s", site.Name, tree.Path()))
		}
	}
	return places, nil
}
