package main

import (
	"context"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// inhibitPatience bounds the whole conversation with logind.
const inhibitPatience = 2 * time.Second

// inhibit takes an inhibitor lock of systemd-logind against shutdown and sleep,
// where there is a logind; elsewhere, and where it does not answer in time, it
// takes none and says nothing: recovery at boot is what a restore relies upon.
// See org.freedesktop.login1(5), "Inhibitor Locks".
func inhibit(why string) (release func()) {
	ctx, cancel := context.WithTimeout(context.Background(), inhibitPatience)
	got := make(chan int, 1)
	go func() {
		defer cancel()
		got <- inhibitor(ctx, why)
	}()
	select {
	case fd := <-got:
		return func() { closeInhibitor(fd) }
	case <-time.After(inhibitPatience): // dialling does not heed the context
		go func() { closeInhibitor(<-got) }() // should it still come
		return func() {}
	}
}

func closeInhibitor(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// inhibitor returns the descriptor that is the lock, and -1 where there is
// none. It is closed on exec: no child can hold it.
func inhibitor(ctx context.Context, why string) int {
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return -1
	}
	defer conn.Close()
	logind := conn.Object("org.freedesktop.login1", "/org/freedesktop/login1")
	var fd dbus.UnixFD
	// A logind that does not run is not to be started for this.
	call := logind.CallWithContext(ctx, "org.freedesktop.login1.Manager.Inhibit", dbus.FlagNoAutoStart,
		"shutdown:sleep", "snap", why, "block")
	if call.Store(&fd) != nil {
		return -1
	}
	return int(fd)
}
