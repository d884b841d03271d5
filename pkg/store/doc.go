// Package store keeps snapshots: the members that hold the data, and for each
// snapshot a manifest that names its members.
//
// [Open] opens a store, or makes one. A [Batch] takes the pieces of a capture,
// stores those that the store lacks, and publishes them: the members first, then
// their sync, then the manifest. A snapshot exists when its manifest is there,
// whole and valid. Members never change, and snapshots share them.
//
// The members lie behind the interface [Members]; directory.go is the one
// implementation. [Store.Open] gives the bytes of a member as they are stored.
//
// What is not published yet is in the folder of its transaction ([Store.Scratch]).
// Whoever ends the transaction clears that folder ([Store.Clear]), and removes a
// snapshot that was published by half ([Store.Discard]). After a crash, a
// recovery does both.
//
// Each store has an identity ([Store.ID]), by which a host notices that another
// store, or an empty mount point, is in its place ([Missing]; package state).
//
// Nothing that is read here is trusted. A manifest is checked before it is
// returned, and a member is checked by whoever inflates it. Neither says where
// data goes. The store does not lock itself: whoever uses it holds the locks of
// package journal.
package store
