package restore

import (
	"context"
	"errors"
	"io/fs"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/verify"
)

// VerifyRequest says what of the store is verified.
type VerifyRequest struct {
	Workload string  // "": all of the store
	SID      string  // "": all of the workload
	Data     float64 // the part of the stored data that is read: 0 to 1
}

// Verify looks for damage in the store: see [verify.Run]. Damage is in the report, and
// makes the error one of kind [fault.Damaged].
func (e *Engine) Verify(ctx context.Context, req VerifyRequest) (*verify.Report, error) {
	st, err := e.stored()
	if err != nil {
		return nil, fault.Classify(err)
	}
	held, err := e.Journal.ShareStore("verify") // no member goes meanwhile
	if err != nil {
		return nil, fault.Classify(err)
	}
	defer held.Release()
	if req.Workload != "" {
		if err := e.known(req.Workload); err != nil {
			return nil, err
		}
	}
	if req.SID != "" {
		if err := catalog.ValidSID(req.Workload, req.SID); err != nil {
			return nil, err
		}
	}
	o := observer(ctx)
	report, err := verify.Run(ctx, st, verify.Request{Workload: req.Workload, SID: req.SID, Data: req.Data, Progress: func(done, total int64) { o.Progress("", done, total) }})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.Failed, "snapshot_not_found", remedy.Of(remedy.List(req.Workload)), "%w", err)
	case err != nil:
		return nil, fault.Classify(fault.Because(ctx, err))
	case len(report.Problems) > 0:
		return report, fault.New(fault.Damaged, "damaged", remedy.Of("look at the disk of the store (dmesg, smartctl); a capture stores again what the live data still has; keep what `", remedy.ListAll, "` shows as whole"),
			"%s in %s that were looked at", verify.Count(len(report.Problems), "problem"), verify.Count(report.Snapshots, "snapshot"))
	}
	return report, nil
}
