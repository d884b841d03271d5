package restore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"

	"github.com/tiny-forge/snap/pkg/disk"
)

// shooting is a capture in progress, in the transaction of a capture, a
// restore or an import: two passes over the same volumes into one batch.
type shooting struct {
	s       *session
	scratch *disk.Dir
	batch   *store.Batch
	places  []*place
	results []*archive.Result
}

// indexName is the index's name in the scratch directory.
const indexName = "index.gz"

// newShooting prepares a capture of places. Its members wait in the folder name
// of the transaction. With verify, members that the store already has are read
// and checked before they are relied upon.
func (s *session) newShooting(tx *journal.Tx, name string, places []*place, verify bool) (*shooting, error) {
	scratch, err := tx.Dir().EnsureUnsynced(name, 0o700)
	if err != nil {
		return nil, err
	}
	return &shooting{s: s, scratch: scratch, batch: s.Store.NewBatch(scratch, verify), places: places}, nil
}

func (c *shooting) close() { c.scratch.Close() }

// first is the pass while the app runs: it stores pieces so that the second
// finds most of them stored, and forgets what it saw.
func (c *shooting) first(ctx context.Context) error {
	for _, p := range c.places {
		if _, err := archive.Write(ctx, p.live, c.batch, writeOptions(p.vol)); err != nil {
			return fmt.Errorf("volume %s: %w", p.vol.Name, err)
		}
	}
	return nil
}

func writeOptions(v *workload.Volume) archive.WriteOptions {
	return archive.WriteOptions{RejectSymlinks: v.Symlinks == workload.RejectSymlinks}
}

// second is the pass that counts, while nothing writes.
func (c *shooting) second(ctx context.Context) error {
	index, err := store.NewIndex(c.scratch, indexName, machineID())
	if err != nil {
		return err
	}
	for _, p := range c.places {
		if err := c.volume(ctx, index, p); err != nil {
			_ = index.Close() // it is not published
			return fmt.Errorf("volume %s: %w", p.vol.Name, err)
		}
	}
	return index.Close()
}

func (c *shooting) volume(ctx context.Context, index *store.Index, p *place) error {
	fsid, err := p.live.Filesystem()
	if err != nil {
		return err
	}
	if err := index.Volume(p.vol.Name, fsid); err != nil {
		return err
	}
	opt := writeOptions(p.vol)
	opt.Index = index.Add
	result, err := archive.Write(ctx, p.live, c.batch, opt)
	if err != nil {
		return err
	}
	c.results = append(c.results, result)
	return nil
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
			Stats: r.Stats, Sockets: r.Sockets, Changed: r.ChangedCount, Members: r.Members,
		})
	}
	return m, c.batch.Publish(m, indexName)
}

func images(list []Container) []store.Image {
	out := []store.Image{}
	for service, pin := range pins(list) {
		out = append(out, store.Image{Service: service, Image: pin.Image, ImageID: pin.ImageID, Digest: pin.Digest})
	}
	return out
}
