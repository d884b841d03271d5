// Package store keeps snapshots: the members that hold the data, and for each
// snapshot a manifest that names them.
//
// A [Batch] takes the pieces of a capture, keeps those that the store lacks,
// and publishes them: members first, their sync, then the manifest. A snapshot
// whose manifest is not there, whole and valid, does not exist. Members are
// immutable and shared between snapshots.
//
// [Store.Open] gives a member's bytes as they lie on disk. Nothing that is read
// here is trusted: a manifest is checked before it is given out, a member by
// whoever inflates it, and neither says where data goes.
package store
