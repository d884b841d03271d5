// Package tarstream is the tar format that snap writes, and the only one that it
// reads without help: POSIX pax (pax(1), "pax Interchange Format"), sparse files
// in GNU's format 1.0.
//
// [AppendHeader] writes the header blocks of an [Entry]. [Parser] reads what
// AppendHeader writes and refuses all else, with an error that wraps
// [member.ErrRefused]. The package works on bytes alone and opens no file.
//
// After an error a Parser gives no further entry that means anything. Buffers that
// [Parser.Take] returned stay valid for as long as they are held.
package tarstream
