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

// ProbeExchange exchanges two empty directories that it makes in d, probe-a and
// probe-b, and removes them. The error wraps ErrNoExchange if the kernel or the
// filesystem has no such operation.
func (d *Dir) ProbeExchange() (err error) {
	const a, b = "probe-a", "probe-b"
	defer func() {
		for _, name := range []string{a, b} {
			if e := d.Rmdir(name); e != nil && !errors.Is(e, unix.ENOENT) {
				err = errors.Join(err, e)
			}
		}
	}()
	for _, name := range []string{a, b} {
		if err := d.Mkdir(name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	before, err := d.handlesOf(a, b)
	if err != nil {
		return err
	}
	if err := d.Exchange(a, d, b); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("%s: %w", d.path, ErrNoExchange)
		}
		return err
	}
	after, err := d.handlesOf(a, b)
	if err != nil {
		return err
	}
	if before[0] == before[1] || after[0] != before[1] || after[1] != before[0] {
		return fmt.Errorf("%s: %w: after an exchange %s and %s had not changed places", d.path, ErrNoExchange, after[0], after[1])
	}
	return nil
}

func (d *Dir) handlesOf(a, b string) ([2]Handle, error) {
	ha, erra := d.HandleOf(a)
	hb, errb := d.HandleOf(b)
	return [2]Handle{ha, hb}, errors.Join(erra, errb)
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
