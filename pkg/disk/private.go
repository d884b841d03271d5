package disk

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Unusable says that a directory cannot hold what snap keeps there, and why.
type Unusable struct {
	What   string // "store" or "state"
	Path   string
	Reason string
	Hint   string
}

func (u *Unusable) Error() string { return fmt.Sprintf("%s %s: %s", u.What, u.Path, u.Reason) }

// OpenPrivate opens the directory at an absolute path, in which snap keeps its
// store or its state; what is the word for messages. The error is [*Unusable] if
// the directory belongs to another user than the one that runs snap, if others can
// write to it and something is in it already, or if it is not on a local
// filesystem. OpenPrivate sets its mode to 0700.
func OpenPrivate(what, path string) (*Dir, error) {
	d, err := OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open the %s: %w", what, err)
	}
	if err := d.claim(what); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Dir) claim(what string) error {
	if err := d.own(what); err != nil {
		return err
	}
	why, err := d.Unsuitable()
	if err != nil {
		return err
	}
	// The upper layer of an overlay is a local filesystem. Only volumes need the
	// handles that an overlay lacks.
	if name, _ := d.FSName(); why != "" && name != "overlayfs" {
		return &Unusable{what, d.path, why, fmt.Sprintf("put the %s on a local filesystem (ext4, xfs, btrfs)", what)}
	}
	return nil
}

// own makes sure that nobody else can read or write d.
func (d *Dir) own(what string) error {
	st, err := d.Stat()
	if err != nil {
		return err
	}
	if int(st.Uid) != os.Geteuid() {
		return &Unusable{what, d.path, fmt.Sprintf("belongs to user %d, not to the one that runs snap", st.Uid), fmt.Sprintf("chown %d %q", os.Geteuid(), d.path)}
	}
	if st.Mode&0o022 != 0 {
		names, err := d.Names()
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return &Unusable{what, d.path, fmt.Sprintf("others may write it (mode %#o), so what it holds cannot be trusted", st.Mode&0o7777),
				fmt.Sprintf("look at its content, then chmod 700 %q", d.path)}
		}
	}
	if st.Mode&0o7777 == 0o700 {
		return nil
	}
	return d.fail("chmod", "", Retry(func() error { return unix.Fchmod(d.fd, 0o700) }))
}

// SameAs reports whether d and other are the same directory.
func (d *Dir) SameAs(other *Dir) (bool, error) {
	a, err := d.Stat()
	if err != nil {
		return false, err
	}
	b, err := other.Stat()
	return err == nil && a.Dev == b.Dev && a.Ino == b.Ino, err
}
