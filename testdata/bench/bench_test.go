package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestTheBenchmarkRuns runs it on tiny data, with what there is. Each contender
// restores what it captured, every row that a target is about is measured, and
// nothing is left behind. The numbers mean nothing.
func TestTheBenchmarkRuns(t *testing.T) {
	disktest.NeedRoot(t)
	disktest.Need(t, "mkfs.ext4")
	dir, err := os.MkdirTemp("/var/tmp", "snap-benchtest-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // PostgreSQL goes through it
		t.Fatal(err)
	}
	var log bytes.Buffer
	b := &bench{shrink: 100, appMiB: []int{1}, imageMiB: 500, rounds: 1, log: &log}
	programs, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if len(programs) == 0 { // making an image of it takes minutes
		b.only = []string{"small", "random", "capture", "verify", "again", "restore", "downtime", "scale"}
	}
	if err := b.measure(t.Context(), dir, b.throughputs); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(mounts), dir) {
		t.Errorf("something is still mounted in %s (%v)", dir, err)
	}
	for _, line := range b.report.About {
		if os.Getenv("SNAP_TEST_SKIPS") == "fail" && strings.Contains(line, "left out") && !strings.HasPrefix(line, "kopia") {
			t.Error(line)
		}
		t.Log(line)
	}
	checkRows(t, b, &log, func(row string) bool {
		return !strings.HasPrefix(row, yearMark) && !(strings.HasPrefix(row, "pg") && len(programs) == 0)
	})
}

// checkRows makes sure that every row of a target was measured.
func checkRows(t *testing.T, b *bench, log *bytes.Buffer, wanted func(row string) bool) {
	t.Helper()
	for _, target := range targets {
		row := strings.Replace(target.row, "1024 MiB", "1 MiB", 1)
		if !wanted(target.row) || strings.HasPrefix(row, "downtime") && !b.engine {
			continue
		}
		for _, who := range []string{target.who, target.peer} {
			there := who != "" && !slices.ContainsFunc(contenders, func(c *contender) bool { return c.who == who && !have(c.program) })
			if there && len(b.report.values(row, who)) == 0 {
				t.Errorf("%s of %s was not measured\n%s", row, who, log)
			}
		}
	}
}

// A year of nine nights. What is deleted is what the calendar does not keep, and a store
// with deletions holds what the last captures put there.
func TestAYearOfNightsRuns(t *testing.T) {
	disktest.NeedRoot(t)
	disktest.Need(t, "mkfs.ext4")
	var log bytes.Buffer
	b := &bench{shrink: 500, imageMiB: 900, nights: 9, only: []string{"small"}, log: &log}
	if err := b.measure(t.Context(), t.TempDir(), b.years); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	checkRows(t, b, &log, func(row string) bool { return strings.HasPrefix(row, yearMark+"small") })
	for _, manner := range manners {
		row := yearMark + "small, " + manner
		if n := len(b.report.values(row+rowNight, whoSnap)); n != 8 {
			t.Errorf("%s: %d nights after the first, want 8", manner, n)
		}
		if n := len(b.report.values(row+rowForget, whoSnap)); n != 1 { // after the ninth night: the first two days
			t.Errorf("%s: %d times something was deleted, want once", manner, n)
		}
	}
}

func TestTheCalendarKeepsDaysWeeksAndMonths(t *testing.T) {
	for night, want := range map[int]string{
		0:   "0",
		6:   "0 1 2 3 4 5 6",
		20:  "4 11 14 15 16 17 18 19 20", // the first Sunday is the fifth of January
		364: "30 58 89 119 150 180 211 242 272 303 333 340 347 354 358 359 360 361 362 363 364",
	} {
		keep := kept(night)
		for _, n := range strings.Fields(want) {
			n, _ := strconv.Atoi(n)
			if !keep[n] {
				t.Errorf("at night %d night %d is not kept: %v", night, n, keep)
			}
			delete(keep, n)
		}
		if len(keep) > 0 {
			t.Errorf("at night %d too many are kept: %v", night, keep)
		}
	}
}

func TestPartsAreChosen(t *testing.T) {
	for only, want := range map[string]string{
		"":              strings.Join(parts, " "),
		"small":         "small capture verify again restore",
		"restore":       "small pg random restore",
		"small,restore": "small restore",
		"downtime":      "capture verify again restore downtime", // and no data set
	} {
		b := &bench{only: strings.FieldsFunc(only, func(r rune) bool { return r == ',' })}
		got := slices.DeleteFunc(slices.Clone(parts), func(p string) bool { return !b.wants(p) })
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", only, got, want)
		}
	}
	if err := start(t.Context(), []string{"-only", "smal"}); err == nil || !strings.Contains(err.Error(), "smal") {
		t.Errorf("a part that does not exist: %v", err)
	}
}

// Text must compress as text does, or what is measured is the generator.
func TestTextCompressesAsTextDoes(t *testing.T) {
	for _, noise := range []bool{false, true} {
		f := file{bytes: 4 << 20, seed: 1, noise: noise}
		var out bytes.Buffer
		z := gzip.NewWriter(&out)
		z.Write(f.content())
		z.Close()
		ratio := float64(f.bytes) / float64(out.Len())
		if noise && ratio > 1.001 || !noise && (ratio < 2.5 || ratio > 5) {
			t.Errorf("noise %v: compresses %.2f : 1", noise, ratio)
		}
	}
}

func TestADataSetIsTheSameEachTimeAndChangesByAHundredth(t *testing.T) {
	dir := t.TempDir()
	files := append(smallFiles(1000), randomFiles(3<<20)...)
	if err := makeFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	differ := func() (n int) {
		for _, f := range files {
			got, err := os.ReadFile(filepath.Join(dir, f.path))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, f.content()) {
				n++
			}
		}
		return n
	}
	before, err := measureTree(dir)
	if n := differ(); err != nil || n > 0 || before.files != int64(len(files)) {
		t.Fatalf("%d files were written as something else; %+v, %v, want %d files", n, before, err, len(files))
	}
	changed, _, err := rewrite(dir, files, 3)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := measureTree(dir); err != nil || after != before || differ() != 10 || len(changed) != 10 {
		t.Errorf("%d files changed, and %d were named, want 10; %+v, %v, want %+v", differ(), len(changed), after, err, before)
	}
}

func TestOnePageInAHundredChangesInARow(t *testing.T) {
	dir := t.TempDir()
	if _, err := rewritePages(dir, 0); err == nil {
		t.Error("a tree without a page was changed by pages")
	}
	path := filepath.Join(dir, "big")
	if err := os.WriteFile(path, make([]byte, 1000*8192), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := rewritePages(dir, 0)
	text, rerr := os.ReadFile(path)
	if err = errors.Join(err, rerr); err != nil {
		t.Fatal(err)
	}
	changed := bytes.Trim(text, "\x00")
	if pages := (len(changed) + 8192 - 1) / 8192; said != 10*8192 || pages != 10 || bytes.Contains(changed, make([]byte, 16)) {
		t.Errorf("%d pages changed, and %d bytes were said; want 10 pages in a row", pages, said)
	}
}

func TestAnOutageIsFromTheLastAnswerToTheFirstForGood(t *testing.T) {
	start := time.Now()
	for answers, want := range map[string][2]int{"-++--+-++": {2, 7}, "++--": {1, -1}, "+++": {2, -1}} {
		var seen []sample
		for i, c := range answers {
			seen = append(seen, sample{start.Add(time.Duration(i) * time.Second), c == '+'})
		}
		before, back := outage(seen)
		if !before.Equal(seen[want[0]].at) || back.IsZero() != (want[1] < 0) || want[1] >= 0 && !back.Equal(seen[want[1]].at) {
			t.Errorf("%s: from %v to %v, want %v", answers, before.Sub(start), back.Sub(start), want)
		}
	}
}

func TestEverybodyTakesTurns(t *testing.T) {
	var order []string
	take := func(who string, every bool) turn {
		return turn{who, every, func(round int) error {
			order = append(order, string(rune('0'+round))+who)
			if who == "p" && round == 1 {
				return errors.New("no more")
			}
			return nil
		}}
	}
	b := &bench{report: &report{}, log: io.Discard, leftOut: map[string]bool{}}
	if err := b.inRounds(t.Context(), "test", 4, []turn{take(whoSnap, true), take("p", true), take("q", false)}); err != nil {
		t.Fatal(err)
	}
	// p fails in round 1; q, which no target is about, takes part in one round.
	if got, want := strings.Join(order, " "), "0snap 0p 0q 1p 1snap 2snap 3snap"; got != want {
		t.Errorf("turns: %s, want %s", got, want)
	}
	if len(b.report.About) != 1 || !strings.Contains(b.report.About[0], "no more") {
		t.Errorf("it says %q, want that p failed", b.report.About)
	}
	fails := turn{whoSnap, true, func(int) error { return errors.New("broken") }}
	if err := b.inRounds(t.Context(), "test", 2, []turn{fails}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("snap failed, and the error is %v", err)
	}
}

func TestAFailedPipelineSaysWhy(t *testing.T) {
	c, err := run(job{live: "here"}.script(t.Context(), `test "$live" = here; cat /no/such/file | cat`))
	if err == nil || !strings.Contains(err.Error(), "No such file") || c.seconds <= 0 || c.peak <= 0 {
		t.Errorf("%+v, %v", c, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if c, err := run(job{}.script(ctx, "sleep 60; true")); err == nil || c.seconds > 30 {
		t.Errorf("an interrupted script: %+v, %v", c, err)
	}
}

func example() *report {
	r := &report{About: []string{"a machine"}}
	put := func(row, who string, values ...float64) {
		for _, v := range values {
			r.add(row, "s", who, v)
		}
	}
	put("small"+rowCapture, whoSnap, 2, 1, 3)
	put("small"+rowCapture, whoPigz1, 4, 4, 4)
	put("small"+rowCapture, whoRestic, 5, 5, 5)
	put("small"+rowStored, whoSnap, 121, 119)
	put("small"+rowStored, whoPigz6, 100)
	put("pg"+rowRestore, whoZstd, 1)
	put("pg"+rowRestore, whoRestic, 4)
	put(rowMemory, whoSnap, 97)
	put(rowAdded+"64 MiB", whoSnap, -0.01)
	put(rowAdded+"64 MiB", whoTarPlace, 1)
	put(rowAdded+"1024 MiB", whoSnap, 0.5)
	put(rowAdded+"1024 MiB", whoTarPlace, 10)
	return r
}

func TestTheTableFollowsTheNumbers(t *testing.T) {
	text := example().tables()
	for _, want := range []string{
		"| | snap | snap, zstd | tar, pigz -1 | tar, pigz -6 | restic | snap's targets |\n| --- | --- | --- | --- | --- | --- | --- |\n",
		"| small: first capture, s | 2 | | 4 | | 5 | 0.5 × tar, pigz -1 (0.25 – 0.75), at most 0.75: met; 0.4 × restic (0.2 – 0.6), at most 0.33: **missed** |\n",
		"| small: stored after the first capture, s | 120 | | | 100 | | 1.2 × tar, pigz -6 (1.21 – 1.21), at most 1.06: **missed** |\n",
		"| pg: restore to disk, s | | 1 | | | 4 | snap, zstd: 0.25 × restic (0.25 – 0.25), at most 0.7: met |\n",
		"| most memory, the data sets above, s | 97 | | | | | at most 96: **missed** |\n",
		"| | snap | tar in place | snap's targets |\n",
		"| downtime added by the data, 64 MiB, s | -0.01 | 1 |  |\n",
		"| downtime added by the data, 1024 MiB, s | 0.5 | 10 | at most 1: met |\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
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
	put("before\n" + beginMark + "\nold\n" + endMark + "\nafter\n")
	for range 2 { // the second time it finds its own
		if err := example().writeDocs(dir, beginMark, endMark); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if want := "before\n" + beginMark + "\n\n" + example().tables() + "\n" + endMark + "\nafter\n"; err != nil || string(text) != want {
		t.Errorf("%v, the page:\n%s", err, text)
	}
	if _, err := os.Stat(filepath.Join(dir, "downtime.svg")); err != nil {
		t.Error(err)
	}
	put("no marks\n")
	if err := example().writeDocs(dir, beginMark, endMark); err == nil {
		t.Error("a page without marks was written")
	}
}

func TestThePictureIsDrawn(t *testing.T) {
	s := example().draw()
	circles := 0
	for dec := xml.NewDecoder(strings.NewReader(s)); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, s)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			circles++
		}
	}
	if circles != 4 {
		t.Errorf("%d points, want two sizes of two methods", circles)
	}
	for _, text := range []string{">snap<", ">tar in place<", ">10 s at 1024 MiB<", ">0.5 s at 1024 MiB<"} {
		if !strings.Contains(s, text) {
			t.Errorf("%q is not in the picture", text)
		}
	}
	if strings.Contains(s, whoSwap) || strings.Contains(s, "NaN") || (&report{}).draw() != "" {
		t.Error("the picture shows what was not measured")
	}
}
