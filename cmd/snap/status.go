package main

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/check"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/verify"
)

type containerJSON struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Service string `json:"service,omitempty"`
	Image   string `json:"image"`
	ImageID string `json:"image_id"`
	Running bool   `json:"running"`
	Paused  bool   `json:"paused"`
	Restart string `json:"restart"`
}

func showContainers(list []runtime.Container) []containerJSON {
	out := []containerJSON{}
	for _, c := range list {
		out = append(out, containerJSON{c.ID, c.Name, c.Service, c.Image, c.ImageID, c.Running, c.Paused, c.Policy.Name})
	}
	return out
}

type pendingJSON struct {
	Tx      string   `json:"tx"`
	Kind    string   `json:"kind"`
	Found   string   `json:"found"`
	Active  bool     `json:"active"`
	Frozen  bool     `json:"frozen"`
	Message string   `json:"message"`
	Volumes []string `json:"volumes"`
	Next    []string `json:"next"`
}

type statusJSON struct {
	Workload string `json:"workload"`
	State    string `json:"state"`
	LastSID  string `json:"last_sid"`
	// The last snapshot that no restore made; null if there is none.
	LastSuccess *time.Time      `json:"last_success"`
	Age         *float64        `json:"age_seconds"`
	LastError   *lastErrorJSON  `json:"last_error"` // null if the last capture did not fail
	Containers  []containerJSON `json:"containers"`
	Pending     *pendingJSON    `json:"pending"`
	LeftOut     []string        `json:"left_out"`
	Problems    []string        `json:"problems"`
}

type lastErrorJSON struct {
	Time    time.Time `json:"time"`
	Message string    `json:"message"`
}

type findingJSON struct {
	Workload string `json:"workload"` // "" for the host
	Code     string `json:"code"`
	Message  string `json:"message"`
	Hint     string `json:"hint"`
}

func (a *app) statusCommand() *cobra.Command {
	var checks bool
	maxAge := duration(26 * time.Hour)
	cmd := &cobra.Command{
		Use:   "status [workload]...",
		Short: "Show what runs, the last snapshot, and what is pending",
		Long: `Show what runs, the last snapshot, and what is pending.

With --check only what needs attention is shown, a line each, and the exit code is 8
if there is anything: a snapshot that is too old or much smaller than the one
before, a capture that has failed, an operation that has not ended, damage, an
engine or a store that does not answer, too little room.`,
		Example: `  snap status
  snap status --check --max-age 26h`,
	}
	cmd.Flags().BoolVar(&checks, "check", false, "show only what needs attention; the exit code is then 8")
	cmd.Flags().Var(&maxAge, "max-age", "with --check: how old the last snapshot may be")
	cmd.RunE = a.with(anyStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		if len(args) == 0 {
			args = []string{""}
		}
		if checks {
			return a.check(ctx, e, args, time.Duration(maxAge))
		}
		var list []restore.WorkloadStatus
		for _, name := range args {
			found, err := e.Status(ctx, name)
			if err != nil {
				return err
			}
			list = append(list, found...)
		}
		shown := []statusJSON{}
		rows := [][]string{{"WORKLOAD", "STATE", "LAST SNAPSHOT", "AGE"}}
		for _, st := range list {
			shown = append(shown, a.showStatus(st))
			age := ""
			if !st.LastGood.IsZero() {
				age = check.Ago(time.Since(st.LastGood))
			}
			rows = append(rows, []string{st.Workload, st.State, st.LastSID, age})
		}
		a.result = map[string]any{"workloads": shown}
		a.table(rows)
		for _, st := range list {
			a.explain(st)
		}
		return nil
	})
	return cmd
}

// check shows what needs attention.
func (a *app) check(ctx context.Context, e *restore.Engine, names []string, maxAge time.Duration) error {
	shown := []findingJSON{}
	for _, name := range names {
		list, err := check.Run(ctx, e, name, maxAge)
		if err != nil {
			return err
		}
		for _, f := range list {
			j := findingJSON{f.Workload, f.Code, f.Text, f.Remedy.Text(a.spell)}
			if slices.Contains(shown, j) {
				continue
			}
			shown = append(shown, j)
			line := cmp.Or(j.Message, j.Hint)
			if j.Message != "" && j.Hint != "" {
				line += " (" + j.Hint + ")"
			}
			a.say("%s: %s", cmp.Or(j.Workload, "host"), line)
		}
	}
	a.result = map[string]any{"problems": shown}
	if len(shown) == 0 {
		return nil
	}
	return fault.New(fault.Damaged, "attention", remedy.Remedy{}, "%s", verify.Count(len(shown), "problem"))
}

func (a *app) showStatus(st restore.WorkloadStatus) statusJSON {
	j := statusJSON{
		Workload: st.Workload, State: st.State, LastSID: st.LastSID,
		Containers: showContainers(st.Containers), LeftOut: notNil(st.Left), Problems: a.problems(st),
	}
	if !st.LastGood.IsZero() {
		age := time.Since(st.LastGood).Seconds()
		j.LastSuccess, j.Age = &st.LastGood, &age
	}
	if st.LastError != "" {
		j.LastError = &lastErrorJSON{st.Failed, st.LastError}
	}
	if p := st.Pending; p != nil {
		j.Pending = &pendingJSON{p.Tx, p.Kind, p.Found, p.Active, p.Frozen, p.Message, notNil(p.Volumes), a.texts(p.Next)}
	}
	return j
}

func (a *app) problems(st restore.WorkloadStatus) []string {
	list := []string{}
	for _, err := range st.Unreadable {
		list = append(list, err.Error())
	}
	return append(list, a.texts(st.Problems)...)
}

// explain prints what the table has no room for.
func (a *app) explain(st restore.WorkloadStatus) {
	if p := st.Pending; p != nil {
		a.say("")
		a.say("%s: transaction %s: %s", st.Workload, p.Tx, p.Message)
		for _, line := range p.Volumes {
			a.say("  %s", line)
		}
		for _, line := range p.Next {
			a.say("  what to do: %s", line.Text(a.spell))
		}
	}
	if st.LastError != "" {
		a.say("%s: the capture of %s failed: %s", st.Workload, st.Failed.Local().Format(time.DateTime), st.LastError)
		a.say("  what to do: %s", a.spell(remedy.Capture(st.Workload)))
	}
	for _, line := range st.Left {
		a.say("%s: left out: %s", st.Workload, line)
	}
	for _, problem := range a.problems(st) {
		a.say("%s: %s", st.Workload, problem)
	}
}
