package main

import (
	"testing"

	"github.com/tiny-forge/snap/pkg/docker/endpoint"
	"github.com/tiny-forge/snap/pkg/remedy"
)

// TestAnOperationIsSpelledSoThatItCanBePasted spells each kind, under another name
// and with a config that needs quotes.
func TestAnOperationIsSpelledSoThatItCanBePasted(t *testing.T) {
	const tx = "20261129T194036Z-32542c"
	for want, op := range map[string]remedy.Operation{
		"recover":                                {Verb: remedy.DoRecover},
		"recover web":                            {Verb: remedy.DoRecover, Workload: "web"},
		"recover web --offline":                  {Verb: remedy.DoRecoverOffline, Workload: "web"},
		"recover web --resolve keep-old":         {Verb: remedy.DoResolve, Workload: "web", Keep: "old"},
		"restore web " + tx:                      {Verb: remedy.DoRestore, Workload: "web", ID: tx},
		"restore web " + tx + " --plan":          remedy.Plan("web", tx),
		"undo web --confirm " + tx:               {Verb: remedy.DoUndo, Workload: "web", ID: tx, Confirmed: true},
		"show web " + tx:                         {Verb: remedy.DoShow, Workload: "web", ID: tx},
		"status":                                 {Verb: remedy.DoStatus},
		"list web":                               {Verb: remedy.DoList, Workload: "web"},
		"deploy web":                             {Verb: remedy.DoDeploy, Workload: "web"},
		"verify web " + tx + " --repair":         remedy.Repair("web", tx),
		"restore web " + tx + " --confirm " + tx: {Verb: remedy.DoRestore, Workload: "web", ID: tx, Confirmed: true},
		"recover web --resolve keep-new --confirm " + tx: {Verb: remedy.DoResolve, Workload: "web", ID: tx, Keep: "new", Confirmed: true},
	} {
		for _, c := range []struct {
			called, config string
			engine         endpoint.Choice
			before, after  string
		}{
			{"snap", "", endpoint.Choice{}, "snap ", ""},
			{"/opt/bin/snap-it", "/etc/my snap's.yaml", endpoint.Choice{}, "/opt/bin/snap-it ", ` --config '/etc/my snap'\''s.yaml'`},
			{"snap", "a.yaml", endpoint.Choice{Context: "mine"}, "snap ", ` --config a.yaml --context mine`},
			{"snap", "", endpoint.Choice{Host: "unix:///run/docker.sock"}, "snap ", ` --host unix:///run/docker.sock`},
		} {
			u := &ui{called: c.called, configGiven: c.config, choice: c.engine}
			if got := u.spell(op); got != c.before+want+c.after {
				t.Errorf("%+v: %q, expected %q", op, got, c.before+want+c.after)
			}
		}
	}
}
