package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
)

// report is all that a run has found. The tables and the picture are made from
// it alone. As JSON it is what -json writes and -from reads.
type report struct {
	Tiny     bool       `json:"tiny"`     // not a measurement
	Complete bool       `json:"complete"` // every part
	Seconds  float64    `json:"seconds"`  // the whole run
	Machine  []fact     `json:"machine"`
	Versions []fact     `json:"versions"`
	Data     []fact     `json:"data"`  // the data sets as they turned out
	Notes    []string   `json:"notes"` // what was left out, and why
	FloorMiB float64    `json:"floor_mib"`
	Measures []*measure `json:"measures"`
}

type fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// measure is one thing measured, with a value for each round.
type measure struct {
	key
	Values []float64 `json:"values"`
}

// key names what is measured: in which scenario, on which data, of whom, and what.
type key struct {
	Scenario string `json:"scenario"`
	Set      string `json:"set"`
	Who      string `json:"who"`
	Metric   string `json:"metric"`
}

// The metrics. A phase that snap tells is "phase " and its name, in seconds.
const (
	seconds   = "seconds"
	peakMiB   = "peak_mib"
	stored    = "stored_bytes"
	grown     = "grown_per_changed_byte"
	perFile   = "microseconds_per_file"
	outage    = "outage_seconds" // as a client saw it
	told      = "told_seconds"   // as snap tells it
	inner     = "inner_seconds"  // what snap tells of its phases between the app's stop and its start
	phaseOf   = "phase "
	inMiB     = 1 << 20
	unchanged = "unchanged"
	changed   = "changed"
)

func (r *report) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(r.Notes, text) {
		r.Notes = append(r.Notes, text)
	}
}

func (r *report) add(k key, value float64) {
	for _, m := range r.Measures {
		if m.key == k {
			m.Values = append(m.Values, value)
			return
		}
	}
	r.Measures = append(r.Measures, &measure{k, []float64{value}})
}

// spent adds what a run took.
func (r *report) spent(scenario, set, who string, c cost) {
	r.add(key{scenario, set, who, seconds}, c.seconds)
	r.add(key{scenario, set, who, peakMiB}, c.peak)
	for name, s := range c.phases {
		r.add(key{scenario, set, who, phaseOf + name}, s)
	}
}

// of are the values of a measure, nil when there is none.
func (r *report) of(scenario, set, who, metric string) []float64 {
	for _, m := range r.Measures {
		if m.key == (key{scenario, set, who, metric}) {
			return m.Values
		}
	}
	return nil
}

// who are those of whom something was measured, in the order of their first time.
func (r *report) who(scenario, set, metric string) []string {
	var names []string
	for _, m := range r.Measures {
		if m.Scenario == scenario && m.Set == set && m.Metric == metric && !slices.Contains(names, m.Who) {
			names = append(names, m.Who)
		}
	}
	return names
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

func (r *report) write(path string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func readReport(path string) (*report, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(r.Measures) == 0 {
		return nil, errors.New(path + ": no measures")
	}
	return r, nil
}
