package crew_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/crew"
)

func theFault(list []int) int { return list[3] }

// TestAPanicReachesWhoWaits goes through two workers, one of which waits for the
// other.
func TestAPanicReachesWhoWaits(t *testing.T) {
	got := make(chan error)
	go func() {
		got <- crew.Catch(func() error {
			inner := make(chan error)
			go func() { inner <- crew.Catch(func() error { theFault(nil); return nil }) }()
			err := <-inner
			crew.Raise(fmt.Errorf("volume a: %w", errors.Join(errors.New("another"), err)))
			return err
		})
	}()
	err := <-got
	defer func() {
		p, ok := recover().(*crew.Panic)
		if !ok || !strings.Contains(fmt.Sprint(p.Value), "index out of range") || !strings.Contains(string(p.Stack), "theFault") {
			t.Errorf("what was raised is %+v", p)
		}
		if !strings.Contains(p.Error(), "theFault") {
			t.Errorf("nobody who reads %q finds the fault", p.Error())
		}
	}()
	crew.Raise(err)
	t.Error("nothing was raised")
}

func TestAnErrorIsNoPanic(t *testing.T) {
	want := errors.New("an error")
	if err := crew.Catch(func() error { return want }); err != want {
		t.Errorf("Catch returned %v", err)
	}
	if err := crew.Catch(func() error { return nil }); err != nil {
		t.Errorf("Catch returned %v", err)
	}
	crew.Raise(want)
	crew.Raise(nil)
}
