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
		run.Result, run.Error = own.Code, fault.Line(err)
	}
	if err := e.Journal.AddRun(workload, run); err != nil {
		observer(ctx).Line(fmt.Sprintf("warning: %v", err))
	}
}

// lastFailure returns the last capture that failed, nil if one has succeeded since.
func lastFailure(runs []journal.Run) (failure *journal.Run) {
	for i := range runs {
		switch r := &runs[i]; {
		case r.Verb != "capture":
		case r.Result == "ok":
			failure = nil
		default:
			failure = r
		}
	}
	return failure
}

// growth is the most that one of the last ten runs has added to the store.
func growth(runs []journal.Run) (most int64) {
	for _, r := range runs[max(0, len(runs)-10):] {
		most = max(most, r.Added)
	}
	return most
}
