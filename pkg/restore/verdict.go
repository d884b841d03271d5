package restore

import (
	"fmt"

	"github.com/tiny-forge/snap/pkg/journal"
)

// verdict says what came of the restore.
func (r *restoration) verdict(tx *journal.Tx, end ending, cause error) error {
	next := "snap recover " + r.w.Name
	switch {
	case end.frozen != nil && cause != nil:
		return classify(fmt.Errorf("%w (after: %w)", end.frozen, cause))
	case end.frozen != nil:
		return end.frozen
	case tx.Committed && !tx.Reverted:
		r.result.Outcome = Restored
		switch {
		case end.guard != nil:
			return end.unguarded("the data is restored")
		case end.app != nil:
			return fault(Pending, "app_not_up", "look at the app's log; "+next, "the data is restored, but the app is not up: %w", end.app)
		case end.sick != nil && end.cleanup == nil:
			return fault(Pending, "unhealthy", "look at the app's log; to go back, restore "+r.result.PreRestoreSID, "the data is restored, but %w", end.sick)
		case end.cleanup != nil:
			return fault(Pending, "cleanup", next, "the data is restored and the app is up, but the clean-up is not finished: %w", end.cleanup)
		}
		return nil
	case tx.Reverted:
		r.result.Outcome = Reverted
		return r.backAgain(end, next, notUp(end.why), end.why)
	case tx.ReadyRecord == nil:
		// The app was never touched.
		if end.cleanup != nil {
			return fault(Failed, "cleanup", next, "%w; nothing changed, but the clean-up is not finished: %w", cause, end.cleanup)
		}
		return classify(cause)
	}
	return r.backAgain(end, next, classify(cause).Code, cause)
}

// notUp is the code of what kept the app from coming up on the new data.
func notUp(why error) string {
	if code := classify(why).Code; code != "failed" {
		return code
	}
	return "unhealthy"
}

// backAgain is the verdict on a restore that was rolled back.
func (r *restoration) backAgain(end ending, next, code string, cause error) error {
	switch {
	case end.app != nil:
		return fault(RolledBack, code, next, "%w; the old data is in place, but the app is not up: %w", cause, end.app)
	case end.cleanup != nil:
		return fault(RolledBack, code, next, "%w; the old data is in place and the app is up, but the clean-up is not finished: %w", cause, end.cleanup)
	}
	if sig := interruption(cause); sig != nil {
		return sig
	}
	return fault(RolledBack, code, classify(cause).Hint, "%w; the old data is in place and the app is as before", cause)
}
