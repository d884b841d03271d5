package foreign

import (
	"cmp"
	"math"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// entry makes an entry of a header and of what came before it. As in GNU tar only files
// have content, whatever size a header gives: other tars write there the size of what a
// link leads to, or the quota of a directory.
func (r *Reader) entry(h header, size int64, long longNames, local []pair) (*tarstream.Entry, error) {
	e := &tarstream.Entry{}
	x := &overrides{name: cmp.Or(long.name, h.path()), link: cmp.Or(long.link, text(h.link())), size: size}
	var mode int64
	for _, f := range []struct {
		to    *int64
		field []byte
	}{{&mode, h.mode()}, {&x.uid, h.uid()}, {&x.gid, h.gid()}, {&e.Mtime.Sec, h.mtime()}} {
		var err error
		if *f.to, err = number(f.field); err != nil {
			return nil, member.Refuse("%q: %w", x.name, err)
		}
	}
	if err := r.override(e, x, local); err != nil {
		return nil, member.Refuse("%q: %w", x.name, err)
	}
	var err error
	if e.Name, err = plain(x.name); err != nil {
		return nil, err
	}
	if x.uid < 0 || x.gid < 0 || x.uid >= math.MaxUint32 || x.gid >= math.MaxUint32 {
		return nil, member.Refuse("%q has owner %d:%d", e.Name, x.uid, x.gid)
	}
	e.Mode, e.UID, e.GID = uint32(mode)&0o7777, uint32(x.uid), uint32(x.gid)
	if err := r.typed(e, h, x); err != nil {
		return nil, err
	}
	return e, r.attributes(e, x)
}

// typed fills in what depends on the type.
func (r *Reader) typed(e *tarstream.Entry, h header, x *overrides) (err error) {
	sparse := x.sparse.said || h.typ() == 'S'
	switch h.typ() {
	case '0', 0, '7', 'S': // 7 is a contiguous file, which a program may take for any other (pax(1))
		e.Type = tarstream.Regular
		if strings.HasSuffix(x.name, "/") && !sparse { // so did tars before there was a type for directories
			e.Type = tarstream.Directory
		}
	case '5':
		e.Type = tarstream.Directory
	case 'D': // of GNU tar --listed-incremental: a directory, with what was in it as content
		e.Type = tarstream.Directory
		names, err := r.whole(x.size, maxRecords)
		if err != nil {
			return err
		}
		r.incremental(string(names))
	case '1':
		e.Type = tarstream.Hardlink
		if e.Link, err = plain(x.link); err != nil {
			return member.Refuse("hardlink %q: %w", e.Name, err)
		}
	case '2':
		e.Type, e.Link = tarstream.Symlink, x.link
		if e.Link == "" || len(e.Link) >= 4096 || strings.IndexByte(e.Link, 0) >= 0 {
			return member.Refuse("symlink %q is not valid", e.Name)
		}
	case '3', '4', '6':
		e.Type = tarstream.Type(h.typ())
		return r.device(e, h)
	case 'M', 'N':
		return member.Refuse("%q: type %q is of an archive in several volumes, or of a tar that is too old", e.Name, rune(h.typ()))
	default:
		return member.Refuse("%q is not a directory, file, symlink or hardlink: type %q", e.Name, rune(h.typ()))
	}
	if e.Name == tarstream.Root && e.Type != tarstream.Directory {
		return member.Refuse("the root directory is a %s", e.Type)
	}
	switch {
	case e.Type != tarstream.Regular && sparse:
		return member.Refuse("%s %q has a map of its data", e.Type, e.Name)
	case e.Type != tarstream.Regular:
		return nil
	}
	r.contains(x.size)
	e.Size = x.size
	return r.holes(e, h, &x.sparse)
}

func (r *Reader) device(e *tarstream.Entry, h header) error {
	if e.Name == tarstream.Root {
		return member.Refuse("the root directory is a %s", e.Type)
	}
	major, err := number(h.major())
	if err != nil {
		return err
	}
	minor, err := number(h.minor())
	if err != nil {
		return err
	}
	return e.SetNumber(major, minor)
}

// incremental counts the files of a directory that an archive of --listed-incremental
// does not hold, because an earlier one does (GNU tar's manual, "Dumpdir").
func (r *Reader) incremental(names string) {
	for name := range strings.SplitSeq(names, "\x00") {
		if strings.HasPrefix(name, "N") {
			r.drop("content, which an earlier archive of --listed-incremental has")
		}
	}
}

// plain removes from a name what tars put in front of and after it: "./", again and
// again, and the slashes of a directory. What is left must be a plain relative path.
// Nothing is left of the root, which Python calls "/".
func plain(name string) (string, error) {
	short := name
	for strings.HasPrefix(short, "./") {
		short = short[2:]
	}
	if short = strings.TrimRight(short, "/"); short == "" || short == "." {
		return tarstream.Root, nil
	}
	if err := tarstream.CheckName(short); err != nil {
		return "", member.Refuse("%q: %w", name, err)
	}
	return short, nil
}
