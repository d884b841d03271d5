package store_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
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
	"github.com/tiny-forge/snap/pkg/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

func storeAt(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// list returns the snapshots of a workload and the errors among them.
func list(s *store.Store, workload string) (all []*store.Manifest, bad []error) {
	for m, err := range s.All(workload) {
		if err != nil {
			bad = append(bad, err)
		} else {
			all = append(all, m)
		}
	}
	return all, bad
}

func scratch(t testing.TB, s *store.Store) *disk.Dir {
	t.Helper()
	d, err := s.Root().Ensure("scratch-"+disk.NewID(time.Now()), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func put(t testing.TB, b *store.Batch, tar string) archive.Member {
	t.Helper()
	m, err := b.Put([]byte(tar))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const sid = "20260102T030405Z-abcdef"

// piece is long enough for the counts that manifest gives.
func piece(s string) string { return s + strings.Repeat("\x00", 4096) }

func manifest(workload, sid string, members ...archive.Member) *store.Manifest {
	return &store.Manifest{
		Workload: workload, SID: sid, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Reason: store.Manual, Note: "a note\x1b[2J",
		Quiesce: "pause", Snap: "1.0.0", Images: []store.Image{{Service: "web", Image: "ghost:5", ImageID: "sha256:aa", Digest: "ghost@sha256:bb"}},
		Volumes: []store.Volume{{
			Name: "content", Scope: "stage", Source: "content", Target: "/var/lib/ghost/content",
			Stats:   archive.Stats{Files: 2, Dirs: 1, Symlinks: 1, Hardlinks: 1, Bytes: 1000, DataBytes: 900, Depth: 1},
			Sockets: 1, Members: members,
		}},
	}
}

func index(t testing.TB, dir *disk.Dir) string {
	t.Helper()
	x, err := store.NewIndex(dir, "index", store.Origin{Machine: "machine", Boot: "boot"})
	if err == nil {
		err = x.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return "index"
}

// publish makes a snapshot of one piece.
func publish(t testing.TB, s *store.Store, workload, sid, tar string) *store.Manifest {
	t.Helper()
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, false, archive.Gzip)
	m := manifest(workload, sid, put(t, b, tar))
	if err := b.Publish(m, index(t, dir)); err != nil {
		t.Fatal(err)
	}
	return m
}

func members(t testing.TB, path string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(path, "members"), func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, d.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestWhatWasPublishedIsLoadedAndOpened(t *testing.T) {
	path := t.TempDir()
	want := publish(t, storeAt(t, path), "blog", sid, piece("a"))
	s := storeAt(t, path)
	got, err := s.Load("blog", sid)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("loaded\n%+v\npublished\n%+v", got, want)
	}
	m := got.Volumes[0].Members[0]
	data, err := s.Open(t.Context(), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	if tar, err := archive.Inflate(nil, data, m); string(tar) != piece("a") || m.Stored != int64(len(data)) {
		t.Errorf("the member holds %d bytes: %v", len(tar), err)
	}
	if lack, err := s.Lacking(t.Context(), got.Volumes[0].Members); lack.Any() || err != nil {
		t.Errorf("lacking are %+v: %v", lack, err)
	}
	for file, mode := range map[string]fs.FileMode{"members": 0o700, "snapshots/blog": 0o700, "snapshots/blog/" + sid: 0o700, "snapshots/blog/" + sid + "/manifest.json": 0o600, "snapshots/blog/" + sid + "/index.gz": 0o600} {
		if info, err := os.Stat(filepath.Join(path, file)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%q has mode %v: %v", file, info.Mode(), err)
		}
	}
}

func TestAPieceIsStoredOnceHoweverOftenItComes(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	publish(t, s, "blog", sid, piece("a"))
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, false, archive.Gzip)
	var all sync.WaitGroup
	got := make([]archive.Member, 40)
	for i := range got {
		all.Go(func() { got[i], _ = b.Put([]byte(piece(string(rune('a' + i%2))))) })
	}
	all.Wait()
	names, err := dir.Names()
	if err != nil || len(names) != 1 {
		t.Errorf("the scratch directory holds %v: %v", names, err)
	}
	if b.Added() != got[1].Stored || got[0].Stored == 0 || got[0] != got[38] || got[1] != got[39] {
		t.Errorf("added %d bytes for %v", b.Added(), got[1])
	}
	if err := b.Publish(manifest("shop", sid, got[0], got[1], got[0]), index(t, dir)); err != nil {
		t.Fatal(err)
	}
	if all := members(t, path); len(all) != 2 {
		t.Errorf("the store holds %v", all)
	}
}

func TestADamagedMemberIsStoredAnewWhenItIsVerified(t *testing.T) {
	for name, damage := range map[string]func(path string) error{
		"flipped bit":     func(p string) error { d, _ := os.ReadFile(p); d[len(d)/2] ^= 1; return os.WriteFile(p, d, 0o600) },
		"cut":             func(p string) error { return os.Truncate(p, 20) },
		"cut by one byte": func(p string) error { i, _ := os.Stat(p); return os.Truncate(p, i.Size()-1) },
		"empty":           func(p string) error { return os.Truncate(p, 0) },
		"zeros":           func(p string) error { i, _ := os.Stat(p); return os.WriteFile(p, make([]byte, i.Size()), 0o600) },
		"too large":       func(p string) error { return os.Truncate(p, 20<<20) },
		"another member":  func(p string) error { return os.WriteFile(p, archive.Gzip.Deflate(nil, []byte("other")), 0o600) },
		"gone":            os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			s := storeAt(t, path)
			m := publish(t, s, "blog", sid, piece("a")).Volumes[0].Members[0]
			if err := damage(filepath.Join(path, "members", m.ID[:2], m.ID+".gz")); err != nil {
				t.Fatal(err)
			}
			dir := scratch(t, s)
			b := s.NewBatch(t.Context(), dir, true, archive.Gzip)
			again := put(t, b, piece("a"))
			if b.Added() == 0 {
				t.Error("the damaged member is relied upon")
			}
			if err := b.Publish(manifest("blog", "20260102T030405Z-000002", again), index(t, dir)); err != nil {
				t.Fatal(err)
			}
			data, err := s.Open(t.Context(), m, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := archive.Inflate(nil, data, m); err != nil {
				t.Errorf("the member is still damaged: %v", err)
			}
			if damage(filepath.Join(path, "members", m.ID[:2], m.ID+".gz")) != nil {
				t.Fatal("it cannot be damaged again")
			}
			promises(t, s, m)
			intact := s.NewBatch(t.Context(), scratch(t, s), true, archive.Gzip)
			if put(t, intact, piece("a")); intact.Added() != 0 {
				t.Error("an intact member was stored anew")
			}
		})
	}
}

// promises has a batch rely upon a damaged member without its content, which has
// to show before anything is published.
func promises(t *testing.T, s *store.Store, m archive.Member) {
	t.Helper()
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, true, archive.Gzip)
	name := index(t, dir)
	_, ok, err := b.Reuse(m)
	if err != nil {
		t.Fatal(err)
	}
	last := manifest("blog", "20260102T030405Z-000003", archive.Member{ID: m.ID, Tar: m.Tar, Stored: 1})
	if err := b.Publish(last, name); err == nil {
		t.Error("published upon what nobody has checked")
	}
	if damaged, err := b.Check(t.Context()); err != nil || (damaged == 1) != ok {
		t.Errorf("promised: %v, found to be damaged: %d, %v", ok, damaged, err)
	}
	if _, ok, err := b.Reuse(m); ok || err != nil {
		t.Errorf("promised again: %v", err)
	}
	last.Volumes[0].Members[0] = put(t, b, piece("a"))
	if damaged, err := b.Check(t.Context()); damaged != 0 || err != nil {
		t.Errorf("stored anew it is damaged %d times: %v", damaged, err)
	}
	if err := b.Publish(last, name); err != nil {
		t.Fatal(err)
	}
}

// A crash is a batch that never comes to its Publish, or not to its end.
func TestWithoutItsManifestASnapshotDoesNotExist(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	b := s.NewBatch(t.Context(), scratch(t, s), false, archive.Gzip)
	m := put(t, b, piece("a"))
	if _, err := s.Load("blog", sid); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before publishing: %v", err)
	}
	if len(members(t, path)) != 0 {
		t.Error("a member has its name before it is durable")
	}
	if err := b.Publish(manifest("blog", sid, m), "no such index"); err == nil {
		t.Error("published without its index")
	}
	all, bad := list(s, "blog")
	if len(all) != 0 || len(bad) != 0 {
		t.Errorf("a half published snapshot is listed: %v, %v", all, bad)
	}
	if err := s.Discard("blog", sid); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Join(path, "snapshots/blog", sid)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Discard: %v", err)
	}
	for _, gone := range []string{sid, "20260102T030405Z-000009"} {
		if err := errors.Join(s.Discard("blog", gone), s.Discard("nobody", gone)); err != nil {
			t.Errorf("discarding nothing: %v", err)
		}
	}
}

func TestDiscardKeepsWhatHasAManifestEvenADamagedOne(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	publish(t, s, "blog", sid, piece("a"))
	for _, content := range []string{"", "damaged"} {
		if content != "" {
			disktest.Write(t, path, map[string]string{"snapshots/blog/" + sid + "/manifest.json": content})
		}
		before := disktest.Tree(t, path)
		if err := s.Discard("blog", sid); err != nil {
			t.Error(err)
		}
		disktest.Same(t, "the store", before, disktest.Tree(t, path))
	}
}

func TestOnlyMembersOfTheBatchArePublished(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	m := publish(t, s, "blog", sid, piece("a")).Volumes[0].Members[0]
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, false, archive.Gzip)
	if err := b.Publish(manifest("blog", "20260102T030405Z-000002", m), index(t, dir)); err == nil || !strings.Contains(err.Error(), "never went through") {
		t.Errorf("a member that was not looked at: %v", err)
	}
	if _, err := b.Put(make([]byte, archive.MaxMember+1)); err == nil {
		t.Error("a piece over the cap was taken")
	}
}

func TestSnapshotsAreListedNewestFirstAndUnreadableOnesBeside(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	ids := []string{"20260101T000000Z-000001", "20260103T000000Z-000003", "20260102T000000Z-000002", "20260104T000000Z-000004", "20260105T000000Z-000005"}
	for i, id := range ids {
		dir := scratch(t, s)
		b := s.NewBatch(t.Context(), dir, false, archive.Gzip)
		m := manifest("blog", id, put(t, b, piece(fmt.Sprint(i))))
		m.Created, _ = time.Parse("20060102T150405Z", id[:16])
		if err := b.Publish(m, index(t, dir)); err != nil {
			t.Fatal(err)
		}
	}
	at := filepath.Join(path, "snapshots/blog")
	newer, err := os.ReadFile(filepath.Join(at, ids[4], "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	disktest.Write(t, at, map[string]string{
		ids[3] + "/manifest.json": "damaged", "20260106T000000Z-000006/index.gz": "unfinished", "notes/": "", "20260107T000000Z-000007": "a file",
		ids[4] + "/manifest.json": string(reseal(bytes.Replace(newer, []byte(`"version": 5`), []byte(`"version": 99`), 1))),
	})
	all, bad := list(s, "blog")
	var got []string
	for _, m := range all {
		got = append(got, m.SID)
	}
	if want := []string{ids[1], ids[2], ids[0]}; !slices.Equal(got, want) {
		t.Errorf("the list is %v, expected %v", got, want)
	}
	if len(bad) != 3 || !slices.ContainsFunc(bad, func(e error) bool { return errors.Is(e, disk.ErrTooNew) }) || !slices.ContainsFunc(bad, func(e error) bool { return errors.Is(e, disk.ErrDamaged) }) {
		t.Errorf("unreadable are %v", bad)
	}
	if list, bad := list(s, "nobody"); len(list)+len(bad) != 0 {
		t.Errorf("of nobody: %v, %v", list, bad)
	}
	if names, err := s.Workloads(); err != nil || !slices.Equal(names, []string{"blog"}) {
		t.Errorf("workloads are %v: %v", names, err)
	}
}

func TestNoNameLeadsOutOfTheStore(t *testing.T) {
	box := t.TempDir()
	path := filepath.Join(box, "store")
	s := storeAt(t, path)
	publish(t, s, "blog", sid, piece("a"))
	if err := os.CopyFS(filepath.Join(box, "evil"), os.DirFS(filepath.Join(path, "snapshots/blog"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(box, "evil"), filepath.Join(path, "snapshots/linked")); err != nil {
		t.Fatal(err)
	}
	before := disktest.Tree(t, box)
	for _, workload := range []string{"../../evil", "..", filepath.Join(box, "evil"), "linked", "blog/../../../evil", ""} {
		if _, err := s.Load(workload, sid); err == nil {
			t.Errorf("loaded from workload %q", workload)
		}
		if list, _ := list(s, workload); len(list) > 0 {
			t.Errorf("listed workload %q", workload)
		}
		_ = s.Discard(workload, sid)
	}
	for _, id := range []string{"..", "../blog/" + sid, "", sid + "/", "../../../evil/" + sid} {
		if _, err := s.Load("blog", id); err == nil {
			t.Errorf("loaded snapshot %q", id)
		}
	}
	for _, id := range []string{"", "..", "../../../evil", strings.Repeat("A", 64), strings.Repeat("0", 63), strings.Repeat("0", 61) + "/.."} {
		if _, err := s.Open(t.Context(), archive.Member{ID: id, Tar: 1}, nil); !errors.Is(err, archive.ErrRefused) {
			t.Errorf("member %q: %v", id, err)
		}
	}
	if _, err := s.Open(t.Context(), archive.Member{ID: strings.Repeat("0", 64), Tar: 1}, nil); !errors.Is(err, archive.ErrRefused) {
		t.Errorf("a missing member: %v", err)
	}
	disktest.Same(t, "everything", before, disktest.Tree(t, box))
}

func TestTheFirstPassLeavesSpaceForOthers(t *testing.T) {
	s := storeAt(t, filepath.Join(disktest.Mount(t, "ext4", 128), "store"))
	dir := scratch(t, s)
	b := s.NewBatch(t.Context(), dir, false, archive.Gzip)
	if err := b.Reserve(true); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	put := func() error {
		tar := make([]byte, 1<<20)
		for i := range tar {
			tar[i] = byte(random.Uint32())
		}
		_, err := b.Put(tar)
		return err
	}
	var err error
	for err == nil {
		err = put()
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	space, err := dir.Space()
	if err != nil {
		t.Fatal(err)
	}
	if space.Bytes < space.Total/100-(64<<10) || space.Bytes > space.Total/25 {
		t.Errorf("%d of %d bytes are left", space.Bytes, space.Total)
	}
	if err := b.Reserve(false); err != nil {
		t.Fatal(err)
	}
	if err := put(); err != nil {
		t.Errorf("the second pass cannot use what was left: %v", err)
	}
}

// What a transaction has not published goes with it; what a power cut brings
// back is swept, unless somebody works there.
func TestWhatNoTransactionOwnsIsSwept(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	const ended, unfinished, open = "20260102T030405Z-000001", "20260102T030405Z-000002", "20260102T030405Z-000003"
	folders := func() []string {
		found, err := filepath.Glob(path + "/scratch/*")
		if err != nil {
			t.Fatal(err)
		}
		for i := range found {
			found[i] = filepath.Base(found[i])
		}
		return found
	}
	if err := errors.Join(s.Clear(ended), s.Sweep(func() ([]string, error) { return nil, nil })); err != nil {
		t.Errorf("before there was any: %v", err)
	}
	for _, tx := range []string{ended, unfinished, open} {
		d, err := s.Scratch(tx)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.WriteUnsynced("member", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if tx == open {
			defer d.Close()
		} else {
			d.Close()
		}
	}
	disktest.Write(t, path, map[string]string{"scratch/stranger/": ""})
	if err := s.Sweep(func() ([]string, error) { return nil, errors.New("the journal cannot be read") }); err == nil || len(folders()) != 4 {
		t.Errorf("without a list of transactions: %q, %v", folders(), err)
	}
	if err := s.Sweep(func() ([]string, error) { return []string{unfinished}, nil }); err != nil {
		t.Error(err)
	}
	if got := folders(); !slices.Equal(got, []string{unfinished, open, "stranger"}) {
		t.Errorf("left are %q", got)
	}
	for range 2 {
		if err := s.Clear(unfinished); err != nil {
			t.Error(err)
		}
	}
	if got := folders(); !slices.Equal(got, []string{open, "stranger"}) {
		t.Errorf("left are %q", got)
	}
}
