// Package fault is the one table from an error to what it left on disk, a code for
// machines and a way out for people.
//
// The engine makes an [Error] with [New] or [Refuse] where it knows best, and gives
// every other error its kind with [Classify]. The door turns the kind into an exit code
// and the remedy into commands.
package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Kind says what an error leaves on disk. The door turns it into an exit code.
type Kind int

const (
	Failed      Kind = iota // nothing changed: data and containers are as before
	Usage                   // the request makes no sense; nothing changed
	Refused                 // by the pre-flight, or for want of a confirmation; nothing changed
	Busy                    // another operation holds the workload or a volume; nothing changed
	RolledBack              // all old, the app redeployed
	Frozen                  // disk and journal disagree; nothing deleted
	Pending                 // all new, but the app is not up or the clean-up is not finished
	Interrupted             // by a signal before the commit; all old, the app as before
	Damaged                 // what was looked at needs attention; nothing changed
)

// String returns the kind as the history and the metrics name it.
func (k Kind) String() string {
	names := [...]string{"failed", "usage", "refused", "busy", "rolled_back", "frozen", "pending", "interrupted", "damaged"}
	if k < 0 || int(k) >= len(names) {
		return fmt.Sprintf("kind %d", int(k))
	}
	return names[k]
}

// Error is an error of the engine: what happened, what it left, what to do.
type Error struct {
	Kind Kind
	Code string // stable, for machines: "no_space"
	Err  error
	// Remedy is what to do; it may be empty.
	Remedy remedy.Remedy
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// New makes an error of the engine.
func New(kind Kind, code string, way remedy.Remedy, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Remedy: way, Err: fmt.Errorf(format, args...)}
}

// Line returns the message of an error with "; " where [errors.Join] breaks the line. A
// line break that is left came from a name.
func Line(err error) string {
	text := err.Error()
	var walk func(err error)
	walk = func(err error) {
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if inner := e.Unwrap(); inner != nil {
				walk(inner)
			}
		case interface{ Unwrap() []error }:
			var parts []string
			for _, part := range e.Unwrap() {
				parts = append(parts, part.Error())
			}
			if err.Error() == strings.Join(parts, "\n") {
				text = strings.Replace(text, err.Error(), strings.Join(parts, "; "), 1)
			}
			for _, part := range e.Unwrap() {
				walk(part)
			}
		}
	}
	walk(err)
	return text
}

// InLines returns args with the message of [Line] in place of each error, for a format.
func InLines(args []any) []any {
	args = slices.Clone(args)
	for i, arg := range args {
		if err, is := arg.(error); is {
			args[i] = Line(err)
		}
	}
	return args
}

// KindOf returns the kind of an error that the engine made; Failed for others.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Failed
}

// Refuse makes the error of a refusal: nothing has changed.
func Refuse(code string, way remedy.Remedy, format string, args ...any) *Error {
	return New(Refused, code, way, format, args...)
}

// Confirmed refuses unless the operator gave the id of what is to be confirmed. does
// says what happens then.
func Confirmed(given, what, id string, command remedy.Remedy, does string) error {
	switch given {
	case id:
		return nil
	case "":
		return Refuse("confirm_required", command, "%s, and must be confirmed", does)
	}
	return Refuse("confirm_mismatch", command, "--confirm is %q, but the %s is %s", given, what, id)
}

// Classify gives an error that the engine did not make itself its kind and
// code. An *Error stays what it is.
func Classify(err error) *Error {
	var own *Error
	var bad *archive.Unrestorable
	var unsupported *runtime.Unsupported
	var nested *archive.Nested
	var config *workload.Error
	var unfit *swap.Unfit
	var missing *store.Missing
	var changed *snapshot.Changed
	var refusal *runtime.Refusal
	var image *runtime.MissingImage
	var full *disk.Full
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return &Error{own.Kind, own.Code, err, own.Remedy} // the whole of the message
	case errors.As(err, &refusal):
		return &Error{Refused, refusal.Code, err, remedy.Of(refusal.Hint)}
	case errors.As(err, &unfit):
		return &Error{Refused, unfit.Code, err, remedy.Of(unfit.Hint)}
	case errors.As(err, &changed):
		return &Error{Refused, "in_use", err, remedy.Of("find the program that writes there (fuser -v on the file), stop it, then try again")}
	case errors.As(err, &config):
		return &Error{Usage, "config", err, remedy.Of(config.Hint)}
	case errors.As(err, &missing):
		return &Error{Refused, "store_missing", err, remedy.Of(missing.Hint())}
	case Interruption(err) != nil:
		return Interruption(err)
	case errors.Is(err, journal.ErrBusy):
		return &Error{Busy, "busy", err, remedy.Of("wait for the other operation, or see `", remedy.StatusAll, "`")}
	case errors.As(err, &bad):
		return &Error{Refused, "unrestorable", err, remedy.Of(unrestorable(bad))}
	case errors.As(err, &nested):
		return &Error{Refused, "subvolume_inside", err, remedy.Of(
			"make it a plain directory (move it away, cp -a --reflink=auto it back, btrfs subvolume delete the old one), or move it out of the volume and make it a volume of its own")}
	case errors.Is(err, archive.ErrRefused):
		return &Error{Refused, "snapshot_damaged", err, Unread("")}
	case errors.As(err, &unsupported):
		return &Error{Refused, "volume_unsupported", err, remedy.Of(unsupported.Hint)}
	case errors.As(err, &full):
		return &Error{Failed, "no_space", err, remedy.Of(full.Way() + ", then try again")}
	case NoSpace(err):
		return &Error{Failed, "no_space", err, remedy.Of("free space on the filesystem that the error names, then try again")}
	case errors.Is(err, unix.EXDEV):
		return &Error{Refused, "mount_inside", err, remedy.Of("unmount what is mounted there, or move the subvolume out of the volume: a volume is one filesystem")}
	case errors.As(err, &image) && image.Pull != "":
		return &Error{Refused, "image_missing", err, remedy.Of("docker pull " + image.Pull + ", then try again")}
	case errors.Is(err, runtime.ErrImageMissing):
		return &Error{Refused, "image_missing", err, remedy.Of("load or pull the image, then try again")}
	case errors.Is(err, runtime.ErrCannotFence):
		return &Error{Refused, "cannot_fence", err, remedy.Of("use Docker, or a version of this engine that can: without that, the engine could start the app while its directories are exchanged")}
	case errors.Is(err, runtime.ErrCannotPause):
		return &Error{Refused, "cannot_pause", err, remedy.Of("capture with --quiesce stop")}
	case errors.Is(err, runtime.ErrPortTaken):
		return &Error{Refused, "port_taken", err, remedy.Of("stop the program that uses the port, or change `ports` in the config")}
	case errors.Is(err, runtime.ErrUnreachable):
		return &Error{Refused, "docker_unreachable", err, remedy.Of("start the container engine, or choose another (--host, --context, DOCKER_HOST)")}
	}
	return &Error{Failed, "failed", err, remedy.Remedy{}}
}

// unrestorable says what to do about entries that a restore would refuse.
func unrestorable(bad *archive.Unrestorable) string {
	way := "move these files out of the volume (sockets may stay)"
	if bad.Specials {
		way = "set `special: skip` for the volume in the config, which leaves fifos and devices out, or `special: keep`, or " + way
	}
	if bad.Symlinks {
		way += "; for symlinks, setting `symlinks: preserve` also helps"
	}
	return way
}

// Graver returns the graver of two errors, the first of two alike; nil is not grave.
func Graver(a, b error) error {
	order := map[Kind]int{Busy: 1, Usage: 2, Failed: 2, Refused: 2, RolledBack: 3, Pending: 3, Frozen: 4, Interrupted: 5}
	e := Classify(b)
	if e == nil || a != nil && order[e.Kind] <= order[KindOf(a)] {
		return a
	}
	return e
}

// UseAnother is the remedy for a snapshot that cannot be used.
func UseAnother(workload string) remedy.Remedy {
	return remedy.Of("the snapshot cannot be used; use another (`", remedy.List(workload), "`)")
}

// Unread is the remedy for a snapshot whose data cannot be read.
func Unread(workload string) remedy.Remedy {
	return remedy.Of(UseAnother(workload), ", or repair what the live data still has (`", remedy.Verify(workload), " --read-data --repair`)")
}

// Repair is the remedy for a snapshot of which the store has lost a part.
func Repair(workload, sid string) remedy.Remedy {
	return remedy.Of("the live data may still have it: ", remedy.Repair(workload, sid), "; or use another snapshot (`", remedy.List(workload), "`)")
}

// Signal is the cause with which the door ends a context when a signal
// arrives.
type Signal struct {
	Name string // "SIGINT"
	Code int    // the exit code that tells of it: 128 and its number
}

func (s *Signal) Error() string { return "interrupted by " + s.Name }

// Interruption returns an error of kind Interrupted when a signal caused err, and
// nil otherwise.
func Interruption(err error) *Error {
	var sig *Signal
	if !errors.As(err, &sig) {
		return nil
	}
	return New(Interrupted, "interrupted", remedy.Remedy{}, "%w; data and containers are as before", sig)
}

// Because returns the cause of ctx if ctx has ended, since that is why the work
// failed; otherwise it returns err.
func Because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Freeze is the error of a transaction that recovery does not touch.
func Freeze(tx, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return New(Frozen, "frozen", remedy.Either(Ways(tx, err)), "transaction %s: %w", tx, err)
}

var SeeFrozen = remedy.Of("see `", remedy.StatusAll, "`, then docs/operating.md, section Frozen")

// Ways returns the ways out of the situation that err describes, each in one
// sentence.
func Ways(tx string, err error) []remedy.Remedy {
	var mismatch *swap.Mismatch
	var away *swap.Unmounted
	var missing *store.Missing
	var number unix.Errno
	switch {
	case errors.As(err, &mismatch):
		var list []remedy.Remedy
		for _, way := range mismatch.Ways {
			list = append(list, wayOut(tx, way))
		}
		return list
	case errors.As(err, &away):
		return []remedy.Remedy{thenRecover("mount the filesystem of " + away.Path + " (or move the directory above it back)")}
	case errors.As(err, &missing):
		return []remedy.Remedy{thenRecover(missing.Hint())}
	case errors.Is(err, disk.ErrTooNew):
		return []remedy.Remedy{remedy.Of("use the version of snap that wrote the records, or a newer one")}
	case errors.Is(err, disk.ErrDamaged):
		return []remedy.Remedy{
			thenRecover("put tx/" + tx + " back from a copy of the state"),
			remedy.Of("see docs/operating.md, section Frozen, damaged records"),
		}
	case errors.Is(err, fs.ErrPermission):
		return []remedy.Remedy{thenRecover("become root")}
	case errors.As(err, &number):
		return []remedy.Remedy{thenRecover("read the kernel's messages about the disk (dmesg), fix the cause")}
	}
	return []remedy.Remedy{SeeFrozen}
}

func thenRecover(first string) remedy.Remedy { return remedy.Of(first+", then ", remedy.RecoverAll) }

// wayOut puts a way out of a mismatch into words.
func wayOut(tx string, way swap.Way) remedy.Remedy {
	again := remedy.Recover(way.Workload)
	switch way.Do {
	case swap.MoveAway:
		return thenRecover("mv " + remedy.Quote(way.Path) + " to another name")
	case swap.Unmount:
		return thenRecover("umount " + remedy.Quote(way.Path))
	case swap.PutBack:
		first := ""
		if way.Occupied {
			first = " (first move away what is there now)"
		}
		return remedy.Of(fmt.Sprintf("put %s of volume %s back: mv %s %s%s, then ", way.Tree, way.Volume, remedy.Quote(way.Path), remedy.Quote(way.To), first), again)
	case swap.Resolve:
		return remedy.Of("keep the "+way.Tree.Word()+" data of all volumes: ", remedy.Resolve(way.Workload, tx, way.Tree.Word()))
	case swap.RestoreOld:
		return remedy.Of("keep the new data of all volumes, then ", remedy.Restore(way.Workload, way.SID), " (this brings the old data back, if ", remedy.List(way.Workload), " shows that snapshot)")
	case swap.RestoreNew:
		return remedy.Of("keep the old data of all volumes, then ", remedy.Restore(way.Workload, way.SID), " again")
	case swap.OnlyNew:
		return remedy.Of("keep the new data of all volumes: the old data is not a snapshot yet (--guard after), so what is left of it then becomes one")
	}
	hint := "neither the old nor the new data of all volumes is complete: see docs/operating.md, section Frozen, by hand"
	if way.SID != "" {
		hint += " (the old data may be snapshot " + way.SID + ")"
	}
	return remedy.Of(hint)
}

// NoSpace reports whether err is about room, on a filesystem or in a quota.
func NoSpace(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
