package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/keep"
	"github.com/tiny-forge/snap/pkg/store"
)

// Problem is what is damaged of one snapshot, or of one volume of it.
type Problem struct {
	Workload string   `json:"workload"`
	SID      string   `json:"sid"`
	Volume   string   `json:"volume"` // "": the snapshot as a whole
	What     string   `json:"what"`
	Paths    []string `json:"paths"` // the first files that are hit, as far as that can be told
	More     int      `json:"more"`  // how many others are hit
	past     bool
}

// Count is a number of things, in words.
func Count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

// shown is how many paths a problem names.
const shown = 5

func (p Problem) String() string {
	text := fmt.Sprintf("snapshot %s of %s", p.SID, p.Workload)
	if p.Volume != "" {
		text += ", volume " + p.Volume
	}
	text += ": " + p.What
	if len(p.Paths) > 0 {
		quoted := make([]string, len(p.Paths))
		for i, path := range p.Paths {
			quoted[i] = fmt.Sprintf("%q", path)
		}
		hits := "; it hits "
		if p.past {
			hits = "; it hit "
		}
		text += hits + strings.Join(quoted, ", ")
	}
	if p.More > 0 {
		text += fmt.Sprintf(" and %d more", p.More)
	}
	return text
}

// Hit returns the snapshots of a store that name one of these members.
func Hit(ctx context.Context, st *store.Store, list []archive.Member) ([]Problem, error) {
	names, err := st.Workloads()
	if err != nil {
		return nil, err
	}
	v := &verification{store: st}
	hit := map[store.MemberKey]bad{}
	for _, m := range list {
		hit[store.KeyOf(m)] = damaged
	}
	var found []Problem
	for _, name := range names {
		for m, err := range st.All(name) {
			switch {
			case ctx.Err() != nil:
				return found, context.Cause(ctx)
			case err != nil: // its manifest is another matter
			default:
				found = append(found, v.tell(m, hit)...)
			}
		}
	}
	return found, nil
}

// tell returns the problems of a snapshot some of whose members are bad.
func (v *verification) tell(m *store.Manifest, which map[store.MemberKey]bad) (found []Problem) {
	for i := range m.Volumes {
		vol := &m.Volumes[i]
		at := map[int]bool{}
		kinds := map[bad]int{}
		for n, member := range vol.Members {
			if why := which[store.KeyOf(member)]; why != "" {
				at[n] = true
				kinds[why]++
			}
		}
		if len(at) == 0 {
			continue
		}
		p := Problem{Workload: m.Workload, SID: m.SID, Volume: vol.Name, Paths: []string{}}
		for _, why := range []bad{missing, damaged, replaced, wasMissing, wasDamaged} {
			if n := kinds[why]; n > 0 {
				p.past = why == wasMissing || why == wasDamaged
				p.What = strings.TrimPrefix(p.What+" and "+fmt.Sprintf("%d of its %d members %s", n, len(vol.Members), why), " and ")
			}
		}
		v.find(m, &p, at)
		found = append(found, p)
	}
	return found
}

// find names the files that lie in the members of these numbers, where there is an index
// that tells.
func (v *verification) find(m *store.Manifest, p *Problem, at map[int]bool) {
	index, err := v.store.OpenPlaces(m)
	if err != nil {
		return
	}
	defer index.Close()
	if _, err := index.Find(p.Volume); err != nil {
		return
	}
	for line, err := index.Next(); err == nil; line, err = index.Next() {
		switch {
		case !hit(line, at):
		case len(p.Paths) < shown:
			p.Paths = append(p.Paths, line.Name)
		default:
			p.More++
		}
	}
}

func hit(line *archive.Line, at map[int]bool) bool {
	for n := line.Member; n <= line.Member+line.Span; n++ {
		if at[n] {
			return true
		}
	}
	return false
}

// readIndex reads an index to its end. Where the manifest does not mean one, none need be
// there.
func (v *verification) readIndex(m *store.Manifest) error {
	index, err := v.store.OpenPlaces(m)
	if errors.Is(err, fs.ErrNotExist) && m.Index == "" {
		return nil
	}
	if err != nil {
		return err
	}
	defer index.Close()
	return index.Rest()
}

// readKept reads what the snapshot keeps of the config.
func (v *verification) readKept(m *store.Manifest) error {
	data, err := v.store.Kept(m)
	if err == nil && data != nil {
		_, err = keep.Read(data)
	}
	if errors.Is(err, disk.ErrTooNew) { // it is whole
		return nil
	}
	return err
}
