package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What a volume of so many files is called in the tables.
func sceneFiles(n int) string { return fmt.Sprintf("%d files", n) }

const seedScale = 15

// scaleFiles are the files from begin to end of a volume of n small ones: a
// tenth of them in one directory, one at the end of a chain of 500, the rest by
// the hundred.
func scaleFiles(begin, end, n int) []file {
	files := make([]file, 0, end-begin)
	for i := begin; i < end; i++ {
		path := fmt.Sprintf("tree/%03d/%02d/%07d", i/10_000, i/100%100, i)
		switch {
		case i == 0:
			path = "deep/" + strings.Repeat("d/", 498) + "file"
		case i < n/10:
			path = fmt.Sprintf("flat/%07d", i)
		}
		files = append(files, file{path: path, bytes: int64(100 + i%200), seed: seedScale, index: uint64(i)})
	}
	return files
}

// scale measures volumes of more and more files, of which each should take as
// long as each of the first.
func (b *bench) scale(ctx context.Context) error {
	for _, n := range b.plan.Scales {
		if err := b.files(ctx, n); err != nil {
			return fmt.Errorf("%s: %w", sceneFiles(n), err)
		}
	}
	return nil
}

func (b *bench) files(ctx context.Context, n int) error {
	b.say("%s: making them", sceneFiles(n))
	dir := b.place.path("scale")
	if n < slices.Max(b.plan.Scales) { // the last go with the filesystem, which takes no time
		defer os.RemoveAll(dir)
	}
	j := job{live: filepath.Join(dir, "live"), repo: filepath.Join(dir, "store"), out: filepath.Join(dir, "out")}
	const some = 10_000 // at a time: the kernel charges others with this process's memory
	for begin := 0; begin < n; begin += some {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := makeFiles(j.live, scaleFiles(begin, min(begin+some, n), n)); err != nil {
			return err
		}
	}
	s := &snapper{bench: b}
	if err := s.prepare(ctx, j); err != nil {
		return err
	}
	time.Sleep(1200 * time.Millisecond) // of what was just written times prove nothing
	for _, part := range []struct {
		name string
		run  func(context.Context, job) (cost, error)
		read []string // what it reads the content of
	}{{"capture", s.capture, []string{j.live}}, {unchanged, s.capture, nil}, {"restore", s.restore, []string{j.repo}}} {
		if err := b.place.settle(part.read...); err != nil {
			return err
		}
		c, err := part.run(ctx, j)
		if err != nil {
			return err
		}
		b.report.spent(part.name, sceneFiles(n), whoSnap, c)
		b.report.add(key{part.name, sceneFiles(n), whoSnap, perFile}, c.seconds/float64(n)*1e6)
		b.say("%s: %s: %.2f s, %.1f µs a file, peak %.0f MiB", sceneFiles(n), part.name, c.seconds, c.seconds/float64(n)*1e6, c.peak)
	}
	return nil
}
