package restore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// DeployRequest is what an operator asks of a deploy.
type DeployRequest struct {
	Workload      string
	HealthTimeout time.Duration
	TakeOver      bool // take over containers that another config made
}

// DeployResult is what runs after a deploy.
type DeployResult struct {
	Workload   string
	Changed    bool // false: what runs was already what the config says
	Containers []runtime.Container
	Seconds    float64
}

// Deploy brings a workload up from the current config. It pulls missing images. It
// removes the old containers only when the new ones are healthy. When Deploy fails,
// the old containers are back, and the error is of kind RolledBack if they had been
// stopped. If there were none, the new containers stay, so that their logs can be
// read, and the error is of kind Pending.
func (e *Engine) Deploy(ctx context.Context, req DeployRequest) (*DeployResult, error) {
	s, err := e.begin(ctx, "deploy", req.Workload)
	if err != nil {
		return nil, err
	}
	defer s.close()
	txID := ""
	result, err := s.deploy(ctx, req, &txID)
	s.audit("", txID, err)
	return result, err
}

func (s *session) deploy(ctx context.Context, req DeployRequest, txID *string) (*DeployResult, error) {
	if s.w.Kind() == workload.Data {
		return nil, fault.New(fault.Usage, "no_containers", remedy.Of("give the workload an image or a compose file"), "workload %s has no containers to deploy", s.w.Name)
	}
	if err := s.unfinished(); err != nil {
		return nil, fault.Classify(err)
	}
	before, err := s.rt.Containers(ctx)
	if err != nil {
		return nil, fault.Classify(err)
	}
	if err := runtime.Containers(before).Barred(req.TakeOver); err != nil {
		return nil, fault.Classify(err)
	}
	if err := s.makeLive(ctx); err != nil {
		return nil, fault.Classify(err)
	}
	upToDate, err := s.rt.UpToDate(ctx)
	if err != nil {
		return nil, fault.Classify(err)
	}
	if upToDate {
		return &DeployResult{Workload: s.w.Name, Containers: before, Seconds: time.Since(s.when).Seconds()}, nil
	}
	tx, err := s.open(&journal.Begin{Kind: journal.Deploy, Containers: before})
	if err != nil {
		return nil, fault.Classify(err)
	}
	*txID = tx.ID
	release := s.watched(tx.ID)
	result, err := s.replace(ctx, req, tx, before)
	release() // not deferred: when this process panics the watchdog has to recover
	return result, err
}

// replace brings up new containers in place of the old ones. When that fails it
// brings the old ones back.
func (s *session) replace(ctx context.Context, req DeployRequest, tx *journal.Tx, before []runtime.Container) (*DeployResult, error) {
	err := s.rt.Redeploy(ctx, s.held, runtime.Redeploy{Before: before, HealthTimeout: req.HealthTimeout, Pull: true})
	var missing *runtime.Missing
	var crashed *runtime.Crashed
	const log = "read the app's log (docker logs)"
	switch again := errors.As(err, &crashed); {
	case errors.As(err, &missing) && again:
		return nil, fault.New(fault.Pending, "service_missing", remedy.Of(startByHand+"; as for what has crashed, "+log), "deployed, but %w", errors.Join(err, tx.End()))
	case errors.As(err, &missing):
		return nil, fault.New(fault.Pending, "service_missing", remedy.Of(startByHand), "deployed, but %w", errors.Join(err, tx.End()))
	case again:
		return nil, fault.New(fault.Pending, "service_crashed", remedy.Of(log), "deployed, but %w", errors.Join(err, tx.End()))
	}
	if err != nil {
		return nil, s.undoDeploy(context.WithoutCancel(ctx), tx, before, fault.Because(ctx, err))
	}
	if err := tx.End(); err != nil {
		return nil, fault.New(fault.Pending, "cleanup", remedy.Of(remedy.Recover(s.w.Name)), "deployed, but the clean-up is not finished: %w", err)
	}
	now, err := s.rt.Containers(ctx)
	if err != nil {
		return nil, fault.Classify(err)
	}
	return &DeployResult{Workload: s.w.Name, Changed: true, Containers: now, Seconds: time.Since(s.when).Seconds()}, nil
}

// makeLive makes missing live directories, as before a first deploy.
func (s *session) makeLive(ctx context.Context) error {
	volumes := make([]*workload.Volume, len(s.w.Volumes))
	for i := range s.w.Volumes {
		volumes[i] = &s.w.Volumes[i]
	}
	opened, err := s.host().Open(volumes)
	defer func() { swap.CloseAll(opened) }()
	if err != nil {
		return err
	}
	for _, v := range opened {
		if v.Live != nil || v.EngineVolume != "" { // it keeps its owner; the engine makes a volume together with the container
			continue
		}
		uid, gid, err := s.rt.Owner(ctx)
		if err == nil {
			err = v.Create()
		}
		if err == nil && (uid != 0 || gid != 0) {
			err = v.Live.Chown(uid, gid)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
	}
	return s.lockVolumes()
}

func (s *session) undoDeploy(ctx context.Context, tx *journal.Tx, before []runtime.Container, cause error) error {
	var sick *runtime.Unhealthy
	unhealthy := errors.As(cause, &sick)
	if unhealthy && !runtime.Containers(before).Running() {
		// Nothing to go back to: the app stays, so that its log can be read.
		err := errors.Join(s.rt.Settle(ctx, before), tx.End())
		return fault.New(fault.Pending, "unhealthy", remedy.Of("read the app's log (docker logs)"), "%w", errors.Join(cause, err))
	}
	touched, err := s.resting(ctx, before)
	if unhealthy {
		touched = true
		err = s.rt.FenceAndStop(ctx, 0)
	}
	if err == nil {
		err = s.rt.Resume(ctx, s.held, before)
	}
	if err != nil {
		tx.Close()
		return fault.New(fault.Pending, "app_not_up", remedy.Of(remedy.Recover(s.w.Name)), "%w; the old containers are not back up: %w", cause, err)
	}
	if err := tx.End(); err != nil {
		return fault.New(fault.Pending, "cleanup", remedy.Of(remedy.Recover(s.w.Name)), "%w; the old containers are back, but the clean-up is not finished: %w", cause, err)
	}
	e := fault.Classify(cause)
	if touched && e.Kind != fault.Interrupted {
		if unhealthy {
			e.Code = "unhealthy"
		}
		return fault.New(fault.RolledBack, e.Code, e.Remedy, "%w; the old containers are back", cause)
	}
	return e
}
