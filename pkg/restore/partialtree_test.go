package restore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// A restore is killed while it deletes the displaced trees, and the operator moves
// a partial tree back by hand. snap never takes a partial tree for the old data.
func TestAPartialTreeIsNeverOfferedAsTheOldData(t *testing.T) {
	disktest.EachFS(t, func(t *testing.T, dir string) {
		w := newWorld(t, dir, 2)
		w.fill("new")
		sid := w.capture()
		whole, _ := w.run("restore", sid, 0)
		w.fill("old")
		w.killAt("restore", sid, "discarded", whole)
		trees, err := filepath.Glob(filepath.Join(dir, "live/.snap-*/0.trash"))
		if err != nil || len(trees) != 1 {
			t.Fatalf("the displaced tree is %q, %v", trees, err)
		}
		w.must(os.Remove(filepath.Join(trees[0], "generation"))) // the restore would have removed it next
		w.must(os.Rename(w.volumes[0], filepath.Join(dir, "live/aside")))

		// While the partial tree is in the wrapper, no hint offers it as the old data.
		_, err = w.engine().Resolve(t.Context(), ResolveRequest{Workload: w.name, Keep: journal.KeepOld})
		if fault.KindOf(err) != fault.Frozen || strings.Contains(err.Error()+hintOf(err), "mv '"+trees[0]) {
			t.Errorf("keep-old returned %v, hint %q; expected a refusal that does not offer %s", err, hintOf(err), trees[0])
		}
		if !strings.Contains(hintOf(err), "snap restore "+w.name) {
			t.Errorf("the hint %q does not name the snapshot", hintOf(err))
		}

		w.must(os.Rename(trees[0], w.volumes[0]))
		status, err := w.engine().Status(t.Context(), w.name)
		w.must(err)
		tx := status[0].Pending.Tx
		before := disktest.Tree(t, filepath.Join(dir, "live"))
		if _, err := w.engine().Recover(t.Context(), RecoverRequest{}); fault.KindOf(err) != fault.Frozen {
			t.Errorf("recover returned %v, expected frozen", err)
		}
		_, err = w.engine().Resolve(t.Context(), ResolveRequest{Workload: w.name, Keep: journal.KeepOld, Confirm: tx})
		if fault.KindOf(err) != fault.Frozen || !strings.Contains(err.Error(), "being deleted") {
			t.Errorf("keep-old returned %v, expected a refusal", err)
		}
		disktest.Same(t, "frozen", before, disktest.Tree(t, filepath.Join(dir, "live")))

		w.must(os.Rename(w.volumes[0], trees[0]))
		w.must(os.Rename(filepath.Join(dir, "live/aside"), w.volumes[0]))
		w.recoverTwice()
	})
}

func hintOf(err error) string { return inWords(fault.Classify(err).Remedy) }

func allInWords(list []remedy.Remedy) string {
	var all []string
	for _, r := range list {
		all = append(all, inWords(r))
	}
	return strings.Join(all, "\n")
}

// inWords returns a remedy much as the command prints it.
func inWords(r remedy.Remedy) string {
	return r.Text(func(op remedy.Operation) string {
		if op.Verb == remedy.DoResolve {
			return fmt.Sprintf("snap recover %s --resolve keep-%s --confirm %s", op.Workload, op.Keep, op.ID)
		}
		words := fmt.Sprintf("snap %s %s %s", op.Verb, op.Workload, op.ID)
		if op.To != "" {
			words += " --to " + op.To
		}
		return strings.Join(strings.Fields(words), " ")
	})
}

// The new app leaves a fifo and turns out to be unhealthy. Its data cannot become a
// snapshot, so the revert preserves the tree under another name.
func TestRevertedDataThatCannotBeCapturedIsPreserved(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t), givesUp)...)
	w.fill("old")
	w.deploy()
	w.sicken()
	sid := w.capture()
	w.fill("old")
	states := map[string][][]string{"old": w.trees()}
	e := w.engine()
	e.reached = func(point string) {
		if point == "commit" {
			w.must(unix.Mkfifo(filepath.Join(w.volumes[0], "pipe"), 0o600))
		}
	}
	_, err := e.Restore(t.Context(), w.request(sid))
	if fault.KindOf(err) != fault.RolledBack {
		t.Fatalf("the restore returned %v, expected a roll-back", err)
	}
	w.generation(states)
	w.appRuns()
	w.clean()
	preserved, err := filepath.Glob(filepath.Join(w.dir, "live/*.snap-kept-*/sick"))
	if err != nil || len(preserved) != 1 {
		t.Errorf("preserved are %q, expected one: %v", preserved, err)
	}
}

// A capture was killed while the app is paused, and the config no longer has the
// app's image. Recovery freezes rather than report a thaw that it cannot make.
func TestARecoveryNeedsTheConfigOfItsContainers(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1, appLines(image(t))...)
	w.fill("data")
	w.deploy()
	whole, _ := w.run("capture", "", 0, "SNAP_TEST_QUIESCE=pause")
	at := 0
	for i, point := range whole {
		if point == "quiesced" {
			at = i + 1
		}
	}
	if _, killed := w.run("capture", "", at, "SNAP_TEST_QUIESCE=pause"); !killed {
		t.Fatalf("the capture was not killed: %q", whole)
	}
	config, err := os.ReadFile(w.config)
	w.must(err)
	w.write(map[string][]string{w.name: {"volumes:", "  - {name: v0, scope: absolute, source: " + w.volumes[0] + "}"}})
	list, err := w.engine().Recover(t.Context(), RecoverRequest{})
	if fault.KindOf(err) != fault.Frozen || codeOf(err) != "config_changed" || len(list) != 1 || list[0].Action != FrozenTx {
		t.Errorf("recover returned %+v, %v; expected frozen", list, err)
	}
	if c := w.containers(); len(c) != 1 || !c[0].Paused {
		t.Errorf("the container is %+v, expected it paused", c)
	}
	w.must(os.WriteFile(w.config, config, 0o600))
	list, err = w.engine().Recover(t.Context(), RecoverRequest{})
	if err != nil || len(list) != 1 || list[0].Action != Thawed {
		t.Errorf("with the config back, recover returned %+v, %v", list, err)
	}
	w.appRuns()
	w.clean()
}

// A record may be of another config, or made by somebody who wants root to delete a
// directory. Recovery and a decision leave alone what neither the config nor the engine
// calls a volume, and go on when the config has it.
func TestARecordedDirectoryThatIsNoVolumeIsLeftAlone(t *testing.T) {
	for _, point := range []string{"stage", "ready", "commit", "discarded"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t, t.TempDir(), 2)
			w.fill("new")
			sid := w.capture()
			whole, _ := w.run("restore", sid, 0)
			w.fill("old")
			if !slices.Contains(whole, point) {
				t.Fatalf("no point %s in %q", point, whole)
			}
			w.killAt("restore", sid, point, whole)
			config, err := os.ReadFile(w.config)
			w.must(err)
			w.must(os.MkdirAll(filepath.Join(w.dir, "elsewhere/v0"), 0o700))
			w.must(os.WriteFile(w.config, []byte(strings.ReplaceAll(string(config), w.dir+"/live", w.dir+"/elsewhere")), 0o600))
			before := disktest.Tree(t, filepath.Join(w.dir, "live"))
			for _, offline := range []bool{true, false} {
				list, err := w.engine().Recover(t.Context(), RecoverRequest{Offline: offline})
				if fault.KindOf(err) != fault.Frozen || codeOf(err) != "config_changed" || len(list) != 1 || list[0].Action != FrozenTx || !strings.Contains(hintOf(err), w.dir+"/live") {
					t.Errorf("offline %v: recover returned %+v, %v; expected frozen", offline, list, err)
				}
			}
			tx, err := w.engine().Journal.List()
			w.must(err)
			for _, keep := range []string{journal.KeepOld, journal.KeepNew} {
				if _, err := w.engine().Resolve(t.Context(), ResolveRequest{Workload: w.name, Keep: keep, Confirm: tx[0]}); fault.KindOf(err) != fault.Frozen {
					t.Errorf("keep-%s returned %v; expected frozen", keep, err)
				}
			}
			disktest.Same(t, "left alone", before, disktest.Tree(t, filepath.Join(w.dir, "live")))
			w.must(os.WriteFile(w.config, config, 0o600))
			w.recoverTwice()
		})
	}
}

// The same for what pretends to be a volume of the engine, and for what is below a root
// of the config but may not be a volume.
func TestARecordIsComparedWithTheConfigAndTheEngine(t *testing.T) {
	w := newWorld(t, t.TempDir(), 1)
	e := w.engine()
	e.Config.AbsoluteRoots = append(e.Config.AbsoluteRoots, "/")
	own, err := e.Config.Workload(w.name)
	w.must(err)
	for _, c := range []struct {
		root, rel string
		mounts    *runtime.Mounts
		ok        bool
	}{
		{w.dir + "/live", "v0", nil, true}, {w.dir + "/live", "another", nil, true}, {w.dir, "stage/another", nil, true},
		{w.dir + "/live/v0", "x", nil, false}, {w.dir + "/live", "../v0", nil, false}, {w.dir + "/live", "", nil, false}, {"/srv/other", "x", nil, false},
		{"/", "etc", nil, false}, {"/", "var", nil, false}, {"/", "srv", nil, true}, {w.dir, "store", nil, false}, {w.dir, "state/tx", nil, false},
		{"/var/lib/docker/volumes/a", "_data", nil, true}, {"/var/lib/docker/volumes/a", "_data/../../b", nil, false}, {"/var/lib/docker/volumes", "a/_data", nil, true}, {"/var/lib/docker", "volumes/a/_data", nil, false}, {"/var/lib/docker/volumes", "../volumes/a/_data", nil, false}, {"/var/lib/docker/volumes/a", "_database", nil, false}, {"/var/lib/docker", "x", nil, false},
		{"/var/lib/docker/volumes/a", "_data", &runtime.Mounts{Root: "/var/lib/docker"}, true}, {"/var/lib/docker/volumes/a", "_data/sub", &runtime.Mounts{Root: "/var/lib/docker"}, true},
		{"/home/eve/volumes/a", "_data", &runtime.Mounts{Root: "/var/lib/docker"}, false}, {"/var/lib/docker2/volumes/a", "_data", &runtime.Mounts{Root: "/var/lib/docker"}, false},
	} {
		tx := &journal.Tx{Begin: &journal.Begin{Kind: journal.Restore, Volumes: []journal.Volume{{Name: "x", Root: c.root, Rel: c.rel}}}}
		if err := preflight.Recorded(e.Config, own, c.mounts, tx); (err == nil) != c.ok {
			t.Errorf("%s and %s, engine %v: %v", c.root, c.rel, c.mounts, err)
		}
	}
}
