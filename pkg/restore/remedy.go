package restore

import (
	"errors"
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
)

// frozen is the error of a transaction that recovery does not touch.
func frozen(tx, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return fault(Frozen, "frozen", remedy.Either(remedies(tx, err)), "transaction %s: %w", tx, err)
}

var seeFrozen = remedy.Of("see `", remedy.StatusAll, "`, then docs/operating.md, section Frozen")

// remedies returns the ways out of the situation that err describes, each in one
// sentence.
func remedies(tx string, err error) []remedy.Remedy {
	var mismatch *swap.Mismatch
	var away *swap.Unmounted
	var missing *store.Missing
	var number unix.Errno
	switch {
	case errors.As(err, &mismatch):
		var list []remedy.Remedy
		for _, way := range mismatch.Ways {
			list = append(list, wayOut(tx, way))
		}
		return list
	case errors.As(err, &away):
		return []remedy.Remedy{thenRecover("mount the filesystem of " + away.Path + " (or move the directory above it back)")}
	case errors.As(err, &missing):
		return []remedy.Remedy{thenRecover(missing.Hint())}
	case errors.Is(err, disk.ErrTooNew):
		return []remedy.Remedy{remedy.Of("use the version of snap that wrote the records, or a newer one")}
	case errors.Is(err, disk.ErrDamaged):
		return []remedy.Remedy{
			thenRecover("put tx/" + tx + " back from a copy of the state"),
			remedy.Of("see docs/operating.md, section Frozen, damaged records"),
		}
	case errors.Is(err, fs.ErrPermission):
		return []remedy.Remedy{thenRecover("become root")}
	case errors.As(err, &number):
		return []remedy.Remedy{thenRecover("read the kernel's messages about the disk (dmesg), fix the cause")}
	}
	return []remedy.Remedy{seeFrozen}
}

func thenRecover(first string) remedy.Remedy { return remedy.Of(first+", then ", remedy.RecoverAll) }

// wayOut puts a way out of a mismatch into words.
func wayOut(tx string, way swap.Way) remedy.Remedy {
	again := remedy.Recover(way.Workload)
	switch way.Do {
	case swap.MoveAway:
		return thenRecover("mv " + swap.Quote(way.Path) + " to another name")
	case swap.Unmount:
		return thenRecover("umount " + swap.Quote(way.Path))
	case swap.PutBack:
		first := ""
		if way.Occupied {
			first = " (first move away what is there now)"
		}
		return remedy.Of(fmt.Sprintf("put %s of volume %s back: mv %s %s%s, then ", way.Tree, way.Volume, swap.Quote(way.Path), swap.Quote(way.To), first), again)
	case swap.Resolve:
		return remedy.Of("keep the "+way.Tree.Word()+" data of all volumes: ", remedy.Resolve(way.Workload, tx, way.Tree.Word()))
	case swap.RestoreOld:
		return remedy.Of("keep the new data of all volumes, then ", remedy.Restore(way.Workload, way.SID), " (this brings the old data back, if ", remedy.List(way.Workload), " shows that snapshot)")
	case swap.RestoreNew:
		return remedy.Of("keep the old data of all volumes, then ", remedy.Restore(way.Workload, way.SID), " again")
	case swap.OnlyNew:
		return remedy.Of("keep the new data of all volumes: the old data is not a snapshot yet (--guard after), so what is left of it then becomes one")
	}
	hint := "neither the old nor the new data of all volumes is complete: see docs/operating.md, section Frozen, by hand"
	if way.SID != "" {
		hint += " (the old data may be snapshot " + way.SID + ")"
	}
	return remedy.Of(hint)
}
