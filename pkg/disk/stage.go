package disk

import (
	"errors"

	"golang.org/x/sys/unix"
)

// MakePrivate creates the directory name as root's alone and returns it: mode
// 0700 and no ACL, whatever the directory above would hand down. With a
// setgid bit or a default ACL there, everything below would inherit it, the
// staged tree with its restored owners included.
func (d *Dir) MakePrivate(name string) (*Dir, error) {
	if err := d.Mkdir(name, 0o700); err != nil {
		return nil, err
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

func (d *Dir) makePrivate() error {
	if err := Retry(func() error { return unix.Fchown(d.fd, unix.Geteuid(), unix.Getegid()) }); err != nil {
		return d.fail("chown", "", err)
	}
	for _, acl := range []string{"system.posix_acl_default", "system.posix_acl_access"} {
		err := Retry(func() error { return unix.Fremovexattr(d.fd, acl) })
		if err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EOPNOTSUPP) {
			return d.fail("remove the ACL of", "", err)
		}
	}
	return d.fail("chmod", "", Retry(func() error { return unix.Fchmod(d.fd, 0o700) }))
}
