// Package member compresses the pieces of a stream, each on its own, and gives the
// stream back. It does not know what is in the stream, and opens no file.
//
// A [Member] is one piece, named by the checksum of its content. [Pieces] hands
// pieces to a [Sink], several at a time. [NewReader] inflates members, several at
// a time, and checks each one against its name before it gives out a byte of it.
//
// The stored bytes may be forged. [Inflate] never inflates much more than the
// member's declared length, refuses whatever is not exactly one member, and wraps
// [ErrRefused] in every error that is the fault of the data.
//
// Not promised: that a member was made by snap. The checksum guards against
// accidents; it is not a signature.
package member
