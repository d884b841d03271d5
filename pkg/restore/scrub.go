package restore

import (
	"context"
	"fmt"

	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/verify"
)

// scrub is what this capture reads again of the store, nil for nothing.
func (c *capturing) scrub() (*snapshot.Scrub, error) {
	if c.Scrubs == nil || c.Config.Scrub == 0 {
		return nil, nil
	}
	from, err := c.Scrubs.Turn(c.Store.ID(), c.w.Name)
	return &snapshot.Scrub{From: from, Captures: c.Config.Scrub}, err
}

// scrubbed notes where the next capture goes on, and says what was damaged. The
// snapshot exists by now, so whatever goes wrong here is a warning.
func (c *capturing) scrubbed(ctx context.Context) {
	warn := func(format string, args ...any) {
		c.result.Warnings = append(c.result.Warnings, fmt.Sprintf(format, args...))
	}
	if next, scrubbed := c.capture.Scrubbed(); scrubbed {
		if err := c.Scrubs.SetTurn(c.Store.ID(), c.w.Name, next); err != nil {
			warn("%v", err)
		}
	}
	healed, lost := c.capture.Damaged()
	if len(healed) > 0 {
		warn("%s of earlier snapshots had damage in the store and is stored again from the live data: look at the disk of the store (dmesg, smartctl)", verify.Count(len(healed), "piece"))
	}
	if len(lost) == 0 {
		return
	}
	warn("%s of earlier snapshots has damage in the store, and the live data no longer has what was in it; the new snapshot is whole", verify.Count(len(lost), "piece"))
	hit, err := verify.Hit(ctx, c.Store, lost)
	for _, p := range hit {
		warn("%s", p)
	}
	if err != nil {
		warn("which snapshots it hits cannot be told: %v", err)
	}
}
