package main

import (
	"context"
	"os"
)

// method is a way to bring a volume back to its snapshot while an app lives on
// it. It returns when the app has been started again; it need not answer yet.
type method struct {
	name  string
	bring func(ctx context.Context, s *stage) (told float64, phases map[string]float64, err error)
	// within are the phases that lie between the app's stop and its start.
	within []string
}

// inner is how long those took.
func (m method) inner(phases map[string]float64) (sum float64) {
	for _, name := range m.within {
		sum += phases[name]
	}
	return sum
}

// The methods' names. All but snap are what operators do by hand.
const (
	whoResticInPlace = "restic in place"
	whoTarInPlace    = "tar in place"
	whoSwap          = "stop-extract-swap"
	whoAhead         = "extract, then stop and swap"
	whoBefore        = whoSnap // restore --guard before, the default
	whoAfter         = "snap --guard after"
)

func (b *bench) methods() []method {
	before := b.snapMethod(whoBefore)
	before.within = []string{"pass_two", "publish", "swap", "commit"}
	list := []method{before}
	if b.guard {
		after := b.snapMethod(whoAfter, "--guard", "after")
		after.within = []string{"swap", "commit"}
		list = append(list, after)
	} else {
		b.report.note("this snap does not know restore --guard")
	}
	if have("restic") {
		list = append(list, method{name: whoResticInPlace, bring: byHand(resticInPlace)})
	} else {
		b.report.note("restic is not on this machine, and is left out")
	}
	return append(list,
		method{name: whoTarInPlace, bring: byHand(tarInPlace)},
		method{name: whoSwap, bring: byHand(swapAfter)},
		method{name: whoAhead, bring: swapAhead})
}

func (b *bench) snapMethod(name string, flags ...string) method {
	return method{name: name, bring: func(ctx context.Context, s *stage) (float64, map[string]float64, error) {
		args := append([]string{"restore", s.app.name, s.sid, "--confirm", s.sid}, flags...)
		_, t, err := b.snapRun(ctx, s.app.config, args...)
		return t.Downtime, t.Phases, err
	}}
}

// byHand does something to the volume while the app is stopped.
func byHand(do func(ctx context.Context, s *stage) error) func(context.Context, *stage) (float64, map[string]float64, error) {
	return func(ctx context.Context, s *stage) (float64, map[string]float64, error) {
		if err := s.app.stop(ctx); err != nil {
			return 0, nil, err
		}
		if err := do(ctx, s); err != nil {
			return 0, nil, err
		}
		return 0, nil, s.app.start(ctx)
	}
}

func resticInPlace(ctx context.Context, s *stage) error {
	_, err := s.app.restic.inPlace(ctx, s.restic.repo, s.app.live)
	return err
}

// tarInPlace empties the volume and fills it again.
func tarInPlace(ctx context.Context, s *stage) error {
	if _, err := run(ctx, cmd("find", s.app.live, "-mindepth", "1", "-delete")); err != nil {
		return err
	}
	return s.untar(ctx, s.app.live)
}

// swapAfter extracts beside the volume and exchanges the two.
func swapAfter(ctx context.Context, s *stage) error {
	if err := s.untar(ctx, s.fresh()); err != nil {
		return err
	}
	return s.swap(ctx)
}

// swapAhead extracts while the app still runs. A container binds a directory,
// not a path, so it needs no more than a restart to see the other one.
func swapAhead(ctx context.Context, s *stage) (float64, map[string]float64, error) {
	if err := s.untar(ctx, s.fresh()); err != nil {
		return 0, nil, err
	}
	return byHand(func(ctx context.Context, s *stage) error { return s.swap(ctx) })(ctx, s)
}

func (s *stage) fresh() string { return s.app.live + ".new" }

func (s *stage) untar(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	_, err := run(ctx, cmd("tar", "--extract", "--gzip", "--file="+s.archive, "--directory="+dir))
	return err
}

// swap moves the volume away and the fresh one in, with the command that an
// operator has. The old one is the copy that is kept.
func (s *stage) swap(ctx context.Context) error {
	if _, err := run(ctx, cmd("mv", "--no-target-directory", s.app.live, s.aside())); err != nil {
		return err
	}
	_, err := run(ctx, cmd("mv", "--no-target-directory", s.fresh(), s.app.live))
	return err
}

func (s *stage) aside() string { return s.app.live + ".old" }

// tidy removes what a method leaves for an operator to remove.
func (s *stage) tidy() error {
	for _, dir := range []string{s.fresh(), s.aside()} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
