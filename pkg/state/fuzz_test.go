package state_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/state"
	"github.com/tiny-forge/snap/pkg/store"
)

// goldenStore is the store of the golden files.
const goldenStore = "20260102T030405Z-abcdef"

// FuzzStores: a list of stores with a true checksum is refused, or says of each path
// whether a store was seen there; nothing is made in its place.
func FuzzStores(f *testing.F) {
	fuzzList(f, "stores.json", func(t *testing.T, s *state.State, path string) {
		st, err := s.Store(path+"/nowhere", false)
		if err == nil {
			st.Close()
			t.Error("a store was opened that is not there")
		}
		if _, err := os.Lstat(path + "/nowhere"); err == nil {
			t.Error("a store was made")
		}
	})
}

// FuzzScrubs: whatever the list of scrubs is, a capture begins somewhere, and can note
// where the next one begins, unless a newer snap wrote the list.
func FuzzScrubs(f *testing.F) {
	fuzzList(f, "scrub.json", func(t *testing.T, s *state.State, _ string) {
		if _, err := s.Turn(goldenStore, "blog"); err != nil {
			t.Error(err)
		}
		if err := s.SetTurn(goldenStore, "blog", math.MaxUint64); errors.Is(err, disk.ErrTooNew) {
			return
		} else if err != nil {
			t.Error(err)
		}
		if next, err := s.Turn(goldenStore, "blog"); next != math.MaxUint64 || err != nil {
			t.Errorf("noted is %d: %v", next, err)
		}
	})
}

// FuzzDamages: what the list of damage names are members, and it takes new ones, unless a
// newer snap wrote it.
func FuzzDamages(f *testing.F) {
	fuzzList(f, "damaged.json", func(t *testing.T, s *state.State, _ string) {
		list, err := s.Damaged(goldenStore)
		if err != nil {
			t.Error(err)
		}
		for _, k := range list {
			if m := k.Member(); !archive.ValidMemberID(m.ID) || store.KeyOf(m) != k {
				t.Errorf("%+v", m)
			}
		}
		own := store.KeyOf(archive.Member{ID: strings.Repeat("ab", 32), Codec: archive.Zstd})
		err = s.NoteDamaged(goldenStore, func(store.MemberKey) bool { return false }, []store.MemberKey{own})
		if errors.Is(err, disk.ErrTooNew) {
			return
		}
		if now, e := s.Damaged(goldenStore); err != nil || e != nil || len(now) != 1 || now[0] != own {
			t.Errorf("noted is %v: %v, %v", now, err, e)
		}
	})
}

// fuzzList gives any bytes, with a true checksum, as one list of a state.
func fuzzList(f *testing.F, name string, look func(t *testing.T, s *state.State, path string)) {
	golden, err := os.ReadFile("testdata/" + strings.Replace(name, ".json", ".v1.json", 1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(nil))
	for _, change := range [][2]string{
		{`"version": 1`, `"version": 2`}, {`"version": 1`, `"version": -1`}, {`[`, `[[`}, {`[`, `[null, `}, {`"path"`, `"PATH"`}, {`/mnt`, `mnt/../..`},
		{`.gz"`, `.zst"`}, {`.gz"`, `/../x.gz"`}, {`"next": "`, `"next": "-`}, {`"store"`, `"stores"`}, {goldenStore, ""},
	} {
		f.Add(bytes.Replace(golden, []byte(change[0]), []byte(change[1]), 1))
	}
	path := f.TempDir()
	s := stateAt(f, path)
	f.Fuzz(func(t *testing.T, data []byte) {
		const sum = `"checksum": "sha256:`
		if at := bytes.Index(data, []byte(sum)); at >= 0 {
			data = append(bytes.Clone(data), strings.Repeat(" ", max(0, at+len(sum)+64-len(data)))...)
			copy(data[at+len(sum):], strings.Repeat("0", 64))
			digest := sha256.Sum256(data)
			hex.Encode(data[at+len(sum):], digest[:])
		}
		if err := os.WriteFile(filepath.Join(path, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
		look(t, s, path)
	})
}
