package main

import (
	"strings"
	"testing"
)

func TestPartsAreChosen(t *testing.T) {
	for _, c := range []struct{ only, want string }{
		{"", "small pg random capture verify again restore downtime sparse scale"},
		{"small", "small capture verify again restore"},
		{"restore", "small pg random restore"},
		{"small,restore", "small restore"},
		{"downtime", "downtime"},
		{"pg, capture ,downtime", "pg capture downtime"},
	} {
		p := fullPlan()
		if err := p.choose(c.only); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, name := range append(append([]string{}, setNames...), scenarioNames...) {
			if p.wants(name) {
				got = append(got, name)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q: %s, want %s", c.only, s, c.want)
		}
		if p.complete() != (c.only == "") {
			t.Errorf("%q: complete is %v", c.only, p.complete())
		}
	}
	p := fullPlan()
	if err := p.choose("smal"); err == nil {
		t.Error("a part that there is not was taken")
	}
}
