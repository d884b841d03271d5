package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// example is a report of a run with two peers, in which snap is quicker than
// restic, packs worse than pigz, and misses a target.
func example() *report {
	r := &report{Complete: true, Seconds: 60, FloorMiB: 10, Machine: []fact{{"kernel", "Linux 6"}}}
	put := func(scenario, set, who, metric string, values ...float64) {
		for _, v := range values {
			r.add(key{scenario, set, who, metric}, v)
		}
	}
	put("capture", "small", whoSnap, seconds, 2, 1, 3)
	put("capture", "small", whoPigz1, seconds, 4, 4, 4)
	put("capture", "small", whoRestic, seconds, 5, 5, 5)
	put("capture", "small", whoSnap, stored, 120<<20)
	put("capture", "small", whoZstd, stored, 90<<20)
	put("capture", "small", whoPigz6, stored, 100<<20)
	put("capture", "small", whoSnap, peakMiB, 80, 97)
	put("capture", "small", whoPigz1, peakMiB, 5)
	put("capture", "small", whoSnap, phaseOf+"publish", 0.5)
	for _, who := range []string{whoSnap, whoTarInPlace} {
		put("downtime", sceneEmpty, who, outage, 1, 1.2, 1.1)
	}
	put("downtime", sceneMiB(64), whoSnap, outage, 1.2, 1.2, 1.2)
	put("downtime", sceneMiB(64), whoTarInPlace, outage, 2.1, 2.1, 2.1)
	put("downtime", sceneMiB(1024), whoSnap, outage, 1.6, 1.6, 1.6)
	put("downtime", sceneMiB(1024), whoTarInPlace, outage, 11.1, 11.1, 11.1)
	return r
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
		has    bool
	}{{nil, 0, false}, {[]float64{3}, 3, true}, {[]float64{9, 1, 2}, 2, true}, {[]float64{4, 1, 9, 2}, 3, true}} {
		if m, has := median(c.values); m != c.want || has != c.has {
			t.Errorf("%v: %v, %v, want %v, %v", c.values, m, has, c.want, c.has)
		}
	}
}

func TestAReportIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	r := example()
	if err := r.write(path); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, again) {
		t.Errorf("%+v, want %+v", again, r)
	}
}

func TestVerdictsFollowTheNumbers(t *testing.T) {
	lines := map[string]string{}
	for line := range strings.Lines(tables(example())) {
		if cells := strings.Split(line, " | "); len(cells) == 5 {
			lines[strings.TrimPrefix(cells[0], "| ")] = strings.TrimSuffix(strings.TrimSpace(strings.Join(cells[2:], " | ")), " |")
		}
	}
	for what, want := range map[string]string{
		`first capture, small: time of snap ÷ tar \| pigz -1`:                          "0.50 × | 0.25 – 0.75 | met",
		"first capture, small: time of snap ÷ restic":                                  "0.40 × | 0.20 – 0.60 | **missed**",
		`first capture, small: stored size of snap ÷ tar \| pigz -6`:                   "1.20 × | 1.20 – 1.20 | **missed**",
		"peak memory of snap, the three data sets":                                     "97.0 MiB | 80.0 – 97.0 | **missed**",
		"downtime, 1024 MiB: seen by a client, less that with an empty volume":         "0.50 s | 0.50 – 0.50 | met",
		"restore to disk, small: time of snap ÷ tar xzf":                               "|  | not measured",
		"downtime, many small files: seen by a client, less that with an empty volume": "|  | not measured",
	} {
		if lines[what] != want {
			t.Errorf("%s: %q, want %q", what, lines[what], want)
		}
	}
	if got := (target{limit: 1}).verdict(reading{value: 0.5}); got != "met" {
		t.Errorf("half the limit: %s", got)
	}
}

// A reader must find every case in which somebody else is better.
func TestPeersThatAreBetterAreNamed(t *testing.T) {
	r := example()
	list := r.advantages()
	if len(list) != 2 {
		t.Fatalf("%+v, want the memory of pigz -1 and the size of pigz -6", list)
	}
	memory, size := list[0], list[1]
	if memory.who != whoPigz1 || memory.peer != 10 || memory.snap != 88.5 {
		t.Errorf("%+v, want 10 MiB, below which nothing can be told, beside 88.5", memory)
	}
	if size.who != whoPigz6 || size.factor() != 1.2 || size.also != "snap, zstd: 90 MiB" {
		t.Errorf("%+v, want pigz -6 with 1.2, and what zstd does", size)
	}
	if text := tables(r); !strings.Contains(text, `| tar \| pigz -6 | 100 MiB | 120 MiB | 1.20 |`) {
		t.Errorf("the page does not name it:\n%s", text)
	}
}

func TestARunRewritesItsPartOfThePage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "performance.md")
	put := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put("before\n" + beginMark + "\nold\n" + endMark + "\nbehind\n")
	for range 2 { // the second time it finds its own
		if err := writeDocs(dir, example()); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := string(text)
	if !strings.HasPrefix(s, "before\n"+beginMark) || !strings.HasSuffix(s, endMark+"\nbehind\n") || strings.Contains(s, "old\n") || strings.Count(s, "### Targets") != 1 {
		t.Errorf("the page:\n%s", s)
	}
	if _, err := os.Stat(filepath.Join(dir, "downtime.svg")); err != nil {
		t.Error(err)
	}
	put("no marks\n")
	if err := writeDocs(dir, example()); err == nil {
		t.Error("a page without marks was written")
	}
	part := example()
	part.Complete = false
	put(beginMark + endMark)
	if err := writeDocs(dir, part); err == nil {
		t.Error("a part of a run was written into the docs")
	}
}

func TestThePictureIsDrawn(t *testing.T) {
	s, err := draw(example())
	if err != nil {
		t.Fatal(err)
	}
	dec := xml.NewDecoder(strings.NewReader(s))
	circles := 0
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 4 {
		t.Errorf("%d points, want two sizes of two methods", circles)
	}
	for _, text := range []string{">snap<", ">tar in place<", "10.0 s at 1024 MiB", "0.50 s at 1024 MiB", "downtime in seconds", "prefers-color-scheme: dark"} {
		if !strings.Contains(s, text) {
			t.Errorf("%q is not in the picture", text)
		}
	}
	if strings.Contains(s, whoResticInPlace) || strings.Contains(s, "NaN") {
		t.Error("the picture shows what was not measured")
	}
	if _, err := draw(&report{}); err == nil {
		t.Error("a picture of nothing was drawn")
	}
}
