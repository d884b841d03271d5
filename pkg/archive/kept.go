package archive

import (
	"strings"

	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// kept holds the entries that are needed again at the end: directories, whose metadata
// is set last, and symbolic links. There may be a million of them, so they take as
// little memory as possible.
type kept struct {
	pages  [][]keptEntry // of keptPage entries each, so that nothing is copied when it grows
	n      int
	xattrs map[int][]tarstream.Xattr
	bytes  int64 // of names, targets and attributes
}

const keptPage = 1024

type keptEntry struct {
	name, link     string
	mode, uid, gid uint32
	nsec           int32
	sec, place     int64
}

// add appends e, which comes at place, and returns its index.
func (k *kept) add(e *tarstream.Entry, place int64) int {
	if k.n%keptPage == 0 {
		k.pages = append(k.pages, make([]keptEntry, keptPage))
	}
	k.n++
	k.set(k.n-1, e, place)
	return k.n - 1
}

func (k *kept) set(i int, e *tarstream.Entry, place int64) {
	was := &k.pages[i/keptPage][i%keptPage]
	k.bytes += int64(len(e.Name)+len(e.Link)-len(was.name)-len(was.link)) + sizeOf(e.Xattrs) - sizeOf(k.xattrs[i])
	// A name may be a part of a larger string, which must not stay in memory with it.
	*was = keptEntry{
		name: strings.Clone(e.Name), link: strings.Clone(e.Link),
		mode: e.Mode, uid: e.UID, gid: e.GID, sec: e.Mtime.Sec, nsec: int32(e.Mtime.Nsec), place: place,
	}
	if len(e.Xattrs) == 0 {
		delete(k.xattrs, i)
		return
	}
	if k.xattrs == nil {
		k.xattrs = map[int][]tarstream.Xattr{}
	}
	k.xattrs[i] = e.Xattrs
}

func (k *kept) get(i int, typ tarstream.Type) *tarstream.Entry {
	e := &k.pages[i/keptPage][i%keptPage]
	return &tarstream.Entry{
		Name: e.name, Link: e.link, Type: typ, Mode: e.mode, UID: e.uid, GID: e.gid,
		Mtime: tarstream.Timespec{Sec: e.sec, Nsec: int64(e.nsec)}, Xattrs: k.xattrs[i],
	}
}

func (k *kept) name(i int) string { return k.pages[i/keptPage][i%keptPage].name }

func (k *kept) place(i int) int64 { return k.pages[i/keptPage][i%keptPage].place }

func sizeOf(list []tarstream.Xattr) (n int64) {
	for _, x := range list {
		n += int64(len(x.Name) + len(x.Value))
	}
	return n
}
