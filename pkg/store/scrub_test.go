package store_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/store"
)

// flip changes a bit of a member's file.
func flip(t *testing.T, path string, m archive.Member) {
	t.Helper()
	file := filepath.Join(path, "members", m.ID[:2], m.ID+m.Codec.Ext())
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// round uses all members again in a batch that scrubs, and returns how many were found
// damaged and where the next round begins.
func round(t *testing.T, s *store.Store, members []archive.Member, scrub store.Scrub) (damaged int, next store.Turn) {
	t.Helper()
	b := s.NewBatch(t.Context(), scratch(t, s), false, archive.Gzip)
	b.Scrub(scrub)
	for _, m := range members {
		if _, ok, err := b.Reuse(m); !ok || err != nil {
			t.Fatalf("member %s is not used again: %v", m.ID, err)
		}
	}
	damaged, err := b.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, lost := b.Damaged(); len(lost) != damaged {
		t.Errorf("%d are damaged, and %d are told", damaged, len(lost))
	}
	return damaged, b.Next()
}

// Whatever the share, where it begins, and however early it is cut off: every member is
// read within a bounded number of captures, and none twice before all are through.
func TestAScrubComesByEveryMemberInTurn(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	b := s.NewBatch(t.Context(), scratch(t, s), false, archive.Gzip)
	var members []archive.Member
	for i := range 400 {
		members = append(members, put(t, b, piece(string(rune('a'+i%26))+string(rune('0'+i/26)))))
	}
	if err := b.Publish(manifest("blog", "20260102T030405Z-000001", members...), ""); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		flip(t, path, m)
	}
	whole := func(int64) bool { return false }
	for name, c := range map[string]struct {
		share  float64
		from   store.Turn
		enough func(int64) bool
		rounds int
	}{
		"a thirtieth":                   {1. / 30, 0, whole, 30},
		"from the middle, going round":  {1. / 30, 1 << 63, whole, 30},
		"from just before the end":      {0.25, ^store.Turn(0), whole, 4},
		"all at once":                   {1, 12345, whole, 1},
		"more than all":                 {7, 12345, whole, 1},
		"cut off after the first piece": {0.5, 99, func(read int64) bool { return read > 0 }, 7},
	} {
		t.Run(name, func(t *testing.T) {
			found, from := 0, c.from
			for range c.rounds {
				damaged, next := round(t, s, members, store.Scrub{From: from, Share: c.share, Enough: c.enough})
				found, from = found+damaged, next
			}
			if found < len(members) || found > len(members)+len(members)/5 {
				t.Errorf("%d rounds came by %d members, of %d", c.rounds, found, len(members))
			}
		})
	}
	if damaged, _ := round(t, s, members, store.Scrub{}); damaged != 0 {
		t.Errorf("without a scrub %d were read", damaged)
	}
}

// A file of another length is read whatever the turn.
func TestAMemberOfAnotherLengthIsReadAtOnce(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	m := publish(t, s, "blog", "20260102T030405Z-000001", piece("a")).Volumes[0].Members[0]
	if err := os.Truncate(filepath.Join(path, "members", m.ID[:2], m.ID+".gz"), m.Stored-1); err != nil {
		t.Fatal(err)
	}
	enough := func(int64) bool { return true }
	if damaged, _ := round(t, s, []archive.Member{m}, store.Scrub{Share: 1e-9, Enough: enough}); damaged != 1 {
		t.Errorf("%d members are damaged", damaged)
	}
}

// What was damaged is stored anew when its content comes by.
func TestAScrubHealsWhatTheLiveDataStillHas(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	healed := publish(t, s, "blog", "20260102T030405Z-000001", piece("a")).Volumes[0].Members[0]
	lost := publish(t, s, "blog", "20260102T030405Z-000003", piece("b")).Volumes[0].Members[0]
	flip(t, path, healed)
	flip(t, path, lost)
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, false, archive.Gzip)
	b.Scrub(store.Scrub{Share: 1})
	for _, m := range []archive.Member{healed, lost} {
		if _, ok, err := b.Reuse(m); !ok || err != nil {
			t.Fatal(err)
		}
	}
	if damaged, err := b.Check(t.Context()); damaged != 2 || err != nil {
		t.Fatalf("%d are damaged: %v", damaged, err)
	}
	again := put(t, b, piece("a"))
	if err := b.Publish(manifest("blog", "20260102T030405Z-000002", again, put(t, b, piece("c"))), index(t, dir)); err != nil {
		t.Fatal(err)
	}
	if err := archive.Check(t.Context(), s, healed); err != nil {
		t.Errorf("it is still damaged: %v", err)
	}
	gotHealed, gotLost := b.Damaged()
	if len(gotHealed) != 1 || gotHealed[0].ID != healed.ID || len(gotLost) != 1 || gotLost[0].ID != lost.ID {
		t.Errorf("healed %v, lost %v", gotHealed, gotLost)
	}
}

// A member that an earlier snapshot names and that is gone is told as a damaged one is:
// healed where the live data still has its content, else lost.
func TestAMissingMemberIsTold(t *testing.T) {
	for _, again := range []bool{true, false} {
		path := t.TempDir()
		s := storeAt(t, path)
		m := publish(t, s, "blog", sid, piece("a")).Volumes[0].Members[0]
		if err := os.Remove(filepath.Join(path, "members", m.ID[:2], m.ID+".gz")); err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch(t.Context(), scratch(t, s), false, archive.Gzip)
		if _, ok, err := b.Reuse(m); ok || err != nil {
			t.Fatalf("it is used again: %v", err)
		}
		if again {
			put(t, b, piece("a"))
		}
		healed, lost := b.Damaged()
		if len(healed) != map[bool]int{true: 1}[again] || len(lost) != map[bool]int{false: 1}[again] {
			t.Errorf("stored again %v: healed are %v, lost are %v", again, healed, lost)
		}
		if list := append(healed, lost...); len(list) == 1 && list[0].ID != m.ID {
			t.Errorf("told of %v", list)
		}
	}
}
