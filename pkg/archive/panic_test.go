package archive_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/crew"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// faulty is a sink and an opener in memory that panics at its n-th call, and may
// go on to panic at those after it.
type faulty struct {
	*memory
	left  chan struct{} // calls that do not panic
	again bool
}

func panicsAt(m *memory, n int, again bool) *faulty {
	f := &faulty{m, make(chan struct{}, n), again}
	for range n {
		f.left <- struct{}{}
	}
	return f
}

func (f *faulty) theFault() {
	select {
	case <-f.left:
		if !f.again && len(f.left) == 0 {
			panic("a fault")
		}
	default:
		if f.again {
			panic("a fault")
		}
	}
}

func (f *faulty) Put(tar []byte) (archive.Member, error) {
	f.theFault()
	return f.memory.Put(tar)
}

func (f *faulty) Open(ctx context.Context, m archive.Member, buf []byte) ([]byte, error) {
	f.theFault()
	return f.memory.Open(ctx, m, buf)
}

// raised runs f, which has to panic with what a worker panicked with, and must
// not hang.
func raised(t *testing.T, f func() error) {
	t.Helper()
	got := make(chan any, 1)
	go func() {
		defer func() { got <- recover() }()
		if err := f(); err != nil {
			panic(fmt.Sprintf("it returned %v", err))
		}
	}()
	select {
	case v := <-got:
		if p, ok := v.(*crew.Panic); !ok || p.Value != "a fault" || !strings.Contains(string(p.Stack), "theFault") {
			t.Errorf("it ended with %v", v)
		}
	case <-time.After(time.Minute):
		t.Error("it hangs")
	}
}

// TestAPanicOfAWorkerIsThatOfWhoCalledIt has each kind of worker panic, early and
// late, once and for good. That nothing hangs is the point: a process that hangs
// in its crash holds its locks, and no watchdog recovers for it.
func TestAPanicOfAWorkerIsThatOfWhoCalledIt(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{}
	for i := range 12 {
		files[fmt.Sprintf("small/%d", i)] = strings.Repeat(fmt.Sprint(i), 3000)
		files[fmt.Sprintf("large/%d", i)] = strings.Repeat(fmt.Sprintf("%08d", i), 3<<17)
	}
	disktest.Write(t, dir, files)
	kept := newMemory()
	result, err := archive.Write(t.Context(), open(t, dir), kept, archive.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	extract := func(from archive.Opener, supply func(*archive.Entry, []archive.Member) archive.Fill) func() error {
		into := open(t, t.TempDir())
		return func() error {
			r := archive.NewReader(t.Context(), from, result.Members)
			defer r.Close()
			_, err := archive.Extract(t.Context(), r, into, archive.ExtractOptions{
				MaxEntries: result.Stats.Entries(), MaxBytes: result.Stats.Bytes, MaxDepth: result.Stats.Depth, Supply: supply,
			})
			return err
		}
	}
	for _, n := range []int{1, 20, len(result.Members) - 1} {
		for _, again := range []bool{false, true} {
			t.Run(fmt.Sprintf("call %d, for good: %v", n, again), func(t *testing.T) {
				raised(t, func() error {
					_, err := archive.Write(t.Context(), open(t, dir), panicsAt(newMemory(), n, again), archive.WriteOptions{})
					return err
				})
				raised(t, extract(panicsAt(kept, n, again), nil))
				f := panicsAt(kept, min(n, 10), again)
				raised(t, extract(kept, func(*archive.Entry, []archive.Member) archive.Fill {
					return func(*os.File) (bool, error) { f.theFault(); return false, nil }
				}))
			})
		}
	}
}
