package restore

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/store"
)

// newFileWorld is newWorld with volumes v1, v3, … that are one file each.
func newFileWorld(t *testing.T, dir string, volumes int, more ...string) *world {
	t.Helper()
	w := newWorld(t, dir, volumes, more...)
	for i, path := range w.volumes {
		if w.single = append(w.single, i%2 == 1); w.single[i] {
			w.must(os.Remove(path))
			w.must(os.WriteFile(path, nil, 0o640))
		}
	}
	return w
}

// ofVolumes are the warnings about a volume itself. Others, of a container that mounts
// the whole host, are not the test's.
func ofVolumes(warnings []string) []string {
	return slices.DeleteFunc(slices.Clone(warnings), func(s string) bool { return !strings.HasPrefix(s, "volume ") })
}

// inode tells one file from another.
func (w *world) inode(path string) uint64 {
	w.Helper()
	var st unix.Stat_t
	w.must(unix.Lstat(path, &st))
	return st.Ino
}

// TestAVolumeOfOneFileIsRestored on each filesystem and with each guard, together with a
// directory, and with a database beside files that are not of the workload.
func TestAVolumeOfOneFileIsRestored(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		for _, guard := range []string{"before", "after"} {
			w := newFileWorld(t, filepath.Join(dir, guard), 2)
			beside := filepath.Join(filepath.Dir(w.volumes[1]), "not-of-the-workload")
			w.must(os.WriteFile(beside, []byte("x"), 0o600))
			w.fill("new")
			w.must(errors.Join(os.Chown(w.volumes[1], 1000, 1001), unix.Setxattr(w.volumes[1], "user.a", []byte("b"), 0)))
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			m, err := w.engine().Store.Load(w.name, sid)
			w.must(err)
			if m.Volumes[0].Kind != store.Directory || m.Volumes[1].Kind != store.File || m.Volumes[1].Files != 1 {
				t.Errorf("the manifest is %+v", m)
			}
			if got := w.files(sid, "v1"); !slices.Equal(got, []string{"", "v1"}) {
				t.Errorf("the archive has %q", got)
			}
			w.fill("old")
			states["old"] = w.trees()
			was := w.inode(w.volumes[1])
			request := w.request(sid)
			request.Guard = guard
			r, err := w.engine().Restore(t.Context(), request)
			w.must(err)
			if len(ofVolumes(r.Warnings)) > 0 || r.Volumes[1].Kind != store.File {
				t.Errorf("warnings %q, volume %+v", r.Warnings, r.Volumes[1])
			}
			if got := w.generation(states); got != "new" || w.inode(w.volumes[1]) == was {
				t.Errorf("live is %s", got)
			}
			_, err = w.restore(r.PreRestoreSID)
			w.must(err)
			if got := w.generation(states); got != "old" {
				t.Errorf("after a restore of the pre-restore snapshot live is %s", got)
			}
			w.clean()
			if text, err := os.ReadFile(beside); string(text) != "x" {
				t.Errorf("the file beside it is %q: %v", text, err)
			}
		}
	})
}

// TestARestoreOfFilesKilledAnywhereIsAllOldOrAllNew is
// TestARestoreKilledAnywhereIsAllOldOrAllNew for a volume of one file beside a directory.
func TestARestoreOfFilesKilledAnywhereIsAllOldOrAllNew(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		w := newFileWorld(t, dir, 2)
		w.killEvery(1, 2, func() {})
	})
}

// A restore of files with --guard after is killed at each point from the commit on: the
// old files are a snapshot in the end, or still live.
func TestAGuardedRestoreOfFilesKilledAnywhereLosesNothing(t *testing.T) {
	w := newFileWorld(t, disktest.Mount(t, "ext4", 256), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.fill("old")
	for _, point := range []string{"exchanged v1", "before commit", commitPoint, "guarding", "displaced read", "guarded", "let go", "discarded", "removed"} {
		w.fill("old")
		states["old"] = w.trees()
		w.killGuardAfter(sid, point)
		w.recoverTwice()
		want := "new"
		if point == "exchanged v1" || point == "before commit" {
			want = "old"
		}
		if got := w.generation(states); got != want {
			t.Fatalf("killed at %q: live is %s, expected %s", point, got, want)
		}
		if want == "old" {
			continue
		}
		list := w.snapshots()
		_, err := w.restore(list[0].SID)
		w.must(err)
		if got := w.generation(states); list[0].Reason != store.PreRestore || got != "old" {
			t.Fatalf("killed at %q: snapshot %s (%s) holds the %s data", point, list[0].SID, list[0].Reason, got)
		}
	}
}

// TestAFileThatIsReplacedDuringARestoreIsNotLost puts each kind of thing in the place of
// the live file at each moment before the swap. The restore goes back and leaves what it
// found there, and the file that was moved away.
func TestAFileThatIsReplacedDuringARestoreIsNotLost(t *testing.T) {
	disktest.NeedRoot(t)
	for _, moment := range []string{"before begin", "staging v1", "before ready", "stopped", "before swap"} {
		for what, put := range map[string]func(path string) error{
			"another file": func(path string) error { return os.WriteFile(path, []byte("foreign"), 0o600) },
			"a symlink":    func(path string) error { return os.Symlink("/etc/passwd", path) },
			"a fifo":       func(path string) error { return unix.Mkfifo(path, 0o600) },
			"a directory":  func(path string) error { return os.Mkdir(path, 0o700) },
		} {
			if what != "another file" && moment != "stopped" && moment != "before swap" {
				continue
			}
			t.Run(what+" "+moment, func(t *testing.T) {
				w := newFileWorld(t, t.TempDir(), 2)
				w.fill("new")
				sid := w.capture()
				w.fill("old")
				directory, old := disktest.Tree(t, w.volumes[0]), disktest.Tree(t, w.volumes[1])
				aside := filepath.Join(w.dir, "aside")
				var foreign []string
				e := w.engine()
				e.reached = func(point string) {
					if point == moment {
						w.must(errors.Join(os.Rename(w.volumes[1], aside), put(w.volumes[1])))
						foreign = disktest.Tree(t, w.volumes[1])
					}
				}
				_, err := e.Restore(t.Context(), w.request(sid))
				if err == nil {
					t.Fatal("the restore ended as if nothing had been")
				}
				if foreign == nil {
					t.Fatalf("%q was never reached", moment)
				}
				disktest.Same(t, "the file that was moved away", old, disktest.Tree(t, aside))
				disktest.Same(t, "what was put in its place", foreign, disktest.Tree(t, w.volumes[1]))
				if kind := fault.KindOf(err); kind == fault.Frozen { // with the way out: the file goes back to its place
					w.must(errors.Join(os.RemoveAll(w.volumes[1]), os.Rename(aside, w.volumes[1])))
					w.recoverTwice()
					disktest.Same(t, "the file, put back", old, disktest.Tree(t, w.volumes[1]))
				} else if moment == "before swap" {
					t.Errorf("the restore returned %v", err)
				}
				disktest.Same(t, "the directory", directory, disktest.Tree(t, w.volumes[0]))
				w.clean()
			})
		}
	}
}

// TestWhatChangesInADisplacedFileBecomesASnapshot is
// TestWhatChangesInADisplacedTreeBecomesASnapshot for files. A time that was set back
// hides nothing.
func TestWhatChangesInADisplacedFileBecomesASnapshot(t *testing.T) {
	for name, change := range map[string]func(path string) error{
		"nothing":     func(string) error { return nil },
		"other words": func(path string) error { return os.WriteFile(path, []byte("odd"), 0) },
		"a write in place and the time set back": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte("?"), 1000)
			return errors.Join(err, f.Close(), os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
		"another time": func(path string) error { return os.Chtimes(path, testTime(), testTime()) },
	} {
		t.Run(name, func(t *testing.T) {
			wrote := func(s string) bool { return strings.Contains(s, "somebody wrote to the old data") }
			w := newFileWorld(t, disktest.Mount(t, "xfs", 300), 2)
			w.fill("new")
			sid := w.capture()
			w.fill("old")
			e := w.engine()
			var want []string
			e.reached = func(point string) {
				if point == "before settle" {
					found, err := filepath.Glob(filepath.Join(w.dir, "live/.snap-*/1/v1"))
					w.must(err)
					w.must(change(found[0]))
					want = disktest.Tree(t, found[0])
				}
			}
			r, err := e.Restore(t.Context(), w.request(sid))
			w.must(err)
			w.clean()
			list := w.snapshots()
			if name == "nothing" {
				if len(list) != 2 || slices.ContainsFunc(r.Warnings, wrote) {
					t.Errorf("%d snapshots, warnings %q", len(list), r.Warnings)
				}
				return
			}
			at := slices.IndexFunc(list, func(m *store.Manifest) bool { return strings.HasPrefix(m.Note, "written to the old data") })
			if len(list) != 3 || at < 0 || !slices.ContainsFunc(r.Warnings, wrote) {
				t.Fatalf("%d snapshots, warnings %q", len(list), r.Warnings)
			}
			_, err = w.restore(list[at].SID)
			w.must(err)
			disktest.Same(t, "what was changed", want, disktest.Tree(t, w.volumes[1]))
		})
	}
}

// TestWhoeverHoldsAFileIsRefused: an open descriptor goes on writing to the old file, and so does
// whoever has it mounted, in any mount namespace.
func TestWhoeverHoldsAFileIsRefused(t *testing.T) {
	for name, hold := range map[string]string{
		"open for writing":                             "exec 3>>$F; echo held; read x || :",
		"mounted elsewhere":                            "touch $D/elsewhere; mount --bind $F $D/elsewhere; echo held; read x || :; umount $D/elsewhere",
		"mounted in another namespace":                 "touch $D/elsewhere; unshare -m --propagation private sh -c 'mount --bind $F $D/elsewhere; echo held; read x || :'",
		"open through its folder in another namespace": "mkdir -p $D/folder; unshare -m --propagation private sh -c 'mount --bind ${F%/*} $D/folder; cd /; exec 3>>$D/folder/v1; echo held; read x || :'",
	} {
		t.Run(name, func(t *testing.T) {
			w := newFileWorld(t, disktest.Mount(t, "ext4", 64), 2)
			w.fill("new")
			sid := w.capture()
			w.fill("old")
			old := w.trees()
			cmd := exec.Command("sh", "-ec", hold)
			cmd.Env = append(os.Environ(), "F="+w.volumes[1], "D="+w.dir)
			in, err := cmd.StdinPipe()
			w.must(err)
			out, err := cmd.StdoutPipe()
			w.must(err)
			w.must(cmd.Start())
			line := make([]byte, 5)
			_, err = out.Read(line)
			w.must(err)
			_, err = w.restore(sid)
			if codeOf(err) != "in_use" || fault.KindOf(err) != fault.Refused {
				t.Errorf("the restore returned %v", err)
			}
			in.Close()
			w.must(cmd.Wait())
			w.generation(map[string][][]string{"old": old})
			w.clean()
			_, err = w.restore(sid)
			w.must(err)
		})
	}
}

// TestWhatOnlyAFileHasIsNamed in the plan, and in the result of a capture and a restore.
func TestWhatOnlyAFileHasIsNamed(t *testing.T) {
	for name, c := range map[string]struct{ make, want, refusal string }{
		"another name":                 {"ln $V $V.too", "is one of 2 hard links", ""},
		"a write-ahead log of SQLite":  {"printf '7\\177\\006\\202rest' >$V-wal", "v1-wal lies beside the file", "journal_beside"},
		"a rollback journal of SQLite": {"printf '\\331\\325\\005\\371rest' >$V-journal", "v1-journal lies beside the file", "journal_beside"},
		"an empty log":                 {": >$V-wal", "", ""},
		"a journal that is finished":   {"head -c 512 /dev/zero >$V-journal", "", ""},
		"a directory of that name":     {"mkdir $V-wal", "", ""},
		"a symlink of that name":       {"ln -s /etc/passwd $V-wal", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFileWorld(t, t.TempDir(), 2)
			w.fill("new")
			disktest.Run(t, "env", "V="+w.volumes[1], "sh", "-ec", c.make)
			said := func(what string, warnings []string) {
				t.Helper()
				warnings = ofVolumes(warnings)
				if c.want == "" && len(warnings) > 0 || c.want != "" && (len(warnings) != 1 || !strings.Contains(warnings[0], c.want)) {
					t.Errorf("%s warns of %q", what, warnings)
				}
			}
			r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
			w.must(err)
			said("the capture", r.Warnings)
			w.fill("old")
			p, err := w.engine().Plan(t.Context(), w.request(r.Manifest.SID))
			if c.refusal != "" {
				if codeOf(err) != c.refusal || fault.KindOf(err) != fault.Refused || !strings.Contains(hintOf(err), "mv '"+w.volumes[1]+"-") {
					t.Errorf("the plan returned %v, hint %q", err, hintOf(err))
				}
				return
			}
			w.must(err)
			said("the plan", p.Warnings)
			done, err := w.restore(r.Manifest.SID)
			w.must(err)
			said("the restore", done.Warnings)
			w.clean()
		})
	}
}

// TestAJournalThatOutlivesTheAppEndsTheRestore: while the app runs its database has one,
// and a clean stop takes it into the file. One that is still there belongs to the old
// file, and SQLite would apply it to the new one.
func TestAJournalThatOutlivesTheAppEndsTheRestore(t *testing.T) {
	for _, guard := range []string{"before", "after"} {
		w := newFileWorld(t, t.TempDir(), 2)
		w.fill("new")
		sid := w.capture()
		w.fill("old")
		old := w.trees()
		e := w.engine()
		e.reached = func(point string) {
			if point == "stopped" {
				w.must(os.WriteFile(w.volumes[1]+"-wal", []byte("7\x7f\x06\x82rest"), 0o600))
			}
		}
		request := w.request(sid)
		request.Guard = guard
		_, err := e.Restore(t.Context(), request)
		if codeOf(err) != "journal_beside" {
			t.Errorf("guard %s: the restore returned %v (%s)", guard, err, codeOf(err))
		}
		w.generation(map[string][][]string{"old": old})
		w.clean()
	}
}

// TestAJournalOfTheNewDataIsNotAppliedToTheOld: the new app wrote one before it turned out to be
// unhealthy.
func TestAJournalOfTheNewDataIsNotAppliedToTheOld(t *testing.T) {
	w := newFileWorld(t, t.TempDir(), 2, appLines(image(t), "command: [serve-unless-sick]")...)
	w.fill("new")
	w.deploy()
	w.must(os.WriteFile(filepath.Join(w.volumes[0], "sick"), []byte("yes"), 0o644))
	sid := w.capture()
	w.fill("old")
	old := w.trees()
	e := w.engine()
	e.reached = func(point string) {
		if point == "before revert" {
			w.must(os.WriteFile(w.volumes[1]+"-wal", []byte("7\x7f\x06\x82rest"), 0o600))
		}
	}
	r, err := e.Restore(t.Context(), w.request(sid))
	if fault.KindOf(err) != fault.RolledBack {
		t.Fatalf("the restore returned %v", err)
	}
	w.generation(map[string][][]string{"old": old})
	kept, globErr := filepath.Glob(w.volumes[1] + "-wal*")
	if globErr != nil || len(kept) != 1 || !strings.Contains(kept[0], ".snap-kept-") {
		t.Errorf("beside the file lie %q", kept)
	}
	if !slices.ContainsFunc(r.Warnings, func(s string) bool { return strings.Contains(s, "v1-wal belongs to the data that goes") }) {
		t.Errorf("the warnings are %q", r.Warnings)
	}
	w.appRuns()
	w.clean()
}

// TestAnUnchangedFileIsNotReadAgainAndCloned is TestUnchangedFilesAreClonedAndVerified for
// a volume of one file. What happens to its folder makes no difference.
func TestAnUnchangedFileIsNotReadAgainAndCloned(t *testing.T) {
	for _, fs := range []string{"xfs", "btrfs"} {
		t.Run(fs, func(t *testing.T) {
			w := newFileWorld(t, disktest.Mount(t, fs, 512), 2)
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			disktest.Run(t, "sleep", "1.2") // the times of what is younger prove nothing
			w.capture()
			disktest.Write(t, filepath.Dir(w.volumes[1]), map[string]string{"beside": "x"})
			r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
			w.must(err)
			if r.Read != 0 || r.Added > 4<<10 {
				t.Errorf("the second capture has read %d bytes and added %d", r.Read, r.Added)
			}
			e := w.engine()
			cloned := false
			e.reached = func(point string) {
				if point == "stage" {
					staged, err := filepath.Glob(filepath.Join(w.dir, "live/.snap-*/1/v1"))
					w.must(err)
					cloned = shared(t, staged[0])
				}
			}
			_, err = e.Restore(t.Context(), w.request(r.Manifest.SID))
			w.must(err)
			if !cloned {
				t.Error("the staged file shares nothing with the live one")
			}
			w.generation(states)
			w.clean()
		})
	}
}

// TestAFileThatIsMissingIsThereBeforeTheAppStarts: an engine would make a directory of
// that name. The restore of a killed one takes the empty file away again.
func TestAFileThatIsMissingIsThereBeforeTheAppStarts(t *testing.T) {
	w := newFileWorld(t, t.TempDir(), 2)
	w.fill("new")
	states := map[string][][]string{"new": w.trees()}
	sid := w.capture()
	w.must(os.Remove(w.volumes[1]))
	for _, point := range []string{"staging v1", "before ready", "before swap", "exchanged v1", commitPoint, ""} {
		w.must(os.RemoveAll(w.volumes[1]))
		points, killed := w.run("restore", sid, 0, "SNAP_TEST_POINT="+point)
		if killed != (point != "") {
			t.Fatalf("%q: killed %t at %q", point, killed, points)
		}
		w.recoverTwice()
		if slices.Contains(points, commitPoint) {
			w.generation(states)
		} else if _, err := os.Lstat(w.volumes[1]); err == nil {
			t.Errorf("killed at %q: there is a file, and there was none", point)
		}
	}
}

// TestAFileWhereTheSnapshotHasADirectoryIsRefused, and the other way round, also where an
// engine has made the directory, which is empty. Each hint can be followed.
func TestAFileWhereTheSnapshotHasADirectoryIsRefused(t *testing.T) {
	for name, c := range map[string]struct{ change, code, way string }{
		"an empty directory":  {"rm $V; mkdir $V", "not_a_file", "rmdir $V"},
		"a directory":         {"rm $V; mkdir $V; touch $V/file", "not_a_file", "mv $V $V.away"},
		"a file":              {"rm -r $D; touch $D", "not_a_directory", "mv $D $D.away"},
		"a symlink to a file": {"mv $V $V.real; ln -s $V.real $V", "symlink_in_path", "rm $V"},
		"a mount point":       {"touch $V.real; mount --bind $V.real $V", "mount_point", "umount $V"},
		"an immutable file":   {"chattr +i $V", "immutable", "chattr -i $V"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFileWorld(t, disktest.Mount(t, "ext4", 64), 2)
			w.fill("new")
			states := map[string][][]string{"new": w.trees()}
			sid := w.capture()
			do := func(script string) {
				t.Helper()
				disktest.Run(t, "env", "V="+w.volumes[1], "D="+w.volumes[0], "sh", "-ec", script)
			}
			do(c.change)
			t.Cleanup(func() { _ = exec.Command("umount", w.volumes[1]).Run() })
			_, err := w.restore(sid)
			if codeOf(err) != c.code || fault.KindOf(err) != fault.Refused || hintOf(err) == "" {
				t.Errorf("the restore returned %v (%s), hint %q", err, codeOf(err), hintOf(err))
			}
			do(c.way)
			_, err = w.restore(sid)
			w.must(err)
			w.generation(states)
			w.clean()
		})
	}
}

// TestAForgedArchiveOfAFileIsRefused: the name of the file is the config's, and the
// archive holds it and nothing else.
func TestAForgedArchiveOfAFileIsRefused(t *testing.T) {
	for name, forge := range map[string]func(files []store.Volume, v *store.Volume){
		"a directory's archive":           func(all []store.Volume, v *store.Volume) { v.Members, v.Stats = all[0].Members, all[0].Stats },
		"another file's archive":          func(all []store.Volume, v *store.Volume) { v.Members, v.Stats = all[3].Members, all[3].Stats },
		"its own called a directory":      func(_ []store.Volume, v *store.Volume) { v.Kind = store.Directory },
		"a directory's told to be a file": func(all []store.Volume, v *store.Volume) { v.Members = all[0].Members },
	} {
		t.Run(name, func(t *testing.T) {
			w := newFileWorld(t, t.TempDir(), 4)
			w.fill("new")
			sid := w.capture()
			w.fill("old")
			old := w.trees()
			m, err := w.engine().Store.Load(w.name, sid)
			w.must(err)
			forge(slices.Clone(m.Volumes), &m.Volumes[1])
			unsum(m)
			data, err := disk.MarshalSealed(m, "snap-manifest", 4)
			w.must(err)
			w.must(os.WriteFile(w.manifestPath(sid), data, 0o600))
			_, err = w.restore(sid)
			if err == nil {
				t.Fatal("it was restored")
			}
			if want := map[bool]string{true: "not_a_directory", false: "snapshot_damaged"}[name == "its own called a directory"]; codeOf(err) != want {
				t.Errorf("the restore returned %v (%s), expected %s", err, codeOf(err), want)
			}
			w.generation(map[string][][]string{"old": old})
			w.clean()
		})
	}
}

// TestAnImportedFileIsRestored from what docker cp and tar write.
func TestAnImportedFileIsRestored(t *testing.T) {
	for name, c := range map[string]struct{ pack, code string }{
		"the file alone":     {"tar -cf - -C $S v1", ""},
		"with its folder":    {"mkdir $S/f; mv $S/v1 $S/f; tar -cf - -C $S/f .", ""},
		"another name":       {"mv $S/v1 $S/v2; tar -cf - -C $S v2", "archive_refused"},
		"two files":          {"touch $S/v2; tar -cf - -C $S v1 v2", "archive_refused"},
		"a symlink":          {"ln -sf /etc/passwd $S/v1; tar -cf - -C $S v1", "archive_refused"},
		"a file in a folder": {"mkdir $S/f; mv $S/v1 $S/f; tar -cf - -C $S f", "archive_refused"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFileWorld(t, t.TempDir(), 2)
			w.fill("old")
			from := t.TempDir()
			disktest.Write(t, from, map[string]string{"v1": "imported"})
			cmd := exec.Command("sh", "-ec", c.pack)
			cmd.Env = append(os.Environ(), "S="+from)
			packed, err := cmd.Output()
			w.must(err)
			r, err := w.engine().Import(t.Context(), w.name, "v1", bytes.NewReader(packed), "")
			if codeOf(err) != c.code {
				t.Fatalf("the import returned %v", err)
			}
			if c.code != "" {
				w.clean()
				return
			}
			request := w.request(r.Manifest.SID)
			request.Volumes = []string{"v1"}
			_, err = w.engine().Restore(t.Context(), request)
			w.must(err)
			if text, err := os.ReadFile(w.volumes[1]); string(text) != "imported" {
				t.Errorf("restored is %q: %v", text, err)
			}
			w.clean()
		})
	}
}

// TestAnAppHasTheRestoredFile: a bind mount is of the file that was there when the container
// started, so the app has the new one only because it starts again. Before that, it is
// said that an editor has replaced the file under a running app.
func TestAnAppHasTheRestoredFile(t *testing.T) {
	w := newFileWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.fill("new")
	w.deploy()
	sid := w.capture()
	inside := func() uint64 {
		t.Helper()
		var st unix.Stat_t
		pid := strings.TrimSpace(disktest.Run(t, "docker", "inspect", "-f", "{{.State.Pid}}", w.name))
		w.must(unix.Stat("/proc/"+pid+"/root/datax", &st))
		return st.Ino
	}
	r, err := w.engine().Restore(t.Context(), w.request(sid))
	w.must(err)
	if len(ofVolumes(r.Warnings)) > 0 {
		t.Errorf("the restore warns of %q", r.Warnings)
	}
	w.appRuns()
	if got, want := inside(), w.inode(w.volumes[1]); got != want {
		t.Errorf("the app has file %d, and live is %d", got, want)
	}
	disktest.Run(t, "sh", "-c", "echo edited >"+w.volumes[1]+".new; mv "+w.volumes[1]+".new "+w.volumes[1])
	c, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
	w.must(err)
	if said := ofVolumes(c.Warnings); len(said) != 1 || !strings.Contains(said[0], "docker restart "+w.name) {
		t.Errorf("the capture warns of %q", c.Warnings)
	}
	disktest.Run(t, "docker", "restart", "-t", "0", w.name)
	c, err = w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.Pause})
	w.must(err)
	if len(ofVolumes(c.Warnings)) > 0 {
		t.Errorf("the capture warns of %q", c.Warnings)
	}
	w.clean()
}

// TestACaptureRefusesAFileReplacedMeanwhile is
// TestACaptureRefusesADirectoryReplacedMeanwhile for what an editor does to a file.
func TestACaptureRefusesAFileReplacedMeanwhile(t *testing.T) {
	for name, c := range map[string]struct {
		replace func(path string) error
		code    string
	}{
		"renamed over": {func(path string) error {
			return errors.Join(os.WriteFile(path+".new", []byte("x"), 0o600), os.Rename(path+".new", path))
		}, ""},
		"moved away and a new one": {func(path string) error {
			return errors.Join(os.Rename(path, path+"~"), os.WriteFile(path, []byte("x"), 0o600))
		}, "in_use"},
		"moved away and a symlink": {func(path string) error {
			return errors.Join(os.Rename(path, path+"~"), os.Symlink(path+"~", path))
		}, "symlink_in_path"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newFileWorld(t, t.TempDir(), 2)
			w.fill("data")
			e := w.engine()
			e.reached = func(point string) {
				if point == "begin" {
					w.must(c.replace(w.volumes[1]))
				}
			}
			_, err := e.Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
			if err == nil || c.code != "" && codeOf(err) != c.code {
				t.Errorf("the capture returned %v, code %q", err, codeOf(err))
			}
			if list := w.snapshots(); len(list) != 0 {
				t.Errorf("there are %d snapshots", len(list))
			}
			w.clean()
		})
	}
}
