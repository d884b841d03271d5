package repair

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/verify"
)

// mending stores anew what a report found bad.
type mending struct {
	*Host
	result *Result
	id     string           // of its folder in scratch
	bad    []archive.Member // as the manifests have them
	stored map[store.MemberKey]bool
}

func (m *mending) run(ctx context.Context) error {
	m.id, m.stored = disk.NewID(time.Now()), map[store.MemberKey]bool{}
	if err := m.choose(ctx); err != nil {
		return err
	}
	err := m.fromCopies(ctx)
	if err == nil {
		err = m.fromLive(ctx)
	}
	if err == nil {
		err = m.check(ctx)
	}
	if clear := m.Store.Clear(m.id); clear != nil && err == nil {
		m.warn("what the repair left in scratch could not be removed; the next recovery removes it: %v", clear)
	}
	return err
}

func (m *mending) warn(format string, args ...any) {
	m.result.Warnings = append(m.result.Warnings, fmt.Sprintf(format, args...))
}

// choose leaves out the members in whose place is what no capture has put there.
func (m *mending) choose(ctx context.Context) error {
	sizes, err := m.Store.Look(ctx, m.result.Bad)
	if err != nil {
		return err
	}
	for i, bad := range m.result.Bad {
		if sizes[i] == store.Replaced {
			m.warn("in the store something that is not a file has the name of member %s, so it is left alone: move it away, and repair again", bad.ID)
			continue
		}
		m.bad = append(m.bad, bad)
	}
	return nil
}

// left are the bad members that were not stored yet.
func (m *mending) left() (list []archive.Member) {
	for _, bad := range m.bad {
		if !m.stored[store.KeyOf(bad)] {
			list = append(list, bad)
		}
	}
	return list
}

func (m *mending) took(list []archive.Member) {
	for _, k := range store.Keys(list) {
		m.stored[k] = true
	}
}

// fromCopies takes what the store has under the other compression.
func (m *mending) fromCopies(ctx context.Context) error {
	for _, codec := range []archive.Codec{archive.Gzip, archive.Zstd} {
		if err := m.copiesFor(ctx, codec); err != nil {
			return err
		}
	}
	return nil
}

func (m *mending) copiesFor(ctx context.Context, codec archive.Codec) error {
	scratch, err := m.Store.Scratch(m.id)
	if err != nil {
		return err
	}
	defer scratch.Close()
	batch := m.Store.NewBatch(ctx, scratch, false, codec)
	batch.Mend(store.Keys(m.bad))
	for _, bad := range m.bad {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if bad.Codec != codec {
			continue
		}
		copied := bad
		if copied.Codec = archive.Zstd; codec == archive.Zstd {
			copied.Codec = archive.Gzip
		}
		data, err := m.Store.Open(ctx, copied, nil)
		if err != nil { // most have none
			continue
		}
		tar, err := archive.Inflate(nil, data, copied)
		if err != nil {
			continue
		}
		if _, err := batch.Put(tar); err != nil {
			return err
		}
	}
	whole, err := batch.Heal()
	m.took(whole)
	return err
}

// look is a look at the live data for some members of a snapshot.
type look struct {
	manifest *store.Manifest
	members  []archive.Member
}

// fromLive takes what the live data of the workloads still has whose snapshots are hit.
func (m *mending) fromLive(ctx context.Context) error {
	if len(m.left()) == 0 {
		return nil
	}
	names, err := m.Store.Workloads()
	if err != nil {
		return err
	}
	for _, name := range names {
		looks, err := m.looks(ctx, name)
		if err != nil || len(looks) == 0 {
			if err != nil {
				return err
			}
			continue
		}
		err = m.Live(ctx, name, func(sources []snapshot.Source) error {
			for _, l := range looks {
				for _, source := range sources {
					if err := m.fromVolume(ctx, l, source); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			m.warn("the live data of %s was not looked at, or not all of it: %v", name, err)
		}
	}
	return nil
}

// looks chooses for each member that is left the newest snapshot of a workload that names
// it: its index says where the stream was cut then. Others that name the member were cut
// there in the same way.
func (m *mending) looks(ctx context.Context, workload string) (list []look, err error) {
	left := map[store.MemberKey]archive.Member{}
	for _, bad := range m.left() {
		left[store.KeyOf(bad)] = bad
	}
	for manifest, err := range m.Store.All(workload) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(left) == 0 {
			break
		}
		if err != nil { // its manifest is another matter
			continue
		}
		l := look{manifest: manifest}
		for i := range manifest.Volumes {
			for _, member := range manifest.Volumes[i].Members {
				if bad, is := left[store.KeyOf(member)]; is {
					l.members = append(l.members, bad)
					delete(left, store.KeyOf(member))
				}
			}
		}
		if len(l.members) > 0 {
			list = append(list, l)
		}
	}
	return list, nil
}

func (m *mending) fromVolume(ctx context.Context, l look, source snapshot.Source) error {
	list := slices.DeleteFunc(slices.Clone(l.members), func(bad archive.Member) bool { return m.stored[store.KeyOf(bad)] })
	if len(list) == 0 || source.Live == nil { // it does not exist
		return nil
	}
	m.Line(fmt.Sprintf("looking in volume %s of %s for %s of snapshot %s", source.Volume.Name, l.manifest.Workload, verify.Count(len(list), "member"), l.manifest.SID))
	scratch, err := m.Store.Scratch(m.id)
	if err != nil {
		return err
	}
	defer scratch.Close()
	whole, err := snapshot.Heal(ctx, m.Store, scratch, l.manifest, source, store.Keys(list))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.took(whole)
	left := func(bad archive.Member) bool { return !m.stored[store.KeyOf(bad)] }
	if err != nil && slices.ContainsFunc(list, left) { // another volume may have them
		m.warn("the live data of %s was not read to its end: %v", l.manifest.Workload, err)
	}
	return nil
}

// check reads again what was stored, and tells the report what is whole.
func (m *mending) check(ctx context.Context) error {
	var whole []archive.Member
	for _, bad := range m.bad {
		if !m.stored[store.KeyOf(bad)] {
			continue
		}
		err := archive.Check(ctx, m.Store, bad)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			m.warn("member %s was stored again, and is damaged again: %v", bad.ID, err)
			continue
		}
		whole = append(whole, bad)
	}
	m.result.Again = len(whole)
	m.result.Healed(whole)
	return nil
}
