package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/hook"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/keep"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/repair"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Engine does the work on the workloads of one config and one store. It may be at
// several operations at once, and does not change the config.
//
// Store is nil if there is no store yet, or if it is missing; NoStore then says
// why. Without a store only Recover, Resolve, Status, Snapshots and Snapshot work.
type Engine struct {
	Config  *workload.Config
	Store   *store.Store
	NoStore error
	Journal *journal.Journal
	// Runtime opens the runtime of a workload, which it does not change.
	Runtime func(ctx context.Context, w *workload.Workload) (runtime.Runtime, error)
	Version string
	// Scrubs notes how far captures have read the members of a store again, by the
	// store's id and the workload. Nil: they read none again.
	Scrubs interface {
		Turn(store, workload string) (store.Turn, error)
		SetTurn(store, workload string, next store.Turn) error
	}
	// Notes keeps which members are damaged. Nil: nothing does.
	Notes repair.Notes
	// Watchdog starts a second process, which ends the transaction with
	// [Engine.RecoverKilled] if this process is killed. release stops the watchdog
	// and returns when it is gone; it is not called when the engine panics. Nil means
	// no watchdog.
	Watchdog func(workload, tx string) (release func(), err error)

	// reached tells a test which step was reached; nil outside tests.
	reached func(point string)
}

func (e *Engine) at(point string) {
	if e.reached != nil {
		e.reached(point)
	}
}

// session is one operation on one workload: its config, its runtime, its locks.
type session struct {
	*Engine
	w        *workload.Workload
	rt       runtime.Runtime
	mounts   *runtime.Mounts // what the containers mount; nil where a recovery could not ask
	held     *journal.Held
	verb     string
	when     time.Time
	seconds  Seconds
	observer Observer
	did      string // what a recovery did, for the audit log
}

// begin opens a session: config, runtime, and the locks of the workload and of
// its volumes.
func (e *Engine) begin(ctx context.Context, verb, name string) (*session, error) {
	return e.beginWait(ctx, verb, name, 0)
}

// beginWait is begin that waits, at most for wait, for another operation on the workload.
func (e *Engine) beginWait(ctx context.Context, verb, name string, wait time.Duration) (*session, error) {
	s, err := e.lookup(ctx, verb, name)
	if err != nil {
		return nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, err = journal.Wait(waiting, func() (*journal.Held, error) {
		held, err := e.Journal.Lock(name, verb)
		if err != nil {
			return nil, err
		}
		s.held = held
		if err := s.lockVolumes(); err != nil { // one of them may be busy
			held.Release()
			s.held = nil
			return nil, err
		}
		return held, nil
	})
	if err = fault.Because(ctx, err); err != nil {
		s.close()
		return nil, fault.Classify(err)
	}
	return s, nil
}

// lookup opens a session without locks.
func (e *Engine) lookup(ctx context.Context, verb, name string) (*session, error) {
	w, err := e.Config.Workload(name)
	if err != nil {
		return nil, err
	}
	rt, err := e.Runtime(ctx, w)
	if err != nil {
		return nil, fault.Classify(err)
	}
	s := &session{Engine: e, w: w, rt: rt, verb: verb, when: time.Now(), seconds: Seconds{}, observer: observer(ctx)}
	if err := s.findVolumes(ctx); err != nil {
		s.close()
		return nil, fault.Classify(err)
	}
	return s, nil
}

// open opens a transaction of the session. The record says which snap and which config
// began it.
func (s *session) open(b *journal.Begin) (*journal.Tx, error) {
	b.Snap, b.Config = s.Version, s.w.Config
	return s.Journal.Begin(s.held, b)
}

func (s *session) hooks(b *journal.Begin) *hook.Hooks { return hook.Of(s.w, b, s.rt, s.say) }

func (s *session) lockVolumes() error {
	// Twice: after the first look at a directory, and before its lock is taken, a
	// restore of another workload may have put a new directory there.
	if err := s.held.Volumes(s.paths()); err != nil {
		return err
	}
	return s.held.Volumes(s.paths())
}

// paths are the live directories of the workload.
func (s *session) paths() (list []string) {
	for i := range s.w.Volumes {
		list = append(list, s.w.Volumes[i].Path())
	}
	return list
}

func (s *session) close() {
	if s.held != nil {
		s.held.Release()
	}
	if err := s.rt.Close(); err != nil {
		s.say("warning: closing the connection to Docker failed: %v", err)
	}
}

// audit records how the operation ended. A log that cannot be written is
// reported and does not change the result.
func (s *session) audit(sid, tx string, err error) {
	a := journal.Audit{Verb: s.verb, Workload: s.w.Name, SID: sid, Tx: tx, Action: s.did}
	s.audited(s.observer, a, s.when, err)
}

// audited records how something ended. A log that cannot be written is a warning.
func (e *Engine) audited(o Observer, a journal.Audit, start time.Time, err error) {
	if err := e.record(a, start, err); err != nil {
		o.Line(fmt.Sprintf("warning: the audit log was not written: %v", err))
	}
}

func (e *Engine) record(a journal.Audit, start time.Time, err error) error {
	a.Time, a.Result, a.Seconds = time.Now().UTC(), "ok", time.Since(start).Seconds()
	if err != nil {
		a.Result, a.Error = fault.Classify(err).Code, err.Error()
	}
	return e.Journal.Record(a)
}

// unfinished refuses when a transaction of this workload, or one on a directory
// that overlaps its volumes, has not ended. Since this process has the locks, that of
// the transaction is dead.
func (s *session) unfinished() error {
	unended, err := s.Journal.Unended()
	if err != nil {
		return err
	}
	for tx, err := range unended {
		if err != nil {
			return fault.New(fault.Frozen, "frozen", fault.SeeFrozen, "an unfinished transaction cannot be read, and may belong to this workload: %w", err)
		}
		if tx.Begin.Workload != s.w.Name && !s.overlaps(tx.Begin) {
			continue
		}
		state := "was interrupted and has not been recovered"
		if swap.Decide(tx, true).AppUp {
			state = "is done, but the old data is not a snapshot yet"
		}
		return fault.New(fault.Frozen, "unfinished", remedy.Of(remedy.Recover(tx.Begin.Workload)),
			"transaction %s (%s of %s) %s", tx.ID, tx.Begin.Kind, tx.Begin.Workload, state)
	}
	return nil
}

func (s *session) overlaps(b *journal.Begin) bool {
	if b.Kind != journal.Restore {
		return false
	}
	for _, theirs := range b.Live() {
		for _, ours := range s.paths() {
			if workload.Contains(ours, theirs) || workload.Contains(theirs, ours) {
				return true
			}
		}
	}
	return false
}

// Lock takes the lock of a workload while another tool deploys it, and waits for it at
// most for wait. The caller releases it.
func (e *Engine) Lock(ctx context.Context, name string, wait time.Duration) (*journal.Held, error) {
	s, err := e.lookup(ctx, "lock", name)
	if err != nil {
		return nil, err
	}
	defer s.rt.Close()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if s.held, err = e.Journal.LockWait(ctx, name, "lock"); err != nil {
		return nil, fault.Classify(err)
	}
	if err := errors.Join(s.lockVolumes(), s.unfinished()); err != nil {
		s.held.Release()
		return nil, fault.Classify(fmt.Errorf("lock %s: %w", name, err))
	}
	return s.held, nil
}

func (s *session) sources(volumes []*swap.Volume) []snapshot.Source {
	list := make([]snapshot.Source, len(volumes))
	for i, v := range volumes {
		configured, _ := s.w.Volume(v.Name) // it was opened by that name
		list[i] = snapshot.Source{Volume: configured, Live: v.Live, Parent: v.Parent()}
	}
	return list
}

// newCapture prepares a capture in a transaction. New members go to the
// transaction's scratch folder in the store first.
func (s *session) newCapture(ctx context.Context, tx *journal.Tx, sources []snapshot.Source, opt snapshot.Options) (*snapshot.Capture, error) {
	var err error
	if opt.Codec, err = archive.ParseCodec(string(s.Config.Compression)); err != nil {
		return nil, err
	}
	st, err := s.stored()
	if err != nil {
		return nil, err
	}
	scratch, err := st.Scratch(tx.ID)
	if err != nil {
		return nil, err
	}
	if opt.Kept, err = keep.Of(s.Config, s.w, s.mounts); err != nil {
		return nil, errors.Join(err, scratch.Close())
	}
	if s.Notes != nil {
		if opt.Suspect, err = s.Notes.Damaged(st.ID()); err != nil {
			return nil, errors.Join(err, scratch.Close())
		}
	}
	opt.Workload, opt.Snap, opt.Say = s.w.Name, s.Version, s.say
	return snapshot.Start(ctx, st, scratch, sources, opt)
}

// publishLeaving makes a snapshot of trees that no app uses and that are about to be
// deleted.
func (s *session) publishLeaving(ctx context.Context, tx *journal.Tx, trees []snapshot.Source, verify bool, m *store.Manifest) error {
	m.Images = images(nil)
	capture, err := s.newCapture(ctx, tx, trees, snapshot.Options{Verify: verify, Leaving: true})
	if err != nil {
		return err
	}
	defer capture.Close()
	if err := capture.PassTwo(ctx); err != nil {
		return err
	}
	return capture.Publish(m)
}

func images(list []runtime.Container) []store.Image {
	out := []store.Image{}
	for service, pin := range runtime.Containers(list).Pins() {
		out = append(out, store.Image{Service: service, Image: pin.Image, ImageID: pin.ImageID, Digest: pin.Digest})
	}
	return out
}

// NoStoreReason says why no snapshots can be listed where there is no store.
func (e *Engine) NoStoreReason() string {
	if e.NoStore != nil {
		return e.NoStore.Error()
	}
	return fmt.Sprintf("there is no store in %s: nothing has been captured yet, or its filesystem is not mounted", e.Config.Store)
}

// stored returns the store for work that cannot be done without it. While the store
// is missing, its error keeps a transaction pending.
func (e *Engine) stored() (*store.Store, error) {
	if e.Store != nil {
		return e.Store, nil
	}
	if e.NoStore != nil {
		return nil, e.NoStore
	}
	return nil, &store.Missing{Path: e.Config.Store, Reason: "there is no store"}
}

// discard removes from the store what a transaction has left there, unpublished: the
// remnants of the snapshot sid, and its scratch folder.
func (e *Engine) discard(tx *journal.Tx, sid string) error {
	st, err := e.stored()
	if err != nil {
		return err
	}
	return errors.Join(st.Discard(tx.Begin.Workload, sid), st.Clear(tx.ID))
}
