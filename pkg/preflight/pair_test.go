package preflight

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/workload"
)

// A volume of a snapshot goes where the config or the operator says, each once, and never
// where only the snapshot says so.
func TestVolumesArePairedAsTheConfigAndTheOperatorSay(t *testing.T) {
	m := &store.Manifest{SID: "20261123T140501Z-3f9a2c", Volumes: []store.Volume{
		{Name: "content", Scope: "stage", Source: "content"}, {Name: "a=b", Scope: "absolute", Source: "/srv/ab"},
	}}
	v := func(name, source string, was ...string) workload.Volume {
		return workload.Volume{Name: name, Scope: workload.Absolute, Source: source, Was: was}
	}
	same := workload.Volume{Name: "content", Scope: workload.Stage, Source: "content"}
	ab := v("a=b", "/srv/ab")
	for name, c := range map[string]struct {
		config []workload.Volume
		args   []string
		want   string // "config's name<snapshot's name", sorted; or a part of the error
		code   string
	}{
		"the same":                  {[]workload.Volume{same, ab}, nil, "a=b<a=b content<content", ""},
		"another source":            {[]workload.Volume{v("content", "/srv/new"), ab}, nil, `has volume "content" (scope stage, source "content")`, "volume_unresolved"},
		"another scope":             {[]workload.Volume{v("content", "content"), ab}, nil, `has volume "content"`, "volume_unresolved"},
		"moved, as was says":        {[]workload.Volume{v("content", "/srv/new", "content"), ab}, nil, "a=b<a=b content<content", ""},
		"renamed, as was says":      {[]workload.Volume{v("posts", "/srv/new", "older", "content"), ab}, nil, "a=b<a=b posts<content", ""},
		"was by its source":         {[]workload.Volume{same, v("x", "/srv/x", "/srv/ab")}, nil, "content<content x<a=b", ""},
		"two were one":              {[]workload.Volume{same, v("x", "/srv/x", "/srv/ab"), v("y", "/srv/y", "a=b")}, nil, `"x" and "y" of the config both are`, "volume_unresolved"},
		"mapped":                    {[]workload.Volume{v("posts", "/srv/new"), ab}, []string{"content=posts"}, "a=b<a=b posts<content", ""},
		"mapped by source":          {[]workload.Volume{same, v("x", "/srv/x")}, []string{"/srv/ab=x"}, "content<content x<a=b", ""},
		"a name with =":             {[]workload.Volume{same, v("x", "/srv/x")}, []string{"a=b=x"}, "content<content x<a=b", ""},
		"over what was says":        {[]workload.Volume{v("x", "/srv/x", "content"), v("y", "/srv/y", "a=b")}, []string{"content=y", "a=b=x"}, "x<a=b y<content", ""},
		"what it leaves without":    {[]workload.Volume{same, v("x", "/srv/x")}, []string{"content=x"}, `has volume "a=b"`, "volume_unresolved"},
		"twice the same":            {[]workload.Volume{v("x", "/srv/x"), ab}, []string{"content=x", "content=x"}, "can be mapped once", "bad_map"},
		"one into two":              {[]workload.Volume{v("x", "/srv/x"), ab}, []string{"content=x", "content=a=b"}, "can be mapped once", "bad_map"},
		"two into one":              {[]workload.Volume{v("x", "/srv/x"), ab}, []string{"content=x", "a=b=x"}, "can be mapped once", "bad_map"},
		"into a path":               {[]workload.Volume{same, ab}, []string{"content=/etc"}, `no volume "/etc"`, "bad_map"},
		"into the snapshot's place": {[]workload.Volume{v("x", "/srv/x"), ab}, []string{"content=content"}, `no volume "content"`, "bad_map"},
		"of what it has not":        {[]workload.Volume{same, ab}, []string{"posts=content"}, `the snapshot has no volume "posts"`, "bad_map"},
		"without =":                 {[]workload.Volume{same, ab}, []string{"content"}, "is not OLD=NEW", "bad_map"},
		"in two ways":               {[]workload.Volume{v("b=x", "/srv/x"), v("x", "/srv/y")}, []string{"a=b=x"}, "can be read in two ways", "bad_map"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			own := *m
			if name == "in two ways" {
				own.Volumes = append([]store.Volume{{Name: "a", Source: "a"}}, m.Volumes...)
			}
			h := &Host{Workload: &workload.Workload{Name: "blog", Volumes: c.config}}
			got, err := h.pair(&Plan{manifest: &own, SID: m.SID, req: Request{Map: c.args}})
			var f *fault.Error
			if c.code != "" {
				if !errors.As(err, &f) || f.Code != c.code || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, %v; expected %s: %s", got, err, c.code, c.want)
				}
				return
			}
			text := ""
			for _, v := range c.config {
				if from := got[v.Name]; from != nil {
					text += " " + v.Name + "<" + from.Name
				}
			}
			want := map[string]bool{}
			for _, pair := range strings.Fields(c.want) {
				want[pair] = true
			}
			found := map[string]bool{}
			for _, pair := range strings.Fields(text) {
				found[pair] = true
			}
			if err != nil || !maps.Equal(want, found) {
				t.Errorf("paired%s: %v; expected %s", text, err, c.want)
			}
		})
	}
}
