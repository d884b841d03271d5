package catalog

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/archive/part"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/store"
)

func (w *world) look() *Look {
	return &Look{Store: w.store, Manifest: w.manifest, Line: func(string) {}}
}

// list returns what List shows, a line each.
func (w *world) list(arg string, recursive bool) (list []string, err error) {
	w.Helper()
	err = w.look().List(w.Context(), arg, recursive, func(volume string, n *Name) error {
		list = append(list, fmt.Sprintf("%s %s %d", volume, n.Name, n.Size))
		return nil
	})
	return list, err
}

func (w *world) index() string {
	return w.at("store/snapshots/app/" + w.manifest.SID + "/index.gz")
}

// rewrite passes the text of the index through change.
func (w *world) rewrite(change func(text string) string) {
	w.Helper()
	data, err := os.ReadFile(w.index())
	w.must(err)
	zr, err := gzip.NewReader(bytes.NewReader(data))
	w.must(err)
	text, err := io.ReadAll(zr)
	w.must(err)
	changed := change(string(text))
	if changed == string(text) {
		w.Fatal("the change changes nothing")
	}
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	_, err = zw.Write([]byte(changed))
	w.must(err)
	w.must(zw.Close())
	w.must(os.WriteFile(w.index(), b.Bytes(), 0o600))
}

// A list goes by the index alone: it is there when all members are lost.
func TestAListReadsNoMember(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"one", "two"}, func(i int, live string) {
		disktest.Write(t, live, map[string]string{"b/c/d": "dd", "b/e": "e", "b.x": "x", "f": "fff"})
		w := filepath.Join(live, "z")
		if err := os.Link(filepath.Join(live, "f"), w); err != nil {
			t.Fatal(err)
		}
	})
	w.must(os.RemoveAll(w.at("store/members")))
	for _, c := range []struct {
		arg       string
		recursive bool
		want      []string
	}{
		{"", false, []string{"one . 0", "one b 0", "one b.x 1", "one f 3", "one z 3", "two . 0", "two b 0", "two b.x 1", "two f 3", "two z 3"}},
		{"two", true, []string{"two . 0", "two b 0", "two b/c 0", "two b/c/d 2", "two b/e 1", "two b.x 1", "two f 3", "two z 3"}},
		{"one:b", false, []string{"one b 0", "one b/c 0", "one b/e 1"}},
		{"one:b/", true, []string{"one b 0", "one b/c 0", "one b/c/d 2", "one b/e 1"}},
		{"one:z", true, []string{"one z 3"}},
	} {
		if got, err := w.list(c.arg, c.recursive); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%q, recursive %v: %q, error %v; expected %q", c.arg, c.recursive, got, err, c.want)
		}
	}
	_, err := w.list("one:b/f", false)
	w.refused("a name that is not there", err, fault.Refused, "path_not_found")
}

// An index that no snapshot of the volume can have is not believed, and the list is right
// all the same.
func TestAForgedIndexIsNotBelieved(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"v"}, func(_ int, live string) {
		disktest.Write(t, live, map[string]string{"a": "a", "d/e": "e", "d/f": "ff", "g": "g", "large": strings.Repeat("l", 3<<20)})
	})
	want, err := w.list("v", true)
	w.must(err)
	whole, err := os.ReadFile(w.index())
	w.must(err)
	line := func(name string) *regexp.Regexp { return regexp.MustCompile(`(?m)^"` + name + `"\t.*\n`) }
	sub := func(old, now string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, now, 1) }
	}
	for what, change := range map[string]func(string) string{
		"a name above the volume": sub(`"g"`, `"../g"`), "an absolute name": sub("\n\"a\"", "\n\"/a\""), "an empty component": sub(`"d/e"`, `"d//e"`),
		"a name with NUL": sub(`"g"`, `"g\x00"`), "a name left out": func(s string) string { return line("d/f").ReplaceAllString(s, "") },
		"a name twice":       func(s string) string { return line("g").ReplaceAllString(s, "$0$0") },
		"names out of order": sub(`"d/e"`, `"e"`),
		"a name too many": func(s string) string {
			return line("g").ReplaceAllString(s, "$0"+strings.Replace(line("g").FindString(s), "g", "h", 1))
		},
		"another size": sub("\"d/f\"\t0\t2", "\"d/f\"\t0\t3"),
		"a member beyond": func(s string) string {
			return regexp.MustCompile(`(?m)^("g"\t(?:[^\t]*\t){8})\d+`).ReplaceAllString(s, "${1}99")
		},
		"a link to a later": func(s string) string {
			return regexp.MustCompile(`(?m)^"d/e"\t0(.*)$`).ReplaceAllString(s, "\"d/e\"\t1$1\"z\"")
		},
		"no root":             func(s string) string { return line(`\.`).ReplaceAllString(s, "") },
		"a mode of more bits": sub("\"g\"\t0\t1\t644", "\"g\"\t0\t1\t100644"),
		"another volume's":    sub("volume\t\"v\"", "volume\t\"w\""),
		"no index":            func(string) string { return "nothing\n" },
		"a newer version":     sub("snap-index\t2", "snap-index\t3"),
		"a text that is cut":  func(s string) string { return s[:len(s)-9] },
		"a type that is not":  sub("\"g\"\t0", "\"g\"\t00"),
		"a negative size":     sub("\"d/f\"\t0\t2", "\"d/f\"\t0\t-2"),
		"a hardlink of nobody": func(s string) string {
			return regexp.MustCompile(`(?m)^"g"\t0(.*)$`).ReplaceAllString(s, "\"g\"\t1$1\"../x\"")
		},
	} {
		w.must(os.WriteFile(w.index(), whole, 0o600))
		w.rewrite(change)
		_, err := OpenNames(t.Context(), w.store, w.manifest, &w.manifest.Volumes[0], store.Origin{})
		if !errors.Is(err, store.ErrIndex) && !errors.Is(err, part.ErrMismatch) {
			t.Errorf("%s: %v", what, err)
		}
		if got, err := w.list("v", true); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, error %v; expected %q", what, got, err, want)
		}
		var b bytes.Buffer
		if err := w.look().Cat(t.Context(), "v:d/f", &b); err != nil || b.String() != "ff" {
			t.Errorf("%s: %q, error %v", what, b.String(), err)
		}
	}
}

// What has no bytes to write is refused, and a file of a volume that is one needs no path.
func TestOnlyFilesHaveBytes(t *testing.T) {
	w := newWorld(t, t.TempDir(), []string{"v"}, func(_ int, live string) {
		disktest.Rich(t, live)
		disktest.Write(t, live, map[string]string{"plain": "bytes"})
		if err := os.Symlink("plain\x1b[31m", filepath.Join(live, "soft")); err != nil {
			t.Fatal(err)
		}
	})
	err := w.look().List(t.Context(), "v", true, func(_ string, n *Name) error {
		if n.Name == "." {
			return nil
		}
		var b bytes.Buffer
		err := w.look().Cat(t.Context(), "v:"+n.Name, &b)
		if n.First == nil || n.First.Type.String() != "file" {
			w.refused(n.Name, err, fault.Refused, "not_regular")
			return nil
		}
		want, readErr := os.ReadFile(filepath.Join(w.at("live/0"), n.Name))
		w.must(readErr)
		if err != nil || !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%q: %d bytes, error %v", n.Name, b.Len(), err)
		}
		return nil
	})
	w.must(err)
	w.refused("a volume", w.look().Cat(t.Context(), "v", io.Discard), fault.Refused, "not_regular")
	w.refused("a volume that is not there", w.look().Cat(t.Context(), "w:x", io.Discard), fault.Usage, "no_such_volume")
}
