package restore

import (
	"context"
	"time"

	"github.com/tiny-forge/snap/pkg/snapshot"
)

// runPhases is the one runner. It takes the phases in order, measures them, tells
// tests where it is, and stops at the first error. Where a signal may interrupt
// the operation and ctx ends between two phases, or makes one fail, the cause of
// ctx is the error.
func runPhases[T any](ctx context.Context, s *session, list []phase[T], subject T, mayInterrupt bool) error {
	for _, p := range list {
		if p.skip != nil && p.skip(subject) {
			continue
		}
		if mayInterrupt && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := s.phase(p.name, func() error { return p.do(subject, ctx) }); err != nil {
			if mayInterrupt {
				err = because(ctx, err)
			}
			return err
		}
		s.at(string(p.name))
	}
	return nil
}

// phase announces, runs and times one phase.
func (s *session) phase(name Phase, do func() error) error {
	s.observer.Phase(name)
	start := time.Now()
	defer func() { s.seconds[name] += time.Since(start).Seconds() }()
	return do()
}

// Seconds are how long each phase took.
type Seconds map[Phase]float64

// Cost is what a first pass has cost, while the app ran.
type Cost = snapshot.Cost
