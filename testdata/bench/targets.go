package main

import (
	"fmt"
	"slices"
	"strings"
)

// target is a number that snap is to reach.
type target struct {
	what  string
	limit float64
	unit  string // behind the limit and the value
	about []key  // what it is computed from, as far as that is measured in rounds
	exact bool   // no time, but what comes out the same each time
	read  func(r *report) (reading, bool)
}

// reading is a value with the least and the greatest of the rounds.
type reading struct{ value, low, high float64 }

// targets are all of them, in the order of the page.
func targets() []target {
	list := []target{
		ratio("capture", "small", seconds, whoSnap, whoPigz1, 0.75),
		ratio("capture", "small", seconds, whoSnap, whoRestic, 0.33),
		ratio("capture", "small", stored, whoSnap, whoPigz6, 1.06),
		ratio("capture", "pg", seconds, whoSnap, whoPigz1, 0.6),
		ratio("capture", "pg", seconds, whoSnap, whoRestic, 0.45),
		ratio("capture", "pg", stored, whoSnap, whoPigz6, 1.05),
		ratio("capture", "random", seconds, whoSnap, whoPigz6, 0.12),
		ratio("capture", "random", seconds, whoSnap, whoRestic, 0.25),
	}
	for _, set := range setNames {
		list = append(list,
			ratio(unchanged, set, seconds, whoSnap, whoRestic, 0.25),
			ratio(unchanged, set, seconds, whoSnap, whoKopia, 0.8))
	}
	list = append(list,
		ratio(changed, "small", seconds, whoSnap, whoRestic, 0.35),
		growth("small", 30),
		ratio(changed, "pg", seconds, whoSnap, whoRestic, 0.8),
		growth("pg", 2),
		ratio("restore", "small", seconds, whoSnap, whoXzf, 0.85),
		ratio("restore", "small", seconds, whoSnap, whoRestic, 0.35),
		ratio("restore", "pg", seconds, whoSnap, whoXzf, 0.4),
		ratio("restore", "pg", seconds, whoZstd, whoRestic, 0.7),
		ratio("restore", "random", seconds, whoSnap, whoRestic, 0.4),
		// At least 80 % of the speed.
		ratio("verify", "small", seconds, whoSnap, whoSum, 1/0.8),
		ratio("verify", "pg", seconds, whoSnap, whoSum, 1/0.8),
		peak("the three data sets", 96, func(m *measure) bool { return slices.Contains(setNames, m.Set) }),
		peak("a "+sceneSparse, 400, func(m *measure) bool { return m.Set == sceneSparse }),
		peak(sceneFiles(million), 400, func(m *measure) bool { return m.Set == sceneFiles(million) }),
		flat("capture"), flat(unchanged), flat("restore"),
		away(sceneMiB(1024), 1),
		away(sceneMany, 1.5),
		tenfold(1.5),
		target{
			what: "downtime, " + sceneMiB(1024) + ": what " + whoAfter + " does between the app's stop and its start", limit: 0.02, unit: " s",
			read: func(r *report) (reading, bool) { return readingOf(r.of("downtime", sceneMiB(1024), whoAfter, inner)) },
		})
	return list
}

// scenarioTitles are how a reader knows the scenarios.
var scenarioTitles = map[string]string{
	"capture": "first capture", unchanged: "capture again, nothing changed", changed: "capture again, 1 % changed",
	"restore": "restore to disk", "verify": "reading and checking all that is stored", "downtime": "downtime",
}

func ratio(scenario, set, metric, who, versus string, limit float64) target {
	what := "time"
	if metric == stored {
		what = "stored size"
	}
	return target{
		what:  fmt.Sprintf("%s, %s: %s of %s ÷ %s", scenarioTitles[scenario], set, what, who, versus),
		limit: limit, unit: " ×", exact: metric == stored,
		about: []key{{scenario, set, who, metric}, {scenario, set, versus, metric}},
		read: func(r *report) (reading, bool) {
			return divide(r.of(scenario, set, who, metric), r.of(scenario, set, versus, metric))
		},
	}
}

func growth(set string, limit float64) target {
	k := key{changed, set, whoSnap, grown}
	return target{
		what:  fmt.Sprintf("%s, %s: growth of the store ÷ changed bytes", scenarioTitles[changed], set),
		limit: limit, unit: " ×", about: []key{k}, exact: true,
		read: func(r *report) (reading, bool) { return readingOf(r.of(k.Scenario, k.Set, k.Who, k.Metric)) },
	}
}

// peak is the most memory that any run of snap took.
func peak(what string, limit float64, counts func(*measure) bool) target {
	return target{
		what: "peak memory of snap, " + what, limit: limit, unit: " MiB", exact: true,
		read: func(r *report) (reading, bool) {
			var all []float64
			for _, m := range r.Measures {
				if m.Metric == peakMiB && strings.HasPrefix(m.Who, whoSnap) && counts(m) {
					all = append(all, m.Values...)
				}
			}
			v, ok := readingOf(all)
			v.value = v.high
			return v, ok
		},
	}
}

// away is what the data adds to the downtime, as a client saw it.
func away(scene string, limit float64) target {
	return target{
		what:  fmt.Sprintf("downtime, %s: seen by a client, less that with an empty volume", scene),
		limit: limit, unit: " s",
		read: func(r *report) (reading, bool) { return r.dataPart(scene, whoSnap) },
	}
}

// tenfold compares what snap itself tells: the difference of two waits for a
// container is too rough for a ratio.
func tenfold(limit float64) target {
	return target{
		what:  fmt.Sprintf("downtime, %s ÷ %s, the same bytes changed: between the app's stop and its start", sceneTen, sceneTenth),
		limit: limit, unit: " ×",
		read: func(r *report) (reading, bool) {
			return divide(r.of("downtime", sceneTen, whoSnap, inner), r.of("downtime", sceneTenth, whoSnap, inner))
		},
	}
}

const million = 1_000_000

// flat compares what a file takes among many with what it takes among few.
func flat(scenario string) target {
	return target{
		what:  fmt.Sprintf("%s: time for each of %s ÷ of %s", scenarioTitles[scenario], sceneFiles(million), sceneFiles(million/100)),
		limit: 1.3, unit: " ×",
		read: func(r *report) (reading, bool) {
			return divide(r.of(scenario, sceneFiles(million), whoSnap, perFile), r.of(scenario, sceneFiles(million/100), whoSnap, perFile))
		},
	}
}

// dataPart is the outage in a scene less the median of that with an empty volume.
func (r *report) dataPart(scene, who string) (reading, bool) {
	v, ok := readingOf(r.of("downtime", scene, who, outage))
	base, has := median(r.of("downtime", sceneEmpty, who, outage))
	return reading{v.value - base, v.low - base, v.high - base}, ok && has
}

func readingOf(values []float64) (reading, bool) {
	m, ok := median(values)
	if !ok {
		return reading{}, false
	}
	return reading{m, slices.Min(values), slices.Max(values)}, true
}

// divide is the quotient of the medians; the least and greatest are of the
// rounds, in each of which the two took turns.
func divide(a, b []float64) (reading, bool) {
	x, has := median(a)
	y, divisor := median(b)
	if !has || !divisor || y == 0 {
		return reading{}, false
	}
	q := reading{value: x / y, low: x / y, high: x / y}
	for i := range min(len(a), len(b)) {
		if b[i] != 0 {
			q.low, q.high = min(q.low, a[i]/b[i]), max(q.high, a[i]/b[i])
		}
	}
	return q, true
}

// noise is the part of a time by which two runs of the same differ.
const noise = 0.2

// verdict is what the page says of a target.
func (t target) verdict(v reading) string {
	word := "met"
	if v.value > t.limit {
		word = "**missed**"
	}
	if !t.exact && v.value > t.limit*(1-noise) && v.value < t.limit*(1+noise) {
		word += ", by less than noise"
	}
	return word
}

// isRanked says whether a target is about somebody's numbers in a scenario.
func isRanked(scenario, set, who string) bool {
	return slices.ContainsFunc(targets(), func(t target) bool {
		return slices.ContainsFunc(t.about, func(k key) bool { return k.Scenario == scenario && k.Set == set && k.Who == who && k.Metric == seconds })
	})
}
