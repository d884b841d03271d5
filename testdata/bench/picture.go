package main

import (
	"fmt"
	"math"
	"strings"
)

// The picture: what the data adds to the downtime, against its size, both on
// logarithmic scales. Its colours can be told apart on light and on dark pages.
const (
	plotLeft, plotRight = 80.0, 570.0
	plotTop, plotBottom = 60.0, 430.0
	floor               = 0.05 // seconds; less cannot be told from the wait for a container
)

// curves are the lines of the picture, with how they are dashed.
var curves = []struct{ who, colour, dash string }{
	{whoTarPlace, "#8f6fd0", "2 4"},
	{whoSwap, "#1f9e8c", "10 3 2 3"},
	{whoResticPlace, "#d8651b", "7 4"},
	{whoAhead, "#a58a12", "4 2"},
	{whoSnap, "#3d7be0", "none"},
	{whoAfter, "#c0488b", "1 2"},
}

// axis maps a logarithmic range to pixels, and what is beyond it to its ends.
type axis struct{ least, most, from, to float64 }

func (a axis) at(v float64) float64 {
	return a.from + math.Log(min(max(v, a.least), a.most)/a.least)/math.Log(a.most/a.least)*(a.to-a.from)
}

// draw draws the downtime of a report as SVG, "" where none was measured.
func (r *report) draw() string {
	type point struct{ mib, seconds float64 }
	lines := map[string][]point{}
	for _, m := range r.Measures {
		var p point
		if _, err := fmt.Sscanf(m.Row, rowAdded+"%g MiB", &p.mib); err == nil {
			p.seconds, _ = median(m.Values)
			lines[m.Who] = append(lines[m.Who], p)
		}
	}
	if len(lines) == 0 {
		return ""
	}
	x, y := axis{45, 1450, plotLeft, plotRight}, axis{floor, 50, plotBottom, plotTop}

	var s strings.Builder
	draw := func(format string, args ...any) { fmt.Fprintf(&s, format+"\n", args...) }
	label := func(x, y float64, anchor, text string) { // nothing in it needs escaping
		draw(`<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, text)
	}
	draw(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 820 500" width="820" height="500" role="img">`)
	draw("<style>text { font: 13px system-ui, sans-serif; fill: #1f2328 } line { stroke: #8b949e; stroke-opacity: 0.4 } path { fill: none; stroke-width: 2.5 }")
	draw("@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }</style>")
	label(plotLeft, 30, "start", "Downtime that the data adds to an app's own stop and start (at the bottom: 0.05 s and less)")
	label((plotLeft+plotRight)/2, plotBottom+46, "middle", "size of the volume, of which 1 % has changed since the snapshot")
	for _, v := range []float64{floor, 0.5, 5, 50} {
		draw(`<line x1="%.0f" y1="%.1f" x2="%.0f" y2="%.1f"/>`, plotLeft, y.at(v), plotRight, y.at(v))
		label(plotLeft-8, y.at(v)+4, "end", fmt.Sprintf("%.3g s", v))
	}
	for _, v := range []float64{64, 256, 1024} {
		draw(`<line x1="%.1f" y1="%.0f" x2="%.1f" y2="%.0f"/>`, x.at(v), plotTop, x.at(v), plotBottom)
		label(x.at(v), plotBottom+20, "middle", fmt.Sprintf("%g MiB", v))
	}
	top := plotTop + 20 // of the legend
	for _, c := range curves {
		points := lines[c.who]
		if len(points) == 0 {
			continue
		}
		path := ""
		for i, p := range points {
			path += fmt.Sprintf("%c%.1f %.1f", "ML"[min(i, 1)], x.at(p.mib), y.at(p.seconds))
			draw(`<circle fill="%s" cx="%.1f" cy="%.1f" r="4"/>`, c.colour, x.at(p.mib), y.at(p.seconds))
		}
		draw(`<path stroke="%s" stroke-dasharray="%s" d="%sM%.0f %.0fh34"/>`, c.colour, c.dash, path, plotRight+20, top-4)
		last := points[len(points)-1]
		label(plotRight+62, top, "start", c.who)
		label(plotRight+62, top+18, "start", fmt.Sprintf("%s s at %g MiB", number(last.seconds), last.mib))
		top += 48
	}
	draw("</svg>")
	return s.String()
}
