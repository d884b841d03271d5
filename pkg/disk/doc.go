// Package disk holds every effect that could lose data, and the facts about a
// filesystem that decide whether such an effect is safe.
//
// Everything is done through a [Dir], an open directory: a name is looked up
// below a descriptor that the caller holds, never along a path that somebody
// else may have changed since it was checked. [OpenRoot] opens the one
// directory whose path is trusted (the store, a root of the config);
// [Dir.Open] descends from there and follows no symbolic link.
//
// What is durable when a call returns is said at each call. In short:
// [Dir.Publish] and [Dir.RenameSync] return when the new name would survive a
// power cut; [Dir.Exchange] does not, and needs [Dir.SyncFS] behind it.
package disk
