package restore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
)

// sh runs a script in which $V is the first live directory.
func (w *world) sh(script string) string {
	w.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Env = append(os.Environ(), "V="+w.volumes[0])
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// TestWhatTheFilesystemKnowsOfAVolumeIsKept restores a volume whose directory is more
// than a directory. What show prints must be the same afterwards, for the directory and
// for what is in it.
func TestWhatTheFilesystemKnowsOfAVolumeIsKept(t *testing.T) {
	const inside = `; for n in $V $V/generation $V/dir $V/dir/*; do lsattr -d $n | cut -d ' ' -f 1; done`
	for _, c := range []struct{ fs, name, make, show string }{
		{"btrfs", "a subvolume", "rmdir $V; btrfs subvolume create $V", "stat -c %i $V"},
		{"btrfs", "a subvolume without copy on write", "rmdir $V; btrfs subvolume create $V; chattr +C $V", "stat -c %i $V" + inside},
		{"btrfs", "no copy on write", "chattr +C $V", "stat -c '' $V" + inside},
		{"btrfs", "compression", "btrfs property set $V compression zstd", "btrfs property get $V/dir compression" + inside},
		{"btrfs", "a plain directory in one without copy on write", "rmdir $V; chattr +C ${V%/*}; mkdir $V; chattr -C $V", "true" + inside},
		{"ext4", "flags", "chattr +d +A $V", "true" + inside},
		{"ext4", "a label", "setfattr -n security.selinux -v container_file_t $V",
			"for n in $V $V/generation $V/dir; do getfattr -n security.selinux --only-values --absolute-names $n; done"},
		{"xfs", "a project", "chattr -p 42 $V; chattr +P $V", "lsattr -pd $V $V/generation $V/dir $V/dir/*" + inside},
		{"xfs", "a project of its own in a project", "rmdir $V; chattr -p 42 ${V%/*}; chattr +P ${V%/*}; mkdir $V", "lsattr -pd $V $V/dir" + inside},
	} {
		for _, guard := range []string{"before", "after"} {
			t.Run(c.fs+" "+c.name+" guard "+guard, func(t *testing.T) {
				w := newWorld(t, disktest.Mount(t, c.fs, 512), 2)
				w.sh(c.make)
				w.fill("old")
				if strings.Contains(c.name, "label") { // nobody inherits it without SELinux
					w.sh("find $V -exec setfattr -n security.selinux -v container_file_t {} +")
				}
				want, old := w.sh(c.show), w.trees()
				sid := w.capture()
				w.fill("new")
				request := w.request(sid)
				request.Guard = guard
				r, err := w.engine().Restore(t.Context(), request)
				w.must(err)
				if len(r.Warnings)+len(r.NotKept) > 0 {
					t.Errorf("warnings %q, not kept %+v", r.Warnings, r.NotKept)
				}
				if got := w.sh(c.show); got != want {
					t.Errorf("the restored directory shows\n%s, before it was\n%s", got, want)
				}
				w.generation(map[string][][]string{"old": old})
				w.clean()
				if c.fs == "btrfs" {
					if list := w.sh("btrfs subvolume list " + w.dir); strings.Count(list, "\n") != strings.Count(c.make, "create") {
						t.Errorf("the filesystem has these subvolumes:\n%s", list)
					}
				}
			})
		}
	}
}

// An exchange that the kernel would refuse is refused by the pre-flight, and what could
// not be restored is not captured.
func TestWhatCannotBeExchangedOrRestoredIsRefusedAtOnce(t *testing.T) {
	const nested = "btrfs subvolume create $V/dir/nested"
	const subvolume = "rmdir $V; btrfs subvolume create $V"
	for _, c := range []struct{ fs, name, keys, empty, filled, captured, code, hint string }{
		{"btrfs", "a nested subvolume", "", "true", nested, "", "subvolume_inside", "plain directory"},
		{"btrfs", "an empty one deep in a subvolume", "", subvolume, "mkdir -p $V/a/b; btrfs subvolume create $V/a/b/c", "", "subvolume_inside", "plain directory"},
		{"btrfs", "a nested subvolume that is excluded", ", exclude: [dir/nested]", "true", nested, "", "subvolume_inside", "plain directory"},
		{"btrfs", "a nested subvolume since the capture", "", "true", "true", nested, "subvolume_inside", "plain directory"},
		{"btrfs", "one in what is excluded since the capture", ", exclude: [dir]", "true", "true", nested, "subvolume_inside", "plain directory"},
		{"btrfs", "a read-only subvolume", "", subvolume, "true", "btrfs property set -ts $V ro true", "read_only_subvolume", "btrfs property set -ts"},
		{"ext4", "a fifo", "", "true", "mkfifo $V/pipe", "", "unrestorable", "special: skip"},
		{"ext4", "a device since the capture", "", "true", "true", "mknod $V/null c 1 3", "unrestorable", "special: keep"},
	} {
		t.Run(c.fs+" "+c.name, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, c.fs, 512), 2)
			w.edit("target: /data}", "target: /data"+c.keys+"}")
			w.sh(c.empty)
			w.fill("old")
			w.sh(c.filled)
			refused := func(what string, err error) {
				t.Helper()
				var own *fault.Error
				if !errors.As(err, &own) || own.Code != c.code || own.Kind != fault.Refused {
					t.Fatalf("%s returned %v (%s)", what, err, codeOf(err))
				}
				if hint := fmt.Sprint(own.Remedy); !strings.Contains(hint, c.hint) {
					t.Errorf("the hint of %s is %q", what, hint)
				}
			}
			if c.captured == "" {
				_, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
				refused("the capture", err)
				return
			}
			sid := w.capture()
			w.sh(c.captured)
			_, err := w.engine().Plan(t.Context(), w.request(sid))
			refused("the plan", err)
			_, err = w.engine().Restore(t.Context(), w.request(sid))
			refused("the restore", err)
			w.clean()
		})
	}
}

// A directory whose parent admits only another project could not be exchanged on ext4.
// XFS asks only about the wrapper.
func TestAnotherProjectThanTheParentsIsRefusedAtOnceOrRestored(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			dir := projects(t, fs)
			if dir == "" {
				return
			}
			w := newWorld(t, dir, 2)
			w.sh("rmdir $V; chattr -p 7 ${V%/*}; chattr +P ${V%/*}; mkdir $V; chattr -p 42 $V")
			w.fill("old")
			old, sid := w.trees(), w.capture()
			w.fill("new")
			if _, err := w.engine().Restore(t.Context(), w.request(sid)); err != nil {
				if codeOf(err) != "project_id" || fault.KindOf(err) != fault.Refused || fs == "xfs" {
					t.Fatalf("the restore returned %v (%s)", err, codeOf(err))
				}
				w.clean()
				w.sh("chattr -P ${V%/*}") // as the hint says
				_, err := w.engine().Restore(t.Context(), w.request(sid))
				w.must(err)
			}
			if got := w.sh("lsattr -pd $V"); strings.Fields(got)[0] != "42" {
				t.Errorf("the restored directory is %s", got)
			}
			w.generation(map[string][][]string{"old": old})
			w.clean()
		})
	}
}

// projects mounts a filesystem that has project ids. Where the kernel has none on ext4 it
// says so and returns "": xfs shows the same there.
func projects(t *testing.T, fs string) string {
	t.Helper()
	if fs == "xfs" {
		return disktest.Mount(t, fs, 512)
	}
	image := filepath.Join(t.TempDir(), "image")
	disktest.Run(t, "truncate", "-s", "512M", image)
	disktest.Run(t, "mkfs.ext4", "-q", "-F", "-O", "project,quota", image)
	point := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,prjquota", image, point).CombinedOutput(); err != nil {
		t.Logf("not played: this kernel has no project ids on ext4 (CONFIG_QFMT_V2): %s", out)
		return ""
	}
	disktest.Run(t, "umount", point)
	disktest.MountAt(t, point, "-o", "loop,prjquota", image)
	return point
}

// lost returns the count and the first names of a kind.
func lost(list []snapshot.NotKept, kind string) string {
	for _, n := range list {
		if n.Kind == kind {
			return fmt.Sprintf("%d%v", n.Count, n.Names)
		}
	}
	return ""
}

// TestWhatIsNotKeptIsNamed makes one of each kind, and looks for it in the results of
// two captures, of a plan and of a restore.
func TestWhatIsNotKeptIsNamed(t *testing.T) {
	for _, c := range []struct {
		fs, make string
		want     map[string]string // of the live data
		stripped map[string]string // by the restore
	}{
		{"ext4", `
			cp /bin/true $V/su; chmod 6755 $V/su; chmod 2755 $V/dir
			touch $V/capable; chmod 755 $V/capable; setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 $V/capable
			setfattr -n trusted.x -v y $V/dir
			chattr +d $V/large; mkdir $V/sub; chattr +A $V/sub
			setfattr -n security.selinux -v other_t $V/sub; setfattr -n security.SMACK64 -v x $V/sub 2>/dev/null || true`,
			map[string]string{
				archive.LostSetuid: "1[su]", archive.LostCapability: "1[capable]", archive.LostTrusted: "1[dir]",
				archive.LostFlags: "2[large sub]", archive.LostLabel: "1[sub]",
			},
			map[string]string{archive.LostSetuid: "1[su]", archive.LostCapability: "1[capable]", archive.LostTrusted: "1[dir]"}},
		{"xfs", `mkdir $V/own $V/own/below; chattr -p 42 $V/own; chattr +P $V/own; mkdir $V/own/inherits; mkdir $V/hint; xfs_io -c 'extsize 1m' $V/hint`,
			map[string]string{archive.LostProject: "2[own own/inherits]", archive.LostFlags: "1[hint]"}, nil},
		{"btrfs", `mkdir $V/nocow; chattr +C $V/nocow; touch $V/packed; chattr +c $V/packed`,
			map[string]string{archive.LostFlags: "2[nocow packed]"}, nil},
	} {
		t.Run(c.fs, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, c.fs, 512), 2)
			w.fill("old")
			w.sh(c.make)
			check := func(what string, list []snapshot.NotKept, warnings []string, want map[string]string) {
				t.Helper()
				for kind, names := range want {
					if got := lost(list, kind); got != names {
						t.Errorf("%s: %s is %q, expected %q", what, kind, got, names)
					}
				}
				if len(list) != len(want) {
					t.Errorf("%s: not kept %+v", what, list)
				}
				for _, n := range list {
					if n.Volume != "v0" || !slices.ContainsFunc(warnings, func(s string) bool { return strings.Contains(s, fmt.Sprintf("%q", n.Names[0])) }) {
						t.Errorf("%s: %+v is in no warning of %q", what, n, warnings)
					}
				}
			}
			sid := ""
			for _, what := range []string{"the first capture", "a capture that reads nothing"} {
				w.sh("sleep 1.2") // the times of what is younger prove nothing
				r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
				w.must(err)
				check(what, r.NotKept, r.Warnings, c.want)
				sid = r.Manifest.SID
			}
			p, err := w.engine().Plan(t.Context(), w.request(sid))
			w.must(err)
			check("the plan", p.NotKept, p.Warnings, c.want)
			r, err := w.engine().Restore(t.Context(), w.request(sid))
			w.must(err)
			check("the restore", r.NotKept, r.Warnings, c.stripped)
		})
	}
}

// What is kept is not said to be lost.
func TestPrivilegesThatAreKeptAreNotNamed(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.edit("target: /data}", "target: /data, setuid: keep}")
	w.fill("old")
	w.sh("cp /bin/true $V/su; chmod 6755 $V/su; setfattr -n trusted.x -v y $V/dir")
	r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	w.must(err)
	if len(r.NotKept)+len(r.Warnings) > 0 {
		t.Errorf("not kept: %+v, %q", r.NotKept, r.Warnings)
	}
	old := w.trees()
	w.fill("new")
	restored, err := w.engine().Restore(t.Context(), w.request(r.Manifest.SID))
	w.must(err)
	if len(restored.NotKept)+len(restored.Warnings) > 0 {
		t.Errorf("not kept: %+v, %q", restored.NotKept, restored.Warnings)
	}
	w.generation(map[string][][]string{"old": old})
}

// TestSpecialFilesAreRefusedSkippedOrKept: the config alone says what becomes of fifos
// and devices, when they are captured and again when they are restored.
func TestSpecialFilesAreRefusedSkippedOrKept(t *testing.T) {
	const make = "mkfifo -m 640 $V/pipe; mknod $V/null c 1 3; chmod 666 $V/null; mknod $V/dir/disk b 7 200; chown 12:34 $V/dir/disk; touch -hd @1500000000.5 $V/dir/disk"
	for _, guard := range []string{"before", "after"} {
		t.Run("guard "+guard, func(t *testing.T) {
			w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
			set := func(from, to string) { w.edit("target: /data"+from+"}", "target: /data"+to+"}") }
			request := func(sid string) RestoreRequest {
				r := w.request(sid)
				r.Guard = guard
				return r
			}
			w.fill("old")
			w.sh(make)
			w.sh("sleep 0.1")
			if _, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None}); codeOf(err) != "unrestorable" {
				t.Fatalf("refuse: the capture returned %v", err)
			}
			set("", ", special: keep")
			old := w.trees()
			kept, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
			w.must(err)
			if m := kept.Manifest; m.Volumes[0].Specials != 3 || len(kept.NotKept) > 0 {
				t.Errorf("keep: the manifest says %+v, and not kept are %+v", m, kept.NotKept)
			}
			w.fill("new")
			_, err = w.engine().Restore(t.Context(), request(kept.Manifest.SID))
			w.must(err)
			w.generation(map[string][][]string{"old": old})
			if got := w.sh("stat -c '%F %t:%T %a' $V/pipe $V/null $V/dir/disk"); got != "fifo 0:0 640\ncharacter special file 1:3 666\nblock special file 7:c8 644\n" {
				t.Errorf("keep: restored were\n%s", got)
			}

			set(", special: keep", ", special: skip")
			skipped, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
			w.must(err)
			if m := skipped.Manifest; m.Volumes[0].Specials != 0 || lost(skipped.NotKept, archive.LostSpecial) != "3[dir/disk null pipe]" || len(skipped.Warnings) != 1 {
				t.Errorf("skip: the manifest says %+v, and not kept are %+v", m, skipped.NotKept)
			}
			r, err := w.engine().Restore(t.Context(), request(kept.Manifest.SID))
			w.must(err)
			if lost(r.NotKept, archive.LostSpecial) != "3[dir/disk null pipe]" {
				t.Errorf("skip: the restore says %+v", r.NotKept)
			}
			if got := w.sh("find $V -type p -o -type c -o -type b"); got != "" {
				t.Errorf("skip: restored were\n%s", got)
			}

			set(", special: skip", "")
			if _, err = w.engine().Plan(t.Context(), request(kept.Manifest.SID)); codeOf(err) != "special_files" || fault.KindOf(err) != fault.Refused {
				t.Errorf("refuse: the plan returned %v", err)
			}
			w.clean()
		})
	}
}

// TestWhatIsExcludedIsNotCapturedAndGoneAfterARestore, and the plan says so.
func TestWhatIsExcludedIsNotCapturedAndGoneAfterARestore(t *testing.T) {
	const signature = "Signature: 8a477f597d28d172789f06886806bc55"
	w := newWorld(t, disktest.Mount(t, "ext4", 256), 1)
	w.edit("target: /data}", `target: /data, exclude: ["cache/**", "**/*.tmp"], exclude_caches: true}`)
	w.fill("old")
	disktest.Write(t, w.volumes[0], map[string]string{
		"cache/a": "12345", "cache/d/b": "67890", "dir/x.tmp": "123", "y.tmp/in": "1", "z.tmpx": "kept",
		"thumbs/CACHEDIR.TAG": signature + "\n# made by x", "thumbs/1/2": "1234567", "thumbs/3": "3",
		"fake/CACHEDIR.TAG": "Signature: no", "fake/file": "kept", "CACHEDIR.TAG": signature,
	})
	w.sh("mkdir $V/linked; ln -s ../thumbs/CACHEDIR.TAG $V/linked/CACHEDIR.TAG; echo kept > $V/linked/file; ln $V/dir/x.tmp $V/hard")
	r, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	w.must(err)
	if got := lost(r.NotKept, archive.LostExcluded); got != "6[cache/a cache/d dir/x.tmp thumbs/1 thumbs/3]" || len(r.Warnings) > 0 {
		t.Errorf("excluded are %s, warnings %q", got, r.Warnings)
	}
	p, err := w.engine().Plan(t.Context(), w.request(r.Manifest.SID))
	w.must(err)
	if v := p.Volumes[0]; v.LiveExcludedFiles != 6 || v.LiveExcludedBytes != 5+5+3+1+7+1 {
		t.Errorf("the plan says %+v", v)
	}
	if !slices.ContainsFunc(p.Warnings, func(s string) bool { return strings.Contains(s, "excludes 6 files (22 bytes)") }) {
		t.Errorf("the plan warns of %q", p.Warnings)
	}
	_, err = w.engine().Restore(t.Context(), w.request(r.Manifest.SID))
	w.must(err)
	want := `./CACHEDIR.TAG ./cache ./dir ./dir/old ./empty ./fake ./fake/CACHEDIR.TAG ./fake/file ./generation ./hard ./large ./linked ` +
		`./linked/CACHEDIR.TAG ./linked/file ./thumbs ./thumbs/CACHEDIR.TAG ./z.tmpx`
	if got := strings.Join(strings.Fields(w.sh("cd $V; find . -mindepth 1 | LC_ALL=C sort")), " "); got != want {
		t.Errorf("the restored volume has\n%s, expected\n%s", got, want)
	}
	again, err := w.engine().Capture(t.Context(), CaptureRequest{Workload: w.name, Quiesce: runtime.None})
	w.must(err)
	if lost(again.NotKept, archive.LostExcluded) != "" {
		t.Errorf("after the restore there is %+v", again.NotKept)
	}
	w.clean()
}

// A new subvolume in a tree that was taken back can be in no snapshot: the tree is put
// aside, and nothing is deleted.
func TestASubvolumeThatTheNewAppMadeIsPutAside(t *testing.T) {
	w := newWorld(t, disktest.Mount(t, "btrfs", 512), 1, appLines(image(t), givesUp)...)
	w.fill("new")
	w.sicken()
	sid := w.capture()
	w.fill("old")
	w.deploy()
	e := w.engine()
	e.reached = func(point string) {
		if point == "before revert" {
			w.sh("btrfs subvolume create $V/made; echo precious > $V/made/file")
		}
	}
	request := w.request(sid)
	_, err := e.Restore(t.Context(), request)
	if fault.KindOf(err) != fault.RolledBack {
		t.Fatalf("the restore returned %v", err)
	}
	kept, err := filepath.Glob(w.volumes[0] + ".snap-kept-*/made/file")
	w.must(err)
	if len(kept) != 1 {
		t.Errorf("put aside is %q", kept)
	}
	w.clean()
	var st unix.Stat_t
	w.must(unix.Stat(filepath.Join(w.volumes[0], "generation"), &st))
	w.appRuns()
}
