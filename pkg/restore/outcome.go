package restore

import (
	"errors"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
)

// outcome is how the finishing phases left a restore's transaction.
type outcome int

const (
	frozenTx outcome = iota // nothing was touched
	// Before the ready record: nothing that is live was touched.
	cleaned
	cleanedPartly
	// All old.
	rolledBack
	rolledBackOffline
	rolledBackAppDown
	rolledBackPartly
	// All new.
	restored
	restoredOffline
	restoredAppDown
	restoredUnhealthy
	restoredUnguarded
	restoredPartly
)

// outcomes is the one table from an outcome to what it is called, what it leaves
// on disk, and what is said of it: by a recovery, and by the restore itself.
var outcomes = [...]struct {
	action  string
	pending bool // the transaction stays
	kind    Kind
	code    string
	remedy  func(workload string, end *ended) remedy.Remedy
	// recovered and restored say what is so; %w is what is left to do. "" is no
	// error.
	recovered, restored string
}{
	frozenTx: {action: FrozenTx, kind: Frozen},

	cleaned:       {action: Cleaned},
	cleanedPartly: {Cleaned, true, Pending, "cleanup", again, "the clean-up is not finished: %w", "nothing changed, but the clean-up is not finished: %w"},

	rolledBack:        {action: RolledBackTx, kind: RolledBack, restored: "the old data is in place and the app is as before"},
	rolledBackOffline: {action: RolledBackTx, pending: true},
	rolledBackAppDown: {RolledBackTx, true, RolledBack, "app_not_up", again, "the old data is in place, but the app is not up: %w", "the old data is in place, but the app is not up: %w"},
	rolledBackPartly:  {RolledBackTx, true, RolledBack, "cleanup", again, "the old data is in place, but the clean-up is not finished: %w", "the old data is in place and the app is up, but the clean-up is not finished: %w"},

	restored:          {action: RolledForwardTx},
	restoredOffline:   {action: RolledForwardTx, pending: true},
	restoredAppDown:   {RolledForwardTx, true, Pending, "app_not_up", lookThenAgain, "the data is in place, but the app is not up: %w", "the data is restored, but the app is not up: %w"},
	restoredUnhealthy: {RolledForwardTx, false, Pending, "unhealthy", lookOrGoBack, "the data is restored, but %w", "the data is restored, but %w"},
	restoredUnguarded: {RolledForwardTx, true, Pending, "guarding", ownRemedy, "the data is restored and the app is up, but %w", "the data is restored and the app is up, but %w"},
	restoredPartly:    {RolledForwardTx, true, Pending, "cleanup", again, "the clean-up is not finished: %w", "the data is restored and the app is up, but the clean-up is not finished: %w"},
}

// ended is an outcome with what led to it.
type ended struct {
	outcome
	err       error     // why nothing was touched, or what is left to do
	cause     error     // why a committed restore was reverted
	preserved []string  // paths of what is not snap's and was given another name
	up        time.Time // when the app was up, or was given up
	guarded   bool      // with guard after: the snapshot of what was live exists

	preRestoreSID string // where there is one
}

// again is to recover once more; where end.err is of a missing store, when that is
// back.
func again(workload string, end *ended) remedy.Remedy {
	var missing *store.Missing
	if errors.As(end.err, &missing) {
		return remedy.Of(missing.Hint(), "; then ", remedy.Recover(workload))
	}
	return remedy.Of(remedy.Recover(workload))
}

func lookThenAgain(workload string, _ *ended) remedy.Remedy {
	return remedy.Of("look at the app's log; ", remedy.Recover(workload))
}

func lookOrGoBack(workload string, end *ended) remedy.Remedy {
	return remedy.Of("look at the app's log; to go back, ", remedy.Restore(workload, end.preRestoreSID))
}

func ownRemedy(_ string, end *ended) remedy.Remedy { return classify(end.err).Remedy }

// recovered is the error of a recovery that ended so, nil where all is done.
func (end *ended) recovered(workload, tx string) error {
	row := outcomes[end.outcome]
	switch {
	case end.outcome == frozenTx:
		return end.err
	case row.recovered == "":
		return nil
	}
	return fault(row.kind, row.code, row.remedy(workload, end), "transaction %s: "+row.recovered, tx, end.err)
}

// verdict is the error of the restore itself, nil where it is done. failed is why
// it did not commit, nil where it did.
func (end *ended) verdict(workload string, failed error) error {
	row := outcomes[end.outcome]
	if failed == nil {
		failed = end.cause
	}
	switch {
	case end.outcome == frozenTx && failed != nil:
		return classify(fmt.Errorf("%w (after: %w)", end.err, failed))
	case end.outcome == frozenTx:
		return end.err
	case row.action == Cleaned && end.err == nil:
		return classify(failed)
	case row.action == Cleaned:
		return fault(Failed, row.code, row.remedy(workload, end), "%w; "+row.restored, failed, end.err)
	case row.action == RolledForwardTx && row.restored == "":
		return nil
	case row.action == RolledForwardTx:
		return fault(row.kind, row.code, row.remedy(workload, end), row.restored, end.err)
	}
	return end.rolledBack(workload, failed)
}

// rolledBack is the verdict on a restore that went back.
func (end *ended) rolledBack(workload string, failed error) error {
	row := outcomes[end.outcome]
	code := classify(failed).Code
	if end.cause != nil && code == "failed" {
		code = "unhealthy"
	}
	if end.err != nil {
		return fault(RolledBack, code, row.remedy(workload, end), "%w; "+row.restored, failed, end.err)
	}
	if sig := interruption(failed); sig != nil {
		return sig
	}
	return fault(RolledBack, code, classify(failed).Remedy, "%w; "+row.restored, failed)
}

// result is the outcome of a restore that got as far as its commit, "" for others.
func (end *ended) result() string {
	switch {
	case outcomes[end.outcome].action == RolledForwardTx:
		return Restored
	case end.cause != nil && outcomes[end.outcome].action == RolledBackTx:
		return Reverted
	}
	return ""
}
