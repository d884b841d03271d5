package restore

import (
	"os"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/runtime"
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
			t.Fatalf("a change %v behind a second is stamped %+v, and what is older than %+v counts as proven", after, stamp, since)
		}
	}
	// And what has rested for longer is not read again.
	if since := provenBefore(second); since.Sec < second.Add(-1100*time.Millisecond).Unix() {
		t.Errorf("what is older than %+v counts as proven at %v", since, second)
	}
}

func TestADirectoryThatIsReplacedDuringACaptureIsNoSnapshot(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	w.fill("data")
	e := w.engine()
	e.reached = func(point string) {
		if point != "begin" {
			return
		}
		w.must(os.Rename(w.volumes[1], w.volumes[1]+".old"))
		disktest.Write(t, w.volumes[1], map[string]string{"fresh": "1"})
	}
	_, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	if kindOf(err) != Refused || codeOf(err) != "in_use" {
		t.Errorf("the capture returned %v, code %q", err, codeOf(err))
	}
	if list := w.snapshots(); len(list) != 0 {
		t.Errorf("there are %d snapshots", len(list))
	}
	w.clean()
}
