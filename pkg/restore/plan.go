package restore

import (
	"context"
	"errors"
	"time"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/workload"
)

// What to do when the restored app does not become healthy.
const (
	RevertUnhealthy = "revert" // go back to the old data and containers
	KeepUnhealthy   = "keep"   // stay with the new ones
)

// RestoreRequest is what an operator asks of a restore.
type RestoreRequest struct {
	Workload      string
	SID           string
	Confirm       string   // must equal SID; a plan needs none
	Volumes       []string // names; none means all
	Map           []string // see preflight.Request
	OnUnhealthy   string
	Guard         string        // as of Plan; "": what the config says
	HealthTimeout time.Duration // 0: two minutes
	StopTimeout   time.Duration // 0: what each container asks for
	TrustIndex    bool          // do not read what was cloned because the index says that it is unchanged
	Image         string        // runtime.ImageRunning, the default, ImageConfig or ImageSnapshot
	TakeOver      bool          // take over containers that another config made
	PlanHash      string        // "", or the Hash of the plan that is to be carried out, and no other
}

// Plan runs the pre-flight of a restore and changes nothing. It returns what
// the restore would do, or the refusal with which it would end.
func (e *Engine) Plan(ctx context.Context, req RestoreRequest) (*preflight.Plan, error) {
	s, err := e.begin(ctx, "plan", req.Workload)
	if err != nil {
		return nil, err
	}
	defer s.close()
	p, err := s.plan(ctx, req)
	if err == nil {
		err = s.host().Count(ctx, p)
	}
	p.Close()
	return p, err
}

// Undo returns the snapshot that undoes the last restore of a workload: see [catalog.Undo].
func (e *Engine) Undo(ctx context.Context, name string) (*catalog.Undone, error) {
	s, err := e.begin(ctx, "undo", name)
	if err != nil {
		return nil, err
	}
	defer s.close()
	strays, err := e.orphans(ctx, []string{name}, map[string]*workload.Workload{name: s.w})
	for _, r := range strays {
		err = errors.Join(err, r.Err)
	}
	if err = errors.Join(s.unfinished(), err); err != nil {
		return nil, fault.Classify(err)
	}
	return catalog.Undo(s.Store, s.Journal, name)
}

// plan is the pre-flight. The caller closes what it returns, after an error too.
func (s *session) plan(ctx context.Context, req RestoreRequest) (*preflight.Plan, error) {
	if err := catalog.ValidSID(s.w.Name, req.SID); err != nil {
		return nil, err
	}
	if err := s.unfinished(); err != nil {
		return nil, err
	}
	guard, err := s.guardFor(req)
	if err != nil {
		return nil, err
	}
	return s.host().Restore(ctx, preflight.Request{
		SID: req.SID, Volumes: req.Volumes, Map: req.Map, Guard: guard, Image: req.Image, TakeOver: req.TakeOver, PlanHash: req.PlanHash,
		OnUnhealthy: req.OnUnhealthy, HealthTimeout: req.HealthTimeout, StopTimeout: req.StopTimeout, TrustIndex: req.TrustIndex,
	})
}

// host is the workload as the pre-flight sees it.
func (s *session) host() *preflight.Host {
	return &preflight.Host{
		Config: s.Config, Workload: s.w, Store: s.Store, Journal: s.Journal, Held: s.held,
		Runtime: s.rt, Mounts: s.mounts, Version: s.Version,
	}
}
