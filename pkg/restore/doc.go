// Package restore is the engine: it captures the volumes of a workload, puts
// them back under the running app, and finishes or undoes what a crash
// interrupted.
//
// Call [Engine.Capture], [Engine.Restore] and [Engine.Recover]; [Engine.Plan]
// says what a restore would do, [Engine.Status] what is pending.
//
// After a crash, a power cut or an error at any moment of a restore, Recover
// leaves all volumes of the workload old or all new. The commit point is the
// record "commit" of package journal: it is written when every live directory
// has been exchanged for its staged one and that is on disk, and before a
// container of the workload starts. Without it recovery goes back, with it
// forward, with "revert" behind it back again. phase.go holds the order of the
// steps and the table of decisions.
//
// What is deleted: the staged tree of a restore that did not happen, and the
// displaced tree of one that did, after the snapshot of it was published and
// the app is up. Nothing else.
//
// Not promised: consistency of a capture taken with quiesce "none"; volumes on
// NFS, FUSE or tmpfs; protection from root on the host.
package restore
