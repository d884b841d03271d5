package preflight

import (
	"context"
	"errors"
	"fmt"

	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/diff"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
)

// Count fills in what the restore would change of each volume, by stat alone. It walks the
// live data once more and reads the index of the snapshot, so it is for whoever looks at
// the plan. Where the index cannot be used, a warning says so: to read all data for a
// number would take too long.
func (h *Host) Count(ctx context.Context, p *Plan) error {
	for _, v := range p.Volumes {
		var err error
		v.Changes, err = diff.Counts(ctx, h.Store, p.manifest, v.Stored, v.Opened.Live, snapshot.WriteOptions(v.Config))
		switch {
		case errors.Is(err, store.ErrIndex), errors.Is(err, part.ErrMismatch):
			p.warn("volume %s: what the restore changes cannot be counted, because the index of the snapshot cannot be used: %v", v.Name, err)
		case err != nil:
			return fault.Classify(fault.Because(ctx, fmt.Errorf("volume %s: %w", v.Name, err)))
		}
	}
	return nil
}
