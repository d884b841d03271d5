package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
)

// Operation is something that snap can be asked to do, as a remedy names it. The
// door says it in its own words: a command line, or a button.
type Operation struct {
	Verb     Verb
	Workload string // "" for all
	ID       string // of a snapshot; with Resolve of the transaction
	Keep     string // of Resolve: journal.KeepOld or KeepNew
	// Confirmed says that the operation carries its confirmation.
	Confirmed bool
}

// Verb is a kind of [Operation].
type Verb string

// The verbs.
const (
	DoRecover        Verb = "recover"
	DoRecoverOffline Verb = "recover offline"
	DoResolve        Verb = "resolve"
	DoRestore        Verb = "restore"
	DoDeploy         Verb = "deploy"
	DoList           Verb = "list"
	DoShow           Verb = "show"
	DoStatus         Verb = "status"
)

// Remedy is what an operator can do about an error: words, with operations among
// them. The zero Remedy is none.
type Remedy struct {
	parts []part
}

type part struct {
	text string
	op   *Operation // nil: the text
}

// remedy makes a remedy of strings, operations and other remedies, in order.
func remedy(parts ...any) Remedy {
	var r Remedy
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			r.parts = append(r.parts, part{text: p})
		case Operation:
			r.parts = append(r.parts, part{op: &p})
		case Remedy:
			r.parts = append(r.parts, p.parts...)
		}
	}
	return r
}

// words is a remedy without operations; none for "".
func words(text string) Remedy {
	if text == "" {
		return Remedy{}
	}
	return remedy(text)
}

// either joins remedies of which one is enough.
func either(list []Remedy) Remedy {
	var r Remedy
	for i, one := range list {
		if i > 0 {
			r = remedy(r, "; or ")
		}
		r = remedy(r, one)
	}
	return r
}

// Empty reports whether there is no remedy.
func (r Remedy) Empty() bool { return len(r.parts) == 0 }

// Text returns the remedy in words. say gives the words for an operation.
func (r Remedy) Text(say func(Operation) string) string {
	var b strings.Builder
	for _, p := range r.parts {
		if p.op != nil {
			b.WriteString(say(*p.op))
		} else {
			b.WriteString(p.text)
		}
	}
	return b.String()
}

func recovers(workload string) Operation { return Operation{Verb: DoRecover, Workload: workload} }
func lists(workload string) Operation    { return Operation{Verb: DoList, Workload: workload} }

func resolves(workload, tx, keep string) Operation {
	return Operation{Verb: DoResolve, Workload: workload, ID: tx, Keep: keep, Confirmed: true}
}

func restores(workload, sid string) Operation {
	return Operation{Verb: DoRestore, Workload: workload, ID: sid}
}

var (
	recoverAll = Operation{Verb: DoRecover}
	statusAll  = Operation{Verb: DoStatus}
)

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
