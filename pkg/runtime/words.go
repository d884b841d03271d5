package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"
)

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

// Thaw brings back what a Quiesce paused or stopped.
type Thaw func(ctx context.Context) error

// Relation says how a foreign container's mount relates to a volume.
type Relation string

const (
	Same   Relation = "same"   // it mounts the volume
	Inside Relation = "inside" // it mounts something inside the volume
	Above  Relation = "above"  // it mounts a directory that holds the volume
)

// Volume is a directory of this host that containers of a workload mount.
type Volume struct {
	Name   string // unique among the workload's volumes
	Source string // the host path: absolute and clean
	Target string // the path in the container, of the first that mounts it
}

// User is a container outside the workload that mounts one of its volumes.
type User struct {
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
	// Before are the recorded containers, which the new ones replace.
	Before []Container
	// HealthTimeout bounds the wait for health; StopTimeout the stop of a
	// container that still runs (0: what the container itself asks for).
	HealthTimeout time.Duration
	StopTimeout   time.Duration
	// Pull allows fetching an image that is missing.
	Pull bool
}

// Unhealthy is the error of a Redeploy whose containers started but are not healthy.
type Unhealthy struct {
	Container string
	Reason    string // in plain words, with the end of the health check's output
}

func (u *Unhealthy) Error() string {
	return fmt.Sprintf("container %s is not healthy: %s", u.Container, u.Reason)
}

// Container is what is needed to bring a container back as it was.
type Container struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Service string `json:"service,omitempty"` // of a Compose workload
	Image   string `json:"image"`             // the reference it was created from
	ImageID string `json:"image_id"`
	// Digest is the repository digest of the image, where it has one.
	Digest  string  `json:"digest,omitempty"`
	Running bool    `json:"running"`
	Paused  bool    `json:"paused,omitempty"`
	Policy  Policy  `json:"policy"`
	Also    bool    `json:"also,omitempty"` // not of the workload: listed in also_stop
	Mounts  []Mount `json:"mounts,omitempty"`
	// PID is a process in the container, 0 where it does not run.
	PID int `json:"-"`
	// StopTimeout is how long a clean stop may take as of now; negative is for ever.
	StopTimeout time.Duration `json:"-"`
}

// Awake reports whether the container runs and is not paused.
func (c Container) Awake() bool { return c.Running && !c.Paused }

// Pin returns the image of the container.
func (c Container) Pin() Pin { return Pin{Image: c.Image, ImageID: c.ImageID, Digest: c.Digest} }

// Policy is a container's restart policy in Docker's terms.
type Policy struct {
	Name    string `json:"name"`
	Retries int    `json:"retries,omitempty"`
}

// Mount is a bind mount of a container.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	Writable bool   `json:"writable"`
}

// Pin is the image that a redeploy must use: what ran before.
type Pin struct {
	Image   string `json:"image"`
	ImageID string `json:"image_id"`
	Digest  string `json:"digest,omitempty"`
}
