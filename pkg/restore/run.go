package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
)

// runPhases runs the phases in order, measures them, and stops at the first error.
// With mayInterrupt, if ctx ends between two phases or makes a phase fail, the error
// is the cause of ctx.
func runPhases[T any](ctx context.Context, s *session, list []phase[T], subject T, mayInterrupt bool) error {
	for _, p := range list {
		if p.skip != nil && p.skip(subject) {
			continue
		}
		if mayInterrupt && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := s.phase(p.name, func() error { return p.do(subject, ctx) })
		if mayInterrupt {
			err = fault.Because(ctx, err)
		}
		if err != nil {
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

// Cost is the cost of a first pass, while the app ran.
type Cost = snapshot.Cost

// Observer is told how one operation goes. Its methods may be called from several
// goroutines at a time. The operation waits for them to return.
type Observer interface {
	// Phase says that a phase begins.
	Phase(p Phase)
	// Progress says that done of total bytes of a volume's content are processed, in
	// the phase that began last.
	Progress(volume string, done, total int64)
	// Line is one line of text for the person at the terminal.
	Line(text string)
}

type observerKey struct{}

// Observe returns a context whose operation reports to o, as httptrace does for a
// request.
func Observe(ctx context.Context, o Observer) context.Context {
	return context.WithValue(ctx, observerKey{}, o)
}

// observer returns the observer of a context, or one that does nothing.
func observer(ctx context.Context) Observer {
	if o, ok := ctx.Value(observerKey{}).(Observer); ok {
		return o
	}
	return nobody{}
}

type nobody struct{}

func (nobody) Phase(Phase)                   {}
func (nobody) Progress(string, int64, int64) {}
func (nobody) Line(string)                   {}

func (s *session) say(format string, args ...any) {
	s.observer.Line(fmt.Sprintf(format, fault.InLines(args)...))
}

// sayAlso says what an operation does to the containers of somebody else that the config
// has it put to rest.
func (s *session) sayAlso(doing string, containers []runtime.Container) {
	for _, c := range containers {
		if c.Also && c.Awake() {
			s.say("%s container %s, which is listed in also_stop", doing, c.Name)
		}
	}
}
