package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/verify"
)

// snapshotJSON is a snapshot as --json shows it.
type snapshotJSON struct {
	Workload    string       `json:"workload"`
	SID         string       `json:"sid"`
	Created     time.Time    `json:"created"`
	Reason      store.Reason `json:"reason"`
	Note        string       `json:"note"`
	Tags        []string     `json:"tags"`
	Quiesce     string       `json:"quiesce"`
	Files       int64        `json:"files"`
	Bytes       int64        `json:"bytes"`
	StoredBytes int64        `json:"stored_bytes"`
	Volumes     []volumeJSON `json:"volumes"`
}

type volumeJSON struct {
	Name        string     `json:"name"`
	Scope       string     `json:"scope"`
	Source      string     `json:"source"`
	Target      string     `json:"target"`
	Kind        store.Kind `json:"kind,omitempty"` // "file" for a volume that is one
	Compression string     `json:"compression"`
	Members     int        `json:"members"`
	Sum         string     `json:"sum,omitempty"` // of the whole volume; of earlier versions there is none
	StoredBytes int64      `json:"stored_bytes"`
	Sockets     int64      `json:"sockets"`
	Changed     int64      `json:"changed"`
	archive.Stats
}

func showSnapshot(m *store.Summary) snapshotJSON {
	files, bytes, stored := m.Totals()
	out := snapshotJSON{
		Workload: m.Workload, SID: m.SID, Created: m.Created, Reason: m.Reason, Note: m.Note, Tags: notNil(m.Tags), Quiesce: m.Quiesce,
		Files: files, Bytes: bytes, StoredBytes: stored, Volumes: []volumeJSON{},
	}
	for i := range m.Volumes {
		v := &m.Volumes[i]
		out.Volumes = append(out.Volumes, volumeJSON{
			Name: v.Name, Scope: v.Scope, Source: v.Source, Target: v.Target, Kind: v.Kind, Compression: v.Compression.String(), Members: v.Members, Sum: v.Sum,
			StoredBytes: v.Stored, Sockets: v.Sockets, Changed: v.Changed, Stats: v.Stats,
		})
	}
	return out
}

type captureJSON struct {
	snapshotJSON
	QuiescedSeconds float64            `json:"quiesced_seconds"`
	Seconds         float64            `json:"seconds"`
	AddedBytes      int64              `json:"added_bytes"` // how much the store grew
	ReadBytes       int64              `json:"read_bytes"`  // of content; 0 where nothing has changed
	Phases          restore.Seconds    `json:"phases"`
	PassOne         restore.Cost       `json:"pass_one"` // what the first pass cost while the app ran
	Warnings        []string           `json:"warnings"`
	NotKept         []snapshot.NotKept `json:"not_kept"`
	Pruned          *pruneJSON         `json:"pruned"` // null where the config has no rules
}

func (a *app) captureCommand() *cobra.Command {
	var req restore.CaptureRequest
	var every bool
	cmd := &cobra.Command{
		Use:   "capture <workload>... | --all",
		Short: "Take a snapshot of a workload's volumes",
		Long: `Take a snapshot of all volumes of a workload.

The volumes are read twice: once while the app runs, and again while it is
paused or stopped. The second pass reads only what has changed since the first,
so it is short. Files that have not changed since the latest snapshot are not
read at all. While the app runs, snap gives way to it (nice 10, lowest I/O
priority).

--quiesce pause freezes the containers: the copy is what a power cut at that
instant would leave. stop shuts the app down cleanly. none lets the app run:
the files may then be from different moments.

Several workloads are captured one after the other. If one fails, the others are
captured all the same, and the exit code is that of the gravest failure.`,
		Example: `  snap capture blog --note 'before the upgrade' --tag upgrade
  snap capture --all --wait 10m`,
	}
	cmd.Flags().StringVar(&req.Quiesce, "quiesce", runtime.Pause, "how to quiesce the app: `pause|stop|none`")
	cmd.Flags().StringVar(&req.Note, "note", "", "a `text` that list shows with the snapshot")
	cmd.Flags().StringArrayVar(&req.Tags, "tag", nil, "a `tag` for snap prune --keep-tag and for snap list; may be given several times")
	cmd.Flags().BoolVar(&every, "all", false, "capture all workloads of the config")
	durationVar(cmd.Flags(), &req.Wait, "wait", "how long to wait for another operation on the workload")
	cmd.Flags().BoolVar(&a.pacer.FullSpeed, "full-speed", false, "do not lower snap's priority while the app runs")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		if every == (len(args) > 0) {
			return errors.New("name the workloads to capture, or use --all")
		}
		return oneOf("--quiesce", req.Quiesce, runtime.Pause, runtime.Stop, runtime.None)
	}
	cmd.RunE = a.with(ownStore, func(ctx context.Context, e *restore.Engine, args []string) (err error) {
		if every {
			args = e.Config.Names()
			ended := a.ping(ctx, e.Config.Ping, "capture of all workloads")
			defer func() { ended(err) }()
		}
		if len(args) != 1 {
			return a.captureEach(ctx, e, req, args)
		}
		req.Workload = args[0]
		shown, err := a.capture(ctx, e, req)
		if shown != nil {
			a.result = shown
		}
		return err
	})
	return cmd
}

// capture captures one workload and tells how it went. It returns nil for a snapshot that
// does not exist.
func (a *app) capture(ctx context.Context, e *restore.Engine, req restore.CaptureRequest) (*captureJSON, error) {
	ended := func(error) {}
	if w, err := e.Config.Workload(req.Workload); err == nil {
		ended = a.ping(ctx, w.Ping, "capture of "+w.Name)
	}
	r, err := e.Capture(ctx, req)
	var shown *captureJSON
	success := ""
	if r != nil {
		said := a.sayCapture(r)
		shown, a.effect = &said, adds
		success = fmt.Sprintf("snapshot %s: %d files, %s in %.1f s", said.SID, said.Files, size(said.Bytes), said.Seconds)
	}
	ended(err)
	a.tell(ctx, e, a.outcome(e, "capture", req.Workload, success, err))
	return shown, err
}

// captureEach captures several workloads, whatever becomes of each. Its error is the
// gravest of all.
func (a *app) captureEach(ctx context.Context, e *restore.Engine, req restore.CaptureRequest, names []string) error {
	captures := []any{}
	var worst error
	failed := 0
	for _, name := range names {
		req.Workload = name
		shown, err := a.capture(ctx, e, req)
		if err == nil {
			captures = append(captures, shown)
			continue
		}
		failed++
		said := a.describe(err)
		fields := map[string]any{"workload": name, "exit": said.exit, "error": said.body}
		if shown != nil {
			fields["sid"] = shown.SID
		}
		captures = append(captures, fields)
		a.complain(name+": "+said.body.Message, said.body.Hint)
		worst = fault.Graver(worst, err)
		if ctx.Err() != nil {
			break
		}
	}
	a.result = map[string]any{"captures": captures}
	if worst == nil {
		return nil
	}
	gravest := fault.Classify(worst)
	return fault.New(gravest.Kind, gravest.Code, remedy.Remedy{}, "%d of %d captures failed; the gravest: %w", failed, len(names), worst)
}

// sayCapture says what a capture did.
func (a *app) sayCapture(r *restore.CaptureResult) captureJSON {
	shown := captureJSON{showSnapshot(r.Manifest.Summary()), r.QuiescedSeconds, r.Seconds, r.Added, r.Read, r.Phases, r.PassOne, notNil(r.Warnings), notNil(r.NotKept), nil}
	if r.Pruned != nil {
		pruned := showPrune(r.Pruned, false)
		shown.Pruned = &pruned
	}
	a.say("%s", shown.SID)
	rest := "nothing was paused or stopped"
	if r.QuiescedSeconds > 0 {
		rest = fmt.Sprintf("the app was at rest for %.1f s", r.QuiescedSeconds)
	}
	a.progress("captured %s: %d files, %s (%s new in the store) in %.1f s; %s",
		shown.Workload, shown.Files, size(shown.Bytes), size(r.Added), r.Seconds, rest)
	if len(r.Changed) > 0 {
		a.progress("warning: files changed or vanished while they were read, so the snapshot is not of one moment: %q; use --quiesce pause or stop", r.Changed)
	}
	for _, warning := range r.Warnings {
		a.progress("warning: %s", warning)
	}
	if r.Pruned != nil && r.Pruned.Deleted > 0 {
		a.progress("pruned: %s deleted, %s freed", verify.Count(r.Pruned.Deleted, "snapshot"), size(r.Pruned.Bytes))
	}
	for _, v := range shown.Volumes {
		if v.Sockets > 0 {
			a.progress("volume %s: %d sockets were left out", v.Name, v.Sockets)
		}
	}
	return shown
}

// oneOf checks a flag's value.
func oneOf(flag, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s is %q: use %s", flag, value, strings.Join(allowed, ", "))
}
