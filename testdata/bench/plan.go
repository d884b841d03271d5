package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// plan says how big the data is, how often each thing is measured, and which
// parts are wanted.
type plan struct {
	Tiny bool // to see that the benchmark works; measures nothing

	SmallFiles  int   // of the data set small
	Scale       int   // of pgbench
	RandomBytes int64 // of the data set random
	AppFiles    int   // of a volume in the downtime scenarios
	AppMiB      []int // its sizes
	ManyFiles   int   // of the volume of many small files
	SparseGiB   int   // of the sparse file
	Scales      []int // files of the volumes whose time per file is compared
	ImageMiB    int   // of the filesystem that is measured on

	Least, Most int           // rounds
	Within      time.Duration // no round after Least begins when a part has taken that long

	Due map[string]time.Duration // after which a part of a whole run has only two rounds

	parts []string // empty: all
}

// The parts by which "make bench BENCH=…" names what it wants.
var (
	setNames      = []string{"small", "pg", "random"}
	scenarioNames = []string{"capture", "verify", "again", "restore", "downtime", "sparse", "scale"}
)

func fullPlan() plan {
	return plan{
		SmallFiles: 50_000, Scale: 50, RandomBytes: 1 << 30,
		AppFiles: 2_000, AppMiB: []int{64, 256, 1024}, ManyFiles: 100_000, SparseGiB: 100, Scales: []int{10_000, 1_000_000},
		ImageMiB: 12 << 10, Least: 3, Most: 5, Within: 15 * time.Second,
		Due: map[string]time.Duration{"small": 4 * time.Minute, "pg": 5 * time.Minute, "random": 7 * time.Minute, "downtime": 10 * time.Minute},
	}
}

// tinyPlan is for the test of the benchmark itself.
func tinyPlan() plan {
	return plan{
		Tiny: true, SmallFiles: 300, Scale: 1, RandomBytes: 6 << 20,
		AppFiles: 20, AppMiB: []int{1}, ManyFiles: 100, SparseGiB: 1, Scales: []int{100, 1000},
		ImageMiB: 500, Least: 1, Most: 1,
	}
}

// choose sets the wanted parts from a list with commas between. Data sets and
// scenarios choose separately: "small,restore" is the restore of the set small.
func (p *plan) choose(list string) error {
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if !slices.Contains(setNames, part) && !slices.Contains(scenarioNames, part) {
			return fmt.Errorf("no part %q: there are %s and %s", part, strings.Join(setNames, ", "), strings.Join(scenarioNames, ", "))
		}
		p.parts = append(p.parts, part)
		p.Due = nil
	}
	return nil
}

// wants says whether a data set or a scenario is to be measured.
func (p *plan) wants(name string) bool {
	kind := scenarioNames
	if slices.Contains(setNames, name) {
		kind = setNames
		// A scenario that needs no data set, asked for alone, wants none made.
		if len(p.parts) > 0 && !slices.ContainsFunc(p.parts, func(s string) bool { return !alone(s) }) {
			return false
		}
	} else if len(p.parts) > 0 && !slices.ContainsFunc(p.parts, func(s string) bool { return slices.Contains(scenarioNames, s) }) {
		return !alone(name) // data sets alone: what is done with those
	}
	chosen := slices.ContainsFunc(p.parts, func(s string) bool { return slices.Contains(kind, s) })
	return !chosen || slices.Contains(p.parts, name)
}

// alone says whether a scenario needs no data set.
func alone(scenario string) bool {
	return scenario == "downtime" || scenario == "sparse" || scenario == "scale"
}

// complete says whether nothing was left out.
func (p *plan) complete() bool { return len(p.parts) == 0 && !p.Tiny }
