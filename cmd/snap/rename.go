package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/rename"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/verify"
)

type renameJSON struct {
	Workload  string `json:"workload"` // as it is called now
	Was       string `json:"was"`
	Snapshots int    `json:"snapshots"`
}

func (a *app) renameCommand() *cobra.Command {
	wait := duration(waitStore)
	cmd := &cobra.Command{
		Use:         "rename <old> <new>",
		Annotations: doing,
		Short:       "Give the snapshots of a workload its new name",
		Long: `Give the snapshots of a workload, and its history, the name that the workload has in
the config by now. Rename it there first. No data is read or written, and no container
is touched. Killed anywhere, all snapshots are under the one name or under the other;
the same command again does the rest.`,
		Example: `  snap rename blog journal`,
		Args:    cobra.ExactArgs(2),
	}
	cmd.Flags().Var(&wait, "wait", "how long to wait for others who work with the store")
	cmd.RunE = a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		if e.Store == nil {
			return fault.New(fault.Refused, "no_snapshots", remedy.Of("mount the filesystem of the store, or correct `store:` in the config"), "workload %s has no snapshots: %s", args[0], e.NoStoreReason())
		}
		h := rename.Host{Config: e.Config, Store: e.Store, Journal: e.Journal, Scrubs: e.Scrubs}
		r, err := h.Rename(ctx, rename.Request{From: args[0], To: args[1], Wait: time.Duration(wait)})
		if err != nil {
			return err
		}
		a.result, a.effect = renameJSON{args[1], args[0], r.Snapshots}, adds
		if r.Already {
			a.progress("the snapshots had the new name already, and so has the history now")
		}
		a.say("%s is %s: %s", args[0], args[1], verify.Count(r.Snapshots, "snapshot"))
		return nil
	})
	return cmd
}
