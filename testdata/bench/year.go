package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The rows of a year of nights. The data set and how it changes stand between the first
// word and the rest.
const (
	yearMark    = "a year of nights: "
	rowFirst    = ": stored after the first"
	rowKept     = ": stored in the end"
	rowNight    = ": each night"
	rowForget   = ": each week, what is not kept is deleted"
	rowYearGrow = ": growth of a night ÷ changed bytes"
)

// The targets of a year of nights, for every data set and manner of change.
func init() {
	for _, set := range []string{"small", "pg"} {
		for _, manner := range manners {
			row := yearMark + set + ", " + manner
			targets = append(targets, target{row + rowFirst, whoSnap, whoPigz6, 1.1})
			for _, peer := range []string{whoRestic, whoBorg, whoKopia} {
				targets = append(targets, target{row + rowKept, whoSnap, peer, 1.5}, target{row + rowNight, whoSnap, peer, 1})
			}
		}
	}
}

// A night changes a hundredth of the data, scattered over all of it or in one place.
const (
	scattered = "scattered"
	clustered = "clustered"
)

var manners = []string{scattered, clustered}

// kept tells which of the nights up to this one are kept: the last 7 days, 5 weeks and 12
// months that have any, and of each the last. Each night is the next calendar day.
func kept(night int) map[int]bool {
	day := func(n int) time.Time { return time.Date(2025, 1, 1+n, 3, 0, 0, 0, time.UTC) }
	keep := map[int]bool{}
	for _, rule := range []struct {
		count int
		of    func(time.Time) string
	}{
		{7, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{5, func(t time.Time) string { year, week := t.ISOWeek(); return fmt.Sprint(year, " ", week) }},
		{12, func(t time.Time) string { return t.Format("2006-01") }},
	} {
		last := ""
		for n, left := night, rule.count; n >= 0 && left > 0; n-- {
			if of := rule.of(day(n)); of != last {
				last, keep[n] = of, true
				left--
			}
		}
	}
	return keep
}

// year measures all nights of a data set that changes in one manner.
func (b *bench) year(ctx context.Context, set, manner string) error {
	clear(b.leftOut)
	dir := filepath.Join(b.dir, "year")
	defer os.RemoveAll(dir)
	y := &year{bench: b, row: yearMark + set + ", " + manner, live: filepath.Join(dir, set), names: map[string]map[int]string{}}
	if err := y.make(ctx, set, manner); err != nil {
		b.note("the data set %s was left out: %v", set, err)
		return ctx.Err()
	}
	size, err := measureTree(y.live)
	if err != nil {
		return err
	}
	b.note("%s: %d files, %d MiB, %d nights", set, size.files, size.bytes/mib, b.nights)
	for i, c := range contenders {
		j := job{y.live, filepath.Join(dir, fmt.Sprint("repo", i)), ""}
		switch {
		case !have(c.program):
			b.note("%s is not on this machine, and is left out", c.program)
		case c.incremental:
			y.rivals = append(y.rivals, rival{c, j})
			y.names[c.who] = map[int]string{}
			_, err = run(j.script(ctx, c.prepare))
		case c.who == whoPigz6:
			_, err = run(j.script(ctx, `cd "$live"; `+c.capture))
			info, serr := os.Stat(j.repo)
			if err = errors.Join(err, serr); err == nil {
				b.report.add(y.row+rowFirst, "MiB", c.who, float64(info.Size())/mib)
			}
		}
		if err != nil {
			return err
		}
	}
	for night := range b.nights {
		var changed int64
		if night > 0 {
			if changed, err = y.change(night); err != nil {
				return err
			}
		}
		if err := b.round(ctx, y.row, night, y.turns(ctx, night, changed)); err != nil {
			return err
		}
		if night%7 == 6 || night == b.nights-1 {
			b.say("%s: %d nights", y.row, night+1)
		}
	}
	return nil
}

type year struct {
	*bench
	row    string
	live   string
	rivals []rival
	names  map[string]map[int]string // of the snapshots that are kept, by contender and night
	change func(night int) (int64, error)
}

func (y *year) make(ctx context.Context, set, manner string) error {
	if set == "pg" {
		pages := map[string]int64{scattered: 1, clustered: 128}[manner]
		y.change = func(night int) (int64, error) { return touchPages(y.live, night, pages) }
		return y.postgres(ctx, y.live)
	}
	files := smallFiles(50_000 / y.shrink)
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.path, b.path) })
	y.change = func(night int) (int64, error) {
		if manner == clustered {
			n := max(1, len(files)/100)
			at := rand.New(rand.NewPCG(25, uint64(night))).IntN(len(files) - n)
			return rewriteAll(y.live, files[at:at+n], night)
		}
		_, bytes, err := rewrite(y.live, files, night)
		return bytes, err
	}
	return makeFiles(y.live, files)
}

// turns are those of a night.
func (y *year) turns(ctx context.Context, night int, changed int64) (turns []turn) {
	for _, r := range y.rivals {
		turns = append(turns, turn{r.who, true, func(int) error { return y.night(ctx, r, night, changed) }})
	}
	return turns
}

// night is a capture and, once a week and in the end, the deletion of what is not kept.
func (y *year) night(ctx context.Context, r rival, night int, changed int64) error {
	var before extent
	var err error
	if night > 0 { // before the first there may be nothing
		if before, err = measureTree(r.repo); err != nil {
			return err
		}
	}
	used, err := run(r.script(ctx, `cd "$live"; `+r.capture))
	if err != nil {
		return err
	}
	names := y.names[r.who]
	if names[night], err = output(r.script(ctx, r.last)); err != nil {
		return err
	}
	now, err := measureTree(r.repo)
	if err != nil {
		return err
	}
	if night == 0 {
		y.report.add(y.row+rowFirst, "MiB", r.who, float64(now.bytes)/mib)
	} else {
		y.report.add(y.row+rowNight, "s", r.who, used.seconds)
		y.report.add(y.row+rowYearGrow, "×", r.who, float64(now.bytes-before.bytes)/float64(changed))
	}
	if night%7 != 6 && night != y.nights-1 {
		return nil
	}
	keep := kept(night)
	var gone []string
	for n, name := range names {
		if !keep[n] {
			gone = append(gone, name)
			delete(names, n)
		}
	}
	if len(gone) > 0 {
		slices.Sort(gone)
		used, err := run(r.script(ctx, "gone='"+strings.Join(gone, " ")+"'; "+r.forget))
		if err != nil {
			return err
		}
		y.report.add(y.row+rowForget, "s", r.who, used.seconds)
	}
	if night < y.nights-1 {
		return nil
	}
	end, err := measureTree(r.repo)
	y.report.add(y.row+rowKept, "MiB", r.who, float64(end.bytes)/mib)
	return err
}

// touchPages changes as many pages as are a hundredth of the tree, in runs that begin
// anywhere in the biggest file. Of each page 512 bytes become noise: what a database
// does to a page whose rows are updated.
func touchPages(dir string, round int, atOnce int64) (changed int64, err error) {
	return overwrite(dir, round, atOnce, func(page []byte, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		noise := file{bytes: 512, seed: seed, noise: true}
		copy(page[r.IntN(len(page)-512):], noise.content())
	})
}

// rewriteAll writes files anew with other text, and returns how many bytes those are.
func rewriteAll(dir string, files []file, round int) (bytes int64, err error) {
	for _, other := range files {
		other.seed += 1000 * uint64(round+1)
		if err := os.WriteFile(filepath.Join(dir, other.path), other.content(), 0o644); err != nil {
			return 0, err
		}
		bytes += other.bytes
	}
	return bytes, nil
}
