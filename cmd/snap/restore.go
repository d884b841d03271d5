package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
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
	cmd := &cobra.Command{
		Use:         "restore <workload> <sid> {--confirm <sid> | --to <dir> [VOLUME[:PATH]]...}",
		Annotations: doing,
		Short:       "Put a snapshot back under the running app, or into a directory",
		Long: `Put a snapshot back: all of a workload's volumes, or those chosen with --volume.

The new data is extracted and verified while the app runs. Then snap stops the
app, takes a pre-restore snapshot of the current data, exchanges all directories,
and brings the app up again as it ran: on the image that ran before, unless the
config names another one by now, or --image says otherwise. If the app does not
become healthy, everything is put back. What had crashed before is started too; if
it crashes again, that is named (exit 7).

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

--plan shows what a restore would do, or why it would be refused, and changes
nothing. After a crash or a power cut, run snap recover.`,
		Example: `  snap restore web 20261123T170634Z-c68518 --plan
  snap restore web 20261123T170634Z-c68518 --to /srv/yesterday www:img/logo.png`,
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error { return restoreArgs(cmd, args, to) }
	flags := cmd.Flags()
	flags.StringVar(&req.Confirm, "confirm", "", "the `sid` again, because a restore replaces live data")
	flags.BoolVar(&plan, "plan", false, "show what would be done and change nothing")
	flags.StringVar(&to, "to", "", "put the snapshot into this new or empty `dir`, and leave the live data alone")
	flags.StringArrayVar(&req.Volumes, "volume", nil, "restore only the volume of this `name` (may be repeated)")
	flags.StringVar(&req.OnUnhealthy, "on-unhealthy", restore.RevertUnhealthy, "what to do if the app does not become healthy: `revert|keep`")
	flags.StringVar(&req.Guard, "guard", "", "make the pre-restore snapshot `before|after` the exchange: while the app is down, or when it is up again (default: guard in the config, else before)")
	durationVar(flags, &req.HealthTimeout, "health-timeout", "how long to wait for health, if the app's own check does not ask for longer (default 2m)")
	durationVar(flags, &req.StopTimeout, "stop-timeout", "how long to wait for a clean stop (default: the container's own setting)")
	flags.StringVar(&req.Image, "image", runtime.ImageRunning, "the images to come up on, `running|config|snapshot`: those that run (unless the config names others by now), those of the config, or those that the snapshot was taken on")
	flags.BoolVar(&req.TakeOver, "take-over", false, "take over containers that another config made")
	flags.BoolVar(&req.TrustIndex, "trust-index", false, "do not verify files that are cloned because they have not changed since the snapshot")
	flags.BoolVar(&a.pacer.fullSpeed, "full-speed", false, "do not lower snap's priority while the app runs")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if flags.Changed("to") {
			return alone(flags, to)
		}
		return checkRestore(flags, &req)
	}
	extract := a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		return a.extract(ctx, e, restore.ExtractRequest{Workload: args[0], SID: args[1], Dir: to, Chosen: append(req.Volumes, args[2:]...), Plan: plan})
	})
	inPlace := a.with(ownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Workload, req.SID = args[0], args[1]
		if plan {
			return a.plan(ctx, e, req)
		}
		if _, err := e.Config.Workload(req.Workload); err == nil && req.Confirm == "" {
			req.Confirm = a.confirm(fmt.Sprintf("This replaces the live data of %s. Type the snapshot's id to confirm:", req.Workload), req.SID)
		}
		return a.restore(ctx, e, req)
	})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if to != "" {
			return extract(cmd, args)
		}
		return inPlace(cmd, args)
	}
	return cmd
}

// checkRestore refuses values that a restore in place does not know.
func checkRestore(flags *pflag.FlagSet, req *restore.RestoreRequest) error {
	if flags.Changed("guard") {
		if err := oneOf("--guard", req.Guard, workload.GuardBefore, workload.GuardAfter); err != nil {
			return err
		}
	}
	if err := oneOf("--image", req.Image, runtime.ImageRunning, runtime.ImageConfig, runtime.ImageSnapshot); err != nil {
		return err
	}
	return oneOf("--on-unhealthy", req.OnUnhealthy, restore.RevertUnhealthy, restore.KeepUnhealthy)
}

func (a *app) plan(ctx context.Context, e *restore.Engine, req restore.RestoreRequest) error {
	p, err := e.Plan(ctx, req)
	if err != nil {
		return err
	}
	a.result = planJSON{p.Workload, p.SID, p.Guard, p.Volumes, showFates(p.Fates), notNil(p.Images), notNil(p.Space), notNil(p.Warnings), notNil(p.Left), notNil(p.NotKept)}
	rows := [][]string{{"VOLUME", "LIVE DIRECTORY", "NOW", "", "THEN", ""}}
	for _, v := range p.Volumes {
		rows = append(rows, []string{
			v.Name, v.Path, fmt.Sprintf("%d files", v.LiveFiles), size(v.LiveBytes), fmt.Sprintf("%d files", v.Files), size(v.Bytes),
		})
	}
	a.table(rows)
	for _, f := range p.Fates {
		switch f.Then {
		case runtime.MadeAnew:
			a.say("container %s is made anew because %s (%s)", f.Name, f.Why, f.Up.Image)
		default:
			if f.Crashed {
				a.say("container %s has crashed, and %s (%s)", f.Name, f.Then, f.Up.Image)
				continue
			}
			a.say("container %s %s (%s)", f.Name, f.Then, f.Up.Image)
		}
	}
	for _, i := range p.Images {
		if i.Snapshot.ImageID != "" && (i.Snapshot.ImageID != i.Running.ImageID || i.Running.ImageID != i.Next.ImageID) {
			a.say("image %s: the snapshot was taken on %s, now runs %s, then runs %s", i.Service, i.Snapshot.Text(), i.Running.Text(), i.Next.Text())
		}
	}
	if p.Guard == workload.GuardAfter {
		a.say("the replaced data is kept until it is a snapshot, which is made when the app is up again")
	}
	for _, s := range p.Space {
		a.say("needs %s on the filesystem of %s, which has %s free", size(int64(s.NeedBytes)), s.Path, size(int64(s.FreeBytes)))
	}
	for _, line := range p.Left {
		a.say("left out: %s", line)
	}
	for _, w := range p.Warnings {
		a.say("warning: %s", w)
	}
	return nil
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (a *app) restore(ctx context.Context, e *restore.Engine, req restore.RestoreRequest) error {
	r, err := e.Restore(ctx, req)
	if r == nil {
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
	return err
}
