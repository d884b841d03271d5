package runtime

import (
	"context"
	"time"
)

// Lock is the proof that this process has locked a workload. Every method that
// starts containers of the workload demands one.
type Lock interface {
	// Workload returns the name of the workload, "" when the lock is not held.
	Workload() string
}

// Runtime brings the containers of one workload up and down. A workload without
// containers has one that does nothing. Every method honours its context. The
// methods above MakeVolume only look, and change nothing.
type Runtime interface {
	// Containers returns the workload's containers, and those of also_stop
	// (marked Also), running or not, sorted by name.
	Containers(ctx context.Context) ([]Container, error)

	// Volumes returns what the workload's containers mount, as their own
	// description (a Compose file) and the engine say it now. Of a workload whose
	// config lists its volumes it says where the engine keeps the named ones. It
	// fails where a volume can be neither captured nor left out in silence, such as
	// one on NFS.
	Volumes(ctx context.Context) (*Mounts, error)

	// Users returns everybody else's containers that mount one of the host
	// paths, something inside one, or something above one, stopped ones too.
	Users(ctx context.Context, paths []string) ([]User, error)

	// Plan returns what Redeploy would do with each container, and on which
	// images, or why it could not bring the workload back as it runs: a [*Refusal],
	// an image that is not on this host, a port that somebody else has.
	Plan(ctx context.Context, want Want) (*Plan, error)

	// UpToDate reports whether what runs is what the current config says, and is
	// healthy: a deploy then has nothing to do.
	UpToDate(ctx context.Context) (bool, error)

	// MakeVolume makes a named volume that the engine does not have, as the
	// containers' own description wants it, and notes the transaction in it.
	MakeVolume(ctx context.Context, name, tx string) error

	// UnmakeVolume removes a named volume that MakeVolume made for this
	// transaction, unless somebody uses it or something is in it by now.
	UnmakeVolume(ctx context.Context, name, tx string) error

	// Exec runs a command in a container that runs, one of the workload or any other by
	// its whole name. It returns the exit code and the end of what the command said. When
	// ctx ends, the command is killed with all that it has started.
	Exec(ctx context.Context, x Exec) (code int, said string, err error)

	// Quiesce pauses or stops the containers that run. The returned function
	// brings exactly those back; it works after the context of the call has
	// ended, and may be called twice. After an error they have been brought back,
	// as far as that was possible.
	Quiesce(ctx context.Context, mode string, timeout time.Duration) (Thaw, error)

	// FenceAndStop sets the restart policy of every container to "no", stops
	// those that run, kills those that do not stop within timeout (0: what the
	// container itself asks for), and returns nil only when none runs. After
	// an error some may be stopped; Resume brings them back.
	FenceAndStop(ctx context.Context, timeout time.Duration) error

	// Redeploy brings the workload up from the current config on the images of
	// pins and returns once it is healthy. It continues an earlier
	// Redeploy that was cut short, and removes the containers in before only when
	// the new ones are up. After an error those in before still exist, stopped and
	// fenced, and no container of the workload runs, with these exceptions: after an
	// [*Unhealthy] the new containers are up but not healthy, and after a [*Crashed]
	// the redeploy is done, and all but the named ones are up, and so after a [*Missing].
	Redeploy(ctx context.Context, held Lock, r Redeploy) error

	// Settle accepts the containers that a Redeploy left up although they are
	// not healthy: restart policies as configured, those in before removed. It
	// may be repeated after an error.
	Settle(ctx context.Context, before []Container) error

	// Resume brings back the containers as they were recorded in before: whatever
	// else a Redeploy has made is removed, names and restart policies are as
	// recorded, those that ran run, those that were paused are paused. A container
	// that is gone is made anew from the current config on the image it had. It
	// returns when those that ran are up, and does not wait for health. It may be
	// repeated after an error.
	Resume(ctx context.Context, held Lock, before []Container) error

	// Owner returns who owns on this host what root owns in a container. It is 0:0
	// unless the engine maps users. A directory that snap makes for a container has
	// to be its root's.
	Owner(ctx context.Context) (uid, gid int, err error)

	// Close closes the connection.
	Close() error
}
