package runtime

import (
	"errors"
	"strings"
)

// The images that a restore may bring the workload up on.
const (
	ImageRunning  = "running"  // what runs, unless the config names another reference by now
	ImageConfig   = "config"   // what the config names
	ImageSnapshot = "snapshot" // what ran when the snapshot was taken
)

// Want says how a Redeploy is to be planned.
type Want struct {
	// Before are the containers as they are, from Containers.
	Before []Container
	// Image is ImageRunning, ImageConfig or ImageSnapshot.
	Image string
	// Taken are the images that ran when the snapshot was taken, by service.
	Taken map[string]Pin
	// TakeOver admits containers that another config made.
	TakeOver bool
}

// Then is what a Redeploy makes of a container.
type Then string

// What becomes of a container.
const (
	StartsAgain  Then = "starts again"
	MadeAnew     Then = "is made anew"
	StaysStopped Then = "stays stopped"
)

// Fate is what a Redeploy makes of one container.
type Fate struct {
	Container
	Then Then
	Why  string // of MadeAnew, after "because"
	Up   Pin    // the image that comes up
}

// Plan is what a Redeploy will do.
type Plan struct {
	Fates []Fate // of the containers in Before, in their order
	// Pins are the images that come up, by service: the Pins of the Redeploy.
	Pins map[string]Pin
	// Model is a checksum of the description that containers are made anew from; "" where
	// that is the config itself.
	Model string
}

// Refusal is the error of a check: snap could not bring the workload back as it
// runs.
type Refusal struct {
	Code   string // stable, for machines: "compose_mismatch"
	Reason string
	Hint   string // what to do
	Err    error  // for errors.Is; may be nil
}

func (r *Refusal) Error() string { return r.Reason }
func (r *Refusal) Unwrap() error { return r.Err }

// RefusalIn returns the refusal in err, nil where there is none.
func RefusalIn(err error) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return nil
}

// The codes of a Refusal.
const (
	ComposeMismatch = "compose_mismatch" // what runs was made from something else than the config names
	ComposeMissing  = "compose_missing"  // a file or folder of the Compose project is not there
	NotMounted      = "not_mounted"      // a volume of the config is one that no service mounts
	OtherConfig     = "other_config"     // another config made the container
	Managed         = "managed"          // somebody replaces the container when it stops
	AutoRemove      = "auto_remove"      // the engine removes the container when it stops
)

// Missing is the error of a Redeploy that is done and healthy, although containers
// that ran before do not run.
type Missing struct {
	Containers []string
}

func (m *Missing) Error() string {
	return "not running, although running before: " + strings.Join(m.Containers, ", ")
}
