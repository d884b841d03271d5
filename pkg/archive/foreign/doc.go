// Package foreign reads the tar archives of other programs: GNU tar, bsdtar, Python,
// Docker, Node, star, the tars of old.
//
// [Open] unpacks a .tar, .tar.gz or .tar.zst into its tar stream, and [NewReader] reads
// the entries of that stream. The package works on bytes alone; of the host it reads
// passwd and group, for ACLs. What may be made of an entry is decided where it is
// extracted (package archive).
//
// The meaning of a header is the one that GNU tar gives it (src/list.c, src/xheader.c,
// src/sparse.c there), so that an import has the result of tar -x --numeric-owner. The
// differences are refusals: absolute names; components "..", "." and "" inside a name; an
// archive that ends without its two zero blocks, or goes on after them; types that are
// neither a file, a directory, a link, a fifo nor a device; headers for all entries that
// give a name, a size or a map; a time that does not fit. Where GNU tar cannot tell whom a
// text ACL names, the id that star and bsdtar write beside the name tells.
//
// Every error that is the fault of the archive wraps [member.ErrRefused]. It is a
// [*Damaged] as well where the archive was cut or changed on its way, and a copy of it
// may be better. What the archive has and a volume does not keep is counted:
// [Reader.Dropped].
//
// Memory is bounded by limits of this package, and not by what an archive claims.
package foreign
