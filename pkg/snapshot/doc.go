// Package snapshot makes one snapshot in two passes, into a batch of the store.
//
// # How to call it
//
// [Start] prepares a [Capture]. [Capture.PassOne] reads the volumes while the app
// runs and stores what it reads. [Capture.PassTwo] reads what has changed since,
// while the app is at rest. [Capture.Publish] makes the snapshot exist.
// [Capture.Close] gives up what was not published, and is always called.
//
// To thaw the app before large files are read, set Clones and call
// [Capture.Freeze] in place of PassTwo, thaw, and then call [Capture.Finish]: on a
// filesystem with reflinks Freeze only clones the large files. [Capture.Still]
// reports files that changed while the app was at rest. Where there is no app to
// put to rest, PassTwo alone is a capture.
//
// [UnchangedSince] serves a restore: it finds the live files that are as a
// snapshot saw them, and that can be cloned in place of being inflated.
//
// [Heal] serves a repair of the store: it looks through live data for what lay in damaged
// members.
//
// # What holds after a crash and after an error
//
// Before Publish there is no snapshot. New members and the index are in
// the caller's scratch directory and go with it. [store.Store.Discard] removes what
// an interrupted Publish has left in the store. The volumes are only read. After an
// error of any method the Capture can only be closed.
//
// # What counts as unchanged
//
// If an earlier pass or the latest snapshot proves that a file is unchanged, its
// members are reused and nothing is read. The proof is type, handle, size, mode,
// owner, mtime and ctime ([archive.Known]). Nobody can set ctime back, but two
// things deceive:
//
//   - The clock that stamps files ticks a hundred to a thousand times a second, and
//     some filesystems keep whole seconds (ext4 with inodes of 128 bytes). Two
//     changes within a tick, or a second, look like one.
//   - A store through a mapped page moves ctime once, when the page becomes
//     writable. Until the page is written back it can be stored to again without a
//     sign. A syncfs writes all pages back and makes them unwritable, so after it
//     the next store to any of them shows.
//
// Therefore a file with a time at or after the start of the syncfs that the first
// pass begins with, less a second and 30 ms (provenBefore), is hot: it proves
// nothing, neither to the second pass nor to the next capture. Everything is hot
// where times prove nothing ([disk.Dir.TimesProve]), in an index of another boot or
// machine ([Origin]), and when the clock was set back meanwhile.
//
// A group of small files is reused whole or not at all: its entries must be the same
// entries, in the same order, all unchanged. So the neighbours of a file that changes for
// the first time are read again, half a MiB at most. They are stored apart from it then,
// and are reused the next time.
//
// # Where the stream is cut
//
// A stream is cut where that of the latest snapshot was, and what has changed is cut out
// (package archive). That needs no proof: the places in an index hold after a reboot, on
// another machine, and for a tree that has been restored or is about to be deleted. Without
// an index the groups are those of a first capture, and a part of them is stored anew.
//
// # Not promised
//
// A snapshot of an app that was not at rest is not consistent: its files are of
// different moments.
//
// Two calls move the content of a file and none of its times: XFS_IOC_SWAPEXT
// between two files, and EXT4_IOC_MOVE_EXT on the file that gives its blocks. A
// program that calls them on files of a volume hides that change from the second
// pass and from every later capture. xfs_fsr(8) and e4defrag(8) do not: they
// exchange with a file that has no name.
package snapshot
