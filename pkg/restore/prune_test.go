package restore

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/prune"
	"github.com/tiny-forge/snap/pkg/repair"
	"github.com/tiny-forge/snap/pkg/retain"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
)

// whole fails unless all that the store names is there and right, and nothing else is.
func (w *world) whole(unnamed int) {
	w.Helper()
	e := w.engine()
	if r, err := e.Verify(w.Context(), repair.Request{Data: 1}); err != nil {
		w.Fatalf("%v: %v", err, r)
	}
	marks, err := e.Store.Mark(w.Context(), func(string, string) bool { return false })
	w.must(err)
	if found, err := e.Store.Prune(w.Context(), marks, true); err != nil || found.Members != unnamed {
		w.Fatalf("%d members that no snapshot names, expected %d: %v", found.Members, unnamed, err)
	}
}

func (w *world) sids() (list []string) {
	for _, m := range w.snapshots() {
		list = append(list, m.SID)
	}
	return list
}

// generations captures the volumes so many times, each time with other data.
func (w *world) generations(n int) (sids []string) {
	w.Helper()
	for i := range n {
		w.fill(strings.Repeat(string(rune('a'+i)), 7))
		sids = append(sids, w.capture())
	}
	return sids
}

func TestADeletionIsWhatItSays(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2)
	sids := w.generations(4)
	dry, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 2}, DryRun: true})
	w.must(err)
	if now := w.sids(); len(now) != 4 || dry.Deleted != 2 || dry.Bytes == 0 {
		t.Fatalf("a dry run says %+v and leaves %q", dry, now)
	}
	w.whole(0)
	done, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 2}})
	w.must(err)
	if now := w.sids(); !slices.Equal(now, []string{sids[3], sids[2]}) || done.Bytes != dry.Bytes || done.Members != dry.Members {
		t.Fatalf("it says %+v, the dry run said %+v, and it leaves %q", done, dry, now)
	}
	w.whole(0)
	for _, c := range []struct {
		req  prune.DeleteRequest
		kind fault.Kind
		code string
	}{
		{prune.DeleteRequest{Workload: w.name, SIDs: []string{sids[2]}}, fault.Refused, "confirm_required"},
		{prune.DeleteRequest{Workload: w.name, SIDs: []string{sids[0]}, Confirmed: true}, fault.Refused, "snapshot_not_found"},
		{prune.DeleteRequest{Workload: w.name, SIDs: []string{"../" + sids[2]}, Confirmed: true}, fault.Usage, "bad_sid"},
		{prune.DeleteRequest{Workload: w.name, SIDs: []string{sids[2], sids[0]}, Confirmed: true}, fault.Refused, "snapshot_not_found"},
	} {
		var own *fault.Error
		if _, err := w.engine().Delete(t.Context(), c.req); !errors.As(err, &own) || own.Kind != c.kind || own.Code != c.code {
			t.Errorf("%+v: %v", c.req, err)
		}
	}
	if now := w.sids(); len(now) != 2 {
		t.Fatalf("what was refused has left %q", now)
	}
	// What is named twice is deleted once.
	if r, err := w.engine().Prune(t.Context(), prune.Request{Workloads: []string{w.name, w.name}, Policy: &retain.Policy{Last: 1}}); err != nil || r.Deleted != 1 {
		t.Fatalf("%+v: %v", r, err)
	}
	if r, err := w.engine().Delete(t.Context(), prune.DeleteRequest{Workload: w.name, SIDs: []string{sids[3], sids[3]}, Confirmed: true}); err != nil || r.Deleted != 1 {
		t.Fatalf("%+v: %v", r, err)
	}
	if now := w.sids(); len(now) != 0 {
		t.Errorf("left: %q", now)
	}
	w.whole(0)
}

// Where a single manifest cannot be read, nobody knows what it names: nothing goes. The
// snapshot itself can be deleted by its id.
func TestNothingIsDeletedWhereAManifestCannotBeRead(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	sids := w.generations(3)
	other := filepath.Join(w.dir, "store/snapshots/another")
	w.must(os.CopyFS(other, os.DirFS(filepath.Join(w.dir, "store/snapshots", w.name))))
	for _, dir := range []string{filepath.Dir(other) + "/" + w.name, other} {
		manifest := filepath.Join(dir, sids[1], "manifest.json")
		good, err := os.ReadFile(manifest)
		w.must(err)
		w.must(os.WriteFile(manifest, good[:len(good)-9], 0o600))
		for name, delete := range map[string]func() error{
			"prune": func() error {
				_, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 1}})
				return err
			},
			"delete": func() error {
				_, err := w.engine().Delete(t.Context(), prune.DeleteRequest{Workload: w.name, SIDs: []string{sids[0]}, Confirmed: true})
				return err
			},
		} {
			if err := delete(); err == nil {
				t.Errorf("%s, with a damaged manifest in %s: no error", name, dir)
			}
		}
		if names, err := os.ReadDir(filepath.Dir(filepath.Dir(manifest))); err != nil || len(names) != 3 {
			t.Errorf("left: %v, %v", names, err)
		}
		w.must(os.WriteFile(manifest, good, 0o600))
	}
}

// What a prune deletes follows from the manifests, whatever the summaries say. It writes
// the summaries that are missing, and those that are damaged.
func TestASummaryMakesNothingGo(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	sids := w.generations(3)
	at := func(n int, file string) string {
		return filepath.Join(w.dir, "store/snapshots", w.name, sids[n], file)
	}
	summary, err := os.ReadFile(at(0, "summary.json"))
	w.must(err)
	lying := &store.Summary{}
	w.must(disk.UnmarshalSealed(summary, lying, "snap-summary", 1))
	lying.Created = lying.Created.Add(time.Hour)
	forged, err := disk.MarshalSealed(lying, "snap-summary", 1)
	w.must(err)
	manifest, err := os.ReadFile(at(0, "manifest.json"))
	w.must(err)
	flipped := bytes.Replace(manifest, []byte(`"note": ""`), []byte(`"mote": ""`), 1)
	for name, c := range map[string]struct {
		n    int
		file string
		data []byte
	}{
		"a summary that makes an old one the newest": {0, "summary.json", forged},
		"a manifest that is damaged where it goes":   {0, "manifest.json", flipped},
	} {
		good, err := os.ReadFile(at(c.n, c.file))
		w.must(err)
		w.must(os.WriteFile(at(c.n, c.file), c.data, 0o600))
		for _, dry := range []bool{true, false} {
			var own *fault.Error
			if _, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 1}, DryRun: dry}); !errors.As(err, &own) || own.Code != "snapshot_damaged" {
				t.Errorf("%s: %v", name, err)
			}
		}
		w.must(os.WriteFile(at(c.n, c.file), good, 0o600))
		if len(w.sids()) != 3 {
			t.Fatalf("%s: left are %q", name, w.sids())
		}
	}
	want := map[int][]byte{}
	for n, data := range map[int][]byte{1: nil, 2: []byte("damaged")} {
		want[n], err = os.ReadFile(at(n, "summary.json"))
		w.must(err)
		if w.must(os.Remove(at(n, "summary.json"))); data != nil {
			w.must(os.WriteFile(at(n, "summary.json"), data, 0o600))
		}
	}
	for _, dry := range []bool{true, false} {
		done, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 2}, DryRun: dry})
		w.must(err)
		if done.Deleted != 1 {
			t.Errorf("%d were deleted", done.Deleted)
		}
		for n, data := range want {
			if got, _ := os.ReadFile(at(n, "summary.json")); bytes.Equal(got, data) == dry {
				t.Errorf("dry %v: the summary of %s is %q", dry, sids[n], got)
			}
		}
	}
	if now := w.sids(); !slices.Equal(now, []string{sids[2], sids[1]}) {
		t.Errorf("left are %q", now)
	}
	w.whole(0)
}

// What an operation that has not ended may need stays: what it puts back and what it
// makes.
func TestWhatAnUnfinishedOperationNeedsStays(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	sids := w.generations(3)
	e := w.engine()
	held, err := e.Journal.Lock(w.name, "restore")
	w.must(err)
	tx, err := e.Journal.Begin(held, &journal.Begin{Kind: journal.Import, SID: sids[0], PreRestoreSID: sids[1]})
	w.must(err)
	held.Release()
	if _, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 1}}); err != nil {
		t.Fatal(err)
	}
	if now := w.sids(); len(now) != 3 {
		t.Errorf("left: %q", now)
	}
	var own *fault.Error
	if _, err := w.engine().Delete(t.Context(), prune.DeleteRequest{Workload: w.name, SIDs: sids[:1], Confirmed: true}); !errors.As(err, &own) || own.Code != "in_use" {
		t.Errorf("%v", err)
	}
	w.must(tx.End())
	if _, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 1}}); err != nil {
		t.Fatal(err)
	}
	if now := w.sids(); !slices.Equal(now, sids[2:]) {
		t.Errorf("left: %q", now)
	}
}

// Whoever works with the store is waited for, and in the end not disturbed.
func TestADeletionWaitsForWhoeverReads(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	w.generations(2)
	held, err := w.engine().Journal.ShareStore("export")
	w.must(err)
	var own *fault.Error
	if _, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 1}, Wait: 200 * time.Millisecond}); !errors.As(err, &own) || own.Kind != fault.Busy {
		t.Errorf("while somebody reads: %v", err)
	}
	time.AfterFunc(300*time.Millisecond, held.Release)
	if _, err := w.engine().Prune(t.Context(), prune.Request{Policy: &retain.Policy{Last: 1}, Wait: time.Minute}); err != nil {
		t.Error(err)
	}
}

// Captures, restores and deletions of two workloads at the same time: every snapshot that
// is there is whole.
func TestDeletionsBesideCapturesAndRestoresLoseNothing(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, "retain: {keep_last: 2}")
	other := *w
	other.name, other.volumes = "other", []string{filepath.Join(w.dir, "live/other")}
	w.must(os.MkdirAll(other.volumes[0], 0o755))
	lines := func(w *world) []string {
		return []string{"retain: {keep_last: 2}", "volumes: [{name: v0, scope: absolute, source: " + w.volumes[0] + "}]"}
	}
	w.write(map[string][]string{w.name: lines(w), other.name: lines(&other)})
	var working, pruning sync.WaitGroup
	stop := make(chan struct{})
	for _, w := range []*world{w, &other} {
		w.fill("first")
		working.Go(func() {
			for i := range 8 {
				w.fill(strings.Repeat(string(rune('a'+i)), 1+i))
				for {
					_, err := w.engine().Capture(w.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
					if err == nil {
						break
					}
					if fault.KindOf(err) != fault.Busy {
						w.Errorf("capture: %v", err)
						return
					}
				}
			}
		})
	}
	pruning.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := w.engine().Prune(w.Context(), prune.Request{Wait: 10 * time.Second}); err != nil && fault.KindOf(err) != fault.Busy {
				w.Errorf("prune: %v", err)
			}
		}
	})
	working.Wait()
	close(stop)
	pruning.Wait()
	_, err := w.engine().Prune(t.Context(), prune.Request{Wait: time.Minute})
	w.must(err)
	w.whole(0)
	if len(w.sids()) != 2 || len(other.sids()) != 2 {
		t.Errorf("%q and %q are left", w.sids(), other.sids())
	}
}
