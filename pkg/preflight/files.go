package preflight

import (
	"context"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
)

// files looks at what only a volume that is one file can have: other names, files
// beside it that it is not whole without, and a container that has another file.
func (h *Host) files(_ context.Context, p *Plan) error {
	for _, v := range p.Volumes {
		if v.Opened.Live.File() == "" {
			continue
		}
		if err := p.otherNames(v); err != nil {
			return err
		}
		if err := p.remounted(v); err != nil {
			return err
		}
	}
	if !p.captures && !p.Running { // nothing puts them in order any more
		return Whole(p.Opened())
	}
	for _, v := range p.Opened() {
		beside, err := v.Journals()
		if err != nil {
			return err
		}
		if len(beside) > 0 {
			p.warn("volume %s: %s lies beside the file and is not part of the volume: without it the file is not a whole database. Let the service mount the directory around both", v.Name, strings.Join(beside, ", "))
		}
	}
	return nil
}

// otherNames warns of hard links, of which the exchange takes one.
func (p *Plan) otherNames(v *Volume) error {
	st, err := v.Opened.Live.Stat()
	if err == nil && st.Nlink > 1 {
		p.warn("volume %s: %s is one of %d hard links to the file (find -inum %d shows them): after a restore the others are still of the old file", v.Name, v.Path, st.Nlink, st.Ino)
	}
	return err
}

// remounted warns of a running container that has another file than the one at the
// path. A bind mount is of the file that was there when the container started, and an
// editor that replaces the file by name does not change that.
func (p *Plan) remounted(v *Volume) error {
	live, err := v.Opened.Live.Stat()
	if err != nil {
		return err
	}
	for _, c := range p.Containers {
		at := slices.IndexFunc(c.Mounts, func(m runtime.Mount) bool { return m.Writable && filepath.Clean(m.Source) == v.Path })
		if at < 0 || c.PID == 0 {
			continue
		}
		st, err := disk.StatIn(c.PID, c.Mounts[at].Target)
		if err == nil && (st.Dev != live.Dev || st.Ino != live.Ino) {
			p.warn("volume %s: something has replaced %s since container %s started, which still has the file that was there before: what it writes is in no snapshot. Start it again (docker restart %s)", v.Name, v.Path, c.Name, c.Name)
		}
	}
	return nil
}

// Whole refuses volumes that are one file with a journal of SQLite beside it, while
// nothing runs on them. SQLite would apply the journal, which belongs to the old file,
// to the new one.
func Whole(volumes []*swap.Volume) error {
	for _, v := range volumes {
		beside, err := v.Journals()
		if err != nil {
			return err
		}
		if len(beside) > 0 {
			first := remedy.Quote(beside[0])
			return fault.Refuse("journal_beside", remedy.Of("let the service mount the directory around both; or start the app and stop it cleanly, so that it takes the journal into the file; or move the journal away, and lose what only it has (mv "+first+" "+remedy.Quote(beside[0]+".away")+")"),
				"volume %s: the app has stopped, and %s still lies beside the file: it belongs to the old file, and SQLite would apply it to the new one", v.Name, strings.Join(beside, ", "))
		}
	}
	return nil
}
