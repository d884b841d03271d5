package restore

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/intake"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/repair"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Snapshot returns the manifest of a snapshot.
func (e *Engine) Snapshot(name, sid string) (m *store.Manifest, err error) {
	err = e.Read("show", name, sid, func(found *store.Manifest) error { m = found; return nil })
	return m, err
}

// Read calls do with the manifest of a snapshot. No prune removes members until do returns.
func (e *Engine) Read(verb, name, sid string, do func(*store.Manifest) error) error {
	held, err := e.Journal.ShareStore(verb)
	if err != nil {
		return fault.Classify(err)
	}
	defer held.Release()
	m, err := e.snapshot(fault.Failed, name, sid)
	if err != nil {
		return err
	}
	return do(m)
}

// snapshot loads a manifest. For a snapshot that cannot be used its error is of kind.
func (e *Engine) snapshot(kind fault.Kind, name, sid string) (*store.Manifest, error) {
	if err := e.known(name); err != nil {
		return nil, err
	}
	if err := catalog.ValidSID(name, sid); err != nil {
		return nil, err
	}
	if e.Store == nil {
		return nil, fault.New(kind, "snapshot_not_found", remedy.Of("mount the filesystem of the store, or correct `store:` in the config"), "snapshot %s of workload %s: %s", sid, name, e.NoStoreReason())
	}
	return catalog.Load(e.Store, kind, name, sid)
}

// known refuses a workload that neither the config nor the store has. Snapshots outlive
// the config that they were taken with.
func (e *Engine) known(name string) error {
	_, err := e.Config.Workload(name)
	if err == nil || e.Store == nil {
		return err
	}
	stored, listErr := e.Store.Workloads()
	if listErr != nil {
		return fault.Classify(listErr)
	}
	if slices.Contains(stored, name) {
		return nil
	}
	return err
}

// Export writes a volume of a snapshot to w: see [catalog.Export].
func (e *Engine) Export(ctx context.Context, name, sid, volume, compression string, w io.Writer) (x *catalog.Exported, err error) {
	err = e.Read("export", name, sid, func(m *store.Manifest) (err error) {
		x, err = catalog.Export(ctx, e.Store, m, volume, compression, w)
		return err
	})
	return x, err
}

// ExtractRequest asks for a snapshot, or a part of it, in a directory beside everything.
type ExtractRequest struct {
	Workload, SID string
	Dir           string   // an absolute path
	Chosen        []string // see [catalog.Extraction]
	Plan          bool     // say what would be done, and change nothing
	Config        bool     // not the data, but what the snapshot keeps of the config
}

// Extract puts a snapshot, or a part of it, into a directory: see [catalog.Extract]. It
// touches no live data and no container, and takes no workload's lock.
func (e *Engine) Extract(ctx context.Context, req ExtractRequest) (*catalog.Extracted, error) {
	held, err := e.Journal.ShareStore("restore --to") // no member goes meanwhile
	if err != nil {
		return nil, fault.Classify(err)
	}
	defer held.Release()
	when, o := time.Now(), observer(ctx)
	m, err := e.snapshot(fault.Refused, req.Workload, req.SID)
	if err != nil {
		return nil, err
	}
	guarded := &catalog.Guarded{Config: e.Config, Own: []*disk.Dir{e.Store.Root(), e.Journal.Root()}}
	notices := guarded.Add(func(w *workload.Workload) (*workload.Workload, string, error) {
		own, mounts, err := e.asked(ctx, w)
		if err != nil {
			return nil, "", err
		}
		return own, mounts.Root, nil
	})
	for _, line := range notices {
		o.Line("warning: " + line)
	}
	w, _ := e.Config.Workload(req.Workload) // the store may have what the config no longer has
	x := &catalog.Extraction{
		Store: e.Store, Manifest: m, Dir: req.Dir, Chosen: req.Chosen, Guarded: guarded, Progress: o.Progress, Line: o.Line,
		Options: func(v *store.Volume) archive.ExtractOptions { return catalog.OptionsFor(w, m, v) },
	}
	if req.Plan {
		found, err := catalog.Plan(ctx, x)
		return withWarnings(found, notices), err
	}
	o.Phase(Stage)
	extract := catalog.Extract
	if req.Config {
		extract = catalog.ExtractConfig
	}
	done, err := extract(ctx, x)
	e.audited(o, journal.Audit{Verb: "extract", Workload: req.Workload, SID: req.SID, To: req.Dir}, when, err)
	return withWarnings(done, notices), err
}

func withWarnings(x *catalog.Extracted, first []string) *catalog.Extracted {
	if x != nil {
		x.Warnings = append(first, x.Warnings...)
	}
	return x
}

// Looked returns a workload whose volumes can be opened for a look. Nothing is locked.
func (e *Engine) Looked(ctx context.Context, name string) (*preflight.Host, error) {
	w, err := e.Config.Workload(name)
	h := &preflight.Host{Config: e.Config, Workload: w, Store: e.Store, Journal: e.Journal}
	if err == nil && w.AsksEngine() {
		h.Workload, h.Mounts, err = e.asked(ctx, w)
	}
	return h, err
}

// asked returns a workload with the volumes that the engine knows. An engine that hangs is
// no reason to wait for data that lies in the store.
func (e *Engine) asked(ctx context.Context, w *workload.Workload) (*workload.Workload, *runtime.Mounts, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	rt, err := e.Runtime(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	defer rt.Close()
	return e.withVolumes(ctx, rt, w)
}

// ImportResult is a snapshot made from a foreign archive.
type ImportResult struct {
	Manifest     *store.Manifest
	*intake.Tree // what the archive has and the snapshot has not
	Seconds      float64
}

// Import makes a snapshot of one volume of a workload from a .tar, .tar.gz or .tar.zst
// that another program made. The archive is extracted beside the volume, under the rules
// of every untrusted archive, and captured from there. When it returns nil the snapshot
// exists durably; after an error it does not. A read of in must end when ctx does.
func (e *Engine) Import(ctx context.Context, name, volume string, in io.Reader, note string) (*ImportResult, error) {
	s, err := e.begin(ctx, "import", name)
	if err != nil {
		return nil, err
	}
	defer s.close()
	i := &importing{session: s, sid: disk.NewID(time.Now()), note: note}
	result, err := i.run(ctx, volume, in)
	s.audit(i.sid, "", err)
	return result, err
}

type importing struct {
	*session
	sid, note string
	result    ImportResult
}

func (i *importing) run(ctx context.Context, volume string, in io.Reader) (*ImportResult, error) {
	v, err := i.w.Volume(volume)
	if err != nil {
		return nil, fault.New(fault.Usage, "no_such_volume", remedy.Of(i.w.Meant(volume)), "%w", err)
	}
	if err := errors.Join(i.clearAway(ctx), i.unfinished()); err != nil {
		return nil, fault.Classify(err)
	}
	tx, err := i.open(&journal.Begin{Kind: journal.Import, SID: i.sid})
	if err != nil {
		return nil, fault.Classify(err)
	}
	if err := i.take(ctx, tx, v, in); err != nil {
		err = fault.Because(ctx, err)
		if undo := errors.Join(i.result.Clear(), i.undoCapture(context.WithoutCancel(ctx), tx)); undo != nil {
			return nil, fault.New(fault.Pending, "cleanup", remedy.Of(remedy.Recover(i.w.Name)), "%w; the clean-up is not finished: %w", err, undo)
		}
		return nil, intake.Fault(err)
	}
	if err := errors.Join(i.result.Clear(), i.Store.Clear(tx.ID), tx.End()); err != nil {
		return nil, fault.New(fault.Pending, "cleanup", remedy.Of(remedy.Recover(i.w.Name)), "snapshot %s exists, but the clean-up is not finished: %w", i.sid, err)
	}
	i.result.Seconds = time.Since(i.when).Seconds()
	return &i.result, nil
}

func (i *importing) take(ctx context.Context, tx *journal.Tx, v *workload.Volume, in io.Reader) error {
	scratch, err := i.Store.Scratch(tx.ID)
	if err != nil {
		return err
	}
	defer scratch.Close()
	req := &intake.Request{Volume: v, Begin: i.open, Elsewhere: func() (*disk.Dir, error) { return scratch.MakePrivate("tree") }, Archive: in}
	if req.Place, err = i.host().OpenOne(v); err == nil {
		defer req.Place.Close()
	}
	var done atomic.Int64
	req.Wrote = func(n int64) { i.observer.Progress(v.Name, done.Add(n), 0) }
	if i.result.Tree, err = intake.Extract(ctx, req); err != nil {
		return err
	}
	i.result.Manifest = &store.Manifest{SID: i.sid, Reason: store.Manual, Note: i.note, Quiesce: runtime.None}
	return i.publishLeaving(ctx, tx, []snapshot.Source{{Volume: v, Live: i.result.Dir}}, false, i.result.Manifest)
}

// Verify looks for damage in the store, and repairs it: see [repair.Host.Run].
func (e *Engine) Verify(ctx context.Context, req repair.Request) (*repair.Result, error) {
	st, err := e.stored()
	if err != nil {
		return nil, fault.Classify(err)
	}
	o := observer(ctx)
	h := &repair.Host{
		Store: st, Journal: e.Journal, Known: e.known, Notes: e.Notes, Live: e.live, Line: o.Line,
		Progress: func(done, total int64) { o.Progress("", done, total) },
		Record:   func(a journal.Audit, start time.Time, err error) { e.audited(o, a, start, err) },
	}
	return h.Run(ctx, req)
}

// live calls do with the volumes of a workload, under its locks. The app runs on.
func (e *Engine) live(ctx context.Context, name string, do func([]snapshot.Source) error) error {
	s, err := e.begin(ctx, "verify", name)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.unfinished(); err != nil {
		return err
	}
	var opened []*swap.Volume
	defer func() { swap.CloseAll(opened) }()
	for i := range s.w.Volumes {
		v, err := s.host().OpenOne(&s.w.Volumes[i])
		if err != nil {
			return err
		}
		opened = append(opened, v)
	}
	return do(s.sources(opened))
}
