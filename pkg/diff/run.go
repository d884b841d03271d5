package diff

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tiny-forge/snap/pkg/catalog"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/snapshot"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/swap"
	"github.com/tiny-forge/snap/pkg/workload"
)

// Comparison is of a snapshot and another one, or the live data.
type Comparison struct {
	Store    *store.Store
	From, To *store.Manifest // To is nil for live data
	Live     *Live           // nil for two snapshots
	Volumes  []string        // names; none means all
	Content  bool            // see [Request]
	See      func(volume string, c *Change) error
	Line     func(text string)
}

// Live is where the live data is.
type Live struct {
	Workload *workload.Workload
	Open     func(*workload.Volume) (*swap.Volume, error)
	Excludes func(source string) bool // reports whether the config leaves a volume alone
}

// VolumeTotals are the totals of one volume.
type VolumeTotals struct {
	Volume string `json:"volume"`
	Totals
}

// pair is a volume on both sides. One that a side lacks has nothing in it there.
type pair struct {
	name     string
	from, to *store.Volume
	live     *workload.Volume
}

// is reports whether a pair has that name, or that key of a Compose file.
func (p pair) is(name string) bool { return p.name == name || p.live != nil && p.live.Alias == name }

// Run compares volume by volume. Nothing is changed, and live data is only looked at.
func Run(ctx context.Context, x *Comparison) ([]VolumeTotals, error) {
	pairs, err := x.pairs()
	if err != nil {
		return nil, err
	}
	list := []VolumeTotals{}
	for _, p := range pairs {
		t, err := x.one(ctx, p)
		if err != nil {
			return nil, catalog.Fault(ctx, x.From.Workload, fmt.Errorf("volume %s: %w", remedy.Shown(p.name), err))
		}
		list = append(list, VolumeTotals{p.name, *t})
	}
	return list, nil
}

func (x *Comparison) one(ctx context.Context, p pair) (*Totals, error) {
	r := Request{Store: x.Store, Content: x.Content, Scan: true, Line: x.Line, From: Side{Manifest: x.From, Volume: p.from}}
	r.See = func(c *Change) error { return x.See(p.name, c) }
	if x.Live == nil {
		r.To = Side{Manifest: x.To, Volume: p.to}
		return Compare(ctx, r)
	}
	opened, err := x.Live.Open(p.live)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	if opened.Live != nil {
		r.To = Side{Live: opened.Live, Options: snapshot.WriteOptions(p.live)}
	}
	return Compare(ctx, r)
}

// pairs returns the volumes of both sides, those of the first in its order.
func (x *Comparison) pairs() ([]pair, error) {
	var list []pair
	for i := range x.From.Volumes {
		v := &x.From.Volumes[i]
		p := pair{name: v.Name, from: v}
		if x.Live != nil {
			if p.live = catalog.OwnVolume(x.Live.Workload, x.From, v); p.live == nil && x.Live.Excludes(v.Source) {
				x.Line(fmt.Sprintf("notice: volume %s is left out, because `exclude` in the config leaves it alone", remedy.Shown(v.Name)))
				continue
			}
		} else {
			p.to = x.To.Volume(v.Name, v.Scope, v.Source)
		}
		list = append(list, p)
	}
	if x.Live != nil {
		for i := range x.Live.Workload.Volumes {
			v := &x.Live.Workload.Volumes[i]
			if !slices.ContainsFunc(list, func(p pair) bool { return p.live == v }) {
				list = append(list, pair{name: v.Name, live: v})
			}
		}
	} else {
		for i := range x.To.Volumes {
			v := &x.To.Volumes[i]
			if !slices.ContainsFunc(list, func(p pair) bool { return p.to == v }) {
				list = append(list, pair{name: v.Name, to: v})
			}
		}
	}
	return x.chosen(list)
}

// chosen leaves out what was not asked for, and refuses what cannot be compared.
func (x *Comparison) chosen(list []pair) ([]pair, error) {
	var names []string
	for _, p := range list {
		names = append(names, fmt.Sprintf("%q", p.name))
	}
	for _, wanted := range x.Volumes {
		if !slices.ContainsFunc(list, func(p pair) bool { return p.is(wanted) }) {
			return nil, fault.New(fault.Usage, "no_such_volume", remedy.Remedy{}, "there is no volume %q to compare; there are %s", wanted, strings.Join(names, ", "))
		}
	}
	if len(x.Volumes) > 0 {
		list = slices.DeleteFunc(list, func(p pair) bool { return !slices.ContainsFunc(x.Volumes, p.is) })
	}
	for _, p := range list {
		if x.Live != nil && p.live == nil {
			return nil, fault.Refuse("volume_unresolved", remedy.Of("choose the others with --volume, or make the config's volumes match the snapshot's (`", remedy.Show(x.From.Workload, x.From.SID), "`)"),
				"the config of workload %s does not say where the live data of the snapshot's volume %q is", x.From.Workload, p.name)
		}
	}
	return list, nil
}
