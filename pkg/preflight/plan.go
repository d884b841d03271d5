package preflight

import (
	"context"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/diff"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Request is what a restore is asked for, as far as it matters here.
type Request struct {
	SID      string
	Volumes  []string // names; none means all
	Map      []string // OLD=NEW: the snapshot's volume OLD, by name or source, goes into the config's volume NEW
	Guard    string   // workload.GuardBefore or GuardAfter
	Image    string   // runtime.ImageRunning, the default, ImageConfig or ImageSnapshot
	TakeOver bool     // take over containers that another config made

	// What the pre-flight itself does not look at, and a hash of the plan covers.
	OnUnhealthy                string
	HealthTimeout, StopTimeout time.Duration
	TrustIndex                 bool

	// PlanHash is the hash of a plan that was shown before; the restore is refused if it
	// would do something else by now. "": it is not.
	PlanHash string
}

// Plan is what a restore would do, or what a capture found. The caller closes it.
type Plan struct {
	Workload   string
	SID        string
	Guard      string // workload.GuardBefore or GuardAfter
	Volumes    []*Volume
	Containers []runtime.Container
	Fates      []runtime.Fate // what becomes of the containers, in the same order
	Images     []Image
	Pins       map[string]runtime.Pin // the image that each service comes up on
	Space      []disk.Room
	Warnings   []string
	Left       []string           // mounts that are not volumes of the workload, a line for each reason
	NotKept    []snapshot.NotKept // of the live data: what its pre-restore snapshot will not hold
	Running    bool               // the app runs now and will be brought up again
	Hash       string             // of a restore: of what the plan rests on

	model    string // see runtime.Plan
	req      Request
	captures bool
	manifest *store.Manifest
}

// Volume is one volume of a plan. All but the fields of its live data are of a restore
// alone.
type Volume struct {
	Name   string `json:"name"`
	Scope  string `json:"scope"`
	Source string `json:"source"`
	From   string `json:"from"`   // its name in the snapshot
	Path   string `json:"path"`   // the live directory, from the current config
	Exists bool   `json:"exists"` // false: the restore will create it
	// Kind is store.File for a volume that is one file, of the snapshot.
	Kind  store.Kind `json:"kind,omitempty"`
	Files int64      `json:"files"` // of the snapshot
	Bytes int64      `json:"bytes"`
	// The size of the live data, which becomes the pre-restore snapshot.
	LiveFiles int64 `json:"live_files"`
	LiveBytes int64 `json:"live_bytes"`
	// What of the live data the config excludes. It is in no snapshot, and the restore
	// deletes it.
	LiveExcludedFiles int64 `json:"live_excluded_files"`
	LiveExcludedBytes int64 `json:"live_excluded_bytes"`
	// Changes are what the restore would change, nil where nobody has counted: [Host.Count].
	Changes *diff.Totals `json:"changes,omitempty"`

	Config *workload.Volume `json:"-"`
	Stored *store.Volume    `json:"-"` // in the snapshot
	Opened *swap.Volume     `json:"-"`
	unfit  bool             // a mount point: it can be captured, and not be exchanged
}

// Close closes the volumes.
func (p *Plan) Close() {
	if p != nil {
		swap.CloseAll(p.Opened())
	}
}

// Opened returns the directories of the volumes.
func (p *Plan) Opened() []*swap.Volume {
	var list []*swap.Volume
	for _, v := range p.Volumes {
		if v.Opened != nil {
			list = append(list, v.Opened)
		}
	}
	return list
}

// Chosen returns the volumes as the config has them.
func (p *Plan) Chosen() []*workload.Volume {
	var list []*workload.Volume
	for _, v := range p.Volumes {
		list = append(list, v.Config)
	}
	return list
}

// LiveBytes is the size of the live data.
func (p *Plan) LiveBytes() (bytes int64) {
	for _, v := range p.Volumes {
		bytes += v.LiveBytes
	}
	return bytes
}

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// check is one look at the host, which adds to the plan or refuses.
type check func(context.Context, *Plan) error

// Restore returns what a restore would do, or the refusal with which it would end. The
// caller closes the plan, after an error too.
func (h *Host) Restore(ctx context.Context, req Request) (*Plan, error) {
	p := &Plan{Workload: h.Workload.Name, SID: req.SID, Guard: req.Guard, req: req}
	p.Left, p.Warnings = h.Mounts.Told(), h.Mounts.Warnings()
	return p, run(ctx, p, h.choose, h.match, h.directories, h.live, h.containers, h.files, h.redeploy, h.users, h.holders, h.space, h.exchange, h.hash)
}

// Manifest is the snapshot that a restore would put back.
func (p *Plan) Manifest() *store.Manifest { return p.manifest }

// Capture returns what a capture finds under quiesce, or the refusal with which it, or
// a restore of its snapshot, would end. The caller closes the plan, after an error too.
func (h *Host) Capture(ctx context.Context, quiesce string) (*Plan, error) {
	p := &Plan{Workload: h.Workload.Name, Warnings: h.Mounts.Warnings(), captures: true}
	resting := func(ctx context.Context, p *Plan) error { return h.resting(ctx, p, quiesce) }
	return p, run(ctx, p, h.choose, h.directories, resting, h.exchange, func(ctx context.Context, p *Plan) (err error) {
		if p.Containers, err = h.Runtime.Containers(ctx); err != nil {
			return err
		}
		if err := mayQuiesce(p.Containers, quiesce); err != nil {
			return err
		}
		return h.comesBack(ctx, p)
	}, h.files)
}

func run(ctx context.Context, p *Plan, checks ...check) error {
	for _, c := range checks {
		if err := c(ctx, p); err != nil {
			return fault.Classify(err)
		}
	}
	return nil
}
