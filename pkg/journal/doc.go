// Package journal holds the locks and the transactions of a host, in the
// directory of its state (package state).
//
// An operation first takes its locks ([Journal.Lock], [Held.Volumes]). Then it
// opens a transaction ([Journal.Begin]) and records its progress: [Tx.Ready],
// [Tx.Times], [Tx.Commit], [Tx.Revert], [Tx.Guard]. [Tx.Resolve] records the
// decision of an operator. [Tx.End] ends the transaction. What was done is noted
// in the audit log ([Journal.Record]).
//
// After a crash, [Journal.List] and [Journal.Load] say which transactions have
// not ended, and how far each came. pkg/swap decides what a recovery then does.
//
// A record is a small file with a checksum in <state>/tx/<txid>/. It does not
// change once it has its name; only a later resolve replaces an earlier one.
// When a method that writes a record returns nil, the record is durable. When it
// returns an error, the record is either there as a whole or not at all, and
// only Load can tell.
//
// An operation that only reads snapshots shares the lock of the stores
// ([Journal.ShareStore]), as an operation on a workload does. An operation that
// removes members holds that lock alone ([Journal.LockStore]).
//
// Locks are advisory (flock(2)): they keep processes of snap apart that use the
// same state, and nobody else. The kernel drops them when a process dies, however
// it dies.
//
// # Why it is like this
//
// A disk may fill up while the app is down. So Begin also writes the decisions that
// may come later (commit.tmp, revert.tmp, guarding.tmp): to take one is a rename,
// which needs no space.
//
// Two records decide. With "commit" alone a restore that is finished could not be
// told from one that is being taken back because the app did not come up; "revert"
// can only follow "commit".
//
// Load syncs the records and their folder before it reads them: a record that was
// renamed and not yet synced could otherwise be acted on and then be lost. Only
// ENOENT means "not recorded".
package journal
