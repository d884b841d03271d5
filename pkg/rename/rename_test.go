package rename_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/rename"
	"github.com/tiny-forge/snap/pkg/state"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// host is a host that had the workload blog, with one snapshot, and calls it journal now.
func host(t *testing.T) (*rename.Host, *state.State) {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "snap.yaml")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.WriteFile(config, []byte("version: 1\nworkloads: {journal: {volumes: [{scope: project, source: x}]}}\n"), 0o600))
	c, err := workload.Load(config)
	must(err)
	s, err := state.Open(dir + "/state")
	must(err)
	t.Cleanup(func() { s.Close() })
	st, err := s.Store(dir+"/store", true)
	must(err)
	t.Cleanup(func() { st.Close() })
	id := disk.NewID(time.Now())
	scratch, err := st.Scratch(id)
	must(err)
	b := st.NewBatch(t.Context(), scratch, false, archive.Gzip)
	m, err := b.Put([]byte(strings.Repeat("x", 8192)))
	must(err)
	must(b.Publish(&store.Manifest{Workload: "blog", SID: id, Reason: store.Manual, Volumes: []store.Volume{
		{Name: "x", Scope: "project", Source: "x", Stats: archive.Stats{Dirs: 1}, Members: []archive.Member{m}},
	}}, ""))
	must(scratch.Close())
	must(st.Clear(id))
	return &rename.Host{Config: c, Store: st, Journal: s.Journal, Scrubs: s}, s
}

// The state follows, also where the rename was cut right after the snapshots had moved.
func TestTheStateFollows(t *testing.T) {
	for _, cut := range []bool{false, true} {
		h, s := host(t)
		if err := errors.Join(s.SetTurn(h.Store.ID(), "blog", 7), h.Journal.AddRun("blog", journal.Run{Time: time.Now(), Verb: "capture"})); err != nil {
			t.Fatal(err)
		}
		if cut {
			if err := h.Store.Rename("blog", "journal"); err != nil {
				t.Fatal(err)
			}
		}
		r, err := h.Rename(t.Context(), rename.Request{From: "blog", To: "journal"})
		if err != nil || r.Snapshots != 1 || r.Already != cut {
			t.Fatalf("cut %v: %+v, %v", cut, r, err)
		}
		next, err := s.Turn(h.Store.ID(), "journal")
		runs, runsErr := h.Journal.Runs("journal")
		if err := errors.Join(err, runsErr); err != nil || next != 7 || len(runs) != 1 {
			t.Errorf("cut %v: the scrub goes on at %d, and there are %d runs: %v", cut, next, len(runs), err)
		}
	}
}

// Nothing is renamed under somebody's hands.
func TestARenameIsRefusedWhileSomebodyIsAtWork(t *testing.T) {
	h, _ := host(t)
	refused := func(what string, kind fault.Kind, code string) {
		t.Helper()
		var own *fault.Error
		_, err := h.Rename(t.Context(), rename.Request{From: "blog", To: "journal"})
		if !errors.As(err, &own) || own.Kind != kind || own.Code != code {
			t.Errorf("%s: %v", what, err)
		}
		if sids, err := h.Store.SIDs("blog"); err != nil || len(sids) != 1 {
			t.Errorf("%s: the snapshots are gone: %v, %v", what, sids, err)
		}
	}
	for _, name := range []string{"blog", "journal"} {
		held, err := h.Journal.Lock(name, "capture")
		if err != nil {
			t.Fatal(err)
		}
		refused("while a capture of "+name+" runs", fault.Busy, "busy")
		tx, err := h.Journal.Begin(held, &journal.Begin{Kind: journal.Capture, SID: disk.NewID(time.Now()), Quiesce: "none"})
		if err != nil {
			t.Fatal(err)
		}
		held.Release()
		refused("after a capture of "+name+" was cut", fault.Frozen, "unfinished")
		if err := tx.End(); err != nil {
			t.Fatal(err)
		}
	}
	held, err := h.Journal.ShareStore("export")
	if err != nil {
		t.Fatal(err)
	}
	refused("while somebody reads", fault.Busy, "busy")
	held.Release()
	if _, err := h.Rename(t.Context(), rename.Request{From: "blog", To: "journal"}); err != nil {
		t.Error(err)
	}
}
