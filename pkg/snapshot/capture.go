package snapshot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Source is one volume to capture.
type Source struct {
	Volume *workload.Volume
	Live   *disk.Dir // the tree, or the one file
	Parent *disk.Dir // of Live, for clones; may be nil where none are made
}

// Options say what snapshot is made, and how.
type Options struct {
	Workload string
	Snap     string // the program's version
	Codec    archive.Codec
	// Verify re-reads and checks members that are already in the store, before the
	// snapshot relies on them.
	Verify bool
	// Scrub, where Verify is not set, says how much of what is used again is read first,
	// in turn. Nil: nothing.
	Scrub *Scrub
	// Suspect are members that were found damaged earlier. They are read before the
	// snapshot relies on them.
	Suspect []store.MemberKey
	// Compare, if set, says that the capture is only compared with this snapshot
	// ([Capture.Same]) and never published. It writes nothing of what is in the store
	// already, so that it needs no room there.
	Compare *store.Manifest
	// Kept is published with the snapshot: see [store.Batch.Keep]. Nil: nothing is.
	Kept []byte
	// Leaving says that the trees are about to be deleted: no later capture reads
	// them, so the index need prove nothing, and no other index is believed.
	Leaving bool
	// Say receives progress lines. May be nil.
	Say func(format string, args ...any)
}

// Capture is a snapshot being made.
type Capture struct {
	// Clones means that large files are cloned while the app is at rest, and read when
	// it runs again. Set it before Freeze.
	Clones bool

	began   time.Time
	scrubs  bool
	opt     Options
	store   *store.Store
	scratch *disk.Dir
	back    *disk.WriteBack // of the members, while more are made
	batch   *store.Batch
	sources []Source

	one     []*archive.Result  // of the first pass
	added   int64              // bytes that it added to the store
	since   []archive.Timespec // of each source: see archive.Known; zero where nothing can be proven
	clock   time.Duration      // how far the wall clock was ahead when that was noted
	walks   []*archive.Writing // of the second pass, until Finish
	results []*archive.Result  // of the second pass
}

// Start prepares a capture of sources. New members go to scratch first, a new
// directory on the store's filesystem, which the Capture closes.
func Start(ctx context.Context, st *store.Store, scratch *disk.Dir, sources []Source, opt Options) (*Capture, error) {
	back, err := scratch.StartWriteBack()
	if err != nil {
		return nil, errors.Join(err, scratch.Close())
	}
	batch := st.NewBatch(ctx, scratch, opt.Verify, opt.Codec)
	batch.OnWrite(back.Wrote)
	batch.Suspect(opt.Suspect)
	return &Capture{began: time.Now(), opt: opt, store: st, scratch: scratch, back: back, batch: batch, sources: sources}, nil
}

func (c *Capture) say(format string, args ...any) {
	if c.opt.Say != nil {
		c.opt.Say(format, args...)
	}
}

// Origin is the machine and boot on which the inodes and times of a capture are
// valid. If the host does not tell them, nothing counts as unchanged.
func Origin() store.Origin {
	read := func(path string) string {
		id, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(id))
	}
	return store.Origin{Machine: read("/etc/machine-id"), Boot: read("/proc/sys/kernel/random/boot_id")}
}

// Names in the scratch directory.
const (
	indexName = "index.gz"
	passName  = "pass-one.gz" // the index of the first pass
)

// Close gives up what was not published. It may also be called after Publish.
func (c *Capture) Close() {
	abandon(c.walks)
	c.back.End()
	c.scratch.Close()
}

// PassOne is the pass while the app runs. It stores what it reads, so that the
// second pass need read only what has changed since. It leaves some space free for
// other users of the store's filesystem ([store.Batch.Reserve]).
func (c *Capture) PassOne(ctx context.Context) error {
	if err := c.batch.Reserve(true); err != nil {
		return err
	}
	if err := c.Ahead(ctx); err != nil {
		return err
	}
	if err := c.batch.Reserve(false); err != nil {
		return err
	}
	// Now, so that the second pass and the publication need make durable only what
	// they store themselves.
	return c.scratch.SyncFS()
}

// Ahead is PassOne for trees that no app uses: the second pass need not read what
// Ahead has read.
func (c *Capture) Ahead(ctx context.Context) error {
	walks, err := c.fromLatest(ctx, passName, false)
	if err == nil {
		c.one, err = finish(walks)
	}
	c.added = c.batch.Added()
	return err
}

// Cost is the cost of the pass while the app runs, which reads every file at most
// once. The store grows by no more than the pass reads.
type Cost struct {
	ReadBytes  int64 `json:"read_bytes"`
	AddedBytes int64 `json:"added_bytes"`
}

// Cost returns the cost of PassOne so far.
func (c *Capture) Cost() (cost Cost) {
	for _, r := range c.one {
		cost.ReadBytes += r.Read
	}
	cost.AddedBytes = c.added
	return cost
}

// PassTwo is the pass that counts, while nothing writes. Without PassOne it is the
// only pass.
func (c *Capture) PassTwo(ctx context.Context) error {
	if err := c.Freeze(ctx); err != nil {
		return err
	}
	return c.Finish()
}

// Freeze is the part of the second pass during which nothing may write. After it
// Finish reads only clones, where the filesystem has them.
func (c *Capture) Freeze(ctx context.Context) error {
	var err error
	if c.one == nil {
		c.walks, err = c.fromLatest(ctx, indexName, true)
		return err
	}
	if c.clockWentBack() {
		clear(c.since)
	}
	var known *earlier
	index, err := store.ReadPlaces(c.scratch, passName)
	if err == nil {
		defer index.Close()
		known = &earlier{index: index, members: map[string][]archive.Member{}, proves: index.Of(Origin())}
		for i, p := range c.sources {
			known.members[p.Volume.Name] = c.one[i].Members
		}
	} else if !errors.Is(err, store.ErrIndex) {
		return err
	}
	c.walks, err = c.pass(ctx, indexName, known, true)
	return err
}

// Cloned returns how many bytes Finish is going to read from clones.
func (c *Capture) Cloned() (n int64) {
	for _, walk := range c.walks {
		n += walk.Cloned()
	}
	return n
}

// Finish is the rest of the second pass.
func (c *Capture) Finish() (err error) {
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

// WriteOptions are how a volume is walked.
func WriteOptions(v *workload.Volume) archive.WriteOptions {
	return archive.WriteOptions{
		RejectSymlinks: v.Symlinks == workload.RejectSymlinks,
		KeepPrivileges: v.Setuid == workload.KeepSetuid,
		Special:        Special(v),
		Exclude:        v.Excludes,
		ExcludeCaches:  v.ExcludeCaches,
	}
}

// Special is what becomes of fifos and devices of a volume.
func Special(v *workload.Volume) archive.Special {
	return map[workload.Special]archive.Special{
		workload.SkipSpecial: archive.SkipSpecial, workload.KeepSpecial: archive.KeepSpecial,
	}[v.Special] // anything else is refused
}

// fromLatest is a pass that does not read what the latest snapshot proves to be
// unchanged. It is the pass that counts, or the first of two.
func (c *Capture) fromLatest(ctx context.Context, index string, counts bool) ([]*archive.Writing, error) {
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
		c.say("%d members in the store are damaged: storing them again", damaged)
		if err := c.drop(index); err != nil {
			return nil, err
		}
	}
}

// upon is a pass that builds on the latest snapshot, if its index is usable.
func (c *Capture) upon(ctx context.Context, index string, counts bool) ([]*archive.Writing, error) {
	known, err := c.latest()
	if err != nil {
		return nil, err
	}
	if known != nil {
		defer known.index.Close()
	}
	walks, err := c.pass(ctx, index, known, counts)
	if !errors.Is(err, store.ErrIndex) && !errors.Is(err, archive.ErrOrder) {
		return walks, err
	}
	c.say("%v: reading everything", err)
	if err := c.drop(index); err != nil {
		return nil, err
	}
	return c.pass(ctx, index, nil, counts)
}

// begin syncs the volumes and notes when. The sync also makes every page of a mapped
// file unwritable, so that the next store to a page shows.
func (c *Capture) begin() error {
	c.since = make([]archive.Timespec, len(c.sources))
	c.clock = wallClock()
	for i, p := range c.sources {
		proves, err := p.Live.TimesProve()
		if err != nil {
			return err
		}
		if !proves || c.opt.Leaving {
			continue
		}
		since := provenBefore(time.Now())
		if err := p.Live.SyncFS(); err != nil {
			return err
		}
		c.since[i] = since
	}
	return nil
}

const (
	// clockStep is by how much the clock may be set back unnoticed.
	clockStep = 20 * time.Millisecond
	// stampLag is by how much a file's time may be older than the change itself: the
	// clock that stamps files ticks, every 10 ms at the slowest, and some filesystems
	// keep whole seconds (ext4 with inodes of 128 bytes).
	stampLag = time.Second + 10*time.Millisecond
)

// leasesAtRest is how long a pass waits for leases while the app is down or frozen,
// in all for one volume. The holder of a lease may be frozen itself.
const leasesAtRest = 2 * time.Second

// provenBefore is a time such that no change at or after start has an older stamp.
func provenBefore(start time.Time) archive.Timespec {
	t := start.Add(-stampLag - clockStep)
	return archive.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
}

// wallClock returns how far the clock that stamps files is ahead of the clock that
// nobody can set. Time that passes between the two readings makes the result
// smaller, so the largest of a few counts.
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

// clockWentBack reports whether the clock was set back since begin, so that a file
// written later may look older than it is.
func (c *Capture) clockWentBack() bool { return wallClock() < c.clock-clockStep }

// earlier is what an earlier pass or snapshot saw, volume by volume.
type earlier struct {
	index   *store.IndexReader
	members map[string][]archive.Member // by volume
	names   map[string]string           // of volumes that had another name, by the name of now
	other   map[string]bool             // volumes whose members have another codec
	proves  bool                        // what is unchanged; if not, it only says where the streams are cut
}

// latest opens the index of the workload's latest snapshot, or of the one to compare
// with. It returns nil if no index is usable.
func (c *Capture) latest() (*earlier, error) {
	if c.opt.Compare != nil {
		return c.seenBy(c.opt.Compare)
	}
	for m, err := range c.store.All(c.opt.Workload) {
		if err == nil { // an unreadable snapshot is of no use
			return c.seenBy(m)
		}
	}
	return nil, nil
}

func (c *Capture) seenBy(m *store.Manifest) (*earlier, error) {
	if !c.opt.Leaving {
		c.scrub(m)
	}
	index, err := c.store.OpenPlaces(m)
	if errors.Is(err, store.ErrIndex) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e := &earlier{index: index, members: map[string][]archive.Member{}, names: map[string]string{}, other: map[string]bool{}, proves: !c.opt.Leaving && index.Of(Origin())}
	for i := range m.Volumes {
		v := &m.Volumes[i] // all members of a volume have one codec
		e.members[v.Name], e.other[v.Name] = v.Members, v.Compression != c.opt.Codec
	}
	for _, p := range c.sources {
		if was := Stored(m, p.Volume); was != nil {
			e.names[p.Volume.Name] = was.Name
		}
	}
	return e, nil
}

// volume returns what is known of a volume on a filesystem, nil if nothing is. If proves is
// not set, or the index does not prove anything here, that is only where the stream was
// cut. A volume that the index has passed is not found again, which costs time and room
// and nothing else.
func (e *earlier) volume(name string, fsid disk.FSID, batch *store.Batch, proves bool) (*archive.Known, error) {
	if e == nil {
		return nil, nil
	}
	name = cmp.Or(e.names[name], name)
	v, err := e.index.Find(name)
	if errors.Is(err, io.EOF) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	members, ok := e.members[name]
	if !ok {
		return nil, nil
	}
	known := &archive.Known{Next: e.index.Next, Members: members, Reuse: batch.Reuse}
	if proves && e.proves && v.FSID == fsid && !e.other[name] {
		known.Since = v.Since
	}
	return known, nil
}

// whole reads the index to its end, where damage shows.
func (e *earlier) whole() error {
	if e == nil {
		return nil
	}
	return e.index.Rest()
}

func (c *Capture) index(name string) (*store.Index, error) {
	if c.opt.Compare != nil {
		return store.DiscardIndex()
	}
	return store.NewIndex(c.scratch, name, Origin())
}

// drop removes an index, before it is written anew.
func (c *Capture) drop(name string) error {
	if c.opt.Compare != nil {
		return nil
	}
	return c.scratch.Remove(name)
}

// pass walks all volumes, reads whatever known does not prove unchanged, and writes
// an index.
func (c *Capture) pass(ctx context.Context, name string, known *earlier, counts bool) (walks []*archive.Writing, err error) {
	index, err := c.index(name)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			abandon(walks)
			walks = nil
		}
	}()
	for i, p := range c.sources {
		walk, err := c.volume(ctx, index, p, c.since[i], known, counts)
		if err != nil {
			_ = index.Close() // it is not published
			return walks, fmt.Errorf("volume %s: %w", p.Volume.Name, err)
		}
		walks = append(walks, walk)
	}
	return walks, errors.Join(index.Close(), known.whole())
}

func (c *Capture) volume(ctx context.Context, index *store.Index, p Source, since archive.Timespec, known *earlier, counts bool) (*archive.Writing, error) {
	fsid, err := p.Live.Filesystem()
	if err != nil {
		return nil, err
	}
	if err := index.Volume(p.Volume.Name, fsid, since); err != nil {
		return nil, err
	}
	opt := WriteOptions(p.Volume)
	opt.Index, opt.Once, opt.Writers = index.Add, !counts, len(c.sources)
	if counts && c.one != nil && !c.opt.Leaving {
		opt.Leases = leasesAtRest
	}
	if counts && c.Clones {
		opt.Clones = p.Parent
	}
	if opt.Known, err = known.volume(p.Volume.Name, fsid, c.batch, since != (archive.Timespec{})); err != nil {
		return nil, err
	}
	return archive.Start(ctx, p.Live, c.batch, opt)
}

// Changed says that a file changed although nothing should have been writing.
type Changed struct {
	Volume string
	Names  []string // the first of them
}

func (c *Changed) Error() string {
	names := make([]string, len(c.Names))
	for i, name := range c.Names {
		names[i] = fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("volume %s: something writes to it although the app is stopped: %s", c.Volume, strings.Join(names, ", "))
}

// Still returns [*Changed] where a file changed during the second pass.
func (c *Capture) Still() error {
	for i, r := range c.results {
		if r.ChangedCount > 0 {
			return &Changed{c.sources[i].Volume.Name, r.Changed}
		}
	}
	return nil
}

// VolumeOf is a volume as a snapshot knows it, for one that the config no longer has.
func VolumeOf(m *store.Manifest, name string) *workload.Volume {
	own := &workload.Volume{Name: name}
	for _, v := range m.Volumes {
		if v.Name == name {
			own.Scope, own.Source, own.Target = workload.Scope(v.Scope), v.Source, v.Target
		}
	}
	return own
}

// Stored returns the volume of a snapshot that a volume of the config is: that of its name,
// scope and source, or else the first that it was by name, or by source. It returns nil where
// there is none.
func Stored(m *store.Manifest, v *workload.Volume) *store.Volume {
	if same := m.Volume(v.Name, string(v.Scope), v.Source); same != nil {
		return same
	}
	for _, was := range v.Was {
		for i := range m.Volumes {
			if s := &m.Volumes[i]; s.Name == was || s.Source == was {
				return s
			}
		}
	}
	return nil
}

// Same reports whether a snapshot has all volumes of this capture just as they are.
func (c *Capture) Same(m *store.Manifest) bool {
	for i, p := range c.sources {
		r := c.results[i]
		v := m.Volume(p.Volume.Name, string(p.Volume.Scope), p.Volume.Source)
		if v == nil || v.Kind != store.KindOf(p.Live) || v.Stats != r.Stats || len(v.Members) != len(r.Members) {
			return false
		}
		for j := range r.Members {
			if v.Members[j].ID != r.Members[j].ID {
				return false
			}
		}
	}
	return true
}

// Totals returns how many bytes of content both passes have read, and the names of
// files that changed while the second read them.
func (c *Capture) Totals() (read int64, changed []string) {
	read = c.Cost().ReadBytes
	for _, r := range c.results {
		read += r.Read
		changed = append(changed, r.Changed...)
	}
	return read, changed
}

// Lost returns what the snapshot does not hold of each volume, in the order of the
// sources.
func (c *Capture) Lost() [][]archive.Lost {
	list := make([][]archive.Lost, len(c.results))
	for i, r := range c.results {
		list[i] = r.Lost
	}
	return list
}

// Added returns by how many bytes the store has grown.
func (c *Capture) Added() int64 { return c.batch.Added() }

// Publish adds the volumes to m and makes the snapshot exist. When it returns nil the
// snapshot is durable. What an error leaves, [store.Batch.Publish] says;
// [store.Store.Discard] removes the remnants.
func (c *Capture) Publish(m *store.Manifest) error {
	m.Workload, m.Snap, m.Created, m.Volumes = c.opt.Workload, c.opt.Snap, time.Now().UTC(), []store.Volume{}
	for i, p := range c.sources {
		r := c.results[i]
		m.Volumes = append(m.Volumes, store.Volume{
			Name: p.Volume.Name, Scope: string(p.Volume.Scope), Source: p.Volume.Source, Target: p.Volume.Target, Kind: store.KindOf(p.Live),
			Stats: r.Stats, Sockets: r.Sockets, Changed: r.ChangedCount, Compression: c.opt.Codec, Members: r.Members,
		})
	}
	index := indexName
	if c.clockWentBack() { // its proofs may be wrong
		index = ""
	}
	if c.opt.Kept != nil {
		if err := c.batch.Keep(c.opt.Kept); err != nil {
			return err
		}
	}
	return c.batch.Publish(m, index)
}
