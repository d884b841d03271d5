package catalog

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// publish adds a snapshot of a small volume.
func (w *world) publish(sid string, reason store.Reason, note string) {
	w.Helper()
	live := w.at("small")
	disktest.Write(w.T, live, map[string]string{"page": "x"})
	v := &workload.Volume{Name: "small", Scope: workload.Absolute, Source: live}
	scratch, err := w.store.Scratch(disk.NewID(time.Now()))
	w.must(err)
	capture, err := snapshot.Start(w.Context(), w.store, scratch, []snapshot.Source{{Volume: v, Live: w.open(live)}}, snapshot.Options{Workload: "app"})
	w.must(err)
	defer capture.Close()
	w.must(capture.PassTwo(w.Context()))
	w.must(capture.Publish(&store.Manifest{SID: sid, Reason: reason, Note: note, Quiesce: "none", Images: []store.Image{}}))
}

// emptyWorld has a store without snapshots.
func emptyWorld(t *testing.T) *world {
	t.Helper()
	disktest.NeedRoot(t)
	w := &world{T: t, dir: t.TempDir()}
	w.openStore()
	return w
}

// spell is how a door might say an operation.
func spell(op remedy.Operation) string { return string(op.Verb) + " " + op.Workload + " " + op.ID }

const (
	older   = "20261101T030000Z-aaaaaa"
	newer   = "20261102T030000Z-bbbbbb"
	replace = "20261103T120000Z-cccccc"
)

// "latest" is the newest snapshot that no restore made; a beginning means one snapshot or
// none; and nothing is guessed.
func TestAWordMeansOneSnapshotOrNone(t *testing.T) {
	w := emptyWorld(t)
	found := func(word, want string) {
		t.Helper()
		if got, err := Find(w.store, fault.Refused, "app", word); err != nil || got != want {
			t.Errorf("%s is %s (%v), expected %s", word, got, err, want)
		}
	}
	refused := func(word string, kind fault.Kind, code string, says ...string) {
		t.Helper()
		got, err := Find(w.store, fault.Refused, "app", word)
		var own *fault.Error
		if !errors.As(err, &own) || own.Kind != kind || own.Code != code {
			t.Errorf("%s is %q: %v, expected %s", word, got, err, code)
			return
		}
		text := err.Error() + " / " + own.Remedy.Text(spell)
		for _, s := range says {
			if !strings.Contains(text, s) {
				t.Errorf("%s: %q does not say %q", word, text, s)
			}
		}
	}
	refused(Latest, fault.Refused, "snapshot_not_found", "has no snapshot")
	w.publish(replace, store.PreRestore, store.BeforeRestore+older)
	refused(Latest, fault.Refused, "snapshot_not_found", "1 that restores made")
	w.publish(older, store.Manual, "")
	found(Latest, older)
	w.publish(newer, store.Manual, "")
	found(Latest, newer)
	found("20261103", replace)
	found("20261101T03", older)
	found(newer[:len(newer)-1], newer)
	found("20991231T000000Z-dddddd", "20991231T000000Z-dddddd") // Load says that it is not there
	refused("202611", fault.Usage, "ambiguous_sid", replace+", "+newer+", "+older)
	refused("2026110", fault.Usage, "ambiguous_sid")
	refused("2", fault.Usage, "bad_sid", "too short")
	refused("2027", fault.Refused, "snapshot_not_found")
	refused("bbbbbb", fault.Usage, "bad_sid", "did you mean "+newer+"?")
	refused("lastest", fault.Usage, "bad_sid", "did you mean latest?")
	refused("20261102T030000Z-bbbbxb", fault.Usage, "bad_sid", "did you mean "+newer+"?")
	refused("../x", fault.Usage, "bad_sid")
	refused("", fault.Usage, "bad_sid")
	if _, err := Load(w.store, fault.Refused, "app", "20261102T030000Z-bbbbb0"); !strings.Contains(fault.Classify(err).Remedy.Text(spell), "did you mean "+newer) {
		t.Errorf("a slip in an id: %v", err)
	}

	// What was cut before its manifest is not a snapshot.
	w.must(os.MkdirAll(w.at("store/snapshots/app/20261101T030001Z-eeeeee"), 0o700))
	found("20261101", older)

	// An unreadable manifest that is newer may be the latest.
	w.must(os.WriteFile(w.at("store/snapshots/app/"+newer+"/manifest.json"), []byte("{}"), 0o600))
	refused(Latest, fault.Refused, "snapshot_damaged", "cannot be told", newer)
	found("20261102", newer) // so that it can be deleted
}
