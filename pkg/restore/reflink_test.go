package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// shared reports whether extents of a file belong to another as well.
func shared(t *testing.T, path string) bool {
	t.Helper()
	disktest.Run(t, "sync", "-f", path)
	return strings.Contains(disktest.Run(t, "filefrag", "-v", path), "shared")
}

// TestWhatIsUnchangedIsClonedAndChecked restores beside a live tree of which a
// file is as it was in the snapshot, one has changed, one has changed behind the
// back of its times, and one is gone.
func TestWhatIsUnchangedIsClonedAndChecked(t *testing.T) {
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

// TestACloneThatIsNotWhatItShouldBeIsNotUsed offers a live file that only the
// checksums can tell from the one of the snapshot.
func TestACloneThatIsNotWhatItShouldBeIsNotUsed(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "xfs", 512), 1)
	live := filepath.Join(w.volumes[0], "file")
	w.must(os.WriteFile(live, make([]byte, 2<<20), 0o600))
	time.Sleep(1200 * time.Millisecond)
	sid := w.capture()
	f, err := os.OpenFile(live, os.O_RDWR, 0)
	w.must(err)
	defer f.Close()
	s, err := w.engine().begin(t.Context(), "test", w.name)
	w.must(err)
	defer s.close()
	volumes, err := s.chosen(nil)
	w.must(err)
	places, err := s.places(volumes)
	w.must(err)
	defer places[0].close()
	u, err := s.unchangedSince(sid, places[0], false)
	w.must(err)
	line := u.lines["file"]
	if line == nil {
		t.Fatal("the file is not known to be unchanged")
	}
	_, err = f.WriteAt([]byte("damage"), 1<<20)
	w.must(err)
	// The index is made to agree, as if no time had told.
	var st unix.Stat_t
	w.must(unix.Fstat(int(f.Fd()), &st))
	line.Mtime.Sec, line.Mtime.Nsec, line.Ctime.Sec, line.Ctime.Nsec = st.Mtim.Sec, st.Mtim.Nsec, st.Ctim.Sec, st.Ctim.Nsec
	m, err := s.Store.Load(w.name, sid)
	w.must(err)
	fill := u.supply(&line.Entry, m.Volumes[0].Members[line.Member+1:line.Member+1+line.Span])
	if fill == nil {
		t.Fatal("nothing is offered")
	}
	into, err := os.OpenFile(filepath.Join(w.dir, "into"), os.O_RDWR|os.O_CREATE, 0o600)
	w.must(err)
	defer into.Close()
	if done, err := fill(into); done || err != nil {
		t.Errorf("a clone with other content was taken: %v, %v", done, err)
	}
	u.trust = true
	if done, err := fill(into); !done || err != nil {
		t.Errorf("with --trust-index it was not taken: %v, %v", done, err)
	}
}
