package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Exchange swaps the directory a in d with the directory b in other, in one step
// (renameat2(2), RENAME_EXCHANGE). The swap is durable only after SyncFS. After an
// error nothing has moved.
func (d *Dir) Exchange(a string, other *Dir, b string) error {
	return d.renameat2("exchange", a, other, b, unix.RENAME_EXCHANGE)
}

// ErrNoExchange says that a filesystem cannot exchange two directories.
var ErrNoExchange = errors.New("the filesystem cannot exchange two directories (no RENAME_EXCHANGE)")

// ProbeExchange exchanges two empty directories with the properties live. One lies in
// a directory with the properties parent, as the live directory of a volume does, and
// the other in d. All lie in probe-a and probe-b of d, which ProbeExchange removes
// again. The error wraps ErrNoExchange if the kernel or the filesystem has no such
// operation, and EXDEV if it refuses these two.
func (d *Dir) ProbeExchange(parent, live Properties) (err error) {
	const a, b = "probe-a", "probe-b"
	clear := func() error { return errors.Join(d.RemoveTree(a), d.RemoveTree(b)) }
	if err := clear(); err != nil { // what a killed probe has left
		return err
	}
	defer func() { err = errors.Join(err, clear()) }()
	above, err := d.MakeAlike(a, parent)
	if err != nil {
		return err
	}
	defer above.Close()
	if err := makeEmpty(above, b, live); err != nil {
		return err
	}
	if err := makeEmpty(d, b, live); err != nil {
		return err
	}
	handles := func() (upper, lower Handle, err error) {
		upper, err = above.HandleOf(b)
		if err == nil {
			lower, err = d.HandleOf(b)
		}
		return upper, lower, err
	}
	upper, lower, err := handles()
	if err != nil {
		return err
	}
	if err := above.Exchange(b, d, b); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s: %w", d.path, ErrNoExchange)
		}
		return err
	}
	nowUpper, nowLower, err := handles()
	if err != nil {
		return err
	}
	if upper == lower || nowUpper != lower || nowLower != upper {
		return fmt.Errorf("%s: %w: after an exchange %s and %s had not changed places", d.path, ErrNoExchange, nowUpper, nowLower)
	}
	return nil
}

func makeEmpty(d *Dir, name string, p Properties) error {
	made, err := d.MakeAlike(name, p)
	if err != nil {
		return err
	}
	return made.Close()
}

// Mtime returns the modification time of d itself.
func (d *Dir) Mtime() (sec, nsec int64, err error) {
	st, err := d.Stat()
	if err != nil {
		return 0, 0, err
	}
	return st.Mtim.Sec, st.Mtim.Nsec, nil
}

// SetMtime sets the modification time of d itself, unless it is right already.
func (d *Dir) SetMtime(sec, nsec int64) error {
	st, err := d.Stat()
	if err != nil || st.Mtim.Sec == sec && st.Mtim.Nsec == nsec {
		return err
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: sec, Nsec: nsec}}
	return d.fail("set the mtime of", "", Retry(func() error {
		return unix.UtimesNanoAt(d.fd, "", times, unix.AT_EMPTY_PATH)
	}))
}
