package restore

import (
	"os"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// A live directory is replaced between the pre-flight of a capture and its
// reading. The capture is refused and leaves no snapshot.
func TestACaptureRefusesADirectoryReplacedMeanwhile(t *testing.T) {
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
	if fault.KindOf(err) != fault.Refused || codeOf(err) != "in_use" {
		t.Errorf("the capture returned %v, code %q", err, codeOf(err))
	}
	if list := w.snapshots(); len(list) != 0 {
		t.Errorf("there are %d snapshots", len(list))
	}
	w.clean()
}
