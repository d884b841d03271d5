package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// shooting is a capture in progress, in the transaction of a capture, a
// restore or an import: two passes over the same volumes into one batch.
type shooting struct {
	s       *session
	scratch *disk.Dir
	back    *disk.WriteBack // of the members, while more are made
	codec   archive.Codec
	batch   *store.Batch
	places  []*place
	clones  bool // large files are cloned while the app rests, and read when it is awake
	leaving bool // the trees are about to be deleted: no later capture meets them

	one     []*archive.Result  // of the first pass
	added   int64              // bytes that it added to the store
	since   []archive.Timespec // of each place: see archive.Known; zero where nothing can be proven
	clock   time.Duration      // how far the wall clock was ahead when that was noted
	walks   []*archive.Writing // of the second pass, until finish
	results []*archive.Result  // of the second pass
}

// Names in the scratch directory.
const (
	indexName = "index.gz"
	passName  = "pass-one.gz" // the index of the first pass
)

// newShooting prepares a capture of places. Its members wait in the scratch
// folder of the transaction. With verify, members that the store already has
// are read and checked before they are relied upon.
func (s *session) newShooting(ctx context.Context, tx *journal.Tx, places []*place, verify bool) (*shooting, error) {
	scratch, err := s.Store.Scratch(tx.ID)
	if err != nil {
		return nil, err
	}
	codec, err := archive.ParseCodec(string(s.Config.Compression))
	if err != nil {
		return nil, errors.Join(err, scratch.Close())
	}
	back, err := scratch.StartWriteBack()
	if err != nil {
		return nil, errors.Join(err, scratch.Close())
	}
	batch := s.Store.NewBatch(ctx, scratch, verify, codec)
	batch.OnWrite(back.Wrote)
	return &shooting{s: s, scratch: scratch, back: back, codec: codec, batch: batch, places: places}, nil
}

func (c *shooting) close() {
	abandon(c.walks)
	c.back.End()
	c.scratch.Close()
}

// first is the pass while the app runs. It stores what it reads, so that the
// second need read only what has changed since.
func (c *shooting) first(ctx context.Context) error {
	if err := c.batch.Reserve(true); err != nil {
		return err
	}
	if err := c.ahead(ctx); err != nil {
		return err
	}
	if err := c.batch.Reserve(false); err != nil {
		return err
	}
	// What the second pass and the publication have to make durable is then only
	// what they store themselves.
	return c.scratch.SyncFS()
}

// ahead reads what the second pass then need not.
func (c *shooting) ahead(ctx context.Context) error {
	walks, err := c.fromLatest(ctx, passName, false)
	if err == nil {
		c.one, err = finish(walks)
	}
	c.added = c.batch.Added()
	return err
}

// PassOne is what the pass while the app runs has cost: it reads every file once
// at most, and the store grows by no more than what it reads. Space that the
// store's filesystem may need for others it leaves free ([store.Batch.Reserve]).
type PassOne struct {
	ReadBytes  int64 `json:"read_bytes"`
	AddedBytes int64 `json:"added_bytes"`
}

func (c *shooting) passOne() (p PassOne) {
	for _, r := range c.one {
		p.ReadBytes += r.Read
	}
	p.AddedBytes = c.added
	return p
}

// second is the pass that counts, while nothing writes; it is the only one where
// first was not called.
func (c *shooting) second(ctx context.Context) error {
	if err := c.freeze(ctx); err != nil {
		return err
	}
	return c.finish()
}

// freeze is the part of the second pass for which nothing may write: what finish
// still reads are clones, where the filesystem has them.
func (c *shooting) freeze(ctx context.Context) error {
	var err error
	if c.one == nil {
		c.walks, err = c.fromLatest(ctx, indexName, true)
		return err
	}
	if c.clockWentBack() {
		clear(c.since)
	}
	known := &earlier{members: map[string][]archive.Member{}}
	known.index, err = store.ReadIndex(c.scratch, passName, origin())
	if errors.Is(err, store.ErrIndex) { // without /proc no two runs are of one boot
		c.walks, err = c.pass(ctx, indexName, nil, true)
		return err
	}
	if err != nil {
		return err
	}
	defer known.index.Close()
	for i, p := range c.places {
		known.members[p.vol.Name] = c.one[i].Members
	}
	c.walks, err = c.pass(ctx, indexName, known, true)
	return err
}

// cloned returns how many bytes finish is going to read from clones.
func (c *shooting) cloned() (n int64) {
	for _, walk := range c.walks {
		n += walk.Cloned()
	}
	return n
}

// finish is the rest of the second pass.
func (c *shooting) finish() (err error) {
	walks := c.walks
	c.walks = nil
	c.results, err = finish(walks)
	return err
}

func finish(walks []*archive.Writing) ([]*archive.Result, error) {
	var results []*archive.Result
	for i, walk := range walks {
		r, err := walk.Finish()
		if err != nil {
			abandon(walks[i+1:])
			return nil, err
		}
		results = append(results, r)
	}
	return results, nil
}

func abandon(walks []*archive.Writing) {
	for _, walk := range walks {
		walk.Abandon()
	}
}

func writeOptions(v *workload.Volume) archive.WriteOptions {
	return archive.WriteOptions{RejectSymlinks: v.Symlinks == workload.RejectSymlinks}
}

// fromLatest is a pass that does not read what the latest snapshot proves to be
// unchanged. It is the one that counts, or the first of two.
func (c *shooting) fromLatest(ctx context.Context, index string, counts bool) ([]*archive.Writing, error) {
	if err := c.begin(); err != nil {
		return nil, err
	}
	for {
		walks, err := c.upon(ctx, index, counts)
		if err != nil {
			return nil, err
		}
		damaged, err := c.batch.Check(ctx)
		if err == nil && damaged == 0 {
			return walks, nil
		}
		abandon(walks)
		if err != nil {
			return nil, err
		}
		c.s.say("%d pieces that the store has are damaged: storing them anew", damaged)
		if err := c.scratch.Remove(index); err != nil {
			return nil, err
		}
	}
}

// upon is a pass upon what the latest snapshot saw, as far as that is of use.
func (c *shooting) upon(ctx context.Context, index string, counts bool) ([]*archive.Writing, error) {
	known, err := c.latest()
	if err != nil {
		return nil, err
	}
	if known != nil {
		defer known.index.Close()
	}
	walks, err := c.pass(ctx, index, known, counts)
	if !errors.Is(err, store.ErrIndex) {
		return walks, err
	}
	c.s.say("%v: reading everything", err)
	if err := c.scratch.Remove(index); err != nil {
		return nil, err
	}
	return c.pass(ctx, index, nil, counts)
}

// begin makes what has been written to the volumes durable, and with it every
// page of a mapped file unwritable, and notes when.
func (c *shooting) begin() error {
	c.since = make([]archive.Timespec, len(c.places))
	c.clock = wallClock()
	for i, p := range c.places {
		proves, err := p.live.TimesProve()
		if err != nil {
			return err
		}
		if !proves || c.leaving {
			continue
		}
		since := provenBefore(time.Now())
		if err := p.live.SyncFS(); err != nil {
			return err
		}
		c.since[i] = since
	}
	return nil
}

const (
	// clockStep is by how much the clock may be set back unnoticed.
	clockStep = 20 * time.Millisecond
	// stampLag is how much older than a change the time may be that it gets: the
	// clock that stamps files ticks, every 10 ms at the slowest, and some
	// filesystems keep whole seconds (ext4 with inodes of 128 bytes).
	stampLag = time.Second + 10*time.Millisecond
)

// leasesAtRest is how long leases are waited for while the app is down or
// frozen, all of a volume together. Who holds one may be frozen itself.
const leasesAtRest = 2 * time.Second

// provenBefore is a time that no change at or after start is stamped before.
func provenBefore(start time.Time) archive.Timespec {
	t := start.Add(-stampLag - clockStep)
	return archive.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// wallClock returns how far the clock that stamps files is ahead of the one that
// nobody sets. What passes between the two looks makes it less, so the best of a
// few counts.
func wallClock() time.Duration {
	var ahead time.Duration
	for i := range 5 {
		var wall, boot unix.Timespec
		if unix.ClockGettime(unix.CLOCK_REALTIME, &wall) != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil {
			return 0
		}
		if d := time.Duration(wall.Nano() - boot.Nano()); i == 0 || d > ahead {
			ahead = d
		}
	}
	return ahead
}

// clockWentBack reports whether the clock was set back since begin: what was
// written behind that may look older than it is.
func (c *shooting) clockWentBack() bool { return wallClock() < c.clock-clockStep }

// earlier is what an earlier pass or snapshot saw, volume by volume.
type earlier struct {
	index   *store.IndexReader
	members map[string][]archive.Member // by volume
}

// latest opens what the latest snapshot of the workload saw; nil where there is
// nothing that serves.
func (c *shooting) latest() (*earlier, error) {
	if c.leaving {
		return nil, nil
	}
	var m *store.Manifest
	for latest, err := range c.s.Store.All(c.s.w.Name) {
		if err == nil { // what cannot be read cannot serve
			m = latest
			break
		}
	}
	if m == nil {
		return nil, nil
	}
	index, err := c.s.Store.OpenIndex(c.s.w.Name, m.SID, origin())
	if errors.Is(err, store.ErrIndex) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e := &earlier{index: index, members: map[string][]archive.Member{}}
	for i := range m.Volumes {
		v := &m.Volumes[i]
		if v.Compression != c.codec { // the members of one volume are of one codec
			continue
		}
		e.members[v.Name] = v.Members
	}
	return e, nil
}

// volume returns what is known of a volume on a filesystem; nil for nothing. In
// an index that has it further up it is not found again: that is no loss but of
// time.
func (e *earlier) volume(name string, fsid disk.FSID, batch *store.Batch) (*archive.Known, error) {
	if e == nil {
		return nil, nil
	}
	for {
		v, err := e.index.Volume()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if v.Name != name {
			continue
		}
		members, ok := e.members[name]
		if !ok || v.FSID != fsid || v.Since == (archive.Timespec{}) {
			return nil, nil
		}
		return &archive.Known{Next: e.index.Next, Members: members, Since: v.Since, Reuse: batch.Reuse}, nil
	}
}

// whole reads the index to its end, where it shows that it is not damaged.
func (e *earlier) whole() error {
	if e == nil {
		return nil
	}
	for {
		if _, err := e.index.Volume(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// pass walks all volumes, reads what known does not prove to be unchanged, and
// writes an index of them.
func (c *shooting) pass(ctx context.Context, name string, known *earlier, counts bool) (walks []*archive.Writing, err error) {
	index, err := store.NewIndex(c.scratch, name, origin())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			abandon(walks)
			walks = nil
		}
	}()
	for i, p := range c.places {
		walk, err := c.volume(ctx, index, p, c.since[i], known, counts)
		if err != nil {
			_ = index.Close() // it is not published
			return walks, fmt.Errorf("volume %s: %w", p.vol.Name, err)
		}
		walks = append(walks, walk)
	}
	return walks, errors.Join(index.Close(), known.whole())
}

func (c *shooting) volume(ctx context.Context, index *store.Index, p *place, since archive.Timespec, known *earlier, counts bool) (*archive.Writing, error) {
	fsid, err := p.live.Filesystem()
	if err != nil {
		return nil, err
	}
	if err := index.Volume(p.vol.Name, fsid, since); err != nil {
		return nil, err
	}
	opt := writeOptions(p.vol)
	opt.Index, opt.Once, opt.Writers = index.Add, !counts, len(c.places)
	if counts && c.one != nil && !c.leaving {
		opt.Leases = leasesAtRest
	}
	if counts && c.clones {
		opt.Clones = p.parent
	}
	if since != (archive.Timespec{}) {
		if opt.Known, err = known.volume(p.vol.Name, fsid, c.batch); err != nil {
			return nil, err
		}
	}
	return archive.Start(ctx, p.live, c.batch, opt)
}

// still refuses a capture during which a file changed although nothing should
// have been writing.
func (c *shooting) still() error {
	for i, r := range c.results {
		if r.ChangedCount > 0 {
			return refused("in_use", "find what writes there (fuser -vm), end it, then try again",
				"volume %s: something writes to it though the app is stopped: %s", c.places[i].vol.Name, strings.Join(quote(r.Changed), ", "))
		}
	}
	return nil
}

func quote(names []string) []string {
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = fmt.Sprintf("%q", name)
	}
	return out
}

// publish makes the snapshot exist.
func (c *shooting) publish(sid string, reason store.Reason, note, quiesce string, containers []Container) (*store.Manifest, error) {
	m := &store.Manifest{
		Workload: c.s.w.Name, SID: sid, Created: time.Now().UTC(), Reason: reason, Note: note, Quiesce: quiesce,
		Snap: c.s.Version, Images: images(containers), Volumes: []store.Volume{},
	}
	for i, p := range c.places {
		r := c.results[i]
		m.Volumes = append(m.Volumes, store.Volume{
			Name: p.vol.Name, Scope: string(p.vol.Scope), Source: p.vol.Source, Target: p.vol.Target,
			Stats: r.Stats, Sockets: r.Sockets, Changed: r.ChangedCount, Compression: c.codec, Members: r.Members,
		})
	}
	index := indexName
	if c.clockWentBack() { // what it says is proven may not be
		index = ""
	}
	return m, c.batch.Publish(m, index)
}

func images(list []Container) []store.Image {
	out := []store.Image{}
	for service, pin := range pins(list) {
		out = append(out, store.Image{Service: service, Image: pin.Image, ImageID: pin.ImageID, Digest: pin.Digest})
	}
	return out
}
