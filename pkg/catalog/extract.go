package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Extraction is a snapshot, or a part of it, that is to be put into a directory.
type Extraction struct {
	Store    *store.Store
	Manifest *store.Manifest
	// Dir is an absolute path. The directory must not exist, or be empty.
	Dir string
	// Chosen are volumes, "VOLUME", and files and directories in them, "VOLUME:PATH";
	// everything for none.
	Chosen []string
	// Options are what the config says of a volume's archive.
	Options func(*store.Volume) archive.ExtractOptions
	Guarded *Guarded
	// Progress is told how many bytes of how many are written of a volume, and Line is
	// given text for the person at the terminal.
	Progress func(volume string, done, total int64)
	Line     func(text string)

	reached func(point string) // tells a test which step was reached; nil outside tests
}

// Extracted is what an extraction made, or would make.
type Extracted struct {
	Dir      string
	Volumes  []ExtractedVolume
	Space    []disk.Room
	Warnings []string
	NotKept  []snapshot.NotKept // what the snapshot has and the directory does not
}

// ExtractedVolume is a volume, or the part of it that was chosen.
type ExtractedVolume struct {
	Name string `json:"name"`
	Path string `json:"path"`
	archive.Stats
}

// OptionsFor are those that w, which may be nil, has for a volume. If it has none, they are
// the defaults, but fifos and devices are left out: nothing says what else to do with them.
func OptionsFor(w *workload.Workload, m *store.Manifest, stored *store.Volume) archive.ExtractOptions {
	if v := OwnVolume(w, m, stored); v != nil {
		return snapshot.ExtractOptions(v)
	}
	return archive.ExtractOptions{Special: archive.SkipSpecial}
}

// OwnVolume returns the volume of w, which may be nil, that the volume of snapshot m is, and
// nil if it has none.
func OwnVolume(w *workload.Workload, m *store.Manifest, stored *store.Volume) *workload.Volume {
	if w == nil {
		return nil
	}
	for i := range w.Volumes {
		if v := &w.Volumes[i]; snapshot.Stored(m, v) == stored {
			return v
		}
	}
	return nil
}

// piece is a volume on its way into the directory.
type piece struct {
	chosen
	rel     string      // of its directory, below the target
	found   *part.Found // of a part
	scanned bool        // found says what the stream says, and not its index
	stats   archive.Stats
	opt     archive.ExtractOptions
}

// Extract puts a snapshot, or a part of it, into a directory. Nothing else is written.
// When it returns nil the directory holds it, whole and durable. After an error the
// directory is as it was before. After a power cut or a kill it holds a directory
// .snap-to-…, by which the next extraction knows that it is not finished.
//
// Whoever owns a directory above it can move it; then Extract fails, and nothing was
// written elsewhere. The metadata follows the rules of every extraction ([archive.Extract]).
func Extract(ctx context.Context, x *Extraction) (*Extracted, error) {
	pieces, t, result, err := x.prepare(ctx)
	if err != nil {
		return nil, err
	}
	return x.carryOut(ctx, t, result, func() error { return x.fill(ctx, t, pieces, result) })
}

// carryOut makes a target, has it filled, and closes it.
func (x *Extraction) carryOut(ctx context.Context, t *target, result *Extracted, fill func() error) (*Extracted, error) {
	defer t.close()
	x.at("opened")
	err := t.make()
	if err == nil {
		x.at("made")
		err = fill()
	}
	if err == nil {
		x.at("filled")
		err = context.Cause(ctx) // a signal is in time until here
	}
	if err == nil {
		err = t.finish(x.at)
	}
	if err == nil {
		return result, nil
	}
	err = fault.Because(ctx, err)
	if undo := t.abort(); undo != nil {
		return nil, fault.New(fault.Failed, "cleanup", remedy.Of("rm -rf "+remedy.Quote(t.path)), "%w; %w", err, undo)
	}
	return nil, x.classify(err)
}

// Plan says what Extract would do, or why it would refuse. It changes nothing.
func Plan(ctx context.Context, x *Extraction) (*Extracted, error) {
	_, t, result, err := x.prepare(ctx)
	if err != nil {
		return nil, err
	}
	t.close()
	return result, nil
}

func (x *Extraction) at(point string) {
	if x.reached != nil {
		x.reached(point)
	}
}

// classify gives damage the hint that fits: another snapshot of the same workload.
func (x *Extraction) classify(err error) error {
	e := fault.Classify(err)
	if e != nil && e.Code == "snapshot_damaged" {
		e.Remedy = fault.Unread(x.Manifest.Workload)
	}
	return e
}

// prepare finds out what is to be made, where, and whether there is room. The caller
// closes the target.
func (x *Extraction) prepare(ctx context.Context) ([]*piece, *target, *Extracted, error) {
	list, err := choose(x.Manifest, x.Chosen)
	if err != nil {
		return nil, nil, nil, err
	}
	pieces, err := x.pieces(ctx, list)
	if err != nil {
		return nil, nil, nil, x.classify(fault.Because(ctx, err))
	}
	t, err := openTarget(x.Dir, x.Guarded.admit)
	if err != nil {
		return nil, nil, nil, fault.Classify(err)
	}
	result := &Extracted{Dir: t.path}
	for _, p := range pieces {
		result.Volumes = append(result.Volumes, ExtractedVolume{p.volume.Name, filepath.Join(t.path, p.rel), p.stats})
	}
	if result.Space, err = room(t, pieces); err != nil {
		t.close()
		return nil, nil, nil, fault.Classify(err)
	}
	return pieces, t, result, nil
}

func (x *Extraction) pieces(ctx context.Context, list []chosen) ([]*piece, error) {
	var pieces []*piece
	for _, c := range list {
		p := &piece{chosen: c, stats: c.volume.Stats, opt: x.Options(c.volume)}
		var err error
		if p.rel, err = place(c.volume.Name, pieces); err != nil {
			return nil, err
		}
		members := c.volume.Members
		if c.choice != nil {
			if err := x.find(ctx, p); err != nil {
				return nil, err
			}
			members = p.found.Members(members)
		}
		if p.stats.Specials > 0 && p.opt.Special == archive.RefuseSpecial {
			return nil, fault.Refuse("special_files", remedy.Of("set `special: skip` for the volume in the config, to leave them out, or `special: keep`; or choose what is needed with VOLUME:PATH"),
				"volume %q: the snapshot holds %d fifos and devices", c.volume.Name, p.stats.Specials)
		}
		if p.stats.Symlinks > 0 && p.opt.RejectSymlinks {
			return nil, fault.Refuse("unrestorable", remedy.Of("set `symlinks: preserve` for the volume in the config, or choose what is needed with VOLUME:PATH"),
				"volume %q: the snapshot holds %d symlinks, and the config says symlinks: reject", c.volume.Name, p.stats.Symlinks)
		}
		if err := Complete(ctx, x.Store, x.Manifest, c.volume.Name, members); err != nil {
			return nil, err
		}
		pieces = append(pieces, p)
	}
	return pieces, nil
}

// place returns where a volume goes below the target. A name that is a path becomes one
// there, without the slash that it begins with, as in an archive of tar.
func place(name string, others []*piece) (string, error) {
	rel := strings.TrimLeft(name, "/")
	way := remedy.Of("choose the volumes one by one, each for a directory of its own")
	if err := tarstream.CheckName(rel); err != nil || strings.HasPrefix(rel, stagePrefix) {
		return "", fault.Refuse("volume_name", remedy.Of("export the volume, and extract the archive with tar"), "volume %q has a name that no directory can have", name)
	}
	for _, o := range others {
		if rel == o.rel || strings.HasPrefix(rel, o.rel+"/") || strings.HasPrefix(o.rel, rel+"/") {
			return "", fault.Refuse("volume_name", way, "volumes %q and %q would be one directory, or one in the other", o.volume.Name, name)
		}
	}
	return rel, nil
}

// Complete refuses a volume some of whose members the store lacks, or has with a length
// with which they cannot be read.
func Complete(ctx context.Context, st *store.Store, m *store.Manifest, volume string, members []archive.Member) error {
	lack, err := st.Lacking(ctx, members)
	if err != nil || !lack.Any() {
		return err
	}
	code, what := "members_missing", "lacks"
	switch {
	case lack.Missing == 0:
		code, what = "snapshot_damaged", "has damage in"
	case lack.Damaged > 0:
		what = "lacks, or has damage in,"
	}
	return fault.Refuse(code, fault.Repair(m.Workload, m.SID), "volume %q: the store %s %d of the %d members that are needed, the first is %s",
		volume, what, lack.Missing+lack.Damaged, len(members), lack.First)
}

// find looks the chosen paths up in the index of the snapshot. Where that cannot be used
// the stream itself says where they are.
func (x *Extraction) find(ctx context.Context, p *piece) error {
	err := x.findIn(indexOf(ctx, x.Store, x.Manifest, p.volume), p)
	if !errors.Is(err, store.ErrIndex) && !errors.Is(err, part.ErrMismatch) {
		return err
	}
	x.Line(scanNotice(x.Manifest, err))
	return x.scan(ctx, p)
}

func (x *Extraction) scan(ctx context.Context, p *piece) error {
	p.scanned = true
	return p.refused(x.findIn(part.Scan(ctx, x.Store, p.volume.Members), p))
}

// refused marks the error of a stream that does not fit itself.
func (p *piece) refused(err error) error {
	if p.scanned && errors.Is(err, part.ErrMismatch) {
		return fmt.Errorf("%w: %w", archive.ErrRefused, err)
	}
	return err
}

func (x *Extraction) findIn(index part.Index, p *piece) error {
	found, err := p.find(x.Manifest, index, p.scanned)
	if err != nil {
		return err
	}
	p.found, p.stats = found, found.Stats
	return nil
}

// find looks up what was chosen of a volume. What an index lacks is missing only if that has
// as much as the manifest counts; what the stream lacks (exact), in any case.
func (c *chosen) find(m *store.Manifest, index part.Index, exact bool) (*part.Found, error) {
	found, err := c.choice.Find(index, len(c.volume.Members))
	if err != nil {
		return nil, fmt.Errorf("volume %s: %w", c.volume.Name, err)
	}
	if len(found.Missing) == 0 {
		return found, nil
	}
	if !exact {
		if _, err := check(index, c.volume); err != nil {
			return nil, err
		}
	}
	return nil, missing(m, c.volume, found.Missing)
}

// indexOf is the stored index of a volume.
func indexOf(ctx context.Context, st *store.Store, m *store.Manifest, v *store.Volume) part.Index {
	return func() (part.Lines, error) {
		r, err := st.OpenPlaces(m)
		if err != nil {
			return nil, err
		}
		if _, err = r.Find(v.Name); errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: it lacks volume %q", store.ErrIndex, v.Name)
		}
		if err != nil {
			return nil, errors.Join(err, r.Close())
		}
		return &lines{r, ctx}, nil
	}
}

// lines are those of one volume. The last is followed by io.EOF only where the whole index
// is in order.
type lines struct {
	*store.IndexReader
	ctx context.Context
}

func (l *lines) Next() (*archive.Line, error) {
	if l.ctx.Err() != nil {
		return nil, context.Cause(l.ctx)
	}
	line, err := l.IndexReader.Next()
	if !errors.Is(err, io.EOF) {
		return line, err
	}
	if err := l.Rest(); err != nil {
		return nil, err
	}
	return nil, io.EOF
}

// room adds up what the filesystem of the target needs.
func room(t *target, pieces []*piece) ([]disk.Room, error) {
	const perEntry = 4096 // a block for what a name and its metadata take
	dir := t.dir
	if dir == nil {
		dir = t.parent
	}
	need := disk.Rooms{}
	for _, p := range pieces {
		bytes := uint64(p.stats.DataBytes)
		if p.found == nil { // the length of the stream bounds what can be written, whatever the manifest says
			bytes = uint64(p.volume.Tar())
		}
		if _, err := need.Add(dir, bytes+perEntry*uint64(p.stats.Entries()), uint64(p.stats.Entries())+2); err != nil {
			return nil, err
		}
	}
	list := need.List()
	for _, r := range list {
		if r.NeedBytes > r.FreeBytes {
			return nil, fault.Refuse("no_space", remedy.Of(fmt.Sprintf("free %d bytes there, name a directory of another filesystem, or choose less with VOLUME or VOLUME:PATH", r.NeedBytes-r.FreeBytes)),
				"the filesystem of %s has %d bytes free, and %d are needed, so %d are missing", t.path, r.FreeBytes, r.NeedBytes, r.NeedBytes-r.FreeBytes)
		}
		if r.NeedInodes > r.FreeInodes {
			return nil, fault.Refuse("no_space", remedy.Of("remove files there, name a directory of another filesystem, or choose less with VOLUME or VOLUME:PATH"),
				"the filesystem of %s has %d inodes free, and %d are needed, so %d are missing", t.path, r.FreeInodes, r.NeedInodes, r.NeedInodes-r.FreeInodes)
		}
	}
	return list, nil
}

// fill makes all volumes in the stage.
func (x *Extraction) fill(ctx context.Context, t *target, pieces []*piece, result *Extracted) error {
	for i, p := range pieces {
		x.Line(fmt.Sprintf("extracting volume %s: %d files, %d bytes", p.volume.Name, p.stats.Files, p.stats.Bytes))
		p.opt.Lost = &archive.Losses{}
		if err := x.fillOne(ctx, t, p); err != nil {
			return fmt.Errorf("volume %s: %w", p.volume.Name, t.dir.WhenFull(err, p.stats.DataBytes))
		}
		list, warnings := snapshot.NotKeptOf(p.volume.Name, p.opt.Lost.List())
		for _, warning := range warnings {
			x.Line("warning: " + warning)
		}
		result.NotKept, result.Warnings = append(result.NotKept, list...), append(result.Warnings, warnings...)
		result.Volumes[i].Stats = p.stats
		x.at("extracted " + p.volume.Name)
	}
	return nil
}

func (x *Extraction) fillOne(ctx context.Context, t *target, p *piece) error {
	above, base, err := descend(t.stage, p.rel)
	if err != nil {
		return err
	}
	defer above.Close()
	err = x.into(ctx, above, base, p)
	// What an index says is not believed: where it is wrong, the stream is asked.
	if p.found == nil || p.scanned || !x.misled(ctx, p, err) {
		return err
	}
	x.Line(fmt.Sprintf("notice: volume %s: %v: all of it is looked through", p.volume.Name, err))
	p.opt.Lost = &archive.Losses{}
	if err := above.RemoveTree(base); err != nil {
		return err
	}
	again := x.scan(ctx, p)
	if again == nil {
		again = x.into(ctx, above, base, p)
	}
	if again != nil && errors.Is(err, archive.ErrRefused) {
		return err // it says more of what was asked for
	}
	return again
}

// misled reports whether err may come from an index that is wrong, and not from a member
// that is damaged: to look through the whole stream may take hours.
func (x *Extraction) misled(ctx context.Context, p *piece, err error) bool {
	if errors.Is(err, part.ErrMismatch) {
		return true
	}
	if !errors.Is(err, archive.ErrRefused) {
		return false
	}
	for _, m := range p.found.Members(p.volume.Members) {
		if archive.Check(ctx, x.Store, m) != nil {
			return false
		}
	}
	return true
}

// descend makes the directories above rel, and returns the last of them.
func descend(from *disk.Dir, rel string) (above *disk.Dir, base string, err error) {
	if above, err = from.Open("."); err != nil {
		return nil, "", err
	}
	parts := strings.Split(rel, "/")
	for _, name := range parts[:len(parts)-1] {
		next, err := above.EnsureUnsynced(name, 0o755)
		above.Close()
		if err != nil {
			return nil, "", err
		}
		above = next
	}
	return above, parts[len(parts)-1], nil
}

// into makes one volume, or the chosen part of it, in a new directory.
func (x *Extraction) into(ctx context.Context, above *disk.Dir, base string, p *piece) error {
	dir, err := above.MakePrivate(base)
	if err != nil {
		return err
	}
	defer dir.Close()
	v, opt := p.volume, p.opt
	opt.MaxEntries, opt.MaxBytes, opt.MaxDepth = v.Entries(), v.Bytes, v.Depth
	back, err := dir.StartWriteBack()
	if err != nil {
		return err
	}
	defer back.End()
	var done atomic.Int64
	total := p.stats.Bytes
	opt.Wrote = func(n int64) {
		back.Wrote(n)
		x.Progress(v.Name, done.Add(n), total)
	}
	x.at("extracting " + v.Name)
	if p.found != nil {
		p.stats, err = part.Extract(ctx, x.Store, v.Members, p.found, dir, opt)
		return p.refused(err)
	}
	tar := archive.NewReader(ctx, x.Store, v.Members)
	defer tar.Close()
	got, err := archive.Extract(ctx, tar, dir, opt)
	if err == nil && got != v.Stats {
		err = fmt.Errorf("%w: it holds %+v, its manifest says %+v", archive.ErrRefused, got, v.Stats)
	}
	return err
}
