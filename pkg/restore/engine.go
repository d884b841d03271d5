package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Engine does the work on the workloads of one config and one store.
//
// Store is nil where there is no store yet, or where it is missing; only
// Recover, Resolve, Status, Snapshots and Snapshot then work, and NoStore says
// why it is nil.
type Engine struct {
	Config  *workload.Config
	Store   *store.Store
	NoStore error
	Journal *journal.Journal
	// Runtime opens the runtime of a workload. It may complete the workload's
	// volumes (a Compose file names its own), so it comes first.
	Runtime func(ctx context.Context, w *workload.Workload) (Runtime, error)
	Version string
	// Guard starts a process that outlives this one, and brings the transaction
	// to its end with [Engine.RecoverKilled] should this one be killed. release
	// sends it away and returns when it is gone. Nil: without one.
	Guard func(workload, tx string) (release func(), err error)
	// Inhibit asks the host not to shut down or sleep until release is called. It
	// does not block for long, and what cannot be had is left. Nil: without.
	Inhibit func(why string) (release func())
	// Say is given a line now and then about what is being done.
	Say func(format string, args ...any)

	// reached is a test's view of the steps; nil outside tests.
	reached func(point string)
}

func (e *Engine) at(point string) {
	if e.reached != nil {
		e.reached(point)
	}
}

func (e *Engine) say(format string, args ...any) {
	if e.Say != nil {
		e.Say(format, args...)
	}
}

// session is one operation on one workload: its config, its runtime, its locks.
type session struct {
	*Engine
	w         *workload.Workload
	rt        Runtime
	held      *journal.Held
	verb      string
	when      time.Time
	time      phases
	fullSpeed bool   // see RestoreRequest
	did       string // what a recovery did, for the audit log
}

// begin opens a session: config, runtime, and the locks of the workload and of
// its volumes.
func (e *Engine) begin(ctx context.Context, verb, name string) (*session, error) {
	s, err := e.lookup(ctx, verb, name)
	if err != nil {
		return nil, err
	}
	if s.held, err = e.Journal.Lock(name, verb); err != nil {
		s.close()
		return nil, classify(err)
	}
	if err := s.lockVolumes(); err != nil {
		s.close()
		return nil, classify(err)
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
		return nil, classify(err)
	}
	return &session{Engine: e, w: w, rt: rt, verb: verb, when: time.Now(), time: phases{}}, nil
}

// view opens a session without a workload, for what reads snapshots: until it is
// closed no member is removed.
func (e *Engine) view(verb string) (*session, error) {
	held, err := e.Journal.ShareStore(verb)
	if err != nil {
		return nil, classify(err)
	}
	return &session{Engine: e, held: held, verb: verb, when: time.Now(), time: phases{}}, nil
}

func (s *session) lockVolumes() error {
	paths := make([]string, len(s.w.Volumes))
	for i := range s.w.Volumes {
		paths[i] = s.w.Volumes[i].Path()
	}
	// Twice: between the look at a directory and its lock a restore of another
	// workload may have put a new one there, whose lock is another.
	if err := s.held.Volumes(paths); err != nil {
		return err
	}
	return s.held.Volumes(paths)
}

func (s *session) close() {
	if s.held != nil {
		s.held.Release()
	}
	if s.rt == nil {
		return
	}
	if err := s.rt.Close(); err != nil {
		s.say("closing the connection to the engine: %v", err)
	}
}

// audit records how the operation ended. A log that cannot be written is
// reported and does not change the result.
func (s *session) audit(sid, tx string, err error) {
	a := journal.Audit{
		Time: time.Now().UTC(), Verb: s.verb, Workload: s.w.Name, SID: sid, Tx: tx,
		Action: s.did, Result: "ok", Seconds: time.Since(s.when).Seconds(),
	}
	if err != nil {
		a.Result, a.Error = classify(err).Code, err.Error()
	}
	if err := s.Journal.Record(a); err != nil {
		s.say("the audit log: %v", err)
	}
}

// phases are the seconds that each phase took.
type phases map[string]float64

// run times a phase.
func (p phases) run(name string, phase func() error) error {
	start := time.Now()
	defer func() { p[name] += time.Since(start).Seconds() }()
	return phase()
}

func isNoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// unfinished refuses when a transaction of this workload, or one on a directory
// that overlaps its volumes, has not ended: its process is dead, since the
// locks are ours.
func (s *session) unfinished() error {
	ids, err := s.Journal.List()
	if err != nil {
		return err
	}
	for _, id := range ids {
		tx, err := s.Journal.Load(id)
		if errors.Is(err, fs.ErrNotExist) { // ended meanwhile
			continue
		}
		if err != nil {
			return fault(Frozen, "frozen", "see `snap status`, then docs/operating.md, section Frozen",
				"an unfinished transaction cannot be read, and may be this workload's: %w", err)
		}
		concerns, guarding := tx.Begin.Workload == s.w.Name || s.overlaps(tx.Begin), tx.Guarding
		tx.Close()
		if concerns && guarding {
			return fault(Frozen, "unfinished", "snap recover "+tx.Begin.Workload,
				"the restore %s of %s is done, but what was there before is not yet a snapshot", id, tx.Begin.Workload)
		}
		if concerns {
			return fault(Frozen, "unfinished", "snap recover "+tx.Begin.Workload,
				"transaction %s (%s of %s) was interrupted and has not been recovered", id, tx.Begin.Kind, tx.Begin.Workload)
		}
	}
	return nil
}

func (s *session) overlaps(b *journal.Begin) bool {
	if b.Kind != journal.Restore {
		return false
	}
	for _, theirs := range b.Volumes {
		path := theirs.Root + "/" + theirs.Rel
		for i := range s.w.Volumes {
			ours := s.w.Volumes[i].Path()
			if workload.Contains(ours, path) || workload.Contains(path, ours) {
				return true
			}
		}
	}
	return false
}

// machineID returns machine-id(5), or "" where the host has none: nothing then
// counts as unchanged.
// origin is where the inodes and times that a capture sees mean something.
func origin() store.Origin {
	read := func(path string) string {
		id, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(id))
	}
	return store.Origin{Machine: read("/etc/machine-id"), Boot: read("/proc/sys/kernel/random/boot_id")}
}

func dirName(rel string) (parent, base string) {
	if i := strings.LastIndexByte(rel, '/'); i >= 0 {
		return rel[:i], rel[i+1:]
	}
	return ".", rel
}

// openBelow opens rel below d; "." is d itself.
func openBelow(d *disk.Dir, rel string) (*disk.Dir, error) {
	if rel == "." {
		return d.Dup()
	}
	return d.Open(rel)
}

// Lock takes the lock of a workload for a foreign deploy tool, waiting at most
// wait. The caller releases it.
func (e *Engine) Lock(ctx context.Context, name string, wait time.Duration) (*journal.Held, error) {
	s, err := e.lookup(ctx, "lock", name)
	if err != nil {
		return nil, err
	}
	defer s.rt.Close()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	if s.held, err = e.Journal.LockWait(ctx, name, "lock"); err != nil {
		return nil, classify(err)
	}
	if err := errors.Join(s.lockVolumes(), s.unfinished()); err != nil {
		s.held.Release()
		return nil, classify(fmt.Errorf("lock %s: %w", name, err))
	}
	return s.held, nil
}
