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
		run.Result, run.Error = own.Code, err.Error()
	}
	if err := e.Journal.AddRun(workload, run); err != nil {
		observer(ctx).Line(fmt.Sprintf("warning: %v", err))
	}
}

// LastRuns returns the last capture of a workload that succeeded, and its last failure
// if nothing has succeeded since.
func LastRuns(runs []journal.Run) (success, failure *journal.Run) {
	for i := range runs {
		switch r := &runs[i]; {
		case r.Verb != "capture":
		case r.Result == "ok":
			success, failure = r, nil
		default:
			failure = r
		}
	}
	return success, failure
}

// Ago is a length of time in words, as long ones are said.
func Ago(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}
