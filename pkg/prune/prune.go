// Package prune deletes snapshots: those that no rule keeps ([Host.Prune]), or those that are
// named ([Host.Delete]). Then it deletes the data that no snapshot has any more.
//
// It takes the stores' lock alone, so nobody captures, restores or reads meanwhile. What
// the remaining snapshots name is known before the first one is deleted; if the manifest
// of any of them cannot be read, nothing is. Killed anywhere, each snapshot is there
// whole or gone, and the next run removes the data that is left.
package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/retain"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Host is what snapshots are deleted from.
type Host struct {
	Config  *workload.Config
	Store   *store.Store
	Journal *journal.Journal
	// Known refuses a workload that neither the config nor the store has.
	Known func(workload string) error
	// Record adds a line to the audit log. A log that cannot be written is the caller's
	// business.
	Record func(a journal.Audit, start time.Time, err error)

	reached func(point string) // tells a test which step was reached; nil outside tests
}

// Request asks to delete the snapshots that no rule keeps.
type Request struct {
	Workloads []string       // none: all of the config
	Policy    *retain.Policy // nil: what the config says for each
	DryRun    bool           // decide and count, and delete nothing
	Wait      time.Duration  // at most, for whoever works with the store
}

// DeleteRequest asks to delete snapshots of one workload.
type DeleteRequest struct {
	Workload  string
	SIDs      []string
	Confirmed bool
	Wait      time.Duration
}

// Result is what was deleted, or would be.
type Result struct {
	Workloads []Workload
	Deleted   int   // snapshots
	Members   int   // that no snapshot names any more
	Bytes     int64 // of those
}

// Workload is what becomes of the snapshots of a workload, newest first.
type Workload struct {
	Workload string
	Verdicts []retain.Verdict
}

// pruning is a deletion under the stores' lock. When it is killed anywhere, each snapshot
// is there whole or not at all, and the next one removes the members that are left.
type pruning struct {
	*Host
	needed map[string]string   // sid → why an unfinished operation needs it
	drop   map[string][]string // what goes, by workload
	begun  []journal.Audit     // a line for each snapshot whose deletion has begun
	result Result
}

// Prune deletes the snapshots that no rule keeps, and then the data that no snapshot
// has any more. It never deletes the last snapshot of a workload. After an error
// each snapshot is there whole, or gone.
func (h *Host) Prune(ctx context.Context, req Request) (*Result, error) {
	return h.run(ctx, "prune", req.Wait, func(p *pruning) error {
		names := req.Workloads
		if len(names) == 0 {
			names = h.Config.Names()
		}
		asked := 0
		for _, name := range once(names) {
			if err := h.Known(name); err != nil {
				return err
			}
			policy := req.Policy
			if policy == nil {
				policy = h.Config.RetainOf(name)
			}
			if policy.Empty() {
				continue
			}
			asked++
			if err := p.decide(name, policy, req.DryRun); err != nil {
				return err
			}
		}
		if asked == 0 {
			return fault.New(fault.Usage, "no_policy", remedy.Of("write `retain: {keep_daily: 7, keep_weekly: 5, keep_monthly: 12}` into the config, or give --keep-daily and the like"),
				"nothing says which snapshots are to stay")
		}
		return p.carryOut(ctx, req.DryRun)
	})
}

// Delete deletes snapshots by their ids, and then the data that no snapshot has any more.
func (h *Host) Delete(ctx context.Context, req DeleteRequest) (*Result, error) {
	for _, sid := range req.SIDs {
		if err := catalog.ValidSID(req.Workload, sid); err != nil {
			return nil, err
		}
	}
	if !req.Confirmed {
		return nil, fault.Refuse("confirm_required", remedy.Of("add --confirm"), "deleting a snapshot cannot be undone, and must be confirmed")
	}
	return h.run(ctx, "delete", req.Wait, func(p *pruning) error {
		if err := h.Known(req.Workload); err != nil {
			return err
		}
		list := Workload{Workload: req.Workload}
		for _, sid := range once(req.SIDs) {
			_, err := catalog.Load(p.Store, fault.Refused, req.Workload, sid)
			var own *fault.Error
			if errors.As(err, &own) && own.Code == "snapshot_not_found" { // one that is damaged can be deleted
				return err
			}
			if p.needed[sid] != "" {
				return fault.Refuse("in_use", remedy.Of(remedy.Recover(req.Workload)), "snapshot %s is needed: %s", sid, p.needed[sid])
			}
			list.Verdicts = append(list.Verdicts, retain.Verdict{Snapshot: retain.Snapshot{SID: sid}})
		}
		p.add(list)
		return p.carryOut(ctx, false)
	})
}

// once is a list sorted, with nothing in it twice.
func once(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }

// run runs do with the stores locked.
func (h *Host) run(ctx context.Context, verb string, wait time.Duration, do func(*pruning) error) (*Result, error) {
	start := time.Now()
	waiting, cancel := context.WithTimeout(ctx, wait)
	held, err := h.Journal.LockStore(waiting, verb)
	cancel()
	if err != nil {
		return nil, fault.Classify(fault.Because(ctx, err))
	}
	defer held.Release()
	p := &pruning{Host: h, drop: map[string][]string{}}
	if p.needed, err = h.needed(); err == nil {
		err = do(p)
	}
	err = fault.Because(ctx, err)
	for _, a := range p.begun {
		a.Verb = verb
		h.Record(a, start, err)
	}
	if err != nil {
		return nil, fault.Classify(err)
	}
	return &p.result, nil
}

// needed returns the snapshots that operations which have not ended may still use, or
// are about to make.
func (h *Host) needed() (map[string]string, error) {
	unended, err := h.Journal.Unended()
	if err != nil {
		return nil, err
	}
	needed := map[string]string{}
	for tx, err := range unended {
		if err != nil {
			return nil, fault.New(fault.Frozen, "frozen", fault.SeeFrozen, "an unfinished transaction cannot be read, so nobody knows which snapshots it needs: %w", err)
		}
		for _, sid := range []string{tx.Begin.SID, tx.Begin.PreRestoreSID, tx.Begin.RevertSID} {
			needed[sid] = fmt.Sprintf("transaction %s (%s of %s) has not ended", tx.ID, tx.Begin.Kind, tx.Begin.Workload)
		}
	}
	return needed, nil
}

// decide applies a policy to a workload.
func (p *pruning) decide(name string, policy *retain.Policy, dry bool) error {
	var list []retain.Snapshot
	for sum, err := range p.Store.Summaries(name) {
		if err != nil {
			return unreadable(name, err)
		}
		if !dry {
			_ = p.Store.WriteSummary(sum) // the next one is quicker; a full disk must not keep this one from freeing it
		}
		list = append(list, retain.Snapshot{SID: sum.SID, Created: sum.Created, Tags: sum.Tags, PreRestore: sum.Reason == store.PreRestore})
	}
	own := Workload{name, policy.Decide(time.Now(), list)}
	for i := range own.Verdicts {
		v := &own.Verdicts[i]
		if p.needed[v.SID] != "" {
			v.Keep = append(v.Keep, p.needed[v.SID])
		}
		if len(v.Keep) > 0 { // Mark reads its manifest
			continue
		}
		if _, err := p.Store.LoadHonest(name, v.SID); err != nil {
			return unreadable(name, err)
		}
	}
	p.add(own)
	return nil
}

func unreadable(name string, err error) error {
	return fault.New(fault.Failed, "snapshot_damaged", remedy.Of("see what is damaged with `", remedy.Verify(name), "`, and delete that snapshot by its id"),
		"a snapshot of %s cannot be read, so nothing is deleted: %w", name, err)
}

func (p *pruning) add(own Workload) {
	p.result.Workloads = append(p.result.Workloads, own)
	for _, v := range own.Verdicts {
		if len(v.Keep) == 0 {
			p.drop[own.Workload] = append(p.drop[own.Workload], v.SID)
			p.result.Deleted++
		}
	}
}

// names are the workloads that lose snapshots, in order.
func (p *pruning) names() (names []string) {
	for _, own := range p.result.Workloads {
		if len(p.drop[own.Workload]) > 0 {
			names = append(names, own.Workload)
		}
	}
	return names
}

// carryOut deletes. What the others name is known before the first is deleted, so
// that a manifest which cannot be read stops it all.
func (p *pruning) carryOut(ctx context.Context, dry bool) error {
	marks, err := p.Store.Mark(ctx, func(workload, sid string) bool { return slices.Contains(p.drop[workload], sid) })
	if err != nil {
		return fault.New(fault.Failed, "snapshot_damaged", remedy.Of("see what is damaged with `", remedy.Verify(""), "`"), "%w", err)
	}
	if !dry {
		for _, name := range p.names() {
			for _, sid := range p.drop[name] {
				p.begun = append(p.begun, journal.Audit{Workload: name, SID: sid})
			}
			if err := p.Store.Delete(name, p.drop[name]); err != nil {
				return err
			}
		}
		if p.reached != nil {
			p.reached("deleted")
		}
	}
	pruned, err := p.Store.Prune(ctx, marks, dry)
	p.result.Members, p.result.Bytes = pruned.Members, pruned.Bytes
	return err
}
