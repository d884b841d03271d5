// Package restore is the engine: it captures the volumes of a workload, puts them
// back under the running app, and finishes or undoes what a crash interrupted.
//
// # How to call it
//
// Fill in an [Engine]. [Engine.Capture] makes a snapshot, [Engine.Restore] puts one
// back, and [Engine.Recover] deals with what a dead process left. [Engine.Plan] says
// what a restore would do and changes nothing, [Engine.Undo] what to restore to take the
// last one back, [Engine.Status] what is pending.
// [Engine.Deploy] brings a workload up from the config. [Engine.Export] writes a
// volume to an archive and [Engine.Import] makes a snapshot of one. [Engine.Extract]
// puts a snapshot, or a part of it, into a directory beside everything. [Engine.Read]
// looks into one, [Engine.Verify] looks for damage and repairs it, [Engine.Prune] and
// [Engine.Delete] delete. [Engine.Lock] keeps snap out while another tool deploys.
// [Engine.Resolve] carries out what an operator decides about a frozen restore.
//
// Each call takes the locks that it needs and returns an error of kind [fault.Busy] where
// another process has them. The context may end Capture before it publishes, and
// Restore before it commits; a [*fault.Signal] as its cause makes the error one of kind
// [fault.Interrupted]. Set Engine.Watchdog to have a second process call
// [Engine.RecoverKilled] when this one is killed. phase.go has the phases of a
// restore in order.
//
// # What holds after a crash
//
// After a crash or a power cut at any moment of a restore, Recover leaves all
// volumes of the workload old or all new. The commit point is the record "commit"
// of package journal. It is written after every live directory has been exchanged
// for its staged one and the exchange is on disk, and before a container of the
// workload starts. Without "commit" recovery goes back, with it forward, and with
// "revert" after it back again. Recover may itself be cut anywhere and run again.
//
// A capture, a deploy or an import has no directories to exchange: recovery brings
// the containers back as recorded, runs the hooks that a capture owes (package hook), and
// removes what was stored.
//
// # What holds after an error
//
// The [fault.Kind] of an error says what is on disk. A restore that fails goes through the
// same phases as the recovery of one that was killed.
//
// # What is deleted
//
// Snap deletes the staged tree of a restore that did not happen, and the displaced
// tree of one that did, once a snapshot holds it and the app is up. The new tree of
// a restore that is reverted becomes a snapshot first: the app was up on it, and
// nothing else holds what the app wrote. So does the data that an operator decides
// against. A tree that no snapshot can hold is preserved beside the live directory.
//
// The staged tree of a restore that did not commit may have been live too: from an
// exchange to the way back, with a power cut and a boot in between. If stat(2) shows
// that anything in it has changed since it was staged ([swap.Tx.AsStaged]), it is
// compared with the snapshot that was restored, and where it differs it becomes a
// snapshot first. Nothing is read of a tree that nobody has changed.
//
// A missing live directory is made after the begin record; a restore that is undone
// removes it again if it is empty.
//
// # Guard after
//
// With `--guard after` nothing is read while the app is down. Each displaced tree
// is the old data, whole and durable, and stays until the pre-restore snapshot has
// been published from it.
//
// Until then a displaced tree that is missing freezes, and none is deleted. After the
// record "guarding" no recovery touches the containers or takes the restore back. A
// publication that fails is of kind [fault.Pending], and Recover tries again.
//
// # Not promised
//
// A capture with quiesce "none" is not consistent. Nothing holds against root on the
// host. A recovery has no watchdog of its own: when it is killed, the next goes on.
//
// A container that another tool starts during a restore, without [Engine.Lock], may
// see old and new volumes mixed, and its writes to the old ones stay there. Restore
// looks for such a container right before the exchange and right before the commit,
// and goes back if it finds one; the pre-restore snapshot has the volumes as they
// were. A container that starts and ends between the two looks goes unnoticed.
package restore
