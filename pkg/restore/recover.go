package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	goruntime "runtime"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/hook"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// The actions of a recovery.
const (
	RolledBackTx    = "rolled_back"
	RolledForwardTx = "rolled_forward"
	Thawed          = "thawed"
	Cleaned         = "cleaned"
	FrozenTx        = "frozen"
)

// Recovery is what was found and done about one transaction.
type Recovery struct {
	Workload string
	Tx       string
	Found    string // the last record: begin, ready, commit, revert, guarding, resolve; or unreadable, unknown
	Action   string // "" where nothing was done: see Err
	Pending  bool   // the data is done; containers or clean-up remain
	Err      error
	// Kept holds the paths of what was preserved: it is not snap's.
	Kept       []string
	TakenSID   string      // the snapshot that data which was taken away has become, "" for none
	Resolution *Resolution // what an operator decided, or may decide; see Resolve
	News       bool        // something was done or failed, and not as the last time

	audited bool
	ran     journal.Run // what the history is to say of a restore
}

// RecoverRequest says what to recover.
type RecoverRequest struct {
	Workloads []string // none means all
	// Offline recovers the data only and leaves containers and deletions to the next
	// run. It serves at boot, before Docker is up.
	Offline bool

	killed bool // the watchdog of a killed process recovers: see RecoverKilled
}

// verb is the operation's name in the audit log and in the lock.
func (r RecoverRequest) verb() string {
	if r.killed {
		return "watchdog"
	}
	return "recover"
}

// Recover finishes or undoes every transaction whose process is gone. It may be
// run at any time; a transaction that another process is working on is left to it
// (its error is of kind Busy). The error is the gravest of those in the list.
func (e *Engine) Recover(ctx context.Context, req RecoverRequest) ([]Recovery, error) {
	goruntime.LockOSThread() // see Restore
	defer goruntime.UnlockOSThread()

	for _, name := range req.Workloads {
		if _, err := e.Config.Workload(name); err != nil {
			return nil, err
		}
	}
	list := []Recovery{}
	if err := e.sweep(); err != nil {
		return nil, fault.Classify(err)
	}
	ids, err := e.Journal.List()
	if err != nil {
		return nil, fault.Classify(err)
	}
	for _, id := range ids {
		start := time.Now()
		if r, ok := e.recoverTx(ctx, id, req); ok {
			e.rememberRecovery(ctx, start, &r)
			list = append(list, r)
		}
	}
	orphans, err := e.orphans(ctx, req.Workloads, nil)
	for i := range orphans {
		e.rememberRecovery(ctx, time.Now(), &orphans[i])
	}
	list = append(list, orphans...)
	if err != nil {
		return list, fault.Classify(err)
	}
	var worst error
	for _, r := range list {
		worst = fault.Graver(worst, r.Err)
	}
	return list, worst
}

// sweep removes what ended transactions have left.
func (e *Engine) sweep() error {
	if err := e.Journal.Sweep(); err != nil || e.Store == nil {
		return err
	}
	return e.Store.Sweep(e.Journal.List)
}

// recoverTx recovers one transaction. It returns false when there is nothing to
// report: the transaction has ended meanwhile, or req does not ask for it.
func (e *Engine) recoverTx(ctx context.Context, id string, req RecoverRequest) (Recovery, bool) {
	r := Recovery{Tx: id, Found: "unreadable", Action: FrozenTx}
	peek, err := e.Journal.Load(id)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false
	}
	if err != nil {
		r.Workload = journal.WorkloadOf(err)
		r.Err = fault.Freeze(id, "its records cannot be used: %w", err)
		return r, len(req.Workloads) == 0 || slices.ContainsFunc(req.Workloads, func(name string) bool { return concerns(err, name) })
	}
	defer peek.Close()
	r.Workload, r.Found = peek.Begin.Workload, peek.Found()
	if len(req.Workloads) > 0 && !slices.Contains(req.Workloads, r.Workload) {
		return r, false
	}
	if _, err := e.Config.Workload(r.Workload); err != nil && e.anothers(peek.Begin.Config) {
		observer(ctx).Line(fmt.Sprintf("notice: transaction %s is of workload %s of the config %s: recover it with that config", id, r.Workload, peek.Begin.Config))
		return r, false
	}
	s, err := e.lookup(ctx, req.verb(), r.Workload)
	var unusable *workload.Error
	if errors.As(err, &unusable) {
		r.Err = fault.New(fault.Frozen, "frozen", remedy.Of("put the workload back into the config, then ", remedy.RecoverAll), "transaction %s: %w", id, err)
		return r, true
	}
	if err != nil {
		r.Err = fault.New(fault.Pending, "pending", fault.Classify(err).Remedy, "transaction %s: %w", id, err)
		r.Action, r.Pending = "", true
		return r, true
	}
	defer s.close()
	if s.held, err = e.Journal.Lock(r.Workload, req.verb()); err != nil {
		r.Err, r.Action = fault.Classify(err), ""
		return r, true
	}
	tx, err := e.Journal.Load(id) // again, now that the lock keeps others away
	if errors.Is(err, fs.ErrNotExist) {
		return r, false
	}
	if err != nil {
		r.Err = fault.Freeze(id, "its records cannot be used: %w", err)
		return r, true
	}
	r.Found = tx.Found()
	s.recover(ctx, tx, req, &r)
	s.did, r.audited = r.Action, true
	s.audit(tx.Begin.SID, id, r.Err)
	return r, true
}

// concerns reports whether an unusable transaction may belong to a workload.
func concerns(err error, workload string) bool {
	whose := journal.WorkloadOf(err)
	return whose == "" || whose == workload
}

func (s *session) recover(ctx context.Context, tx *journal.Tx, req RecoverRequest, r *Recovery) {
	if err := s.held.Volumes(tx.Begin.Live()); err != nil {
		tx.Close()
		r.Err, r.Action = fault.Classify(err), ""
		return
	}
	if r.Err = s.controls(tx); r.Err != nil {
		tx.Close()
		return
	}
	if req.killed {
		s.letFinish(ctx, tx)
	}
	if tx.Begin.Kind != journal.Restore && tx.Begin.Kind != journal.Probe {
		s.recoverApp(ctx, tx, req, r)
		return
	}
	s.conclude(ctx, tx, req.Offline, r)
}

// conclude brings a restore's transaction to its end and reports the outcome.
func (s *session) conclude(ctx context.Context, tx *journal.Tx, offline bool, r *Recovery) {
	end := s.finish(ctx, tx, offline)
	r.Kept, r.TakenSID = end.preserved, end.takenSID
	r.Action, r.Pending = outcomes[end.outcome].action, outcomes[end.outcome].pending
	r.Err = end.recovered(s.w.Name, tx.ID)
	if tx.Begin.Kind == journal.Restore {
		r.ran = end.ran("recover", tx.Begin)
	}
}

// controls makes sure that the config still has the directories that are recorded, and the
// runtime whose containers are recorded. Another runtime does not know these containers: it
// would not stop them before the exchange, and would leave them stopped or paused at the end.
func (s *session) controls(tx *journal.Tx) error {
	for _, c := range tx.Before() {
		was := workload.Image
		if c.Service != "" {
			was = workload.Compose
		}
		if now := s.w.Kind(); !c.Also && now != was {
			return fault.New(fault.Frozen, "config_changed", remedy.Of(fmt.Sprintf("put the %s of workload %s back into the config, then ", was, s.w.Name), remedy.Recover(s.w.Name)),
				"transaction %s recorded container %s, but the config of workload %s now says %s where it said %s", tx.ID, c.Name, s.w.Name, now, was)
		}
	}
	return preflight.Recorded(s.Config, s.w, s.mounts, tx)
}

// recoverApp brings back the app that a capture or a deploy put to rest.
func (s *session) recoverApp(ctx context.Context, tx *journal.Tx, req RecoverRequest, r *Recovery) {
	r.Action = Cleaned
	if req.Offline && (len(tx.Begin.Containers) > 0 || s.hooks(tx.Begin).Owed()) {
		tx.Close()
		r.Pending = true
		return
	}
	resting, err := s.resting(ctx, tx.Begin.Containers)
	if err == nil {
		err = s.undoCapture(ctx, tx)
	}
	r.Err = hook.Because(err, "transaction %s: the app is as before, but %w", tx.ID, err)
	if err != nil && r.Err == nil {
		tx.Close()
		r.Pending = true
		r.Err = fault.New(fault.Pending, "app_not_up", again(s.w.Name, &ended{err: err}), "transaction %s: %w", tx.ID, err)
	}
	if resting {
		r.Action = Thawed
	}
}

// resting reports whether a container that ran before is now paused or stopped.
func (s *session) resting(ctx context.Context, before []runtime.Container) (bool, error) {
	if len(before) == 0 {
		return false, nil
	}
	now, err := s.rt.Containers(ctx)
	if err != nil {
		return false, err
	}
	return runtime.Containers(now).Resting(before), nil
}

// orphans looks beside the live directories of workloads (none means all) for
// wrappers of restores that the journal does not know. If there is one, the restore
// was recorded in another state, or the filesystem of that state is not mounted, and
// "nothing to recover" would be a guess.
//
// known holds workloads whose volumes the caller has found already.
func (e *Engine) orphans(ctx context.Context, names []string, known map[string]*workload.Workload) ([]Recovery, error) {
	if len(names) == 0 {
		names = e.Config.Names()
	}
	var list []Recovery
	seen := map[string]bool{}
	for _, name := range names {
		w := known[name]
		if w == nil {
			var err error
			if w, err = e.volumesOf(ctx, name); err != nil {
				observer(ctx).Line(fmt.Sprintf("notice: cannot list the volumes of %s: %v", name, err))
				continue
			}
		}
		for i := range w.Volumes {
			v := &w.Volumes[i]
			if v.Path() == "" { // the engine did not say where it is
				continue
			}
			id, err := swap.FindOrphan(v.Root(), v.Rel(), e.Journal.List)
			if err != nil {
				return list, fault.New(fault.Frozen, "frozen", remedy.Either(fault.Ways("", err)), "cannot look at volume %s of workload %s (%s): %w", v.Name, name, v.Path(), err)
			}
			if id == "" || seen[name+id] {
				continue
			}
			seen[name+id] = true
			list = append(list, Recovery{Workload: name, Tx: id, Found: "unknown", Action: FrozenTx, Err: preflight.Stray(v.Name, v.Path(), id, e.Config.State, e.Store != nil)})
		}
	}
	return list, nil
}

// volumesOf returns a workload with its volumes. If the config says where they are,
// nothing else is asked, since Docker may not be up yet.
func (e *Engine) volumesOf(ctx context.Context, name string) (*workload.Workload, error) {
	w, err := e.Config.Workload(name)
	if err != nil || !w.AsksEngine() {
		return w, err
	}
	rt, err := e.Runtime(ctx, w)
	if err != nil {
		return nil, err
	}
	own, _, err := e.withVolumes(ctx, rt, w)
	if err = errors.Join(err, rt.Close()); err != nil && len(w.Volumes) > 0 {
		observer(ctx).Line(fmt.Sprintf("notice: cannot find the named volumes of %s: %v", name, err))
		return w, nil
	}
	return own, err
}
