package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// shared reports whether a file shares extents with another one.
func shared(t *testing.T, path string) bool {
	t.Helper()
	disktest.Run(t, "sync", "-f", path)
	return strings.Contains(disktest.Run(t, "filefrag", "-v", path), "shared")
}

// A restore clones the files of the live tree that are unchanged since the
// snapshot, on filesystems that can. Files that were changed, removed or moved are
// extracted.
func TestUnchangedFilesAreClonedAndVerified(t *testing.T) {
	for _, fstype := range []string{"xfs", "btrfs", "ext4"} {
		for _, trust := range []bool{false, true} {
			name := fstype
			if trust {
				name += " trusting"
			}
			t.Run(name, func(t *testing.T) {
				w := newWorld(t, disktest.Mount(t, fstype, 512), 1)
				live := w.volumes[0]
				content := func(c byte) []byte {
					b := make([]byte, 2<<20+99)
					for i := range b {
						b[i] = c + byte(i%251)
					}
					return b
				}
				for _, name := range []string{"same", "changed", "gone", "moved"} {
					w.must(os.WriteFile(filepath.Join(live, name), content(name[0]), 0o640))
				}
				time.Sleep(1200 * time.Millisecond)
				states := map[string][][]string{"then": w.trees()}
				sid := w.capture()
				w.must(os.WriteFile(filepath.Join(live, "changed"), content('x'), 0o600))
				w.must(os.Remove(filepath.Join(live, "gone")))
				w.must(os.Rename(filepath.Join(live, "moved"), filepath.Join(live, "elsewhere")))
				e := w.engine()
				e.reached = func(point string) {
					if point != "stage" {
						return
					}
					staged, err := filepath.Glob(filepath.Join(filepath.Dir(live), ".snap-*", "0"))
					w.must(err)
					for _, name := range []string{"same", "changed", "gone", "moved"} {
						want := name == "same" && fstype != "ext4"
						if got := shared(t, filepath.Join(staged[0], name)); got != want {
							t.Errorf("%s: shared with the live file: %v", name, got)
						}
					}
				}
				req := w.request(sid)
				req.TrustIndex = trust
				if _, err := e.Restore(t.Context(), req); err != nil {
					t.Fatal(err)
				}
				w.generation(states)
				w.clean()
			})
		}
	}
}
