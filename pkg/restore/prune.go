package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/retain"
	"github.com/tiny-forge/snap/pkg/store"
)

// PruneRequest asks to delete the snapshots that no rule keeps.
type PruneRequest struct {
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

// PruneResult is what was deleted, or would be.
type PruneResult struct {
	Workloads []PrunedWorkload
	Deleted   int   // snapshots
	Members   int   // that no snapshot names any more
	Bytes     int64 // of those
}

// PrunedWorkload is what becomes of the snapshots of a workload, newest first.
type PrunedWorkload struct {
	Workload string
	Verdicts []retain.Verdict
}

// pruning is a deletion under the stores' lock. When it is killed anywhere, each snapshot
// is there whole or not at all, and the next one removes the members that are left.
type pruning struct {
	*Engine
	st     *store.Store
	needed map[string]string   // sid → why an unfinished operation needs it
	drop   map[string][]string // what goes, by workload
	begun  []journal.Audit     // a line for each snapshot whose deletion has begun
	result PruneResult
}

// Prune deletes the snapshots that no rule keeps, and then the data that no snapshot
// has any more. It never deletes the last snapshot of a workload. After an error
// each snapshot is there whole, or gone.
func (e *Engine) Prune(ctx context.Context, req PruneRequest) (*PruneResult, error) {
	return e.prunes(ctx, "prune", req.Wait, func(p *pruning) error {
		names := req.Workloads
		if len(names) == 0 {
			names = e.Config.Names()
		}
		asked := 0
		for _, name := range names {
			if err := e.known(name); err != nil {
				return err
			}
			policy := req.Policy
			if policy == nil {
				policy = e.Config.RetainOf(name)
			}
			if policy.Empty() {
				continue
			}
			asked++
			if err := p.decide(name, policy); err != nil {
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

// patience is how long the end of a capture waits for others who work with the store.
const patience = 10 * time.Second

// pruneAfter ends a capture. The snapshot exists, so what goes wrong here is a warning;
// the next capture tries again.
func (e *Engine) pruneAfter(ctx context.Context, name string, result *CaptureResult) {
	pruned, err := e.Prune(ctx, PruneRequest{Workloads: []string{name}, Wait: patience})
	if err != nil {
		result.Warnings = append(result.Warnings, fmt.Sprintf("no snapshot was pruned: %v", err))
		return
	}
	result.Pruned = pruned
}

// Delete deletes snapshots by their ids, and then the data that no snapshot has any more.
func (e *Engine) Delete(ctx context.Context, req DeleteRequest) (*PruneResult, error) {
	for _, sid := range req.SIDs {
		if err := catalog.ValidSID(req.Workload, sid); err != nil {
			return nil, err
		}
	}
	if !req.Confirmed {
		return nil, fault.Refuse("confirm_required", remedy.Of("add --confirm"), "deleting a snapshot cannot be undone, and must be confirmed")
	}
	return e.prunes(ctx, "delete", req.Wait, func(p *pruning) error {
		if err := e.known(req.Workload); err != nil {
			return err
		}
		stored, err := p.st.SIDs(req.Workload)
		if err != nil {
			return err
		}
		own := PrunedWorkload{Workload: req.Workload}
		for _, sid := range req.SIDs {
			_, err := p.st.Load(req.Workload, sid)
			switch {
			case !slices.Contains(stored, sid) || errors.Is(err, fs.ErrNotExist):
				return fault.Refuse("snapshot_not_found", remedy.Of(remedy.List(req.Workload)), "there is no snapshot %s of workload %s", sid, req.Workload)
			case p.needed[sid] != "":
				return fault.Refuse("in_use", remedy.Of(remedy.Recover(req.Workload)), "snapshot %s is needed: %s", sid, p.needed[sid])
			}
			own.Verdicts = append(own.Verdicts, retain.Verdict{Snapshot: retain.Snapshot{SID: sid}})
		}
		p.add(own)
		return p.carryOut(ctx, false)
	})
}

// prunes runs do with the stores locked.
func (e *Engine) prunes(ctx context.Context, verb string, wait time.Duration, do func(*pruning) error) (*PruneResult, error) {
	st, err := e.stored()
	if err != nil {
		return nil, fault.Classify(err)
	}
	start := time.Now()
	waiting, cancel := context.WithTimeout(ctx, wait)
	held, err := e.Journal.LockStore(waiting, verb)
	cancel()
	if err != nil {
		return nil, fault.Classify(fault.Because(ctx, err))
	}
	defer held.Release()
	p := &pruning{Engine: e, st: st, drop: map[string][]string{}}
	if p.needed, err = e.needed(); err == nil {
		err = do(p)
	}
	err = fault.Because(ctx, err)
	for _, a := range p.begun {
		a.Verb = verb
		if recordErr := e.record(a, start, err); recordErr != nil {
			observer(ctx).Line(fmt.Sprintf("warning: the audit log was not written: %v", recordErr))
		}
	}
	if err != nil {
		return nil, fault.Classify(err)
	}
	return &p.result, nil
}

// needed returns the snapshots that operations which have not ended may still use, or
// are about to make.
func (e *Engine) needed() (map[string]string, error) {
	ids, err := e.Journal.List()
	if err != nil {
		return nil, err
	}
	needed := map[string]string{}
	for _, id := range ids {
		tx, err := e.Journal.Load(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault.New(fault.Frozen, "frozen", fault.SeeFrozen, "an unfinished transaction cannot be read, so nobody knows which snapshots it needs: %w", err)
		}
		tx.Close()
		for _, sid := range []string{tx.Begin.SID, tx.Begin.PreRestoreSID, tx.Begin.RevertSID} {
			needed[sid] = fmt.Sprintf("transaction %s (%s of %s) has not ended", id, tx.Begin.Kind, tx.Begin.Workload)
		}
	}
	return needed, nil
}

// decide applies a policy to a workload.
func (p *pruning) decide(name string, policy *retain.Policy) error {
	var list []retain.Snapshot
	for m, err := range p.st.All(name) {
		if err != nil {
			return fault.New(fault.Failed, "snapshot_damaged", remedy.Of("see what is damaged with `", remedy.Verify(name), "`, and delete that snapshot by its id"),
				"a snapshot of %s cannot be read, so nothing is deleted: %w", name, err)
		}
		list = append(list, retain.Snapshot{SID: m.SID, Created: m.Created, Tags: m.Tags, PreRestore: m.Reason == store.PreRestore})
	}
	own := PrunedWorkload{name, policy.Decide(time.Now(), list)}
	for i := range own.Verdicts {
		if v := &own.Verdicts[i]; p.needed[v.SID] != "" {
			v.Keep = append(v.Keep, p.needed[v.SID])
		}
	}
	p.add(own)
	return nil
}

func (p *pruning) add(own PrunedWorkload) {
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
		if len(p.drop[own.Workload]) > 0 && !slices.Contains(names, own.Workload) {
			names = append(names, own.Workload)
		}
	}
	return names
}

// carryOut deletes. What the others name is known before the first is deleted, so
// that a manifest which cannot be read stops it all.
func (p *pruning) carryOut(ctx context.Context, dry bool) error {
	marks, err := p.st.Mark(ctx, func(workload, sid string) bool { return slices.Contains(p.drop[workload], sid) })
	if err != nil {
		return err
	}
	if !dry {
		for _, name := range p.names() {
			for _, sid := range p.drop[name] {
				p.begun = append(p.begun, journal.Audit{Workload: name, SID: sid})
			}
			if err := p.st.Delete(name, p.drop[name]); err != nil {
				return err
			}
		}
		p.at("deleted")
	}
	pruned, err := p.st.Prune(ctx, marks, dry)
	p.result.Members, p.result.Bytes = pruned.Members, pruned.Bytes
	return err
}
