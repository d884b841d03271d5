package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// inMemory are members in a map: what the contract takes, and nothing of a
// filesystem.
type inMemory struct {
	mu   sync.Mutex
	data map[string][]byte
}

func (m *inMemory) Stat(_ context.Context, list []archive.Member) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sizes := make([]int64, len(list))
	for i := range list {
		sizes[i] = int64(len(m.data[memberFile(list[i])]))
	}
	return sizes, nil
}

func (m *inMemory) Get(_ context.Context, member archive.Member, buf []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.data[memberFile(member)]
	if !ok {
		return nil, fmt.Errorf("member %s: %w", member.ID, fs.ErrNotExist)
	}
	return append(buf[:0], data...), nil
}

func (m *inMemory) Put(_ context.Context, list iter.Seq[Staged]) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range list {
		data, err := s.Dir.ReadFile(s.Name, maxStored)
		if err != nil {
			return err
		}
		m.data[memberFile(s.Member)] = data
	}
	return nil
}

func (m *inMemory) List(context.Context) iter.Seq2[archive.Member, error] {
	return func(yield func(archive.Member, error) bool) {
		for name, data := range maps.Clone(m.data) {
			member, _ := memberOf(name)
			member.Stored = int64(len(data))
			if !yield(member, nil) {
				return
			}
		}
	}
}

func (m *inMemory) Remove(_ context.Context, list []archive.Member) error {
	for _, member := range list {
		delete(m.data, memberFile(member))
	}
	return nil
}

// implementations are all that the contract is tested on.
func implementations(t *testing.T) map[string]Members {
	d, err := openDirectory(open(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return map[string]Members{"a directory": d, "a map": &inMemory{data: map[string][]byte{}}}
}

func open(t *testing.T, path string) *disk.Dir {
	t.Helper()
	d, err := disk.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// named is a member, and what is to be stored as it.
func named(text string, codec archive.Codec) (archive.Member, []byte) {
	data := codec.Deflate(nil, []byte(text))
	return archive.Member{ID: archive.MemberID([]byte(text)), Tar: int64(len(text)), Stored: int64(len(data)), Codec: codec}, data
}

// stage puts data into a file, as a batch does.
func stage(t *testing.T, dir *disk.Dir, m archive.Member, data []byte) Staged {
	t.Helper()
	name := disk.NewID(time.Now())
	if err := errors.Join(dir.WriteUnsynced(name, data), dir.SyncFS()); err != nil {
		t.Fatal(err)
	}
	return Staged{m, dir, name}
}

func listed(t *testing.T, s Members) map[archive.Member]int {
	t.Helper()
	got := map[archive.Member]int{}
	for m, err := range s.List(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[m]++
	}
	return got
}

func TestEveryKindOfStorageKeepsTheContract(t *testing.T) {
	for name, s := range implementations(t) {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			dir := open(t, t.TempDir())
			one, oneData := named("one", archive.Gzip)
			other, otherData := named("one", archive.Zstd) // the same bytes, stored twice
			two, twoData := named(strings.Repeat("two", 100_000), archive.Gzip)
			absent, _ := named("absent", archive.Gzip)
			all := []archive.Member{absent, one, other, two, one}
			stat := func(want ...int64) {
				t.Helper()
				if got, err := s.Stat(t.Context(), all); err != nil || !slices.Equal(got, want) {
					t.Errorf("stored are %v, expected %v: %v", got, want, err)
				}
			}
			stat(0, 0, 0, 0, 0)
			if got, err := s.Stat(t.Context(), nil); err != nil || len(got) != 0 {
				t.Errorf("of none: %v, %v", got, err)
			}
			if err := s.Put(t.Context(), slices.Values([]Staged(nil))); err != nil {
				t.Errorf("nothing is put: %v", err)
			}
			staged := []Staged{stage(t, dir, one, oneData), stage(t, dir, other, otherData), stage(t, dir, two, twoData)}
			if err := s.Put(t.Context(), slices.Values(staged)); err != nil {
				t.Fatal(err)
			}
			stat(0, one.Stored, other.Stored, two.Stored, one.Stored)
			buf := make([]byte, 1<<20)
			for _, c := range []struct {
				m    archive.Member
				want []byte
			}{{one, oneData}, {other, otherData}, {two, twoData}} {
				for _, into := range [][]byte{nil, buf, buf[:0:1]} {
					got, err := s.Get(t.Context(), c.m, into)
					if err != nil || !bytes.Equal(got, c.want) {
						t.Errorf("%d bytes are got, expected %d: %v", len(got), len(c.want), err)
					}
					if cap(into) == len(buf) && &got[0] != &buf[0] {
						t.Error("the caller's memory is not used")
					}
				}
			}
			if got, err := s.Get(t.Context(), absent, buf); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, disk.ErrDamaged) {
				t.Errorf("one that is not there: %d bytes, %v", len(got), err)
			}
			one.Tar, other.Tar, two.Tar = 0, 0, 0
			if got, want := listed(t, s), map[archive.Member]int{one: 1, other: 1, two: 1}; !maps.Equal(got, want) {
				t.Errorf("listed are %v, expected %v", got, want)
			}
			for range s.List(t.Context()) {
				break
			}
			// What is put again takes the place of what is there.
			if err := s.Put(t.Context(), slices.Values([]Staged{stage(t, dir, one, []byte("anew"))})); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Get(t.Context(), one, nil); err != nil || string(got) != "anew" {
				t.Errorf("put again it is %q: %v", got, err)
			}
			for range 2 {
				if err := s.Remove(t.Context(), []archive.Member{absent, one, two}); err != nil {
					t.Errorf("removing: %v", err)
				}
			}
			stat(0, 0, other.Stored, 0, 0)
			if got, want := listed(t, s), map[archive.Member]int{other: 1}; !maps.Equal(got, want) {
				t.Errorf("left are %v, expected %v", got, want)
			}
			// A Put that cannot be made whole stores the others whole or not at all.
			lost := Staged{absent, dir, "not there"}
			if err := s.Put(t.Context(), slices.Values([]Staged{stage(t, dir, one, oneData), lost, stage(t, dir, two, twoData)})); err == nil {
				t.Error("what is not there was put")
			}
			for m, want := range map[archive.Member][]byte{one: oneData, two: twoData} {
				if got, err := s.Get(t.Context(), m, nil); err == nil && !bytes.Equal(got, want) || err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("after a Put that failed a member has %d bytes of %d: %v", len(got), len(want), err)
				}
			}
		})
	}
}

// A batch needs nothing of its storage but the contract.
func TestABatchPublishesIntoAnyStorage(t *testing.T) {
	for name, members := range implementations(t) {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			path := t.TempDir()
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.members = members
			text := strings.Repeat("text", 3000)
			for i, sid := range []string{"20260102T030405Z-000001", "20260102T030405Z-000002"} {
				scratch, err := s.Scratch(sid)
				if err != nil {
					t.Fatal(err)
				}
				defer scratch.Close()
				b := s.NewBatch(t.Context(), scratch, true, archive.Zstd)
				m, err := b.Put([]byte(text))
				if err != nil || (b.Added() > 0) != (i == 0) {
					t.Fatalf("%d bytes were added: %v", b.Added(), err)
				}
				v := Volume{Name: "v", Stats: archive.Stats{Dirs: 1}, Compression: archive.Zstd, Members: []archive.Member{m}}
				if err := b.Publish(&Manifest{Workload: "blog", SID: sid, Reason: Manual, Volumes: []Volume{v}}, ""); err != nil {
					t.Fatal(err)
				}
				if lack, err := s.Lacking(t.Context(), v.Members); lack.Any() || err != nil {
					t.Errorf("lacking are %+v: %v", lack, err)
				}
				data, err := s.Open(t.Context(), m, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got, err := archive.Inflate(nil, data, m); string(got) != text {
					t.Errorf("%d bytes were stored: %v", len(got), err)
				}
			}
		})
	}
}

// What nobody has put there is not taken for a member.
func TestWhatIsNoMemberIsRefusedAndNotListed(t *testing.T) {
	store := t.TempDir()
	d, err := openDirectory(open(t, store))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	path := filepath.Join(store, "members")
	for name, put := range map[string]func(file string) error{
		"a directory": func(file string) error { return os.Mkdir(file, 0o700) },
		"a fifo":      func(file string) error { return unix.Mkfifo(file, 0o600) },
		"a symlink":   func(file string) error { return os.Symlink("/etc/passwd", file) },
		"a shard's link": func(file string) error {
			return errors.Join(os.Remove(filepath.Dir(file)), os.Symlink("/etc", filepath.Dir(file)))
		},
		"a shard's file": func(file string) error {
			return errors.Join(os.Remove(filepath.Dir(file)), os.WriteFile(filepath.Dir(file), nil, 0o600))
		},
	} {
		m, _ := named(name, archive.Gzip)
		file := filepath.Join(path, m.ID[:2], memberFile(m))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), put(file)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Get(t.Context(), m, nil); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s: Get says %v", name, err)
		}
		sizes, err := d.Stat(t.Context(), []archive.Member{m})
		if !errors.Is(err, disk.ErrDamaged) || len(sizes) > 0 && sizes[0] > 0 {
			t.Errorf("%s: Stat says %v, %v", name, sizes, err)
		}
	}
	disktest.Write(t, path, map[string]string{"notes": "", "ab/notes": "", "zz/x": "", "ab/" + strings.Repeat("c", 64) + ".gz": "of another shard", "ab/" + strings.Repeat("a", 63) + ".gz": ""})
	if got := listed(t, d); len(got) != 0 {
		t.Errorf("listed are %v", got)
	}
	for _, id := range []string{"", "..", "../../etc/passwd", strings.Repeat("0", 62) + "/."} {
		if _, err := d.Get(t.Context(), archive.Member{ID: id}, nil); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%q: %v", id, err)
		}
		if err := d.Remove(t.Context(), []archive.Member{{ID: id}}); err == nil {
			t.Errorf("%q was removed", id)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range d.List(ctx) {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("a list after its context: %v", err)
		}
	}
}
