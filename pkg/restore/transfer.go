package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
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
	if err := validSID(name, sid); err != nil {
		return nil, err
	}
	if e.Store == nil {
		return nil, fault.New(fault.Failed, "snapshot_not_found", remedy.Of("mount the filesystem of the store, or correct `store:` in the config"), "snapshot %s of workload %s: %s", sid, name, e.noStore())
	}
	return e.load(fault.Failed, name, sid)
}

func validSID(workload, sid string) error {
	if !disk.ValidID(sid) {
		return fault.New(fault.Usage, "bad_sid", remedy.Of(remedy.List(workload)), "%q is not the id of a snapshot", sid)
	}
	return nil
}

// load reads a manifest. For a snapshot that cannot be used its error is of kind.
func (e *Engine) load(kind fault.Kind, workload, sid string) (*store.Manifest, error) {
	m, err := e.Store.Load(workload, sid)
	switch {
	case err == nil:
		return m, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(kind, "snapshot_not_found", remedy.Of(remedy.List(workload)), "there is no snapshot %s of workload %s", sid, workload)
	case errors.Is(err, disk.ErrTooNew):
		return nil, fault.New(kind, "snapshot_too_new", remedy.Of("use the version of snap that made it, or a newer one"), "%w", err)
	case errors.Is(err, disk.ErrDamaged):
		return nil, fault.New(kind, "snapshot_damaged", fault.UseAnother(workload), "%w", err)
	}
	return nil, fault.Classify(err)
}

// Exported is a volume as it was written: Compression is that of the file.
type Exported struct {
	*store.Volume
	Compression string
}

// Export writes a volume of a snapshot to w as one .tar.gz or .tar.zst. volume may be
// "" if the snapshot has only one; with compression "" the snapshot's is used. Every
// byte is checked against the store's checksums before it is written. After an error
// w holds only a part.
func (e *Engine) Export(ctx context.Context, name, sid, volume, compression string, w io.Writer) (*Exported, error) {
	held, err := e.Journal.ShareStore("export") // no member goes meanwhile
	if err != nil {
		return nil, fault.Classify(err)
	}
	defer held.Release()
	m, err := e.snapshot(name, sid)
	if err != nil {
		return nil, err
	}
	v, err := exported(m, volume)
	if err != nil {
		return nil, err
	}
	codec := v.Compression
	if compression != "" {
		if codec, err = archive.ParseCodec(compression); err != nil {
			return nil, fault.New(fault.Usage, "usage", remedy.Remedy{}, "%w", err)
		}
	}
	if err := archive.Join(ctx, w, e.Store, v.Members, codec); err != nil {
		err := fault.Classify(fault.Because(ctx, fmt.Errorf("export volume %s: %w", v.Name, err)))
		if err.Code == "snapshot_damaged" { // no pre-flight has refused it
			err.Kind, err.Remedy = fault.Failed, remedy.Of("export another snapshot (", remedy.List(name), "), or copy the store's files back from a backup")
		}
		return nil, err
	}
	return &Exported{v, codec.String()}, nil
}

func exported(m *store.Manifest, name string) (*store.Volume, error) {
	var names []string
	for i := range m.Volumes {
		if v := &m.Volumes[i]; v.Name == name || name == "" && len(m.Volumes) == 1 {
			return v, nil
		}
		names = append(names, fmt.Sprintf("%q", m.Volumes[i].Name))
	}
	if name == "" {
		return nil, fault.New(fault.Usage, "volume_required", remedy.Of("choose one with --volume"), "the snapshot has %d volumes: %v", len(names), names)
	}
	return nil, fault.New(fault.Usage, "no_such_volume", remedy.Remedy{}, "the snapshot has no volume %q; it has %v", name, names)
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
	tx, err := i.Journal.Begin(i.held, &journal.Begin{Kind: journal.Import, SID: i.sid, Snap: i.Version})
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
	opt := extractOptions(v)
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

// rootDefault is the metadata of directories that an archive leaves out: that of the
// live directory, or what mkdir gives.
func (i *importing) rootDefault(v *workload.Volume) archive.Entry {
	now := time.Now()
	e := archive.Entry{Mode: 0o755, UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mtime: archive.Timespec{Sec: now.Unix()}}
	p, err := i.openLiveOne(v)
	if err != nil {
		return e
	}
	defer p.Close()
	if p.Live != nil {
		if st, err := p.Live.Stat(); err == nil {
			e.Mode, e.UID, e.GID = st.Mode&0o7777, st.Uid, st.Gid
		}
	}
	return e
}
