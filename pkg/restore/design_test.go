package restore

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/preflight"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// phaseRow is one row of a table of phases in docs/design.md.
type phaseRow struct {
	name  string
	guard string // the only guard that runs the phase; "": both run it
	cut   string
}

// docs/design.md lists all phases in their order, each with the guard that runs it
// and with what a power cut after it leaves.
func TestTheDesignShowsThePhases(t *testing.T) {
	before, after := &restoration{plan: &preflight.Plan{Guard: workload.GuardBefore}}, &restoration{plan: &preflight.Plan{Guard: workload.GuardAfter}}
	comparePhases(t, "forward", designTable(t, 0, "phase"), rowsOf(forward, before, after))
	comparePhases(t, "finishing", designTable(t, 1, "phase"), rowsOf(finishing, committed(""), committed(journal.GuardAfter)))
}

// committed returns a restore whose last record is the commit.
func committed(guard string) *finish {
	return &finish{x: &swap.Tx{Tx: &journal.Tx{Begin: &journal.Begin{Guard: guard}, Committed: true}}}
}

func rowsOf[T any](list []phase[T], before, after T) []phaseRow {
	var rows []phaseRow
	for _, p := range list {
		row := phaseRow{name: string(p.name), cut: p.cut}
		if p.skip != nil {
			row.guard = map[[2]bool]string{
				{false, true}: workload.GuardBefore, {true, false}: workload.GuardAfter, {true, true}: "never",
			}[[2]bool{p.skip(before), p.skip(after)}]
		}
		rows = append(rows, row)
	}
	return rows
}

func comparePhases(t *testing.T, list string, page [][]string, want []phaseRow) {
	t.Helper()
	var got []phaseRow
	for _, cells := range page[1:] {
		got = append(got, phaseRow{cells[0], cells[1], cells[3]})
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the table of %s in docs/design.md is\n%q\nbut phase.go has\n%q", list, got, want)
	}
}

// The table of recovery in docs/design.md is that of swap.ActionFor.
func TestTheDesignShowsTheTableOfRecovery(t *testing.T) {
	layouts := []string{
		swap.OldNew: "old / new", swap.NewOld: "new / old", swap.OldGone: "old / gone", swap.NewGone: "new / gone", swap.Unknown: "anything else",
	}
	actions := []string{swap.Freeze: "freeze", swap.Keep: "keep", swap.Exchange: "exchange"}
	want := [][]string{{"live / staged", swap.Undecided + 1: "no commit", swap.Committed + 1: "commit", swap.Reverted + 1: "revert", swap.Guarding + 1: "guarding"}}
	for l, layout := range layouts {
		row := []string{layout}
		for g := swap.Undecided; g <= swap.Guarding; g++ {
			row = append(row, actions[swap.ActionFor(swap.Layout(l), g)])
		}
		want = append(want, row)
	}
	if got := designTable(t, 0, "live / staged"); !reflect.DeepEqual(got, want) {
		t.Errorf("docs/design.md has\n%q\nbut swap has\n%q", got, want)
	}
}

// designTable returns the cells of the n-th table in docs/design.md whose first
// column has this heading, without the separator line.
func designTable(t *testing.T, n int, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n| "+heading+" |")
	for ; n > 0 && found; n-- {
		_, rest, found = strings.Cut(rest, "\n| "+heading+" |")
	}
	if !found {
		t.Fatalf("docs/design.md has too few tables with the heading %q", heading)
	}
	var table [][]string
	for i, line := range strings.Split("| "+heading+" |"+rest, "\n") {
		if !strings.HasPrefix(line, "|") {
			break
		}
		if i == 1 {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for c := range cells {
			cells[c] = strings.TrimSpace(cells[c])
		}
		table = append(table, cells)
	}
	return table
}
