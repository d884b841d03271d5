// Package journal holds the locks of a workload and the records of a
// transaction.
//
// An operation first takes its locks ([Journal.Lock], [Held.Volumes]), then
// opens a transaction ([Journal.Begin]), and records what it decides as it goes
// ([Tx.Ready], [Tx.Commit], [Tx.Revert], [Tx.End]; [Tx.Resolve] is the operator's). After a crash
// [Journal.Load] tells how far it came. What follows from that is not decided
// here but in pkg/swap.
//
// A record is a small immutable file with a checksum, in
// <store>/tx/<txid>/: begin, ready, times, commit, revert, resolve. When a method that writes
// one returns nil the record is durable; when it returns an error the record is
// either wholly there or not at all, and only Load can tell.
//
// # Why it is like this
//
// A disk may fill up while the app is down. So Begin also writes the decisions that
// may come later, as commit.tmp, revert.tmp and guarding.tmp: to take one is a
// rename, which needs no space and is atomic. A decision that is there under neither
// of its names was lost, and must not count as "not taken".
//
// Two records decide. With "commit" alone a restore that is finished could not be
// told from one that is being taken back because the app did not come up; "revert"
// can only follow "commit".
//
// Load syncs the records and their folder before it reads them: a record that was
// renamed and not yet synced could otherwise be acted on and then be lost. Only
// ENOENT means "not recorded". A record that cannot be read is not a record that
// does not exist, and the records that are there have to follow one another
// (Tx.consistent).
//
// The locks are flock(2): the kernel drops them when a process dies, however it
// dies. They exclude the processes that use the same folder, on a local filesystem.
package journal
