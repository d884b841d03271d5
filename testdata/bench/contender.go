package main

import "context"

// contender is a way to keep the data of a directory, as an operator would run
// it. What prepares and cleans up around a run is not timed; capture and restore
// return what the commands alone took.
type contender interface {
	// names are what a reader knows it by: while it captures, and while it restores.
	names() (capture, restore string)
	// incremental says whether a second capture knows of the first.
	incremental() bool
	// prepare makes an empty repository at j.repo, which does not exist.
	prepare(ctx context.Context, j job) error
	// capture takes j.live into the repository.
	capture(ctx context.Context, j job) (cost, error)
	// restore puts what was captured last into j.out, which does not exist,
	// without waiting for the disk unless the contender does so itself.
	restore(ctx context.Context, j job) (cost, error)
}

// job is where a contender works.
type job struct {
	live string // the data
	repo string // what it keeps; whatever else it needs lies beside, under names that begin with this one
	out  string // where it restores to
}

// contenders are those that are there: snap first. What is not there is noted.
func (b *bench) contenders(ctx context.Context) []contender {
	list := []contender{&snapper{bench: b}}
	if b.zstd {
		list = append(list, &snapper{bench: b, zstd: true})
	} else {
		b.report.note("this snap does not know `compression: zstd`")
	}
	list = append(list, packers()...)
	for _, c := range []struct {
		program string
		as      contender
	}{{"restic", &restic{}}, {"borg", &borg{}}, {"kopia", &kopia{}}} {
		if have(c.program) {
			list = append(list, c.as)
		} else {
			b.report.note("%s is not on this machine, and is left out", c.program)
		}
	}
	return list
}
