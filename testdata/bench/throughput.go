package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// The rows of the table. What is measured of a data set stands after its name.
const (
	rowCapture = ": first capture"
	rowStored  = ": stored after the first capture"
	rowCheck   = ": check all that is stored"
	rowAgain   = ": capture again, nothing changed"
	rowChanged = ": capture again, 1 % changed"
	rowGrowth  = ": growth ÷ changed bytes"
	rowRestore = ": restore to disk"
	rowMemory  = "most memory, the data sets above"
	rowPerFile = ", time for each of 1,000,000 files"
	rowMillion = "most memory, 1,000,000 files"

	whoByHand   = "gzip -dc, sha256sum"
	whoFewFiles = "each of 10,000"
)

// throughput measures capture, capture again and restore on a data set.
func (b *bench) throughput(ctx context.Context, set dataset) error {
	clear(b.leftOut)
	dir := filepath.Join(b.dir, "trial")
	defer os.RemoveAll(dir)
	live := filepath.Join(dir, set.name)
	b.say("%s: making the data set", set.name)
	if err := set.make(ctx, live); err != nil {
		b.note("the data set %s was left out: %v", set.name, err)
		return ctx.Err()
	}
	size, err := measureTree(live)
	if err != nil {
		return err
	}
	b.report.About = append(b.report.About, fmt.Sprintf("%s: %d files, %d MiB", set.name, size.files, size.bytes/mib))
	t := &trial{bench: b, set: set.name, size: size}
	for i, c := range contenders {
		if have(c.program) {
			t.rivals = append(t.rivals, rival{c, job{live, filepath.Join(dir, fmt.Sprint("repo", i)), filepath.Join(dir, "out")}})
		} else {
			b.note("%s is not on this machine, and is left out", c.program)
		}
	}
	if err := t.captures(ctx); err != nil {
		return err
	}
	if b.wants("verify") && isTarget(set.name+rowCheck, whoSnap) {
		err = t.checks(ctx)
	}
	if err == nil && b.wants("again") {
		err = t.again(ctx, set.change)
	}
	if err == nil && b.wants("restore") {
		err = t.restores(ctx)
	}
	return err
}

// trial is a data set with those who compete on it.
type trial struct {
	*bench
	set    string
	size   extent
	rivals []rival
}

type rival struct {
	*contender
	job
}

// turns are those of the rivals in a row.
func (t *trial) turns(row string, run func(r rival) error) (turns []turn) {
	for _, r := range t.rivals {
		turns = append(turns, turn{r.who, isTarget(t.set+row, r.who), func(int) error { return run(r) }})
	}
	return turns
}

// measure runs a script that reads some trees and writes so many bytes.
func (t *trial) measure(ctx context.Context, row, who string, j job, script string, writes int64, reads ...string) error {
	if err := t.settle(ctx, writes, reads...); err != nil {
		return err
	}
	used, err := run(j.script(ctx, script))
	if err != nil {
		return err
	}
	t.report.add(t.set+row, "s", who, used.seconds)
	t.peaks[who] = max(t.peaks[who], used.peak)
	t.say("%s%s: %s: %.2f s, peak %.0f MiB", t.set, row, who, used.seconds, used.peak)
	return nil
}

// captures measures the first capture, into a new repository each round. What
// comes after needs it once.
func (t *trial) captures(ctx context.Context) error {
	rounds := t.rounds
	if !t.wants("capture") {
		rounds = 1
	}
	return t.inRounds(ctx, t.set+rowCapture, rounds, t.turns(rowCapture, func(r rival) error {
		if _, err := run(r.script(ctx, `rm -rf "$repo" "$repo".*; `+r.prepare)); err != nil {
			return err
		}
		if err := t.measure(ctx, rowCapture, r.who, r.job, `cd "$live"; `+r.capture, t.size.bytes, r.live); err != nil {
			return err
		}
		stored, err := measureTree(r.repo)
		t.report.add(t.set+rowStored, "MiB", r.who, float64(stored.bytes)/mib)
		return err
	}))
}

// checks measures the reading of all that snap stored, with a checksum of what
// it inflates to. By hand that is an inflate and a sum for each hundred members.
func (t *trial) checks(ctx context.Context) error {
	own := t.rivals[0]
	check := func(who, script string) turn {
		return turn{who, true, func(int) error { return t.measure(ctx, rowCheck, who, own.job, script, 0, own.repo) }}
	}
	return t.inRounds(ctx, t.set+rowCheck, t.rounds, []turn{
		check(whoSnap, `"$snap" --config "$repo.yaml" export data "$(<"$repo.sid")" -o - >/dev/null`),
		check(whoByHand, `find "$repo/store/members" -name '*.gz' -print0 | xargs -0 -n 100 -P "$(nproc)" sh -c 'gzip -dc "$@" | sha256sum' sh`)})
}

// again measures a further capture: of what has not changed, and after each of
// some changes, with how much the repository grew for each byte that changed.
// tar has no part in it: it would take everything once more.
func (t *trial) again(ctx context.Context, change func(dir string, round int) (int64, error)) error {
	once := func(row string, r rival, changed int64) error {
		if !r.incremental {
			return nil
		}
		old, err := measureTree(r.repo)
		if err != nil {
			return err
		}
		if err := t.measure(ctx, row, r.who, r.job, `cd "$live"; `+r.capture, 0, r.live, r.repo+".cache"); err != nil {
			return err
		}
		now, err := measureTree(r.repo)
		if changed > 0 {
			t.report.add(t.set+rowGrowth, "×", r.who, float64(now.bytes-old.bytes)/float64(changed))
		}
		return err
	}
	err := t.inRounds(ctx, t.set+rowAgain, t.rounds, t.turns(rowAgain, func(r rival) error { return once(rowAgain, r, 0) }))
	for round := 0; round < t.rounds && change != nil && err == nil; round++ {
		var bytes int64
		if bytes, err = change(t.rivals[0].live, round); err == nil {
			err = t.round(ctx, t.set+rowChanged, round, t.turns(rowChanged, func(r rival) error { return once(rowChanged, r, bytes) }))
		}
	}
	return err
}

// restores measures restoring to a new directory until it is on disk.
func (t *trial) restores(ctx context.Context) error {
	want, err := measureTree(t.rivals[0].live) // a change may have made it another
	if err != nil {
		return err
	}
	return t.inRounds(ctx, t.set+rowRestore, t.rounds, t.turns(rowRestore, func(r rival) error {
		defer os.RemoveAll(r.out)
		if err := t.measure(ctx, rowRestore, r.who, r.job, intoOut+r.restore+`; sync --file-system "$live"`, want.bytes, r.repo, r.repo+".cache"); err != nil {
			return err
		}
		got, err := measureTree(r.out)
		if err == nil && got != want {
			err = fmt.Errorf("restored %d files, %d bytes, want %d, %d", got.files, got.bytes, want.files, want.bytes)
		}
		return err
	}))
}

const intoOut = `mkdir "$out"; cd "$out"; `

// scale measures a volume of n small files. What each takes must not grow with
// their number.
func (b *bench) scale(ctx context.Context, who string, n int) error {
	b.say("scale: making %d files", n)
	dir := filepath.Join(b.dir, "scale")
	defer os.RemoveAll(dir)
	j := job{filepath.Join(dir, "live"), filepath.Join(dir, "store"), filepath.Join(dir, "out")}
	const piece = 10_000 // others are charged with this process's memory
	for begin := 0; begin < n; begin += piece {
		if err := errors.Join(ctx.Err(), makeFiles(j.live, scaleFiles(begin, min(begin+piece, n), n))); err != nil {
			return err
		}
	}
	own := contenders[0]
	if _, err := run(j.script(ctx, own.prepare)); err != nil {
		return err
	}
	time.Sleep(notHot)
	for _, part := range []struct{ row, script string }{
		{"first capture", own.capture}, {"capture again", own.capture}, {"restore", intoOut + own.restore},
	} {
		if err := b.settle(ctx, 0, dir); err != nil {
			return err
		}
		used, err := run(j.script(ctx, part.script))
		if err != nil {
			return err
		}
		b.report.add(part.row+rowPerFile, "µs", who, used.seconds/float64(n)*1e6)
		b.report.add(rowMillion, "MiB", who, used.peak)
		b.say("scale: %s: %.2f s, peak %.0f MiB", part.row, used.seconds, used.peak)
	}
	return nil
}

// notHot is how long snap takes a file that has just been written as still
// changing, and a little more. An operator is not that quick.
const notHot = 1200 * time.Millisecond
