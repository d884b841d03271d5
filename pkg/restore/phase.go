package restore

import (
	"context"
)

// Phase is the name of a phase, as results, progress and docs/design.md say it.
type Phase string

// The phases of a restore, in order, and those of a capture.
const (
	Preflight Phase = "preflight"
	Begin     Phase = "begin"
	Stage     Phase = "stage"
	PassOne   Phase = "pass_one"
	Hooks     Phase = "hooks"
	Ready     Phase = "ready"
	Fence     Phase = "fence"
	PassTwo   Phase = "pass_two"
	Publish   Phase = "publish"
	Swap      Phase = "swap"
	Commit    Phase = "commit"
	Follow    Phase = "follow"
	Redeploy  Phase = "redeploy"
	Unhook    Phase = "unhook"
	Guard     Phase = "guard"
	Settle    Phase = "settle"

	Quiesce Phase = "quiesce"
	Thaw    Phase = "thaw"
	Clones  Phase = "clones"
)

// phase is one phase of an operation on T.
type phase[T any] struct {
	name Phase
	skip func(T) bool // nil: never
	do   func(T, context.Context) error
	cut  string // what a power cut right after it leaves to recovery
}

// forward is a restore up to its commit, in order. "Live" is what the app's
// containers mount, "staged" the new tree beside it, in the wrapper .snap-<tx>.
// No container of the workload starts between the fence and the commit.
//
// Beyond the records, recovery does not ask how far a restore came. It observes
// where the two directories of each volume are and takes the action of swap's
// table, so recovery may itself be cut anywhere and run again. The field cut states
// the consequence, phase by phase.
var forward = []phase[*restoration]{
	{Preflight, nil, (*restoration).preflight, "nothing"},
	{Begin, nil, (*restoration).begin, "end the transaction"},
	{Stage, nil, (*restoration).stage, "delete the staged trees"},
	{PassOne, (*restoration).guardsAfter, (*restoration).passOne, "delete the staged trees"},
	{Hooks, nil, (*restoration).before, "delete the staged trees"},
	{Ready, nil, (*restoration).ready, "bring the old app up, delete the staged trees"},
	{Fence, nil, (*restoration).fence, "bring the old app up, delete the staged trees"},
	{PassTwo, (*restoration).guardsAfter, (*restoration).passTwo, "bring the old app up, delete the staged trees"},
	{Publish, (*restoration).guardsAfter, (*restoration).publish, "bring the old app up, delete the staged trees"},
	{Swap, nil, (*restoration).swap, "exchange all volumes back, bring the old app up, delete the staged trees"},
	{Commit, nil, (*restoration).commit, "bring the new app up, delete the displaced trees"},
}

// finishing brings a restore's transaction to its end: after the commit, or after
// a failure before it; for the restore itself, for its recovery, and for an
// operator's resolution. The records say whether it goes forward or back, and no
// signal ends it. Recovery runs it from the start; cut says which work is left.
var finishing = []phase[*finish]{
	{Follow, nil, (*finish).follow, "bring the app up, delete what the goal drops"},
	{Redeploy, (*finish).appIsDone, (*finish).bringUp, "see that the app is up, delete what the goal drops"},
	{Unhook, (*finish).appIsDone, (*finish).after, "delete what the goal drops"},
	{Guard, (*finish).isGuarded, (*finish).guard, "delete the displaced trees"},
	{Settle, nil, (*finish).settle, "nothing"},
}
