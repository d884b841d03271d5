package restore

import (
	"context"
	"errors"
	goruntime "runtime"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
)

const (
	// settling is how long Docker gets to carry out the last request of the killed
	// process, such as a container to create or to pause.
	settling = time.Second
	// killing is how long it may take to kill a container that did not stop.
	killing = 5 * time.Second
	// locked is how long others may hold the locks that the transaction needs. The
	// locks of the killed process itself go with its last thread.
	locked = 10 * time.Minute
)

// watched starts the watchdog of a transaction.
func (s *session) watched(tx string) (release func()) {
	if s.Watchdog == nil {
		return func() {}
	}
	release, err := s.Watchdog(s.w.Name, tx)
	if err != nil {
		s.say("warning: no watchdog could be started (%v): if snap is killed now, %s stays down until snap recover runs", err, s.w.Name)
		return func() {}
	}
	return release
}

// RecoverKilled recovers one transaction, and never another, whose process was killed
// a moment ago; the watchdog calls it. It waits for the locks, and until Docker has
// carried out the last request. It returns false when there is nothing to recover:
// the transaction has ended, or somebody else has recovered it.
func (e *Engine) RecoverKilled(ctx context.Context, workload, tx string) (Recovery, bool) {
	goruntime.LockOSThread() // see Restore
	defer goruntime.UnlockOSThread()

	start := time.Now()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		r, found := e.recoverTx(ctx, tx, RecoverRequest{Workloads: []string{workload}, killed: true})
		if found && fault.KindOf(r.Err) == fault.Busy && time.Since(start) < locked {
			time.Sleep(pause)
			continue
		}
		if r.ran.Verb != "" {
			e.rememberRecovery(ctx, start, &r)
		}
		if err := e.sweep(); err != nil { // the process may have died while it ended the transaction
			r.Err = errors.Join(r.Err, err)
		}
		if found && r.Err != nil && !r.audited { // nobody reads what a watchdog prints
			lost := journal.Audit{Verb: "watchdog", Workload: r.Workload, Tx: r.Tx, Action: r.Action}
			r.Err = errors.Join(r.Err, e.record(lost, start, r.Err))
		}
		return r, found
	}
}

// letFinish waits until Docker has carried out the last request of the killed
// process, which it does although nobody waits for the answer. Otherwise recovery
// could find the app running and leave it, just before it stops.
func (s *session) letFinish(ctx context.Context, tx *journal.Tx) {
	switch b, d := tx.Begin, swap.Decide(tx, true); {
	case b.Kind == journal.Capture && b.Quiesce == runtime.Stop:
		runtime.UntilAtRest(ctx, s.rt, b.Containers, killing, 0)
	case b.Kind == journal.Capture:
		runtime.UntilAtRest(ctx, s.rt, b.Containers, 0, settling)
	case b.Kind == journal.Deploy:
		time.Sleep(settling)
		runtime.UntilAtRest(ctx, s.rt, b.Containers, killing, 0)
	case d.AppUp: // after that record nothing is asked of Docker
	case d.Committed:
		time.Sleep(settling)
	case d.Staged:
		runtime.UntilAtRest(ctx, s.rt, tx.Before(), killing, b.StopTimeout)
	}
}
