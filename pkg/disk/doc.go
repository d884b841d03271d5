// Package disk contains every effect that could lose data, and the facts about a
// filesystem that decide whether such an effect is safe.
//
// Start with [OpenRoot]. It opens a directory whose path is trusted: the store, or a
// root of the config. [Dir.Open] descends from there. Every effect goes through a
// [Dir], an open directory: a name is looked up below a descriptor that the caller
// holds, never along a path that somebody else may have changed since the caller
// checked it. No lookup below a Dir follows a symbolic link.
//
// # What holds after a power cut
//
//   - [Dir.Publish], [Dir.RenameSync] and [Dir.Ensure] return when the new name is
//     durable.
//   - [Dir.WriteTemp] and [Dir.SyncFile] make content durable, and no name.
//   - [Dir.Exchange], [Dir.Rename], [Dir.Condemn] and everything that creates or
//     removes a name are atomic or partial as each says, and durable only after
//     [Dir.Sync] of the directory or [Dir.SyncFS].
//
// # What holds after an error
//
// [Dir.Exchange] has moved nothing. [Dir.Publish] has left the old file or the new
// one. [Dir.WriteTemp] has left nothing. [Dir.RemoveTree] may have removed a part;
// [Dir.RemoveTreeIf] removes nothing if the directory is not the expected one.
//
// # What is assumed
//
//   - When fsync(2) or syncfs(2) returns 0, the data is on stable storage. A
//     write-back error is reported to a descriptor that was opened before it (for
//     syncfs since Linux 5.8), so descriptors are opened before the first write that
//     matters.
//   - rename(2) and renameat2(2) are atomic, across a power cut too.
//   - A file handle ([Handle]) is given to no other directory as long as the
//     filesystem lives, and is the same after a reboot.
//   - The filesystem keeps its identity: see [Dir.Filesystem].
//   - Linux is 5.8 or newer: openat2(2) came with 5.6; STATX_ATTR_MOUNT_ROOT
//     (statx(2)), errors of syncfs and utimensat(2) with AT_EMPTY_PATH with 5.8.
//     Older and needed as well: RENAME_EXCHANGE, name_to_handle_at(2), and mnt_id in
//     proc_pid_fdinfo(5).
//   - /proc is mounted, and the caller is root. Otherwise [Holders] sees only the
//     caller's own processes.
//
// # Not promised
//
// A path in a message may be outdated when it is read. [Holders] is a look at one
// moment: a process may open a file right after it. Durability is what the disk
// promises: one that loses flushed data is beyond this package, as are filesystems
// that [Dir.Unsuitable] names. The checksum of a sealed document ([MarshalSealed])
// shows accidents, not forgery.
package disk
