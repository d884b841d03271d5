package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tiny-forge/snap/pkg/check"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

type restoreJSON struct {
	Workload        string              `json:"workload"`
	SID             string              `json:"sid"`
	PreRestoreSID   string              `json:"pre_restore_sid"`
	Guard           string              `json:"guard"`
	Outcome         string              `json:"outcome"`
	DowntimeSeconds float64             `json:"downtime_seconds"`
	Seconds         float64             `json:"seconds"`
	Files           int64               `json:"files"`
	Bytes           int64               `json:"bytes"`
	Volumes         []*preflight.Volume `json:"volumes"`
	Phases          restore.Seconds     `json:"phases"`
	PassOne         restore.Cost        `json:"pass_one"` // what the first pass cost while the app ran
	Warnings        []string            `json:"warnings"`
	NotKept         []snapshot.NotKept  `json:"not_kept"`
	Tx              string              `json:"tx"`
}

type planJSON struct {
	Workload   string              `json:"workload"`
	SID        string              `json:"sid"`
	Guard      string              `json:"guard"`
	Volumes    []*preflight.Volume `json:"volumes"`
	Containers []plannedJSON       `json:"containers"`
	Images     []preflight.Image   `json:"images"`
	Space      []disk.Room         `json:"space"`
	Warnings   []string            `json:"warnings"`
	LeftOut    []string            `json:"left_out"`
	NotKept    []snapshot.NotKept  `json:"not_kept"` // of the live data
	PlanHash   string              `json:"plan_hash"`
	// The most that the app was down at one of the last five restores; null without one.
	ExpectedDowntime *float64 `json:"expected_downtime_seconds"`
}

// plannedJSON is a container of a plan: as it is, and what becomes of it.
type plannedJSON struct {
	containerJSON
	Then        runtime.Then `json:"then"`
	Why         string       `json:"why"` // of "is made anew"
	NextImage   string       `json:"next_image"`
	NextImageID string       `json:"next_image_id"`
}

func showFates(list []runtime.Fate) []plannedJSON {
	out := []plannedJSON{}
	for _, f := range list {
		shown := showContainers([]runtime.Container{f.Container})[0]
		out = append(out, plannedJSON{shown, f.Then, f.Why, f.Up.Image, f.Up.ImageID})
	}
	return out
}

func (a *app) restoreCommand() *cobra.Command {
	var req restore.RestoreRequest
	var plan bool
	var to string
	var from fromConfig
	cmd := &cobra.Command{
		Use:         "restore <workload> {<sid> {--confirm <sid> | --to <dir> [VOLUME[:PATH]]...} | --config-from <sid>}",
		Annotations: doing,
		Short:       "Put a snapshot back under the running app, or into a directory",
		Long: `Put a snapshot back: all of a workload's volumes, or those chosen with --volume.

The new data is extracted and verified while the app runs. Then snap stops the
app, takes a pre-restore snapshot of the current data, exchanges all directories,
and brings the app up again as it ran: on the image that ran before, unless the
config names another one by now, or --image says otherwise. If the app does not
become healthy, everything is put back. What had crashed before is started too; if
it crashes again, that is named (exit 7).

The sid may be the word latest, for the newest snapshot that no restore made, or the
beginning of one sid. --confirm wants all of it. Without --confirm snap shows what it
would do, and asks.

To go back from an upgrade, restore with --image snapshot, or name the old image
in the config or the Compose file and restore: data and image come back together.

With --guard after, the app does not wait for the pre-restore snapshot: it is
made from the replaced directories when the app is up again. These directories
are kept until the snapshot is on disk. If it cannot be made, the restore ends
with 7, and snap recover tries again.

With --to the snapshot goes into a directory beside everything, as DIR/VOLUME: no
container is stopped, no live data changes, and nothing is to be confirmed. DIR
must not exist, or be empty. With VOLUME or VOLUME:PATH arguments only these
volumes, files and directories are put there, and only what they need is read.

With --config-from nothing is restored: it prints what the config said of the workload
when the snapshot was taken, to be added to the config of a host that has the store
alone. With --to it goes into a directory, and of Compose the files as well.

--plan shows what a restore would do, or why it would be refused, and changes
nothing. It prints a hash; with --plan-hash a restore is refused if the snapshot, the
config, a directory, a container or an image has changed since. snap undo takes the
last restore back. After a crash or a power cut, run snap recover.`,
		Example: `  snap restore web 20261123T170634Z-c68518 --plan
  snap restore web 20261123T170634Z-c68518 --to /srv/yesterday www:img/logo.png`,
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if from.sid != "" {
			return cobra.ExactArgs(1)(cmd, args)
		}
		return restoreArgs(cmd, args, to)
	}
	flags := cmd.Flags()
	a.restoreFlags(flags, &req, &plan, runtime.ImageRunning)
	flags.StringVar(&to, "to", "", "put the snapshot into this new or empty `dir`, and leave the live data alone")
	flags.StringVar(&from.sid, "config-from", "", "print the workload as the config had it in the snapshot `sid`, and restore nothing")
	flags.StringArrayVar(&req.Volumes, "volume", nil, "restore only the volume of this `name` (may be repeated)")
	flags.StringArrayVar(&req.Map, "map", nil, "put the snapshot's volume OLD into the config's volume NEW: `old=new` (may be repeated)")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if from.to = to; from.sid != "" {
			return from.only(flags)
		}
		if flags.Changed("to") {
			return alone(flags, to)
		}
		return checkRestore(flags, &req)
	}
	extract := a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		sid, err := a.sid(e, fault.Refused, args[0], args[1])
		if err != nil {
			return err
		}
		return a.extract(ctx, e, restore.ExtractRequest{Workload: args[0], SID: sid, Dir: to, Chosen: append(req.Volumes, args[2:]...), Plan: plan})
	})
	inPlace := a.with(ownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Workload = args[0]
		var err error
		if req.SID, err = a.sid(e, fault.Refused, args[0], args[1]); err != nil {
			return err
		}
		a.asked = asked{req.SID, given(flags)}
		if plan {
			return a.plan(ctx, e, req)
		}
		if err := a.ask(ctx, e, &req); err != nil {
			return err
		}
		return a.restore(ctx, e, req)
	})
	config := a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		return from.run(ctx, a, e, args[0])
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if from.sid != "" {
			return config(cmd, args)
		}
		if to != "" {
			return extract(cmd, args)
		}
		return inPlace(cmd, args)
	}
	return cmd
}

// restoreFlags are the flags of every restore in place.
func (a *app) restoreFlags(flags *pflag.FlagSet, req *restore.RestoreRequest, plan *bool, image string) {
	flags.StringVar(&req.Confirm, "confirm", "", "the `sid` again, because a restore replaces live data")
	flags.BoolVar(plan, "plan", false, "show what would be done and change nothing")
	flags.StringVar(&req.PlanHash, "plan-hash", "", "refuse if the plan has another `hash` by now than the one that --plan printed")
	flags.StringVar(&req.OnUnhealthy, "on-unhealthy", restore.RevertUnhealthy, "what to do if the app does not become healthy: `revert|keep`")
	flags.StringVar(&req.Guard, "guard", "", "make the pre-restore snapshot `before|after` the exchange: while the app is down, or when it is up again (default: guard in the config, else before)")
	durationVar(flags, &req.HealthTimeout, "health-timeout", "how long to wait for health, if the app's own check does not ask for longer (default 2m)")
	durationVar(flags, &req.StopTimeout, "stop-timeout", "how long to wait for a clean stop (default: the container's own setting)")
	flags.StringVar(&req.Image, "image", image, "the images to come up on, `running|config|snapshot`: those that run (unless the config names others by now), those of the config, or those that the snapshot was taken on")
	flags.BoolVar(&req.TakeOver, "take-over", false, "take over containers that another config made")
	flags.BoolVar(&req.TrustIndex, "trust-index", false, "do not verify files that are cloned because they have not changed since the snapshot")
	flags.BoolVar(&a.pacer.FullSpeed, "full-speed", false, "do not lower snap's priority while the app runs")
}

// undoCommand is a restore of what the last restore replaced.
func (a *app) undoCommand() *cobra.Command {
	var req restore.RestoreRequest
	var plan bool
	cmd := &cobra.Command{
		Use:         "undo <workload> --confirm <sid>",
		Annotations: doing,
		Short:       "Undo the last restore of a workload",
		Long: `Undo the last restore of a workload: put back what it replaced, as a restore of the
pre-restore snapshot that it made. Only the volumes that it replaced are put back, and
the app comes up on the images that ran before it (--image).

Without --confirm snap shows what it would do, and asks for the id of that snapshot.
The undo makes a pre-restore snapshot too, so another undo takes it back.

A restore that was rolled back has nothing to undo. To go back further, restore a
snapshot by its id.`,
		Example: `  snap undo blog --plan
  snap undo blog --confirm 20261123T170635Z-0b10b4`,
		Args: cobra.ExactArgs(1),
	}
	flags := cmd.Flags()
	a.restoreFlags(flags, &req, &plan, runtime.ImageSnapshot)
	cmd.PreRunE = func(*cobra.Command, []string) error { return checkRestore(flags, &req) }
	cmd.RunE = a.with(ownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		undone, err := e.Undo(ctx, args[0])
		if err != nil {
			return err
		}
		req.Workload, req.SID, req.Volumes = args[0], undone.SID, undone.Volumes()
		a.asked = asked{undone.SID, given(cmd.Flags())}
		if undone.Unsure {
			a.progress("warning: this host has no record of the restore that made snapshot %s, so it is not known whether that restore stayed", undone.SID)
		}
		if plan {
			return a.plan(ctx, e, req)
		}
		if err := a.ask(ctx, e, &req); err != nil {
			return err
		}
		if req.Confirm != req.SID {
			return fault.Refuse(unconfirmed(req.Confirm), remedy.Of(remedy.Operation{Verb: remedy.DoUndo, Workload: req.Workload, ID: req.SID, Confirmed: true}),
				"to undo the last restore of %s puts snapshot %s back in place of the live data, and must be confirmed with that id", req.Workload, req.SID)
		}
		return a.restore(ctx, e, req)
	})
	return cmd
}

func unconfirmed(given string) (code string) {
	if given == "" {
		return "confirm_required"
	}
	return "confirm_mismatch"
}

// ask shows somebody at a terminal what a restore would do, and has the id typed. What was
// shown is what is done: if anything that it rests on changes until the restore has its
// locks, the restore is refused.
func (a *app) ask(ctx context.Context, e *restore.Engine, req *restore.RestoreRequest) error {
	if req.Confirm != "" || !a.asks() {
		return nil
	}
	p, err := e.Plan(ctx, *req)
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	for _, line := range a.planText(e, p) {
		a.line(a.err, line)
	}
	req.PlanHash = p.Hash
	req.Confirm, err = a.confirm(ctx, fmt.Sprintf("This replaces the live data of %s. Type the snapshot's id to confirm:", req.Workload), req.SID)
	return err
}

// unlessInterrupted returns err, or that a signal has ended the work.
func unlessInterrupted(ctx context.Context, err error) error {
	if sig := fault.Interruption(context.Cause(ctx)); sig != nil {
		return sig
	}
	return err
}

// checkRestore refuses values that a restore in place does not know.
func checkRestore(flags *pflag.FlagSet, req *restore.RestoreRequest) error {
	if flags.Changed("guard") {
		if err := oneOf("--guard", req.Guard, workload.GuardBefore, workload.GuardAfter); err != nil {
			return err
		}
	}
	if flags.Changed("plan-hash") && !preflight.ValidHash(req.PlanHash) {
		return fmt.Errorf("--plan-hash is %q: use the hash that --plan printed", req.PlanHash)
	}
	if err := oneOf("--image", req.Image, runtime.ImageRunning, runtime.ImageConfig, runtime.ImageSnapshot); err != nil {
		return err
	}
	return oneOf("--on-unhealthy", req.OnUnhealthy, restore.RevertUnhealthy, restore.KeepUnhealthy)
}

func (a *app) plan(ctx context.Context, e *restore.Engine, req restore.RestoreRequest) error {
	p, err := e.Plan(ctx, req)
	if err != nil {
		return unlessInterrupted(ctx, err)
	}
	shown := planJSON{
		p.Workload, p.SID, p.Guard, p.Volumes, showFates(p.Fates), notNil(p.Images), notNil(p.Space), notNil(p.Warnings), notNil(p.Left), notNil(p.NotKept), p.Hash, nil,
	}
	if down := downtimes(e, p); len(down) > 0 {
		most := slices.Max(down)
		shown.ExpectedDowntime = &most
	}
	a.result = shown
	for _, line := range a.planText(e, p) {
		a.say("%s", line)
	}
	a.say("plan hash %s", p.Hash)
	return nil
}

// downtimes are those of the last restores, the last one first; none where nothing runs.
func downtimes(e *restore.Engine, p *preflight.Plan) []float64 {
	if !p.Running {
		return nil
	}
	runs, _ := e.Journal.Runs(p.Workload) // status tells of a history that cannot be read
	return journal.Downtimes(runs)
}

// planText is what a restore would do, for people.
func (a *app) planText(e *restore.Engine, p *preflight.Plan) (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	m := p.Manifest()
	say("snapshot %s of %s, of %s, %s ago%s", p.SID, p.Workload, m.Created.Local().Format(time.DateTime), check.Ago(time.Since(m.Created)), noted(m))
	rows := [][]string{{"VOLUME", "LIVE DIRECTORY", "NOW", "", "THEN", ""}}
	for _, v := range p.Volumes {
		rows = append(rows, []string{
			v.Name, v.Path, fmt.Sprintf("%d files", v.LiveFiles), size(v.LiveBytes), fmt.Sprintf("%d files", v.Files), size(v.Bytes),
		})
	}
	lines = append(lines, columns(rows)...)
	for _, v := range p.Volumes {
		if v.From != v.Name {
			say("volume %s is %s in the snapshot", v.Name, v.From)
		}
		if v.Changes != nil {
			say("volume %s: %s", v.Name, totalsText(v.Changes, [4]string{"will be added", "deleted", "replaced", "given other metadata"}))
		}
	}
	for _, f := range p.Fates {
		how := string(f.Then)
		if f.Running {
			how = "stops, and " + how
		}
		if f.Crashed {
			how = "has crashed, and " + how
		}
		if f.Then == runtime.MadeAnew {
			how += " because " + f.Why
		}
		say("container %s %s (%s)", f.Name, how, f.Up.Image)
	}
	other := false
	for _, i := range p.Images {
		known := i.Snapshot.ImageID != ""
		other = other || !known || !i.Snapshot.Same(i.Next)
		if known && (i.Snapshot.ImageID != i.Running.ImageID || i.Running.ImageID != i.Next.ImageID) {
			say("image %s: the snapshot was taken on %s, now runs %s, then runs %s", i.Service, i.Snapshot.Text(), i.Running.Text(), i.Next.Text())
		}
	}
	if len(p.Images) > 0 && !other {
		say("the app comes up on the image that the snapshot was taken on")
	}
	if down := downtimes(e, p); len(down) > 0 {
		by := "the last restore"
		if len(down) > 1 {
			by = fmt.Sprintf("the last %d restores", len(down))
		}
		say("expected downtime: at most %.1f s, by %s", slices.Max(down), by)
	}
	if p.Guard == workload.GuardAfter {
		say("the replaced data is kept until it is a snapshot, which is made when the app is up again")
	}
	for _, s := range p.Space {
		say("needs %s on the filesystem of %s, which has %s free", size(int64(s.NeedBytes)), s.Path, size(int64(s.FreeBytes)))
	}
	for _, line := range p.Left {
		say("left out: %s", line)
	}
	for _, w := range p.Warnings {
		say("warning: %s", w)
	}
	return lines
}

// noted is what else tells a snapshot from others.
func noted(m *store.Manifest) string {
	text := ""
	if m.Reason != store.Manual {
		text += ", made by a restore"
	}
	if m.Note != "" {
		text += fmt.Sprintf(", %q", m.Note)
	}
	return text
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (a *app) restore(ctx context.Context, e *restore.Engine, req restore.RestoreRequest) error {
	r, err := e.Restore(ctx, req)
	if code := fault.Classify(err); r == nil && (code.Kind == fault.Usage || strings.HasPrefix(code.Code, "confirm_")) {
		return err // nothing has begun
	}
	if r == nil {
		a.tell(ctx, e, a.outcome(e, "restore", req.Workload, "", err))
		return err
	}
	shown := restoreJSON{
		Workload: r.Workload, SID: r.SID, PreRestoreSID: r.PreRestoreSID, Guard: r.Guard, Outcome: r.Outcome,
		DowntimeSeconds: r.DowntimeSeconds, Seconds: r.Seconds, Volumes: r.Volumes,
		Phases: r.Phases, PassOne: r.PassOne, Warnings: notNil(r.Warnings), NotKept: notNil(r.NotKept), Tx: r.Tx,
	}
	for _, v := range r.Volumes {
		shown.Files += v.Files
		shown.Bytes += v.Bytes
	}
	a.result, a.effect = shown, replaces
	a.say("%s %s: snapshot %s, %d files, %s", r.Outcome, r.Workload, r.SID, shown.Files, size(shown.Bytes))
	if r.PreRestoreSID != "" {
		a.say("the old data: snapshot %s", r.PreRestoreSID)
	}
	a.progress("the app was down %.1f s of %.1f s%s", r.DowntimeSeconds, r.Seconds, timing(r.Phases))
	a.tell(ctx, e, a.outcome(e, "restore", req.Workload, fmt.Sprintf("snapshot %s is live; the app was down %.1f s", r.SID, r.DowntimeSeconds), err))
	return err
}
