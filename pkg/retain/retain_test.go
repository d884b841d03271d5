package retain_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/retain"
)

func span(t *testing.T, text string) retain.Span {
	t.Helper()
	s, err := retain.ParseSpan(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func policies(t *testing.T) map[string]retain.Policy {
	return map[string]retain.Policy{
		"--keep-last 3":   {Last: 3},
		"--keep-hourly 5": {Hourly: 5},
		"--keep-daily 7":  {Daily: 7},
		"--keep-daily 7 --keep-weekly 5 --keep-monthly 12": {Daily: 7, Weekly: 5, Monthly: 12},
		"--keep-weekly 60":                                  {Weekly: 60},
		"--keep-monthly 3 --keep-yearly 10":                 {Monthly: 3, Yearly: 10},
		"--keep-within 20d":                                 {Within: span(t, "20d")},
		"--keep-within 1m3d5h --keep-last 1":                {Within: span(t, "1m3d5h"), Last: 1},
		"--keep-within-daily 2m --keep-within-monthly 1y":   {WithinDaily: span(t, "2m"), WithinMonthly: span(t, "1y")},
		"--keep-within-hourly 9d --keep-within-weekly 3m":   {WithinHourly: span(t, "9d"), WithinWeekly: span(t, "3m")},
		"--keep-within-yearly 5y --keep-daily 2":            {WithinYearly: span(t, "5y"), Daily: 2},
		"--keep-tag good --keep-daily 1":                    {Tags: []string{"good"}, Daily: 1},
		"--keep-tag good --keep-tag better --keep-weekly 2": {Tags: []string{"good", "better"}, Weekly: 2},
	}
}

// The words are restic's, so restic itself says what they mean: over a year and a half
// of backups at odd times, several of some hours and none of some months, and over the
// days on which the clock changes.
func TestEachRuleMeansWhatItMeansToRestic(t *testing.T) {
	disktest.Need(t, "restic")
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	disktest.Write(t, dir, map[string]string{"file": "x"})
	restic := func(args ...string) []byte {
		t.Helper()
		cmd := exec.Command("restic", append([]string{"--repo", filepath.Join(dir, "repo"), "--no-cache", "--quiet"}, args...)...)
		cmd.Env = append(os.Environ(), "RESTIC_PASSWORD=x", "TZ=Europe/Berlin")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("restic %q: %v", args, err)
		}
		return out
	}
	restic("init")
	var list []retain.Snapshot
	random := rand.New(rand.NewPCG(1, 2))
	at := time.Date(2025, 3, 1, 3, 0, 0, 0, berlin)
	for i := range 20 {
		s := retain.Snapshot{SID: at.Format("2006-01-02 15:04:05"), Created: at}
		if i%9 == 4 {
			s.Tags = []string{[]string{"good", "better", "other"}[i/9%3]}
		}
		list = append(list, s)
		args := []string{"backup", "--time", s.SID, "--host", "h", filepath.Join(dir, "file")}
		for _, tag := range s.Tags {
			args = append(args, "--tag", tag)
		}
		restic(args...)
		at = at.Add([]time.Duration{time.Hour / 3, 5 * time.Hour, 24 * time.Hour, 24 * time.Hour, 23*time.Hour + 17*time.Minute, 6 * 24 * time.Hour, 70 * 24 * time.Hour}[random.IntN(7)])
	}
	for flags, policy := range policies(t) {
		t.Run(flags, func(t *testing.T) {
			var groups []struct {
				Keep []struct {
					Time time.Time `json:"time"`
				} `json:"keep"`
			}
			args := append([]string{"forget", "--dry-run", "--json", "--group-by", ""}, strings.Fields(flags)...)
			if err := json.Unmarshal(restic(args...), &groups); err != nil || len(groups) != 1 {
				t.Fatalf("restic answers %+v: %v", groups, err)
			}
			var want, got []string
			for _, k := range groups[0].Keep {
				want = append(want, k.Time.In(berlin).Format("2006-01-02 15:04:05"))
			}
			for _, v := range policy.Decide(at, slices.Clone(list)) {
				if len(v.Keep) > 0 {
					got = append(got, v.SID)
				}
			}
			slices.Sort(want)
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("kept %q\nrestic keeps %q", got, want)
			}
		})
	}
}

// Whatever the rules, one snapshot stays; and if there is one that no restore made, one
// of those.
func TestTheLastOneStays(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	old := now.AddDate(-3, 0, 0)
	for name, list := range map[string][]retain.Snapshot{
		"one":                  {{SID: "a", Created: old}},
		"two":                  {{SID: "b", Created: old.Add(-1)}, {SID: "a", Created: old}},
		"only of restores":     {{SID: "a", Created: old, PreRestore: true}, {SID: "b", Created: old.Add(-1), PreRestore: true}},
		"and one of a restore": {{SID: "x", Created: now, PreRestore: true}, {SID: "a", Created: old}, {SID: "b", Created: old.Add(-1)}},
	} {
		t.Run(name, func(t *testing.T) {
			policy := retain.Policy{Tags: []string{"nobody has it"}}
			for _, v := range policy.Decide(now, list) {
				if stays, want := len(v.Keep) > 0, v.SID == "a" || v.SID == "x"; stays != want {
					t.Errorf("%s stays: %v", v.SID, v.Keep)
				}
			}
		})
	}
}

// A restore pushes no nightly out, and what it made stays for a time of its own.
func TestSnapshotsOfRestoresDoNotCount(t *testing.T) {
	now := time.Date(2026, 6, 10, 12, 0, 0, 0, time.UTC)
	var list []retain.Snapshot
	for day := range 10 {
		list = append(list,
			retain.Snapshot{SID: fmt.Sprint("night ", day), Created: now.AddDate(0, 0, -day).Add(-9 * time.Hour)},
			retain.Snapshot{SID: fmt.Sprint("restore ", day), Created: now.AddDate(0, 0, -day).Add(-time.Hour), PreRestore: true})
	}
	for _, c := range []struct {
		policy          retain.Policy
		nights, restore int
	}{
		{retain.Policy{Daily: 3}, 3, 7},
		{retain.Policy{Last: 4, PreRestore: span(t, "2d")}, 4, 2},
		{retain.Policy{Last: -1, PreRestore: span(t, "1h")}, 10, 0},
	} {
		nights, restore := 0, 0
		for _, v := range c.policy.Decide(now, list) {
			switch {
			case len(v.Keep) == 0:
			case v.PreRestore:
				restore++
			default:
				nights++
			}
		}
		if nights != c.nights || restore != c.restore {
			t.Errorf("%+v keeps %d and %d", c.policy, nights, restore)
		}
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	for _, text := range []string{"keep_daily: -2", "keep_pre_restore: 3d", "keep_within: 7", "keep_within: d", "keep_within: 3x", "keep_within: ''", "keep_within: 9999999d"} {
		var p retain.Policy
		err := yaml.Unmarshal([]byte(text), &p)
		if err == nil {
			err = p.Check()
		}
		if err == nil {
			t.Errorf("%s is taken as %+v", text, p)
		}
	}
	var p retain.Policy
	if err := yaml.Unmarshal([]byte("keep_daily: 7\nkeep_within: 1y2m3w4d5h\nkeep_tags: [a]"), &p); err != nil || p.Check() != nil || p.Within.String() != "1y2m25d5h" {
		t.Errorf("%+v: %v", p, err)
	}
}
