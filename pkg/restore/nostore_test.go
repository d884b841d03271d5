package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/swap"
)

// The store is missing. Recovery decides from the journal, which is in the state,
// and leaves all volumes old or all new. It deletes nothing; the transaction stays
// until a recovery finds the store.
func TestARecoveryDecidesWithoutTheStore(t *testing.T) {
	for _, c := range []struct {
		d    swap.Goal
		want string // the generation that must be live
		kind fault.Kind
	}{{swap.Undecided, "old", fault.RolledBack}, {swap.Committed, "new", fault.Pending}, {swap.Reverted, "old", fault.RolledBack}, {swap.Guarding, "new", fault.Pending}} {
		t.Run(c.d.String(), func(t *testing.T) {
			s := newScene(newWorld(t, t.TempDir(), 2), guardOf(c.d))
			if c.d == swap.Undecided {
				s.arrange(0, "new / old")
			}
			s.decide(c.d)
			s.tx.Close()
			store := filepath.Join(s.dir, "store")
			s.must(os.Rename(store, store+".away"))
			for range 2 {
				list, err := s.engine().Recover(t.Context(), RecoverRequest{})
				if fault.KindOf(err) != c.kind || !strings.Contains(hintOf(err), "is its filesystem mounted?") || !strings.Contains(hintOf(err), "snap recover") {
					t.Errorf("recover returned %v, hint %q; expected kind %v", err, hintOf(err), c.kind)
				}
				if len(list) != 1 || !list[0].Pending || list[0].Action == FrozenTx {
					t.Errorf("recover says %+v", list)
				}
				if got := s.generation(s.states); got != c.want {
					t.Errorf("all volumes are %s, expected %s", got, c.want)
				}
				for i := range s.volumes {
					if _, err := os.Stat(s.staged(i)); err != nil {
						t.Errorf("the other tree is gone: %v", err)
					}
				}
				if _, err := os.Lstat(store); err == nil {
					t.Error("a new store was created")
				}
			}
			s.must(os.Rename(store+".away", store))
			s.recover(c.want)
		})
	}
}

// The store is missing and there is no ready record. Only the store can tell a
// restore that has no ready record yet from one that has lost it, so recovery
// freezes until the store is back.
func TestARecoveryWithoutReadyWaitsForTheStore(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	s.remove("ready", "times")
	s.tx.Close()
	store := filepath.Join(s.dir, "store")
	s.must(os.Rename(store, store+".away"))
	before := disktest.Tree(t, filepath.Join(s.dir, "live"))
	for range 2 {
		list, err := s.engine().Recover(t.Context(), RecoverRequest{})
		if fault.KindOf(err) != fault.Frozen || !strings.Contains(hintOf(err), "is its filesystem mounted?") || len(list) != 1 {
			t.Errorf("recover returned %+v, %v, hint %q", list, err, hintOf(err))
		}
	}
	s.must(os.Rename(store+".away", store))
	disktest.Same(t, "the data", before, disktest.Tree(t, filepath.Join(s.dir, "live")))
	s.recoverTwice()
	if got := s.generation(s.states); got != "old" {
		t.Errorf("all volumes are %s", got)
	}
}
