package main

import (
	"fmt"
	"slices"
	"strings"
)

// page is Markdown that grows.
type page struct{ strings.Builder }

func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = strings.ReplaceAll(cell, "|", `\|`)
	}
	p.line("| %s |", strings.Join(cells, " | "))
}

func (p *page) head(cells ...string) {
	p.row(cells...)
	p.row(slices.Repeat([]string{"---"}, len(cells))...)
}

// tables shows a report.
func tables(r *report) string {
	p := new(page)
	p.about(r)
	p.targets(r)
	p.advantages(r)
	p.throughput(r)
	p.downtime(r)
	p.phases(r)
	return p.String()
}

func (p *page) about(r *report) {
	if r.Tiny {
		p.line("**Not a measurement**: tiny data sets, one round, to see that the benchmark works.\n")
	}
	p.line("### The machine\n")
	p.head("", "")
	for _, f := range slices.Concat(r.Machine, r.Versions) {
		p.row(f.Name, f.Value)
	}
	for _, f := range r.Data {
		p.row("data set "+f.Name, f.Value)
	}
	p.row("the whole run", fmt.Sprintf("%.1f minutes", r.Seconds/60))
	p.line("")
	if len(r.Notes) > 0 {
		p.line("Left out:\n")
		for _, note := range r.Notes {
			p.line("- %s", strings.Join(strings.Fields(note), " "))
		}
		p.line("")
	}
}

func (p *page) targets(r *report) {
	p.line("### Targets\n")
	p.head("target", "at most", "median", "of the rounds", "")
	for _, t := range targets() {
		limit := number(t.limit) + t.unit
		v, ok := t.read(r)
		if !ok {
			p.row(t.what, limit, "", "", "not measured")
			continue
		}
		p.row(t.what, limit, number(v.value)+t.unit, number(v.low)+" – "+number(v.high), t.verdict(v))
	}
	p.line("")
}

func (p *page) advantages(r *report) {
	p.line("### Where a peer is better\n")
	list := r.advantages()
	if len(list) == 0 {
		p.line("Nowhere in this run.\n")
		return
	}
	p.line("Every case in which a peer's median is below that of snap with its defaults; a factor below %.1f is noise.\n", 1+noise)
	p.head("", "peer", "its median", "snap", "factor", "")
	for _, a := range list {
		p.row(a.what, a.who, fmt.Sprintf(a.format, a.peer), fmt.Sprintf(a.format, a.snap), fmt.Sprintf("%.2f", a.factor()), a.also)
	}
	p.line("")
}

func (p *page) throughput(r *report) {
	for _, scenario := range []string{"capture", unchanged, changed, "restore", "verify"} {
		for _, set := range append(slices.Clone(setNames), sceneSparse, sceneFiles(million/100), sceneFiles(million)) {
			who := r.who(scenario, set, seconds)
			if len(who) == 0 {
				continue
			}
			title := scenarioTitles[scenario]
			p.line("### %s%s: %s\n", strings.ToUpper(title[:1]), title[1:], set)
			extra, name := extraColumn(scenario)
			cells := []string{"", "s", "of the rounds", "rounds", "÷ snap", "peak MiB"}
			if name != "" {
				cells = append(cells, name)
			}
			p.head(cells...)
			own, _ := median(r.of(scenario, set, whoSnap, seconds))
			for _, w := range who {
				values := r.of(scenario, set, w, seconds)
				v, _ := readingOf(values)
				cells := []string{w, number(v.value), number(v.low) + " – " + number(v.high), fmt.Sprint(len(values)), over(v.value, own), memory(r, scenario, set, w)}
				if name != "" {
					cells = append(cells, extra(r, set, w))
				}
				p.row(cells...)
			}
			p.line("")
		}
	}
}

func extraColumn(scenario string) (cell func(r *report, set, who string) string, name string) {
	switch scenario {
	case "capture":
		return func(r *report, set, who string) string {
			v, has := median(r.of(scenario, set, who, stored))
			if !has {
				return ""
			}
			return fmt.Sprintf("%.1f", v/inMiB)
		}, "stored MiB"
	case changed:
		return func(r *report, set, who string) string {
			v, _ := median(r.of(scenario, set, who, grown))
			return number(v)
		}, "growth ÷ changed bytes"
	}
	return nil, ""
}

// memory is a peak; below that of the benchmark itself nothing can be told.
func memory(r *report, scenario, set, who string) string {
	v, _ := readingOf(r.of(scenario, set, who, peakMiB))
	if v.high <= r.FloorMiB {
		return fmt.Sprintf("below %.0f", r.FloorMiB)
	}
	return fmt.Sprintf("%.0f", v.high)
}

func (p *page) downtime(r *report) {
	for _, scene := range r.scenes() {
		p.line("### Downtime: %s\n", scene)
		p.head("", "s away", "of the rounds", "rounds", "less an empty volume's", "by its own word", "the whole run")
		for _, w := range r.who("downtime", scene, outage) {
			values := r.of("downtime", scene, w, outage)
			v, _ := readingOf(values)
			word := ""
			if m, has := median(r.of("downtime", scene, w, told)); has {
				word = number(m)
			}
			data := ""
			if d, has := r.dataPart(scene, w); has && scene != sceneEmpty {
				data = fmt.Sprintf("%.2f", d.value)
			}
			whole, _ := median(r.of("downtime", scene, w, seconds))
			p.row(w, number(v.value), number(v.low)+" – "+number(v.high), fmt.Sprint(len(values)), data, word, number(whole))
		}
		p.line("")
	}
}

// scenes are those that were measured, in their order.
func (r *report) scenes() []string {
	var list []string
	for _, m := range r.Measures {
		if m.Scenario == "downtime" && !slices.Contains(list, m.Set) {
			list = append(list, m.Set)
		}
	}
	return list
}

// phases shows where snap's own time goes.
func (p *page) phases(r *report) {
	type at struct{ scenario, set, who string }
	var places []at
	var names []string
	for _, m := range r.Measures {
		name, is := strings.CutPrefix(m.Metric, phaseOf)
		if !is {
			continue
		}
		if a := (at{m.Scenario, m.Set, m.Who}); !slices.Contains(places, a) {
			places = append(places, a)
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(places) == 0 {
		return
	}
	slices.Sort(names)
	p.line("### Phases of snap, in seconds\n")
	p.head(append([]string{""}, names...)...)
	for _, a := range places {
		cells := []string{fmt.Sprintf("%s, %s: %s", scenarioTitles[a.scenario], a.set, a.who)}
		for _, name := range names {
			cell := ""
			if v, has := median(r.of(a.scenario, a.set, a.who, phaseOf+name)); has {
				cell = number(v)
			}
			cells = append(cells, cell)
		}
		p.row(cells...)
	}
	p.line("")
}

// number has three digits that count.
func number(v float64) string {
	switch {
	case v >= 99.95 || v <= -99.95:
		return fmt.Sprintf("%.0f", v)
	case v >= 9.995 || v <= -9.995:
		return fmt.Sprintf("%.1f", v)
	case v > -0.1 && v < 0.1:
		return fmt.Sprintf("%.3f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

func over(v, base float64) string {
	if base == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", v/base)
}
