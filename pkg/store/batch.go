package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Batch collects the members of one capture. It implements [archive.Sink].
// New members wait in a scratch directory (see [Store.Scratch]). If that is
// removed before the batch is published, nothing of the batch is left.
type Batch struct {
	ctx     context.Context // of the capture
	store   *Store
	scratch *disk.Dir
	scrub   Scrub
	next    Turn            // where the next scrub begins
	suspect map[string]bool // see Suspect
	mends   bool            // see Mend
	codec   archive.Codec

	mu    sync.Mutex
	known map[string]*pending
	added atomic.Int64
	kept  string // the checksum of the document that Keep was given

	reserve atomic.Uint64 // bytes to leave free; 0: none
	wrote   func(bytes int64)
}

// buffers hold compressed members, one for each goroutine that compresses.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

type pending struct {
	mu        sync.Mutex
	member    archive.Member
	kept      bool // in the store, or in scratch
	fresh     bool // waits in scratch
	unchecked bool // Reuse has promised it, and Check is to read it
	odd       bool // its file has another length than when it was captured, or is suspect
	damaged   bool // the store's copy cannot be used
}

// NewBatch begins a batch that keeps new members in scratch, an empty
// directory. With verify, members already in the store are read and checked
// before the batch relies on them; a damaged one is written again. The batch
// uses only members of its codec, so that the members of a volume can be
// concatenated. When ctx ends, calls that wait for the store may fail.
func (s *Store) NewBatch(ctx context.Context, scratch *disk.Dir, verify bool, codec archive.Codec) *Batch {
	b := &Batch{ctx: ctx, store: s, scratch: scratch, codec: codec, known: map[string]*pending{}}
	if verify {
		b.scrub = Scrub{Share: 1}
	}
	return b
}

// Put stores a piece, unless the store already has it. It may be called from
// several goroutines. Nothing is durable before Publish.
func (b *Batch) Put(tar []byte) (archive.Member, error) {
	if len(tar) > archive.MaxMember {
		return archive.Member{}, fmt.Errorf("a piece of %d bytes: at most %d", len(tar), archive.MaxMember)
	}
	m := archive.Member{ID: archive.MemberID(tar), Tar: int64(len(tar)), Codec: b.codec}
	if b.mends && !b.suspect[m.ID] {
		return m, nil
	}
	p := b.pending(m.ID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept && !p.unchecked {
		return p.member, nil
	}
	p.kept, p.unchecked = false, false
	if err := b.look(p, m, false); err != nil || p.kept {
		return p.member, err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	*buf = b.codec.Deflate((*buf)[:0], tar)
	data := *buf
	if err := b.room(len(data)); err != nil {
		return m, err
	}
	if err := b.scratch.WriteUnsynced(memberFile(m), data); err != nil {
		return m, fmt.Errorf("store a member: %w", err)
	}
	m.Stored = int64(len(data))
	p.member, p.kept, p.fresh = m, true, true
	b.added.Add(m.Stored)
	if b.wrote != nil {
		b.wrote(m.Stored)
	}
	return m, nil
}

// pending returns what the batch knows of a member.
func (b *Batch) pending(id string) *pending {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.known[id]
	if p == nil {
		p = &pending{}
		b.known[id] = p
	}
	return p
}

// look takes the store's copy of m, if there is one that can be relied on. With
// promise, Check reads it later.
func (b *Batch) look(p *pending, m archive.Member, promise bool) error {
	if p.kept || p.damaged {
		return nil
	}
	size, err := b.store.size(b.ctx, m)
	if err == nil && size == 0 && promise { // an earlier snapshot names it
		p.member, p.damaged = m, true
	}
	if err != nil || size == 0 {
		return err
	}
	if !promise && !b.intact(m) {
		p.damaged = true
		return nil
	}
	// Another version of the compressor may have stored it again, or its file was cut.
	p.odd = promise && (m.Stored != size || b.suspect[m.ID])
	m.Stored = size
	p.member, p.kept, p.unchecked = m, true, promise && (p.odd || b.scrub.Due(m.ID))
	return nil
}

// Reuse reports whether a member of an earlier snapshot can be used again without its
// content, and how many bytes it takes. For a member that is to be read first, this
// is a promise, and Check finds out whether it holds.
func (b *Batch) Reuse(m archive.Member) (archive.Member, bool, error) {
	if b.mends {
		return m, !b.suspect[m.ID], nil
	}
	p := b.pending(m.ID)
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.Codec == b.codec {
		if err := b.look(p, m, true); err != nil {
			return m, false, err
		}
	}
	return p.member, p.kept && p.member.Tar == m.Tar, nil
}

// Check reads and checks the members that Reuse has promised, and returns how many
// are damaged. Reuse no longer promises these, and the caller repeats the pass that
// used them. Publish refuses a member that was not checked. A scrub that has had enough
// leaves the rest to the next one.
func (b *Batch) Check(ctx context.Context) (damaged int, err error) {
	list := b.unchecked()
	var read int64
	for i := 0; i < len(list); i += together {
		part := list[i:min(i+together, len(list))]
		if !part[0].odd && b.scrub.Enough != nil && b.scrub.Enough(read) {
			b.believe(list[i:])
			break
		}
		bad, err := b.checkAll(ctx, part)
		if damaged += bad; err != nil {
			return damaged, err
		}
		for _, d := range part {
			read += d.member.Stored
		}
	}
	return damaged, context.Cause(ctx)
}

// together is how many members Check reads between two looks at the clock.
const together = 64

// due is a member that Check is to read.
type due struct {
	*pending
	member archive.Member
	odd    bool
}

// unchecked returns what Check is to read, in the order of a scrub, but first what has
// another length.
func (b *Batch) unchecked() []due {
	var list []due
	for _, p := range b.all() {
		p.mu.Lock()
		if p.unchecked {
			list = append(list, due{p, p.member, p.odd})
		}
		p.mu.Unlock()
	}
	slices.SortFunc(list, func(x, y due) int {
		if x.odd != y.odd {
			return map[bool]int{true: -1, false: 1}[x.odd]
		}
		return cmp.Compare(b.scrub.From.distance(x.member.ID), b.scrub.From.distance(y.member.ID))
	})
	return list
}

// all returns what the batch knows of all members.
func (b *Batch) all() []*pending {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.known))
}

// believe takes members as they are. The next scrub begins with the first of them.
func (b *Batch) believe(rest []due) {
	b.next = placeOf(rest[0].member.ID)
	for _, d := range rest {
		d.mu.Lock()
		d.unchecked = false
		d.mu.Unlock()
	}
}

// checkAll checks members side by side, and returns how many are damaged.
func (b *Batch) checkAll(ctx context.Context, list []due) (damaged int, err error) {
	var bad atomic.Int64
	err = crew.Each(ctx, list, func(_ context.Context, d due) error {
		if !b.check(d.pending) {
			bad.Add(1)
		}
		return nil
	})
	return int(bad.Load()), err
}

// check reports false for a member that was promised and is damaged.
func (b *Batch) check(p *pending) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	damaged := p.unchecked && archive.Check(b.ctx, b.store, p.member) != nil
	p.unchecked = false
	if damaged {
		p.kept, p.damaged = false, true
	}
	return !damaged
}

// intact reports whether the store's copy of m can be relied on.
func (b *Batch) intact(m archive.Member) bool {
	return !b.scrub.Due(m.ID) && !b.suspect[m.ID] || archive.Check(b.ctx, b.store, m) == nil
}

// Reserve switches on or off that Put fails when less than a hundredth of the
// filesystem, or 256 MiB if that is less, would stay free: an app that runs on the
// same disk must not fail because of a capture.
func (b *Batch) Reserve(on bool) error {
	if !on {
		b.reserve.Store(0)
		return nil
	}
	space, err := b.scratch.Space()
	if err != nil {
		return err
	}
	b.reserve.Store(min(space.Total/100, 256<<20))
	return nil
}

// room refuses n more bytes if they would take space that is reserved.
func (b *Batch) room(n int) error {
	reserve := b.reserve.Load()
	if reserve == 0 {
		return nil
	}
	space, err := b.scratch.Space()
	if err == nil && space.Bytes < reserve+uint64(n) {
		err = fmt.Errorf("only %d bytes are free in the store, and %d are left for others while the app runs: %w", space.Bytes, reserve, unix.ENOSPC)
	}
	return err
}

// Scrub sets which members a batch that does not verify all reads before it relies on
// them. Scrub is called before the first Put.
func (b *Batch) Scrub(s Scrub) { b.scrub, b.next = s, s.next() }

// Next is where the next scrub is to begin.
func (b *Batch) Next() Turn { return b.next }

// OnWrite sets a function that is called with the size of each new member, by
// the goroutine that puts it. OnWrite is called before the first Put.
func (b *Batch) OnWrite(wrote func(bytes int64)) { b.wrote = wrote }

// Damaged returns the members that were found damaged in the store: those that the
// batch has stored anew, and those that it has not, since the data has changed.
func (b *Batch) Damaged() (healed, lost []archive.Member) {
	for _, p := range b.all() {
		p.mu.Lock()
		switch {
		case !p.damaged:
		case p.kept:
			healed = append(healed, p.member)
		default:
			lost = append(lost, p.member)
		}
		p.mu.Unlock()
	}
	return healed, lost
}

// Added returns how many bytes the batch has added to the store so far.
func (b *Batch) Added() int64 { return b.added.Load() }

// Publish makes a snapshot of the members that m names, which all went through
// this batch, and of the index in the file index of the scratch directory (""
// for none). It adds to each volume the hash of the whole ([Volume]). The content of
// the new members is made durable first; then they get their names, which are made
// durable too; then come the index, what Keep was given, the summary and, last, the
// manifest. When Publish returns nil the snapshot exists and survives a
// power cut. After an error it does not exist, and Discard removes what is left
// of it, with one exception: where only the last sync of its folder failed, the
// manifest is there, and the snapshot exists but may not survive a power cut.
func (b *Batch) Publish(m *Manifest, index string) error {
	if err := b.publish(m, index); err != nil {
		return fmt.Errorf("publish snapshot %s: %w", m.SID, err)
	}
	return nil
}

func (b *Batch) publish(m *Manifest, index string) error {
	m.Config = b.kept
	if err := b.named(m); err != nil {
		return err
	}
	counted := &sieve{keep: true}
	if err := counted.count(m); err != nil {
		return err
	}
	for i := range m.Volumes {
		m.Volumes[i].Sum = counted.sums[i]
	}
	m.Index = ""
	if index != "" {
		var err error
		if m.Index, err = fileSum(b.scratch, index); err != nil {
			return err
		}
	}
	data, err := disk.MarshalSealed(m, manifestFormat, m.needs())
	if err != nil {
		return err
	}
	sum := m.summary(counted.list)
	sum.Manifest.Bytes = int64(len(data))
	if err := sum.validate(m.Workload, m.SID); err != nil {
		return err
	}
	beside := [][2]string{{index, indexFile}}
	summary, err := sum.sealed()
	if m.Config != "" {
		beside = append(beside, [2]string{configFile, configFile})
	}
	if err == nil && summary != nil {
		beside = append(beside, [2]string{summaryFile, summaryFile})
		err = b.scratch.WriteUnsynced(summaryFile, summary)
	}
	if err != nil {
		return err
	}
	// It was opened before the first write, so this reports the failed write-back of
	// any member (syncfs(2)).
	if err := b.scratch.SyncFS(); err != nil {
		return err
	}
	// No signal cuts a publication that has begun.
	if err := b.store.members.Put(context.WithoutCancel(b.ctx), b.fresh(m)); err != nil {
		return err
	}
	return b.writeManifest(m, beside, data)
}

// named makes sure that every member that m names went through the batch.
func (b *Batch) named(m *Manifest) error {
	for i := range m.Volumes {
		v := &m.Volumes[i]
		if v.Compression != b.codec {
			return fmt.Errorf("volume %q is said to be %s, its members are %s", v.Name, v.Compression, b.codec)
		}
		for _, member := range v.Members {
			if p := b.known[member.ID]; p == nil || !p.kept || p.unchecked {
				return fmt.Errorf("member %s never went through the batch", member.ID)
			}
		}
	}
	return nil
}

// fresh gives the members of m that wait in the scratch directory, each once.
func (b *Batch) fresh(m *Manifest) iter.Seq[Staged] {
	return func(yield func(Staged) bool) {
		for i := range m.Volumes {
			for _, member := range m.Volumes[i].Members {
				p := b.known[member.ID]
				if !p.fresh {
					continue
				}
				p.fresh = false
				if !yield(Staged{p.member, b.scratch, memberFile(p.member)}) {
					return
				}
			}
		}
	}
}

// writeManifest makes the folder of the snapshot. beside are files of the scratch
// directory, and the names that they get in it.
func (b *Batch) writeManifest(m *Manifest, beside [][2]string, data []byte) error {
	workload, err := b.store.snapshots.Ensure(m.Workload, 0o700)
	if err != nil {
		return err
	}
	defer workload.Close()
	if err := workload.Mkdir(m.SID, 0o700); err != nil { // never into one that exists
		return err
	}
	if err := workload.Sync(); err != nil {
		return err
	}
	snapshot, err := workload.OpenSameMount(m.SID)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	// Their content was made durable together with the members. Their names become
	// durable together with the manifest's.
	for _, names := range beside {
		if names[0] == "" {
			continue
		}
		if err := b.scratch.Rename(names[0], snapshot, names[1]); err != nil {
			return err
		}
	}
	return snapshot.Publish(manifestFile, data)
}

// Discard removes what an unfinished Publish of a snapshot left: its folder, if
// there is no manifest in it. It is not an error if there is no such folder.
func (s *Store) Discard(workload, sid string) error {
	dir, err := s.snapshots.OpenIfThere(workload)
	if err != nil || dir == nil {
		return err
	}
	defer dir.Close()
	snapshot, err := dir.OpenIfThere(sid)
	if err != nil || snapshot == nil {
		return err
	}
	defer snapshot.Close()
	published, err := snapshot.Exists(manifestFile)
	if err != nil || published {
		return err
	}
	return errors.Join(dir.RemoveTree(sid), dir.Sync())
}
