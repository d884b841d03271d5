package runtime

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tiny-forge/snap/pkg/workload"
)

// What keeps a workload from coming up, for errors.Is.
var (
	ErrUnreachable  = errors.New("the container engine does not answer")
	ErrImageMissing = errors.New("the image is not on this host")
	ErrPortTaken    = errors.New("a port is taken")
)

// Unsupported is the error of a volume that snap can neither capture nor restore.
type Unsupported struct {
	Err  error
	Hint string // what to write into the config
}

func (u *Unsupported) Error() string { return u.Err.Error() }
func (u *Unsupported) Unwrap() error { return u.Err }

// What an engine cannot do, for errors.Is.
var (
	ErrCannotFence = errors.New("the container engine cannot change restart policies")
	ErrCannotPause = errors.New("the container engine cannot pause containers")
)

// MissingImage is an [ErrImageMissing] that says how to get the image.
type MissingImage struct {
	Image   string // a reference
	ImageID string // "" where any image of that reference will do
	Pull    string // what brings it from a registry, "" where none is known to have it
}

func (m *MissingImage) Error() string {
	name := m.Image
	if m.ImageID != "" {
		name += " (" + m.ImageID + ")"
	}
	if m.Pull == "" {
		return fmt.Sprintf("image %s: %v, and has no digest to pull it by: build or load it again", name, ErrImageMissing)
	}
	return fmt.Sprintf("image %s: %v: docker pull %s brings it", name, ErrImageMissing, m.Pull)
}

// Is reports whether target is [ErrImageMissing].
func (m *MissingImage) Is(target error) bool { return target == ErrImageMissing }

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

// Mounts are what the containers of a workload mount of this host.
type Mounts struct {
	// Volumes are the workload's: those that its config lists, else all directories, files
	// and named volumes that its containers mount writable. Sorted.
	Volumes []Volume
	// Left are the mounts that are not volumes of the workload.
	Left []Left
	// Excluded are the sources of those that the config leaves alone.
	Excluded []string
	// Files are those that describe the containers: Compose files and env files.
	Files []File
	// Root is the folder in which the engine keeps all that is its own, with no
	// symbolic link in it; "" where no engine could be asked.
	Root string
}

// Volume is a volume of a workload as it was found.
type Volume struct {
	workload.Volume // where it is; a named one is where the engine keeps it

	Engine   string // the engine's name for it, "" where the engine has none
	Absent   bool   // the engine does not have the volume yet
	External bool   // Compose does not make it either
	// Unmade says that nothing has made the volume yet, as no container was made of the
	// services that mount it, although others of the workload have some.
	Unmade bool
	// Fills says that the engine puts the image's own files into the volume where a
	// new container finds it empty.
	Fills bool
}

// File is a file that containers are described by, as it was read.
type File struct {
	Path    string
	Kind    FileKind
	Content []byte
	Left    string // why the content is not known, "" where it is
}

// FileKind says what a [File] is.
type FileKind string

// The kinds of files.
const (
	ComposeFile FileKind = "compose"
	EnvFile     FileKind = "env"
)

// Left is a mount that is not a volume of the workload.
type Left struct {
	What string // its path or its name
	Why  string // in plain words: mounts with the same reason are told together
	// Lost says that containers write there, and that no snapshot has it.
	Lost bool
}

// Volume returns the volume of this name, nil where there is none.
func (m *Mounts) Volume(name string) *Volume {
	if m == nil {
		return nil
	}
	for i := range m.Volumes {
		if m.Volumes[i].Name == name {
			return &m.Volumes[i]
		}
	}
	return nil
}

// Places are the volumes as a config would list them.
func (m *Mounts) Places() (list []workload.Volume) {
	for _, v := range m.Volumes {
		list = append(list, v.Volume)
	}
	return list
}

// Excludes reports whether the config leaves a source alone.
func (m *Mounts) Excludes(source string) bool {
	return m != nil && slices.Contains(m.Excluded, source)
}

// Told returns a line for each reason why something is left out.
func (m *Mounts) Told() []string {
	if m == nil {
		return nil
	}
	return told(m.Left, func(Left) bool { return true })
}

// Warnings returns one line about what containers write and no snapshot has, if there
// is something of that kind.
func (m *Mounts) Warnings() []string {
	if m == nil {
		return nil
	}
	lines := told(m.Left, func(l Left) bool { return l.Lost })
	if len(lines) == 0 {
		return nil
	}
	return []string{"no snapshot has what the containers write to " + strings.Join(lines, "; ")}
}

func told(left []Left, want func(Left) bool) []string {
	var reasons []string
	what := map[string][]string{}
	for _, l := range left {
		if !want(l) {
			continue
		}
		if what[l.Why] == nil {
			reasons = append(reasons, l.Why)
		}
		what[l.Why] = append(what[l.Why], l.What)
	}
	var lines []string
	for _, why := range reasons {
		lines = append(lines, strings.Join(what[why], ", ")+" ("+why+")")
	}
	return lines
}

// User is a container outside the workload that mounts one of its volumes.
type User struct {
	Name     string
	Running  bool
	Source   string // the host path that it mounts
	Path     string // the volume's
	Relation Relation
	ReadOnly bool   // it can only read there
	Release  string // how to stop it, where docker stop does not: "" elsewhere
}

// Mounting says in words who mounts what.
func (u User) Mounting() string {
	how := "mounts"
	if u.ReadOnly {
		how = "reads"
	}
	return fmt.Sprintf("container %s, which does not belong to the workload, %s %s", u.Name, how, u.Source)
}

// Redeploy says how to bring a workload up.
type Redeploy struct {
	// Pins are the images to use, by service; "" names an image workload's.
	// An empty map means the images that the config names.
	Pins map[string]Pin
	// Before are the recorded containers, which the new ones replace.
	Before []Container
	// HealthTimeout bounds the wait for health (0: two minutes), but no wait is shorter
	// than a container's own check may take. StopTimeout bounds the stop of a container
	// that still runs (0: what the container itself asks for).
	HealthTimeout time.Duration
	StopTimeout   time.Duration
	// Up is told, before a Redeploy returns nil, since when the containers it waited for
	// have been up. That is before anybody knew it. May be nil.
	Up func(since time.Time)
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

// Crashed is the error of a Redeploy that is done, although containers that had crashed
// before it do not run on the new data either.
type Crashed struct {
	Containers []string // each with the reason, in plain words
}

func (c *Crashed) Error() string {
	return "crashed before, and again: " + strings.Join(c.Containers, "; ")
}

// Container is what is needed to bring a container back as it was.
type Container struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Service string `json:"service,omitempty"` // of a Compose workload
	Image   string `json:"image"`             // the reference it was created from
	ImageID string `json:"image_id"`
	// Digest is the repository digest of the image, where it has one.
	Digest  string `json:"digest,omitempty"`
	Running bool   `json:"running"`
	Paused  bool   `json:"paused,omitempty"`
	// Crashed is set where nobody stopped the container on purpose, see [Exit.Crashed].
	// One that the engine starts again and again is Running too.
	Crashed bool   `json:"crashed,omitempty"`
	Policy  Policy `json:"policy"`
	Also    bool   `json:"also,omitempty"` // not of the workload: listed in also_stop
	// OneOff is set for a container of docker compose run, which is of no service.
	OneOff bool    `json:"one_off,omitempty"`
	Mounts []Mount `json:"mounts,omitempty"`
	// PID is a process in the container, 0 where it does not run.
	PID int `json:"-"`
	// StopTimeout is how long a clean stop may take as of now; negative is for ever.
	StopTimeout time.Duration `json:"-"`
	// Bar is why snap may not stop the container: it could not bring the container
	// back. Each has a code.
	Bar *Refusal `json:"-"`
}

// Ran reports whether the container shall run after a restore: it runs, or it does not
// run only because it has crashed.
func (c Container) Ran() bool { return c.Running || c.Crashed }

// Awake reports whether the container runs and is not paused.
func (c Container) Awake() bool { return c.Running && !c.Paused }

// Pin returns the image of the container.
func (c Container) Pin() Pin { return Pin{Image: c.Image, ImageID: c.ImageID, Digest: c.Digest} }

// Policy is a container's restart policy in Docker's terms.
type Policy struct {
	Name    string `json:"name"`
	Retries int    `json:"retries,omitempty"`
}

// Mount is a directory or file of this host that a container mounts: a bind mount or
// a named volume.
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

// Same reports whether two pins are one image: engines may give an image another id
// when it is pulled or loaded again, but never another digest.
func (p Pin) Same(o Pin) bool {
	return p.ImageID == o.ImageID || p.Digest != "" && p.Digest == o.Digest
}

// Text is the image in words: its reference, with the beginning of its id, which tells
// it from others of that name.
func (p Pin) Text() string {
	return fmt.Sprintf("%s (%.12s)", p.Image, strings.TrimPrefix(p.ImageID, "sha256:"))
}

// OfService introduces a sentence about a service; "" for an image workload.
func OfService(name string) string {
	if name == "" {
		return ""
	}
	return "service " + name + ": "
}
