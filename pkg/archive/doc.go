// Package archive turns a directory into a tar stream cut into gzip members, and
// such a stream back into a directory.
//
// [Write] walks a directory that its owner may be changing, maliciously, while
// root reads it. [Extract] puts back a stream that anybody may have forged.
// Neither ever uses a path: a name is looked up below a descriptor, follows no
// symbolic link and crosses into no other mount, so the first reads nothing
// from outside and the second writes nothing there.
//
// The stream is POSIX pax (pax(1), "pax Interchange Format"), one entry a name
// in the order of a sorted walk, a directory before what is in it, the root as
// "./" first. Sparse files are in GNU's format 1.0. Concatenated, the members
// are a .tar.gz that GNU tar reads. docs/formats.md has the details.
package archive
