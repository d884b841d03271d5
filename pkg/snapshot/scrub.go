package snapshot

import (
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/store"
)

// Scrub says how a capture reads again what it does not read from the live data. A
// member that is damaged is stored anew from the live data, where that still has what
// was in it.
type Scrub struct {
	From     store.Turn // where the scrub of the last capture ended
	Captures int        // within how many captures all members are read
}

// A scrub goes on for so many bytes, or for so much of a capture's time, whichever is
// more.
const (
	scrubBytes = 64 << 20
	scrubTime  = 10 // a tenth
)

// scrub prepares the batch to read a part of the members of the latest snapshot.
func (c *Capture) scrub(latest *store.Manifest) {
	if c.opt.Scrub == nil || c.opt.Scrub.Captures <= 0 || c.scrubs {
		return
	}
	c.scrubs = true
	_, _, stored := latest.Totals()
	share := 1 / float64(c.opt.Scrub.Captures)
	if stored > 0 {
		share = max(share, scrubBytes/float64(stored))
	}
	var start time.Time
	c.batch.Scrub(store.Scrub{From: c.opt.Scrub.From, Share: min(share, 1), Enough: func(read int64) bool {
		if start.IsZero() {
			start = time.Now()
		}
		// A tenth of the whole is a ninth of the rest.
		return read >= scrubBytes && time.Since(start) > start.Sub(c.began)/(scrubTime-1)
	}})
}

// Scrubbed returns where the scrub of the next capture is to begin, and false where
// this one had none.
func (c *Capture) Scrubbed() (store.Turn, bool) { return c.batch.Next(), c.scrubs }

// Damaged returns the members of earlier snapshots that were damaged: those that were
// stored again from the live data, and those that are lost.
func (c *Capture) Damaged() (healed, lost []archive.Member) { return c.batch.Damaged() }
