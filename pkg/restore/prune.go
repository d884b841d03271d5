package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/prune"
)

// Prune deletes the snapshots that no rule keeps: see [prune.Host.Prune].
func (e *Engine) Prune(ctx context.Context, req prune.Request) (*prune.Result, error) {
	h, err := e.pruner(ctx)
	if err != nil {
		return nil, err
	}
	return h.Prune(ctx, req)
}

// Delete deletes snapshots by their ids: see [prune.Host.Delete].
func (e *Engine) Delete(ctx context.Context, req prune.DeleteRequest) (*prune.Result, error) {
	h, err := e.pruner(ctx)
	if err != nil {
		return nil, err
	}
	return h.Delete(ctx, req)
}

func (e *Engine) pruner(ctx context.Context) (*prune.Host, error) {
	st, err := e.stored()
	if err != nil {
		return nil, fault.Classify(err)
	}
	return &prune.Host{Config: e.Config, Store: st, Journal: e.Journal, Known: e.known, Record: func(a journal.Audit, start time.Time, err error) {
		e.audited(observer(ctx), a, start, err)
	}}, nil
}

// patience is how long the end of a capture waits for others who work with the store.
const patience = 10 * time.Second

// pruneAfter ends a capture. The snapshot exists, so what goes wrong here is a warning;
// the next capture tries again.
func (e *Engine) pruneAfter(ctx context.Context, name string, result *CaptureResult) {
	pruned, err := e.Prune(ctx, prune.Request{Workloads: []string{name}, Wait: patience})
	if err != nil {
		result.Warnings = append(result.Warnings, fmt.Sprintf("no snapshot was pruned: %v", err))
		return
	}
	result.Pruned = pruned
}
