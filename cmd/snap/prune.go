package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/prune"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/retain"
	"github.com/tiny-forge/snap/pkg/verify"
)

type pruneJSON struct {
	DryRun     bool              `json:"dry_run"`
	Deleted    int               `json:"deleted"`
	Members    int               `json:"members"` // that no snapshot names any more
	FreedBytes int64             `json:"freed_bytes"`
	Snapshots  []prunedSnapshots `json:"snapshots"`
}

type prunedSnapshots struct {
	Workload string    `json:"workload"`
	SID      string    `json:"sid"`
	Created  time.Time `json:"created"`
	Kept     bool      `json:"kept"`
	Reasons  []string  `json:"reasons"` // why it stays
}

func showPrune(r *prune.Result, dry bool) pruneJSON {
	out := pruneJSON{dry, r.Deleted, r.Members, r.Bytes, []prunedSnapshots{}}
	for _, w := range r.Workloads {
		for _, v := range w.Verdicts {
			out.Snapshots = append(out.Snapshots, prunedSnapshots{w.Workload, v.SID, v.Created, len(v.Keep) > 0, notNil(v.Keep)})
		}
	}
	return out
}

// waitStore is how long a command that deletes waits for the store, if it is not told.
const waitStore = time.Minute

func (a *app) pruneCommand() *cobra.Command {
	req := prune.Request{}
	policy := retain.Policy{}
	wait := duration(waitStore)
	cmd := &cobra.Command{
		Use:         "prune [workload]...",
		Annotations: doing,
		Short:       "Delete the snapshots that no rule keeps",
		Long: `Delete the snapshots that no rule keeps, and then the data that no snapshot has any
more: of the workloads that are named, or of all in the config. The rules are those
of the flags or else of retain: in the config. Words and meanings are restic's:
--keep-daily 7 keeps the newest snapshot of each of the last 7 days that have one,
by the local calendar. A snapshot stays if any rule keeps it; the last one of a
workload always does.

Snapshots that restores made stay for 7 days (--keep-pre-restore), and do not count
among the others. With --dry-run nothing is deleted.`,
		Example: `  snap prune --dry-run
  snap prune blog --keep-daily 7 --keep-weekly 5 --keep-monthly 12`,
	}
	flags := cmd.Flags()
	flags.IntVar(&policy.Last, "keep-last", 0, "keep the last `n`")
	flags.Var(&policy.Within, "keep-within", "keep all within a `time` such as 2w before the newest")
	for _, rule := range []struct {
		name, periods string
		count         *int
		within        *retain.Span
	}{
		{"hourly", "hours", &policy.Hourly, &policy.WithinHourly},
		{"daily", "days", &policy.Daily, &policy.WithinDaily},
		{"weekly", "weeks", &policy.Weekly, &policy.WithinWeekly},
		{"monthly", "months", &policy.Monthly, &policy.WithinMonthly},
		{"yearly", "years", &policy.Yearly, &policy.WithinYearly},
	} {
		flags.IntVar(rule.count, "keep-"+rule.name, 0, "keep the newest of each of the last `n` "+rule.periods+" that have one")
		flags.Var(rule.within, "keep-within-"+rule.name, "keep "+rule.name+" ones within a `time` such as 1y before the newest")
	}
	flags.StringArrayVar(&policy.Tags, "keep-tag", nil, "keep those with this `tag`")
	flags.Var(&policy.PreRestore, "keep-pre-restore", "keep what restores made for this `time` (default 7d)")
	flags.BoolVar(&req.DryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	flags.Var(&wait, "wait", "how long to wait for others who work with the store")
	cmd.PreRunE = func(*cobra.Command, []string) error { return policy.Check() }
	cmd.RunE = a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Workloads, req.Wait = args, time.Duration(wait)
		if !policy.Empty() {
			req.Policy = &policy
		}
		r, err := e.Prune(ctx, req)
		if err != nil {
			return err
		}
		shown := showPrune(r, req.DryRun)
		a.result = shown
		if !req.DryRun {
			a.effect = adds
		}
		rows := [][]string{{"WORKLOAD", "SID", "CREATED", "KEPT", "WHY"}}
		for _, s := range shown.Snapshots {
			kept := "no"
			if s.Kept {
				kept = "yes"
			}
			rows = append(rows, []string{s.Workload, s.SID, s.Created.Local().Format(time.DateTime), kept, strings.Join(s.Reasons, ", ")})
		}
		a.table(rows)
		a.sayPruned(r, req.DryRun)
		return nil
	})
	return cmd
}

func (a *app) sayPruned(r *prune.Result, dry bool) {
	verb := "deleted"
	if dry {
		verb = "would delete"
	}
	a.say("%s %s, and %s that no other has: %s", verb, verify.Count(r.Deleted, "snapshot"), verify.Count(r.Members, "member"), size(r.Bytes))
}

func (a *app) deleteCommand() *cobra.Command {
	req := prune.DeleteRequest{}
	wait := duration(waitStore)
	cmd := &cobra.Command{
		Use:         "delete <workload> <sid>... --confirm",
		Annotations: doing,
		Short:       "Delete snapshots",
		Long: `Delete snapshots by their ids, and then the data that no other snapshot has. This
cannot be undone. One that an unfinished restore needs is refused.`,
		Example: `  snap delete blog 20261123T170024Z-77668a --confirm`,
		Args:    cobra.MinimumNArgs(2),
	}
	cmd.Flags().BoolVar(&req.Confirmed, "confirm", false, "say that the snapshots are to be deleted")
	cmd.Flags().Var(&wait, "wait", "how long to wait for others who work with the store")
	cmd.RunE = a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Workload, req.Wait = args[0], time.Duration(wait)
		for _, word := range args[1:] {
			sid, err := a.sid(e, fault.Refused, req.Workload, word)
			if err != nil {
				return err
			}
			if sid != word { // the same command again would delete another one
				return &usageError{fmt.Errorf("%q stands for snapshot %s: what is deleted must be written in full", word, sid), ""}
			}
			req.SIDs = append(req.SIDs, sid)
		}
		r, err := e.Delete(ctx, req)
		if err != nil {
			return err
		}
		a.result, a.effect = showPrune(r, false), adds
		a.sayPruned(r, false)
		return nil
	})
	return cmd
}
