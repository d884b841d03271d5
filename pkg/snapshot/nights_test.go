package snapshot

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// nights is a volume that is captured again and again.
type nights struct {
	*testing.T
	dir    string
	store  *store.Store
	source Source
	codec  archive.Codec
}

func newNights(t *testing.T, codec archive.Codec) *nights {
	n := &nights{T: t, dir: t.TempDir(), codec: codec}
	n.must(os.Mkdir(filepath.Join(n.dir, "live"), 0o755))
	var err error
	n.store, err = store.Open(filepath.Join(n.dir, "store"))
	n.must(err)
	t.Cleanup(func() { n.store.Close() })
	parent, err := disk.OpenRoot(n.dir)
	n.must(err)
	t.Cleanup(func() { parent.Close() })
	live, err := parent.Open("live")
	n.must(err)
	t.Cleanup(func() { live.Close() })
	n.source = Source{Volume: &workload.Volume{Name: "v", Scope: workload.Absolute, Source: n.dir + "/live"}, Live: live, Parent: parent}
	return n
}

func (n *nights) must(err error) {
	n.Helper()
	if err != nil {
		n.Fatal(err)
	}
}

// write gives a file noise as its content.
func (n *nights) write(name string, size int, seed byte) {
	noise := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed, name[len(name)-1], name[len(name)-2]}).Read(noise)
	n.must(os.WriteFile(filepath.Join(n.dir, "live", name), noise, 0o644))
}

// pass captures the volume as far as to publish it.
func (n *nights) pass(opt Options) *Capture {
	n.Helper()
	scratch, err := n.store.Root().Ensure(disk.NewID(time.Now()), 0o700)
	n.must(err)
	opt.Workload, opt.Codec = "app", n.codec
	c, err := Start(n.Context(), n.store, scratch, []Source{n.source}, opt)
	n.must(err)
	n.Cleanup(c.Close)
	n.must(c.PassTwo(n.Context()))
	return c
}

// capture makes a snapshot, and returns it and by how many bytes the store has grown, with
// all of its documents.
func (n *nights) capture(opt Options) (*store.Manifest, int64) {
	n.Helper()
	before := n.size()
	m := &store.Manifest{SID: disk.NewID(time.Now()), Reason: store.Manual, Quiesce: "none", Images: []store.Image{}}
	n.must(n.pass(opt).Publish(m))
	return m, n.size() - before
}

func (n *nights) size() (sum int64) {
	n.must(filepath.WalkDir(filepath.Join(n.dir, "store"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			sum += info.Size()
		}
		return err
	}))
	return sum
}

// Of a volume of files of 20 kB, a night in which one changes costs the file, and the
// index and the manifest of the snapshot. It is the same where nothing is proven.
func TestANightCostsLittleMoreThanWhatChanged(t *testing.T) {
	disktest.NeedRoot(t)
	for _, codec := range []archive.Codec{archive.Gzip, archive.Zstd} {
		t.Run(codec.String(), func(t *testing.T) {
			n := newNights(t, codec)
			for i := range 100 {
				n.write(fmt.Sprintf("%02d", i), 20_000, 0)
			}
			n.capture(Options{})
			for night := range 3 {
				n.write("50", 20_000, byte(1+night))
				if _, grown := n.capture(Options{Leaving: night == 2}); grown < 20_000 || grown > 45_000 {
					t.Errorf("night %d: the store has grown by %d bytes, at most 45000", night, grown)
				}
			}
		})
	}
}

// What was cut out of a group stays cut out where the index proves nothing, as after a
// reboot or for a tree that is about to be deleted.
func TestTheCutSurvivesWithoutAProof(t *testing.T) {
	disktest.NeedRoot(t)
	n := newNights(t, archive.Gzip)
	for i := range 100 {
		n.write(fmt.Sprintf("%02d", i), 5000, 0)
	}
	n.capture(Options{})
	for night := range 5 {
		n.write(fmt.Sprintf("%d0", 1+night), 5000, 1)
		n.capture(Options{})
	}
	latest, _ := n.capture(Options{})
	leaving, grown := n.capture(Options{Leaving: true})
	if a, b := len(latest.Volumes[0].Members), len(leaving.Volumes[0].Members); a != b || a < 10 || grown > 20_000 {
		t.Errorf("%d members, and %d without a proof; the store has grown by %d bytes", a, b, grown)
	}
}

// A tree is compared with a snapshot cut as that was, whatever the latest snapshot is like.
func TestATreeIsTheSameAsAnEarlierSnapshotOfIt(t *testing.T) {
	disktest.NeedRoot(t)
	n := newNights(t, archive.Gzip)
	for i := range 50 {
		n.write(fmt.Sprintf("%02d", i), 5000, 0)
	}
	path := filepath.Join(n.dir, "live", "25")
	first, _ := n.capture(Options{})
	st, err := os.Stat(path)
	n.must(err)
	n.write("25", 5000, 1)
	second, _ := n.capture(Options{})
	same := func(m *store.Manifest) bool { return n.pass(Options{Compare: m}).Same(m) }
	if same(first) || !same(second) {
		t.Error("a changed tree counts as the snapshot before the change, or not as the one after it")
	}
	n.write("25", 5000, 0)
	n.must(os.Chtimes(path, st.ModTime(), st.ModTime()))
	if !same(first) || same(second) {
		t.Error("the tree is as it was, and does not count as the snapshot of that")
	}
}
