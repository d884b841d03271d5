//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// soak is a world that is never reset. Its snapshots accumulate, and wants has the
// trees that each must hold.
type soak struct {
	*world
	random *rand.Rand
	wants  map[string][][]string // sid → the volumes
	serial int
}

// Random captures, restores and kills in one world. At the end every snapshot and
// member is complete, and no mount or lock is left.
func TestASoakOfCapturesRestoresAndKills(t *testing.T) {
	t.Parallel() // with the other soak, which waits for containers
	cycles, seed := 15, uint64(time.Now().UnixNano())
	if all {
		cycles = 500
	}
	if given, err := strconv.ParseUint(os.Getenv("SNAP_CRASH_SEED"), 10, 64); err == nil {
		seed = given
	}
	c := newTally(fmt.Sprintf("soak of %d cycles", cycles))
	w := newWorld(t, "ext4")
	t.Logf("SNAP_CRASH_SEED=%d", seed)
	s := &soak{world: w, random: rand.New(rand.NewPCG(seed, 1)), wants: map[string][][]string{}}
	mounts := s.mountCount()
	s.wants[w.sid] = w.states[newer]
	for i := range cycles {
		c.count(t, fmt.Sprint("cycle ", i), s.cycle())
		if t.Failed() {
			t.FailNow()
		}
	}
	for _, err := range s.verify() {
		t.Errorf("the store at the end: %v", err)
	}
	if now := s.mountCount(); now != mounts {
		t.Errorf("there are %d mounts, at the beginning there were %d", now, mounts)
	}
	for _, held := range s.held() {
		t.Errorf("a lock is still held: %s", held)
	}
	t.Logf("%d snapshots", len(s.wants))
}

// cycle changes the data, captures it, and restores some snapshot. Most captures
// and restores are killed at a random moment and then recovered.
func (s *soak) cycle() (found []finding) {
	add := func(kind, format string, args ...any) {
		found = append(found, finding{kind, fmt.Sprintf(format, args...)})
	}
	s.mutate()
	before := s.trees()
	out, killed := s.killedAfter(s.moment(40), "capture", workloadName)
	if !killed {
		s.wants[strings.TrimSpace(out)] = before
	}
	s.recoverFully(add)
	if d := s.differs(before); d != "" {
		add("mixed", "a capture changed the data:\n%s", d)
	}
	sids := make([]string, 0, len(s.wants))
	for sid := range s.wants {
		sids = append(sids, sid)
	}
	slices.Sort(sids)
	sid := sids[s.random.IntN(len(sids))]
	known, err := s.snapshots()
	s.must(err)
	_, killed = s.killedAfter(s.moment(160), "restore", workloadName, sid, "--confirm", sid, "--guard", guards[s.random.IntN(2)])
	s.recoverFully(add)
	toOld, toNew := s.differs(before), s.differs(s.wants[sid])
	switch {
	case toNew != "" && !killed:
		add("lost", "restored %s, but the data differs from it:\n%s", sid, toNew)
	case toOld != "" && toNew != "":
		add("mixed", "the data differs from before:\n%s\nand from snapshot %s:\n%s", toOld, sid, toNew)
	}
	if guards := s.countPreRestore(known, before, add); guards == 0 && toOld != "" {
		add("lost", "the data was replaced, but no snapshot holds the old data")
	}
	return found
}

// countPreRestore counts the pre-restore snapshots that are not among the known
// ones. Each must hold the data that was live before.
func (s *soak) countPreRestore(known []snapshot, before [][]string, add func(kind, format string, args ...any)) int {
	list, err := s.snapshots()
	s.must(err)
	n := 0
	for _, one := range list {
		if one.Reason != "pre-restore" || slices.ContainsFunc(known, func(k snapshot) bool { return k.SID == one.SID }) {
			continue
		}
		n++
		if err := s.holds(one, before); err != nil {
			add("lost", "the pre-restore snapshot: %v", err)
		}
		s.wants[one.SID] = before
	}
	return n
}

func (s *soak) recoverFully(add func(kind, format string, args ...any)) {
	if e := s.run(nil, "recover"); e.code != 0 {
		add("stuck", "recover: exit %d: %s", e.code, e.err)
	}
	for _, left := range s.leftovers() {
		add("stuck", "left over: %s", left)
	}
}

func (s *soak) differs(want [][]string) string {
	out := ""
	for i, tree := range s.trees() {
		out += disktest.Diff(want[i], tree)
	}
	return out
}

// moment returns a random time to kill within so many milliseconds, or 0 for never.
func (s *soak) moment(within int) time.Duration {
	if s.random.IntN(3) == 0 {
		return 0
	}
	return time.Duration(1+s.random.IntN(within*1000)) * time.Microsecond
}

// killedAfter runs snap, kills it after some time (0: never), and returns its
// output and whether it was killed.
func (s *soak) killedAfter(after time.Duration, args ...string) (string, bool) {
	s.Helper()
	cmd := exec.Command(programs.snap, append([]string{"--config", s.config}, args...)...)
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	s.must(cmd.Start())
	if after > 0 {
		time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	}
	err := cmd.Wait()
	if err == nil {
		return out.String(), false
	}
	if ws, ok := cmd.ProcessState.Sys().(interface{ Signaled() bool }); ok && ws.Signaled() {
		return "", true
	}
	s.Fatalf("snap %q: %v: %s", args, err, errOut.String())
	return "", false
}

// mutate changes the live directories as an app does.
func (s *soak) mutate() {
	for _, m := range s.volumes() {
		dir := m.live
		for range 1 + s.random.IntN(6) {
			s.serial++
			name := filepath.Join(dir, fmt.Sprint("f", s.random.IntN(30)))
			content := []byte(strings.Repeat(fmt.Sprint(s.serial, " "), 1+s.random.IntN(20_000)))
			switch s.random.IntN(6) {
			case 0:
				s.must(os.RemoveAll(name))
			case 1:
				sub := filepath.Join(dir, fmt.Sprint("d", s.random.IntN(4)))
				s.must(os.MkdirAll(sub, 0o755))
				s.must(os.WriteFile(filepath.Join(sub, fmt.Sprint(s.random.IntN(5))), content, 0o640))
			case 2:
				if err := os.Rename(name, filepath.Join(dir, fmt.Sprint("f", s.random.IntN(30)))); !errors.Is(err, os.ErrNotExist) {
					s.must(err)
				}
			default:
				s.must(os.WriteFile(name, content, 0o644))
			}
		}
	}
}

// verify checks every member and every snapshot.
func (s *soak) verify() []error {
	errs := s.damaged()
	list, err := s.snapshots()
	s.must(err)
	for sid := range s.wants {
		if !slices.ContainsFunc(list, func(one snapshot) bool { return one.SID == sid }) {
			errs = append(errs, fmt.Errorf("snapshot %s is gone", sid))
		}
	}
	for _, one := range list {
		if want, ok := s.wants[one.SID]; ok {
			errs = append(errs, s.holds(one, want))
		}
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func (s *soak) mountCount() int {
	data, err := os.ReadFile("/proc/self/mountinfo")
	s.must(err)
	return strings.Count(string(data), s.dir)
}

// held returns the lock files of the store that are still locked.
func (s *soak) held() []string {
	files, err := filepath.Glob(filepath.Join(s.store(), "lock/*"))
	s.must(err)
	var list []string
	for _, path := range files {
		f, err := os.Open(path)
		s.must(err)
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
			list = append(list, path)
		}
		f.Close()
	}
	return list
}
