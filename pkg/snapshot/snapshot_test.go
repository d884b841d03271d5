package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// TestNoChangeIsStampedAsProven goes by the worst that can happen to the time of
// a change: the clock that stamps has not ticked for 10 ms, was set back by what
// nobody notices, and the filesystem keeps whole seconds.
func TestNoChangeIsStampedAsProven(t *testing.T) {
	second := time.Unix(1_700_000_000, 0)
	for after := time.Duration(0); after < time.Second; after += time.Millisecond {
		start := second.Add(after)
		since := provenBefore(start)
		stamp := archive.Timespec{Sec: start.Add(-10*time.Millisecond - clockStep).Unix()}
		if stamp.Before(since) {
			t.Fatalf("a change %v after a second is stamped %+v, and what is older than %+v counts as proven", after, stamp, since)
		}
	}
	// And what has rested for longer is not read again.
	if since := provenBefore(second); since.Sec < second.Add(-1100*time.Millisecond).Unix() {
		t.Errorf("what is older than %+v counts as proven at %v", since, second)
	}
}

// TestACloneThatIsNotWhatItShouldBeIsNotUsed changes a file and makes the index
// agree with it: only the checksums can tell the file from that of the snapshot.
func TestACloneThatIsNotWhatItShouldBeIsNotUsed(t *testing.T) {
	disktest.NeedRoot(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := disktest.Mount(t, "xfs", 512)
	must(os.Mkdir(filepath.Join(dir, "live"), 0o755))
	f, err := os.Create(filepath.Join(dir, "live/file"))
	must(err)
	defer f.Close()
	_, err = f.Write(make([]byte, 2<<20))
	must(err)
	time.Sleep(1200 * time.Millisecond) // a time proves what is older than stampLag
	st, err := store.Open(filepath.Join(dir, "store"))
	must(err)
	defer st.Close()
	parent, err := disk.OpenRoot(dir)
	must(err)
	defer parent.Close()
	live, err := parent.Open("live")
	must(err)
	defer live.Close()
	source := Source{Volume: &workload.Volume{Name: "v", Scope: workload.Absolute, Source: dir + "/live"}, Live: live, Parent: parent}
	scratch, err := st.Root().Ensure("scratch", 0o700)
	must(err)
	capture, err := Start(t.Context(), st, scratch, []Source{source}, Options{Workload: "app"})
	must(err)
	defer capture.Close()
	must(capture.PassTwo(t.Context()))
	m := &store.Manifest{SID: disk.NewID(time.Now()), Reason: store.Manual, Quiesce: "none", Images: []store.Image{}}
	must(capture.Publish(m))

	u, err := UnchangedSince(st, m, source.Volume.Name, source, false)
	must(err)
	if !u.Any() || u.lines["file"] == nil {
		t.Fatal("the file is not known to be unchanged")
	}
	line := u.lines["file"]
	_, err = f.WriteAt([]byte("damage"), 1<<20)
	must(err)
	var stat unix.Stat_t
	must(unix.Fstat(int(f.Fd()), &stat))
	line.Mtime.Sec, line.Mtime.Nsec, line.Ctime.Sec, line.Ctime.Nsec = stat.Mtim.Sec, stat.Mtim.Nsec, stat.Ctim.Sec, stat.Ctim.Nsec
	fill := u.Supply(&line.Entry, m.Volumes[0].Members[line.Member+1:line.Member+1+line.Span])
	if fill == nil {
		t.Fatal("nothing is offered")
	}
	into, err := os.OpenFile(filepath.Join(dir, "into"), os.O_RDWR|os.O_CREATE, 0o600)
	must(err)
	defer into.Close()
	if done, err := fill(into); done || err != nil {
		t.Errorf("a clone with other content was taken: %v, %v", done, err)
	}
	u.trust = true
	if done, err := fill(into); !done || err != nil {
		t.Errorf("with --trust-index it was not taken: %v, %v", done, err)
	}
}

// TestAVolumeThatHasAnotherNameNowIsNotReadAgain: its history is under the name that it was.
func TestAVolumeThatHasAnotherNameNowIsNotReadAgain(t *testing.T) {
	disktest.NeedRoot(t)
	dir := disktest.Mount(t, "ext4", 64)
	disktest.Write(t, dir, map[string]string{"live/file": "what is old"})
	time.Sleep(1200 * time.Millisecond) // a time proves what is older than stampLag
	st, err := store.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	read := func(v *workload.Volume) int64 {
		t.Helper()
		live, err := disk.OpenRoot(dir + "/live")
		if err != nil {
			t.Fatal(err)
		}
		defer live.Close()
		id := disk.NewID(time.Now())
		scratch, err := st.Scratch(id)
		if err != nil {
			t.Fatal(err)
		}
		c, err := Start(t.Context(), st, scratch, []Source{{Volume: v, Live: live}}, Options{Workload: "app"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		m := &store.Manifest{SID: id, Reason: store.Manual, Quiesce: "none", Images: []store.Image{}}
		if err := errors.Join(c.PassTwo(t.Context()), c.Publish(m)); err != nil {
			t.Fatal(err)
		}
		n, _ := c.Totals()
		return n
	}
	first := &workload.Volume{Name: "v", Scope: workload.Absolute, Source: dir + "/live"}
	if n := read(first); n == 0 {
		t.Error("the first capture has read nothing")
	}
	if n := read(&workload.Volume{Name: "w", Scope: workload.Stage, Source: "live"}); n == 0 {
		t.Error("another volume has read nothing")
	}
	if n := read(&workload.Volume{Name: "x", Scope: workload.Stage, Source: "other", Was: workload.Names{"w"}}); n != 0 {
		t.Errorf("it has read %d bytes again", n)
	}
}
