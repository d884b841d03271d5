package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// turn is one contender's part of a round. What run does before and after what
// it measures is up to it.
type turn struct {
	who    string
	ranked bool // a target is about it
	run    func(round int) error
}

// limits are how many rounds there are, and when no further one begins.
type limits struct {
	least, most int
	within      time.Duration
}

func (b *bench) limits() limits { return limits{b.plan.Least, b.plan.Most, b.plan.Within} }

// rounds lets the contenders take turns, each round beginning with another, so
// that what the machine does meanwhile falls on all of them. Those that no target
// is about take part in the first; the others go on after the least number of
// rounds while there is time, and stop before it where the part is late.
// Before each round before is called, which may be nil. A peer that fails is
// noted and does not take part any more; snap's failure is an error.
func (b *bench) rounds(ctx context.Context, what string, l limits, before func(round int) error, turns []turn) error {
	began := time.Now()
	for round := range l.most {
		least := l.least
		if b.late() {
			least = min(least, 2)
		}
		if spent := time.Since(began); round >= least && spent+spent/time.Duration(round) > l.within {
			return nil
		}
		if before != nil {
			if err := before(round); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		for _, t := range rotated(turns, round) {
			if round > 0 && !t.ranked {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			err := t.run(round)
			if err == nil {
				continue
			}
			err = fmt.Errorf("%s: %s: %w", what, t.who, err)
			if strings.HasPrefix(t.who, whoSnap) || ctx.Err() != nil {
				return err
			}
			b.report.note("%s failed and was left out: %v", t.who, err)
			b.say("%v", err)
			turns = slices.DeleteFunc(slices.Clone(turns), func(o turn) bool { return o.who == t.who })
		}
	}
	return nil
}

func rotated(turns []turn, round int) []turn {
	if len(turns) == 0 {
		return nil
	}
	n := round % len(turns)
	return append(slices.Clone(turns[n:]), turns[:n]...)
}
