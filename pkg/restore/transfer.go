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
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Snapshot returns the manifest of a snapshot.
func (e *Engine) Snapshot(name, sid string) (*store.Manifest, error) {
	s, err := e.view("show")
	if err != nil {
		return nil, err
	}
	defer s.close()
	return e.snapshot(name, sid)
}

func (e *Engine) snapshot(name, sid string) (*store.Manifest, error) {
	if _, err := e.Config.Workload(name); err != nil {
		return nil, err
	}
	if !disk.ValidID(sid) {
		return nil, fault(Usage, "bad_sid", remedy.Of(remedy.List(name)), "%q is not the id of a snapshot", sid)
	}
	if e.Store == nil {
		return nil, fault(Failed, "snapshot_not_found", remedy.Of("mount the filesystem of the store, or correct `store:` in the config"), "snapshot %s of workload %s: %s", sid, name, e.noStore())
	}
	m, err := e.Store.Load(name, sid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault(Failed, "snapshot_not_found", remedy.Of(remedy.List(name)), "there is no snapshot %s of workload %s", sid, name)
	}
	if errors.Is(err, disk.ErrTooNew) {
		return nil, fault(Failed, "snapshot_too_new", remedy.Of("use the version of snap that made it, or a newer one"), "%w", err)
	}
	if err != nil {
		return nil, fault(Failed, "snapshot_damaged", remedy.Of(remedy.List(name)), "%w", err)
	}
	return m, nil
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
	s, err := e.view("export")
	if err != nil {
		return nil, err
	}
	defer s.close()
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
			return nil, fault(Usage, "usage", remedy.Remedy{}, "%w", err)
		}
	}
	if err := archive.Join(ctx, w, e.Store, v.Members, codec); err != nil {
		e := classify(because(ctx, fmt.Errorf("export volume %s: %w", v.Name, err)))
		if e.Code == "snapshot_damaged" { // no pre-flight has refused it
			return nil, fault(Failed, e.Code, remedy.Of("export another snapshot (", remedy.List(name), "), or copy the store's files back from a backup"), "%w", err)
		}
		return nil, e
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
		return nil, fault(Usage, "volume_required", remedy.Of("choose one with --volume"), "the snapshot has %d volumes: %v", len(m.Volumes), names)
	}
	return nil, fault(Usage, "no_such_volume", remedy.Remedy{}, "the snapshot has no volume %q; it has %v", name, names)
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
	dropped   map[string]int64
}

func (i *importing) run(ctx context.Context, volume string, in io.Reader) (*ImportResult, error) {
	v, err := i.w.Volume(volume)
	if err != nil {
		return nil, fault(Usage, "no_such_volume", remedy.Remedy{}, "%w", err)
	}
	if err := i.unfinished(); err != nil {
		return nil, classify(err)
	}
	tx, err := i.Journal.Begin(i.held, &journal.Begin{Kind: journal.Import, SID: i.sid, Snap: i.Version})
	if err != nil {
		return nil, classify(err)
	}
	m, err := i.take(ctx, tx, v, in)
	if err != nil {
		err = because(ctx, err)
		if undo := i.undoCapture(context.WithoutCancel(ctx), tx); undo != nil {
			return nil, fault(Pending, "cleanup", remedy.Of(remedy.Recover(i.w.Name)), "%w; the clean-up is not finished: %w", err, undo)
		}
		return nil, importFault(err)
	}
	if err := errors.Join(i.clear(tx.ID), tx.End()); err != nil {
		return nil, fault(Pending, "cleanup", remedy.Of(remedy.Recover(i.w.Name)), "snapshot %s exists, but the clean-up is not finished: %w", i.sid, err)
	}
	return &ImportResult{Manifest: m, Dropped: i.dropped, Seconds: time.Since(i.when).Seconds()}, nil
}

// importFault gives a refused archive its own hint: another snapshot would not help.
func importFault(err error) error {
	e := classify(err)
	if e.Code == "snapshot_damaged" {
		return refused("archive_refused", remedy.Of("make the archive again with GNU tar, and gzip or zstd, without what the error names"), "%w", err)
	}
	return e
}

func (i *importing) take(ctx context.Context, tx *journal.Tx, v *workload.Volume, in io.Reader) (*store.Manifest, error) {
	scratch, err := i.Store.Scratch(tx.ID)
	if err != nil {
		return nil, err
	}
	defer scratch.Close()
	tree, err := scratch.MakePrivate("tree")
	if err != nil {
		return nil, err
	}
	defer tree.Close()
	free, err := tree.Space()
	if err != nil {
		return nil, err
	}
	found, err := archive.ExtractForeign(ctx, in, tree, archive.ExtractOptions{
		RejectSymlinks: v.Symlinks == workload.RejectSymlinks,
		KeepPrivileges: v.Setuid == workload.KeepSetuid,
		MaxEntries:     int64(min(free.Inodes, 1<<40)),
		MaxBytes:       int64(min(free.Bytes, 1<<62)),
		MaxDepth:       archive.MaxDepth,
		Default:        i.rootDefault(v),
	})
	if err != nil {
		return nil, err
	}
	i.dropped = found.Dropped
	capture, err := i.newCapture(ctx, tx, []snapshot.Source{{Volume: v, Live: tree}}, snapshot.Options{Leaving: true})
	if err != nil {
		return nil, err
	}
	defer capture.Close()
	if err := capture.PassTwo(ctx); err != nil {
		return nil, err
	}
	m := &store.Manifest{SID: i.sid, Reason: store.Manual, Note: i.note, Quiesce: runtime.None, Images: images(nil)}
	return m, capture.Publish(m)
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
	if p.Live == nil {
		return e
	}
	if st, err := p.Live.Stat(); err == nil {
		e.Mode, e.UID, e.GID = st.Mode&0o7777, st.Uid, st.Gid
	}
	return e
}
