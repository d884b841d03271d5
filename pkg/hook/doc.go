// Package hook runs the commands that a config puts around a capture or a restore: on
// the host, or in a container.
//
// # How to call it
//
// [Of] makes the [Hooks] of one operation. [Hooks.Before] runs those that prepare the
// app, in order, and stops at the first failure. [Hooks.After] runs those that undo the
// preparation: all of them, whatever became of the operation and of each other.
//
// # What holds
//
// Before is called only when the operation is in the journal. So a recovery knows that
// After is owed, and calls it before it ends the transaction: for a process that was
// killed in the middle of a hook too. After may therefore run twice, and without Before;
// its commands must bear that. The commands are those of the config at that moment, not
// those of the time when the operation began: a hook that never ends well can be
// corrected.
//
// Every hook ends: at its timeout, or when the context ends, it is killed together with
// what it has started. On the host it is in a process group of its own, and each hook has
// a mark in its environment by which its processes are found, those in a container too.
// What a hook says is kept up to a bound, and shown when it fails; it is in no error,
// because errors go into the audit log.
//
// A hook that succeeds may leave a process behind; that one is not snap's business.
package hook
