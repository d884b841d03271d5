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
		m.warn("what was stored on the way is still there, until a recovery: %v", clear)
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

// left are the bad members of a codec that were not stored yet.
func (m *mending) left(codec archive.Codec) (list []archive.Member) {
	for _, bad := range m.bad {
		if bad.Codec == codec && !m.stored[store.KeyOf(bad)] {
			list = append(list, bad)
		}
	}
	return list
}

// each calls do for each codec of which members are left.
func (m *mending) each(do func(codec archive.Codec, list []archive.Member) error) error {
	for _, codec := range []archive.Codec{archive.Gzip, archive.Zstd} {
		if list := m.left(codec); len(list) > 0 {
			if err := do(codec, list); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mending) took(list []archive.Member) {
	for _, k := range store.Keys(list) {
		m.stored[k] = true
	}
}

// fromCopies takes what the store has under the other compression.
func (m *mending) fromCopies(ctx context.Context) error {
	return m.each(func(codec archive.Codec, list []archive.Member) error {
		scratch, err := m.Store.Scratch(m.id)
		if err != nil {
			return err
		}
		defer scratch.Close()
		batch := m.Store.NewBatch(ctx, scratch, false, codec)
		batch.Mend(store.Keys(list))
		for _, bad := range list {
			if ctx.Err() != nil {
				return context.Cause(ctx)
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
	})
}

// fromLive takes what the live data of the workloads still has whose snapshots are hit.
func (m *mending) fromLive(ctx context.Context) error {
	hit, err := verify.Hit(ctx, m.Store, append(m.left(archive.Gzip), m.left(archive.Zstd)...))
	if err != nil {
		return err
	}
	var names []string
	sids := map[string][]string{} // newest first
	for _, p := range hit {
		if !slices.Contains(names, p.Workload) {
			names = append(names, p.Workload)
		}
		if !slices.Contains(sids[p.Workload], p.SID) {
			sids[p.Workload] = append(sids[p.Workload], p.SID)
		}
	}
	for _, name := range names {
		err := m.Live(ctx, name, func(sources []snapshot.Source) error {
			for _, source := range sources {
				if source.Live == nil { // it does not exist
					continue
				}
				for _, sid := range sids[name] {
					if err := m.fromVolume(ctx, name, sid, source); err != nil {
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

// fromVolume takes what a volume still has of one snapshot. The live data is cut into the
// pieces of that snapshot, which another one may not have.
func (m *mending) fromVolume(ctx context.Context, workload, sid string, source snapshot.Source) error {
	if len(m.left(archive.Gzip))+len(m.left(archive.Zstd)) == 0 {
		return nil
	}
	hit, err := m.Store.Load(workload, sid)
	if err != nil { // its manifest is another matter
		return nil
	}
	was := snapshot.Stored(hit, source.Volume)
	if was == nil {
		return nil
	}
	named := map[store.MemberKey]bool{}
	for _, k := range store.Keys(was.Members) {
		named[k] = true
	}
	return m.each(func(codec archive.Codec, list []archive.Member) error {
		list = slices.DeleteFunc(list, func(bad archive.Member) bool { return !named[store.KeyOf(bad)] })
		if len(list) == 0 {
			return nil
		}
		m.Line(fmt.Sprintf("looking in volume %s of %s for %s", source.Volume.Name, workload, verify.Count(len(list), "damaged piece")))
		scratch, err := m.Store.Scratch(m.id)
		if err != nil {
			return err
		}
		whole, err := snapshot.Heal(ctx, m.Store, scratch, []snapshot.Source{source},
			snapshot.Options{Workload: workload, Codec: codec, Compare: hit, Say: func(format string, args ...any) { m.Line(fmt.Sprintf(format, args...)) }}, store.Keys(list))
		m.took(whole)
		if err != nil && ctx.Err() == nil { // the other volumes may have more
			m.warn("volume %s of %s was not read to its end: %v", source.Volume.Name, workload, err)
			return nil
		}
		return err
	})
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
