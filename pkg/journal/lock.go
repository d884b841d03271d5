package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// ErrBusy says that another process holds a lock that is needed.
var ErrBusy = errors.New("busy")

// Journal is the lock and tx folders of a host's state.
type Journal struct {
	root  *disk.Dir   // of the state: the audit log lies there
	locks []*disk.Dir // a lock is taken in each
	txs   []*disk.Dir // new transactions go into the first
}

// Open opens the journal in state, the directory of a host's state, and makes
// its folders when they are missing. It keeps state, which the caller closes
// after the journal.
func Open(state *disk.Dir) (*Journal, error) {
	locks, err := state.Ensure("lock", 0o700)
	if err != nil {
		return nil, err
	}
	txs, err := state.Ensure("tx", 0o700)
	if err != nil {
		return nil, errors.Join(err, locks.Close())
	}
	return &Journal{root: state, locks: []*disk.Dir{locks}, txs: []*disk.Dir{txs}}, nil
}

// Adopt takes over the transactions that an earlier version of snap, which kept
// its journal in the store, has left there: they are listed, loaded and ended
// where they are. Where such a journal exists every lock is taken in its folder
// too, against a process of the earlier version that still runs.
func (j *Journal) Adopt(store *disk.Dir) error {
	if same, err := store.SameAs(j.root); err != nil || same {
		return err
	}
	txs, err := store.OpenIfThere("tx")
	if err != nil {
		return fmt.Errorf("open the journal in the store: %w", err)
	}
	if txs == nil {
		return nil
	}
	locks, err := store.Ensure("lock", 0o700)
	if err != nil {
		return errors.Join(fmt.Errorf("open the journal in the store: %w", err), txs.Close())
	}
	j.locks, j.txs = append(j.locks, locks), append(j.txs, txs)
	return nil
}

// Root returns the directory of the state.
func (j *Journal) Root() *disk.Dir { return j.root }

// Close closes the folders; held locks stay held.
func (j *Journal) Close() error {
	var errs []error
	for _, d := range append(slices.Clone(j.locks), j.txs...) {
		errs = append(errs, d.Close())
	}
	return errors.Join(errs...)
}

// Held is what this process has locked: a workload, or the stores alone.
type Held struct {
	journal  *Journal
	workload string // "" where the stores alone are locked
	who      string // what others read of the holder
	files    []*os.File
	names    map[string]bool
}

// Workload returns whose lock this is, "" where the stores alone are locked, and
// for nil.
func (h *Held) Workload() string {
	if h == nil {
		return ""
	}
	return h.workload
}

// storeLock is held shared by whoever relies on members that are in a store, and
// exclusively by whoever removes members. It is one for all stores of the host;
// few hosts have two. The config lets no workload have this name.
const storeLock = "store.lock"

// Lock locks a workload for this process, and shares the stores' lock. It
// returns [ErrBusy], with the holder, when another process has the workload, or
// the stores alone; verb is what others then read of us.
func (j *Journal) Lock(workload, verb string) (*Held, error) {
	h := &Held{journal: j, workload: workload, who: verb + " " + workload, names: map[string]bool{}}
	if err := h.take(workload+".lock", unix.LOCK_EX); err != nil {
		h.Release()
		return nil, fmt.Errorf("workload %s: %w", workload, err)
	}
	return h.stores(unix.LOCK_SH)
}

// LockWait is Lock that tries again until ctx ends; then it returns ErrBusy.
func (j *Journal) LockWait(ctx context.Context, workload, verb string) (*Held, error) {
	return Wait(ctx, func() (*Held, error) { return j.Lock(workload, verb) })
}

// ShareStore shares the stores' lock without a workload: no member that is there
// goes until Release. It returns [ErrBusy] when another process has the stores
// alone.
func (j *Journal) ShareStore(verb string) (*Held, error) {
	return (&Held{journal: j, who: verb, names: map[string]bool{}}).stores(unix.LOCK_SH)
}

// LockStore locks the stores for this process alone, for what removes members.
// It waits, until ctx ends, for whoever works on a workload or reads a snapshot;
// then it returns [ErrBusy].
func (j *Journal) LockStore(ctx context.Context, verb string) (*Held, error) {
	return Wait(ctx, func() (*Held, error) {
		return (&Held{journal: j, who: verb, names: map[string]bool{}}).stores(unix.LOCK_EX)
	})
}

// Workloads also locks workloads, without waiting. After an error those that were taken
// stay held until Release.
func (h *Held) Workloads(names ...string) error {
	for _, name := range slices.Sorted(slices.Values(names)) {
		if err := h.take(name+".lock", unix.LOCK_EX); err != nil {
			return fmt.Errorf("workload %s: %w", name, err)
		}
	}
	return nil
}

// stores adds the stores' lock to h, and releases all of h if it cannot be had.
func (h *Held) stores(how int) (*Held, error) {
	if err := h.take(storeLock, how); err != nil {
		h.Release()
		return nil, fmt.Errorf("the store: %w", err)
	}
	return h, nil
}

// Wait calls lock until it does not return [ErrBusy], or until ctx ends; then it returns
// ErrBusy. lock is called at least once, and holds nothing when it fails.
func Wait(ctx context.Context, lock func() (*Held, error)) (*Held, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		h, err := lock()
		if !errors.Is(err, ErrBusy) {
			return h, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// Volumes also locks directories, each by its file handle, so that workloads
// whose directories are the same, or lie inside one another, exclude each other,
// whatever paths they use. A directory is locked for this process alone, and the
// directories above it are shared. The lock of a path that does not exist is named
// after the nearest directory above it that does. Locks are taken in the order of
// the handles and without waiting. After an error those that were taken stay held
// until Release.
func (h *Held) Volumes(paths []string) error {
	type lock struct {
		path string
		how  int
	}
	locks := map[string]lock{}
	for _, path := range paths {
		own, above, err := lockNames(path)
		if err != nil {
			return err
		}
		locks[own] = lock{path, unix.LOCK_EX}
		for _, name := range above {
			if locks[name].how != unix.LOCK_EX {
				locks[name] = lock{path, unix.LOCK_SH}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(locks)) {
		if err := h.take(name, locks[name].how); err != nil {
			return fmt.Errorf("volume %s: %w", locks[name].path, err)
		}
	}
	return nil
}

// lockNames returns the lock of path, and those of the directories above it:
// those that the path names and those that it really lies in, which differ where
// symbolic links are on the way.
func lockNames(path string) (own string, above []string, err error) {
	dir := path
	var missing []string
	for {
		own, err = lockName(dir)
		if err == nil {
			break
		}
		if dir == "/" || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return "", nil, err
		}
		missing = append([]string{filepath.Base(dir)}, missing...)
		dir = filepath.Dir(dir)
	}
	for i, nearest := 0, own; i < len(missing); i++ {
		above = append(above, own)
		sum := sha256.Sum256([]byte(filepath.Join(missing[:i+1]...)))
		own = strings.TrimSuffix(nearest, ".lock") + "+" + hex.EncodeToString(sum[:8]) + ".lock"
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", nil, err
	}
	for _, dir := range []string{dir, real} {
		for dir != "/" {
			dir = filepath.Dir(dir)
			// A directory whose filesystem has no handles (an overlay as root) is
			// skipped: no volume can be there either.
			if name, err := lockName(dir); err == nil {
				above = append(above, name)
			}
		}
	}
	return own, above, nil
}

func lockName(path string) (string, error) {
	d, err := disk.OpenRoot(path)
	if err != nil {
		return "", err
	}
	defer d.Close()
	handle, err := d.Handle()
	if err != nil {
		return "", err
	}
	return "vol-" + string(handle) + ".lock", nil
}

// take takes a lock in each folder of locks.
func (h *Held) take(name string, how int) error {
	if h.names[name] {
		return nil
	}
	for _, locks := range h.journal.locks {
		f, err := h.lock(locks, name, how)
		if err != nil {
			return err
		}
		h.files = append(h.files, f)
	}
	h.names[name] = true
	return nil
}

func (h *Held) lock(locks *disk.Dir, name string, how int) (*os.File, error) {
	f, err := locks.OpenShared(name)
	if err != nil {
		return nil, fmt.Errorf("open the lock: %w", err)
	}
	if err := flock(int(f.Fd()), how); err != nil {
		defer f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrBusy, holder(f))
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	// This is for the message of whoever finds it locked. Nothing depends on it.
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		_ = f.Truncate(0) // of who had it alone before
	}
	if how == unix.LOCK_EX {
		_, _ = fmt.Fprintf(f, "snap %s, process %d, since %s", h.who, os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	}
	return f, nil
}

// Directories locks directories by their handles, for this process alone. A
// restore so locks what is about to become live.
func (h *Held) Directories(handles []disk.Handle) error {
	for _, handle := range handles {
		if err := h.take("vol-"+string(handle)+".lock", unix.LOCK_EX); err != nil {
			return fmt.Errorf("directory %s: %w", handle, err)
		}
	}
	return nil
}

// flock tries several times: `snap status` takes a lock for a moment, to look.
func flock(fd, how int) error {
	var err error
	for range 5 {
		if err = disk.Retry(func() error { return unix.Flock(fd, how|unix.LOCK_NB) }); !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return err
}

func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil || len(text) == 0 {
		return "held by another process"
	}
	return "held by " + string(text)
}

// Release releases the locks. It may be called again.
func (h *Held) Release() {
	for _, f := range slices.Backward(h.files) {
		f.Close()
	}
	h.files, h.names = nil, map[string]bool{}
}
