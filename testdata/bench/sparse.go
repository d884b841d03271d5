package main

import (
	"context"
	"os"
	"path/filepath"
)

// What a sparse file is called in the tables.
const sceneSparse = "sparse file"

// sparse measures the capture and the restore of a sparse file that is larger
// than the disk: time and memory must follow what it holds, not how long it is.
func (b *bench) sparse(ctx context.Context) error {
	b.say("sparse: making a file of %d GiB", b.plan.SparseGiB)
	dir := b.place.path("sparse")
	defer os.RemoveAll(dir)
	j := job{live: filepath.Join(dir, "live"), repo: filepath.Join(dir, "store"), out: filepath.Join(dir, "out")}
	if err := os.MkdirAll(j.live, 0o755); err != nil {
		return err
	}
	if err := sparseFile(filepath.Join(j.live, "disk.img"), b.plan.SparseGiB); err != nil {
		return err
	}
	s := &snapper{bench: b}
	if err := s.prepare(ctx, j); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		run  func(context.Context, job) (cost, error)
	}{{"capture", s.capture}, {"restore", s.restore}} {
		if err := b.place.settle(); err != nil {
			return err
		}
		c, err := part.run(ctx, j)
		if err != nil {
			return err
		}
		b.report.spent(part.name, sceneSparse, whoSnap, c)
		b.say("sparse: %s: %.2f s, peak %.0f MiB", part.name, c.seconds, c.peak)
	}
	return nil
}
