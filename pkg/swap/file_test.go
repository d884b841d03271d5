package swap

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
)

// TestATransactionOfFilesThatIsCutAnywhereEndsWhereTheRecordsWant is
// TestATransactionThatIsCutAnywhereEndsWhereTheRecordsWant for volumes of one file.
func TestATransactionOfFilesThatIsCutAnywhereEndsWhereTheRecordsWant(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, above string) {
		cutAnywhere(t, func(t *testing.T) *bench { return newBenchOf(t, above, "", "files") })
	})
}

func (b *bench) staged(i string) string {
	return filepath.Join(b.dir, journal.Wrapper(b.id), i, "v"+i)
}

// replacements are what somebody may put in the place of a file.
var replacements = map[string]func(path string) error{
	"another file": func(path string) error { return os.WriteFile(path, []byte("foreign"), 0o600) },
	"a symlink":    func(path string) error { return os.Symlink("/etc/passwd", path) },
	"a fifo":       func(path string) error { return unix.Mkfifo(path, 0o600) },
	"a device":     func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))) },
	"a directory":  func(path string) error { return os.MkdirAll(path+"/in", 0o700) },
}

// TestAFileThatIsNotRecognisedIsNotTouched puts each kind of thing at one of the two
// names of a file volume, and in the place of the directory around the staged one.
func TestAFileThatIsNotRecognisedIsNotTouched(t *testing.T) {
	disktest.NeedRoot(t)
	for what, put := range replacements {
		for where, c := range map[string]struct {
			goal  Goal
			start []int
			path  func(*bench) string
		}{
			"live":                  {Undecided, nil, func(b *bench) string { return b.live(1) }},
			"live, to go back":      {Reverted, []int{0, 1}, func(b *bench) string { return b.live(1) }},
			"staged":                {Committed, nil, func(b *bench) string { return b.staged("1") }},
			"displaced":             {Reverted, []int{0, 1}, func(b *bench) string { return b.staged("1") }},
			"around the staged one": {Committed, nil, func(b *bench) string { return filepath.Dir(b.staged("1")) }},
			"the wrapper":           {Committed, nil, func(b *bench) string { return filepath.Join(b.dir, journal.Wrapper(b.id)) }},
		} {
			t.Run(what+" "+where, func(t *testing.T) {
				b := newBenchOf(t, t.TempDir(), "", "files")
				b.arrange(c.goal, c.start)
				b.must(os.Rename(c.path(b), filepath.Join(b.dir, "away")))
				b.must(put(c.path(b)))
				before := disktest.Tree(t, b.dir)
				x := b.open(true)
				var mismatch *Mismatch
				if _, err := x.Plan(); !errors.As(err, &mismatch) || len(mismatch.Ways) == 0 {
					t.Errorf("the plan is %v, expected a mismatch with ways out", err)
				} else if where == "live" && !strings.Contains(err.Error(), "the old data is at "+b.dir+"/away") {
					t.Errorf("the plan does not say where the old file is: %v", err)
				}
				disktest.Same(t, "the directories", before, disktest.Tree(t, b.dir))
			})
		}
	}
}

// TestAnOperatorDecidesAboutFiles plays the list of the package's documentation: what is
// not snap's gets a name beside the file, whatever it is.
func TestAnOperatorDecidesAboutFiles(t *testing.T) {
	disktest.NeedRoot(t)
	for what, put := range replacements {
		for where, path := range map[string]func(*bench) string{
			"live": func(b *bench) string { return b.live(1) }, "staged": func(b *bench) string { return b.staged("1") },
		} {
			for _, keep := range []Occupant{Old, New} {
				lost := keep == Old && where == "live" || keep == New && where == "staged"
				t.Run(what+" "+where+", keep "+keep.Word(), func(t *testing.T) {
					b := newBenchOf(t, t.TempDir(), "", "files")
					b.must(os.Rename(path(b), filepath.Join(b.dir, "away")))
					b.must(put(path(b)))
					foreign := disktest.Tree(t, path(b))
					x := b.open(true)
					plan, err := x.PlanResolution(keep)
					var mismatch *Mismatch
					if lost {
						if !errors.As(err, &mismatch) || len(mismatch.Ways) != 1 || mismatch.Ways[0].Do != PutBack || mismatch.Ways[0].Path != b.dir+"/away" && where == "live" {
							t.Errorf("the plan is %v", err)
						}
						return
					}
					b.must(err)
					b.must(x.Tx.Resolve(keep.Word(), "20260101T000000Z-000009"))
					b.must(x.Resolve(keep, plan))
					actions, err := x.Plan()
					b.must(err)
					b.must(x.Apply(actions))
					b.must(x.Discard())
					if got := b.generation(); got != keep.Word() {
						t.Errorf("%s data is live", got)
					}
					kept, err := x.Preserved()
					if err != nil || len(kept) != 1 || !strings.HasPrefix(kept[0], b.live(1)+".snap-kept-") {
						t.Fatalf("preserved are %q: %v", kept, err)
					}
					disktest.Same(t, "what is preserved", foreign, disktest.Tree(t, kept[0]))
					if left, _ := filepath.Glob(b.dir + "/.snap-*"); len(left) > 0 {
						t.Errorf("left are %q", left)
					}
				})
			}
		}
	}
}

// TestAGuardedFileIsNeverDiscarded is TestAGuardedTreeIsNeverDiscarded for files.
func TestAGuardedFileIsNeverDiscarded(t *testing.T) {
	newBenchOf(t, t.TempDir(), journal.GuardAfter, "files").neverDiscarded()
}

// TestAJournalGoesWithItsFile: one that lies beside the new file when a restore is taken
// back is of the new file. SQLite would apply it to the old one.
func TestAJournalGoesWithItsFile(t *testing.T) {
	for n := 1; ; n++ {
		b := newBenchOf(t, t.TempDir(), "", "files")
		b.arrange(Reverted, []int{0, 1})
		b.must(os.WriteFile(b.live(0)+"-wal", []byte("7\x7f\x06\x82of the new file"), 0o600))
		b.must(os.WriteFile(b.live(1)+"-journal", make([]byte, 512), 0o600)) // finished with
		cut := b.run(n)
		if cut && b.pending() {
			b.run(0)
		}
		if got := b.generation(); got != "old" {
			t.Errorf("cut at %d: %s data is live", n, got)
		}
		if _, err := os.Lstat(b.live(0) + "-wal"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("cut at %d: the journal is still beside the old file: %v", n, err)
		}
		if text, err := os.ReadFile(b.live(0) + "-wal.snap-kept-" + b.id); !strings.HasSuffix(string(text), "of the new file") {
			t.Errorf("cut at %d: the journal is %q: %v", n, text, err)
		}
		if _, err := os.Lstat(b.live(1) + "-journal"); err != nil {
			t.Errorf("cut at %d: %v", n, err)
		}
		if !cut {
			return
		}
	}
}

// TestWhatLiesBesideADisplacedFileIsNotDeleted: only the file with the recorded handle
// goes. The rest of the wrapper is not snap's.
func TestWhatLiesBesideADisplacedFileIsNotDeleted(t *testing.T) {
	for name, spoil := range map[string]func(b *bench) error{
		"another file in its place": func(b *bench) error {
			return errors.Join(os.Rename(b.staged("1"), b.dir+"/away"), os.WriteFile(b.staged("1"), []byte("foreign"), 0o600))
		},
		"a file beside it": func(b *bench) error {
			return os.WriteFile(filepath.Join(filepath.Dir(b.staged("1")), "foreign"), []byte("foreign"), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBenchOf(t, t.TempDir(), "", "files")
			b.arrange(Committed, []int{0, 1})
			b.must(spoil(b))
			x := b.open(true)
			_ = x.Discard() // it may refuse, or put the rest aside
			found := false
			b.must(filepath.WalkDir(b.dir, func(path string, d os.DirEntry, err error) error {
				if text, _ := os.ReadFile(path); string(text) == "foreign" {
					found = true
				}
				return err
			}))
			if !found {
				t.Error("it was deleted")
			}
		})
	}
}

// TestAVolumeIsAFileOrADirectoryAndNothingElse opens each kind of thing as live data,
// for a snapshot of either.
func TestAVolumeIsAFileOrADirectoryAndNothingElse(t *testing.T) {
	disktest.NeedRoot(t)
	want := map[string][2]string{ // for a directory, for a file
		"another file": {"not_a_directory", ""}, "a directory": {"", "not_a_file"},
		"a symlink": {"symlink_in_path", "symlink_in_path"}, "a fifo": {"not_a_directory", "not_a_directory"}, "a device": {"not_a_directory", "not_a_directory"},
	}
	for what, put := range replacements {
		for i, file := range []bool{false, true} {
			dir := t.TempDir()
			if err := put(dir + "/live"); err != nil {
				t.Fatal(err)
			}
			v, err := OpenLive("v", dir, "live", func(string) error { return nil })
			if err == nil {
				err = v.Expect(file)
				v.Close()
			}
			var unfit *Unfit
			code := ""
			if errors.As(err, &unfit) {
				code = unfit.Code
			}
			if code != want[what][i] || (err == nil) != (code == "") || err != nil && unfit.Hint == "" {
				t.Errorf("%s, for a file %t: %v (%s), expected %q", what, file, err, code, want[what][i])
			}
		}
	}
}

// TestAMissingFileIsMadeAndTakenBack: before a container starts the file must be there,
// or the engine makes a directory in its place. After a roll-back nothing is there again,
// unless somebody has written to it.
func TestAMissingFileIsMadeAndTakenBack(t *testing.T) {
	for name, c := range map[string]struct {
		meanwhile func(path string) error
		left      bool
	}{
		"untouched":       {func(string) error { return nil }, false},
		"written to":      {func(path string) error { return os.WriteFile(path, []byte("x"), 0) }, true},
		"a directory now": {func(path string) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			v, err := OpenLive("v", dir, "a/b/live", func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if err := v.Expect(true); err != nil {
				t.Fatal(err)
			}
			record, err := v.Begin("0", false)
			if err != nil || !record.File || len(record.Created) != 3 {
				t.Fatalf("the record is %+v: %v", record, err)
			}
			if err := v.Create(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "a/b/live")
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() || info.Size() > 0 || v.Live.File() != "live" {
				t.Fatalf("made is %v: %v", info, err)
			}
			if err := c.meanwhile(path); err != nil {
				t.Fatal(err)
			}
			again, err := openVolume(record)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			if err := again.uncreate(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Lstat(dir + "/a"); (err == nil) != c.left {
				t.Errorf("after the roll-back: %v", err)
			}
		})
	}
}

// TestAStagedFileHasThePropertiesOfTheLiveOne: a database that is not to be copied on
// write, a file that a quota counts.
func TestAStagedFileHasThePropertiesOfTheLiveOne(t *testing.T) {
	for _, c := range []struct{ fs, make, show string }{
		{"xfs", "chattr -p 42 live", "lsattr -p"},
		{"xfs", "rm live; touch live; chattr +A live; xfs_io -c 'extsize 1m' live", "lsattr"},
		{"btrfs", "rm live; touch live; chattr +C live", "lsattr"},
		{"btrfs", "rm live; touch live; btrfs property set live compression zstd", "lsattr"},
		{"ext4", "chattr +A live", "lsattr"},
	} {
		t.Run(c.fs+" "+c.make, func(t *testing.T) {
			dir := disktest.Mount(t, c.fs, 300)
			disktest.Write(t, dir, map[string]string{"live": "x"})
			disktest.Run(t, "sh", "-ec", "cd "+dir+"; "+c.make)
			v, err := OpenLive("v", dir, "live", func(string) error { return nil })
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			v.wrapper, v.Entry = ".snap-20260101T000000Z-000000", "0"
			staged, err := v.MakeStaged()
			if err != nil {
				t.Fatal(err)
			}
			defer staged.Close()
			f, err := staged.CreateFile("live")
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
			properties := func(d *disk.Dir) disk.Properties {
				t.Helper()
				file, err := d.OpenSingle("live")
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				p, err := file.Properties()
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			if want, got := properties(v.Parent()), properties(staged); want != got {
				t.Errorf("the staged file has %+v, the live one %+v\n%s", got, want, disktest.Run(t, "sh", "-c", c.show+" "+dir+"/live "+dir+"/.snap*/0/live"))
			}
			if err := v.Parent().Exchange("live", staged, "live"); err != nil {
				t.Errorf("the exchange returned %v", err)
			}
		})
	}
}
