package main

import (
	"context"
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
		Use:   "recover [workload]...",
		Short: "Finish or undo what a crash interrupted",
		Long: `Finish or undo every operation whose process is gone: all volumes of a workload
end up old or all new, its containers as they were, and nothing is left beside
the data. Run it at boot; running it when there is nothing to do is harmless.

--offline does the data part alone, for the time before the container engine is
up; the next run does the rest. What snap does not recognise is reported
("frozen", exit 6) and left untouched.

--resolve keep-old or keep-new is your decision about a restore that is frozen:
all volumes of the one workload old, or all new. Without --confirm it shows what
it would do. It moves and deletes only directories that the restore has
recorded; what else stands in the way is put aside, and what is not kept becomes
a snapshot first.`,
	}
	flags := cmd.Flags()
	flags.BoolVar(&req.Offline, "offline", false, "data only: the container engine is not running")
	durationVar(flags, &wait, "wait-docker", "wait this long for the container engine")
	flags.StringVar(&resolve, "resolve", "", "decide about a frozen restore: `keep-old|keep-new`")
	flags.StringVar(&confirm, "confirm", "", "with --resolve: the id of the `transaction` (snap status shows it)")
	cmd.PreRunE = func(_ *cobra.Command, args []string) error {
		switch {
		case resolve == "" && confirm != "":
			return errorf("--confirm goes with --resolve")
		case resolve == "":
			return nil
		case req.Offline:
			return errorf("--resolve needs the container engine: leave --offline out")
		case len(args) != 1:
			return errorf("--resolve is for one workload: name it")
		}
		return oneOf("--resolve", resolve, "keep-"+journal.KeepOld, "keep-"+journal.KeepNew)
	}
	cmd.RunE = a.look(func(ctx context.Context, e *restore.Engine, args []string) error {
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
		}
		if len(list) == 0 && err == nil {
			a.progress("nothing to recover")
		}
		return err
	})
	return cmd
}

// resolve shows what a decision would do, asks, and has it done.
func (a *app) resolve(ctx context.Context, e *restore.Engine, req restore.ResolveRequest) error {
	r, err := e.Resolve(ctx, req)
	if r.Resolution != nil && r.Action == "" {
		a.sayResolution(r)
	}
	if r.Resolution != nil && req.Confirm == "" && a.out.lost == nil { // nobody decides about what nobody was shown
		question := fmt.Sprintf("This makes all volumes of %s %s. Type the transaction's id to confirm:", r.Workload, req.Keep)
		if req.Confirm = a.confirm(question, r.Tx); req.Confirm != "" {
			r, err = e.Resolve(ctx, req)
		}
	}
	if r.Tx == "" {
		return err
	}
	a.showRecoveries([]restore.Recovery{r})
	if r.Action != "" {
		err = a.sayRecovery(r, err)
	}
	return err
}

func (a *app) showRecoveries(list []restore.Recovery) {
	shown := []recoveryJSON{}
	for _, r := range list {
		if r.Action != "" {
			a.effect = replaces
		}
		j := recoveryJSON{Workload: r.Workload, Tx: r.Tx, Found: r.Found, Action: r.Action, Pending: r.Pending, Kept: r.Kept}
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

// sayRecovery prints a recovery. Where its error is the one that the command
// ends with it is not printed twice: it is returned, with its transaction.
func (a *app) sayRecovery(r restore.Recovery, last error) error {
	action := r.Action
	if action == "" {
		action = "left alone"
	}
	if r.Pending {
		action += ", not finished"
	}
	whose := r.Workload
	if whose == "" {
		whose = "?"
	}
	a.say("%s %s (%s): %s", whose, r.Tx, r.Found, action)
	for _, path := range r.Kept {
		a.say("put aside, yours to look at and to delete: %s", path)
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

// ofTx says whose an error is, where it does not itself.
func ofTx(tx string, err error) error {
	if strings.Contains(err.Error(), tx) {
		return err
	}
	return fmt.Errorf("transaction %s: %w", tx, err)
}

// sayResolution prints what a decision does, volume by volume.
func (a *app) sayResolution(r restore.Recovery) {
	a.say("%s: transaction %s (%s), keep-%s", r.Workload, r.Tx, r.Found, r.Resolution.Keep)
	for _, v := range r.Resolution.Volumes {
		a.say("volume %s: %s and %s beside it", v.Name, v.Path, v.Entry)
		a.say("  found: %s", v.Found)
		a.say("  recorded: old %s, new %s", v.Old, v.New)
		for _, step := range v.Steps {
			a.say("  does: %s", step)
		}
		if len(v.Steps) == 0 {
			a.say("  does: nothing")
		}
		if v.Stays != "" {
			a.say("  never deleted: %s, which is not snap's", v.Stays)
		}
	}
}
