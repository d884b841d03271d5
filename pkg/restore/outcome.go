package restore

import (
	"errors"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
)

// outcome is how the finishing phases left a restore's transaction.
type outcome int

const (
	frozenTx outcome = iota // nothing was touched
	// Before the ready record: nothing that is live was touched.
	cleaned
	cleanedPartly
	cleanedOffline
	cleanedHooked
	// All old.
	rolledBack
	rolledBackOffline
	rolledBackAppDown
	rolledBackPartly
	rolledBackHeld
	rolledBackHooked
	// All new.
	restored
	restoredOffline
	restoredAppDown
	restoredUnhealthy
	restoredMissing
	restoredCrashed
	restoredUnguarded
	restoredPartly
	restoredHeld
	restoredHooked
)

// outcomes is the one table of outcomes: the name of each, what it leaves on disk,
// and the messages of a recovery and of the restore itself.
var outcomes = [...]struct {
	action  string
	pending bool // the transaction stays
	kind    fault.Kind
	code    string
	remedy  func(workload string, end *ended) remedy.Remedy
	// recovered and restored are the messages; %w is what is left to do. "" means no
	// error.
	recovered, restored string
}{
	frozenTx: {action: FrozenTx, kind: fault.Frozen},

	cleaned:        {action: Cleaned},
	cleanedPartly:  {Cleaned, true, fault.Pending, "cleanup", again, "the clean-up is not finished: %w", "nothing changed, but the clean-up is not finished: %w"},
	cleanedOffline: {action: Cleaned, pending: true},
	cleanedHooked:  {Cleaned, false, fault.Pending, "hook_failed", ownRemedy, "nothing changed, but %w", "nothing changed, but %w"},

	rolledBack:        {action: RolledBackTx, kind: fault.RolledBack, restored: "the old data is live and the app is as before"},
	rolledBackOffline: {action: RolledBackTx, pending: true},
	rolledBackAppDown: {RolledBackTx, true, fault.RolledBack, "app_not_up", again, "the old data is live, but the app is not up: %w", "the old data is live, but the app is not up: %w"},
	rolledBackPartly:  {RolledBackTx, true, fault.RolledBack, "cleanup", again, "the old data is live, but the clean-up is not finished: %w", "the old data is live and the app is up, but the clean-up is not finished: %w"},
	rolledBackHeld:    {RolledBackTx, true, fault.RolledBack, "held", ownRemedy, "the old data is live, but %w", "the old data is live and the app is up, but %w"},

	rolledBackHooked: {RolledBackTx, false, fault.Pending, "hook_failed", ownRemedy, "the old data is live, but %w", "the old data is live and the app is up, but %w"},

	restored:          {action: RolledForwardTx},
	restoredOffline:   {action: RolledForwardTx, pending: true},
	restoredAppDown:   {RolledForwardTx, true, fault.Pending, "app_not_up", lookThenAgain, "the new data is live, but the app is not up: %w", "the new data is live, but the app is not up: %w"},
	restoredUnhealthy: {RolledForwardTx, false, fault.Pending, "unhealthy", lookOrGoBack, "the new data is live, but %w", "the new data is live, but %w"},
	restoredMissing:   {RolledForwardTx, false, fault.Pending, "service_missing", startMissing, "the new data is live and the app is up, but %w", "the new data is live and the app is up, but %w"},
	restoredCrashed:   {RolledForwardTx, false, fault.Pending, "service_crashed", lookOrGoBack, "the new data is live, but %w", "the new data is live, but %w"},
	restoredUnguarded: {RolledForwardTx, true, fault.Pending, "guarding", ownRemedy, "the new data is live and the app is up, but %w", "the new data is live and the app is up, but %w"},
	restoredPartly:    {RolledForwardTx, true, fault.Pending, "cleanup", again, "the clean-up is not finished: %w", "the new data is live and the app is up, but the clean-up is not finished: %w"},
	restoredHooked:    {RolledForwardTx, false, fault.Pending, "hook_failed", ownRemedy, "the new data is live and the app is up, but %w", "the new data is live and the app is up, but %w"},
	restoredHeld:      {RolledForwardTx, true, fault.Pending, "held", ownRemedy, "the new data is live and the app was brought up, but %w", "the new data is live and the app is up, but %w"},
}

// ended is an outcome with what led to it.
type ended struct {
	outcome
	err       error    // why nothing was touched, or what is left to do
	cause     error    // why a committed restore was reverted
	preserved []string // paths of what was preserved
	warnings  []string
	up        time.Time // when the app was up, or was given up
	quiesce   string    // how the snapshot was taken, where the app is not healthy on it
	guarded   bool      // with guard after: the snapshot of the old data exists

	preRestoreSID string // where there is one
	takenSID      string // the snapshot that data which was taken away has become, "" for none
}

// again is the remedy to recover once more. If the store is missing, the store has
// to come back first.
func again(workload string, end *ended) remedy.Remedy {
	var missing *store.Missing
	if errors.As(end.err, &missing) {
		return remedy.Of(missing.Hint(), "; then ", remedy.Recover(workload))
	}
	return remedy.Of(remedy.Recover(workload))
}

func lookThenAgain(workload string, _ *ended) remedy.Remedy {
	return remedy.Of("read the app's log, then ", remedy.Recover(workload))
}

func lookOrGoBack(workload string, end *ended) remedy.Remedy {
	return remedy.Of("read the app's log", end.cleanly(), "; to go back to the old data, ", remedy.Restore(workload, end.preRestoreSID))
}

// cleanly says what may be wrong with a snapshot of an app that was not shut down: a pid
// or lock file that the app finds at its start, for one.
func (end *ended) cleanly() remedy.Remedy {
	if end.quiesce == "" || end.quiesce == runtime.Stop {
		return remedy.Remedy{}
	}
	return remedy.Of("; the snapshot was taken with --quiesce " + end.quiesce +
		", and holds what a power cut leaves: if the log speaks of a pid or lock file, or of damaged data, the app needs snapshots that are taken with --quiesce stop")
}

const startByHand = "find out why they do not run (docker ps -a), and start them by hand"

// startMissing is for containers that do not run; some may also have crashed again.
func startMissing(workload string, end *ended) remedy.Remedy {
	way := remedy.Of(startByHand)
	var again *runtime.Crashed
	if errors.As(end.err, &again) {
		return remedy.Of(way, "; as for what has crashed, ", lookOrGoBack(workload, end))
	}
	return way
}

func ownRemedy(_ string, end *ended) remedy.Remedy { return fault.Classify(end.err).Remedy }

// recovered returns the error of a recovery with this outcome, nil if all is done.
func (end *ended) recovered(workload, tx string) error {
	row := outcomes[end.outcome]
	switch {
	case end.outcome == frozenTx:
		return end.err
	case row.recovered == "":
		return nil
	}
	return fault.New(row.kind, row.code, row.remedy(workload, end), "transaction %s: "+row.recovered, tx, end.err)
}

// verdict returns the error of the restore itself, nil if it succeeded. failed is why
// the restore did not commit, nil if it did.
func (end *ended) verdict(workload string, failed error) error {
	row := outcomes[end.outcome]
	if failed == nil {
		failed = end.cause
	}
	switch {
	case end.outcome == frozenTx && failed != nil:
		return fault.Classify(fmt.Errorf("%w (after: %w)", end.err, failed))
	case end.outcome == frozenTx:
		return end.err
	case row.action == Cleaned && end.err == nil:
		return fault.Classify(failed)
	case row.action == Cleaned:
		return fault.New(fault.Failed, row.code, row.remedy(workload, end), "%w; "+row.restored, failed, end.err)
	case row.action == RolledForwardTx && row.restored == "":
		return nil
	case row.action == RolledForwardTx:
		return fault.New(row.kind, row.code, row.remedy(workload, end), row.restored, end.err)
	}
	return end.rolledBack(workload, failed)
}

// rolledBack returns the error of a restore that went back.
func (end *ended) rolledBack(workload string, failed error) error {
	row := outcomes[end.outcome]
	code := fault.Classify(failed).Code
	if end.cause != nil && code == "failed" {
		code = "unhealthy"
	}
	taken := ""
	if end.takenSID != "" {
		taken = "; the data that was taken back is snapshot " + end.takenSID
	}
	if end.err != nil {
		return fault.New(fault.RolledBack, code, row.remedy(workload, end), "%w; "+row.restored+"%s", failed, end.err, taken)
	}
	if sig := fault.Interruption(failed); sig != nil {
		return sig
	}
	way := fault.Classify(failed).Remedy
	if code == "unhealthy" && way.Empty() {
		way = remedy.Of("read what the app said, in the message", end.cleanly())
	}
	return fault.New(fault.RolledBack, code, way, "%w; "+row.restored+"%s", failed, taken)
}

// result returns the outcome of a restore that reached its commit, "" for others.
func (end *ended) result() string {
	switch {
	case outcomes[end.outcome].action == RolledForwardTx:
		return Restored
	case end.cause != nil && outcomes[end.outcome].action == RolledBackTx:
		return Reverted
	}
	return ""
}
