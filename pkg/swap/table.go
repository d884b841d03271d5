package swap

import "github.com/tiny-forge/snap/pkg/journal"

// Goal is which of a volume's two directories should be live, by the records:
// the column of the table of recovery.
type Goal int

// The goals.
const (
	Undecided Goal = iota // no commit
	Committed
	Reverted
	// Guarding is Committed with `--guard after`, while no snapshot of the old
	// data exists: nothing may be deleted.
	Guarding
)

// Layout is what was found at the live name and at the staged name of a volume: the
// row of the table. "Old" and "new" are the handles of the ready record.
type Layout int

// The layouts.
const (
	OldNew  Layout = iota // as before the exchange
	NewOld                // as after the exchange
	OldGone               // the staged tree is deleted
	NewGone               // the displaced tree is deleted, or was taken away
	Unknown               // anything else
)

// Action is what to do about one volume.
type Action int

// The actions.
const (
	Freeze   Action = iota // touch nothing, of any volume
	Keep                   // live is as it should be
	Exchange               // exchange live and staged
)

// layouts are the rows that the table knows, by what was found at the two names.
var layouts = map[[2]Occupant]Layout{{Old, New}: OldNew, {New, Old}: NewOld, {Old, Absent}: OldGone, {New, Absent}: NewGone}

var table = [...][4]Action{
	//        Undecided, Committed, Reverted, Guarding
	OldNew:  {Keep, Exchange, Keep, Exchange},
	NewOld:  {Exchange, Keep, Exchange, Keep},
	OldGone: {Keep, Freeze, Keep, Freeze},
	NewGone: {Freeze, Keep, Freeze, Freeze},
	Unknown: {Freeze, Freeze, Freeze, Freeze},
}

// ActionFor is the table of recovery.
func ActionFor(l Layout, g Goal) Action { return table[l][g] }

func (l Layout) String() string {
	return [...]string{
		OldNew:  "the old data is live, the new is staged",
		NewOld:  "the new data is live, the old is displaced",
		OldGone: "the old data is live, nothing is staged",
		NewGone: "the new data is live, the old is deleted",
		Unknown: "not as snap left it",
	}[l]
}

func (g Goal) String() string {
	return [...]string{
		Undecided: "not committed", Committed: "committed", Reverted: "reverted",
		Guarding: "committed but not yet guarded",
	}[g]
}

// Keeps is the generation that the goal wants live.
func (g Goal) Keeps() Occupant {
	if g == Committed || g == Guarding {
		return New
	}
	return Old
}

// Drops is the generation that the goal wants deleted.
func (g Goal) Drops() Occupant { return g.Keeps().Other() }

// Decision is what the records of a transaction say. Nothing but [Decide] reads the
// flags of a record.
type Decision struct {
	Goal Goal
	// Staged says that the ready record exists: everything is staged, and the
	// handles are known. Before it nothing live was touched.
	Staged bool
	// Committed says that the commit was recorded, whatever was decided later.
	Committed bool
	// AppUp says that the app was brought up: only the guard and the clean-up are left.
	AppUp bool
	// Operator says that the goal is an operator's decision.
	Operator bool
	// Guards says that the old data must become the pre-restore snapshot before it
	// is deleted. What an operator decides against becomes another one.
	Guards bool
	// TakenSID is the snapshot that data which is taken away becomes.
	TakenSID string
}

// Decide reads the records. An operator's decision overrides the earlier records.
// guarded tells whether the snapshot of the old data exists, which matters for
// `--guard after` only.
func Decide(tx *journal.Tx, guarded bool) Decision {
	d := Decision{
		Goal: goal(tx, guarded), Staged: tx.ReadyRecord != nil, Committed: tx.Committed, Operator: tx.Resolved != "",
		AppUp: tx.Guarding && tx.Resolved == "", TakenSID: tx.Begin.RevertSID,
	}
	if d.Operator {
		d.TakenSID = tx.ResolvedSID
	}
	d.Guards = tx.Begin.Guard == journal.GuardAfter && !d.Operator && d.Goal.Keeps() == New
	return d
}

func goal(tx *journal.Tx, guarded bool) Goal {
	switch {
	case tx.Resolved == journal.KeepOld:
		return Reverted
	case tx.Resolved == journal.KeepNew:
		return Committed
	case tx.Reverted:
		return Reverted
	case tx.Committed && tx.Begin.Guard == journal.GuardAfter && !guarded:
		return Guarding
	case tx.Committed:
		return Committed
	}
	return Undecided
}
