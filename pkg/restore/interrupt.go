package restore

import (
	"context"
	"errors"
)

// Signal is the cause with which the door ends a context when a signal
// arrives.
type Signal struct {
	Name string // "SIGINT"
	Code int    // the exit code that tells of it: 128 and its number
}

func (s *Signal) Error() string { return "interrupted by " + s.Name }

// interruption returns an error of kind Interrupted when a signal is behind
// err, and nil otherwise.
func interruption(err error) *Error {
	var sig *Signal
	if !errors.As(err, &sig) {
		return nil
	}
	return fault(Interrupted, "interrupted", Remedy{}, "%w; data and containers are as before", sig)
}

// because returns the signal that ended ctx instead of what that made fail, and
// err where none did.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
