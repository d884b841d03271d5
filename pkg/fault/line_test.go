package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
)

// Errors that were joined are told apart on one line; a line break of a name stays to be
// escaped by whoever prints it.
func TestJoinedErrorsAreOneLine(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c\nd")
	for want, err := range map[string]error{
		"a":                   a,
		"a; b":                errors.Join(a, b),
		"x: a; b":             fmt.Errorf("x: %w", errors.Join(a, b)),
		"x: a; b, and b; a":   fmt.Errorf("x: %w, and %w", errors.Join(a, b), errors.Join(b, a)),
		"a; x: b; a; c\nd":    errors.Join(a, fmt.Errorf("x: %w", errors.Join(b, a)), c),
		"c\nd":                c,
		"c\nd; c\nd":          errors.Join(c, c),
		"undone: a; b (c\nd)": fault.New(fault.Failed, "x", remedy.Remedy{}, "undone: %w (%w)", errors.Join(a, b), c),
	} {
		if got := fault.Line(err); got != want {
			t.Errorf("%q, expected %q", got, want)
		}
	}
	if got := fmt.Sprintf("%d %v %s", fault.InLines([]any{1, errors.Join(a, b), "x\ny"})...); got != "1 a; b x\ny" {
		t.Errorf("%q", got)
	}
}
