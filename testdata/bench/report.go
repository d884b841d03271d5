package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// report is all that a run has found. The tables and the picture are made from
// it alone. As JSON it is what -json writes.
type report struct {
	About    []string   `json:"about"` // the machine, the data sets, what was left out
	Measures []*measure `json:"measures"`
}

// measure is a cell of a table, with a value for each round.
type measure struct {
	Row    string    `json:"row"`
	Unit   string    `json:"unit"`
	Who    string    `json:"who"`
	Values []float64 `json:"values"`
}

func (r *report) add(row, unit, who string, value float64) {
	m := r.cell(row, who)
	if m == nil {
		m = &measure{Row: row, Unit: unit, Who: who}
		r.Measures = append(r.Measures, m)
	}
	m.Values = append(m.Values, value)
}

func (r *report) cell(row, who string) *measure {
	for _, m := range r.Measures {
		if m.Row == row && m.Who == who {
			return m
		}
	}
	return nil
}

// values are those of a cell, nil when it was not measured.
func (r *report) values(row, who string) []float64 {
	if m := r.cell(row, who); m != nil {
		return m.Values
	}
	return nil
}

// target is what snap is to reach in a row: at most so much, or at most so many
// times what a peer has there.
type target struct {
	row, who, peer string
	limit          float64
}

var targets = []target{
	{"small" + rowCapture, whoSnap, whoPigz1, 0.75},
	{"small" + rowCapture, whoSnap, whoRestic, 0.33},
	{"small" + rowStored, whoSnap, whoPigz6, 1.06},
	{"small" + rowCheck, whoSnap, whoByHand, 1.25},
	{"small" + rowAgain, whoSnap, whoRestic, 0.25},
	{"small" + rowAgain, whoSnap, whoKopia, 0.8},
	{"small" + rowChanged, whoSnap, whoRestic, 0.35},
	{"small" + rowGrowth, whoSnap, "", 30},
	{"small" + rowRestore, whoSnap, whoPigz6, 0.85},
	{"small" + rowRestore, whoSnap, whoRestic, 0.35},
	{"pg" + rowCapture, whoSnap, whoPigz1, 0.6},
	{"pg" + rowCapture, whoSnap, whoRestic, 0.45},
	{"pg" + rowStored, whoSnap, whoPigz6, 1.05},
	{"pg" + rowCheck, whoSnap, whoByHand, 1.25},
	{"pg" + rowAgain, whoSnap, whoRestic, 0.25},
	{"pg" + rowAgain, whoSnap, whoKopia, 0.8},
	{"pg" + rowChanged, whoSnap, whoRestic, 0.8},
	{"pg" + rowGrowth, whoSnap, "", 2},
	{"pg" + rowRestore, whoSnap, whoPigz6, 0.4},
	{"pg" + rowRestore, whoZstd, whoRestic, 0.7},
	{"random" + rowCapture, whoSnap, whoPigz6, 0.12},
	{"random" + rowCapture, whoSnap, whoRestic, 0.25},
	{"random" + rowAgain, whoSnap, whoRestic, 0.25},
	{"random" + rowAgain, whoSnap, whoKopia, 0.8},
	{"random" + rowRestore, whoSnap, whoRestic, 0.4},
	{rowMemory, whoSnap, "", 96},
	{rowMillion, whoSnap, "", 400},
	{"first capture" + rowPerFile, whoSnap, whoFewFiles, 1.3},
	{"capture again" + rowPerFile, whoSnap, whoFewFiles, 1.3},
	{"restore" + rowPerFile, whoSnap, whoFewFiles, 1.3},
	{rowAdded + "1024 MiB", whoSnap, "", 1},
	{rowMany, whoSnap, "", 1.5},
}

// isTarget says whether a target of a row is about somebody.
func isTarget(row, who string) bool {
	return slices.ContainsFunc(targets, func(t target) bool { return t.row == row && (t.who == who || t.peer == who) })
}

// verdicts say what became of the targets of a row, as far as they were
// measured. A ratio is that of the medians; the least and the greatest are of the
// rounds, in each of which the two took turns.
func (r *report) verdicts(row string) string {
	var list []string
	for _, t := range targets {
		own, peer := r.values(row, t.who), r.values(row, t.peer)
		value, has := median(own)
		base, known := median(peer)
		if t.row != row || !has || t.peer != "" && !known {
			continue
		}
		text := ""
		if t.who != whoSnap {
			text = t.who + ": "
		}
		if known {
			var ratios []float64
			for i := range min(len(own), len(peer)) {
				ratios = append(ratios, own[i]/peer[i])
			}
			value /= base
			text += fmt.Sprintf("%s × %s (%s – %s), ", number(value), t.peer, number(slices.Min(ratios)), number(slices.Max(ratios)))
		}
		verdict := "met"
		if value > t.limit {
			verdict = "**missed**"
		}
		list = append(list, fmt.Sprintf("%sat most %s: %s", text, number(t.limit), verdict))
	}
	return strings.Join(list, "; ")
}

// tables shows a report: a row for each thing measured, a column for each
// contender with its median, and what became of the targets.
func (r *report) tables() string {
	var s strings.Builder
	for _, line := range r.About {
		fmt.Fprintf(&s, "- %s\n", line)
	}
	for _, columns := range [][]string{
		{whoSnap, whoZstd, whoPigz1, whoPigz6, whoTarZstd, whoRestic, whoBorg, whoKopia},
		{whoSnap, whoAfter, whoResticPlace, whoTarPlace, whoSwap, whoAhead},
	} {
		downtime := slices.Contains(columns, whoAfter)
		var rows []*measure // the first of each row
		measured := map[string]bool{}
		for _, m := range r.Measures {
			if strings.HasPrefix(m.Row, "downtime") != downtime {
				continue
			}
			measured[m.Who] = true
			if !slices.ContainsFunc(rows, func(o *measure) bool { return o.Row == m.Row }) {
				rows = append(rows, m)
			}
		}
		if len(rows) == 0 {
			continue
		}
		columns = slices.DeleteFunc(columns, func(who string) bool { return !measured[who] })
		fmt.Fprintf(&s, "\n| | %s | snap's targets |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)+2))
		for _, row := range rows {
			fmt.Fprintf(&s, "| %s, %s |", row.Row, row.Unit)
			for _, who := range columns {
				if v, has := median(r.values(row.Row, who)); has {
					s.WriteString(" " + number(v))
				}
				s.WriteString(" |")
			}
			fmt.Fprintf(&s, " %s |\n", r.verdicts(row.Row))
		}
	}
	return s.String()
}

// median of an even number is the mean of the two in the middle. Of none it is
// 0, and has is false.
func median(values []float64) (m float64, has bool) {
	if len(values) == 0 {
		return 0, false
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, true
}

// number has three digits that count.
func number(v float64) string {
	if math.Abs(v) >= 99.95 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}

// What lies between these lines of docs/performance.md is written by a run.
const (
	beginMark = "<!-- bench: from here on written by make bench -->"
	endMark   = "<!-- bench: until here -->"
	beginYear = "<!-- bench: from here on written by make year -->"
	endYear   = "<!-- bench: until here, a year -->"
)

// writeDocs writes a report into performance.md, whose other text stays, and
// draws downtime.svg beside it.
func (r *report) writeDocs(dir, begin, end string) error {
	path := filepath.Join(dir, "performance.md")
	text, err := os.ReadFile(path)
	before, rest, begins := strings.Cut(string(text), begin)
	_, after, ends := strings.Cut(rest, end)
	if err == nil && !(begins && ends) {
		err = fmt.Errorf("%s: the lines %q and %q are not there", path, begin, end)
	}
	if err == nil {
		err = os.WriteFile(path, []byte(before+begin+"\n\n"+r.tables()+"\n"+end+after), 0o644)
	}
	if drawing := r.draw(); err == nil && drawing != "" {
		err = os.WriteFile(filepath.Join(dir, "downtime.svg"), []byte(drawing), 0o644)
	}
	return err
}
