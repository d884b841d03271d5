package member

import (
	"errors"
	"fmt"
)

// ErrRefused is wrapped by every error that means that an archive must not be
// extracted: it is forged, it is damaged, or a volume cannot hold what is in it. An
// error of the disk never wraps it.
var ErrRefused = errors.New("archive refused")

// Refuse returns an error that wraps ErrRefused.
func Refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRefused, fmt.Errorf(format, args...))
}
