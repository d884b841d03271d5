// Package rename gives the snapshots of a workload the name that the workload has in the
// config by now, and with them what the state knows of it: how its runs went, and where its
// scrub goes on.
//
// It takes the stores' lock alone and those of both workloads. The snapshots change their
// name in one rename ([store.Store.Rename]); the state follows. Killed anywhere, all of
// them are under one of the two names, whole, and the same rename again does the rest.
package rename

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Host is where a workload is renamed.
type Host struct {
	Config  *workload.Config
	Store   *store.Store
	Journal *journal.Journal
	// Scrubs notes how far captures have read the members of a store again.
	Scrubs interface {
		Turn(store, workload string) (store.Turn, error)
		SetTurn(store, workload string, next store.Turn) error
	}
}

// Request asks to rename a workload.
type Request struct {
	From, To string
	Wait     time.Duration // at most, for whoever works with the store
}

// Result is what a rename did.
type Result struct {
	Snapshots int  // those under the new name
	Already   bool // they had it: from a rename that was cut, or since somebody moved them
}

// Rename renames a workload. When it returns nil its snapshots are under the new name,
// durably. After an error they are under one of the two.
func (h *Host) Rename(ctx context.Context, req Request) (*Result, error) {
	if err := h.check(req); err != nil {
		return nil, err
	}
	held, err := h.lock(ctx, req)
	if err != nil {
		return nil, fault.Classify(fault.Because(ctx, err))
	}
	defer held.Release()
	start := time.Now()
	result, err := h.rename(req)
	line := journal.Audit{Time: time.Now().UTC(), Verb: "rename", Workload: req.From, To: req.To, Result: "ok", Seconds: time.Since(start).Seconds()}
	if err != nil {
		own := fault.Classify(err)
		line.Result, line.Error, err = own.Code, own.Error(), own
	}
	if logged := h.Journal.Record(line); logged != nil && err == nil {
		err = fault.New(fault.Pending, "cleanup", remedy.Of("look at the disk of the state"), "the snapshots are those of %s, but the audit log was not written: %w", req.To, logged)
	}
	return result, err
}

// check refuses names that the config speaks against. What it still calls by the old name,
// the next capture would begin anew under that.
func (h *Host) check(req Request) error {
	for _, name := range []string{req.From, req.To} {
		if err := workload.CheckName(name); err != nil {
			return fault.New(fault.Usage, "usage", remedy.Remedy{}, "%w", err)
		}
	}
	if req.From == req.To {
		return fault.New(fault.Usage, "usage", remedy.Remedy{}, "both names are %s", req.To)
	}
	if h.Config.Workloads[req.From] != nil && h.Config.Workloads[req.To] == nil {
		return fault.Refuse("not_renamed", remedy.Of("rename the workload in "+h.Config.Path+" first, then try again"),
			"the config still has workload %s, and has no %s: the next capture would begin anew under the old name", req.From, req.To)
	}
	return nil
}

func (h *Host) lock(ctx context.Context, req Request) (*journal.Held, error) {
	ctx, cancel := context.WithTimeout(ctx, req.Wait)
	defer cancel()
	return journal.Wait(ctx, func() (*journal.Held, error) {
		held, err := h.Journal.LockStore(ctx, "rename")
		if err != nil {
			return nil, err
		}
		if err := held.Workloads(req.From, req.To); err != nil {
			held.Release()
			return nil, err
		}
		return held, nil
	})
}

func (h *Host) rename(req Request) (*Result, error) {
	if err := h.settled(req); err != nil {
		return nil, err
	}
	result := &Result{}
	sids, err := h.Store.SIDs(req.From)
	if err != nil {
		return nil, err
	}
	if len(sids) == 0 {
		result.Already, err = h.Store.Recognise(req.To, req.From)
		if err == nil && !result.Already {
			err = fault.Refuse("no_snapshots", remedy.Of(remedy.ListAll), "workload %s has no snapshots", req.From)
		}
	} else {
		err = h.Store.Rename(req.From, req.To)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, fault.Refuse("name_taken", remedy.Of("choose another name, or delete those first: ", remedy.List(req.To)), "workload %s has snapshots of its own: %w", req.To, err)
	}
	if err != nil {
		return nil, err
	}
	if err := h.follow(req); err != nil {
		return nil, fault.New(fault.Pending, "cleanup", remedy.Of("remove the cause, then try again"), "the snapshots are those of %s, but the state does not know it yet: %w", req.To, err)
	}
	sids, err = h.Store.SIDs(req.To)
	result.Snapshots = len(sids)
	return result, err
}

// follow gives what the state knows of the workload its new name. It may run again.
func (h *Host) follow(req Request) error {
	if err := h.Journal.MoveRuns(req.From, req.To); err != nil {
		return err
	}
	next, err := h.Scrubs.Turn(h.Store.ID(), req.From)
	if err != nil || next == 0 {
		return err
	}
	return h.Scrubs.SetTurn(h.Store.ID(), req.To, next)
}

// settled refuses while an operation on one of the two has not ended: its records have the
// name that it began with.
func (h *Host) settled(req Request) error {
	unended, err := h.Journal.Unended()
	if err != nil {
		return err
	}
	for tx, err := range unended {
		if err != nil {
			return fault.New(fault.Frozen, "frozen", fault.SeeFrozen, "an unfinished transaction cannot be read, and may be of %s: %w", req.From, err)
		}
		if name := tx.Begin.Workload; name == req.From || name == req.To {
			return fault.New(fault.Frozen, "unfinished", remedy.Of(remedy.Recover(name)), "%w", fmt.Errorf("transaction %s (%s of %s) has not ended", tx.ID, tx.Begin.Kind, name))
		}
	}
	return nil
}
