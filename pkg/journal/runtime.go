package journal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The words that pkg/restore, which owns the Runtime interface, shares with
// those who implement it. They live here because neither side imports the
// other and both speak of what the records hold.

// What keeps a workload from coming up, for errors.Is.
var (
	ErrUnreachable  = errors.New("the container engine does not answer")
	ErrImageMissing = errors.New("the image is not on this host")
	ErrPortTaken    = errors.New("a port is taken")
)

// The modes of quiescing.
const (
	Pause = "pause" // freeze the containers
	Stop  = "stop"  // stop them cleanly
	None  = "none"  // leave them running
)

// Thaw brings back what a Quiesce put to rest.
type Thaw func(ctx context.Context) error

// Relation says how a foreign container's mount lies to a volume.
type Relation string

const (
	Same   Relation = "same"   // it mounts the volume
	Inside Relation = "inside" // it mounts something inside the volume
	Above  Relation = "above"  // it mounts a directory that holds the volume
)

// User is a container outside the workload that mounts one of its volumes.
type User struct {
	ID       string
	Name     string
	Running  bool
	Source   string // the host path that it mounts
	Path     string // the volume's
	Relation Relation
}

// Redeploy says how to bring a workload up.
type Redeploy struct {
	// Pins are the images to use, by service; "" names an image workload's.
	// An empty map means the images that the config names.
	Pins map[string]Pin
	// Before are the containers that the new ones replace, as recorded before
	// they were touched.
	Before []Container
	// HealthTimeout bounds the wait for health; StopTimeout the stop of a
	// container that still runs (0: what the container itself asks for).
	HealthTimeout time.Duration
	StopTimeout   time.Duration
	// Pull allows fetching an image that is missing.
	Pull bool
}

// Unhealthy is the error of a Redeploy whose containers started but did not
// become healthy.
type Unhealthy struct {
	Container string
	Reason    string // in plain words, with the end of the health check's output
}

func (u *Unhealthy) Error() string {
	return fmt.Sprintf("container %s is not healthy: %s", u.Container, u.Reason)
}
