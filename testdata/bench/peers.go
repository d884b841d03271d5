package main

import (
	"fmt"
	"slices"
	"strings"
)

// advantage is a case in which a peer does better than snap.
type advantage struct {
	what   string // in which scenario, on which data, and what of it
	who    string
	peer   float64
	snap   float64
	format string // of a value
	also   string // what snap can do about it
}

func (a advantage) factor() float64 { return a.snap / a.peer }

// compared are the metrics in which less is better.
var compared = []struct{ metric, what, format string }{
	{seconds, "time", "%.2f s"},
	{stored, "stored size", "%.0f MiB"},
	{grown, "growth ÷ changed bytes", "%.2f"},
	{peakMiB, "memory", "%.0f MiB"},
	{outage, "downtime", "%.2f s"},
}

// advantages are all cases in which the median of a peer is below that of snap
// with its defaults, the greatest factor first.
func (r *report) advantages() []advantage {
	var list []advantage
	for _, m := range r.Measures {
		i := slices.IndexFunc(compared, func(c struct{ metric, what, format string }) bool { return c.metric == m.Metric })
		if i < 0 || strings.HasPrefix(m.Who, whoSnap) || m.Scenario == "downtime" && m.Metric == seconds {
			continue // how long it takes beside the downtime is nothing that the ways by hand compete in
		}
		peer, _ := median(m.Values)
		own, has := median(r.of(m.Scenario, m.Set, whoSnap, m.Metric))
		if m.Metric == peakMiB {
			// Below this nothing can be told apart.
			peer, own = max(peer, r.FloorMiB), max(own, r.FloorMiB)
		}
		if !has || peer >= own || peer <= 0 {
			continue
		}
		a := advantage{what: fmt.Sprintf("%s, %s: %s", scenarioTitles[m.Scenario], m.Set, compared[i].what), who: m.Who, peer: peer, snap: own, format: compared[i].format}
		if m.Metric == stored {
			a.peer, a.snap = a.peer/inMiB, a.snap/inMiB
		}
		for _, other := range []string{whoZstd, whoAfter} {
			if v, has := median(r.of(m.Scenario, m.Set, other, m.Metric)); has && v < own {
				if m.Metric == stored {
					v /= inMiB
				}
				a.also = fmt.Sprintf("%s: "+a.format, other, v)
			}
		}
		list = append(list, a)
	}
	slices.SortStableFunc(list, func(a, b advantage) int {
		switch {
		case a.factor() > b.factor():
			return -1
		case a.factor() < b.factor():
			return 1
		}
		return 0
	})
	return list
}
