package restore

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
)

// This file says what an operator can do about a transaction that is frozen: for
// each kind of state another sentence, with the next command in it.

// frozen is the error of a transaction that recovery does not touch.
func frozen(tx, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return fault(Frozen, "frozen", either(remedies(tx, err)), "transaction %s: %w", tx, err)
}

var seeFrozen = remedy("see `", statusAll, "`, then docs/operating.md, section Frozen")

// remedies returns what can be done about a state that err describes, each in one
// sentence.
func remedies(tx string, err error) []Remedy {
	var mismatch *swap.Mismatch
	var away *swap.Unmounted
	var missing *store.Missing
	var number unix.Errno
	switch {
	case errors.As(err, &mismatch):
		var list []Remedy
		for _, way := range mismatch.Ways {
			list = append(list, wayOut(tx, way))
		}
		return list
	case errors.As(err, &away):
		return []Remedy{thenRecover("mount the filesystem of " + away.Path + " (or put the directory above it back)")}
	case errors.As(err, &missing):
		return []Remedy{thenRecover(missing.Hint())}
	case errors.Is(err, disk.ErrTooNew):
		return []Remedy{remedy("use the version of snap that wrote it, or a newer one: this version cannot decide about it")}
	case errors.Is(err, disk.ErrDamaged):
		return []Remedy{
			thenRecover("put tx/" + tx + " back from a copy of the state"),
			remedy("see docs/operating.md, section Frozen, damaged records: without them snap can name no directory"),
		}
	case errors.Is(err, fs.ErrPermission):
		return []Remedy{thenRecover("become root")}
	case errors.As(err, &number):
		return []Remedy{thenRecover("see what the kernel says of the disk (dmesg), mend that")}
	}
	return []Remedy{seeFrozen}
}

func thenRecover(first string) Remedy { return remedy(first+", then ", recoverAll) }

// wayOut puts a way out of a mismatch into words.
func wayOut(tx string, way swap.Way) Remedy {
	again := recovers(way.Workload)
	switch way.Do {
	case swap.MoveAway:
		return thenRecover("mv " + swap.Quote(way.Path) + " to another name")
	case swap.Unmount:
		return thenRecover("umount " + swap.Quote(way.Path))
	case swap.PutBack:
		first := ""
		if way.Occupied {
			first = " (first move aside what stands there)"
		}
		return remedy(fmt.Sprintf("put %s of volume %s back: mv %s %s%s, then ", way.Tree, way.Volume, swap.Quote(way.Path), swap.Quote(way.To), first), again)
	case swap.Resolve:
		return remedy("decide for the "+way.Tree.Word()+" data of all volumes: ", resolves(way.Workload, tx, way.Tree.Word()))
	case swap.RestoreOld:
		return remedy("keep the new data of all volumes, then ", restores(way.Workload, way.SID), " (the data from before, if ", lists(way.Workload), " shows it)")
	case swap.RestoreNew:
		return remedy("keep the old data of all volumes, then ", restores(way.Workload, way.SID), " again")
	case swap.OnlyNew:
		return remedy("keep the new data of all volumes: there is no snapshot yet of what was live before the restore (--guard after), so what is left of it becomes one then")
	}
	hint := "neither the old nor the new data of all volumes is there: see docs/operating.md, section Frozen, by hand"
	if way.SID != "" {
		hint += " (the old data may be snapshot " + way.SID + ")"
	}
	return remedy(hint)
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

// untouched makes sure of a restore without a ready record that no live directory
// has moved: otherwise what lies in the wrappers may be the only copy of the old
// data, and the record was lost.
func (e *Engine) untouched(x *swap.Tx) error {
	if err := x.Untouched(); err != nil || x.Begin.Kind != journal.Restore {
		return err
	}
	published, err := e.published(x.Begin)
	if err != nil {
		return err
	}
	if published {
		return fmt.Errorf("the ready record is missing: the pre-restore snapshot %s, which is made after it, exists: %w", x.Begin.PreRestoreSID, disk.ErrDamaged)
	}
	return nil
}
