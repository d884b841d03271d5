package foreign

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// pair is one pax record. Some keys may come several times, and their order counts.
type pair struct{ key, value string }

// records reads the pax records of a header. They replace those that an earlier header
// gave, as in GNU tar.
func (r *Reader) records(size, most int64) (list []pair, err error) {
	data, err := r.whole(size, most)
	if err != nil {
		return nil, err
	}
	err = tarstream.EachRecord(string(data), func(key, value string) error {
		if strings.IndexByte(key, 0) >= 0 {
			return member.Refuse("a pax record is malformed")
		}
		list = append(list, pair{key, value})
		return nil
	})
	return list, err
}

// Keys of pax records that GNU tar, star and libarchive use.
const (
	sparsePrefix  = "GNU.sparse."
	starRealSize  = "SCHILY.realsize"
	aclPrefix     = "SCHILY.acl."
	starFlags     = "SCHILY.fflags"
	selinux       = "RHT.security.selinux"
	volumePrefix  = "GNU.volume."
	continuedFile = "GNU.volume.filename"
	dumpdir       = "GNU.dumpdir"
	libarchive    = "LIBARCHIVE.xattr."
)

// globally refuses records that cannot be meant for all entries. Of two programs one
// would apply them, and the other not.
func globally(list []pair) error {
	for _, p := range list {
		switch {
		case p.key == continuedFile:
			return member.Refuse("it continues %q of another volume of an archive in several volumes", p.value)
		case p.key == "path", p.key == "linkpath", p.key == "size", p.key == dumpdir, strings.HasPrefix(p.key, sparsePrefix), p.key == starRealSize:
			return member.Refuse("a header for all entries gives them one %s", p.key)
		}
	}
	return nil
}

// overrides are the values of one entry that pax records replace.
type overrides struct {
	name, link     string
	uid, gid, size int64
	sparse         sparse
	attributes     []pair // what else there is, the last of each key alone
}

// override applies the records for all entries, and those of the entry, which come later
// and count more. An empty value takes an earlier one back (pax(1)).
func (r *Reader) override(e *tarstream.Entry, x *overrides, local []pair) error {
	all := local
	if len(r.global) > 0 {
		all = slices.Concat(r.global, local)
	}
	last := make(map[string]int, len(all))
	for i, p := range all {
		last[p.key] = i
	}
	for i, p := range all {
		if strings.HasPrefix(p.key, sparsePrefix) {
			if err := x.sparse.set(p); err != nil {
				return err
			}
		} else if last[p.key] != i {
			continue
		} else if err := r.set(e, x, p); err != nil {
			return err
		}
	}
	if x.sparse.name != "" {
		x.name = x.sparse.name
	}
	return nil
}

func (r *Reader) set(e *tarstream.Entry, x *overrides, p pair) error {
	if p.value == "" && !strings.HasPrefix(p.key, tarstream.PaxXattr) {
		return nil
	}
	var err error
	switch p.key {
	case "path":
		x.name = p.value
	case "linkpath":
		x.link = p.value
	case "size":
		x.size, err = decimal(p.value, math.MaxInt64)
	case "uid":
		x.uid, err = decimal(p.value, math.MaxUint32-1)
	case "gid":
		x.gid, err = decimal(p.value, math.MaxUint32-1)
	case "mtime":
		e.Mtime, err = timestamp(p.value)
	case starRealSize:
		err = member.Refuse("the map of its data is star's, which is not supported")
	case dumpdir:
		r.incremental(p.value)
	default:
		x.attributes = append(x.attributes, p)
	}
	return err
}

func decimal(s string, limit uint64) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > limit {
		return 0, member.Refuse("%q is not a valid number here", s)
	}
	return int64(n), nil
}

// timestamp reads a time, which may be finer than nanoseconds. As in GNU tar it is then
// rounded down.
func timestamp(s string) (tarstream.Timespec, error) {
	whole, frac, _ := strings.Cut(s, ".")
	rest := ""
	if len(frac) > 9 {
		frac, rest = frac[:9], frac[9:]
	}
	t, err := tarstream.ParseTime(whole + "." + frac)
	if err == nil && strings.Trim(rest, "0123456789") != "" {
		err = member.Refuse("%q is not a time", s)
	}
	if err == nil && strings.HasPrefix(s, "-") && strings.Trim(rest, "0") != "" {
		if t.Nsec--; t.Nsec < 0 {
			t.Sec, t.Nsec = t.Sec-1, t.Nsec+1e9
		}
	}
	return t, err
}
