package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// Batch collects the members of one capture. It implements [archive.Sink].
// New members wait in a scratch directory of the caller's, on the store's
// filesystem; when that is removed instead of published, nothing is left.
type Batch struct {
	store   *Store
	scratch *disk.Dir
	verify  bool

	mu    sync.Mutex
	known map[string]*pending
	added atomic.Int64
}

type pending struct {
	once   sync.Once
	member archive.Member
	fresh  bool // waits in scratch
	err    error
}

// NewBatch begins a batch that keeps new members in scratch, an empty
// directory. With verify a member that the store already has is read and
// checked before it is relied upon, and stored anew where it is damaged.
func (s *Store) NewBatch(scratch *disk.Dir, verify bool) *Batch {
	return &Batch{store: s, scratch: scratch, verify: verify, known: map[string]*pending{}}
}

// Put keeps a piece, unless the store has it. It may be called from several
// goroutines. Nothing is durable before Publish.
func (b *Batch) Put(tar []byte) (archive.Member, error) {
	id := archive.MemberID(tar)
	b.mu.Lock()
	p := b.known[id]
	if p == nil {
		p = &pending{}
		b.known[id] = p
	}
	b.mu.Unlock()
	p.once.Do(func() { p.err = b.put(p, id, tar) })
	return p.member, p.err
}

func (b *Batch) put(p *pending, id string, tar []byte) error {
	p.member = archive.Member{ID: id, Tar: int64(len(tar))}
	if len(tar) > archive.MaxMember {
		return fmt.Errorf("a piece of %d bytes: at most %d", len(tar), archive.MaxMember)
	}
	size, err := b.store.size(id)
	if err != nil {
		return err
	}
	if size > 0 && b.intact(p.member) {
		p.member.Stored = size
		return nil
	}
	data := archive.Deflate(tar)
	if err := b.scratch.WriteUnsynced(memberFile(id), data); err != nil {
		return fmt.Errorf("store a member: %w", err)
	}
	p.member.Stored, p.fresh = int64(len(data)), true
	b.added.Add(p.member.Stored)
	return nil
}

// intact reports whether the store's copy of m may be relied upon.
func (b *Batch) intact(m archive.Member) bool {
	if !b.verify {
		return true
	}
	data, err := b.store.Open(m)
	if err != nil {
		return false
	}
	_, err = archive.Inflate(data, m)
	return err == nil
}

// Added returns how many bytes the batch has added to the store so far.
func (b *Batch) Added() int64 { return b.added.Load() }

// Publish makes a snapshot of the members that m names, all of which went
// through this batch, and of the index in the file index of the scratch
// directory. In order: the content of the new members is made durable, they
// take their names, those are made durable, then index and manifest. When it
// returns nil the snapshot exists and survives a power cut; after an error it
// does not exist, and what it left is found by Discard.
func (b *Batch) Publish(m *Manifest, index string) error {
	if err := m.validate(m.Workload, m.SID); err != nil {
		return fmt.Errorf("publish snapshot %s: %w", m.SID, err)
	}
	data, err := disk.MarshalSealed(m, manifestFormat, manifestVersion)
	if err != nil {
		return err
	}
	// The scratch directory was opened before the first write, so a failed
	// write-back of any member is reported here (syncfs(2)).
	if err := b.scratch.SyncFS(); err != nil {
		return fmt.Errorf("publish snapshot %s: %w", m.SID, err)
	}
	if err := b.place(m); err != nil {
		return fmt.Errorf("publish snapshot %s: %w", m.SID, err)
	}
	if err := b.publish(m, index, data); err != nil {
		return fmt.Errorf("publish snapshot %s: %w", m.SID, err)
	}
	return nil
}

// place gives the new members their names.
func (b *Batch) place(m *Manifest) error {
	for i := range m.Volumes {
		for _, member := range m.Volumes[i].Members {
			p := b.known[member.ID]
			if p == nil {
				return fmt.Errorf("member %s never went through the batch", member.ID)
			}
			if !p.fresh {
				continue
			}
			shard, err := b.store.shard(member.ID, true)
			if err != nil {
				return err
			}
			if err := b.scratch.Rename(memberFile(member.ID), shard, memberFile(member.ID)); err != nil {
				return err
			}
			p.fresh = false
		}
	}
	return b.store.members.SyncFS()
}

func (b *Batch) publish(m *Manifest, index string, manifest []byte) error {
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
	// Its content was made durable with that of the members, its name will be
	// with the manifest's.
	if err := b.scratch.Rename(index, snapshot, indexFile); err != nil {
		return err
	}
	return snapshot.Publish(manifestFile, manifest)
}

// Discard removes what an unfinished Publish of a snapshot left: its folder,
// provided that no manifest is in it. Nothing there is no error.
func (s *Store) Discard(workload, sid string) error {
	dir, err := s.workload(workload)
	if err != nil || dir == nil {
		return err
	}
	defer dir.Close()
	there, err := dir.Exists(sid)
	if err != nil || !there {
		return err
	}
	snapshot, err := dir.OpenSameMount(sid)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	published, err := snapshot.Exists(manifestFile)
	if err != nil || published {
		return err
	}
	return errors.Join(dir.RemoveTree(sid), dir.Sync())
}
