// Package part makes a part of a volume out of its stream: chosen files and directories,
// with the directories above them, and nothing else.
//
// # How to call it
//
// [Choose] checks the names that are wanted. [Choice.Find] looks them up in an [Index],
// and [Extract] makes what was found. An index comes with a snapshot; where it is
// missing or wrong, [Scan] is the same out of the stream itself.
//
// The names of a stream are sorted, a directory before what is in it, so a directory
// with all that it holds is one piece of the stream. Find says which members that piece
// is in, and Extract reads these members and no others.
//
// # What is believed
//
// An index says where to look, and nothing more. What is made, and whether it is all of
// it, the stream says: each chosen name must come up, and of a directory the entry after
// its last one, too. Where they do not, the error is [ErrMismatch], and [Scan] helps. A
// name that an index lacks counts as one that the snapshot lacks.
//
// # Hard links
//
// A chosen name of a file whose first name was not chosen becomes the file itself. Further
// chosen names are links to that one.
//
// # What holds after an error
//
// A part of the tree is in the directory of the extraction, and nothing elsewhere, as
// package archive says.
package part
