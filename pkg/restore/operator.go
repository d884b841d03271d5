package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/swap"
)

// ResolveRequest is an operator's decision about a frozen restore.
type ResolveRequest struct {
	Workload string
	Keep     string // journal.KeepOld or KeepNew
	Confirm  string // must equal the transaction's id
}

// Resolution is what a decision does, or would do.
type Resolution struct {
	Tx      string
	Keep    string
	SID     string // the snapshot of the data that is not kept; "" before the confirmation, and where there is no such data
	Volumes []ResolvedVolume
}

// ResolvedVolume is one volume of a resolution.
type ResolvedVolume struct {
	Name  string   `json:"name"`
	Path  string   `json:"path"`  // the live directory
	Entry string   `json:"entry"` // the name in the wrapper
	Found string   `json:"found"` // what stands at the two, in words
	Old   string   `json:"old"`   // the recorded handles
	New   string   `json:"new"`
	Steps []string `json:"steps"` // in words
	Stays string   `json:"stays"` // what is not snap's, and is never deleted; "" for nothing
}

// Resolve carries out an operator's decision about a frozen restore: all
// volumes old, or all new. It moves and deletes only directories whose handles
// the transaction has recorded. Anything else that stands in the way is preserved
// under a name that no later run touches, and is reported in Kept. The data that is
// not kept becomes a snapshot before it is deleted.
//
// Without a confirmation nothing changes, and the result tells what Resolve would
// do, after a refusal as far as it could find out. The decision is recorded before the
// first directory moves. From then on Recover finishes the work, and another Resolve
// may still decide otherwise.
func (e *Engine) Resolve(ctx context.Context, req ResolveRequest) (Recovery, error) {
	runtime.LockOSThread() // see Restore
	defer runtime.UnlockOSThread()

	r := Recovery{Workload: req.Workload}
	if req.Keep != journal.KeepOld && req.Keep != journal.KeepNew {
		return r, fault.New(fault.Usage, "usage", remedy.Of(remedy.Operation{Verb: remedy.DoResolve, Workload: req.Workload, Keep: journal.KeepOld}), "unknown decision %q: use keep-old or keep-new", req.Keep)
	}
	s, err := e.lookup(ctx, "recover", req.Workload)
	if err != nil {
		return r, err
	}
	defer s.close()
	if s.held, err = e.Journal.Lock(req.Workload, "recover"); err != nil {
		return r, fault.Classify(err)
	}
	if err := s.decideFor(ctx, req, &r); err != nil {
		if r.Err = fault.Classify(err); fault.KindOf(err) == fault.Frozen {
			r.Action = FrozenTx
		}
	}
	if r.Tx != "" && r.Action != "" {
		e.rememberRecovery(ctx, s.when, &r)
	}
	return r, r.Err
}

// decideFor finds the transaction, and carries the decision out.
func (s *session) decideFor(ctx context.Context, req ResolveRequest, r *Recovery) error {
	tx, err := s.frozenRestore(req)
	if err != nil {
		return err
	}
	r.Tx, r.Found = tx.ID, tx.Found()
	if err := s.prepare(tx, req, r); err != nil {
		return errors.Join(err, tx.Close())
	}
	r.Resolution.SID = disk.NewID(time.Now())
	s.at("before resolve")
	if err := tx.Resolve(req.Keep, r.Resolution.SID); err != nil {
		tx.Close()
		return fault.Freeze(tx.ID, "nothing was moved: %w", err)
	}
	s.at("resolve")
	// From here on no signal ends the work.
	s.conclude(context.WithoutCancel(ctx), tx, false, r)
	if _, err := s.Store.Load(s.w.Name, r.Resolution.SID); errors.Is(err, fs.ErrNotExist) && r.Err == nil {
		r.Resolution.SID = "" // nothing was taken away
	}
	s.verb, s.did = "resolve keep-"+req.Keep, r.Action
	s.audit(tx.Begin.SID, tx.ID, r.Err)
	return r.Err
}

// frozenRestore finds the restore that a decision is about: the one that is
// confirmed, else the oldest.
func (s *session) frozenRestore(req ResolveRequest) (*journal.Tx, error) {
	ids, err := s.Journal.List()
	if err != nil {
		return nil, err
	}
	var found *journal.Tx
	var unusable error
	for _, id := range ids {
		tx, err := s.Journal.Load(id)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err != nil && !concerns(err, s.w.Name):
		case err != nil:
			unusable = errors.Join(unusable, fault.Freeze(id, "its records cannot be used, and without them nothing can be decided: %w", err))
		case tx.Begin.Workload != s.w.Name || tx.Begin.Kind != journal.Restore || found != nil && id != req.Confirm:
			tx.Close()
		default:
			if found != nil {
				found.Close()
			}
			found = tx
		}
	}
	switch {
	case found != nil:
		return found, nil
	case unusable != nil:
		return nil, unusable
	}
	return nil, fault.Refuse("not_frozen", remedy.Of(remedy.Operation{Verb: remedy.DoStatus, Workload: s.w.Name}), "workload %s has no restore that is frozen", s.w.Name)
}

// prepare makes all checks, and fills in what a decision would do.
func (s *session) prepare(tx *journal.Tx, req ResolveRequest, r *Recovery) error {
	if err := s.held.Volumes(tx.Begin.Live()); err != nil {
		return err
	}
	if err := errors.Join(s.controls(tx), s.look(tx, req, r)); err != nil {
		return err
	}
	r.Action = FrozenTx // until the decision is carried out
	st, err := s.stored()
	if err != nil { // the data that is not kept becomes a snapshot
		return err
	}
	if earlier := swap.Decide(tx, true); earlier.Operator { // the snapshot that an earlier decision was making
		return st.Discard(s.w.Name, earlier.TakenSID)
	}
	return nil
}

// look looks at all volumes, and refuses what is not frozen or not confirmed.
func (s *session) look(tx *journal.Tx, req ResolveRequest, r *Recovery) error {
	x, err := s.openTxn(tx)
	if err != nil {
		return fault.Freeze(tx.ID, "its directories cannot be opened: %w", err)
	}
	defer x.CloseVolumes()
	err = s.ready(x)
	switch {
	case err != nil && !x.Decision().Staged:
		return fault.Freeze(tx.ID, "%w", err)
	case err == nil:
		return fault.Refuse("not_frozen", remedy.Of(remedy.Recover(s.w.Name)), "transaction %s is not frozen: snap recover finishes or undoes it without a decision", tx.ID)
	}
	keep := swap.Generation(req.Keep)
	list, err := x.PlanResolution(keep)
	if err != nil {
		return fault.Freeze(tx.ID, "keep-%s: %w", req.Keep, err)
	}
	r.Resolution = describe(x, keep, list)
	command := remedy.Of(remedy.Resolve(s.w.Name, tx.ID, req.Keep))
	return fault.Confirmed(req.Confirm, "transaction", tx.ID, command, "this "+consequence(x, keep, list))
}

// consequence says what a decision does to the data.
func consequence(x *swap.Tx, keep swap.Occupant, list []swap.Resolution) string {
	var does []string
	if slices.ContainsFunc(list, func(r swap.Resolution) bool { return len(r.Steps) > 0 && r.Steps[0] != swap.Preserve }) {
		does = append(does, "moves live data of "+x.Begin.Workload)
	}
	if slices.ContainsFunc(list, func(r swap.Resolution) bool { return r.Drops(keep) }) {
		does = append(does, "deletes the "+keep.Other().Word()+" data")
	}
	if len(does) == 0 {
		return "ends the transaction, leaves the live data as it is and deletes nothing"
	}
	return strings.Join(does, " and ")
}

// describe says what a decision does with each volume.
func describe(x *swap.Tx, keep swap.Occupant, list []swap.Resolution) *Resolution {
	word := keep.Word()
	r := &Resolution{Tx: x.ID, Keep: word}
	for i, v := range x.Volumes {
		plan := list[i]
		d := ResolvedVolume{
			Name: v.Name, Path: v.Path(), Entry: v.EntryName(), Found: v.Describe(),
			Old: string(v.Handle(swap.Old)), New: string(v.Handle(swap.New)), Steps: []string{}, Stays: plan.Foreign(),
		}
		for _, step := range plan.Steps {
			d.Steps = append(d.Steps, [...]string{
				swap.SwapIn: "exchange what is live for the " + word + " data", swap.MoveIn: "move the " + word + " data to the live name",
				swap.Preserve: "preserve what is not snap's as " + x.PreservedName(v),
			}[step])
		}
		if plan.Drops(keep) {
			d.Steps = append(d.Steps, fmt.Sprintf("save the %s data as a snapshot, then delete it", keep.Other().Word()))
		}
		r.Volumes = append(r.Volumes, d)
	}
	return r
}
