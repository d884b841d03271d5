package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/state"
	"github.com/tiny-forge/snap/pkg/store"
)

func key(n int, codec archive.Codec) store.MemberKey {
	return store.KeyOf(archive.Member{ID: fmt.Sprintf("%064x", n), Codec: codec})
}

func nothing(store.MemberKey) bool    { return false }
func everything(store.MemberKey) bool { return true }

// What version 1 wrote, every later version must read.
func TestHintsOfVersion1AreWrittenAndReadAsEver(t *testing.T) {
	for name, c := range map[string]struct {
		list   disk.Sealed
		format string
	}{
		"scrub": {&state.Scrubs{Scrubs: []state.Scrubbed{{Store: goldenStore, Workload: "blog", Next: 0x1122334455667788}, {Store: goldenStore, Workload: "shop"}}}, "snap-scrub"},
		"damaged": {&state.Damages{Stores: []state.Damage{{Store: goldenStore, Members: []store.MemberKey{key(1, archive.Gzip), key(2, archive.Zstd)}},
			{Store: "20260102T030405Z-000001", Members: []store.MemberKey{key(3, archive.Gzip)}}}}, "snap-damaged"},
	} {
		data, err := disk.MarshalSealed(c.list, c.format, 1)
		if err != nil {
			t.Fatal(err)
		}
		file := "testdata/" + name + ".v1.json"
		if *update {
			if err := os.WriteFile(file, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(data, want) {
			t.Errorf("it is written as\n%s\nexpected\n%s: %v", data, want, err)
		}
		host := t.TempDir()
		disktest.Write(t, host, map[string]string{name + ".json": string(want)})
		s := stateAt(t, host)
		if name == "scrub" {
			if next, err := s.Turn(goldenStore, "blog"); next != 0x1122334455667788 || err != nil {
				t.Errorf("read is %x: %v", next, err)
			}
		} else if list, err := s.Damaged(goldenStore); len(list) != 2 || list[1] != key(2, archive.Zstd) || err != nil {
			t.Errorf("read is %v: %v", list, err)
		}
	}
}

// Each store has its own damage. What is no longer kept goes, what is found comes, nothing
// is there twice, and the list is bounded.
func TestDamageIsNotedUntilItIsHealed(t *testing.T) {
	host := t.TempDir()
	s := stateAt(t, host)
	const other = "20260102T030405Z-000001"
	note := func(st string, keep func(store.MemberKey) bool, found ...store.MemberKey) {
		t.Helper()
		if err := s.NoteDamaged(st, keep, found); err != nil {
			t.Fatal(err)
		}
	}
	noted := func(st string, want ...store.MemberKey) {
		t.Helper()
		if got, err := s.Damaged(st); !slices.Equal(got, want) || err != nil {
			t.Errorf("of %s: %v, expected %v: %v", st, got, want, err)
		}
	}
	a, b, c := key(1, archive.Gzip), key(1, archive.Zstd), key(2, archive.Gzip)
	note(goldenStore, everything)
	if _, err := os.Lstat(host + "/damaged.json"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing is damaged, and it is written: %v", err)
	}
	note(goldenStore, everything, a, b)
	note(other, nothing, c)
	note(goldenStore, everything, b, c)
	noted(goldenStore, b, c, a)
	note(goldenStore, func(k store.MemberKey) bool { return k != c })
	noted(goldenStore, b, a)
	note(goldenStore, nothing)
	noted(goldenStore)
	noted(other, c)
	var many []store.MemberKey
	for i := range 60_000 {
		many = append(many, key(i, archive.Gzip))
	}
	note(goldenStore, nothing, many...)
	if got, err := s.Damaged(goldenStore); len(got) != 49_999 || err != nil {
		t.Errorf("of %d %d are noted: %v", len(many), len(got), err)
	}
	noted(other, c)
	// A list that is damaged itself is a hint that is lost.
	disktest.Write(t, host, map[string]string{"damaged.json": "x"})
	noted(other)
	note(other, nothing, a)
	noted(other, a)
}
