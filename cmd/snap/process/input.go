package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
)

// Input is a file that is read in order: one on disk, a pipe, a fifo, a terminal. A read
// that waits ends with the context.
type Input struct {
	ctx  context.Context
	name string
	fd   int
	own  bool     // it is not stdin
	wake *os.File // readable once the context has ended
	stop func()
}

// OpenInput opens name, or stdin for "-". It does not wait for a fifo's other end: a read
// does. The error is [*os.PathError] where there is nothing to read, and wraps EISDIR for a
// directory.
func OpenInput(ctx context.Context, stdin *os.File, name string) (*Input, error) {
	in := &Input{ctx: ctx, name: name}
	var err error
	if name == "-" {
		in.name, in.fd = "stdin", int(stdin.Fd())
	} else {
		in.own = true
		in.fd, err = disk.RetryValue(func() (int, error) {
			return unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		})
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
	var st unix.Stat_t
	if err := disk.Retry(func() error { return unix.Fstat(in.fd, &st) }); err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		in.Close()
		return nil, &os.PathError{Op: "read", Path: in.name, Err: unix.EISDIR}
	}
	wake, write, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	undo := context.AfterFunc(ctx, func() { write.Close() })
	in.wake, in.stop = wake, func() {
		if undo() {
			write.Close()
		}
		wake.Close()
	}
	return in, nil
}

// Close closes the file, unless it is stdin.
func (in *Input) Close() {
	if in.stop != nil {
		in.stop()
	}
	if in.own {
		unix.Close(in.fd)
	}
}

// Read waits until there is something to read, or the context has ended.
func (in *Input) Read(p []byte) (int, error) {
	for {
		if err := in.ctx.Err(); err != nil {
			return 0, context.Cause(in.ctx)
		}
		fds := []unix.PollFd{{Fd: int32(in.fd), Events: unix.POLLIN}, {Fd: int32(in.wake.Fd()), Events: unix.POLLIN}}
		if _, err := disk.RetryValue(func() (int, error) { return unix.Poll(fds, -1) }); err != nil {
			return 0, fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents == 0 {
			continue
		}
		n, err := disk.RetryValue(func() (int, error) { return unix.Read(in.fd, p) })
		switch {
		case errors.Is(err, unix.EAGAIN): // another process has read it
			continue
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: in.name, Err: err}
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}
