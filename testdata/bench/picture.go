package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The picture: downtime against size, both on scales of tens, without what an
// empty volume takes. It carries its own colours for light and for dark pages.
const (
	pictureWidth, pictureHeight = 820, 500
	plotLeft, plotRight         = 80, 570
	plotTop, plotBottom         = 60, 430
	// What is less than this cannot be told from the wait for a container.
	pictureFloor = 0.05
)

// curves are the lines of the picture, in the order of the legend, with their
// colours on light and on dark ground and how they are dashed.
var curves = []struct{ who, light, dark, dash string }{
	{whoResticInPlace, "#b3410a", "#ff9d5c", "7 4"},
	{whoTarInPlace, "#6b4fa0", "#c3a6ff", "2 4"},
	{whoSwap, "#0f7a6c", "#5fd6c4", "10 3 2 3"},
	{whoSnap, "#1457c8", "#7fb2ff", ""},
	{whoAfter, "#8a1c5b", "#ff8fc8", "1 0"},
}

type point struct{ mib, seconds float64 }

// draw draws the downtime of a report as SVG.
func draw(r *report) (string, error) {
	lines := map[string][]point{}
	var least, most float64
	for _, scene := range r.scenes() {
		var mib float64
		if n, err := fmt.Sscanf(scene, "%g MiB", &mib); err != nil || n != 1 {
			continue
		}
		for _, c := range curves {
			v, has := r.dataPart(scene, c.who)
			if !has {
				continue
			}
			p := point{mib, max(v.value, pictureFloor)}
			lines[c.who] = append(lines[c.who], p)
			most = max(most, p.seconds)
			if least == 0 {
				least = mib
			}
			least = min(least, mib)
		}
	}
	if len(lines) == 0 {
		return "", errors.New("no downtime was measured to draw")
	}
	var largest float64
	for _, points := range lines {
		for _, p := range points {
			largest = max(largest, p.mib)
		}
		slices.SortFunc(points, func(a, b point) int { return int(a.mib - b.mib) })
	}
	x := scale{least / 1.4, max(largest, least*2) * 1.4, plotLeft, plotRight}
	y := scale{pictureFloor, math.Pow(10, math.Ceil(math.Log10(max(most, 1)))), plotBottom, plotTop}
	var s strings.Builder
	s.WriteString(pictureHead())
	axes(&s, x, y)
	for i, c := range curves {
		if points := lines[c.who]; len(points) > 0 {
			curve(&s, i, c.dash, points, x, y)
		}
	}
	legend(&s, lines)
	s.WriteString("</svg>\n")
	return s.String(), nil
}

// scale maps a logarithmic range to pixels.
type scale struct{ least, most, from, to float64 }

func (s scale) at(v float64) float64 {
	return s.from + (math.Log(v)-math.Log(s.least))/(math.Log(s.most)-math.Log(s.least))*(s.to-s.from)
}

func pictureHead() string {
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-labelledby="title">`+"\n",
		pictureWidth, pictureHeight, pictureWidth, pictureHeight)
	s.WriteString("<title id=\"title\">Downtime of an app while its data is brought back, against the size of the data</title>\n<style>\n")
	s.WriteString("text { font: 13px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 12px }\n")
	s.WriteString(".ground { fill: #ffffff } .grid { stroke: #d0d7de } .axis { stroke: #57606a } path { fill: none; stroke-width: 2.5 }\n")
	for i, c := range curves {
		fmt.Fprintf(&s, ".c%d { stroke: %s } .d%d { fill: %s }\n", i, c.light, i, c.light)
	}
	s.WriteString("@media (prefers-color-scheme: dark) {\ntext { fill: #e6edf3 } .ground { fill: #0d1117 } .grid { stroke: #30363d } .axis { stroke: #8b949e }\n")
	for i, c := range curves {
		fmt.Fprintf(&s, ".c%d { stroke: %s } .d%d { fill: %s }\n", i, c.dark, i, c.dark)
	}
	s.WriteString("}\n</style>\n")
	fmt.Fprintf(&s, `<rect class="ground" width="%d" height="%d"/>`+"\n", pictureWidth, pictureHeight)
	label(&s, plotLeft, 30, "start", "", "Downtime that the data adds to an app's own stop and start")
	return s.String()
}

func axes(s *strings.Builder, x, y scale) {
	for _, v := range []float64{pictureFloor, 0.1, 1, 10, 100, 1000} {
		if v > y.most*1.001 {
			break
		}
		at := y.at(v)
		fmt.Fprintf(s, `<line class="grid" x1="%d" y1="%.1f" x2="%d" y2="%.1f"/>`+"\n", plotLeft, at, plotRight, at)
		text := fmt.Sprintf("%g s", v)
		if v == y.least {
			text = "≤ " + text
		}
		label(s, plotLeft-8, at+4, "end", "small", text)
	}
	for v := math.Exp2(math.Ceil(math.Log2(x.least))); v <= x.most; v *= 4 {
		at := x.at(v)
		fmt.Fprintf(s, `<line class="grid" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>`+"\n", at, plotTop, at, plotBottom)
		text := fmt.Sprintf("%g MiB", v)
		if v >= 1024 {
			text = fmt.Sprintf("%g GiB", v/1024)
		}
		label(s, at, plotBottom+20, "middle", "small", text)
	}
	fmt.Fprintf(s, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", plotLeft, plotBottom, plotRight, plotBottom)
	fmt.Fprintf(s, `<line class="axis" x1="%d" y1="%d" x2="%d" y2="%d"/>`+"\n", plotLeft, plotTop, plotLeft, plotBottom)
	label(s, (plotLeft+plotRight)/2, plotBottom+46, "middle", "", "size of the volume, of which 1 % has changed since the snapshot")
	fmt.Fprintf(s, `<text transform="translate(20 %d) rotate(-90)" text-anchor="middle">downtime in seconds</text>`+"\n", (plotTop+plotBottom)/2)
}

func curve(s *strings.Builder, i int, dash string, points []point, x, y scale) {
	var path strings.Builder
	for n, p := range points {
		fmt.Fprintf(&path, "%c%.1f %.1f", "ML"[min(n, 1)], x.at(p.mib), y.at(p.seconds))
	}
	fmt.Fprintf(s, `<path class="c%d" stroke-dasharray="%s" d="%s"/>`+"\n", i, dashes(dash), path.String())
	for _, p := range points {
		fmt.Fprintf(s, `<circle class="d%d" cx="%.1f" cy="%.1f" r="4"/>`+"\n", i, x.at(p.mib), y.at(p.seconds))
	}
}

func dashes(dash string) string {
	if dash == "" {
		return "none"
	}
	return dash
}

// legend names the lines, the slowest at their largest size first, with what
// they come to there.
func legend(s *strings.Builder, lines map[string][]point) {
	var order []int
	for i, c := range curves {
		if len(lines[c.who]) > 0 {
			order = append(order, i)
		}
	}
	last := func(i int) point { return lines[curves[i].who][len(lines[curves[i].who])-1] }
	slices.SortStableFunc(order, func(a, b int) int { return int(math.Round(1000 * (last(b).seconds - last(a).seconds))) })
	top := float64(plotTop + 20)
	for _, i := range order {
		fmt.Fprintf(s, `<path class="c%d" stroke-dasharray="%s" d="M%d %.1fh34"/>`+"\n", i, dashes(curves[i].dash), plotRight+20, top-4)
		label(s, plotRight+62, top, "start", "", curves[i].who)
		p := last(i)
		text := fmt.Sprintf("%s s at %g MiB", number(p.seconds), p.mib)
		if p.seconds <= pictureFloor {
			text = fmt.Sprintf("at most %g s at %g MiB", pictureFloor, p.mib)
		}
		label(s, plotRight+62, top+18, "start", "small", text)
		top += 48
	}
}

func label(s *strings.Builder, x, y float64, anchor, class, text string) {
	var safe strings.Builder
	xml.EscapeText(&safe, []byte(text))
	fmt.Fprintf(s, `<text x="%.1f" y="%.1f" text-anchor="%s" class="%s">%s</text>`+"\n", x, y, anchor, class, safe.String())
}
