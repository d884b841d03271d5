package disk

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Properties are what a filesystem knows of a directory beside its mode and its
// attributes, and what it hands down to everything that is made in the directory. Two
// Properties are equal if the directories are alike. The zero value is a plain
// directory.
type Properties struct {
	Subvolume bool   // the root of a btrfs subvolume
	Project   uint32 // the project id, by which quotas count
	// Label is the directory's security.selinux. Files take the type of the label
	// over, on a host with SELinux.
	Label string

	flags       uint32 // inode flags (ioctl_iflags(2)), of keptFlags
	xflags      uint32 // those of struct fsxattr, of keptXFlags
	extent, cow uint32 // XFS: the hints for the size of extents
	compression string // btrfs.compression, which says more than FS_COMPR_FL
}

// Inode flags (include/uapi/linux/fs.h).
const (
	flagCompress       = 0x4        // chattr +c
	flagNoCompress     = 0x400      // chattr +m
	flagNoCOW          = 0x800000   // chattr +C
	flagTopDir         = 0x20000    // chattr +T
	flagProjectInherit = 0x20000000 // chattr +P
	flagCasefold       = 0x40000000 // chattr +F
)

// keptFlags are the flags that a new directory can be given: those that it hands down,
// and FS_TOPDIR_FL. The others say how the filesystem keeps the directory (extents,
// encryption), or forbid to change it.
const keptFlags = 0x1 | 0x2 | flagCompress | 0x8 | 0x40 | 0x80 | flagNoCompress | // secrm unrm compr sync nodump noatime nocomp
	0x4000 | 0x8000 | 0x10000 | flagTopDir | flagNoCOW | // journal_data notail dirsync topdir nocow
	0x2000000 | flagProjectInherit | flagCasefold // dax projinherit casefold

// keptXFlags are the same for struct fsxattr: sync, noatime, nodump, rtinherit,
// projinherit, nosymlinks, extszinherit, nodefrag, filestream, dax, cowextsize.
const (
	keptXFlags          = 0x20 | 0x40 | 0x80 | 0x100 | xflagProjectInherit | 0x400 | 0x1000 | 0x2000 | 0x4000 | 0x8000 | 0x10000
	xflagProjectInherit = 0x200
)

// InheritsProject reports whether what is made in the directory gets its project id.
// The kernel then lets nothing of another project be moved into the directory.
func (p Properties) InheritsProject() bool {
	return p.flags&flagProjectInherit != 0 || p.xflags&xflagProjectInherit != 0
}

// NotHandedDown reports what a directory inside a tree has that a new one in its place
// would not get from the root of the tree: other inode flags, another project id.
func (p Properties) NotHandedDown(root Properties) (flags, project bool) {
	const differs = flagCompress | flagNoCompress | flagNoCOW | flagCasefold // in either direction
	own, roots := p.flags&^(flagProjectInherit|flagTopDir), root.flags
	flags = own&^roots != 0 || (own^roots)&differs != 0 || p.xflags&^root.xflags&^xflagProjectInherit != 0 || p.extent != root.extent || p.cow != root.cow
	handed := uint32(0)
	if root.InheritsProject() {
		handed = root.Project
	}
	return flags, p.Project != handed
}

// fsxattr is struct fsxattr (ioctl_xfs_fsgetxattr(2)). ext4 and f2fs know it too.
type fsxattr struct {
	xflags, extent, extents, project, cow uint32
	_                                     [8]byte
}

// The ioctls that x/sys does not have (include/uapi/linux/fs.h, btrfs.h).
const (
	fsIocFSGetXattr    = 0x801c581f
	fsIocFSSetXattr    = 0x401c5820
	btrfsSubvolCreate  = 0x5000940e
	btrfsSubvolFlags   = 0x80089419
	btrfsSubvolRO      = 1 << 1
	btrfsFirstInode    = 256 // of every subvolume: its root (BTRFS_FIRST_FREE_OBJECTID)
	btrfsCompression   = "btrfs.compression"
	selinuxLabel       = "security.selinux"
	longestLabel       = 4096
	longestCompression = 64
)

func (d *Dir) ioctl(request uintptr, arg unsafe.Pointer) error {
	return Retry(func() error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), request, uintptr(arg)); errno != 0 {
			return errno
		}
		return nil
	})
}

// hasNot reports whether a filesystem does not have the thing that was asked for.
func hasNot(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENODATA)
}

// Properties returns the properties of d. On a filesystem without such things they are
// those of a plain directory.
func (d *Dir) Properties() (Properties, error) {
	p, err := d.inherited()
	if err != nil {
		return p, err
	}
	if p.Subvolume, err = d.IsSubvolume(); err != nil {
		return p, err
	}
	if p.Label, err = d.attribute(selinuxLabel, longestLabel); err != nil {
		return p, err
	}
	if p.flags&(flagCompress|flagNoCompress) != 0 {
		p.compression, err = d.attribute(btrfsCompression, longestCompression)
	}
	return p, err
}

// Inherited returns of the properties only the flags and the project id of the open
// directory fd: they take two calls, for a walk of many directories.
func Inherited(fd int, path string) (Properties, error) {
	return (&Dir{fd: fd, path: path}).inherited()
}

func (d *Dir) inherited() (p Properties, err error) {
	var x fsxattr
	switch err := d.ioctl(fsIocFSGetXattr, unsafe.Pointer(&x)); {
	case err == nil:
		p.xflags, p.Project = x.xflags&keptXFlags, x.project
		p.extent, p.cow = x.extent, x.cow
	case !hasNot(err):
		return p, d.fail("read the project id of", "", err)
	}
	flags, err := RetryValue(func() (uint32, error) { return unix.IoctlGetUint32(d.fd, unix.FS_IOC_GETFLAGS) })
	if err != nil && !hasNot(err) {
		return p, d.fail("read the inode flags of", "", err)
	}
	p.flags = flags & keptFlags
	return p, nil
}

// IsSubvolume reports whether d is the root of a btrfs subvolume.
func (d *Dir) IsSubvolume() (bool, error) {
	st, err := d.Stat()
	if err != nil || st.Ino != btrfsFirstInode {
		return false, err
	}
	name, err := d.FSName()
	return name == "btrfs", err
}

// IsReadOnlySubvolume reports whether d is a subvolume in which nothing can be changed
// (btrfs-property(8), ro). Nothing in it can be deleted either.
func (d *Dir) IsReadOnlySubvolume() (bool, error) {
	if is, err := d.IsSubvolume(); err != nil || !is {
		return false, err
	}
	var flags uint64
	if err := d.ioctl(btrfsSubvolFlags, unsafe.Pointer(&flags)); err != nil {
		return false, d.fail("read the flags of the subvolume", "", err)
	}
	return flags&btrfsSubvolRO != 0, nil
}

// attribute returns an extended attribute of d, and "" if d does not have it.
func (d *Dir) attribute(name string, longest int) (string, error) {
	buf := make([]byte, longest)
	n, err := RetryValue(func() (int, error) { return unix.Fgetxattr(d.fd, name, buf) })
	if err != nil && !hasNot(err) {
		return "", d.fail("read "+name+" of", "", err)
	}
	if err != nil {
		return "", nil
	}
	return string(buf[:n]), nil
}

// MakeAlike is MakePrivate for a directory with the properties p. Only an empty
// directory can be given some of them, and what is made in it later takes them over.
// The error says which of them the filesystem refuses here.
//
// A subvolume is a directory to whoever removes it: rmdir(2) removes an empty one
// since Linux 4.18.
func (d *Dir) MakeAlike(name string, p Properties) (*Dir, error) {
	var made *Dir
	var err error
	if p.Subvolume {
		made, err = d.makeSubvolume(name)
	} else {
		made, err = d.MakePrivate(name)
	}
	if err != nil {
		return nil, err
	}
	if err := made.give(p); err != nil {
		return nil, errors.Join(err, made.Close(), d.Rmdir(name))
	}
	return made, nil
}

func (d *Dir) makeSubvolume(name string) (*Dir, error) {
	args := struct {
		fd   int64
		name [4088]byte
	}{}
	if err := component(name); err != nil || len(name) > 255 {
		return nil, d.fail("create the subvolume", name, unix.EINVAL)
	}
	copy(args.name[:], name)
	if err := d.ioctl(btrfsSubvolCreate, unsafe.Pointer(&args)); err != nil {
		return nil, d.fail("create the subvolume", name, err)
	}
	made, err := d.OpenSameMount(name)
	if err != nil {
		return nil, err
	}
	if err := made.makePrivate(); err != nil {
		return nil, errors.Join(err, made.Close(), d.Rmdir(name))
	}
	return made, nil
}

// give sets the properties of the empty directory d, as far as they are others.
func (d *Dir) give(p Properties) error {
	now, err := d.Properties()
	if err != nil || now == p {
		return err
	}
	if p.Label != now.Label && p.Label != "" { // without one, the host's default stays
		if err := d.setAttribute(selinuxLabel, p.Label); err != nil {
			return err
		}
	}
	if err := d.giveXattr(p, now); err != nil {
		return err
	}
	flags := p.flags
	if p.compression != "" { // the attribute sets the flag
		flags &^= flagCompress | flagNoCompress
	}
	if err := d.setFlags(flags); err != nil {
		return err
	}
	if p.compression != "" {
		if err := d.setAttribute(btrfsCompression, p.compression); err != nil {
			return err
		}
	}
	now, err = d.Properties()
	if p.Label == "" {
		now.Label = ""
	}
	if err == nil && now != p {
		err = d.fail("set the properties of", "", fmt.Errorf("%w: they should be %+v and are %+v", unix.EOPNOTSUPP, p, now))
	}
	return err
}

func (d *Dir) giveXattr(p, now Properties) error {
	if p.xflags == now.xflags && p.Project == now.Project && p.extent == now.extent && p.cow == now.cow {
		return nil
	}
	var x fsxattr
	if err := d.ioctl(fsIocFSGetXattr, unsafe.Pointer(&x)); err != nil {
		return d.fail("read the project id of", "", err)
	}
	x.xflags = x.xflags&^keptXFlags | p.xflags
	x.project, x.extent, x.cow = p.Project, p.extent, p.cow
	return d.fail(fmt.Sprintf("set project id %d and flags %#x of", p.Project, p.xflags), "", d.ioctl(fsIocFSSetXattr, unsafe.Pointer(&x)))
}

func (d *Dir) setFlags(flags uint32) error {
	now, err := RetryValue(func() (uint32, error) { return unix.IoctlGetUint32(d.fd, unix.FS_IOC_GETFLAGS) })
	if err != nil {
		if hasNot(err) && flags == 0 {
			return nil
		}
		return d.fail("read the inode flags of", "", err)
	}
	if now&keptFlags == flags {
		return nil
	}
	return d.fail(fmt.Sprintf("set the inode flags %#x of", flags), "", Retry(func() error {
		return unix.IoctlSetPointerInt(d.fd, unix.FS_IOC_SETFLAGS, int(now&^keptFlags|flags))
	}))
}

func (d *Dir) setAttribute(name, value string) error {
	return d.fail("set "+name+" of", "", Retry(func() error { return unix.Fsetxattr(d.fd, name, []byte(value), 0) }))
}

// AdmitAnyProject lets directories of any project be moved into the empty directory d,
// whose parent may have handed down the opposite (FS_XFLAG_PROJINHERIT). d keeps its
// own project, or it could not be moved in its parent.
func (d *Dir) AdmitAnyProject() error {
	p, err := d.inherited()
	if err != nil || !p.InheritsProject() {
		return err
	}
	now := p
	p.flags &^= flagProjectInherit
	p.xflags &^= xflagProjectInherit
	return errors.Join(d.giveXattr(p, now), d.setFlags(p.flags))
}
