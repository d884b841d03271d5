package store

import (
	"context"
	"slices"

	"github.com/tiny-forge/snap/pkg/archive"
)

// Suspect tells the batch of members that were found damaged earlier. Whatever the turn
// of a scrub is, each is read before the batch relies on it. Suspect is called before the
// first Put. Members of another codec do not concern the batch.
func (b *Batch) Suspect(list []MemberKey) {
	for _, k := range list {
		if m := k.Member(); m.Codec == b.codec {
			if b.suspect == nil {
				b.suspect = map[string]bool{}
			}
			b.suspect[m.ID] = true
		}
	}
}

// Mend makes the batch one that stores these members anew, where they are damaged or
// missing, and nothing else. Put then passes over every other piece, and Reuse promises
// every other member. In place of Publish, [Batch.Heal] ends it.
func (b *Batch) Mend(list []MemberKey) {
	b.mends = true
	b.Suspect(list)
}

// Heal puts what was staged in the place of what is damaged or missing. It returns the
// members that are whole now, also those that somebody else has stored meanwhile; those are
// not touched. When it returns nil they are durable. After an error each is as it was, or
// whole.
func (b *Batch) Heal() (whole []archive.Member, err error) {
	var fresh []Staged
	for _, p := range b.all() {
		p.mu.Lock()
		if p.kept {
			whole = append(whole, p.member)
		}
		if p.fresh {
			fresh = append(fresh, Staged{p.member, b.scratch, memberFile(p.member)})
			p.fresh = false
		}
		p.mu.Unlock()
	}
	if len(whole) == 0 {
		return nil, nil
	}
	// The content first: a power cut must not leave an empty file in the place of one from
	// which some bytes could still be read.
	if err := b.scratch.SyncFS(); err != nil {
		return nil, err
	}
	return whole, b.store.members.Put(context.WithoutCancel(b.ctx), slices.Values(fresh))
}
