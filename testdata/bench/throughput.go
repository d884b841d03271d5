package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// dataset is what capture and restore are measured on.
type dataset struct {
	name string
	make func(ctx context.Context, dir string) error
	// change changes about a hundredth of it and returns the changed bytes; nil
	// where no such change is measured. The round makes it another one each time.
	change func(dir string, round int) (int64, error)
}

func (b *bench) datasets() []dataset {
	small := smallFiles(b.plan.SmallFiles)
	return []dataset{
		{
			name: "small",
			make: func(_ context.Context, dir string) error { return makeFiles(dir, small) },
			change: func(dir string, round int) (int64, error) {
				_, n, err := scatter(dir, small, round)
				return n, err
			},
		},
		{name: "pg", make: b.postgres, change: cluster},
		{name: "random", make: func(_ context.Context, dir string) error { return makeFiles(dir, randomFiles(b.plan.RandomBytes)) }},
	}
}

// trial is a data set with those who compete on it.
type trial struct {
	*bench
	set     dataset
	live    string
	size    extent
	rivals  []contender
	written map[string]job // by the name of who captures
}

// throughput measures capture, capture again and restore on a data set.
func (b *bench) throughput(ctx context.Context, set dataset) error {
	t := &trial{bench: b, set: set, live: b.place.path("data", set.name), rivals: b.contenders(ctx), written: map[string]job{}}
	defer os.RemoveAll(b.place.path("data"))
	defer os.RemoveAll(b.place.path("repo"))
	for _, dir := range []string{filepath.Dir(t.live), b.place.path("repo")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	b.say("%s: making the data set", set.name)
	if err := set.make(ctx, t.live); err != nil {
		b.report.note("the data set %s was left out: %v", set.name, err)
		b.say("%s: left out: %v", set.name, err)
		return nil
	}
	var err error
	if t.size, err = measureTree(t.live); err != nil {
		return err
	}
	b.report.Data = append(b.report.Data, fact{set.name, fmt.Sprintf("%d files, %.0f MiB", t.size.files, float64(t.size.bytes)/inMiB)})
	for _, part := range []func(context.Context) error{t.captures, t.verifies, t.unchanged, t.changed, t.restores} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// settle is what stands before each run that writes much: the trees are read, and
// memory for what it will write is touched. A virtual machine gives its host what
// has been free for a second, and whoever gets it again pays two seconds a GiB.
func (t *trial) settle(ctx context.Context, trees ...string) error {
	if err := t.place.settle(trees...); err != nil {
		return err
	}
	return t.touchFor(ctx, t.size)
}

// captures measures the first capture, into a new repository each round.
func (t *trial) captures(ctx context.Context) error {
	measured := t.plan.wants("capture")
	var turns []turn
	for i, c := range t.rivals {
		who, _ := c.names()
		j := job{live: t.live, repo: t.place.path("repo", fmt.Sprint(i)), out: t.place.path("data", "out")}
		turns = append(turns, turn{who, isRanked("capture", t.set.name, who), func(round int) error {
			delete(t.written, who)
			if err := removeAll(j.repo); err != nil {
				return err
			}
			if err := c.prepare(ctx, j); err != nil {
				return err
			}
			if err := t.settle(ctx, t.live); err != nil {
				return err
			}
			used, err := c.capture(ctx, j)
			if err != nil {
				return err
			}
			t.written[who] = j
			kept, err := measureTree(j.repo)
			if err != nil || !measured {
				return err
			}
			t.report.spent("capture", t.set.name, who, used)
			t.report.add(key{"capture", t.set.name, who, stored}, float64(kept.bytes))
			t.say("%s: capture, round %d: %s: %.2f s, %.0f MiB stored, peak %.0f MiB", t.set.name, round+1, who, used.seconds, float64(kept.bytes)/inMiB, used.peak)
			return nil
		}})
	}
	if measured {
		return t.rounds(ctx, t.set.name+": capture", t.limits(), nil, turns)
	}
	for _, turn := range turns { // what comes after needs it once
		if err := turn.run(0); err != nil {
			return fmt.Errorf("%s: %w", turn.who, err)
		}
	}
	return nil
}

// removeAll removes a repository and what lies beside it.
func removeAll(repo string) error {
	beside, err := filepath.Glob(repo + ".*")
	for _, path := range append(beside, repo) {
		if err == nil {
			err = os.RemoveAll(path)
		}
	}
	return err
}

// unchanged measures a second capture of the same data.
func (t *trial) unchanged(ctx context.Context) error {
	return t.recapture(ctx, unchanged, nil)
}

// changed measures a capture after a hundredth has changed, and by how much the
// repository grew for each byte that had.
func (t *trial) changed(ctx context.Context) error {
	if t.set.change == nil {
		return nil
	}
	return t.recapture(ctx, changed, t.set.change)
}

func (t *trial) recapture(ctx context.Context, scenario string, change func(string, int) (int64, error)) error {
	if !t.plan.wants("again") {
		return nil
	}
	var bytes int64
	var before func(round int) error
	if change != nil {
		before = func(round int) (err error) {
			bytes, err = change(t.live, round)
			return err
		}
	}
	var turns []turn
	for _, c := range t.rivals {
		who, _ := c.names()
		j, has := t.written[who]
		if !has || !c.incremental() {
			continue
		}
		turns = append(turns, turn{who, isRanked(scenario, t.set.name, who), func(round int) error {
			old, err := measureTree(j.repo)
			if err != nil {
				return err
			}
			if err := t.place.settle(t.live, j.repo+".cache"); err != nil {
				return err
			}
			used, err := c.capture(ctx, j)
			if err != nil {
				return err
			}
			now, err := measureTree(j.repo)
			if err != nil {
				return err
			}
			t.report.spent(scenario, t.set.name, who, used)
			said := ""
			if bytes > 0 {
				ratio := float64(now.bytes-old.bytes) / float64(bytes)
				t.report.add(key{scenario, t.set.name, who, grown}, ratio)
				said = fmt.Sprintf(", grew by %.1f times the %.1f MiB changed", ratio, float64(bytes)/inMiB)
			}
			t.say("%s: again, %s, round %d: %s: %.2f s%s, peak %.0f MiB", t.set.name, scenario, round+1, who, used.seconds, said, used.peak)
			return nil
		}})
	}
	return t.rounds(ctx, t.set.name+": again, "+scenario, t.limits(), before, turns)
}

// restores measures restoring to a new directory until it is on disk.
func (t *trial) restores(ctx context.Context) error {
	if !t.plan.wants("restore") {
		return nil
	}
	size, err := measureTree(t.live) // a change may have made it another
	if err != nil {
		return err
	}
	var turns []turn
	for _, c := range t.rivals {
		capture, who := c.names()
		j, has := t.written[capture]
		if !has {
			continue
		}
		turns = append(turns, turn{who, isRanked("restore", t.set.name, who), func(round int) error {
			defer os.RemoveAll(j.out)
			if err := t.settle(ctx, j.repo, j.repo+".cache"); err != nil {
				return err
			}
			used, err := c.restore(ctx, j)
			if err != nil {
				return err
			}
			synced, err := timed(t.place.durable)
			if err != nil {
				return err
			}
			used = used.then(synced)
			if got, err := measureTree(j.out); err != nil || got != size {
				return fmt.Errorf("restored %d files, %d bytes, want %d, %d: %v", got.files, got.bytes, size.files, size.bytes, err)
			}
			t.report.spent("restore", t.set.name, who, used)
			t.say("%s: restore, round %d: %s: %.2f s, of that %.2f s sync, peak %.0f MiB", t.set.name, round+1, who, used.seconds, synced.seconds, used.peak)
			return nil
		}})
	}
	return t.rounds(ctx, t.set.name+": restore", t.limits(), nil, turns)
}
