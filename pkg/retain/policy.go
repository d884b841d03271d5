package retain

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Policy says which snapshots of a workload stay. The zero Policy has no rule.
type Policy struct {
	Last    int `yaml:"keep_last"` // -1: all, in this and the next
	Hourly  int `yaml:"keep_hourly"`
	Daily   int `yaml:"keep_daily"`
	Weekly  int `yaml:"keep_weekly"`
	Monthly int `yaml:"keep_monthly"`
	Yearly  int `yaml:"keep_yearly"`

	// All within a time before the newest; or the newest of each hour, and so on.
	Within        Span `yaml:"keep_within"`
	WithinHourly  Span `yaml:"keep_within_hourly"`
	WithinDaily   Span `yaml:"keep_within_daily"`
	WithinWeekly  Span `yaml:"keep_within_weekly"`
	WithinMonthly Span `yaml:"keep_within_monthly"`
	WithinYearly  Span `yaml:"keep_within_yearly"`

	Tags       []string `yaml:"keep_tags"`        // with one of these tags
	PreRestore Span     `yaml:"keep_pre_restore"` // made by restores, so long before now; 0: DefaultPreRestore
}

// DefaultPreRestore is how long the snapshots stay that restores made.
var DefaultPreRestore = Span{days: 7}

// Snapshot is what a policy goes by.
type Snapshot struct {
	SID        string
	Created    time.Time
	Tags       []string
	PreRestore bool // made by a restore
}

// Verdict is what becomes of a snapshot, and why: the rules that keep it.
type Verdict struct {
	Snapshot
	Keep []string // empty: it goes
}

// Empty reports whether no rule is given, so that nothing may be deleted.
func (p *Policy) Empty() bool {
	for _, r := range p.rules() {
		if r.count != 0 || r.within != (Span{}) {
			return false
		}
	}
	return len(p.Tags) == 0
}

// Check refuses numbers that mean nothing.
func (p *Policy) Check() error {
	for _, r := range p.rules() {
		if r.count < -1 {
			return fmt.Errorf("keep %s is %d: use a number, or -1 for all", r.name, r.count)
		}
	}
	if p.Empty() && p.PreRestore != (Span{}) {
		return errors.New("keep_pre_restore alone would delete all other snapshots: say which of them stay, for example with keep_daily")
	}
	return nil
}

// rule keeps the newest snapshot of each period, for so many periods or so far back.
type rule struct {
	name   string
	count  int
	within Span
	period func(time.Time) string // a snapshot's; nil: each is its own
}

func (p *Policy) rules() []rule {
	hour := func(t time.Time) string { return t.Format("2006-01-02 15 -0700") } // an hour that comes twice is two
	day := func(t time.Time) string { return t.Format("2006-01-02") }
	week := func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, w) }
	month := func(t time.Time) string { return t.Format("2006-01") }
	year := func(t time.Time) string { return t.Format("2006") }
	return []rule{
		{"last", p.Last, Span{}, nil},
		{"hourly", p.Hourly, Span{}, hour}, {"daily", p.Daily, Span{}, day}, {"weekly", p.Weekly, Span{}, week},
		{"monthly", p.Monthly, Span{}, month}, {"yearly", p.Yearly, Span{}, year},
		{"within", 0, p.Within, nil},
		{"hourly within", 0, p.WithinHourly, hour}, {"daily within", 0, p.WithinDaily, day}, {"weekly within", 0, p.WithinWeekly, week},
		{"monthly within", 0, p.WithinMonthly, month}, {"yearly within", 0, p.WithinYearly, year},
	}
}

// Decide says of each snapshot of a workload whether it stays, newest first. now is the
// time, in whose location the calendar is. What lies in the future stays.
func (p *Policy) Decide(now time.Time, list []Snapshot) []Verdict {
	out := make([]Verdict, len(list))
	for i, s := range list {
		out[i].Snapshot = s
	}
	slices.SortStableFunc(out, func(x, y Verdict) int { return y.Created.Compare(x.Created) })
	var own []*Verdict // without those of restores
	for i := range out {
		v := &out[i]
		if v.PreRestore {
			p.preRestore(v, now)
		} else {
			own = append(own, v)
		}
		if i := slices.IndexFunc(v.Tags, func(tag string) bool { return slices.Contains(p.Tags, tag) }); i >= 0 {
			v.keep("tag " + v.Tags[i])
		}
	}
	for _, r := range p.rules() {
		r.apply(own, now.Location())
	}
	// Never the last one of a workload, nor the last that no restore made.
	stays := func(v *Verdict) bool { return len(v.Keep) > 0 }
	switch {
	case len(own) > 0 && !slices.ContainsFunc(own, stays):
		own[0].keep("the last one")
	case len(own) == 0 && len(out) > 0:
		out[0].keep("the last one")
	}
	return out
}

func (v *Verdict) keep(why string) { v.Keep = append(v.Keep, why) }

func (p *Policy) preRestore(v *Verdict, now time.Time) {
	span := p.PreRestore
	if span == (Span{}) {
		span = DefaultPreRestore
	}
	if v.Created.After(span.Before(now)) {
		v.keep("made by a restore within " + span.String())
	}
}

// apply keeps what the rule keeps of a list, newest first.
func (r rule) apply(list []*Verdict, where *time.Location) {
	if len(list) == 0 || r.count == 0 && r.within == (Span{}) {
		return
	}
	since := r.within.Before(list[0].Created.In(where))
	kept, last := 0, ""
	for i, v := range list {
		period := fmt.Sprint(i)
		if r.period != nil {
			period = r.period(v.Created.In(where))
		}
		switch {
		case period == last:
			continue
		case r.count == 0 && v.Created.Before(since), r.count > 0 && kept == r.count:
			return
		}
		kept, last = kept+1, period
		why := r.name
		if r.within != (Span{}) {
			why += " " + r.within.String()
		}
		v.keep(why)
	}
}
