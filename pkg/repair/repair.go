// Package repair looks for damage in a store ([Host.Run]) and stores anew what is damaged
// or missing of it, where the same bytes are still to be had:
//
//   - from a copy under the other compression, since both hold the same tar bytes;
//   - from the live data of all workloads whose snapshots name it: see [snapshot.Heal].
//
// What is found counts only if its tar bytes have the checksum that is the member's name. So
// the apps run on, and what they write meanwhile can do no harm. There is no third way:
// snapshots that hold the same bytes name the same member.
//
// A member that cannot be healed stays where it is, for whoever wants to save a part of it
// by hand. It is noted in the state, so that no later capture relies on it unread, and a
// capture that comes by its content stores it anew. Manifests and indexes are in one place
// only, and are not repaired.
//
// # Locks, crashes
//
// The store's lock is shared all the time, so no member goes. While the live data of a
// workload is read its lock and those of its volumes are held, so nothing restores it. New
// members wait in scratch, and take their names when their content is durable. A member
// that is whole is not touched. Killed anywhere, each member is as it was, or whole;
// what is left in scratch goes with the next recovery.
package repair

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/verify"
)

// Host is a store, and the live data of the workloads that use it.
type Host struct {
	Store   *store.Store
	Journal *journal.Journal
	// Known refuses a workload that neither the config nor the store has.
	Known func(workload string) error
	// Notes keeps what is damaged, by the store's id. Nil: nothing does.
	Notes Notes
	// Live calls do with the volumes of a workload, under its locks. It fails where they
	// cannot be had; one that does not exist is not open.
	Live func(ctx context.Context, workload string, do func([]snapshot.Source) error) error
	// Record adds a line to the audit log. A log that cannot be written is the caller's
	// business.
	Record func(a journal.Audit, start time.Time, err error)
	// Progress is told how many bytes of how many were read, Line what is done.
	Progress func(done, total int64)
	Line     func(string)
}

// Notes is the state's list of what is damaged.
type Notes interface {
	Damaged(store string) ([]store.MemberKey, error)
	NoteDamaged(store string, keep func(store.MemberKey) bool, found []store.MemberKey) error
}

// Request says what is looked at, and whether it is repaired.
type Request struct {
	Workload string  // "": all of the store
	SID      string  // "": all of the workload
	Data     float64 // the part of the stored data that is read: 0 to 1
	Repair   bool
}

// Result is what was found, and what became of it.
type Result struct {
	*verify.Report          // after the repair
	Again          int      // how many members were stored again, and are whole
	Warnings       []string // what could not be looked at or noted
}

// Run looks for damage, and repairs it if that is asked. Damage that is left is in the
// result, and makes the error one of kind [fault.Damaged].
func (h *Host) Run(ctx context.Context, req Request) (*Result, error) {
	held, err := h.Journal.ShareStore("verify")
	if err != nil {
		return nil, fault.Classify(err)
	}
	defer held.Release()
	if req.Workload != "" {
		if err := h.Known(req.Workload); err != nil {
			return nil, err
		}
	}
	if req.SID != "" {
		if err := catalog.ValidSID(req.Workload, req.SID); err != nil {
			return nil, err
		}
	}
	start := time.Now()
	r, err := h.run(ctx, req)
	if err = fault.Because(ctx, err); err == nil {
		err = left(r, req)
	} else {
		r, err = nil, fault.Classify(err)
	}
	if req.Repair {
		h.Record(journal.Audit{Verb: "repair", Workload: req.Workload, SID: req.SID}, start, err)
	}
	return r, err
}

func (h *Host) run(ctx context.Context, req Request) (*Result, error) {
	var noted []store.MemberKey
	var err error
	if h.Notes != nil {
		if noted, err = h.Notes.Damaged(h.Store.ID()); err != nil {
			return nil, err
		}
	}
	report, err := verify.Run(ctx, h.Store, verify.Request{Workload: req.Workload, SID: req.SID, Data: req.Data, Suspect: noted, Progress: h.Progress})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.Failed, "snapshot_not_found", remedy.Of(remedy.List(req.Workload)), "%w", err)
	}
	if err != nil {
		return nil, err
	}
	r := &Result{Report: report}
	if req.Repair && len(report.Bad) > 0 {
		m := &mending{Host: h, result: r}
		if err := m.run(ctx); err != nil {
			return nil, err
		}
	}
	if h.Notes != nil {
		// Nobody relies on a note, so without one only time is lost.
		keep := func(k store.MemberKey) bool { return !report.Looked(k) }
		if err := h.Notes.NoteDamaged(h.Store.ID(), keep, store.Keys(report.Bad)); err != nil {
			r.Warnings = append(r.Warnings, err.Error())
		}
	}
	return r, nil
}

// left is the error of what is still damaged, nil if nothing is.
func left(r *Result, req Request) error {
	if len(r.Problems) == 0 {
		return nil
	}
	way := remedy.Of("look at the disk of the store (dmesg, smartctl)")
	switch {
	case len(r.Bad) == 0:
	case req.Repair:
		way = remedy.Of(way, "; what is left is stored again by a capture, should the live data ever have it again; keep what `", remedy.ListAll, "` shows as whole")
	default:
		way = remedy.Of(way, ", then store again what the live data or another copy in the store still has: ", remedy.Repair(req.Workload, req.SID))
	}
	return fault.New(fault.Damaged, "damaged", way, "%s in %s that were looked at", verify.Count(len(r.Problems), "problem"), verify.Count(r.Snapshots, "snapshot"))
}
