package main

import (
	"context"
	"path/filepath"
	"runtime"
	"strconv"
)

// whoSum is what an operator has to see whether what is stored can be read.
const whoSum = "gzip -dc | sha256sum"

// verifies measures the reading of all that the first capture stored, with a
// checksum of what it inflates to. snap does so before it gives out any of it.
func (t *trial) verifies(ctx context.Context) error {
	j, has := t.written[whoSnap]
	if !has || !isRanked("verify", t.set.name, whoSnap) || !t.plan.wants("verify") {
		return nil
	}
	var turns []turn
	for _, by := range []struct {
		who   string
		check func(context.Context, job) (cost, error)
	}{{whoSnap, t.exported}, {whoSum, t.summed}} {
		turns = append(turns, turn{by.who, true, func(round int) error {
			if err := t.place.settle(j.repo); err != nil {
				return err
			}
			used, err := by.check(ctx, j)
			if err != nil {
				return err
			}
			t.report.spent("verify", t.set.name, by.who, used)
			t.say("%s: verify, round %d: %s: %.2f s", t.set.name, round+1, by.who, used.seconds)
			return nil
		}})
	}
	return t.rounds(ctx, t.set.name+": verify", limits{t.plan.Least, t.plan.Least, 0}, nil, turns)
}

func (t *trial) exported(ctx context.Context, j job) (cost, error) {
	s := t.rivals[0].(*snapper)
	return pipe(ctx, nil, cmd(t.snap, "--config", s.config(j), "export", "data", s.sid, "-o", "-"))
}

// summed has one inflate and one sum for each core, on members by the hundred.
func (t *trial) summed(ctx context.Context, j job) (cost, error) {
	return run(ctx, cmd("sh", "-c",
		`find "$1" -name '*.gz' -print0 | xargs -0 -n 100 -P "$2" sh -c 'gzip -dc "$@" | sha256sum' sh`,
		"sh", filepath.Join(j.repo, "members"), strconv.Itoa(runtime.NumCPU())))
}
