// Package remedy says what an operator can do about an error, without the words of
// a command line or of a page: text, with operations among it. The engine makes a
// [Remedy] with [Of]; the door turns it into text with [Remedy.Text]. [Quote] and [Shown]
// write a name that anybody may have chosen, for a shell and for a reader.
package remedy

import "strings"

// Operation is something that snap can be asked to do. The door says it in its own
// words: a command line, or a button.
type Operation struct {
	Verb     Verb
	Workload string // "" for all
	ID       string // of a snapshot; with Resolve of the transaction
	Keep     string // of Resolve: journal.KeepOld or KeepNew
	To       string // of Restore: the directory that takes the snapshot in place of the volumes
	Part     string // of Ls, and of Restore with To: VOLUME or VOLUME:PATH

	Confirmed bool // it carries its confirmation
}

// Verb is a kind of [Operation].
type Verb string

// The verbs.
const (
	DoRecover        Verb = "recover"
	DoRecoverOffline Verb = "recover offline"
	DoResolve        Verb = "resolve"
	DoRestore        Verb = "restore"
	DoPlan           Verb = "plan" // of a restore
	DoUndo           Verb = "undo" // of the last restore
	DoDeploy         Verb = "deploy"
	DoList           Verb = "list"
	DoLs             Verb = "ls"
	DoShow           Verb = "show"
	DoStatus         Verb = "status"
	DoVerify         Verb = "verify"
	DoRepair         Verb = "repair"
	DoCapture        Verb = "capture"
	DoPrune          Verb = "prune"
	DoConfigFrom     Verb = "restore config-from"
)

// Remedy is what an operator can do about an error: text, with operations among it.
// The zero Remedy is empty.
type Remedy struct {
	parts []part
}

type part struct {
	text string
	op   *Operation // nil: the text
}

// Of makes a remedy of strings, operations and other remedies, in order. It is empty
// for "".
func Of(parts ...any) Remedy {
	var r Remedy
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			if p != "" {
				r.parts = append(r.parts, part{text: p})
			}
		case Operation:
			r.parts = append(r.parts, part{op: &p})
		case Remedy:
			r.parts = append(r.parts, p.parts...)
		}
	}
	return r
}

// Either joins alternatives.
func Either(list []Remedy) Remedy {
	var r Remedy
	for i, one := range list {
		if i > 0 {
			r = Of(r, "; or ")
		}
		r = Of(r, one)
	}
	return r
}

// Empty reports whether the remedy says nothing.
func (r Remedy) Empty() bool { return len(r.parts) == 0 }

// Text returns the remedy as text. say returns the text for an operation.
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

// Recover finishes or undoes what was interrupted of a workload.
func Recover(workload string) Operation { return Operation{Verb: DoRecover, Workload: workload} }

// List lists the snapshots of a workload.
func List(workload string) Operation { return Operation{Verb: DoList, Workload: workload} }

// Show shows what a snapshot is of.
func Show(workload, sid string) Operation {
	return Operation{Verb: DoShow, Workload: workload, ID: sid}
}

// Ls lists what is in a snapshot, or in a part of it.
func Ls(workload, sid, part string) Operation {
	return Operation{Verb: DoLs, Workload: workload, ID: sid, Part: part}
}

// Capture makes a snapshot of a workload.
func Capture(workload string) Operation { return Operation{Verb: DoCapture, Workload: workload} }

// Verify looks for damage in the snapshots of a workload.
func Verify(workload string) Operation { return Operation{Verb: DoVerify, Workload: workload} }

// Repair stores anew what is damaged of a snapshot, or of all for "".
func Repair(workload, sid string) Operation {
	return Operation{Verb: DoRepair, Workload: workload, ID: sid}
}

// ListAll lists the snapshots of all workloads.
var ListAll = Operation{Verb: DoList}

// Resolve decides about a frozen restore.
func Resolve(workload, tx, keep string) Operation {
	return Operation{Verb: DoResolve, Workload: workload, ID: tx, Keep: keep, Confirmed: true}
}

// Restore puts a snapshot back.
func Restore(workload, sid string) Operation {
	return Operation{Verb: DoRestore, Workload: workload, ID: sid}
}

// RestoreTo puts a snapshot into a directory beside everything. The operator names it.
func RestoreTo(workload, sid string) Operation {
	return Operation{Verb: DoRestore, Workload: workload, ID: sid, To: "DIR"}
}

// Plan shows what a restore would do.
func Plan(workload, sid string) Operation {
	return Operation{Verb: DoPlan, Workload: workload, ID: sid}
}

// PartTo puts a part of a snapshot into a directory beside everything.
func PartTo(workload, sid, part string) Operation {
	return Operation{Verb: DoRestore, Workload: workload, ID: sid, To: "DIR", Part: part}
}

// ConfigFrom shows what a snapshot keeps of the config.
func ConfigFrom(workload, sid string) Operation {
	return Operation{Verb: DoConfigFrom, Workload: workload, ID: sid}
}

// ConfigTo puts what a snapshot keeps of the config into a directory. The operator names it.
func ConfigTo(workload, sid string) Operation {
	return Operation{Verb: DoConfigFrom, Workload: workload, ID: sid, To: "DIR"}
}

// Operations on all workloads.
var (
	RecoverAll = Operation{Verb: DoRecover}
	StatusAll  = Operation{Verb: DoStatus}
)
