package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// Tx is one transaction: its folder and the records in it.
type Tx struct {
	ID          string
	Begin       *Begin
	ReadyRecord *Ready // nil until that record is durable
	TimesRecord *Times // nil until that record is durable
	Committed   bool
	Reverted    bool
	Guarding    bool // see Guard
	// Resolved is what the operator has decided about it when it was frozen:
	// KeepOld, KeepNew, or "".
	Resolved    string
	ResolvedSID string // the snapshot that what is not kept becomes

	txs *disk.Dir // the tx folder that it lies in
	dir *disk.Dir
}

// Names inside the tx folder that are not transactions: one that is being made,
// on which nothing depends yet, and one that has ended.
const (
	newPrefix  = ".new-"
	donePrefix = ".done-"
	// tmpSuffix marks a decision that is written but not taken.
	tmpSuffix = ".tmp"
)

// maxRecord bounds a record, in bytes.
const maxRecord = 16 << 20

// Begin opens a transaction: it fills in b's head, tx and time, and writes the
// begin record and, under temporary names, the decisions that may come later.
// After an error the transaction does not exist; at most a folder is left that
// Sweep removes.
func (j *Journal) Begin(h *Held, b *Begin) (*Tx, error) {
	if h.workload == "" {
		return nil, errors.New("open a transaction: no workload is locked")
	}
	txs := j.txs[0]
	if err := txs.Flock(unix.LOCK_SH); err != nil {
		return nil, fmt.Errorf("open a transaction: %w", err)
	}
	defer unlock(txs)
	now := time.Now().UTC()
	b.Tx, b.Created, b.Workload = disk.NewID(now), now, h.workload
	building := newPrefix + b.Tx
	if err := txs.Mkdir(building, 0o700); err != nil {
		return nil, fmt.Errorf("open a transaction: %w", err)
	}
	dir, err := txs.OpenSameMount(building)
	if err != nil {
		return nil, fmt.Errorf("open a transaction: %w", err)
	}
	// By this lock Sweep tells that the process that makes the folder lives.
	if err := dir.Flock(unix.LOCK_EX | unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("open a transaction: %w", errors.Join(err, dir.Close()))
	}
	t := &Tx{ID: b.Tx, Begin: b, txs: txs, dir: dir}
	if err := t.build(building); err != nil {
		return nil, fmt.Errorf("open a transaction: %w", errors.Join(err, t.takeBack(building), dir.Close()))
	}
	dir.Renamed(txs, t.ID)
	return t, nil
}

// takeBack removes what a failed build left. The folder may already have its own
// name, if only the sync after the rename failed.
func (t *Tx) takeBack(building string) error {
	txs, done := t.txs, donePrefix+t.ID
	if err := txs.Rename(t.ID, txs, done); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(txs.RemoveTree(done), txs.RemoveTree(building))
}

func (t *Tx) build(building string) error {
	if err := t.write("begin", t.Begin, beginFormat, t.Begin.version()); err != nil {
		return err
	}
	for _, decision := range t.Begin.decisions() {
		if err := t.write(decision+tmpSuffix, &Decision{Tx: t.ID, Decision: decision}, decisionFormat, recordVersion); err != nil {
			return err
		}
	}
	if err := t.dir.Sync(); err != nil {
		return err
	}
	// The folder appears under its own name with its records whole in it.
	return t.txs.RenameSync(building, t.txs, t.ID)
}

func (t *Tx) write(name string, doc disk.Sealed, format string, version int) error {
	data, err := disk.MarshalSealed(doc, format, version)
	if err != nil {
		return err
	}
	return t.dir.WriteTemp(name, data)
}

// Ready records that everything is staged.
func (t *Tx) Ready(r *Ready) error {
	r.Tx = t.ID
	if err := t.record("ready", r, readyFormat, r.version()); err != nil {
		return err
	}
	t.ReadyRecord = r
	return nil
}

// Times records the live directories' own times, and what the staged trees are.
func (t *Tx) Times(r *Times) error {
	r.Tx = t.ID
	if err := t.record("times", r, timesFormat, r.version()); err != nil {
		return err
	}
	t.TimesRecord = r
	return nil
}

// Commit records that the new data stays. From the moment it returns nil a
// recovery goes forward.
func (t *Tx) Commit() error { return t.decide(commit, &t.Committed) }

// Revert records that a committed restore is taken back after all.
func (t *Tx) Revert() error { return t.decide(revert, &t.Reverted) }

// Guard records that a restore with GuardAfter is committed and its app is up.
// From the moment it returns nil only the snapshot of the displaced trees and
// their deletion remain, and no recovery touches the containers or takes the
// restore back.
func (t *Tx) Guard() error { return t.decide(guarding, &t.Guarding) }

// Resolve records the operator's decision about a frozen restore. It replaces a
// decision that was recorded earlier.
func (t *Tx) Resolve(keep, sid string) error {
	if err := t.record("resolve", &Resolution{Tx: t.ID, Keep: keep, SID: sid}, resolveFormat, recordVersion); err != nil {
		return err
	}
	t.Resolved, t.ResolvedSID = keep, sid
	return nil
}

func (t *Tx) record(name string, doc disk.Sealed, format string, version int) error {
	data, err := disk.MarshalSealed(doc, format, version)
	if err == nil {
		err = t.dir.Publish(name, data)
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", name, err)
	}
	return nil
}

func (t *Tx) decide(decision string, taken *bool) error {
	if err := t.dir.RenameSync(decision+tmpSuffix, t.dir, decision); err != nil {
		return fmt.Errorf("record %s: %w", decision, err)
	}
	*taken = true
	return nil
}

// End ends the transaction. When it returns nil, the transaction will not be found
// again.
func (t *Tx) End() error {
	if err := t.txs.Flock(unix.LOCK_SH); err != nil {
		return fmt.Errorf("end transaction %s: %w", t.ID, err)
	}
	defer unlock(t.txs)
	done := donePrefix + t.ID
	if err := t.txs.RenameSync(t.ID, t.txs, done); err != nil {
		return fmt.Errorf("end transaction %s: %w", t.ID, err)
	}
	if err := errors.Join(t.txs.RemoveTree(done), t.dir.Close()); err != nil {
		return fmt.Errorf("end transaction %s: %w", t.ID, err)
	}
	return nil
}

// Close closes the folder and leaves the transaction as it is.
func (t *Tx) Close() error { return t.dir.Close() }

// List returns the transactions that have not ended, oldest first.
func (j *Journal) List() ([]string, error) {
	names, err := j.names()
	ids := slices.DeleteFunc(names, func(name string) bool { return !disk.ValidID(name) })
	slices.Sort(ids)
	return ids, err
}

// Unended iterates over the transactions that have not ended, oldest first, and closes each
// after its turn. For one whose records cannot be used it gives an error in its place.
func (j *Journal) Unended() (iter.Seq2[*Tx, error], error) {
	ids, err := j.List()
	return func(yield func(*Tx, error) bool) {
		for _, id := range ids {
			tx, err := j.Load(id)
			if errors.Is(err, fs.ErrNotExist) { // it has ended meanwhile
				continue
			}
			more := yield(tx, err)
			if err == nil {
				tx.Close()
			}
			if !more {
				return
			}
		}
	}, err
}

// Strangers returns names in the tx folders that snap never gave.
func (j *Journal) Strangers() ([]string, error) {
	names, err := j.names()
	return slices.DeleteFunc(names, func(name string) bool {
		return disk.ValidID(strings.TrimPrefix(strings.TrimPrefix(name, newPrefix), donePrefix))
	}), err
}

func (j *Journal) names() (all []string, err error) {
	for _, txs := range j.txs {
		names, err := txs.Names()
		if err != nil {
			return nil, err
		}
		all = append(all, names...)
	}
	return all, nil
}

// Sweep removes the folders of transactions that had ended, or had not yet
// begun, when their process died. While another process makes or ends a
// transaction, Sweep does nothing; a later run does.
func (j *Journal) Sweep() error {
	var errs []error
	for _, txs := range j.txs {
		errs = append(errs, sweep(txs))
	}
	return errors.Join(errs...)
}

func sweep(txs *disk.Dir) error {
	err := txs.Flock(unix.LOCK_EX | unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock(txs)
	names, err := txs.Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		id, making := strings.CutPrefix(name, newPrefix)
		if !making {
			id, _ = strings.CutPrefix(name, donePrefix)
		}
		if id == name || !disk.ValidID(id) || making && !txs.Abandoned(name) {
			continue
		}
		errs = append(errs, txs.RemoveTree(name))
	}
	return errors.Join(errs...)
}

func unlock(txs *disk.Dir) { _ = txs.Flock(unix.LOCK_UN) }

// Load reads a transaction whose process is gone. What it has read is durable
// when it returns (see "Why it is like this"). A record that cannot be read, is
// damaged, or is of a newer version is an [*Unusable], and nothing must be done
// about the transaction. fs.ErrNotExist means that the transaction does not
// exist, or has ended.
func (j *Journal) Load(id string) (*Tx, error) {
	if !disk.ValidID(id) {
		return nil, fmt.Errorf("%q is not the id of a transaction", id)
	}
	for _, txs := range j.txs {
		t, err := load(txs, id)
		if !errors.Is(err, fs.ErrNotExist) {
			return t, err
		}
	}
	return nil, fmt.Errorf("transaction %s: %w", id, fs.ErrNotExist)
}

func load(txs *disk.Dir, id string) (*Tx, error) {
	dir, err := txs.OpenSameMount(id)
	if err != nil {
		return nil, err
	}
	t := &Tx{ID: id, txs: txs, dir: dir}
	if err := t.load(); err != nil {
		err = errors.Join(err, dir.Close())
		// Its process may have ended it while it was being read.
		if there, e := txs.Exists(id); e == nil && !there {
			return nil, fmt.Errorf("transaction %s: %w", id, fs.ErrNotExist)
		}
		return nil, &Unusable{Tx: id, Begin: t.Begin, Err: err}
	}
	return t, nil
}

// Unusable is the error of records that cannot be read, or contradict one another.
type Unusable struct {
	Tx    string
	Begin *Begin // nil if that record cannot be used
	Err   error
}

func (u *Unusable) Error() string { return u.Err.Error() }
func (u *Unusable) Unwrap() error { return u.Err }

// WorkloadOf returns the workload of an unusable transaction, "" if its begin record
// does not tell.
func WorkloadOf(err error) string {
	if u, is := errors.AsType[*Unusable](err); is && u.Begin != nil {
		return u.Begin.Workload
	}
	return ""
}

func (t *Tx) load() (err error) {
	if err := errors.Join(t.txs.Sync(), t.dir.Sync()); err != nil {
		return err
	}
	if t.Begin, err = read(t, "begin", &Begin{}, beginFormat, func(b *Begin) error { return b.validate(t.ID) }); err != nil {
		return err
	}
	if t.Begin == nil {
		return fmt.Errorf("%s: the begin record is missing: %w", t.dir.Path(), disk.ErrDamaged)
	}
	// The last record comes first. If the process lives and writes them meanwhile, a
	// record is then never found without those that were written before it.
	resolution, err := read(t, "resolve", &Resolution{}, resolveFormat, func(r *Resolution) error { return r.validate(t.ID) })
	if err != nil {
		return err
	}
	if resolution != nil {
		t.Resolved, t.ResolvedSID = resolution.Keep, resolution.SID
	}
	if t.Begin.Guard == GuardAfter {
		if t.Guarding, err = t.loadDecision(guarding); err != nil {
			return err
		}
	}
	if t.Reverted, err = t.loadDecision(revert); err != nil {
		return err
	}
	if t.Committed, err = t.loadDecision(commit); err != nil {
		return err
	}
	if t.TimesRecord, err = read(t, "times", &Times{}, timesFormat, func(r *Times) error { return r.validate(t.Begin) }); err != nil {
		return err
	}
	if t.ReadyRecord, err = read(t, "ready", &Ready{}, readyFormat, func(r *Ready) error { return r.validate(t.Begin) }); err != nil {
		return err
	}
	return t.consistent()
}

// loadDecision reports whether a decision was taken. A decision of a restore that
// is there under neither of its names was removed, and nobody can tell whether it
// was taken.
func (t *Tx) loadDecision(name string) (bool, error) {
	// This name comes first: the process may live, and take the decision just now.
	waiting, err := t.dir.Exists(name + tmpSuffix)
	if err != nil {
		return false, err
	}
	decision, err := read(t, name, &Decision{}, decisionFormat, func(d *Decision) error { return d.validate(t.ID, name) })
	if err != nil {
		return false, err
	}
	taken := decision != nil
	if taken && waiting {
		if waiting, err = t.dir.Exists(name + tmpSuffix); err != nil {
			return false, err
		}
	}
	if t.Begin.Kind == Restore && taken == waiting {
		how := "neither %s nor %s is there"
		if taken {
			how = "%s and %s are both there"
		}
		return false, fmt.Errorf("%s: "+how+": %w", t.dir.Path(), name, name+tmpSuffix, disk.ErrDamaged)
	}
	return taken, nil
}

// consistent refuses a set of records that no order of steps can leave.
func (t *Tx) consistent() error {
	switch {
	case (t.Committed || t.TimesRecord != nil || t.Resolved != "") && t.ReadyRecord == nil:
		return fmt.Errorf("%s: times, commit or resolve without ready: %w", t.dir.Path(), disk.ErrDamaged)
	case t.Committed && t.TimesRecord == nil:
		return fmt.Errorf("%s: commit without times: %w", t.dir.Path(), disk.ErrDamaged)
	case t.Reverted && !t.Committed:
		return fmt.Errorf("%s: revert without commit: %w", t.dir.Path(), disk.ErrDamaged)
	case t.Guarding && (!t.Committed || t.Reverted):
		return fmt.Errorf("%s: guarding without commit, or with revert: %w", t.dir.Path(), disk.ErrDamaged)
	}
	return nil
}

// read makes a record durable and reads it into doc. It returns nil if there is no
// such record.
func read[D disk.Sealed](t *Tx, name string, doc D, format string, validate func(D) error) (none D, err error) {
	err = t.dir.SyncFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return none, nil
	}
	if err != nil {
		return none, err
	}
	data, err := t.dir.ReadFile(name, maxRecord)
	if err != nil {
		return none, err
	}
	version := recordVersion
	switch format {
	case beginFormat:
		version = beginVersion
	case readyFormat:
		version = readyVersion
	case timesFormat:
		version = timesVersion
	}
	if err = disk.UnmarshalSealed(data, doc, format, version); err == nil {
		err = validate(doc)
	}
	if err != nil {
		return none, fmt.Errorf("%s/%s: %w", t.dir.Path(), name, err)
	}
	return doc, nil
}

// Before returns the workload's containers as they were before they were touched,
// with their images.
func (t *Tx) Before() []runtime.Container {
	if t.ReadyRecord != nil {
		return t.ReadyRecord.Containers
	}
	return t.Begin.Containers
}

// Found says in one word how far the transaction came.
func (t *Tx) Found() string {
	switch {
	case t.Resolved != "":
		return "resolve"
	case t.Reverted:
		return "revert"
	case t.Guarding:
		return "guarding"
	case t.Committed:
		return "commit"
	case t.ReadyRecord != nil:
		return "ready"
	}
	return "begin"
}
