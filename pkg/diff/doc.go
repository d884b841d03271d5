// Package diff says what differs between two snapshots, or between a snapshot and the live
// data: name by name, and in numbers.
//
// # How to call it
//
// [Compare] compares one volume of two [Side]s and reports each [Change]. [Counts] gives
// only the numbers of what a restore would change, for a plan or a question.
//
// # How it goes
//
// Both sides give their names in the same order, so one pass over both is enough, and
// memory is bounded whatever the number of files is, but for files with several names
// ([catalog.Names]). A snapshot gives its names by its index. The live directory is walked
// by descriptor, as a capture does it: see package archive.
//
// # What counts as a change
//
// By stat, a file has changed where its size or mtime has; a symlink, where its mtime has.
// The mtime of a directory tells only of names in it, which show for themselves, so it
// counts for nothing. Mode, owner and to which names a file is linked are metadata.
//
// With Content, what stat cannot tell is read on both sides: files of the same size, where
// nothing proves that they are the same ([archive.Known], or the members that the two
// snapshots share), and symlinks and devices. Then a file whose mtime alone differs is one
// whose metadata differs.
//
// What the config excludes is in neither side of a comparison with live data.
//
// # Not promised
//
// Extended attributes and ACLs are not compared. Live data that changes meanwhile is seen
// as it was at one moment or another.
package diff
