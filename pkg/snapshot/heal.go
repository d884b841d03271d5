package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
)

// Heal looks through the live data of a volume, while its app runs, for what lay in
// members of a snapshot that are damaged or missing, and stores those anew whose tar bytes
// it finds. It stores nothing else. It cuts the stream where the snapshot's index says, and
// reads only the files that lie in these members: all others it passes over by stat.
// Without an index it reads everything.
//
// The members are of the snapshot's own codec. Heal returns those that are whole now, also
// where it could not walk to the end.
func Heal(ctx context.Context, st *store.Store, scratch *disk.Dir, m *store.Manifest, source Source, damaged []store.MemberKey) ([]archive.Member, error) {
	v := Stored(m, source.Volume)
	if v == nil || v.Kind != store.KindOf(source.Live) {
		return nil, nil
	}
	batch := st.NewBatch(ctx, scratch, false, v.Compression)
	batch.Mend(damaged)
	if err := batch.Reserve(true); err != nil { // the app runs
		return nil, err
	}
	walk := healing(ctx, st, batch, m, v, source)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	whole, err := batch.Heal()
	return whole, errors.Join(walk, err)
}

// healing walks the volume, upon the index of the snapshot where that is usable.
func healing(ctx context.Context, st *store.Store, batch *store.Batch, m *store.Manifest, v *store.Volume, source Source) error {
	opt := WriteOptions(source.Volume)
	opt.Once = true
	index, err := st.OpenPlaces(m)
	if err == nil {
		defer index.Close()
		if _, err = index.Find(v.Name); err == nil {
			opt.Known = &archive.Known{Next: index.Next, Members: v.Members, Loose: true, Reuse: batch.Reuse}
			_, err = archive.Write(ctx, source.Live, batch, opt)
		}
	}
	if errors.Is(err, store.ErrIndex) || errors.Is(err, io.EOF) {
		opt.Known = nil
		_, err = archive.Write(ctx, source.Live, batch, opt)
	}
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return nil
}
