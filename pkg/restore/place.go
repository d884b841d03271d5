package restore

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/workload"
)

// place is a volume of the config, opened: the directory it is in, and the
// live directory itself.
type place struct {
	vol    *workload.Volume
	root   *disk.Dir
	parent *disk.Dir // nil where it does not exist
	base   string    // the live directory's name in parent
	live   *disk.Dir // nil where it does not exist
	// missing are the directories below root that do not exist, the live one
	// last.
	missing []string
}

func (p *place) close() {
	for _, d := range []*disk.Dir{p.root, p.parent, p.live} {
		d.Close()
	}
}

func (p *place) path() string { return p.vol.Path() }

// nearest returns the closest existing directory to the live one that is not
// itself: what a missing one would be made in.
func (p *place) nearest() *disk.Dir {
	if p.parent != nil {
		return p.parent
	}
	return p.root
}

// places opens the volumes. The caller closes them, after an error too.
func (s *session) places(volumes []*workload.Volume) ([]*place, error) {
	var list []*place
	for _, v := range volumes {
		p, err := s.place(v)
		if err != nil {
			return list, err
		}
		list = append(list, p)
	}
	return list, nil
}

func (s *session) place(v *workload.Volume) (*place, error) {
	root, err := disk.OpenRoot(v.Root())
	if err != nil {
		return nil, refused("no_root", "make the directory, or correct base and absolute_roots in the config", "volume %s: %w", v.Name, err)
	}
	p := &place{vol: v, root: root}
	if err := s.fill(p); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (s *session) fill(p *place) error {
	// The root may be a symbolic link of the operator's; where it leads must
	// be as harmless as what the config says.
	real, err := p.root.RealPath()
	if err != nil {
		return err
	}
	if err := s.Config.CheckPath(filepath.Join(real, p.vol.Rel())); err != nil {
		return refused("system_directory", "choose a directory that is the workload's alone", "volume %s: %w", p.vol.Name, err)
	}
	parent, base := dirName(p.vol.Rel())
	p.base = base
	if p.parent, err = openBelow(p.root, parent); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return p.unreachable(err)
	}
	if p.parent != nil {
		if p.live, err = p.parent.Open(base); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return p.unreachable(err)
		}
	}
	if p.live == nil {
		return p.findMissing()
	}
	return nil
}

func (p *place) unreachable(err error) error {
	switch {
	case errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) && p.isSymlink():
		return refused("symlink_in_path", "volumes are reached without following symbolic links: name the real directory in the config",
			"volume %s: a symbolic link stands in the path below %s: %w", p.vol.Name, p.vol.Root(), err)
	case errors.Is(err, unix.ENOTDIR):
		return refused("not_a_directory", "a volume is a directory: correct the source in the config",
			"volume %s: %w", p.vol.Name, err)
	}
	return err
}

// isSymlink reports whether a symbolic link stands in the live directory's
// place: opened as a directory and not followed, it is "not a directory".
func (p *place) isSymlink() bool {
	if p.parent == nil {
		return false
	}
	st, err := p.parent.Lstat(p.base)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// findMissing fills in what must be made for the live directory to exist.
func (p *place) findMissing() error {
	parts := strings.Split(p.vol.Rel(), "/")
	for n := len(parts); n > 0; n-- {
		rel := strings.Join(parts[:n], "/")
		d, err := p.root.Open(rel)
		if err == nil {
			d.Close()
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return p.unreachable(err)
		}
		p.missing = append([]string{rel}, p.missing...)
	}
	return nil
}

// restorable refuses a place that a restore could not exchange, and on which a
// capture would therefore be worth nothing.
func (p *place) restorable(mounts disk.Mounts) error {
	name, path := p.vol.Name, p.path()
	why, err := p.nearest().Unsuitable()
	if err == nil && why == "" && p.live != nil {
		why, err = p.live.Unsuitable()
	}
	if err != nil {
		return err
	}
	if why != "" {
		return refused("unsuitable_filesystem", "keep the volume on ext4, xfs or btrfs", "volume %s (%s): %s", name, path, why)
	}
	if err := p.locked(); err != nil || p.live == nil {
		return err
	}
	isMount, err := p.live.IsMountRoot()
	if err != nil {
		return err
	}
	if isMount {
		return refused("mount_point", "mount the filesystem one directory above and make the volume a directory in it",
			"volume %s: %s is a mount point, which cannot be exchanged", name, path)
	}
	inside, err := mounts.Inside(p.live)
	if err != nil {
		return err
	}
	if inside != "" {
		return refused("mount_inside", "umount "+inside, "volume %s: %s is mounted inside the volume", name, inside)
	}
	return nil
}

func (p *place) locked() error {
	for _, d := range []*disk.Dir{p.nearest(), p.live} {
		if d == nil {
			continue
		}
		locked, err := d.Locked()
		if err != nil {
			return err
		}
		if locked {
			return refused("immutable", "chattr -i -a "+shell(d.Path()), "volume %s: %s has the immutable or the append-only flag", p.vol.Name, d.Path())
		}
	}
	return nil
}

// anchor returns the nearest directory above the live one that exists, below
// the root, and its handle.
func (p *place) anchor() (string, disk.Handle, error) {
	rel := p.vol.Rel()
	if len(p.missing) > 0 {
		rel = p.missing[0]
	}
	rel, _ = dirName(rel)
	h, err := p.root.HandleOf(rel)
	return rel, h, err
}

// create makes the missing directories, durably, and opens what is now there.
// They were noted in the begin record before.
func (p *place) create() error {
	for _, rel := range p.missing {
		parent, base := dirName(rel)
		d, err := openBelow(p.root, parent)
		if err != nil {
			return err
		}
		made, err := d.Ensure(base, 0o755)
		d.Close()
		if err != nil {
			return err
		}
		made.Close()
	}
	if p.live != nil {
		return nil
	}
	parent, base := dirName(p.vol.Rel())
	var err error
	if p.parent == nil {
		if p.parent, err = openBelow(p.root, parent); err != nil {
			return err
		}
	}
	p.live, err = p.parent.Open(base)
	return err
}
