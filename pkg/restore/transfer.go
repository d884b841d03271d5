package restore

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Snapshot returns the manifest of a snapshot.
func (e *Engine) Snapshot(name, sid string) (*store.Manifest, error) {
	held, err := e.Journal.ShareStore("show")
	if err != nil {
		return nil, fault.Classify(err)
	}
	defer held.Release()
	return e.snapshot(name, sid)
}

func (e *Engine) snapshot(name, sid string) (*store.Manifest, error) {
	if _, err := e.Config.Workload(name); err != nil {
		return nil, err
	}
	if err := catalog.ValidSID(name, sid); err != nil {
		return nil, err
	}
	if e.Store == nil {
		return nil, fault.New(fault.Failed, "snapshot_not_found", remedy.Of("mount the filesystem of the store, or correct `store:` in the config"), "snapshot %s of workload %s: %s", sid, name, e.noStore())
	}
	return catalog.Load(e.Store, fault.Failed, name, sid)
}

// Export writes a volume of a snapshot to w: see [catalog.Export].
func (e *Engine) Export(ctx context.Context, name, sid, volume, compression string, w io.Writer) (*catalog.Exported, error) {
	held, err := e.Journal.ShareStore("export") // no member goes meanwhile
	if err != nil {
		return nil, fault.Classify(err)
	}
	defer held.Release()
	m, err := e.snapshot(name, sid)
	if err != nil {
		return nil, err
	}
	return catalog.Export(ctx, e.Store, m, volume, compression, w)
}

// ImportResult is a snapshot made from a foreign archive.
type ImportResult struct {
	Manifest *store.Manifest
	Dropped  map[string]int64 // metadata that the archive has and a volume does not carry
	Seconds  float64
}

// Import makes a snapshot of one volume of a workload from a .tar, .tar.gz or
// .tar.zst that another program made. The archive is extracted in the store, under the rules
// of every untrusted archive, and captured from there. When it returns nil the
// snapshot exists durably; after an error it does not.
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
		return nil, fault.New(fault.Usage, "no_such_volume", remedy.Remedy{}, "%w", err)
	}
	if err := i.unfinished(); err != nil {
		return nil, fault.Classify(err)
	}
	tx, err := i.open(&journal.Begin{Kind: journal.Import, SID: i.sid})
	if err != nil {
		return nil, fault.Classify(err)
	}
	if err := i.take(ctx, tx, v, in); err != nil {
		err = fault.Because(ctx, err)
		if undo := i.undoCapture(context.WithoutCancel(ctx), tx); undo != nil {
			return nil, fault.New(fault.Pending, "cleanup", remedy.Of(remedy.Recover(i.w.Name)), "%w; the clean-up is not finished: %w", err, undo)
		}
		return nil, importFault(err)
	}
	if err := errors.Join(i.Store.Clear(tx.ID), tx.End()); err != nil {
		return nil, fault.New(fault.Pending, "cleanup", remedy.Of(remedy.Recover(i.w.Name)), "snapshot %s exists, but the clean-up is not finished: %w", i.sid, err)
	}
	i.result.Seconds = time.Since(i.when).Seconds()
	return &i.result, nil
}

// importFault gives a refused archive its own hint: another snapshot would not help.
func importFault(err error) error {
	e := fault.Classify(err)
	if e.Code == "snapshot_damaged" {
		e.Code, e.Remedy = "archive_refused", remedy.Of("make the archive again with GNU tar, and gzip or zstd, without what the error names")
	}
	return e
}

func (i *importing) take(ctx context.Context, tx *journal.Tx, v *workload.Volume, in io.Reader) error {
	scratch, err := i.Store.Scratch(tx.ID)
	if err != nil {
		return err
	}
	defer scratch.Close()
	tree, err := scratch.MakePrivate("tree")
	if err != nil {
		return err
	}
	defer tree.Close()
	free, err := tree.Space()
	if err != nil {
		return err
	}
	opt := snapshot.ExtractOptions(v)
	opt.MaxEntries, opt.MaxBytes, opt.MaxDepth = int64(min(free.Inodes, 1<<40)), int64(min(free.Bytes, 1<<62)), archive.MaxDepth
	opt.Default = i.rootDefault(v)
	found, err := archive.ExtractForeign(ctx, in, tree, opt)
	if err != nil {
		return err
	}
	i.result = ImportResult{
		Dropped:  found.Dropped,
		Manifest: &store.Manifest{SID: i.sid, Reason: store.Manual, Note: i.note, Quiesce: runtime.None},
	}
	return i.publishLeaving(ctx, tx, []snapshot.Source{{Volume: v, Live: tree}}, false, i.result.Manifest)
}

// rootDefault is the metadata of directories that an archive leaves out.
func (i *importing) rootDefault(v *workload.Volume) archive.Entry {
	p, err := i.host().OpenOne(v)
	if err != nil {
		return archive.DefaultDirectory(nil)
	}
	defer p.Close()
	return archive.DefaultDirectory(p.Live)
}
