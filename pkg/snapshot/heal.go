package snapshot

import (
	"context"
	"errors"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

// Heal walks volumes while their app runs, as the first pass of a capture does, and
// stores anew the damaged members whose content comes by. It stores nothing else, and
// reads what a first pass would read, and the files that lie in the damaged members. It
// returns those that are whole now, also where it could not read everything.
//
// Of opt the fields Workload, Codec, Compare and Say count. Compare is the snapshot whose
// members are damaged: the volumes are cut as they were for it. The capture closes scratch.
func Heal(ctx context.Context, st *store.Store, scratch *disk.Dir, sources []Source, opt Options, damaged []store.MemberKey) ([]archive.Member, error) {
	c, err := Start(ctx, st, scratch, sources, opt)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.batch.Mend(damaged)
	walk := c.PassOne(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	whole, err := c.batch.Heal()
	return whole, errors.Join(walk, err)
}
