package restore

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
)

func (s *scene) record(name string) string { return filepath.Join(s.dir, "state/tx", s.tx.ID, name) }

func (s *scene) remove(names ...string) {
	s.Helper()
	for _, name := range names {
		s.must(os.Remove(s.record(name)))
	}
}

// dataAndRecords describes everything that a frozen transaction must not change.
func (s *scene) dataAndRecords() []string {
	s.Helper()
	var lines []string
	for _, dir := range []string{"live", "elsewhere", "state/tx", "store/snapshots"} {
		if _, err := os.Lstat(filepath.Join(s.dir, dir)); err == nil {
			for _, line := range disktest.Tree(s.T, filepath.Join(s.dir, dir)) {
				lines = append(lines, dir+" "+line)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// makeNewer rewrites a record as a later version of snap would.
func (s *scene) makeNewer(name string) {
	s.Helper()
	type future struct {
		disk.Seal
		Tx string `json:"tx"`
	}
	data, err := disk.MarshalSealed(&future{Tx: s.tx.ID}, "snap-tx-"+name, 99)
	s.must(err)
	s.must(os.WriteFile(s.record(name), data, 0o600))
}

// publishPreRestore creates the pre-restore snapshot, which exists before the
// first exchange.
func (s *scene) publishPreRestore() {
	s.Helper()
	sid := s.tx.Begin.PreRestoreSID
	from := filepath.Join(s.dir, "store/snapshots", s.name)
	s.must(os.MkdirAll(filepath.Join(from, sid), 0o700))
	m := &store.Manifest{Workload: s.name, SID: sid, Reason: store.PreRestore, Quiesce: "stop", Snap: "test", Images: []store.Image{}, Volumes: []store.Volume{}}
	data, err := disk.MarshalSealed(m, "snap-manifest", 1)
	s.must(err)
	s.must(os.WriteFile(filepath.Join(from, sid, "manifest.json"), data, 0o600))
}

// Every way to freeze a restore: status and recover say what is wrong and what the
// operator can do, and nothing changes.
func TestEachFrozenStateSaysWhatItIsAndWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		make       func(s *scene)
		says, next string
	}{
		"a record is damaged": {
			func(s *scene) { s.must(os.Truncate(s.record("ready"), 20)) }, "ready: damaged", "back from a copy of the state",
		},
		"a record is newer": {
			func(s *scene) { s.makeNewer("ready") }, "written by a newer version of snap", "use the version of snap that wrote the records",
		},
		"commit and commit.tmp are gone": {
			func(s *scene) { s.remove("commit.tmp") }, "neither commit nor commit.tmp is there", "back from a copy of the state",
		},
		"commit and commit.tmp both exist": {
			func(s *scene) {
				data, err := os.ReadFile(s.record("commit.tmp"))
				s.must(err)
				s.must(os.WriteFile(s.record("commit"), data, 0o600))
			}, "commit and commit.tmp are both there", "back from a copy of the state",
		},
		"revert and revert.tmp are gone": {
			func(s *scene) { s.remove("revert.tmp") }, "neither revert nor revert.tmp is there", "back from a copy of the state",
		},
		"ready was removed": {
			func(s *scene) { s.remove("ready", "times"); s.publishPreRestore() }, "the ready record is missing", "back from a copy of the state",
		},
		"times was removed": {
			func(s *scene) { s.must(s.tx.Commit()); s.remove("times") }, "commit without times", "back from a copy of the state",
		},
		"the parent directory was replaced": {
			func(s *scene) {
				s.must(os.Rename(s.dir+"/live", s.dir+"/elsewhere"))
				s.must(os.Mkdir(s.dir+"/live", 0o755))
			}, "its filesystem is not mounted", "mount the filesystem of",
		},
		"the parent directory is gone": {
			func(s *scene) { s.must(os.Rename(s.dir+"/live", s.dir+"/elsewhere")) }, "its filesystem is not mounted", "mount the filesystem of",
		},
		"only begin exists and the parent directory was replaced": {
			func(s *scene) {
				s.remove("ready", "times")
				s.must(os.Rename(s.dir+"/live", s.dir+"/elsewhere"))
				s.must(os.Mkdir(s.dir+"/live", 0o755))
			}, "its filesystem is not mounted", "mount the filesystem of",
		},
		"a live directory was replaced": {
			func(s *scene) { s.put(1, "other / old") }, "another directory stands at the live name, the old data in the wrapper; the new data no longer exists",
			"--resolve keep-old --confirm",
		},
		"the wrapper is a link": {
			func(s *scene) {
				s.must(os.Rename(s.wrapper(), s.dir+"/elsewhere"))
				s.must(os.Symlink(s.dir+"/elsewhere", s.wrapper()))
			}, "is not a directory", "to another name",
		},
		"both directories are gone": {
			func(s *scene) { s.put(1, "other / gone") }, "the old data no longer exists", "neither the old nor the new data",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(newWorld(t, t.TempDir(), 2))
			c.make(s)
			before := s.dataAndRecords()
			status, err := s.engine().Status(t.Context(), s.name)
			s.must(err)
			p := status[0].Pending
			if p == nil || !p.Frozen || status[0].State != "frozen" || p.Tx != s.tx.ID {
				t.Fatalf("status says %+v", status[0])
			}
			if !strings.Contains(p.Message, c.says) || !strings.Contains(allInWords(p.Next), c.next) {
				t.Errorf("status says %q, and suggests %q", p.Message, allInWords(p.Next))
			}
			for _, names := range [][]string{nil, {s.name}} {
				list, err := s.engine().Recover(t.Context(), RecoverRequest{Workloads: names})
				if fault.KindOf(err) != fault.Frozen || len(list) != 1 || list[0].Action != FrozenTx || list[0].Workload != s.name {
					t.Fatalf("recover %q returned %+v, %v; expected frozen", names, list, err)
				}
				if e := fault.Classify(err); !strings.Contains(e.Error(), c.says) || !strings.Contains(hintOf(err), c.next) {
					t.Errorf("recover says %q, hint %q", e, hintOf(err))
				}
			}
			if c.next != "--resolve keep-old --confirm" {
				if _, err := s.engine().Resolve(t.Context(), s.request(journal.KeepOld)); fault.KindOf(err) != fault.Frozen || fault.Classify(err).Remedy.Empty() {
					t.Errorf("a decision returned %v", err)
				}
			}
			disktest.Same(t, "nothing changes", before, s.dataAndRecords())
		})
	}
}

// A begin record cannot be read, so its workload is unknown. Every workload that
// is asked about reports it.
func TestAnUnreadableBeginIsReportedForEveryWorkload(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 2))
	s.must(os.Truncate(s.record("begin"), 20))
	list, err := s.engine().Recover(t.Context(), RecoverRequest{Workloads: []string{s.name}})
	if fault.KindOf(err) != fault.Frozen || len(list) != 1 || list[0].Workload != "" {
		t.Errorf("recover returned %+v, %v", list, err)
	}
	status, err := s.engine().Status(t.Context(), s.name)
	s.must(err)
	if said := allInWords(status[0].Problems); !strings.Contains(said, s.tx.ID) || !strings.Contains(said, "what to do: ") {
		t.Errorf("status says %q", said)
	}
}

// The workload of an open transaction is no longer in the config. Status shows it
// all the same.
func TestATransactionOfAnUnconfiguredWorkloadIsShown(t *testing.T) {
	s := newScene(newWorld(t, t.TempDir(), 1))
	s.write(map[string][]string{"another": {"volumes:", "  - {scope: absolute, source: " + s.dir + "/live/v9}"}})
	status, err := s.engine().Status(t.Context(), "")
	s.must(err)
	if len(status) != 2 || status[1].Workload != s.name || status[1].State != "frozen" || !strings.Contains(allInWords(status[1].Pending.Next), "back into the config") {
		t.Errorf("status says %+v", status)
	}
}

// failing runs recover in its own process and makes its n-th such call fail with
// EIO, or with n = 0 every such call on the file at path.
func (w *world) failing(call, path string, n int) (exit int, said string) {
	w.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		w.Skip(err)
	}
	args := []string{"-f", "-qq", "-o", "/dev/null"}
	if n == 0 {
		args = append(args, "-P", path, "-e", "trace="+call, "-e", "inject="+call+":error=EIO", os.Args[0])
	} else {
		args = append(args, "-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:error=EIO:when=%d", call, n), os.Args[0])
	}
	cmd := exec.Command(strace, args...)
	cmd.Env = append(os.Environ(), "SNAP_TEST_VERB=recover", "SNAP_TEST_CONFIG="+w.config, "SNAP_TEST_WORKLOAD="+w.name, "SNAP_TEST_AT=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	_ = cmd.Run() // the exit code is returned
	return cmd.ProcessState.ExitCode(), out.String()
}

// Reading or syncing a record fails with EIO. A record that cannot be read is not
// a missing record, so nothing moves.
func TestARecordOnABadDiskFreezes(t *testing.T) {
	for _, record := range []string{"begin", "ready", "times", "commit"} {
		for _, call := range []string{"read", "fsync"} {
			t.Run(record+" "+call, func(t *testing.T) {
				s := newScene(newWorld(t, t.TempDir(), 2))
				s.arrange(1, "new / old")
				s.must(s.tx.Commit())
				before := s.dataAndRecords()
				exit, said := s.failing(call, s.record(record), 0)
				if exit != 10+int(fault.Frozen) || !strings.Contains(said, "input/output error") {
					t.Errorf("recover ended with %d: %s", exit, said)
				}
				disktest.Same(t, "nothing changes", before, s.dataAndRecords())
			})
		}
	}
}

// Opening a directory fails with EIO. A directory that cannot be opened is not a
// missing directory, so nothing moves.
func TestADirectoryOnABadDiskFreezes(t *testing.T) {
	for _, where := range []func(*scene) string{(*scene).wrapper, func(s *scene) string { return s.dir + "/live" }} {
		s := newScene(newWorld(t, t.TempDir(), 2))
		s.arrange(0, "new / old")
		s.arrange(1, "new / old")
		s.must(s.tx.Commit())
		before := s.dataAndRecords()
		exit, said := s.failing("openat2", where(s), 0)
		if exit != 10+int(fault.Frozen) || !strings.Contains(said, "input/output error") {
			t.Errorf("%s: recover ended with %d: %s", where(s), exit, said)
		}
		disktest.Same(t, "nothing changes", before, s.dataAndRecords())
	}
}

// Each open of a recovery fails once. A recovery that freezes has deleted none of
// the four trees, and the next one finishes what the records say.
func TestAnOpenThatFailsDeletesNothing(t *testing.T) {
	frozen := 0
	for n := 1; n <= 60; n++ {
		s := newScene(newWorld(t, filepath.Join(t.TempDir(), fmt.Sprint(n)), 2))
		s.arrange(1, "new / old")
		s.must(s.tx.Commit())
		exit, said := s.failing("openat2", "", n)
		if exit == 10+int(fault.Frozen) {
			frozen++
			s.allTreesExist()
		}
		if exit != 0 {
			list, err := s.engine().Recover(t.Context(), RecoverRequest{})
			if err != nil || len(list) > 1 {
				t.Fatalf("openat2 %d failed (%d: %s), and the next recover returned %+v, %v", n, exit, said, list, err)
			}
		}
		if got := s.generation(s.states); got != "new" {
			t.Fatalf("openat2 %d failed (%d: %s): all volumes are %s", n, exit, said, got)
		}
		s.clean()
	}
	if frozen < 10 {
		t.Errorf("only %d runs froze: the test proves nothing", frozen)
	}
}

func (s *scene) allTreesExist() {
	s.Helper()
	var there []string
	for i, live := range s.volumes {
		for _, path := range []string{live, s.staged(i)} {
			there = append(there, strings.Join(disktest.Tree(s.T, path), "\n"))
		}
	}
	for name, trees := range s.states {
		for i, tree := range trees {
			if !strings.Contains(strings.Join(there, "\n\n"), strings.Join(tree, "\n")) {
				s.Fatalf("the %s tree of volume %d is missing or incomplete", name, i)
			}
		}
	}
}
