package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/hook"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/prune"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/verify"
)

// CaptureRequest is what an operator asks of a capture.
type CaptureRequest struct {
	Workload string
	Quiesce  string // runtime.Pause, Stop or None
	Note     string
	Tags     []string
	Wait     time.Duration // at most, for another operation on the workload
}

// CaptureResult is a snapshot that exists.
type CaptureResult struct {
	Manifest        *store.Manifest
	QuiescedSeconds float64 // how long the app was at rest
	Seconds         float64
	Added           int64 // bytes by which the store grew
	Phases          Seconds
	Changed         []string // files that changed while they were read
	Read            int64    // bytes of content that were read, in both passes
	PassOne         Cost
	NotKept         []snapshot.NotKept
	Warnings        []string
	Pruned          *prune.Result // nil where the config says nothing of what stays
}

// Capture makes a snapshot of all volumes of a workload. When it returns nil
// the snapshot exists, durably, and the app is as it was before. An error that comes with a
// result is that of a hook, which failed when the snapshot had been made. After any other
// error no snapshot was made. The app is as it was before unless the error is of kind
// Pending.
func (e *Engine) Capture(ctx context.Context, req CaptureRequest) (*CaptureResult, error) {
	for _, tag := range req.Tags {
		if !store.ValidTag(tag) {
			return nil, fault.New(fault.Usage, "usage", remedy.Remedy{}, "the tag %q: use letters, digits and . _ : / @ + -", tag)
		}
	}
	start := time.Now()
	result, err := e.take(ctx, req)
	run := journal.Run{Verb: "capture"}
	if result != nil {
		run.SID, run.Downtime, run.Added = result.Manifest.SID, result.QuiescedSeconds, result.Added
		_, run.Bytes, run.Stored = result.Manifest.Totals()
	}
	e.remember(ctx, req.Workload, start, run, err)
	if err == nil && !e.Config.RetainOf(req.Workload).Empty() {
		e.pruneAfter(ctx, req.Workload, result)
	}
	return result, err
}

func (e *Engine) take(ctx context.Context, req CaptureRequest) (*CaptureResult, error) {
	s, err := e.beginWait(ctx, "capture", req.Workload, req.Wait)
	if err != nil {
		return nil, err
	}
	defer s.close()
	c := &capturing{session: s, req: req, sid: disk.NewID(time.Now()), result: &CaptureResult{Phases: s.seconds}, release: func() {}}
	result, err := c.run(ctx)
	c.release() // not deferred: when this process panics the watchdog has to recover
	s.audit(c.sid, c.txID, err)
	return result, err
}

type capturing struct {
	*session
	req        CaptureRequest
	sid        string
	txID       string
	volumes    []*swap.Volume
	containers []runtime.Container
	capture    *snapshot.Capture
	unhooked   error // which hooks failed when the app ran again
	result     *CaptureResult
	release    func() // of the watchdog
}

func (c *capturing) run(ctx context.Context) (*CaptureResult, error) {
	defer func() { swap.CloseAll(c.volumes) }()
	if err := c.phase(Preflight, func() error { return c.preflight(ctx) }); err != nil {
		return nil, fault.Classify(fault.Because(ctx, err))
	}
	var tx *journal.Tx
	err := c.phase(Begin, func() (err error) {
		tx, err = c.open(&journal.Begin{Kind: journal.Capture, SID: c.sid, Quiesce: c.req.Quiesce, Containers: c.containers})
		return err
	})
	if err != nil {
		return nil, fault.Classify(err)
	}
	c.txID = tx.ID
	c.at("begin")
	if err := c.take(ctx, tx); err != nil {
		return nil, c.giveUp(ctx, tx, c.storeFull(ctx, fault.Because(ctx, err)))
	}
	c.result.Added = c.capture.Added()
	c.result.PassOne = c.capture.Cost()
	c.result.Read, c.result.Changed = c.capture.Totals()
	for i, lost := range c.capture.Lost() {
		list, warnings := snapshot.NotKeptOf(c.volumes[i].Name, lost)
		c.result.NotKept = append(c.result.NotKept, list...)
		c.result.Warnings = append(c.result.Warnings, warnings...)
	}
	c.scrubbed(ctx)
	c.capture.Close()
	if err := errors.Join(c.Store.Clear(tx.ID), tx.End()); err != nil {
		return nil, fault.New(fault.Pending, "cleanup", remedy.Of(remedy.Recover(c.w.Name)), "snapshot %s exists, but the clean-up is not finished: %w", c.sid, err)
	}
	c.result.Seconds = time.Since(c.when).Seconds()
	return c.result, hook.Because(c.unhooked, "snapshot %s exists, but %w", c.sid, c.unhooked)
}

// preflight makes the checks of a restore that depend on the config and on this host
// alone: a snapshot that could not be restored is no use.
func (c *capturing) preflight(ctx context.Context) error {
	if err := errors.Join(c.clearAway(ctx), c.unfinished()); err != nil {
		return err
	}
	p, err := c.host().Capture(ctx, c.req.Quiesce)
	c.volumes, c.containers, c.result.Warnings = p.Opened(), p.Containers, p.Warnings
	return err
}

// storeFull says of an error for want of room how much is missing.
func (c *capturing) storeFull(ctx context.Context, err error) error {
	if !fault.NoSpace(err) {
		return err
	}
	var need int64
	for i, source := range c.sources(c.volumes) {
		found, err := archive.Survey(ctx, c.volumes[i].Live, snapshot.WriteOptions(source.Volume))
		if err != nil {
			continue
		}
		need += found.Bytes
	}
	return c.Store.Root().WhenFull(err, need)
}

// take takes the snapshot and brings the app back.
func (c *capturing) take(ctx context.Context, tx *journal.Tx) (err error) {
	scrub, err := c.scrub()
	if err != nil {
		return err
	}
	if c.capture, err = c.newCapture(ctx, tx, c.sources(c.volumes), snapshot.Options{Scrub: scrub}); err != nil {
		return err
	}
	if c.quiesces() {
		c.say("capturing %s: first pass, while the app runs", c.w.Name)
		if err := c.phase(PassOne, func() error { return c.capture.PassOne(ctx) }); err != nil {
			return err
		}
	}
	hooks := c.hooks(tx.Begin)
	if c.quiesces() || hooks.Any() {
		c.release = c.watched(c.txID)
	}
	if err := c.phase(Hooks, func() error { return hooks.Before(ctx) }); err != nil {
		return err
	}
	if err := c.still(ctx); err != nil {
		return err
	}
	c.unhooked = c.phase(Unhook, func() error { return hooks.After(context.WithoutCancel(ctx), true) })
	c.at("thawed")
	if n := c.capture.Cloned(); n > 0 {
		c.say("capturing %s: the app runs again; reading %d cloned bytes", c.w.Name, n)
	}
	if err := c.phase(Clones, c.capture.Finish); err != nil {
		return err
	}
	c.at("read")
	c.result.Manifest = &store.Manifest{SID: c.sid, Reason: store.Manual, Note: c.req.Note, Tags: c.req.Tags, Quiesce: c.req.Quiesce, Images: images(c.containers)}
	return c.phase(Publish, func() error { return c.capture.Publish(c.result.Manifest) })
}

// quiesces reports whether the capture puts an app to rest.
func (c *capturing) quiesces() bool {
	return c.req.Quiesce != runtime.None &&
		slices.ContainsFunc(c.containers, func(c runtime.Container) bool { return c.Running && !c.Paused })
}

// still is the second pass, with the app at rest, and the thaw after it.
func (c *capturing) still(ctx context.Context) (err error) {
	if c.quiesces() {
		cost := c.capture.Cost()
		c.say("capturing %s: second pass, quiesce %s (the first read %d bytes and added %d)", c.w.Name, c.req.Quiesce, cost.ReadBytes, cost.AddedBytes)
		c.sayAlso(map[string]string{runtime.Pause: "pausing", runtime.Stop: "stopping"}[c.req.Quiesce], c.containers)
		start := time.Now()
		var thaw runtime.Thaw
		if err := c.phase(Quiesce, func() error {
			thaw, err = c.rt.Quiesce(ctx, c.req.Quiesce, 0)
			return err
		}); err != nil {
			return err
		}
		c.at("quiesced")
		defer func() {
			e := c.phase(Thaw, func() error { return thaw(context.WithoutCancel(ctx)) })
			c.result.QuiescedSeconds = time.Since(start).Seconds()
			err = errors.Join(err, e)
		}()
	}
	c.capture.Clones = c.quiesces()
	return c.phase(PassTwo, func() error {
		if err := c.capture.Freeze(ctx); err != nil {
			return err
		}
		return c.stillThere()
	})
}

// stillThere makes sure that the volumes' paths still lead to the directories that
// were read.
func (c *capturing) stillThere() error {
	for _, v := range c.volumes {
		configured, _ := c.w.Volume(v.Name) // it was opened by that name
		now, err := c.host().OpenOne(configured)
		if err != nil {
			return err
		}
		var found disk.Handle
		if now.Live != nil {
			found, err = now.Live.Handle()
		}
		now.Close()
		if err == nil {
			err = v.Is(found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *capturing) giveUp(ctx context.Context, tx *journal.Tx, cause error) error {
	ctx = context.WithoutCancel(ctx)
	if c.capture != nil {
		c.capture.Close()
	}
	err := c.undoCapture(ctx, tx)
	if hooked := hook.Because(err, "the capture failed (%w), and %w", cause, err); hooked != nil {
		return hooked
	}
	if err != nil {
		return fault.New(fault.Pending, "pending", remedy.Of(remedy.Recover(c.w.Name)), "the capture failed (%w), and the app may still be at rest: %w", cause, err)
	}
	return fault.Classify(cause)
}

// undoCapture thaws the app, runs the hooks that follow, and removes what a capture left:
// after one that failed, and in the recovery of one that was killed. After the error of a
// hook all is done.
func (s *session) undoCapture(ctx context.Context, tx *journal.Tx) error {
	// Before a first deploy there were no containers, so Resume removes the new ones.
	if tx.Begin.Kind == journal.Deploy || tx.Begin.Quiesce != runtime.None && len(tx.Begin.Containers) > 0 {
		if err := s.rt.Resume(ctx, s.held, tx.Begin.Containers); err != nil {
			return err
		}
	}
	hooked := s.hooks(tx.Begin).After(ctx, false)
	if tx.Begin.SID != "" {
		if err := s.discard(tx, tx.Begin.SID); err != nil {
			return err
		}
	}
	return cmp.Or(tx.End(), hooked)
}

// clearAway recovers what captures and imports of this workload have left whose process is
// gone, unless the app is at rest: nobody has to do that by hand before the next night's.
func (s *session) clearAway(ctx context.Context) error {
	unended, err := s.Journal.Unended()
	for tx, bad := range unended {
		if bad != nil || tx.Begin.Workload != s.w.Name || !slices.Contains([]journal.Kind{journal.Capture, journal.Import, journal.Probe}, tx.Begin.Kind) {
			continue // unfinished says so, if it matters
		}
		if resting, err := s.resting(ctx, tx.Begin.Containers); resting || err != nil {
			continue
		}
		s.say("notice: an earlier %s was killed (transaction %s): what it left is cleared away", tx.Begin.Kind, tx.ID)
		r := Recovery{}
		s.recover(ctx, tx, RecoverRequest{}, &r)
		s.audited(s.observer, journal.Audit{Verb: "recover", Workload: s.w.Name, SID: tx.Begin.SID, Tx: tx.ID, Action: r.Action}, s.when, r.Err)
		if r.Err != nil && (r.Pending || r.Action == "") {
			return r.Err
		}
		if r.Err != nil {
			s.say("warning: %v", r.Err)
		}
	}
	return err
}

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
	if c.Notes != nil && len(healed)+len(lost) > 0 {
		whole := store.Keys(healed)
		if err := c.Notes.NoteDamaged(c.Store.ID(), func(k store.MemberKey) bool { return !slices.Contains(whole, k) }, store.Keys(lost)); err != nil {
			warn("%v", err)
		}
	}
	if len(healed) > 0 {
		warn("%s of earlier snapshots had damage in the store or were missing, and the live data still has what was in there, so it is stored again: look at the disk of the store (dmesg, smartctl)", verify.Count(len(healed), "member"))
	}
	if len(lost) == 0 {
		return
	}
	warn("the store has damage in %s of earlier snapshots, or lacks them, and the live data no longer has what was in there; the new snapshot is whole", verify.Count(len(lost), "member"))
	hit, err := verify.Hit(ctx, c.Store, lost)
	for _, p := range hit {
		warn("%s", p)
	}
	if err != nil {
		warn("which snapshots it hits cannot be told: %v", err)
	}
}
