// Package store keeps snapshots: the members that hold the data, and for each
// snapshot a manifest that names its members.
//
// # How to call it
//
// [Open] opens a store, or makes one. A [Batch] takes the pieces of a capture and
// keeps those that the store lacks; [Batch.Publish] makes a snapshot of them.
// [Store.Load] and [Store.All] return manifests, [Store.Summaries] what they say without
// the members, [Store.Open] a member's bytes as they lie on disk. [Batch.Mend] and
// [Batch.Heal] store anew what is damaged.
//
// Members are immutable, named by the checksum of what is inside, and shared between
// snapshots. The store reaches them through the interface [Members].
//
// What is not published yet is in the folder of its transaction ([Store.Scratch]).
// Whoever ends the transaction clears that folder ([Store.Clear]), and removes a
// snapshot that was published by half ([Store.Discard]). After a crash, a
// recovery does both.
//
// Each store has an identity ([Store.ID]), by which a host notices that another
// store, or an empty mount point, is in its place ([Missing]; package state).
//
// # What holds after a crash
//
// A snapshot whose manifest is not there, whole and valid, does not exist, and
// Publish writes the manifest last. Members without a manifest stay, and serve the
// next capture. The summary of a snapshot has its name before the manifest has, and its
// content is durable before that; one that is lost or damaged is passed over.
//
// # What a manifest shows of itself
//
// A manifest has a checksum of itself, and for each volume the hash of the whole: that of
// the ids of its members, in order. The ids are checksums of what is in the members, so
// this is a hash of the whole stream that a capture can compute without reading the
// members that it uses again. Load compares it, and with that everything that reads a
// snapshot: verify, restore, export. It finds what the checksum of the manifest does not,
// where that was made anew: a tool or a hand that has put members in another place, left
// one out, or repeated one. Each of those members is intact, and the counts of an
// extraction fit as well. No data is read for that. A hash of the stream itself would show
// no more, and cost a pass over all data in each capture.
//
// A summary is believed if its own checksum is right and it has the checksum and the
// length of the manifest beside it. A bit that flips further on in that manifest does not
// show in a list; [Store.Intact], a restore and verify read it all.
//
// # What holds after an error
//
// [Batch.Publish] says what it leaves. Reading changes nothing. An error wraps
// [disk.ErrTooNew] where a newer version wrote what was read, and [disk.ErrDamaged]
// or [archive.ErrRefused] where it is damaged.
//
// # Not promised
//
// Nothing that is read here is trusted: a manifest is checked before it is given
// out, a member by whoever inflates it, and neither says where data goes. Snapshots
// are neither encrypted nor signed; the checksums and hashes show accidents. Whoever makes
// all of them anew, of the volume, the manifest and the summary, is not found. Nothing is
// deleted because a summary says so alone: [Store.LoadHonest]. A member that no
// snapshot names stays until [Store.Prune]. The index of a snapshot is a hint, to the
// next capture and to whoever looks for one file ([Store.OpenPlaces]), and nothing is
// put back because an index says so.
package store
