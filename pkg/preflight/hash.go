package preflight

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// hashed are the parts of what a plan rests on, in the order of its hash.
var hashed = [...]string{"the snapshot or the config", "a volume", "a container or an image", "an option"}

// hashForm is the form of a plan's hash: eight digits for each part.
var hashForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{8}){3}$`)

// ValidHash reports whether the text has the form of a plan's hash.
func ValidHash(text string) bool { return hashForm.MatchString(text) }

// hash says in four numbers what the plan rests on: the snapshot and what the config says
// of the workload; each volume, with its path and which directory stands there; each
// container, with its id, its image and what becomes of it; what was asked for. Two plans
// with one hash do the same to the same things.
//
// What an app or a clock changes all the time is not in it: what the live data holds, free
// space, ages, the words of warnings. It guards against accident, not against forgery.
func (h *Host) hash(_ context.Context, p *Plan) error {
	type volume struct {
		Config workload.Volume
		Path   string
		Kind   string
		Live   disk.Handle // "" where nothing stands there
	}
	type container struct {
		ID, Name, Service, Image, ImageID string
		Ran, Also                         bool
		Policy                            runtime.Policy
		Then                              runtime.Then
		Up                                runtime.Pin
	}
	var volumes []volume
	for _, v := range p.Volumes {
		own := volume{Config: *v.Config, Path: v.Path, Kind: string(v.Kind)}
		if v.Opened.Live != nil {
			var err error
			if own.Live, err = v.Opened.Live.Handle(); err != nil {
				return fmt.Errorf("volume %s: %w", v.Name, err)
			}
		}
		volumes = append(volumes, own)
	}
	var containers []container
	for _, f := range p.Fates {
		containers = append(containers, container{f.ID, f.Name, f.Service, f.Image, f.ImageID, f.Ran(), f.Also, f.Policy, f.Then, f.Up})
	}
	w := *h.Workload
	w.Volumes, w.Retain = nil, nil // the volumes that count are those of the plan
	asked := p.req
	asked.SID, asked.Volumes, asked.PlanHash = "", nil, "" // parts of their own
	parts := [len(hashed)]any{
		[]any{p.manifest.SID, p.manifest.Checksum, w},
		volumes,
		[]any{containers, p.Pins, p.model},
		asked,
	}
	var sums []string
	for _, part := range parts {
		text, err := json.Marshal(part)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		sums = append(sums, hex.EncodeToString(sum[:4]))
	}
	p.Hash = strings.Join(sums, "-")
	return h.unchanged(p)
}

// unchanged refuses a plan that is not the one that was asked for.
func (h *Host) unchanged(p *Plan) error {
	if p.req.PlanHash == "" || p.req.PlanHash == p.Hash {
		return nil
	}
	then, now := strings.Split(p.req.PlanHash, "-"), strings.Split(p.Hash, "-")
	var changed []string
	for i, what := range hashed {
		if i < len(then) && then[i] != now[i] {
			changed = append(changed, what)
		}
	}
	return fault.Refuse("plan_changed", remedy.Of("look at what it would do now: ", remedy.Plan(p.Workload, p.SID)),
		"the plan with the hash %s is no longer true, because %s has changed since: the hash is now %s", p.req.PlanHash, strings.Join(changed, " and "), p.Hash)
}
