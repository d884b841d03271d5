package crew_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
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

// Each comes by every item once, unless something ends it, and then says what.
func TestEachComesByEveryItemOnce(t *testing.T) {
	items := make([]int, 1000)
	for i := range items {
		items[i] = i
	}
	seen := make([]atomic.Int64, len(items))
	if err := crew.Each(t.Context(), items, func(_ context.Context, i int) error { seen[i].Add(1); return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range seen {
		if n := seen[i].Load(); n != 1 {
			t.Fatalf("item %d was done %d times", i, n)
		}
	}
	if err := crew.Each(t.Context(), nil, func(context.Context, int) error { return errors.New("called") }); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	bad := errors.New("bad")
	var done atomic.Int64
	if err := crew.Each(t.Context(), items, func(_ context.Context, i int) error { done.Add(1); return bad }); !errors.Is(err, bad) || done.Load() == int64(len(items)) {
		t.Errorf("%v after %d items", err, done.Load())
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(bad)
	if err := crew.Each(ctx, items, func(context.Context, int) error { return nil }); !errors.Is(err, bad) {
		t.Errorf("of a context that has ended: %v", err)
	}
	defer func() {
		if p, ok := recover().(*crew.Panic); !ok || p.Value != "fault" {
			t.Errorf("the panic came back as %v", p)
		}
	}()
	_ = crew.Each(t.Context(), items, func(context.Context, int) error { panic("fault") })
	t.Error("no panic")
}
