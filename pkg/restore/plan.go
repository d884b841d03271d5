package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
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
	Guard         string        // as of Plan; "": what the config says
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
	Space      []disk.Room
	Warnings   []string
	Left       []string           // mounts that are not volumes of the workload, a line for each reason
	NotKept    []snapshot.NotKept // of the live data: what its pre-restore snapshot will not hold

	req       RestoreRequest
	manifest  *store.Manifest
	chosen    []*workload.Volume
	wanted    []*store.Volume // of chosen, in the snapshot
	volumes   []*swap.Volume  // of chosen, opened
	exchanged []*swap.Volume  // those that are not mount points
	running   bool            // the app runs now and will be brought up again
	captures  bool            // it is the pre-flight of a capture
	pins      map[string]runtime.Pin
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
	// What of the live data the config excludes. It is in no snapshot, and the restore
	// deletes it.
	LiveExcludedFiles int64 `json:"live_excluded_files"`
	LiveExcludedBytes int64 `json:"live_excluded_bytes"`
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

func (p *Plan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

func (p *Plan) close() {
	if p != nil {
		swap.CloseAll(p.volumes)
	}
}

// plan is the pre-flight. The caller closes what it returns, after an error
// too.
func (s *session) plan(ctx context.Context, req RestoreRequest) (*Plan, error) {
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
	p := &Plan{Workload: s.w.Name, SID: req.SID, Guard: guard, req: req}
	p.Left, p.Warnings = s.mounts.Told(), s.mounts.Warnings()
	for _, check := range []func(context.Context, *Plan) error{
		s.planVolumes, s.planDirectories, s.planLive, s.planContainers, s.planUsers, s.planHolders, s.planSpace, s.planExchange,
	} {
		if err := check(ctx, p); err != nil {
			return p, fault.Classify(err)
		}
	}
	return p, nil
}

// planVolumes matches the snapshot's volumes with those of the current config,
// which alone says where data goes.
func (s *session) planVolumes(ctx context.Context, p *Plan) error {
	var err error
	if p.manifest, err = catalog.Load(s.Store, fault.Refused, s.w.Name, p.SID); err != nil {
		return err
	}
	for _, m := range p.manifest.Volumes {
		switch v, _ := s.w.Volume(m.Name); {
		case v != nil && v.Name == m.Name && string(v.Scope) == m.Scope && v.Source == m.Source:
		case s.mounts.Excludes(m.Source):
			p.warn("the snapshot has volume %q, which `exclude` in the config leaves alone", m.Name)
		default:
			return fault.Refuse("volume_unresolved", remedy.Of("make the config's volumes match the snapshot's (`", remedy.Operation{Verb: remedy.DoShow, Workload: s.w.Name, ID: p.SID}, "`)"),
				"the snapshot has volume %q (scope %s, source %q), but the config of workload %s does not", m.Name, m.Scope, m.Source, s.w.Name)
		}
	}
	if p.chosen, err = s.chosen(p.req.Volumes); err != nil {
		return err
	}
	for _, v := range p.chosen {
		m := p.manifest.Volume(v.Name, string(v.Scope), v.Source)
		if m == nil {
			return fault.Refuse("volume_missing", remedy.Of("choose volumes with --volume, or restore a snapshot that has it"),
				"the snapshot lacks volume %q (scope %s, source %q) of workload %s", v.Name, v.Scope, v.Source, s.w.Name)
		}
		if m.Specials > 0 && v.Special == workload.RefuseSpecial {
			return fault.Refuse("special_files", remedy.Of("set `special: skip` for the volume in the config, to leave them out, or `special: keep`"),
				"volume %q: the snapshot holds %d fifos and devices", v.Name, m.Specials)
		}
		n, first, err := s.Store.Missing(ctx, m)
		if err != nil {
			return err
		}
		if n > 0 {
			return fault.Refuse("members_missing", fault.UseAnother(s.w.Name),
				"volume %q: the store lacks %d of its %d members, the first is %s", v.Name, n, len(m.Members), first)
		}
		if found := s.mounts.Volume(v.Name); found != nil && found.Fills && m.Entries() <= 1 {
			p.warn("volume %s is empty in the snapshot: where its container is made anew, the engine puts the image's own files of %s into it", v.Name, v.Target)
		}
		p.wanted = append(p.wanted, m)
		p.Volumes = append(p.Volumes, PlannedVolume{
			Name: v.Name, Scope: string(v.Scope), Source: v.Source, Path: v.Path(), Files: m.Files, Bytes: m.Bytes,
		})
	}
	return nil
}

// chosen returns the volumes of these names, all of them for none.
func (s *session) chosen(names []string) ([]*workload.Volume, error) {
	wanted := map[*workload.Volume]bool{}
	for _, name := range names {
		v, err := s.w.Volume(name)
		if err != nil {
			return nil, fault.New(fault.Usage, "no_such_volume", remedy.Remedy{}, "%w", err)
		}
		wanted[v] = true
	}
	var list []*workload.Volume
	for i := range s.w.Volumes {
		if v := &s.w.Volumes[i]; len(names) == 0 || wanted[v] {
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return nil, fault.Refuse("no_volumes", remedy.Of("give the workload volumes in the config"), "workload %s has no volumes", s.w.Name)
	}
	return list, nil
}

func (s *session) planDirectories(_ context.Context, p *Plan) error {
	var err error
	if p.volumes, err = s.openLive(p.chosen); err != nil {
		return err
	}
	mounts, err := disk.ReadMounts()
	if err != nil {
		return err
	}
	for i, v := range p.volumes {
		if err := p.fits(v, mounts); err != nil {
			return err
		}
		p.Volumes[i].Exists = v.Live != nil
		switch {
		case v.Live != nil:
		case p.captures:
			return s.absent(v)
		default:
			p.warn("volume %s: %s does not exist and will be created", v.Name, v.Path())
		}
	}
	return nil
}

// fits refuses a volume that could not be exchanged. A mount point can still be
// captured and exported, and its data must not be without a copy until somebody mounts
// it elsewhere.
func (p *Plan) fits(v *swap.Volume, mounts disk.Mounts) error {
	err := v.Fit(mounts)
	var unfit *swap.Unfit
	if p.captures && errors.As(err, &unfit) && unfit.Code == "mount_point" {
		p.warn("%v, so this snapshot cannot be restored in place yet: %s", err, unfit.Hint)
		return nil
	}
	if err == nil {
		p.exchanged = append(p.exchanged, v)
	}
	return err
}

func (s *session) absent(v *swap.Volume) error {
	way := remedy.Of("make it (", remedy.Operation{Verb: remedy.DoDeploy, Workload: s.w.Name}, " does), or correct the config")
	switch {
	case s.w.Kind() == workload.Data && v.EngineVolume != "":
		way = remedy.Of("docker volume create " + v.EngineVolume + " (a restore also makes it), or correct the config")
	case s.w.Kind() == workload.Data:
		way = remedy.Of("make the directory (mkdir -p " + swap.Quote(v.Path()) + "; a restore also makes it), or correct the config")
	}
	return fault.Refuse("volume_absent", way, "volume %s: %s does not exist", v.Name, v.Path())
}

// planLive walks the live data, by stat alone, to find before anything is staged
// what the pre-restore snapshot could not hold.
func (s *session) planLive(ctx context.Context, p *Plan) error {
	for i, v := range p.volumes {
		if v.Live == nil {
			continue
		}
		found, err := archive.Survey(ctx, v.Live, snapshot.WriteOptions(p.chosen[i]))
		var locked *archive.Locked
		if errors.As(err, &locked) {
			hint := "chattr -i -a " + swap.Quote(v.Path()+"/"+locked.Name)
			if locked.More > 0 {
				hint = "chattr -R -i -a " + swap.Quote(v.Path()) + " (lsattr -R shows them)"
			}
			return fault.Refuse("immutable", remedy.Of(hint), "volume %s: %w", v.Name, err)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		p.Volumes[i].LiveFiles, p.Volumes[i].LiveBytes = found.Files, found.Bytes
		p.Volumes[i].LiveExcludedFiles, p.Volumes[i].LiveExcludedBytes = found.ExcludedFiles, found.ExcludedBytes
		if found.ExcludedFiles > 0 {
			p.warn("volume %s: the config excludes %d files (%d bytes) of the live data: they will be in no snapshot, and the restore deletes them",
				v.Name, found.ExcludedFiles, found.ExcludedBytes)
		}
		list, warnings := snapshot.NotKeptOf(v.Name, found.Lost)
		p.NotKept = append(p.NotKept, list...)
		p.Warnings = append(p.Warnings, warnings...)
	}
	return nil
}

func (s *session) planContainers(ctx context.Context, p *Plan) error {
	var err error
	if p.Containers, err = s.rt.Containers(ctx); err != nil {
		return err
	}
	p.running = runtime.Containers(p.Containers).Ran()
	for _, c := range p.Containers {
		if c.Paused {
			return fault.Refuse("paused", remedy.Of("docker unpause "+c.Name), "container %s is paused: it cannot be stopped cleanly", c.Name)
		}
	}
	if !p.running && s.w.Kind() != workload.Data {
		p.warn("no container of the workload runs; none will be started")
	}
	for _, v := range p.volumes {
		if p.running && !slices.ContainsFunc(p.Containers, func(c runtime.Container) bool {
			return slices.ContainsFunc(c.Mounts, func(m runtime.Mount) bool { return v.Below(m.Source) })
		}) {
			p.warn("volume %s: no container mounts %s now; the config has changed since they were deployed", v.Name, v.Path())
		}
	}
	return s.planRedeploy(ctx, p)
}

func (s *session) planUsers(ctx context.Context, p *Plan) error {
	warnings, err := s.users(ctx, p.volumes)
	p.Warnings = append(p.Warnings, warnings...)
	return err
}

// users looks for other containers that mount the volumes. It refuses a running one,
// which would go on writing to the displaced tree, and warns of others.
func (s *session) users(ctx context.Context, volumes []*swap.Volume) (warnings []string, err error) {
	users, err := s.foreign(ctx, volumes)
	if err != nil {
		return nil, err
	}
	for _, u := range users {
		what := u.Mounting()
		switch {
		case u.Running && u.Relation != runtime.Above:
			way := remedy.Of("stop it (docker stop " + u.Name + "), or list it in also_stop in the config")
			if u.Release != "" {
				way = remedy.Of(u.Release)
			}
			return nil, fault.Refuse("in_use", way, "%s (%s volume %s): it would go on writing to the old data", what, u.Relation, u.Path)
		case u.Running:
			warnings = append(warnings, what+", above volume "+u.Path)
		default:
			warnings = append(warnings, what+"; it is stopped")
		}
	}
	return warnings, nil
}

// foreign returns the containers of others that mount the volumes.
func (s *session) foreign(ctx context.Context, volumes []*swap.Volume) ([]runtime.User, error) {
	paths := make([]string, len(volumes))
	for i, v := range volumes {
		paths[i] = v.Path()
	}
	return s.rt.Users(ctx, paths)
}

// planSpace adds up the room that each filesystem needs: for the staged trees beside
// the live ones, and a little in the store.
func (s *session) planSpace(_ context.Context, p *Plan) error {
	const perEntry = 4096 // a block for what a name and its metadata take
	need := disk.Rooms{}
	for i, v := range p.volumes {
		m := p.wanted[i]
		// The length of the stream bounds what can be written, whatever the manifest
		// says of the data; the length of each member is checked.
		bytes := uint64(m.Tar()) + perEntry*uint64(m.Entries())
		if _, err := need.Add(v.Nearest(), bytes, uint64(m.Entries())+2); err != nil {
			return err
		}
		if project, free, err := v.Quota(); err != nil {
			return err
		} else if project != 0 && bytes > free {
			return fault.Refuse("no_space", remedy.Of("raise the quota of the project, or free space in it"),
				"the quota of project %d of %s has %d bytes free; the restore needs %d (old and new data both count until the end)", project, v.Path(), free, bytes)
		}
	}
	// How much of the live data is not in the store yet shows only when it is read.
	// The first pass of the pre-restore capture reads it before anything stops; with
	// guard after nothing reads it until the app is up again. So this asks for room
	// for the records and the manifest only.
	inStore, err := need.Add(s.Store.Root(), 4<<20, 64)
	if err != nil {
		return err
	}
	if _, err := need.Add(s.Journal.Root(), 1<<20, 64); err != nil {
		return err
	}
	if p.Guard == workload.GuardAfter {
		p.warnOfSpace(inStore)
	}
	p.Space = need.List()
	for _, space := range p.Space {
		if space.NeedBytes > space.FreeBytes {
			return fault.Refuse("no_space", remedy.Of(fmt.Sprintf("free %d bytes there, or choose fewer volumes with --volume", space.NeedBytes-space.FreeBytes)),
				"the filesystem of %s has %d bytes free; the restore needs %d, so %d are missing (old and new data are both on disk until the end)",
				space.Path, space.FreeBytes, space.NeedBytes, space.NeedBytes-space.FreeBytes)
		}
		if space.NeedInodes > space.FreeInodes {
			return fault.Refuse("no_space", remedy.Of("remove files there, or choose fewer volumes with --volume"),
				"the filesystem of %s has %d inodes free; the restore needs %d, so %d are missing", space.Path, space.FreeInodes, space.NeedInodes, space.NeedInodes-space.FreeInodes)
		}
	}
	return nil
}

// live is the size of the live data.
func (p *Plan) live() (bytes int64) {
	for _, v := range p.Volumes {
		bytes += v.LiveBytes
	}
	return bytes
}

// warnOfSpace warns when the store may be too full for the snapshot of the displaced
// trees. It refuses nothing: most of the data may be in the store already, the rest
// compresses, and a tree that finds no room stays where it is.
func (p *Plan) warnOfSpace(inStore *disk.Room) {
	live := p.live()
	if inStore.NeedBytes+uint64(live) > inStore.FreeBytes {
		p.warn("the store may be too full for the snapshot of the live data (up to %d bytes, and %d are free): until there is room, the old data stays beside the new", live, inStore.FreeBytes)
	}
}

// planExchange tries a real exchange on each filesystem, in a wrapper of its
// own that a transaction records, so that a crash leaves nothing unnamed.
func (s *session) planExchange(_ context.Context, p *Plan) error {
	err, cleanErr := swap.Probe(p.exchanged, func(begin *journal.Begin) (*journal.Tx, error) {
		begin.Snap = s.Version
		return s.Journal.Begin(s.held, begin)
	})
	switch {
	case cleanErr != nil:
		return fault.New(fault.Failed, "cleanup", remedy.Of(remedy.Recover(s.w.Name)), "the test exchange of the pre-flight left files that could not be removed: %w", errors.Join(err, cleanErr))
	case errors.Is(err, disk.ErrNoExchange):
		return fault.Refuse("no_exchange", remedy.Of("keep the volume on ext4, xfs or btrfs"), "%w", err)
	case p.captures && (fault.NoSpace(err) || errors.Is(err, unix.EROFS)):
		// It passes, and a snapshot is wanted most on such a day.
		p.warn("whether a restore could exchange the directories cannot be tried: %v", err)
		return nil
	}
	return err
}
