package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/store"
)

func (a *app) listCommand() *cobra.Command {
	var last int
	var reason string
	var tags []string
	cmd := &cobra.Command{
		Use:   "list [workload]",
		Short: "List snapshots, newest first",
		Example: `  snap list blog --last 5
  snap list --reason pre-restore`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().IntVar(&last, "last", 0, "show only the last `n` of each workload")
	cmd.Flags().StringVar(&reason, "reason", "", "show only those that were made for this reason: `manual|pre-restore`")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "show only those with this `tag`, or one of them where it is given several times")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if last < 0 {
			return fmt.Errorf("--last is %d: use a number of snapshots", last)
		}
		return oneOf("--reason", reason, "", string(store.Manual), string(store.PreRestore))
	}
	wanted := func(m *store.Summary) bool {
		return (reason == "" || reason == string(m.Reason)) &&
			(len(tags) == 0 || slices.ContainsFunc(m.Tags, func(tag string) bool { return slices.Contains(tags, tag) }))
	}
	cmd.RunE = a.with(knownStore, func(_ context.Context, e *restore.Engine, args []string) error {
		names, err := listed(e, args)
		if err != nil {
			return err
		}
		snapshots := []snapshotJSON{}
		for _, name := range names {
			n := 0
			for m, err := range e.Snapshots(name) {
				if err != nil {
					a.progress("warning: %v", err)
					continue
				}
				if last > 0 && n == last {
					break
				}
				if wanted(m) {
					snapshots = append(snapshots, showSnapshot(m))
					n++
				}
			}
		}
		slices.SortStableFunc(snapshots, func(x, y snapshotJSON) int { return y.Created.Compare(x.Created) })
		a.result = map[string]any{"snapshots": snapshots}
		a.table(snapshotRows(snapshots))
		return nil
	})
	return cmd
}

// sid returns the id that a word of the command line means: see [catalog.Find]. For a
// snapshot that cannot be used its error is of kind.
func (a *app) sid(e *restore.Engine, kind fault.Kind, workload, word string) (string, error) {
	if disk.ValidID(word) {
		return word, nil
	}
	if _, err := listed(e, []string{workload}); err != nil {
		return "", err
	}
	if e.Store == nil {
		return "", fault.New(kind, "snapshot_not_found", remedy.Remedy{}, "snapshot %s of workload %s: %s", word, workload, e.NoStoreReason())
	}
	sid, err := catalog.Find(e.Store, kind, workload, word)
	if err == nil {
		a.progress("%s is snapshot %s of %s", word, sid, workload)
	}
	return sid, err
}

// listed returns the workloads to list: the one of the command line, or those of
// the config and those of which only the store has snapshots.
func listed(e *restore.Engine, args []string) ([]string, error) {
	var stored []string
	if e.Store != nil {
		var err error
		if stored, err = e.Store.Workloads(); err != nil {
			return nil, err
		}
	}
	if len(args) == 1 {
		if slices.Contains(stored, args[0]) {
			return args, nil
		}
		_, err := e.Config.Workload(args[0])
		return args, err
	}
	names := append(e.Config.Names(), stored...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

func snapshotRows(list []snapshotJSON) [][]string {
	rows := [][]string{{"WORKLOAD", "SID", "CREATED", "REASON", "FILES", "SIZE", "TAGS", "NOTE"}}
	for _, s := range list {
		rows = append(rows, []string{
			s.Workload, s.SID, s.Created.Local().Format(time.DateTime), string(s.Reason), fmt.Sprint(s.Files), size(s.Bytes), strings.Join(s.Tags, ","), s.Note,
		})
	}
	return rows
}

type showJSON struct {
	snapshotJSON
	Snap   string        `json:"snap"`
	Images []store.Image `json:"images"`
	Config *keptJSON     `json:"config"` // null where none is kept
}

func (a *app) showCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show <workload> <sid>",
		Short: "Show the contents of a snapshot",
		Args:  cobra.ExactArgs(2),
		RunE: a.with(knownStore, func(_ context.Context, e *restore.Engine, args []string) error {
			sid, err := a.sid(e, fault.Failed, args[0], args[1])
			if err != nil {
				return err
			}
			m, err := e.Snapshot(args[0], sid)
			if err != nil {
				return err
			}
			s := showSnapshot(m.Summary())
			shown := showJSON{s, m.Snap, m.Images, nil}
			kept := a.kept(e, m)
			if kept != nil {
				shown.Config = showKept(kept, false)
			}
			a.result = shown
			a.table(snapshotRows([]snapshotJSON{s}))
			a.say("quiesce %s, taken by snap %s", m.Quiesce, m.Snap)
			for _, i := range m.Images {
				a.say("image %s %s", i.Image, i.ImageID)
			}
			rows := [][]string{{"VOLUME", "SCOPE", "SOURCE", "TARGET", "FILES", "DIRS", "SIZE", "STORED", "COMPRESSION"}}
			for _, v := range s.Volumes {
				rows = append(rows, []string{
					v.Name, v.Scope, v.Source, v.Target, fmt.Sprint(v.Files), fmt.Sprint(v.Dirs), size(v.Bytes), size(v.StoredBytes), v.Compression,
				})
			}
			a.table(rows)
			if kept != nil {
				a.say("config from %q of host %q (%s)", kept.Path, kept.Host, a.spell(remedy.ConfigFrom(args[0], sid)))
				if len(kept.Files) > 0 {
					a.table(keptRows(kept))
				}
			}
			return nil
		}),
	}
}
