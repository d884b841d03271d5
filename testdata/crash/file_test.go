//go:build linux && amd64

package crash

import "testing"

// filesOn are worlds whose volumes are one file each, on ext4, xfs and btrfs.
func filesOn(store string) func(t *testing.T) *world {
	return func(t *testing.T) *world { return newWorldOf(t, store, true) }
}

// TestARestoreOfFilesKilledBeforeAnyCall is TestARestoreKilledBeforeAnyCall for volumes
// of one file.
func TestARestoreOfFilesKilledBeforeAnyCall(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore of files" + rowSuffix(guard) + ", killed before every call")
		workersIn(t, "files", filesOn("ext4"), func(w *world, worker, of int) {
			w.guard = guard
			w.killRestore(c, worker, of, 41)
		})
	}
}

// fileKillPoints are killPoints that a restore of files has in another way.
var fileKillPoints = []string{
	"renameat2 v1/data",                             // one of three files exchanged
	"renameat store/state/tx/ID/commit.tmp",         // all exchanged, not committed
	"renameat2 v0/.snap-ID/0 → v0/.snap-ID/0.trash", // committed
	"unlinkat v1/.snap-ID/1.trash/data",             // one displaced file deleted
}

// TestARecoveryOfFilesKilledBeforeAnyCall is TestARecoveryKilledBeforeAnyCall for
// volumes of one file.
func TestARecoveryOfFilesKilledBeforeAnyCall(t *testing.T) {
	c := newTally("recover of files, killed before every call")
	workersIn(t, "files", filesOn("ext4"), func(w *world, worker, of int) {
		for _, moment := range fileKillPoints {
			w.killRecovery(c, moment, worker, of, 37)
		}
	})
}

// TestAPowerCutOfARestoreOfFiles cuts the power of every set of the filesystems, with
// the store on btrfs, where a sync makes durable what it names and little else.
func TestAPowerCutOfARestoreOfFiles(t *testing.T) {
	for _, guard := range guards {
		c := newTally("restore of files" + rowSuffix(guard) + ", power cut before every call")
		workersIn(t, "files", filesOn("btrfs"), func(w *world, worker, of int) {
			w.guard = guard
			w.cutEverywhere(c, w.firstOwnCall(changes), worker, of, 97, func(judge func(*call) answer) (*progress, exited) {
				return nil, w.restore(judge)
			})
		})
	}
}
