// Package archive turns a directory into a tar stream in compressed members, and
// such a stream back into a directory.
//
// # How to call it
//
// [Write] walks a directory and passes its stream to a [Sink] in pieces. [Start] and
// [Writing.Finish] are Write in two halves: only the first needs the directory to
// rest. With [WriteOptions].Known, files that an earlier reading proves to be
// unchanged are not read again. [Survey] counts what Write would find, and finds out
// whether a restore could put it back.
//
// [NewReader] returns the stream of a list of members. [Extract] creates the tree of
// a stream in an empty directory, and [ExtractForeign] does the same for an archive
// that another program made. [Check] verifies a single member. [Join] writes members
// as one .tar.gz or .tar.zst.
//
// The formats have packages of their own: [tarstream] the headers, [member] the
// compressed pieces. docs/formats.md describes both.
//
// # Untrusted on both sides
//
// Write runs as root on a directory that its owner may be changing maliciously.
// Extract reads a stream that anybody may have forged. Neither ever uses a path. Each
// name is looked up below a descriptor; the lookup follows no symbolic link and does
// not cross into another mount. So Write reads nothing outside the directory, and
// Extract changes nothing outside it.
//
// # After a failure
//
//   - Write and Start never change the directory. Pieces that the sink has already
//     stored mean nothing, and no goroutine calls the sink any more. An error of type
//     [*Unrestorable] says that a restore would refuse what the directory holds.
//   - Extract leaves a part of the tree in its directory, which the caller deletes. No
//     goroutine writes to it any more. An error that wraps [ErrRefused] is the fault of
//     the archive; any other error is one of the disk, or of the context.
//   - A [Reader] returns no byte of a member that is not what its ID says. It must be
//     closed.
//
// # Not promised
//
//   - Consistency: files that change during Write are stored in states of different
//     moments, and [Result].Changed names files without a single state.
//   - Durability: nothing that Extract creates is durable before the caller's syncfs.
//   - Access times, inode numbers, file attributes (chattr), labels of security
//     modules, sockets. They are not stored.
//   - Authenticity: checksums guard against accidents, and are not signatures.
package archive
