package main

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/repair"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/verify"
)

type verifyJSON struct {
	Snapshots   int              `json:"snapshots"`
	Members     int              `json:"members"`
	StoredBytes int64            `json:"stored_bytes"`
	ReadBytes   int64            `json:"read_bytes"`
	Problems    []verify.Problem `json:"problems"`

	Repaired        []verify.Problem `json:"repaired"` // what was a problem before --repair
	RepairedMembers int              `json:"repaired_members"`
	Warnings        []string         `json:"warnings"`
}

// part is a flag for a part of a whole: 0 to 1, from "5%", or "100%" for the flag alone.
type part float64

// Set implements [pflag.Value].
func (p *part) Set(s string) error {
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !strings.HasSuffix(s, "%") || !(n > 0 && n <= 100) {
		return errors.New("not a part such as 5% or 100%")
	}
	*p = part(n / 100)
	return nil
}

// Type implements [pflag.Value].
func (p *part) Type() string { return "part" }

func (p *part) String() string { return "" } // --help shows no default

func (a *app) verifyCommand() *cobra.Command {
	var data part
	var req repair.Request
	cmd := &cobra.Command{
		Use:   "verify [workload [sid]]",
		Short: "Look for damage in the store, and repair it",
		Long: `Look for damage in the store: whether the manifests and indexes are whole, and
whether all that they name is there with the right length. With --read-data what is
stored is read too, all of it or a part chosen at random, and compared with its
checksums. What is damaged is named by snapshot, volume and file, and the exit code
is 8.

With --repair what is damaged or missing is stored again, where the live data or
another copy in the store still has it. The app runs on, and nothing that is whole is
touched. The exit code is 0 if all that was damaged is whole again, and otherwise 8.

Captures read a part of what they use again by themselves (scrub: in the config).`,
		Example: `  snap verify
  snap verify blog --read-data
  snap verify --read-data=5%
  snap verify blog --read-data --repair`,
		Args: cobra.MaximumNArgs(2),
	}
	cmd.Flags().Var(&data, "read-data", "read the stored data, or the `part` of it that is given, such as 5%")
	cmd.Flags().Lookup("read-data").NoOptDefVal = "100%"
	cmd.Flags().BoolVar(&req.Repair, "repair", false, "store again what is damaged, from the live data or another copy")
	cmd.RunE = a.with(knownStore, func(ctx context.Context, e *restore.Engine, args []string) error {
		req.Data = float64(data)
		if len(args) > 0 {
			req.Workload = args[0]
		}
		if len(args) > 1 {
			var err error
			if req.SID, err = a.sid(e, fault.Failed, args[0], args[1]); err != nil {
				return err
			}
		}
		report, err := e.Verify(ctx, req)
		if report == nil {
			return err
		}
		a.result = verifyJSON{report.Snapshots, report.Members, report.Stored, report.Read, notNil(report.Problems),
			notNil(report.Repaired), report.Again, notNil(report.Warnings)}
		for _, line := range report.Warnings {
			a.progress("warning: %s", line)
		}
		for _, p := range report.Problems {
			a.say("%s", p)
		}
		for _, p := range report.Repaired {
			a.say("repaired: %s", p)
		}
		if req.Repair {
			a.effect = adds
		}
		a.silent = a.quiet
		if report.Again > 0 {
			a.say("%s stored again, and read", verify.Count(report.Again, "member"))
		}
		a.say("%s with %s (%s), of which %s were read: %s", verify.Count(report.Snapshots, "snapshot"), verify.Count(report.Members, "member"),
			size(report.Stored), size(report.Read), verify.Count(len(report.Problems), "problem"))
		return err
	})
	return cmd
}
