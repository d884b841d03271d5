// Package journal holds the locks of a workload and the records of a
// transaction.
//
// An operation first takes its locks ([Journal.Lock], [Held.Volumes]), then
// opens a transaction ([Journal.Begin]), and records what it decides as it goes
// ([Tx.Ready], [Tx.Commit], [Tx.Revert], [Tx.End]; [Tx.Resolve] is the operator's). After a crash
// [Journal.Load] tells how far it came. What follows from that is not decided
// here but in pkg/restore.
//
// A record is a small immutable file with a checksum, in
// <store>/tx/<txid>/: begin, ready, times, commit, revert, resolve. When a method that writes
// one returns nil the record is durable; when it returns an error the record is
// either wholly there or not at all, and only Load can tell.
package journal
