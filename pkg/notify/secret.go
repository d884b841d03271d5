package notify

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/remedy"
)

// Read returns the lines of a file with secrets, without blank ones and comments (#). It
// refuses a file that others than root and the user that runs snap may read. No error
// holds anything of what is in it.
func Read(path string) ([]string, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	// In a file with an ACL the group bits are the most that any entry grants (acl(5)).
	if st.Mode&0o077 != 0 || st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s is refused: others may read it (owner %d, mode %#o): chown root:root %[4]s && chmod 600 %[4]s", path, st.Uid, st.Mode&0o7777, remedy.Quote(path))
	}
	const most = 64 << 10
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("%s is longer than %d bytes", path, most)
	}
	if err != nil {
		return nil, err
	}
	var lines []string
	for scan := bufio.NewScanner(bytes.NewReader(text)); scan.Scan(); {
		if line := strings.TrimSpace(scan.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return nil, errors.New(path + " holds no URL")
	}
	return lines, nil
}
