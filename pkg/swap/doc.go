// Package swap owns the directories of a transaction: it observes where a
// volume's old and new directories are, plans what to do about them, applies the
// plan, and discards what nobody needs any more.
//
// [Open] opens the volumes of a transaction. [Tx.Observe] looks at all of them
// before one is touched. [Tx.Plan] is the table of recovery: what was observed is
// the row, the [Goal] that [Decide] reads off the records is the column.
// [Tx.Apply] holds the only exchange and the only repair of directory times.
// [Tx.Discard] deletes the trees that the goal does not keep and ends the
// transaction. A frozen transaction goes the way of [Tx.PlanResolution] and
// [Tx.Resolve], as the operator decides.
//
// Whatever is cut short may be run again: each step follows from what is
// observed, not from how far an earlier run came. The package knows the disk and
// the journal, and nothing of containers or of the store.
package swap
