package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/runtime"
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
	Workload   string          `json:"workload"`
	State      string          `json:"state"`
	LastSID    string          `json:"last_sid"`
	Containers []containerJSON `json:"containers"`
	Pending    *pendingJSON    `json:"pending"`
	LeftOut    []string        `json:"left_out"`
	Problems   []string        `json:"problems"`
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status [workload]",
		Short: "Show what runs, the last snapshot, and what is pending",
		Args:  cobra.MaximumNArgs(1),
		RunE: a.with(anyStore, func(ctx context.Context, e *restore.Engine, args []string) error {
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			list, err := e.Status(ctx, name)
			if err != nil {
				return err
			}
			shown := []statusJSON{}
			rows := [][]string{{"WORKLOAD", "STATE", "LAST SNAPSHOT"}}
			for _, st := range list {
				shown = append(shown, a.showStatus(st))
				rows = append(rows, []string{st.Workload, st.State, st.LastSID})
			}
			a.result = map[string]any{"workloads": shown}
			a.table(rows)
			for _, st := range list {
				a.explain(st)
			}
			return nil
		}),
	}
}

func (a *app) showStatus(st restore.WorkloadStatus) statusJSON {
	j := statusJSON{
		Workload: st.Workload, State: st.State, LastSID: st.LastSID,
		Containers: showContainers(st.Containers), LeftOut: notNil(st.Left), Problems: a.texts(st.Problems),
	}
	if p := st.Pending; p != nil {
		j.Pending = &pendingJSON{p.Tx, p.Kind, p.Found, p.Active, p.Frozen, p.Message, notNil(p.Volumes), a.texts(p.Next)}
	}
	return j
}

// explain prints what the table has no room for.
func (a *app) explain(st restore.WorkloadStatus) {
	if p := st.Pending; p != nil {
		a.say("\n%s: transaction %s: %s", st.Workload, p.Tx, p.Message)
		for _, line := range p.Volumes {
			a.say("  %s", line)
		}
		for _, line := range p.Next {
			a.say("  what to do: %s", line.Text(a.spell))
		}
	}
	for _, line := range st.Left {
		a.say("%s: left out: %s", st.Workload, line)
	}
	for _, problem := range st.Problems {
		a.say("%s: %s", st.Workload, problem.Text(a.spell))
	}
}
