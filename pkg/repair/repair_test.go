package repair_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
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
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/repair"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/state"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// host has the live data of two workloads, app and twin, and a store and a state.
type host struct {
	*testing.T
	dir    string
	st     *store.Store
	state  *state.State
	repair *repair.Host
	lines  []string
	audit  []journal.Audit
	live   func(workload string) error // may refuse, or do something to the live data
	closed map[string]bool             // volumes that do not exist
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{T: t, dir: t.TempDir(), closed: map[string]bool{}}
	var err error
	h.st, err = store.Open(filepath.Join(h.dir, "store"))
	h.must(err)
	t.Cleanup(func() { h.st.Close() })
	h.state, err = state.Open(filepath.Join(h.dir, "state"))
	h.must(err)
	t.Cleanup(func() { h.state.Close() })
	h.live = func(string) error { return nil }
	h.repair = &repair.Host{
		Store: h.st, Journal: h.state.Journal, Known: func(string) error { return nil }, Notes: h.state,
		Live: func(_ context.Context, name string, do func([]snapshot.Source) error) error {
			if err := h.live(name); err != nil {
				return err
			}
			sources, end := h.sources(name)
			defer end()
			return do(sources)
		},
		Record: func(a journal.Audit, _ time.Time, err error) {
			if a.Result = "ok"; err != nil {
				a.Result = fault.Classify(err).Code
			}
			h.audit = append(h.audit, a)
		},
		Line: func(line string) { h.lines = append(h.lines, line) },
	}
	files := map[string]string{"app/a/large": noise(1, 3<<20), "app/b/other": "two", "app/a/dir/": "", "twin/a/large": noise(1, 3<<20), "twin/b/x": ""}
	for i := range 60 {
		files[fmt.Sprintf("app/a/dir/%02d", i)] = noise(uint64(100+i), 9000)
	}
	disktest.Write(t, h.dir, files)
	return h
}

func (h *host) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func noise(seed uint64, n int) string {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte('a' + r.IntN(64))
	}
	return string(b)
}

// sources opens the volumes a and b of a workload.
func (h *host) sources(name string) (list []snapshot.Source, end func()) {
	h.Helper()
	end = func() {
		for _, s := range list {
			if s.Live != nil {
				s.Live.Close()
			}
		}
	}
	for _, volume := range []string{"a", "b"} {
		v := &workload.Volume{Name: volume, Scope: workload.Absolute, Source: filepath.Join(h.dir, name, volume)}
		if h.closed[volume] {
			list = append(list, snapshot.Source{Volume: v})
			continue
		}
		live, err := disk.OpenRoot(v.Source)
		h.must(err)
		list = append(list, snapshot.Source{Volume: v, Live: live})
	}
	return list, end
}

// capture makes a snapshot, as the engine does, and notes what it heals.
func (h *host) capture(name string, codec archive.Codec) *store.Manifest {
	h.Helper()
	sid := disk.NewID(time.Now())
	scratch, err := h.st.Scratch(sid)
	h.must(err)
	sources, end := h.sources(name)
	defer end()
	suspect, err := h.state.Damaged(h.st.ID())
	h.must(err)
	c, err := snapshot.Start(h.Context(), h.st, scratch, sources, snapshot.Options{Workload: name, Codec: codec, Suspect: suspect})
	h.must(err)
	defer c.Close()
	h.must(c.PassTwo(h.Context()))
	m := &store.Manifest{SID: sid, Reason: store.Manual, Quiesce: "none", Images: []store.Image{}}
	h.must(c.Publish(m))
	h.must(h.st.Clear(sid))
	m, err = h.st.Load(name, sid)
	h.must(err)
	return m
}

func (h *host) file(m archive.Member) string {
	return filepath.Join(h.dir, "store/members", m.ID[:2], m.ID+m.Codec.Ext())
}

func (h *host) flip(m archive.Member) {
	h.Helper()
	data, err := os.ReadFile(h.file(m))
	h.must(err)
	data[len(data)/2] ^= 1
	h.must(os.WriteFile(h.file(m), data, 0o600))
}

func (h *host) run(req repair.Request) (*repair.Result, string) {
	h.Helper()
	r, err := h.repair.Run(h.Context(), req)
	if err == nil {
		return r, "ok"
	}
	e := fault.Classify(err)
	if r == nil {
		h.Fatalf("%+v: %v", req, err)
	}
	if e.Kind != fault.Damaged || e.Remedy.Empty() {
		h.Errorf("the error is %+v", e)
	}
	return r, e.Code
}

// whole fails unless nothing is damaged, and nothing is left over or noted.
func (h *host) whole() {
	h.Helper()
	if r, code := h.run(repair.Request{Data: 1}); code != "ok" {
		h.Errorf("after the repair: %s, %v", code, r.Problems)
	}
	h.clear()
	if noted, err := h.state.Damaged(h.st.ID()); len(noted) > 0 || err != nil {
		h.Errorf("noted is %v: %v", noted, err)
	}
}

func (h *host) clear() {
	h.Helper()
	if left, err := filepath.Glob(filepath.Join(h.dir, "store/scratch/*")); len(left) > 0 || err != nil {
		h.Errorf("left over: %q, %v", left, err)
	}
}

// stats are the inodes and times of all members.
func (h *host) stats() map[string]unix.Stat_t {
	h.Helper()
	found := map[string]unix.Stat_t{}
	files, err := filepath.Glob(filepath.Join(h.dir, "store/members/*/*"))
	h.must(err)
	for _, file := range files {
		var st unix.Stat_t
		h.must(unix.Lstat(file, &st))
		st.Atim = unix.Timespec{}
		found[file] = st
	}
	return found
}

// rest makes the files of the live data old enough to prove something to the next capture.
func (h *host) rest() {
	h.Helper()
	old := time.Now().Add(-time.Hour)
	h.must(filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !strings.Contains(path, "/store") {
			err = os.Chtimes(path, old, old)
		}
		return err
	}))
	time.Sleep(1100 * time.Millisecond) // ctime cannot be set
}

// Whatever became of a member, the live data heals it, in each place of a stream, under
// either compression, and no other member is touched.
func TestWhatTheLiveDataStillHasIsHealed(t *testing.T) {
	truncate := func(n int64) func(h *host, m archive.Member) {
		return func(h *host, m archive.Member) { h.must(os.Truncate(h.file(m), n)) }
	}
	for _, codec := range []archive.Codec{archive.Gzip, archive.Zstd} {
		h := newHost(t)
		h.rest()
		first := h.capture("app", codec)
		disktest.Write(t, h.dir, map[string]string{"app/b/other": "three"})
		second := h.capture("app", codec) // the first no longer is the latest
		members := second.Volumes[0].Members
		if len(members) < 6 {
			t.Fatalf("there are only %d members", len(members))
		}
		for name, damage := range map[string]func(h *host, m archive.Member){
			"a flipped bit": func(h *host, m archive.Member) { h.flip(m) },
			"it is cut":     truncate(100),
			"it is empty":   truncate(0),
			"it is longer":  truncate(1 << 20),
			"it is gone":    func(h *host, m archive.Member) { h.must(os.Remove(h.file(m))) },
		} {
			for i, m := range members {
				if name != "a flipped bit" && i%3 != 0 {
					continue
				}
				before := h.stats()
				damage(h, m)
				r, code := h.run(repair.Request{Data: 1, Repair: true})
				if code != "ok" || r.Again != 1 || len(r.Repaired) != 2 || len(r.Problems) != 0 || len(r.Warnings) != 0 {
					t.Fatalf("%s, %s, member %d: %s, %+v", codec, name, i, code, r)
				}
				for file, was := range before {
					if now := h.stats()[file]; file != h.file(m) && now != was {
						t.Errorf("%s, %s: %s was touched", codec, name, file)
					}
				}
			}
		}
		h.whole()
		if len(first.Volumes) != 2 || h.audit[0].Verb != "repair" || h.audit[0].Result != "ok" {
			t.Errorf("audited is %+v", h.audit[0])
		}
	}
}

// All at once, and with the app writing: what has changed is left, named and noted, and the
// rest is healed.
func TestWhatHasChangedIsLeftAndNamed(t *testing.T) {
	h := newHost(t)
	h.rest()
	m := h.capture("app", archive.Gzip)
	for _, member := range m.Volumes[0].Members {
		h.flip(member)
	}
	path := filepath.Join(h.dir, "app/a/dir/00")
	was, err := os.Stat(path)
	h.must(err)
	h.must(os.WriteFile(path, []byte("changed"), 0o600))
	before := len(h.stats())
	r, code := h.run(repair.Request{Data: 1, Repair: true})
	if now := len(h.stats()); now != before {
		t.Errorf("%d members that nobody asked for were stored", now-before)
	}
	if code != "damaged" || len(r.Problems) != 1 || len(r.Repaired) != 1 || r.Again != len(m.Volumes[0].Members)-1 {
		t.Fatalf("%s, %+v", code, r)
	}
	if p := r.Problems[0]; p.SID != m.SID || p.Volume != "a" || p.Paths[0] != "." || !slices.Contains(p.Paths, "dir/00") {
		t.Errorf("left is %+v", p)
	}
	h.clear()
	left := r.Bad[0]
	if data, err := os.ReadFile(h.file(left)); err != nil || len(data) == 0 {
		t.Errorf("the damaged member does not stay: %v", err)
	}
	// It is noted, so a verify that reads nothing else still finds it.
	if r, code := h.run(repair.Request{}); code != "damaged" || len(r.Bad) != 1 {
		t.Errorf("without reading: %s, %+v", code, r)
	}
	// Who changes the file back has what was in there, and the next capture stores it,
	// although no scrub is due and a file of the right length is there.
	h.must(os.WriteFile(path, []byte(noise(100, 9000)), 0o600))
	h.must(os.Chtimes(path, was.ModTime(), was.ModTime()))
	h.capture("app", archive.Gzip)
	if err := archive.Check(t.Context(), h.st, left); err != nil {
		t.Errorf("the next capture did not store it again: %v", err)
	}
	h.whole()
}

// The same tar bytes lie under the other compression: no live data is needed.
func TestACopyUnderTheOtherCompressionHeals(t *testing.T) {
	for _, c := range [][2]archive.Codec{{archive.Gzip, archive.Zstd}, {archive.Zstd, archive.Gzip}} {
		h := newHost(t)
		m := h.capture("app", c[0])
		h.capture("app", c[1])
		h.live = func(string) error { t.Error("the live data was looked at"); return nil }
		for _, member := range m.Volumes[0].Members {
			h.flip(member)
		}
		h.must(os.RemoveAll(filepath.Join(h.dir, "app/a")))
		if r, code := h.run(repair.Request{Data: 1, Repair: true}); code != "ok" || r.Again != len(m.Volumes[0].Members) {
			t.Errorf("%s, %+v", code, r)
		}
		h.whole()
	}
}

// A member that two workloads share is healed from whichever still has its bytes.
func TestAnotherWorkloadsLiveDataHeals(t *testing.T) {
	h := newHost(t)
	m := h.capture("app", archive.Gzip)
	h.capture("twin", archive.Gzip)
	disktest.Write(t, h.dir, map[string]string{"app/a/large": "lost"})
	var piece archive.Member // content alone: the header has another time
	for _, member := range m.Volumes[0].Members {
		if member.Tar == 1<<20 {
			piece = member
		}
	}
	h.flip(piece)
	if r, code := h.run(repair.Request{Workload: "app", SID: m.SID, Data: 1, Repair: true}); code != "ok" || r.Again != 1 {
		t.Errorf("%s, %+v", code, r)
	}
	h.whole()
}

// Live data that cannot be had, or not all of it, is said, and the rest is healed.
func TestLiveDataThatCannotBeHadIsSaid(t *testing.T) {
	h := newHost(t)
	m := h.capture("app", archive.Gzip)
	a, b := m.Volumes[0].Members[0], m.Volumes[1].Members[0]
	h.flip(a)
	h.flip(b)
	said := func(want string, left int) {
		t.Helper()
		r, code := h.run(repair.Request{Data: 1, Repair: true})
		if code != "damaged" || len(r.Bad) != left || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], want) {
			t.Errorf("%s, %+v", code, r)
		}
		h.clear()
	}
	h.live = func(string) error { return journal.ErrBusy }
	said("of app was not looked at", 2)
	h.live = func(string) error { return nil }
	// A fifo cannot be captured. What lies before and after it can be read.
	h.must(unix.Mkfifo(filepath.Join(h.dir, "app/a/dir/aa"), 0o600))
	old := time.Now().Add(-time.Hour)
	h.must(os.Chtimes(filepath.Join(h.dir, "app/a/dir"), old, old))
	said("of app was not read to its end: volume a: ", 1)
	h.must(os.Remove(filepath.Join(h.dir, "app/a/dir/aa")))
	h.closed["a"] = true
	if r, code := h.run(repair.Request{Data: 1, Repair: true}); code != "damaged" || len(r.Bad) != 1 {
		t.Errorf("a volume that does not exist: %s, %+v", code, r)
	}
}

// Live data that was put back heals the snapshot that it was put back from, although a later
// one has other groups, and although the index is gone or of another boot.
func TestDataThatWasPutBackHealsAnOldSnapshot(t *testing.T) {
	for name, spoil := range map[string]func(index string) error{
		"":                func(string) error { return nil },
		"without index":   os.Remove,
		"a damaged index": func(index string) error { return os.Truncate(index, 100) },
	} {
		h := newHost(t)
		disktest.Run(t, "cp", "-a", h.dir+"/app", h.dir+"/aside")
		old := h.capture("app", archive.Gzip)
		for i := range 60 {
			disktest.Write(t, h.dir, map[string]string{fmt.Sprintf("app/a/dir/%02d", i): noise(uint64(i), 7000), fmt.Sprintf("app/a/dir/%02dx", i): "x"})
		}
		h.capture("app", archive.Zstd)
		h.must(os.RemoveAll(h.dir + "/app"))
		h.must(os.Rename(h.dir+"/aside", h.dir+"/app"))
		for _, member := range old.Volumes[0].Members {
			h.flip(member)
		}
		index := filepath.Join(h.dir, "store/snapshots/app", old.SID, "index.gz")
		h.must(spoil(index))
		r, code := h.run(repair.Request{Workload: "app", SID: old.SID, Data: 1, Repair: true})
		if left := len(r.Bad); left > 0 || r.Again != len(old.Volumes[0].Members) || len(r.Warnings) > 0 {
			t.Errorf("%s: %s, %d left, %+v", name, code, left, r)
		}
	}
}

// The app runs on and writes all the time. What it leaves alone is healed, and nothing that
// it writes comes into the store.
func TestARepairBesideAnAppThatWrites(t *testing.T) {
	h := newHost(t)
	m := h.capture("app", archive.Gzip)
	files := len(h.stats())
	var large []archive.Member
	for _, member := range m.Volumes[0].Members {
		if member.Tar == 1<<20 {
			large = append(large, member)
		}
	}
	var writer sync.WaitGroup
	for range 20 {
		for _, member := range large {
			h.flip(member)
		}
		stop, started := make(chan struct{}), make(chan struct{})
		writer.Go(func() {
			for i := 0; ; i++ {
				path := filepath.Join(h.dir, "app/a/dir", fmt.Sprintf("%02d", i%60))
				err := errors.Join(os.WriteFile(path+".new", []byte(noise(uint64(i), 9000)), 0o600), os.Rename(path+".new", path))
				if err != nil {
					t.Error(err)
				}
				if i == 10 {
					close(started)
				}
				select {
				case <-stop:
					if i >= 10 {
						return
					}
				default:
				}
			}
		})
		<-started
		r, code := h.run(repair.Request{Data: 1, Repair: true})
		close(stop)
		writer.Wait()
		if code != "ok" || r.Again != len(large) || len(large) < 2 {
			t.Fatalf("%s, %+v", code, r)
		}
	}
	if now := len(h.stats()); now != files {
		t.Errorf("there are %d members, and were %d", now, files)
	}
	h.whole()
}

// Of a volume only the files are read that lie in damaged members, whatever the index proves.
func TestOnlyWhatIsDamagedIsReadOfTheLiveData(t *testing.T) {
	h := newHost(t)
	m := h.capture("app", archive.Gzip) // right after the files were written: it proves nothing
	bad := m.Volumes[0].Members[0]
	h.flip(bad)
	sources, end := h.sources("app")
	defer end()
	scratch, err := h.st.Scratch(disk.NewID(time.Now()))
	h.must(err)
	defer scratch.Close()
	before := h.read()
	whole, err := snapshot.Heal(t.Context(), h.st, scratch, m, sources[0], store.Keys([]archive.Member{bad}))
	if read := h.read() - before; len(whole) != 1 || err != nil || read > 1<<20 {
		t.Errorf("healed %d, read %d bytes: %v", len(whole), read, err)
	}
}

// read is how many bytes this process has read so far (proc_pid_io(5)).
func (h *host) read() (n int64) {
	h.Helper()
	text, err := os.ReadFile("/proc/self/io")
	h.must(err)
	if _, err := fmt.Sscanf(string(text), "rchar: %d", &n); err != nil {
		h.Fatal(err)
	}
	return n
}

// What is not a file, and what snap has not put there, is left alone.
func TestSomethingElseInThePlaceOfAMemberStays(t *testing.T) {
	for name, put := range map[string]func(path string) error{
		"a directory": func(path string) error { return os.MkdirAll(path+"/x", 0o700) },
		"a symlink":   func(path string) error { return os.Symlink("/etc/hostname", path) },
		"a fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		h := newHost(t)
		m := h.capture("app", archive.Gzip).Volumes[0].Members[0]
		h.must(os.Remove(h.file(m)))
		h.must(put(h.file(m)))
		before := disktest.Tree(t, filepath.Dir(h.file(m)))
		r, code := h.run(repair.Request{Repair: true})
		if code != "damaged" || len(r.Problems) != 1 || len(r.Warnings) != 1 || !strings.Contains(r.Problems[0].What, "not a file") {
			t.Errorf("%s: %s, %+v", name, code, r)
		}
		disktest.Same(t, name, before, disktest.Tree(t, filepath.Dir(h.file(m))))
	}
}

// A manifest that lies about a member makes it no worse: what the store has is whole.
func TestAGoodMemberIsNeverOverwritten(t *testing.T) {
	h := newHost(t)
	m := h.capture("app", archive.Gzip)
	before := h.stats()
	m.Volumes[0].Members[0].Tar -= 512
	data, err := disk.MarshalSealed(m, "snap-manifest", 1)
	h.must(err)
	h.must(os.WriteFile(filepath.Join(h.dir, "store/snapshots/app", m.SID, "manifest.json"), data, 0o600))
	r, code := h.run(repair.Request{Data: 1, Repair: true})
	if code != "damaged" || len(r.Problems) != 1 || r.Again != 0 {
		t.Errorf("%s, %+v", code, r)
	}
	if now := h.stats(); !maps.Equal(now, before) {
		t.Error("members were touched")
	}
}

// Manifests and indexes are not repaired. What that costs is said.
func TestManifestsAndIndexesAreNotRepaired(t *testing.T) {
	h := newHost(t)
	m := h.capture("app", archive.Gzip)
	for file, want := range map[string]string{"index.gz": "the data is not hit", "manifest.json": "nothing is pruned"} {
		path := filepath.Join(h.dir, "store/snapshots/app", m.SID, file)
		data, err := os.ReadFile(path)
		h.must(err)
		h.must(os.WriteFile(path, append(slices.Clone(data[:len(data)-9]), 'x'), 0o600))
		r, code := h.run(repair.Request{Repair: true})
		if code != "damaged" || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].What, want) {
			t.Errorf("%s: %s, %+v", file, code, r)
		}
		h.must(os.WriteFile(path, data, 0o600))
	}
}

// A signal ends a repair, and what was not yet stored goes.
func TestASignalLeavesNothingBehind(t *testing.T) {
	h := newHost(t)
	h.flip(h.capture("app", archive.Gzip).Volumes[0].Members[0])
	ctx, stop := context.WithCancelCause(t.Context())
	sig := &fault.Signal{Name: "SIGTERM", Code: 143}
	h.live = func(string) error { stop(sig); return nil }
	r, err := h.repair.Run(ctx, repair.Request{Data: 1, Repair: true})
	if r != nil || !errors.Is(err, sig) || fault.KindOf(err) != fault.Interrupted {
		t.Errorf("%+v, %v", r, err)
	}
	h.clear()
	if h.audit[0].Result != "interrupted" {
		t.Errorf("audited is %+v", h.audit)
	}
}
