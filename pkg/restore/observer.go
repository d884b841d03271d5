package restore

import (
	"context"
	"fmt"
)

// Observer is told how one operation goes. Its methods may be called from several
// goroutines at a time. They change nothing of the operation, which waits for
// them.
type Observer interface {
	// Phase says that a phase begins.
	Phase(p Phase)
	// Progress says that done of total bytes of a volume's content are through, in
	// the phase that began last.
	Progress(volume string, done, total int64)
	// Line is what a person may want to know about what is being done.
	Line(text string)
}

type observerKey struct{}

// Observe returns a context whose operation reports to o, as httptrace does for a
// request.
func Observe(ctx context.Context, o Observer) context.Context {
	return context.WithValue(ctx, observerKey{}, o)
}

// observer returns the observer of a context; one that listens to nothing where
// there is none.
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

func (s *session) say(format string, args ...any) { s.observer.Line(fmt.Sprintf(format, args...)) }
