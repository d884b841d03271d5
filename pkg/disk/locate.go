package disk

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Locate returns the path at which the directory with handle h lies now, as
// seen through the mount that d is on, and "" when it exists no more. It is for
// messages only: the path may be another the next moment. It needs
// CAP_DAC_READ_SEARCH (open_by_handle_at(2)).
func (d *Dir) Locate(h Handle) (string, error) {
	id, err := d.Filesystem()
	if err != nil {
		return "", err
	}
	parts := strings.Split(string(h), ".")
	if len(parts) != 3 || parts[0] != string(id) {
		return "", fmt.Errorf("handle %s is not of the filesystem of %s", h, d.path)
	}
	kind, err := strconv.ParseUint(parts[1], 16, 32)
	if err != nil {
		return "", fmt.Errorf("handle %s: %w", h, err)
	}
	data, err := hex.DecodeString(parts[2])
	if err != nil {
		return "", fmt.Errorf("handle %s: %w", h, err)
	}
	fd, err := RetryValue(func() (int, error) {
		return unix.OpenByHandleAt(d.fd, unix.NewFileHandle(int32(uint32(kind)), data), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC)
	})
	if errors.Is(err, unix.ESTALE) {
		return "", nil
	}
	if err != nil {
		return "", d.fail("open_by_handle_at", "", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := Retry(func() error { return unix.Fstat(fd, &st) }); err != nil {
		return "", d.fail("stat", "", err)
	}
	if st.Nlink == 0 { // removed, and somebody still has it open
		return "", nil
	}
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
}
