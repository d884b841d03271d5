package workload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAPatternExcludesWhatTheDocsSay(t *testing.T) {
	for pattern, c := range map[string]struct{ yes, no []string }{
		"cache/**":     {[]string{"cache/a", "cache/a/b"}, []string{"cache", "a/cache/b", "cache2/a"}},
		"cache":        {[]string{"cache"}, []string{"a/cache", "cache2", "cache/a"}}, // a walk does not reach cache/a
		"*.tmp":        {[]string{"a.tmp", ".tmp"}, []string{"d/a.tmp", "a.tmpx"}},
		"**/*.tmp":     {[]string{"a.tmp", "d/a.tmp", "d/e/a.tmp"}, []string{"a.tmp/b"}},
		"**/node/**":   {[]string{"node/a", "a/node/b", "a/node/b/c"}, []string{"node", "a/node"}},
		"a/**/z":       {[]string{"a/z", "a/b/z", "a/b/c/z"}, []string{"z", "a", "b/a/z"}},
		"**":           {[]string{"a", "a/b"}, nil},
		"log[0-9]":     {[]string{"log1"}, []string{"loga", "log10"}},
		`we\*ird`:      {[]string{"we*ird"}, []string{"weXird"}},
		"?":            {[]string{"a", "ü"}, []string{"ab", "a/b"}},
		"**/a/**/b/**": {[]string{"a/b/c", "x/a/y/b/c"}, []string{"a/b", "b/a/c"}},
	} {
		v := &Volume{Exclude: []string{"never", pattern}}
		if err := checkPatterns(v.Exclude); err != nil {
			t.Errorf("%s: %v", pattern, err)
		}
		for _, name := range c.yes {
			if !v.Excludes(name) {
				t.Errorf("%s does not exclude %s", pattern, name)
			}
		}
		for _, name := range c.no {
			if v.Excludes(name) {
				t.Errorf("%s excludes %s", pattern, name)
			}
		}
	}
	if (&Volume{}).Excludes("a") {
		t.Error("a volume without exclude excludes a")
	}
}

func TestAPatternThatMatchesNothingIsRefused(t *testing.T) {
	for _, pattern := range []string{"", "/", "/cache", "cache/", "./cache", "../x", "..", ".", "a//b", "[", "a/[b", "a**", "a/**b"} {
		if err := checkPatterns([]string{"good", pattern}); err == nil || !strings.Contains(err.Error(), "exclude") {
			t.Errorf("%q is accepted: %v", pattern, err)
		}
	}
}

// A name comes from whoever writes to the volume, and a walk matches each of them.
func TestAPatternOfManyStarsIsMatchedInTime(t *testing.T) {
	v := &Volume{Exclude: []string{strings.Repeat("**/a/", 12) + "b"}}
	name := strings.Repeat("a/", 200) + "c"
	begun := time.Now()
	if v.Excludes(name) {
		t.Error("it matches")
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestTheKeysOfWhatIsLeftOutAreChecked(t *testing.T) {
	for keys, want := range map[string]string{
		"special: maybe":                                   "use refuse, skip or keep",
		"exclude: [/cache]":                                "exclude",
		"exclude_caches: perhaps":                          "another kind of value",
		"special: keep":                                    "",
		"{special: skip, exclude: [a, 'b/**']}":            "",
		"{exclude_caches: true, exclude: ['**/*.sqlite']}": "",
	} {
		path := filepath.Join(t.TempDir(), "snap.yaml")
		keys := strings.Trim(keys, "{}")
		text := "version: 1\nworkloads:\n  files:\n    volumes:\n      - {scope: absolute, source: /srv/files, " + keys + "}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", keys, err)
		}
	}
}
