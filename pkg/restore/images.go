package restore

import (
	"context"
	"maps"
	"slices"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// PlannedImage is the image of a service at the times that matter to a restore. Its
// data is that of the snapshot, so it should come up on the image that the snapshot
// was taken on.
type PlannedImage struct {
	Service  string      `json:"service"` // "" for an image workload
	Snapshot runtime.Pin `json:"snapshot"`
	Running  runtime.Pin `json:"running"`
	Next     runtime.Pin `json:"next"`
}

// planRedeploy finds out what becomes of the containers, and on which images.
func (s *session) planRedeploy(ctx context.Context, p *Plan) error {
	want := runtime.Want{Before: p.Containers, Image: p.req.Image, Taken: map[string]runtime.Pin{}, TakeOver: p.req.TakeOver}
	for _, i := range p.manifest.Images {
		want.Taken[i.Service] = runtime.Pin{Image: i.Image, ImageID: i.ImageID, Digest: i.Digest}
	}
	redeploy, err := s.rt.Plan(ctx, want)
	if !p.running { // nothing is brought up, so an image or a port is nobody's matter
		err = runtime.RefusalIn(err)
	}
	if err != nil {
		return err
	}
	p.Fates, p.pins = redeploy.Fates, redeploy.Pins
	running := runtime.Containers(p.Containers).Pins()
	for _, service := range slices.Sorted(maps.Keys(p.pins)) {
		i := PlannedImage{Service: service, Snapshot: want.Taken[service], Running: running[service], Next: p.pins[service]}
		p.Images = append(p.Images, i)
		if i.Snapshot.ImageID == "" || i.Snapshot.Same(i.Next) {
			continue
		}
		p.warn("%sthe snapshot was taken on image %s, and %s will run on its data", runtime.OfService(service), i.Snapshot.Text(), i.Next.Text())
	}
	return nil
}
