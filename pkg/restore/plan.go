package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
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
	OnUnhealthy   string
	Guard         string        // workload.GuardBefore or GuardAfter; "": what the config says
	HealthTimeout time.Duration // 0: two minutes
	StopTimeout   time.Duration // 0: what each container asks for
	TrustIndex    bool          // do not read what was cloned because the index says that it is unchanged
	Image         string        // runtime.ImageRunning, the default, ImageConfig or ImageSnapshot
	TakeOver      bool          // take over containers that another config made
}

// Plan is what a restore would do, found by the same checks that precede one.
type Plan struct {
	Workload   string
	SID        string
	Guard      string // workload.GuardBefore or GuardAfter
	Volumes    []PlannedVolume
	Containers []runtime.Container
	Fates      []runtime.Fate // what becomes of the containers, in the same order
	Images     []PlannedImage
	Space      []Space
	Warnings   []string

	manifest *store.Manifest
	chosen   []*workload.Volume
	volumes  []*swap.Volume // of chosen
	running  bool           // the app runs now and will be brought up again
	pins     map[string]runtime.Pin
}

// PlannedVolume is one volume of a plan.
type PlannedVolume struct {
	Name   string `json:"name"`
	Scope  string `json:"scope"`
	Source string `json:"source"`
	Path   string `json:"path"`   // the live directory, from the current config
	Exists bool   `json:"exists"` // false: the restore will create it
	Files  int64  `json:"files"`  // of the snapshot
	Bytes  int64  `json:"bytes"`
	// The size of the live data, which becomes the pre-restore snapshot.
	LiveFiles int64 `json:"live_files"`
	LiveBytes int64 `json:"live_bytes"`
}

// Plan runs the pre-flight of a restore and changes nothing. It returns what
// the restore would do, or the refusal with which it would end.
func (e *Engine) Plan(ctx context.Context, req RestoreRequest) (*Plan, error) {
	s, err := e.begin(ctx, "plan", req.Workload)
	if err != nil {
		return nil, err
	}
	defer s.close()
	p, err := s.plan(ctx, req)
	p.close()
	return p, err
}

func (p *Plan) close() {
	if p == nil {
		return
	}
	swap.CloseAll(p.volumes)
}

// plan is the pre-flight. The caller closes what it returns, after an error
// too.
func (s *session) plan(ctx context.Context, req RestoreRequest) (*Plan, error) {
	if !disk.ValidID(req.SID) {
		return nil, fault(Usage, "bad_sid", remedy.Of(remedy.List(s.w.Name)), "%q is not the id of a snapshot", req.SID)
	}
	if err := s.unfinished(); err != nil {
		return nil, err
	}
	guard, err := s.guardFor(req)
	if err != nil {
		return nil, err
	}
	p := &Plan{Workload: s.w.Name, SID: req.SID, Guard: guard}
	for _, check := range []func(context.Context, *Plan, RestoreRequest) error{
		s.planSnapshot, s.planVolumes, s.planDirectories, s.planLive, s.planContainers, s.planUsers, s.planHolders, s.planSpace, s.planExchange,
	} {
		if err := check(ctx, p, req); err != nil {
			return p, classify(err)
		}
	}
	return p, nil
}

func (s *session) planSnapshot(_ context.Context, p *Plan, req RestoreRequest) error {
	var err error
	p.manifest, err = s.Store.Load(s.w.Name, req.SID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refused("snapshot_not_found", remedy.Of(remedy.List(s.w.Name)), "there is no snapshot %s of workload %s", req.SID, s.w.Name)
	case errors.Is(err, disk.ErrTooNew):
		return refused("snapshot_too_new", remedy.Of("use the version of snap that made it, or a newer one"), "%w", err)
	case errors.Is(err, disk.ErrDamaged):
		return refused("snapshot_damaged", remedy.Of("the snapshot cannot be used; restore another (`", remedy.List(s.w.Name), "`)"), "%w", err)
	}
	return err
}

// planVolumes matches the snapshot's volumes with those of the current config,
// which alone says where data goes.
func (s *session) planVolumes(ctx context.Context, p *Plan, req RestoreRequest) error {
	for i := range p.manifest.Volumes {
		m := &p.manifest.Volumes[i]
		if s.configured(m) == nil {
			return refused("volume_unresolved", remedy.Of("make the config's volumes match the snapshot's (`", remedy.Operation{Verb: remedy.DoShow, Workload: s.w.Name, ID: req.SID}, "`)"),
				"the snapshot has volume %q (scope %s, source %q), but the config of workload %s does not", m.Name, m.Scope, m.Source, s.w.Name)
		}
	}
	var err error
	if p.chosen, err = s.chosen(req.Volumes); err != nil {
		return err
	}
	for _, v := range p.chosen {
		m := p.manifest.Volume(v.Name, string(v.Scope), v.Source)
		if m == nil {
			return refused("volume_missing", remedy.Of("choose volumes with --volume, or restore a snapshot that has it"),
				"the snapshot lacks volume %q (scope %s, source %q) of workload %s", v.Name, v.Scope, v.Source, s.w.Name)
		}
		n, first, err := s.Store.Missing(ctx, m)
		if err != nil {
			return err
		}
		if n > 0 {
			return refused("members_missing", remedy.Of("the snapshot cannot be used; restore another (`", remedy.List(s.w.Name), "`)"),
				"volume %q: the store lacks %d of its %d members, the first is %s", v.Name, n, len(m.Members), first)
		}
		p.Volumes = append(p.Volumes, PlannedVolume{
			Name: v.Name, Scope: string(v.Scope), Source: v.Source, Path: v.Path(), Files: m.Files, Bytes: m.Bytes,
		})
	}
	return nil
}

func (s *session) configured(m *store.Volume) *workload.Volume {
	for i := range s.w.Volumes {
		if v := &s.w.Volumes[i]; v.Name == m.Name && string(v.Scope) == m.Scope && v.Source == m.Source {
			return v
		}
	}
	return nil
}

// chosen returns the volumes of these names, all of them for none.
func (s *session) chosen(names []string) ([]*workload.Volume, error) {
	var list []*workload.Volume
	for i := range s.w.Volumes {
		if v := &s.w.Volumes[i]; len(names) == 0 || slices.Contains(names, v.Name) {
			list = append(list, v)
		}
	}
	for _, name := range names {
		if _, err := s.w.Volume(name); err != nil {
			return nil, fault(Usage, "no_such_volume", remedy.Remedy{}, "%w", err)
		}
	}
	if len(list) == 0 {
		return nil, refused("no_volumes", remedy.Of("give the workload volumes in the config"), "workload %s has no volumes", s.w.Name)
	}
	return list, nil
}

func (s *session) planDirectories(_ context.Context, p *Plan, _ RestoreRequest) error {
	var err error
	if p.volumes, err = s.openLive(p.chosen); err != nil {
		return err
	}
	if err := s.noOrphans(p.volumes); err != nil {
		return err
	}
	if err := swap.AllFit(p.volumes); err != nil {
		return err
	}
	for i, v := range p.volumes {
		p.Volumes[i].Exists = v.Live != nil
		if v.Live == nil {
			p.Warnings = append(p.Warnings, fmt.Sprintf("volume %s: %s does not exist and will be created", v.Name, v.Path()))
		}
	}
	return nil
}

// planLive walks the live data, by stat alone, to find before anything is staged
// what the pre-restore snapshot could not hold.
func (s *session) planLive(ctx context.Context, p *Plan, _ RestoreRequest) error {
	for i, v := range p.volumes {
		if v.Live == nil {
			continue
		}
		stats, err := archive.Survey(ctx, v.Live, snapshot.WriteOptions(p.chosen[i]))
		var locked *archive.Locked
		if errors.As(err, &locked) {
			hint := "chattr -i -a " + swap.Quote(v.Path()+"/"+locked.Name)
			if locked.More > 0 {
				hint = "chattr -R -i -a " + swap.Quote(v.Path()) + " (lsattr -R shows them)"
			}
			return refused("immutable", remedy.Of(hint), "volume %s: %w", v.Name, err)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		p.Volumes[i].LiveFiles, p.Volumes[i].LiveBytes = stats.Files, stats.Bytes
	}
	return nil
}

func (s *session) planContainers(ctx context.Context, p *Plan, req RestoreRequest) error {
	var err error
	if p.Containers, err = s.rt.Containers(ctx); err != nil {
		return err
	}
	p.running = runtime.Containers(p.Containers).Ran()
	for _, c := range p.Containers {
		if c.Paused {
			return refused("paused", remedy.Of("docker unpause "+c.Name), "container %s is paused: it cannot be stopped cleanly", c.Name)
		}
	}
	if !p.running {
		if s.w.Kind() != workload.Data {
			p.Warnings = append(p.Warnings, "no container of the workload runs; none will be started")
		}
	}
	for _, v := range p.volumes {
		if p.running && !mountedBy(p.Containers, v) {
			p.Warnings = append(p.Warnings, fmt.Sprintf(
				"volume %s: no container mounts %s now; the config has changed since they were deployed", v.Name, v.Path()))
		}
	}
	return s.planRedeploy(ctx, p, req)
}

// mountedBy reports whether a container mounts the volume or a directory above it.
func mountedBy(list []runtime.Container, v *swap.Volume) bool {
	for _, c := range list {
		for _, m := range c.Mounts {
			if workload.Contains(m.Source, v.Path()) {
				return true
			}
		}
	}
	return false
}

// planUsers looks for other containers that mount the volumes: a running one would
// go on writing to the displaced tree.
func (s *session) planUsers(ctx context.Context, p *Plan, _ RestoreRequest) error {
	paths := make([]string, len(p.volumes))
	for i, v := range p.volumes {
		paths[i] = v.Path()
	}
	users, err := s.rt.Users(ctx, paths)
	if err != nil {
		return err
	}
	for _, u := range users {
		what := fmt.Sprintf("container %s, which does not belong to the workload, mounts %s", u.Name, u.Source)
		switch {
		case u.Running && u.Relation != runtime.Above:
			way := remedy.Of("stop it (docker stop " + u.Name + "), or list it in also_stop in the config")
			if u.Release != "" {
				way = remedy.Of(u.Release)
			}
			return refused("in_use", way, "%s (%s volume %s): it would go on writing to the old data", what, u.Relation, u.Path)
		case u.Running:
			p.Warnings = append(p.Warnings, what+", above volume "+u.Path)
		default:
			p.Warnings = append(p.Warnings, what+"; it is stopped")
		}
	}
	return nil
}

// planHolders looks for processes of the host that use the volumes. Processes in the
// app's containers are looked for after the containers have stopped.
func (s *session) planHolders(_ context.Context, p *Plan, _ RestoreRequest) error {
	return swap.NoHolders(swap.LiveOf(p.volumes), disk.HostProcesses)
}

// limits returns the bounds of an extraction: the manifest's sizes, and what the
// config allows.
func limits(m *store.Volume, v *workload.Volume) archive.ExtractOptions {
	return archive.ExtractOptions{
		RejectSymlinks: v.Symlinks == workload.RejectSymlinks,
		KeepPrivileges: v.Setuid == workload.KeepSetuid,
		MaxEntries:     m.Entries(),
		MaxBytes:       m.Bytes,
		MaxDepth:       m.Depth,
	}
}
