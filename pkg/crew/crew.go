// Package crew brings the panic of a worker goroutine to the goroutine that waits
// for the worker. Without it the process ends at once, and nobody up the stack can
// say what the crash interrupted.
//
// A worker runs its work through [Catch] and returns the error like any other. The
// goroutine that receives the error calls [Raise] before it acts on the error: a
// panic is a fault of the program, and not a reason for an orderly undo.
package crew

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Panic is the panic of a worker, as an error.
type Panic struct {
	Value any
	Stack []byte // of the worker
}

// Error includes the stack: a Panic that nobody recovers is printed by the Go
// runtime, together with a stack that does not lead to the fault.
func (p *Panic) Error() string { return fmt.Sprintf("%v\n\n%s", p.Value, p.Stack) }

// Catch runs f and returns its error. If f panics, the error is a [*Panic].
func Catch(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			if p, again := v.(*Panic); again {
				err = p // its stack is the one that leads to the fault
				return
			}
			err = &Panic{v, debug.Stack()}
		}
	}()
	return f()
}

// Each calls do for the items, as many at a time as there are processors. After the first
// error, or when ctx ends, it begins no more, and ctx has ended for those that are under
// way; then it returns that error, or the cause of ctx. If a call panics, Each does.
func Each[T any](ctx context.Context, items []T, do func(context.Context, T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(items)) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(items) {
					return
				}
				if err := Catch(func() error { return do(ctx, items[i]) }); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	Raise(context.Cause(ctx))
	return context.Cause(ctx)
}

// Raise panics with the [*Panic] that err wraps, and does nothing if err wraps
// none.
func Raise(err error) {
	var p *Panic
	if errors.As(err, &p) {
		panic(p)
	}
}
