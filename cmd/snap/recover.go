package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/restore"
)

type recoveryJSON struct {
	Workload string          `json:"workload"`
	Tx       string          `json:"tx"`
	Found    string          `json:"found"`
	Action   string          `json:"action"`
	Pending  bool            `json:"pending"`
	Message  string          `json:"message,omitempty"`
	Kept     []string        `json:"kept,omitempty"`
	TakenSID string          `json:"taken_sid,omitempty"`
	Resolve  *resolutionJSON `json:"resolve,omitempty"`
}

type resolutionJSON struct {
	Keep    string                   `json:"keep"`
	SID     string                   `json:"sid,omitempty"`
	Volumes []restore.ResolvedVolume `json:"volumes"`
}

func (a *app) recoverCommand() *cobra.Command {
	var req restore.RecoverRequest
	var wait time.Duration
	var resolve, confirm string
	cmd := &cobra.Command{
		Use:         "recover [workload]...",
		Annotations: doing,
		Short:       "Finish or undo what a crash interrupted",
		Long: `Finish or undo every operation whose process is gone. Afterwards all volumes of a
workload are old, or all are new; its containers are as they were; the hooks that come
after have run; and nothing is left beside the data. Run it at boot. If there is
nothing to do, it does nothing.

--offline recovers only the data, for the time before the container engine is
up; the next run does the rest. If snap finds something that it does not
recognise, it reports that ("frozen", exit 6) and leaves everything untouched.

--resolve keep-old or keep-new is your decision about a frozen restore: all
volumes of the workload old, or all new. Without --confirm it shows what it would
do. It moves and deletes only directories that the restore has recorded. Anything
else in the way is preserved under another name, and the data that you do not
keep becomes a snapshot first.`,
	}
	flags := cmd.Flags()
	flags.BoolVar(&req.Offline, "offline", false, "recover only the data: the container engine is not running")
	durationVar(flags, &wait, "wait-docker", "how long to wait for the container engine")
	flags.StringVar(&resolve, "resolve", "", "decide about a frozen restore: `keep-old|keep-new`")
	flags.StringVar(&confirm, "confirm", "", "with --resolve: the id of the `transaction` (snap status shows it)")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		switch {
		case resolve == "" && confirm != "":
			return errors.New("--confirm is only for --resolve")
		case resolve == "":
			return nil
		case req.Offline:
			return errors.New("--resolve needs the container engine, so it cannot be used with --offline")
		case len(args) != 1:
			return errors.New("--resolve takes exactly one workload")
		}
		return oneOf("--resolve", resolve, "keep-"+journal.KeepOld, "keep-"+journal.KeepNew)
	}
	cmd.RunE = a.with(anyStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Workloads = args
		if !req.Offline {
			a.waitDocker = wait
		}
		if resolve != "" {
			return a.resolve(ctx, e, restore.ResolveRequest{Workload: args[0], Keep: strings.TrimPrefix(resolve, "keep-"), Confirm: confirm})
		}
		list, err := e.Recover(ctx, req)
		if list == nil {
			return err
		}
		a.showRecoveries(list)
		for _, r := range list {
			err = a.sayRecovery(r, err)
			a.tellRecovery(ctx, e, r)
		}
		if len(list) == 0 && err == nil {
			a.progress("nothing to recover")
		}
		return err
	})
	return cmd
}

// resolve shows what a decision would do, asks for confirmation, and carries it out.
func (a *app) resolve(ctx context.Context, e *restore.Engine, req restore.ResolveRequest) error {
	r, err := e.Resolve(ctx, req)
	if r.Resolution != nil && r.Action == "" {
		a.sayResolution(r)
	}
	if r.Resolution != nil && req.Confirm == "" && a.out.lost == nil { // what could not be shown cannot be confirmed
		question := fmt.Sprintf("This makes all volumes of %s %s. Type the transaction's id to confirm:", r.Workload, req.Keep)
		var ended error
		if req.Confirm, ended = a.confirm(ctx, question, r.Tx); ended != nil {
			return ended
		}
		if req.Confirm != "" {
			r, err = e.Resolve(ctx, req)
		}
	}
	if r.Tx == "" {
		return err
	}
	a.showRecoveries([]restore.Recovery{r})
	if r.Action != "" {
		err = a.sayRecovery(r, err)
		a.tellRecovery(ctx, e, r)
	}
	return err
}

func (a *app) showRecoveries(list []restore.Recovery) {
	shown := []recoveryJSON{}
	for _, r := range list {
		if r.Action != "" {
			a.effect = replaces
		}
		j := recoveryJSON{Workload: r.Workload, Tx: r.Tx, Found: r.Found, Action: r.Action, Pending: r.Pending, Kept: r.Kept, TakenSID: r.TakenSID}
		if r.Err != nil {
			j.Message = r.Err.Error()
		}
		if s := r.Resolution; s != nil {
			j.Resolve = &resolutionJSON{s.Keep, s.SID, s.Volumes}
		}
		shown = append(shown, j)
	}
	a.result = map[string]any{"transactions": shown}
}

// sayRecovery prints a recovery. If its error is the one that the command ends
// with, the error is returned with its transaction, and so printed only once.
func (a *app) sayRecovery(r restore.Recovery, last error) error {
	action := cmp.Or(r.Action, "left alone")
	if r.Pending {
		action += ", not finished"
	}
	a.say("%s %s (%s): %s", cmp.Or(r.Workload, "?"), r.Tx, r.Found, action)
	for _, path := range r.Kept {
		a.say("preserved for you to look at and delete: %s", path)
	}
	if r.TakenSID != "" {
		a.say("the data that was taken away is snapshot %s", r.TakenSID)
	}
	if r.Err == nil {
		return last
	}
	if !a.json && last != nil && last.Error() == r.Err.Error() {
		return ofTx(r.Tx, last)
	}
	a.progress("%v", ofTx(r.Tx, r.Err))
	return last
}

// ofTx adds the transaction to an error that does not name it.
func ofTx(tx string, err error) error {
	if strings.Contains(err.Error(), tx) {
		return err
	}
	return fmt.Errorf("transaction %s: %w", tx, err)
}

// sayResolution prints what a decision would do to each volume.
func (a *app) sayResolution(r restore.Recovery) {
	a.say("%s: transaction %s (%s), keep-%s", r.Workload, r.Tx, r.Found, r.Resolution.Keep)
	for _, v := range r.Resolution.Volumes {
		a.say("volume %s: %s and %s beside it", v.Name, v.Path, v.Entry)
		a.say("  found: %s", v.Found)
		a.say("  recorded: old %s, new %s", v.Old, v.New)
		for _, step := range v.Steps {
			a.say("  would: %s", step)
		}
		if len(v.Steps) == 0 {
			a.say("  would: do nothing")
		}
		if v.Stays != "" {
			a.say("  never deleted: %s, because it is not snap's", v.Stays)
		}
	}
}
