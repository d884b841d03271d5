// Package swap owns the directories of a transaction. It observes where a volume's
// old and new directories are, plans what to do about them, applies the plan, and
// discards what nobody needs any more.
//
// # How to call it
//
// [Open] opens the volumes of a transaction, and [Tx.CloseVolumes] closes them.
// [Tx.Plan] observes all of them before one is touched. It is the table of
// recovery: the [Layout] that was observed is the row, the [Goal] that [Decide]
// reads off the records is the column, and [ActionFor] gives the [Action].
// [Tx.Apply] takes the actions, repairs directory times and syncs. [Tx.Discard]
// deletes the trees that the goal drops, and ends the transaction.
//
// Before a restore, [OpenLive] opens a live directory, and [Volume.Fit] refuses one
// that can never be exchanged. The restore calls [Tx.RecordReady] when everything is
// staged, [Tx.RecordTimes] before the first exchange, and [Tx.PlanSwap] in place of
// Plan. [FindOrphan] finds the wrapper of a transaction that the caller does not
// know.
//
// # What holds after a crash
//
// Whatever was cut may be run again from [Open]. Each action follows from what is
// observed and not from how far an earlier run came. A directory counts as the old
// or the new one only by its handle (see [disk.Handle]), and never as a partial
// tree: before the first file of a tree is deleted, the tree is renamed to
// <n>.trash and marked with a mode that nobody else gives ([disk.Dir.Condemn]), and
// both are synced. A mode takes no space, and it stays with a tree that somebody
// moves back by hand.
//
// When Apply or Discard returns nil, what it did is durable.
//
// # What holds after an error
//
// An error of Plan or PlanSwap means that no volume may be touched; [*Mismatch]
// carries what an operator can do about it. Only ENOENT is absence: "I cannot see it"
// (EIO, EACCES, ELOOP) and "it is not there" lead to different actions.
//
// After an error of Apply some volumes may have been exchanged and others not; a
// new plan takes it from there. After an error of Discard the transaction has not
// ended, and Discard may be called again.
//
// # What an operator decides
//
// A transaction that no plan fits is frozen. [Tx.PlanResolution] plans what makes
// all its volumes old, or all new, and [Tx.Resolve] takes the steps:
//
//	live / staged     steps
//	k / o, k / -      none
//	k / s             preserve s
//	o / k             exchange
//	s / k             exchange, then preserve s
//	- / k             move k to the live name
//	anything else     refused: k is not there
//
// Here k is the data to keep, o the other, s something that is not snap's, and -
// nothing. To preserve s is to give it a name beside the live directory,
// <name>.snap-kept-<tx>. Every step leaves a line of this list, and the last step
// leaves a row of the table of recovery, so a resolution may be cut anywhere. Only
// directories with recorded handles are ever deleted.
//
// # Why the directories' own times are recorded
//
// XFS changes the modification time of a directory that an exchange moves to
// another parent (xfs_cross_rename in fs/xfs/xfs_inode.c). So every exchange gives
// the staged directory its time back, and Apply gives an old directory that is
// live again the time of the record "times".
//
// # A volume of one file
//
// The same holds of a volume that is one file (File in the begin record), word for word:
// its handle is that of the file, and the exchange is of two names. In the wrapper the
// file has its own name, in a directory of its own, so that the archive of the volume
// is extracted as any other. Three things are simpler. A file is deleted in one step, so
// there is no partial one. No exchange changes the time of a file. And the folder around
// it is not the volume's: an exchange changes the times of that folder, as it does those
// of the folder around a directory. Nothing else in it is touched but a journal of SQLite
// that belongs to the file that goes, which gets another name ([Volume.Journals]).
//
// # Why the staged trees are recorded too
//
// A staged tree is deleted when a restore goes back, and a snapshot holds what was
// staged. But between an exchange and the way back the tree is live, and somebody may
// write to it. Where the tree is later does not tell: a recovery that was cut may have
// exchanged it back already. So the record "times" has a checksum of what stat(2) shows
// of the tree, which [Tx.AsStaged] compares. A clock alone would not do: on a host
// without a clock of its own it goes back at a power cut, often by less than the time
// that the staging took.
//
// # Not promised
//
// Nothing stops another process from renaming a directory in the moment between the
// look and the exchange: renameat2(2) takes names. Apply and Resolve notice it
// afterwards, by handle, and return an error. The caller makes sure that nobody
// writes to the trees.
package swap
