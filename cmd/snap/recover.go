package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/restore"
)

type recoveryJSON struct {
	Workload string `json:"workload"`
	Tx       string `json:"tx"`
	Found    string `json:"found"`
	Action   string `json:"action"`
	Pending  bool   `json:"pending"`
	Message  string `json:"message,omitempty"`
}

func (a *app) recoverCommand() *cobra.Command {
	var req restore.RecoverRequest
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "recover [workload]...",
		Short: "Finish or undo what a crash interrupted",
		Long: `Finish or undo every operation whose process is gone: all volumes of a workload
end up old or all new, its containers as they were, and nothing is left beside
the data. Run it at boot; running it when there is nothing to do is harmless.

--offline does the data part alone, for the time before the container engine is
up; the next run does the rest. What snap does not recognise is reported
("frozen", exit 6) and left untouched.`,
	}
	cmd.Flags().BoolVar(&req.Offline, "offline", false, "data only: the container engine is not running")
	cmd.Flags().DurationVar(&wait, "wait-docker", 0, "wait this long for the container engine")
	cmd.RunE = a.verb(func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Workloads, a.recovers = args, true
		if !req.Offline {
			a.waitDocker = wait
		}
		list, err := e.Recover(ctx, req)
		if list == nil {
			return err
		}
		shown := []recoveryJSON{}
		for _, r := range list {
			j := recoveryJSON{Workload: r.Workload, Tx: r.Tx, Found: r.Found, Action: r.Action, Pending: r.Pending}
			if r.Err != nil {
				j.Message = r.Err.Error()
			}
			shown = append(shown, j)
			a.sayRecovery(r)
		}
		if len(list) == 0 {
			a.progress("nothing to recover")
		}
		a.result = map[string]any{"transactions": shown}
		return err
	})
	return cmd
}

func (a *app) sayRecovery(r restore.Recovery) {
	action := r.Action
	if action == "" {
		action = "left alone"
	}
	if r.Pending {
		action += ", not finished"
	}
	a.say("%s %s (%s): %s", r.Workload, r.Tx, r.Found, action)
	if r.Err != nil {
		a.progress("%s: %v", r.Tx, r.Err)
	}
}
