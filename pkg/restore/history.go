package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
)

// remember adds a run to the history of a workload, for status and for what a later
// run is expected to take. A workload that the config does not have has none.
func (e *Engine) remember(ctx context.Context, workload string, start time.Time, run journal.Run, err error) {
	if _, unknown := e.Config.Workload(workload); unknown != nil {
		return
	}
	run.Time, run.Seconds, run.Result = time.Now().UTC(), time.Since(start).Seconds(), "ok"
	if err != nil {
		own := fault.Classify(err)
		run.Result, run.Error, run.Left = own.Code, fault.Line(err), own.Kind.String()
	}
	if err := e.Journal.AddRun(workload, run); err != nil {
		observer(ctx).Line(fmt.Sprintf("warning: %v", err))
	}
}

// rememberRecovery adds a recovery to the history, but not twice in a row the same failure:
// cron may run one every few minutes.
func (e *Engine) rememberRecovery(ctx context.Context, start time.Time, r *Recovery) {
	if r.Workload == "" || r.Err == nil && r.Action == "" || fault.KindOf(r.Err) == fault.Busy {
		return
	}
	runs, _ := e.Journal.Runs(r.Workload) // without them one line more is written
	last := journal.LastFailure(runs, "recover")
	if r.News = r.Err == nil || last == nil || last.Error != fault.Line(r.Err); r.News {
		r.ran.Verb = "recover"
		e.remember(ctx, r.Workload, start, r.ran, r.Err)
	}
}

// ran is what the history says of a restore's transaction that came to this end.
func (end *ended) ran(verb string, b *journal.Begin) journal.Run {
	live := map[string]string{RolledForwardTx: journal.KeepNew, RolledBackTx: journal.KeepOld, Cleaned: journal.KeepOld}
	return journal.Run{Verb: verb, SID: b.SID, PreRestoreSID: b.PreRestoreSID, Live: live[outcomes[end.outcome].action]}
}
