package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// WorkloadStatus is the status of one workload.
type WorkloadStatus struct {
	Workload string
	State    string    // running, partly running, paused, stopped, absent, data, unknown; or pending, guarding, frozen
	LastSID  string    // of the last snapshot that no restore made, or else of the last
	LastGood time.Time // when that was made; zero if there is none
	// Nightly are the two newest snapshots that no restore made, as far as they can be used,
	// and Unreadable says of newer ones why they cannot.
	Nightly    []*store.Summary
	Unreadable []error
	LastError  string    // of the last capture, if it failed
	Failed     time.Time // when it did
	Growth     int64     // in bytes: the most that one of the last runs has added to the store
	Containers []runtime.Container
	Pending    *PendingTx
	Left       []string        // mounts that are not volumes of the workload, a line for each reason
	Problems   []remedy.Remedy // what is wrong, and what can be done about it
}

// PendingTx is a transaction that has not ended.
type PendingTx struct {
	Tx      string
	Kind    string
	Found   string          // its last record
	Active  bool            // its process lives
	Frozen  bool            // recovery would not touch it
	Message string          // in plain words
	Volumes []string        // what was seen of each volume
	Next    []remedy.Remedy // what the operator can do about it, where it is frozen

	// guarding: the restore is done, the app was up, and the old data is not a
	// snapshot yet.
	guarding bool
	paths    []string // that it touches
	config   string   // that had its workload, "" where that is not recorded
}

// Status returns the status of a workload; of all workloads when name is empty. It
// changes nothing.
func (e *Engine) Status(ctx context.Context, name string) ([]WorkloadStatus, error) {
	names := []string{name}
	if name == "" {
		names = e.Config.Names()
	} else if _, err := e.Config.Workload(name); err != nil {
		return nil, err
	}
	txs, problems, err := e.pending()
	if err != nil {
		return nil, fault.Classify(err)
	}
	list, known := []WorkloadStatus{}, map[string]*workload.Workload{}
	for _, name := range names {
		list = append(list, e.status(ctx, name, known))
	}
	orphans, err := e.orphans(ctx, names, known)
	if err != nil {
		problems = append(problems, remedy.Of(fault.Line(err)))
	}
	for _, r := range orphans {
		if txs[r.Workload] == nil {
			txs[r.Workload] = &PendingTx{Tx: r.Tx, Kind: string(journal.Restore), Found: r.Found, Frozen: true, Message: r.Err.Error(), Next: []remedy.Remedy{fault.Classify(r.Err).Remedy}}
		}
	}
	if name == "" {
		for _, whose := range slices.Sorted(maps.Keys(txs)) {
			if !slices.Contains(names, whose) && e.concerns(txs[whose]) { // the config no longer has it
				list = append(list, e.status(ctx, whose, known))
			}
		}
	}
	for i := range list {
		st := &list[i]
		st.Problems = append(st.Problems, problems...)
		if p := txs[st.Workload]; p != nil {
			st.Pending, st.State = p, "pending"
			if p.Frozen {
				st.State = "frozen"
			} else if p.guarding {
				st.State = "guarding"
			}
		}
	}
	return list, nil
}

// status also adds the workload, with its volumes, to known.
func (e *Engine) status(ctx context.Context, name string, known map[string]*workload.Workload) WorkloadStatus {
	st := WorkloadStatus{Workload: name, State: "unknown", Containers: []runtime.Container{}}
	problem := func(text string) { st.Problems = append(st.Problems, remedy.Of(text)) }
	if e.Store == nil {
		problem(e.NoStoreReason())
	}
	for sum, err := range e.Snapshots(name) {
		if err != nil {
			st.Unreadable = append(st.Unreadable, err)
			continue
		}
		if len(st.Nightly) == 0 && (st.LastSID == "" || sum.Reason == store.Manual) {
			st.LastSID, st.LastGood = sum.SID, sum.Created
		}
		if sum.Reason == store.Manual {
			if st.Nightly = append(st.Nightly, sum); len(st.Nightly) == 2 {
				break
			}
		}
	}
	runs, err := e.Journal.Runs(name)
	if err != nil {
		problem(fault.Line(err))
	}
	if failure := journal.LastFailure(runs, "capture"); failure != nil {
		st.LastError, st.Failed = failure.Error, failure.Time
	}
	st.Growth = journal.Growth(runs)
	s, err := e.lookup(ctx, "status", name)
	if err != nil {
		problem(fault.Line(err))
		return st
	}
	defer s.close()
	known[name] = s.w
	st.Left = s.mounts.Told()
	if s.w.Kind() == workload.Data {
		st.State = "data"
		return st
	}
	list, err := s.rt.Containers(ctx)
	if err != nil {
		problem(fault.Line(err))
		return st
	}
	st.Containers = append(st.Containers, list...)
	st.State = runtime.Containers(list).State()
	return st
}

// concerns reports whether a transaction of a workload that the config does not have is
// the config's all the same: the config had it. Other configs of this host keep their
// records in the same state, and may have the same roots.
func (e *Engine) concerns(p *PendingTx) bool {
	if e.anothers(p.config) {
		return false
	}
	return p.config == e.Config.Real || slices.ContainsFunc(p.paths, func(path string) bool {
		return slices.ContainsFunc(append([]string{e.Config.Base}, e.Config.AbsoluteRoots...), func(root string) bool {
			return root != "" && workload.Contains(root, path)
		})
	})
}

// anothers reports whether a transaction of this config is another one's, which is there. A
// config that is gone may have been renamed; an earlier version of snap recorded none.
func (e *Engine) anothers(config string) bool {
	if config == "" || config == e.Config.Real {
		return false
	}
	_, err := os.Stat(config)
	return err == nil
}

// Snapshots iterates over the snapshots of a workload, newest first. A snapshot that
// cannot be read yields an error in its place. Without a store there are none.
func (e *Engine) Snapshots(name string) iter.Seq2[*store.Summary, error] {
	if e.Store == nil {
		return func(func(*store.Summary, error) bool) {}
	}
	return e.Store.Summaries(name)
}

// pending returns the transactions that have not ended, by workload, and the
// problems that belong to no workload.
func (e *Engine) pending() (map[string]*PendingTx, []remedy.Remedy, error) {
	out := map[string]*PendingTx{}
	ids, err := e.Journal.List()
	if err != nil {
		return nil, nil, err
	}
	strangers, err := e.Journal.Strangers()
	if err != nil {
		return nil, nil, err
	}
	var problems []remedy.Remedy
	for _, name := range strangers {
		problems = append(problems, remedy.Of(fmt.Sprintf("%q in the folder of a transaction is not snap's", name)))
	}
	for _, id := range ids {
		tx, err := e.Journal.Load(id)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var unusable *journal.Unusable
		switch {
		case errors.As(err, &unusable) && unusable.Begin != nil:
			whose := unusable.Begin.Workload
			if out[whose] == nil || !out[whose].Frozen {
				out[whose] = e.describeUnusable(unusable)
			}
		case err != nil:
			problems = append(problems, remedy.Of(fmt.Sprintf("transaction %s cannot be read, and until it can, snap changes no workload: %v", id, err)))
			for _, line := range fault.Ways(id, err) {
				problems = append(problems, remedy.Of("what to do: ", line))
			}
		default:
			if out[tx.Begin.Workload] == nil {
				out[tx.Begin.Workload] = e.describe(tx)
			}
			tx.Close()
		}
	}
	return out, problems, nil
}

func (e *Engine) describeUnusable(u *journal.Unusable) *PendingTx {
	p := &PendingTx{Tx: u.Tx, Kind: string(u.Begin.Kind), Found: "unreadable", paths: u.Begin.Paths(), config: u.Begin.Config}
	if !e.active(p, u.Begin.Workload) {
		p.freeze(fmt.Errorf("its records cannot be used: %w", u.Err))
	}
	return p
}

// active reports whether the process of a transaction is alive.
func (e *Engine) active(p *PendingTx, workload string) bool {
	held, err := e.Journal.Lock(workload, "status")
	if errors.Is(err, journal.ErrBusy) {
		p.Active = true
		p.Message = fmt.Sprintf("%s is under way (%v)", p.Kind, err)
		return true
	}
	if err == nil {
		held.Release()
	}
	return false
}

func (p *PendingTx) freeze(err error) {
	p.Frozen, p.Message, p.Next = true, fault.Line(err), fault.Ways(p.Tx, err)
}

func (e *Engine) describe(tx *journal.Tx) *PendingTx {
	b := tx.Begin
	p := &PendingTx{Tx: tx.ID, Kind: string(b.Kind), Found: tx.Found(), paths: b.Paths(), config: b.Config}
	if e.active(p, b.Workload) {
		if p.guarding = swap.Decide(tx, true).AppUp; p.guarding {
			p.Message += "; the app was brought up, and the old data is being saved as snapshot " + b.PreRestoreSID
		}
		return p
	}
	begun := b.Created.Format("2006-01-02 15:04:05 MST")
	p.Message = fmt.Sprintf("a %s of %s was interrupted", p.Kind, begun)
	p.Next = []remedy.Remedy{remedy.Of("`", remedy.Recover(b.Workload), "` finishes or undoes it")}
	if _, err := e.Config.Workload(b.Workload); err != nil {
		p.Frozen = true
		p.Message += fmt.Sprintf(", and the config no longer has the workload: %v", err)
		p.Next = []remedy.Remedy{remedy.Of("put the workload back into the config, then ", remedy.Recover(b.Workload))}
		return p
	}
	if b.Kind != journal.Restore && b.Kind != journal.Probe {
		return p
	}
	x, err := e.openTxn(tx)
	if err != nil {
		p.freeze(fmt.Errorf("its directories cannot be opened: %w", err))
		return p
	}
	defer x.CloseVolumes()
	if x.Decision().Staged {
		p.Volumes = x.Describe()
	}
	if p.guarding = x.Decision().AppUp && x.Goal() == swap.Guarding; p.guarding {
		p.Message = fmt.Sprintf("the restore of %s is done and the app was brought up, but the old data is not a snapshot yet and stays as it is (%s)",
			begun, strings.Join(x.EntryPaths(), ", "))
		p.Next = []remedy.Remedy{remedy.Of("`", remedy.Recover(b.Workload), "` makes it one")}
	}
	if err := e.ready(x); err != nil {
		p.freeze(err)
	}
	return p
}

// ready reports what keeps a recovery from following the records.
func (e *Engine) ready(x *swap.Tx) (err error) {
	switch d := x.Decision(); {
	case !d.Staged:
		err = e.untouched(x)
	case d.Operator:
		_, err = x.PlanResolution(d.Goal.Keeps())
	default:
		_, err = x.Plan()
	}
	return err
}
