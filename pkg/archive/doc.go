// Package archive turns a directory into a tar stream cut into members, and such a
// stream back into a directory.
//
// # How to call it
//
// [Write] reads a directory into a [Sink] of members; [Start] does so in two parts,
// with clones. [Extract] makes a tree in an empty directory from a stream of ours,
// [ExtractForeign] from an archive of another program (package foreign), and
// [ExtractFrom] from chosen entries of a stream (package part). [Survey] tells by stat
// alone what Write would find, and [StatSum] whether anything has changed.
//
// The stream is POSIX pax (pax(1), "pax Interchange Format"), one entry a name in
// the order of a sorted walk, a directory before what is in it, the root as "./"
// first. Sparse files are in GNU's format 1.0. Concatenated, the members are a
// .tar.gz or .tar.zst that GNU tar reads. docs/formats.md has the details.
//
// A volume may also be one regular file ([disk.Dir.OpenSingle]). Its stream has a root
// that is always the same, mode 0755 of root from 1970, and the file under its own
// name. Where the file lies makes no difference.
//
// # A hostile live directory
//
// The containers own the live directory and may change it while root walks it: swap
// a directory for a symbolic link, put a fifo where a file was. So nothing is ever
// looked up along a path. Every name is looked up below a descriptor (openat2(2):
// BENEATH, NO_SYMLINKS, NO_MAGICLINKS, NO_XDEV), pinned by an O_PATH descriptor and
// looked at; then that very inode and no other is opened, through /proc/self/fd.
// Opening waits for nothing but a lease (fcntl(2), F_SETLEASE), and for that not
// for ever: [WriteOptions].Leases.
//
// A file that changes while it is read is read again, three times in all, and then
// reported. When a name has vanished since its directory was listed, the directory
// is listed again, so that a file that was renamed to a name further on is met
// there. What a restore would refuse fails Write with [*Unrestorable], which names
// the first offenders.
//
// # A forged archive
//
// Anybody may have forged the stream that Extract reads. Below the root of the
// extraction is nothing but what it has made itself:
//
//   - The lookups are those of Write. Files are made with O_EXCL and O_NOFOLLOW.
//   - Directories, files and hardlinks come first. Symbolic links come last,
//     verbatim, and are never followed.
//   - A hardlink refers to a regular file of the same archive, and is made by
//     descriptor.
//   - Fifos and devices are made only if [ExtractOptions] say so, and never opened.
//   - All else is refused: other types; absolute names, "..", ".", empty components,
//     NUL; a name that comes twice; a directory that comes after what is in it; a
//     pax record that Write does not write; more entries, bytes or depth than
//     [ExtractOptions] allow; a member of another length or checksum; data after the
//     end. The error wraps [ErrRefused].
//   - setuid and setgid bits of files, security.capability and trusted.* are dropped
//     unless ExtractOptions keep them.
//
// Memory is bounded by the length of the stream and by a few members at a time, and
// not by what a few forged kilobytes inflate to. archivetest.Attacks is the list of
// the forged archives that the tests try.
//
// # What holds after an error
//
// Write has changed nothing, and what it gave to the sink is the caller's to drop.
// Extract has left a part of the tree in its directory, and nothing elsewhere. What
// it made is durable only after the caller's [disk.Dir.SyncFS].
//
// # Not promised
//
// Not kept are access times and inode numbers. Sockets are left out. Labels of security
// modules, inode flags (chattr(1)) and project ids are those that the directory of an
// extraction hands down, and a label that the caller gives; [Result] and [Found] name
// what differs, as far as it shows: neither FS_NOCOW_FL nor the project id of a file
// does unless the file is opened. A btrfs subvolume inside the directory is refused.
// Checksums show accidents: whoever can write the stream can compute them.
package archive
