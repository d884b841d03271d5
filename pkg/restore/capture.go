package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// CaptureRequest is what an operator asks of a capture.
type CaptureRequest struct {
	Workload string
	Quiesce  string // journal.Pause, Stop or None
	Note     string
	// FullSpeed does without the low priority while the app runs.
	FullSpeed bool
}

// CaptureResult is a snapshot that exists.
type CaptureResult struct {
	Manifest        *store.Manifest
	QuiescedSeconds float64 // how long the app stood still
	Seconds         float64
	Added           int64 // bytes by which the store grew
	Phases          map[string]float64
	Changed         []string // files that changed while they were read
	Read            int64    // bytes of content that were read, in both passes
	PassOne         PassOne
}

// Capture makes a snapshot of all volumes of a workload. When it returns nil
// the snapshot exists, durably, and the app is as it was before. After an error
// there is no snapshot, and the app is as it was before unless the error is of
// kind Pending.
func (e *Engine) Capture(ctx context.Context, req CaptureRequest) (*CaptureResult, error) {
	s, err := e.begin(ctx, "capture", req.Workload)
	if err != nil {
		return nil, err
	}
	defer s.close()
	c := &capturing{session: s, req: req, sid: disk.NewID(time.Now()), release: func() {}, hasten: func() {}}
	result, err := c.run(ctx)
	s.audit(c.sid, c.txID, err)
	return result, err
}

type capturing struct {
	*session
	req        CaptureRequest
	sid        string
	txID       string
	places     []*place
	containers []Container
	shot       *shooting
	quiesced   time.Duration
	release    func() // of the guard
	hasten     func() // gives back the priority that the app had first
}

func (c *capturing) run(ctx context.Context) (*CaptureResult, error) {
	defer func() {
		for _, p := range c.places {
			p.close()
		}
	}()
	if err := c.time.run("preflight", func() error { return c.preflight(ctx) }); err != nil {
		return nil, classify(because(ctx, err))
	}
	tx, err := c.Journal.Begin(c.held, &journal.Begin{
		Kind: journal.Capture, SID: c.sid, Snap: c.Version, Quiesce: c.req.Quiesce, Containers: c.containers,
	})
	if err != nil {
		return nil, classify(err)
	}
	c.txID = tx.ID
	defer func() { c.release() }()
	c.at("begin")
	manifest, err := c.shoot(ctx, tx)
	if err != nil {
		return nil, c.giveUp(ctx, tx, because(ctx, err))
	}
	added := c.shot.batch.Added()
	c.shot.close()
	if err := errors.Join(c.clear(tx.ID), tx.End()); err != nil {
		return nil, fault(Pending, "cleanup", "snap recover "+c.w.Name, "snapshot %s exists, but: %w", c.sid, err)
	}
	result := &CaptureResult{
		Manifest: manifest, QuiescedSeconds: c.quiesced.Seconds(), Seconds: time.Since(c.when).Seconds(), Added: added, Phases: c.time,
	}
	result.PassOne = c.shot.passOne()
	result.Read = result.PassOne.ReadBytes
	for _, r := range c.shot.results {
		result.Read += r.Read
		result.Changed = append(result.Changed, r.Changed...)
	}
	return result, nil
}

func (c *capturing) preflight(ctx context.Context) error {
	if err := c.unfinished(); err != nil {
		return err
	}
	volumes, err := c.chosen(nil)
	if err != nil {
		return err
	}
	if c.places, err = c.session.places(volumes); err != nil {
		return err
	}
	if err := c.strayWrappers(c.places); err != nil {
		return err
	}
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	for _, p := range c.places {
		if p.live == nil {
			return refused("volume_absent", c.makes(p), "volume %s: %s does not exist", p.vol.Name, p.path())
		}
		if err := p.restorable(mounts); err != nil {
			return err
		}
	}
	c.containers, err = c.rt.Containers(ctx)
	return err
}

// makes says how a live directory that does not exist comes to be.
func (c *capturing) makes(p *place) string {
	if c.w.Kind() == workload.Data {
		return fmt.Sprintf("make the directory (mkdir -p %s; a restore makes it as well), or correct the config", shell(p.path()))
	}
	return "make the directory (snap deploy " + c.w.Name + " does), or correct the config"
}

// shoot takes the snapshot and brings the app back.
func (c *capturing) shoot(ctx context.Context, tx *journal.Tx) (*store.Manifest, error) {
	var err error
	if c.shot, err = c.newShooting(ctx, tx, c.places, false); err != nil {
		return nil, err
	}
	c.hasten = gently(c.req.FullSpeed)
	defer c.hasten()
	if c.quiesces() {
		c.say("capturing %s: first pass, the app runs", c.w.Name)
		if err := c.time.run("pass_one", func() error { return c.shot.first(ctx) }); err != nil {
			return nil, err
		}
	}
	if err := c.still(ctx); err != nil {
		return nil, err
	}
	c.at("thawed")
	var m *store.Manifest
	if n := c.shot.cloned(); n > 0 {
		c.say("capturing %s: reading %d bytes that were cloned, the app runs", c.w.Name, n)
	}
	if err := c.time.run("clones", c.shot.finish); err != nil {
		return nil, err
	}
	c.at("read")
	err = c.time.run("publish", func() error {
		m, err = c.shot.publish(c.sid, store.Manual, c.req.Note, c.req.Quiesce, c.containers)
		return err
	})
	return m, err
}

// quiesces reports whether there is an app to put to rest.
func (c *capturing) quiesces() bool {
	if c.req.Quiesce == journal.None {
		return false
	}
	for _, container := range c.containers {
		if container.Running && !container.Paused {
			return true
		}
	}
	return false
}

// still is the second pass, with the app at rest, and its awakening.
func (c *capturing) still(ctx context.Context) (err error) {
	if c.quiesces() {
		p := c.shot.passOne()
		c.say("capturing %s: second pass, quiesce %s (the first read %d bytes and added %d)", c.w.Name, c.req.Quiesce, p.ReadBytes, p.AddedBytes)
		c.hasten()
		c.release = c.guarded(c.txID)
		start := time.Now()
		var thaw journal.Thaw
		if err := c.time.run("quiesce", func() error {
			thaw, err = c.rt.Quiesce(ctx, c.req.Quiesce, 0)
			return err
		}); err != nil {
			return err
		}
		c.at("quiesced")
		defer func() {
			e := c.time.run("thaw", func() error { return thaw(context.WithoutCancel(ctx)) })
			c.quiesced = time.Since(start)
			err = errors.Join(err, e)
		}()
	}
	c.shot.clones = c.quiesces()
	return c.time.run("pass_two", func() error {
		if err := c.shot.freeze(ctx); err != nil {
			return err
		}
		return c.stillThere()
	})
}

// stillThere makes sure that what was read is what the volumes' paths lead to.
func (c *capturing) stillThere() error {
	for _, p := range c.places {
		was, err := p.live.Handle()
		if err != nil {
			return err
		}
		now, err := c.place(p.vol)
		if err != nil {
			return err
		}
		is := disk.Handle("")
		if now.live != nil {
			is, err = now.live.Handle()
		}
		now.close()
		if err != nil {
			return err
		}
		if is != was {
			return renamed(p)
		}
	}
	return nil
}

// giveUp leaves things as they were before a capture that failed.
func (c *capturing) giveUp(ctx context.Context, tx *journal.Tx, cause error) error {
	ctx = context.WithoutCancel(ctx)
	if c.shot != nil {
		c.shot.close()
	}
	if err := c.undoCapture(ctx, tx); err != nil {
		return fault(Pending, "pending", "snap recover "+c.w.Name, "the capture failed (%w), and the app was not brought back: %w", cause, err)
	}
	return classify(cause)
}

// undoCapture wakes the app and removes what a capture left. It serves a
// capture that failed and the recovery of one that was killed.
func (s *session) undoCapture(ctx context.Context, tx *journal.Tx) error {
	// A first deploy had nothing before it: what it made is removed.
	if tx.Begin.Kind == journal.Deploy || tx.Begin.Quiesce != journal.None && len(tx.Begin.Containers) > 0 {
		if err := s.rt.Resume(ctx, s.held, tx.Begin.Containers); err != nil {
			return err
		}
	}
	if tx.Begin.SID != "" {
		if err := errors.Join(s.discard(s.w.Name, tx.Begin.SID), s.clear(tx.ID)); err != nil {
			return err
		}
	}
	return tx.End()
}
