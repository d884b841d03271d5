//go:build linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// attach attaches an image file to a new loop device (loop(4)). mount -o loop may
// instead reuse a device that an earlier mount of the same path has not yet
// released, and the stale cache of that device.
func attach(image string) (*os.File, error) {
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	for {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &unix.LoopConfig{
			Fd: uint32(file.Fd()), Info: unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR}, // detaches when the tests die
		})
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) { // EBUSY: another process took the device first
			return nil, fmt.Errorf("%s: %w", device.Name(), err)
		}
	}
}

// release detaches a loop device, and returns once the file is free.
func release(device *os.File) error {
	defer device.Close()
	// udev, for example, may have a new device open for a moment.
	for range 200 {
		err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_CLR_FD, 0)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("release %s: %w", device.Name(), err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("release %s: still in use", device.Name())
}
