package restore

// A restore, in order, and what a power cut between any two lines leaves to
// recovery. "Live" is what the app's containers mount, "staged" the new tree
// beside it, in the wrapper .snap-<tx>.
//
//	preflight   refuses; changes nothing
//	begin       record: names of all that may be left behind
//	stage       extract, verify, syncfs
//	pass one    (--guard before) first pass of the pre-restore capture
//	ready       record: handles of live and staged; containers
//	                                     ↑ up to here: delete the staged trees
//	fence       restart policies to "no", stop, look that nobody writes
//	pass two    (--guard before) second pass; the pre-restore snapshot is published
//	swap        exchange live and staged, volume by volume; syncfs
//	                                     ↑ up to here: exchange back what was
//	                                       exchanged, bring the old app up
//	commit      record: THE COMMIT POINT. No container starts before it.
//	                                     ↓ from here: exchange the rest, bring
//	                                       the new app up
//	redeploy    bring the app up; wait for its health
//	revert      record, only where the new app does not come up: go back
//	                                     ↓ from here: exchange back, old app
//	guard       (--guard after) record: nothing is left to do but this. Then the
//	            pre-restore snapshot is published, of the displaced trees.
//	                                     ↑ up to here: no displaced tree is deleted
//	settle      policies; delete the displaced trees; end the transaction
//
// Recovery does not ask how far a restore came beyond its records. It looks
// where each volume's two directories are and takes the step of this table, so
// it may itself be cut anywhere and run again. What an operator decides about a
// restore that froze stands in operator.go.

// decision is what the records say.
type decision int

const (
	undecided decision = iota // no commit
	committed
	reverted
	guarding // committed, and of the old data no snapshot exists yet: guard after
)

// sight is where a volume's two directories were seen: what stands at the live
// name / what stands at the staged name. "Old" and "new" are the handles of
// the ready record.
type sight int

const (
	oldNew  sight = iota // as before the swap
	newOld               // as after it
	oldGone              // old at live, nothing staged: the staged tree is deleted
	newGone              // new at live, nothing staged: the displaced tree is deleted, or taken away
	strange              // anything else
)

// move is what to do about one volume.
type move int

const (
	freeze   move = iota // touch nothing, of any volume
	keep                 // live is as it should be
	exchange             // exchange live and staged
)

var moves = [...][4]move{
	//         undecided, committed, reverted, guarding
	oldNew:  {keep, exchange, keep, exchange},
	newOld:  {exchange, keep, exchange, keep},
	oldGone: {keep, freeze, keep, freeze},
	newGone: {freeze, keep, freeze, freeze},
	strange: {freeze, freeze, freeze, freeze},
}

func (s sight) String() string {
	return [...]string{
		oldNew:  "the old data is live, the new is staged",
		newOld:  "the new data is live, the old is displaced",
		oldGone: "the old data is live, nothing is staged",
		newGone: "the new data is live, the old is deleted",
		strange: "not as snap left it",
	}[s]
}

func (d decision) String() string {
	return [...]string{
		undecided: "not committed", committed: "committed", reverted: "reverted",
		guarding: "committed but not yet guarded",
	}[d]
}
