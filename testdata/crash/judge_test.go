//go:build linux && amd64

package crash

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// progress is how far a process came, judged by its calls: what snap may have
// relied on or acknowledged.
type progress struct {
	exchanged bool            // a live directory had moved
	committed bool            // the commit record had its name
	durable   bool            // and that name had been synced
	ended     bool            // the transaction had ended
	dirty     map[string]bool // filesystems with unsynced writes
	acked     []string        // snapshots of the old data that snap has acknowledged
	end       string          // the call before which the process was stopped
	done      bool            // the process ended by itself with exit code 0
}

// note notes a changing call that was allowed.
func (p *progress) note(c *call) {
	switch {
	case c.name == "renameat2" && c.flags&unix.RENAME_EXCHANGE != 0 && !strings.Contains(c.path, "probe-"):
		p.exchanged = true
	case c.name == "renameat" && strings.HasSuffix(c.path2, "/commit"):
		p.committed = true
	case p.committed && c.syncs && strings.HasPrefix(c.path, "store/state/tx/"):
		// The earliest next stop is at a later call, when this sync has returned.
		p.durable = true
	case c.name == "renameat" && strings.Contains(c.path2, ".done-"):
		p.ended = true
	}
	if p.dirty == nil {
		p.dirty = map[string]bool{}
	}
	p.dirty[diskOf(c)] = c.name != "syncfs"
}

// acknowledge notes the sid that a capture has printed.
func (p *progress) acknowledge(out string) {
	if sid := strings.TrimSpace(out); idPattern.FindString(sid) == sid {
		p.acked = append(p.acked, sid)
	}
}

var (
	idPattern     = regexp.MustCompile(`[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}`)
	memberPattern = regexp.MustCompile(`[0-9a-f]{2}/[0-9a-f]{64}|[0-9a-f]{64}`)
	shardPattern  = regexp.MustCompile(`members/[0-9a-f]{2}( |$)`)
	handlePattern = regexp.MustCompile(`vol-[^ ]*\.lock`)
)

// general replaces the parts of a call's description that differ between runs.
func general(s string) string {
	s = idPattern.ReplaceAllString(s, "ID")
	s = memberPattern.ReplaceAllString(s, "M")
	s = shardPattern.ReplaceAllString(s, "members/xx$1")
	return handlePattern.ReplaceAllString(s, "vol.lock")
}

// finding is a broken promise after a run and its recovery.
type finding struct {
	kind string // mixed, lost, stuck, wrong
	text string
}

// recovered recovers twice and returns what is wrong then. want is the generation
// that must be live, or "" if either may be.
func (w *world) recovered(p *progress, want string) (generation string, found []finding) {
	w.Helper()
	add := func(kind, format string, args ...any) {
		found = append(found, finding{kind, fmt.Sprintf(format, args...)})
	}
	if p.exchanged && !p.ended {
		if err := w.safe(); err != nil {
			add("lost", "a live directory has moved, but before any recovery: %v", err)
		}
	}
	if e := w.run(nil, "recover"); e.code != 0 {
		add("stuck", "recover: exit %d: %s", e.code, e.err)
	}
	if e := w.run(nil, "recover", "--json"); e.code != 0 || !strings.Contains(e.out, `"transactions":[]`) {
		add("stuck", "the second recover: exit %d: %s", e.code, e.out)
	}
	for _, left := range w.leftovers() {
		add("stuck", "left over: %s", left)
	}
	generation, diff := w.generation()
	switch {
	case generation == "":
		add("mixed", "the volumes are neither all old nor all new:\n%s", diff)
	case want != "" && generation != want:
		add("lost", "the volumes are all %s, expected %s", generation, want)
	}
	if p.exchanged && (w.guard == before || generation != older) {
		if err := w.guarded(); err != nil {
			add("lost", "a live directory had moved, but %v", err)
		}
	}
	if log := w.auditLines(); p.done && log < 2 { // the first line is from the capture of newWorld
		add("lost", "the audit log has %d lines", log)
	}
	for _, err := range w.intact(append(p.acked, w.sid)) {
		add("lost", "%v", err)
	}
	return generation, found
}

func (w *world) auditLines() int {
	text, err := os.ReadFile(filepath.Join(w.state(), "audit.jsonl"))
	w.must(err)
	return strings.Count(string(text), "\n")
}

// generation returns the state that all volumes are in, or "" and the differences
// if they are in neither.
func (w *world) generation() (string, string) {
	w.Helper()
	now := w.trees()
	var diffs []string
	for _, name := range []string{older, newer} {
		diff := ""
		for i, want := range w.states[name] {
			if d := disktest.Diff(want, now[i]); d != "" {
				diff += fmt.Sprintf("volume %d is not %s:\n%s\n", i, name, d)
			}
		}
		if diff == "" {
			return name, ""
		}
		diffs = append(diffs, diff)
	}
	return "", strings.Join(diffs, "\n")
}

// leftovers returns files and directories that no operation may leave.
func (w *world) leftovers() []string {
	var left []string
	var patterns []string
	for _, pattern := range []string{
		"state/tx/*", "state/tx/.[!.]*", "state/*.tmp", "s/scratch/*", "s/members/*/*.tmp", "s/*.tmp", "s/snapshots/*/*/*.tmp",
	} {
		patterns = append(patterns, filepath.Join(w.dir, "store", pattern))
	}
	for _, m := range w.volumes() {
		patterns = append(patterns, filepath.Join(m.point, ".snap-*"))
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		w.must(err)
		left = append(left, found...)
	}
	snapshots, err := filepath.Glob(filepath.Join(w.store(), "snapshots/*/*"))
	w.must(err)
	for _, dir := range snapshots {
		if _, err := os.Stat(filepath.Join(dir, "manifest.json")); err != nil && filepath.Base(dir) != "was.json" {
			left = append(left, dir+" without a manifest")
		}
	}
	return left
}

// snapshot is the part of a manifest that is needed to read the data.
type snapshot struct {
	SID      string
	Reason   string
	Checksum string
	Volumes  []struct {
		Name    string
		Members []struct{ ID string }
	}
}

func (s *snapshot) members() map[string]bool {
	ids := map[string]bool{}
	for _, v := range s.Volumes {
		for _, m := range v.Members {
			ids[m.ID] = true
		}
	}
	return ids
}

func (w *world) snapshots() ([]snapshot, error) {
	paths, err := filepath.Glob(filepath.Join(w.store(), "snapshots", workloadName, "*/manifest.json"))
	if err != nil {
		return nil, err
	}
	var list []snapshot
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var s snapshot
		if err := json.Unmarshal(data, &s); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, s)
	}
	return list, nil
}

// guarded returns nil if a pre-restore snapshot exists; intact checks what it holds.
func (w *world) guarded() error {
	list, err := w.snapshots()
	if err == nil && !slices.ContainsFunc(list, func(s snapshot) bool { return s.Reason == "pre-restore" }) {
		err = errors.New("there is no pre-restore snapshot")
	}
	return err
}

// safe returns nil if the old data is safe: a pre-restore snapshot exists, or, with
// --guard after, each old tree is still complete, live or displaced. The mtime of
// the root directory is ignored, because an exchange may change it; the snapshot
// takes that mtime from a record.
func (w *world) safe() error {
	w.Helper()
	err := w.guarded()
	if err == nil || w.guard == before {
		return err
	}
	for i, m := range w.volumes() {
		pattern, own := filepath.Join(m.point, ".snap-*", fmt.Sprint(i)), 1 // the line of the root
		if w.single {
			pattern, own = filepath.Join(pattern, filepath.Base(m.live)), 0
		}
		displaced, e := filepath.Glob(pattern)
		w.must(e)
		if !slices.ContainsFunc(append(displaced, m.live), func(dir string) bool {
			return slices.Equal(w.tree(dir)[own:], w.states[older][i][own:])
		}) {
			return fmt.Errorf("%w, and the old data of %s is neither live nor displaced", err, m.name)
		}
	}
	return nil
}

// intact checks that these snapshots exist, and that every snapshot is complete:
// the first one holds the new data, all others the old, or the new as it was written to.
func (w *world) intact(sids []string) []error {
	w.Helper()
	list, err := w.snapshots()
	if err != nil {
		return []error{err}
	}
	var errs []error
	for _, sid := range sids {
		if !slices.ContainsFunc(list, func(s snapshot) bool { return s.SID == sid }) {
			errs = append(errs, fmt.Errorf("snapshot %s is gone", sid))
		}
	}
	for _, s := range list {
		if err := w.summed(s); err != nil {
			errs = append(errs, err)
		}
		if s.SID == w.sid { // damaged checks its members
			if now, err := os.ReadFile(w.manifestPath(s.SID)); err != nil || !bytes.Equal(now, w.manifest) {
				errs = append(errs, fmt.Errorf("snapshot %s has another manifest: %v", s.SID, err))
			}
		} else if err := w.holds(s, w.states[cmp.Or(w.other[s.SID], older)]); err != nil && (w.written == nil || w.holds(s, w.written) != nil) {
			errs = append(errs, err)
		}
	}
	return append(errs, w.damaged()...)
}

// summed returns nil if the summary of a snapshot lies beside its manifest, whole, and is
// of this manifest.
func (w *world) summed(s snapshot) error {
	path := filepath.Join(filepath.Dir(w.manifestPath(s.SID)), "summary.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var summary struct {
		Checksum string
		Manifest struct{ Checksum string }
	}
	if err := json.Unmarshal(data, &summary); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	own, _ := strings.CutPrefix(summary.Checksum, "sha256:")
	sum := sha256.Sum256(bytes.Replace(data, []byte(own), bytes.Repeat([]byte{'0'}, 64), 1))
	if hex.EncodeToString(sum[:]) != own || summary.Manifest.Checksum != s.Checksum {
		return fmt.Errorf("%s is damaged, or not of its manifest", path)
	}
	return nil
}

// damaged returns an error for each member whose content does not match its name,
// and for each member that the restored snapshot has lost. It checks unreferenced
// members too, because the next capture may rely on them.
func (w *world) damaged() (errs []error) {
	members, err := filepath.Glob(filepath.Join(w.store(), "members/*/*"))
	w.must(err)
	for _, path := range members {
		errs = append(errs, verifyMember(path))
	}
	for id := range w.members {
		if !slices.ContainsFunc(members, func(path string) bool { return strings.Contains(path, id) }) {
			errs = append(errs, fmt.Errorf("member %s is gone", id))
		}
	}
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil })
}

func verifyMember(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, z); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)) + ".gz"; got != filepath.Base(path) {
		return fmt.Errorf("%s holds %s", path, got)
	}
	return nil
}

// holds returns nil if a snapshot holds exactly these trees, with their metadata.
func (w *world) holds(s snapshot, want [][]string) error {
	w.Helper()
	dirs, err := w.extract(s)
	if err != nil {
		return err
	}
	top := filepath.Dir(dirs[0])
	if w.single {
		top = filepath.Dir(top)
	}
	defer os.RemoveAll(top)
	for n, v := range s.Volumes {
		if d := disktest.Diff(want[n], w.tree(dirs[n])); d != "" {
			return fmt.Errorf("snapshot %s, volume %s:\n%s", s.SID, v.Name, d)
		}
	}
	return nil
}

// extract extracts the volumes of a snapshot side by side in a new directory. It does so
// without snap, by means of cat and tar.
func (w *world) extract(s snapshot) (dirs []string, err error) {
	w.Helper()
	if len(s.Volumes) != len(w.volumes()) {
		return nil, fmt.Errorf("snapshot %s has %d volumes", s.SID, len(s.Volumes))
	}
	top, err := os.MkdirTemp(w.scratch, "holds")
	w.must(err)
	script := ""
	for n, v := range s.Volumes {
		paths := ""
		for _, m := range v.Members {
			paths += fmt.Sprintf(" members/%s/%s.gz", m.ID[:2], m.ID)
		}
		script += fmt.Sprintf("mkdir $0/%d && cat%s | tar -xzp --xattrs --numeric-owner -C $0/%d && ", n, paths, n)
		dirs = append(dirs, filepath.Join(top, fmt.Sprint(n)))
		if w.single {
			dirs[n] = filepath.Join(dirs[n], filepath.Base(w.volumes()[n].live))
		}
	}
	if out, err := sh(`cd "$1" && `+script+"true", top, w.store()); err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot %s: cat and tar: %w: %s", s.SID, err, out), os.RemoveAll(top))
	}
	return dirs, nil
}
