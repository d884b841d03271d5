package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
)

// This file says what an operator can do about a transaction that is frozen:
// for each kind of state another sentence, with the next command in it.

// oddity says that the directories are not as the records say, with what can be
// done about it.
type oddity struct {
	text string
	next []string
}

func (o *oddity) Error() string { return o.text }

func frozen(tx, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return fault(Frozen, "frozen", strings.Join(remedies(tx, err), "; or "), "transaction %s: %w", tx, err)
}

// remedies returns what can be done about a state that err describes, each in
// one sentence.
func remedies(tx string, err error) []string {
	const again = ", then run snap recover again"
	var odd *oddity
	var away *unmounted
	var missing *store.Missing
	var number unix.Errno
	switch {
	case errors.As(err, &odd):
		return odd.next
	case errors.As(err, &away):
		return []string{"mount the filesystem of " + away.path + " (or put the directory above it back)" + again}
	case errors.As(err, &missing):
		return []string{missing.Hint() + again}
	case errors.Is(err, disk.ErrTooNew):
		return []string{"use the version of snap that wrote it, or a newer one: it is nothing that this version may decide"}
	case errors.Is(err, disk.ErrDamaged):
		return []string{
			"put tx/" + tx + " back from a copy of the state" + again,
			"see docs/operating.md, section Frozen, damaged records: without them snap can name no directory",
		}
	case errors.Is(err, fs.ErrPermission):
		return []string{"run snap as root" + again}
	case errors.As(err, &number):
		return []string{"see what the kernel says of the disk (dmesg), mend that" + again}
	}
	return []string{"see `snap status`, then docs/operating.md, section Frozen"}
}

// odd describes directories that the table of recovery does not know, or knows
// only with other records.
func (x *txn) odd(views []view) error {
	var text []string
	o := &oddity{}
	keep := x.decision().kept()
	for i, s := range x.sites {
		if moves[views[i].sight()][x.decision()] != freeze {
			continue
		}
		if ok, err := s.anchored(); err == nil && !ok {
			return &unmounted{s.Name, s.path()}
		}
		if views[i].sight() == newGone && x.decision() == guarding {
			if x.noStore != nil { // the old data may be a snapshot, and the tree be deleted for that
				return x.noStore
			}
			words, next := s.astray(x)
			text, o.next = append(text, words), append(o.next, next...)
			continue
		}
		text = append(text, fmt.Sprintf("volume %s (%s): %s", s.Name, s.path(), s.tell()))
		if views[i].live == keep || views[i].staged == keep {
			continue
		}
		if _, path := s.whereabouts(keep); path != "" {
			o.next = append(o.next, fmt.Sprintf("put %s of volume %s back: mv %s %s (first move aside what stands there), then snap recover %s",
				keep.name(""), s.Name, shell(path), shell(s.path()), x.Begin.Workload))
		}
	}
	for _, word := range []string{journal.KeepOld, journal.KeepNew} {
		list, err := x.settlement(word)
		switch {
		case err == nil:
			o.next = append(o.next, fmt.Sprintf("decide for the %s data of all volumes: %s", word, x.resolveCommand(word)))
		case list == nil: // not for want of the data
			return err
		}
	}
	if len(o.next) == 0 {
		hint := "neither the old nor the new data of all volumes is there: see docs/operating.md, section Frozen, by hand"
		if sid := x.preRestore(); sid != "" {
			hint += " (the old data may be snapshot " + sid + ")"
		}
		o.next = []string{hint}
	}
	o.text = fmt.Sprintf("the restore was %s, but %s", x.decision(), strings.Join(text, "; "))
	return o
}

// shell quotes a path for a command that an operator pastes (sh(1), quoting with
// single quotes).
func shell(path string) string {
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

func (x *txn) resolveCommand(word string) string {
	return fmt.Sprintf("snap recover %s --resolve keep-%s --confirm %s", x.Begin.Workload, word, x.ID)
}

// kept is the generation that a decision wants live.
func (d decision) kept() what {
	if d == committed || d == guarding {
		return theNew
	}
	return theOld
}

// lost is the generation that it wants deleted.
func (d decision) lost() what {
	if d.kept() == theNew {
		return theOld
	}
	return theNew
}

// published reports whether the snapshot that a restore makes first exists.
func (e *Engine) published(b *journal.Begin) (bool, error) {
	st, err := e.stored()
	if err != nil {
		return false, err
	}
	_, err = st.Load(b.Workload, b.PreRestoreSID)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
