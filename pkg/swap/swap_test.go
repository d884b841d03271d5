package swap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
)

// bench is a transaction of two volumes on real directories, as it is when
// everything is staged.
type bench struct {
	*testing.T
	dir     string
	journal *journal.Journal
	held    *journal.Held
	id      string
	old     []time.Time // the old directories' own times
	files   bool        // the volumes are files
}

func newBench(t *testing.T, above, guard string) *bench {
	t.Helper()
	return newBenchOf(t, above, guard, "directories")
}

// newBenchOf is newBench with volumes that are "subvolumes" of btrfs, or "files".
func newBenchOf(t *testing.T, above, guard, what string) *bench {
	t.Helper()
	b := &bench{T: t, files: what == "files"}
	var err error
	b.dir, err = os.MkdirTemp(above, "")
	b.must(err)
	b.must(os.MkdirAll(filepath.Join(b.dir, "state"), 0o700))
	root, err := disk.OpenRoot(filepath.Join(b.dir, "state"))
	b.must(err)
	t.Cleanup(func() { root.Close() })
	b.journal, err = journal.Open(root)
	b.must(err)
	t.Cleanup(func() { b.journal.Close() })
	b.held, err = b.journal.Lock("app", "test")
	b.must(err)
	t.Cleanup(b.held.Release)
	begin := &journal.Begin{Kind: journal.Restore, Guard: guard, PreRestoreSID: disk.NewID(time.Now()), RevertSID: disk.NewID(time.Now())}
	for i := range 2 {
		if what == "subvolumes" {
			disktest.Run(t, "btrfs", "subvolume", "create", b.live(i))
		}
		b.write(b.live(i), "old")
		old := time.Unix(1_600_000_000+int64(i), 42)
		b.must(os.Chtimes(b.live(i), old, old))
		b.old = append(b.old, old)
		begin.Volumes = append(begin.Volumes, journal.Volume{Name: fmt.Sprintf("v%d", i), Root: b.dir, Rel: fmt.Sprintf("v%d", i), Entry: fmt.Sprint(i), File: b.files})
	}
	tx, err := b.journal.Begin(b.held, begin)
	b.must(err)
	b.id = tx.ID
	x, err := Open(tx, false, nil)
	b.must(err)
	defer x.CloseVolumes()
	for _, v := range x.Volumes {
		staged, err := v.MakeStaged()
		b.must(err)
		staged.Close()
		b.write(filepath.Join(b.dir, v.EntryName()), "new")
	}
	b.must(x.RecordReady(&journal.Ready{}, func() error { return nil }))
	b.must(x.RecordTimes([]string{"", ""}))
	b.must(tx.Close())
	return b
}

// write gives a volume, or what is to become one, the content of a generation.
func (b *bench) write(path, generation string) {
	b.Helper()
	dir, name := path, "generation"
	if b.files {
		dir, name = filepath.Split(path)
	}
	disktest.Write(b.T, dir, map[string]string{name: generation})
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) live(i int) string { return filepath.Join(b.dir, fmt.Sprintf("v%d", i)) }

// generation is what is live of both volumes, "mixed" where they differ.
func (b *bench) generation() string {
	b.Helper()
	var all []string
	for i := range 2 {
		path := filepath.Join(b.live(i), "generation")
		if b.files {
			path = b.live(i)
		}
		text, err := os.ReadFile(path)
		b.must(err)
		all = append(all, string(text))
	}
	if all[0] != all[1] {
		return "mixed"
	}
	return all[0]
}

var errCut = errors.New("cut")

// run brings the transaction to its end by the table, and is cut at the n-th point
// that it reaches (0: never). It reports whether it was cut.
func (b *bench) run(n int) (cut bool) {
	b.Helper()
	tx, err := b.journal.Load(b.id)
	b.must(err)
	defer func() {
		if v := recover(); v != nil {
			if v != errCut {
				panic(v)
			}
			tx.Close()
			cut = true
		}
	}()
	reached := 0
	x, err := Open(tx, true, func(string) {
		if reached++; reached == n {
			panic(errCut)
		}
	})
	b.must(err)
	defer x.CloseVolumes()
	plan, err := x.Plan()
	b.must(err)
	b.must(x.Apply(plan))
	b.must(x.Discard())
	return false
}

// TestATransactionThatIsCutAnywhereEndsWhereTheRecordsWant plans, applies and
// discards under every goal, cut at every point and run again.
//
// On XFS, which changes the time of a directory that is exchanged (see
// journal.Times).
func TestATransactionThatIsCutAnywhereEndsWhereTheRecordsWant(t *testing.T) {
	above := disktest.Mount(t, "xfs", 300)
	cutAnywhere(t, func(t *testing.T) *bench { return newBench(t, above, "") })
}

// TestATransactionOfSubvolumesThatIsCutAnywhereEndsWhereTheRecordsWant is the same on
// btrfs: a subvolume is exchanged and removed like a directory.
func TestATransactionOfSubvolumesThatIsCutAnywhereEndsWhereTheRecordsWant(t *testing.T) {
	above := disktest.Mount(t, "btrfs", 300)
	cutAnywhere(t, func(t *testing.T) *bench { return newBenchOf(t, above, "", "subvolumes") })
	list := disktest.Run(t, "btrfs", "subvolume", "list", above)
	for line := range strings.Lines(list) {
		if name := filepath.Base(strings.TrimSpace(line)); name != "v0" && name != "v1" {
			t.Errorf("a subvolume is left: %s", line)
		}
	}
	if strings.Count(list, "\n") < 18 {
		t.Errorf("the live directories are no subvolumes:\n%s", list)
	}
}

func cutAnywhere(t *testing.T, bench func(t *testing.T) *bench) {
	t.Helper()
	for _, c := range []struct {
		goal  Goal
		start []int // volumes that are exchanged already
		want  string
	}{
		{Undecided, nil, "old"}, {Undecided, []int{0}, "old"}, {Undecided, []int{0, 1}, "old"},
		{Committed, []int{0, 1}, "new"}, {Committed, []int{1}, "new"}, {Committed, nil, "new"},
		{Reverted, []int{0, 1}, "old"}, {Reverted, []int{1}, "old"}, {Reverted, nil, "old"},
	} {
		t.Run(fmt.Sprintf("%s, exchanged %v", c.goal, c.start), func(t *testing.T) {
			for n := 1; ; n++ {
				b := bench(t)
				b.arrange(c.goal, c.start)
				cut := b.run(n)
				if cut && b.pending() {
					b.run(0)
				}
				b.ended(c.want)
				if !cut {
					if n < 3 {
						t.Errorf("only %d points were reached", n-1)
					}
					return
				}
			}
		})
	}
}

// open opens the transaction until the end of the test.
func (b *bench) open(guarded bool) *Tx {
	b.Helper()
	tx, err := b.journal.Load(b.id)
	b.must(err)
	b.Cleanup(func() { tx.Close() })
	x, err := Open(tx, guarded, nil)
	b.must(err)
	b.Cleanup(x.CloseVolumes)
	return x
}

// arrange exchanges volumes and takes the decisions.
func (b *bench) arrange(g Goal, exchanged []int) {
	b.Helper()
	x := b.open(true)
	defer x.CloseVolumes() // the next process opens its own
	plan := make([]Action, len(x.Volumes))
	for i := range plan {
		if plan[i] = Keep; slices.Contains(exchanged, i) {
			plan[i] = Exchange
		}
	}
	b.must(x.Apply(plan))
	if g == Committed || g == Reverted || g == Guarding {
		b.must(x.Commit())
	}
	if g == Reverted {
		b.must(x.Revert())
	}
}

func (b *bench) pending() bool {
	b.Helper()
	ids, err := b.journal.List()
	b.must(err)
	return len(ids) > 0
}

// ended fails the test unless one generation is live, the transaction has ended,
// nothing is left beside the live directories, and old directories have their own
// times.
func (b *bench) ended(want string) {
	b.Helper()
	if got := b.generation(); got != want {
		b.Errorf("%s data is live, expected %s", got, want)
	}
	if b.pending() {
		b.Error("the transaction has not ended")
	}
	names, err := os.ReadDir(b.dir)
	b.must(err)
	if len(names) != 3 { // state, v0, v1
		b.Errorf("beside the live directories stand %v", names)
	}
	for i := range 2 {
		info, err := os.Stat(b.live(i))
		b.must(err)
		if want == "old" && !info.ModTime().Equal(b.old[i]) {
			b.Errorf("the old directory %d has the time %v, it had %v", i, info.ModTime(), b.old[i])
		}
	}
}

// TestWhatIsNotRecognisedIsNotTouched puts something foreign at one of a volume's
// two names, and takes a displaced tree away.
func TestWhatIsNotRecognisedIsNotTouched(t *testing.T) {
	foreign := func(path string) func(*bench) {
		return func(b *bench) {
			at := filepath.Join(b.dir, path)
			if path == "staged" {
				at = filepath.Join(b.dir, journal.Wrapper(b.id), "1")
			}
			b.must(os.Rename(at, filepath.Join(b.dir, "away")))
			disktest.Write(b.T, at, map[string]string{"foreign": "f"})
		}
	}
	for name, c := range map[string]struct {
		goal  Goal
		start []int
		spoil func(*bench)
	}{
		"foreign and live":         {Undecided, nil, foreign("v1")},
		"foreign and staged":       {Committed, []int{0, 1}, foreign("staged")},
		"no staged tree to commit": {Committed, nil, func(b *bench) { b.must(os.RemoveAll(filepath.Join(b.dir, journal.Wrapper(b.id), "1"))) }},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, t.TempDir(), "")
			b.arrange(c.goal, c.start)
			c.spoil(b)
			before := disktest.Tree(t, b.dir)
			x := b.open(true)
			var mismatch *Mismatch
			if _, err := x.Plan(); !errors.As(err, &mismatch) || len(mismatch.Ways) == 0 {
				t.Errorf("the plan is %v, expected a mismatch with ways out", err)
			}
			disktest.Same(t, "the directories", before, disktest.Tree(t, b.dir))
		})
	}
}

// TestAGuardedTreeIsNeverDiscarded: until the pre-restore snapshot exists the
// displaced trees are the only copy of the old data.
func TestAGuardedTreeIsNeverDiscarded(t *testing.T) {
	newBench(t, t.TempDir(), journal.GuardAfter).neverDiscarded()
}

func (b *bench) neverDiscarded() {
	b.Helper()
	b.arrange(Guarding, []int{0, 1})
	x := b.open(false)
	before := disktest.Tree(b.T, b.dir)
	if err := x.Discard(); err == nil {
		b.Error("what was displaced was discarded")
	}
	disktest.Same(b.T, "the directories", before, disktest.Tree(b.T, b.dir))
	x.Guarded()
	b.must(x.Discard())
	b.ended("new")
}

// TestTheProbeIsMadeOfWhatIsExchanged: the kernel lets a wrapper that hands down
// project 7 take directories of that project and no others. The probe finds that out
// only with directories like the live one.
func TestTheProbeIsMadeOfWhatIsExchanged(t *testing.T) {
	dir := disktest.Mount(t, "xfs", 300)
	for project, code := range map[string]string{"7": "", "42": "project_id"} {
		t.Run("project "+project, func(t *testing.T) {
			at := filepath.Join(dir, project)
			disktest.Write(t, at, map[string]string{"live/file": "x", "wrapper/": ""})
			disktest.Run(t, "chattr", "-p", project, at+"/live")
			disktest.Run(t, "chattr", "-p", "7", at+"/wrapper")
			disktest.Run(t, "chattr", "+P", at+"/wrapper")
			v, err := OpenLive("v", dir, project+"/live", func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			v.wrapper = "wrapper"
			trial, err := v.trial()
			if err != nil {
				t.Fatal(err)
			}
			var unfit *Unfit
			if err := v.probe(trial); code == "" && err != nil || code != "" && (!errors.As(err, &unfit) || unfit.Code != code) {
				t.Errorf("the probe returned %v, expected code %q", err, code)
			}
		})
	}
}

// Only a wrapper that is certainly absent counts so: not one behind a symbolic link, which
// anybody may have put there, nor one that cannot be seen.
func TestOnlyAnAbsentWrapperIsAbsent(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(dir, wrapper string) error
		absent bool
	}{
		"it is there": {func(string, string) error { return nil }, false},
		"it is gone":  {func(_, wrapper string) error { return os.RemoveAll(wrapper) }, true},
		"a file": {func(_, wrapper string) error {
			return errors.Join(os.RemoveAll(wrapper), os.WriteFile(wrapper, nil, 0o600))
		}, false},
		"no parent": {func(dir, _ string) error { return os.RemoveAll(dir + "/root/parent") }, true},
		"no root":   {func(dir, _ string) error { return os.RemoveAll(dir + "/root") }, true},
		"a file as parent": {func(dir, _ string) error {
			return errors.Join(os.RemoveAll(dir+"/root/parent"), os.WriteFile(dir+"/root/parent", nil, 0o600))
		}, false},
		"a link as parent": {func(dir, _ string) error {
			return errors.Join(os.Rename(dir+"/root/parent", dir+"/moved"), os.Mkdir(dir+"/elsewhere", 0o755), os.Symlink(dir+"/elsewhere", dir+"/root/parent"))
		}, false},
	} {
		dir := t.TempDir()
		tx := &journal.Tx{ID: disk.NewID(time.Now()), Begin: &journal.Begin{Volumes: []journal.Volume{{Name: "v", Root: dir + "/root", Rel: "parent/v"}}}}
		wrapper := filepath.Join(dir, "root/parent", journal.Wrapper(tx.ID))
		if err := errors.Join(os.MkdirAll(wrapper, 0o700), c.spoil(dir, wrapper)); err != nil {
			t.Fatal(err)
		}
		if got := WithoutWrapper(tx); (len(got) == 1) != c.absent {
			t.Errorf("%s: the wrappers of %+v are absent, expected %t", name, got, c.absent)
		}
		tx.TimesRecord = &journal.Times{}
		if got := WithoutWrapper(tx); len(got) != 0 {
			t.Errorf("%s: after an exchange the wrappers of %+v are absent", name, got)
		}
	}
}
