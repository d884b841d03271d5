// Package check finds what of a host needs attention, for a monitoring program or a line
// of cron. It reads what is there, and changes nothing.
package check

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/restore"
	"github.com/tiny-forge/snap/pkg/store"
	"github.com/tiny-forge/snap/pkg/verify"
)

// Finding is one thing that needs attention.
type Finding struct {
	Workload string // "": of the host
	Code     string
	Text     string // "" where the remedy says what there is to say
	Remedy   remedy.Remedy
}

// check collects findings.
type check struct {
	*restore.Engine
	maxAge time.Duration
	now    time.Time
	list   []Finding
}

func (c *check) find(workload, code string, way remedy.Remedy, format string, args ...any) {
	c.list = append(c.list, Finding{workload, code, fmt.Sprintf(format, args...), way})
}

// Run looks for what needs attention, of one workload or, for "", of all: no recent
// snapshot, a capture that has failed, an operation that has not ended, an engine or a
// store that does not answer, damage that was found, room that runs out, data that has
// shrunk. It changes
// nothing. Snapshots older than maxAge are too old.
func Run(ctx context.Context, e *restore.Engine, name string, maxAge time.Duration) ([]Finding, error) {
	list, err := e.Status(ctx, name)
	if err != nil {
		return nil, err
	}
	c := &check{Engine: e, maxAge: maxAge, now: time.Now()}
	if e.Store == nil {
		c.find("", "no_store", remedy.Of("mount the filesystem of the store, or capture"), "%s", e.NoStoreReason())
	}
	added := int64(0)
	for i := range list {
		c.workload(&list[i])
		added += list[i].Growth
	}
	if e.Store != nil {
		if err := errors.Join(c.damage(ctx, name), c.room(added)); err != nil {
			return nil, fault.Classify(fault.Because(ctx, err))
		}
	}
	return c.list, nil
}

// damage tells of members that were found damaged and that nobody has stored anew since.
func (c *check) damage(ctx context.Context, name string) error {
	if c.Notes == nil {
		return nil
	}
	noted, err := c.Notes.Damaged(c.Store.ID())
	if err != nil || len(noted) == 0 {
		return err
	}
	var list []archive.Member
	for _, k := range noted {
		list = append(list, k.Member())
	}
	hit, err := verify.Hit(ctx, c.Store, list)
	count := map[string]int{}
	for _, p := range hit {
		count[p.Workload]++
	}
	for _, p := range hit { // of each workload the newest
		n := count[p.Workload]
		if count[p.Workload] = 0; n > 0 && (name == "" || name == p.Workload) {
			more := ""
			if n > 1 {
				more = fmt.Sprintf(", and %d more like it", n-1)
			}
			c.find(p.Workload, "damaged", remedy.Of(remedy.Repair(p.Workload, "")), "%s%s", p, more)
		}
	}
	return err
}

func (c *check) workload(st *restore.WorkloadStatus) {
	w := st.Workload
	for _, p := range st.Problems {
		if c.Store != nil || p.Text(func(remedy.Operation) string { return "" }) != c.NoStoreReason() { // it is one problem of the host
			c.list = append(c.list, Finding{Workload: w, Code: "problem", Remedy: p})
		}
	}
	switch p := st.Pending; {
	case p == nil || p.Active:
	case p.Frozen:
		c.find(w, "frozen", fault.SeeFrozen, "transaction %s is frozen: %s", p.Tx, p.Message)
	default:
		c.find(w, "pending", remedy.Of(remedy.Recover(w)), "transaction %s has not ended: %s", p.Tx, p.Message)
	}
	if st.LastError != "" {
		c.find(w, "capture_failed", remedy.Of("run the capture by hand: ", remedy.Capture(w)), "the capture of %s failed: %s", st.Failed.Local().Format(time.DateTime), st.LastError)
	}
	c.snapshots(st)
}

// snapshots looks at the two newest snapshots that no restore made. Their manifests are
// read to the end, where damage shows.
func (c *check) snapshots(st *restore.WorkloadStatus) {
	if c.Store == nil {
		return
	}
	w, list, bad := st.Workload, []*store.Summary{}, st.Unreadable
	for _, sum := range st.Nightly {
		if err := c.Store.Intact(sum); err != nil {
			bad = append(bad, err)
		} else {
			list = append(list, sum)
		}
	}
	for _, err := range bad {
		c.find(w, "damaged", remedy.Of(remedy.Verify(w)), "%v", err)
	}
	if len(list) == 0 && len(st.Nightly) > 0 {
		return // there may be older ones
	}
	if len(list) == 0 {
		c.find(w, "no_snapshot", remedy.Of(remedy.Capture(w)), "it has no snapshot yet")
		return
	}
	if age := c.now.Sub(list[0].Created); c.maxAge > 0 && age > c.maxAge {
		c.find(w, "too_old", remedy.Of(remedy.Capture(w)), "the last snapshot is %s old, of %s", Ago(age), list[0].Created.Local().Format(time.DateTime))
	}
	if len(list) == 2 {
		_, now, _ := list[0].Totals()
		_, before, _ := list[1].Totals()
		if before > 1<<20 && now < before/2 {
			c.find(w, "shrunk", remedy.Of("look whether the data is still there"), "snapshot %s holds %d bytes, and %s before it %d", list[0].SID, now, list[1].SID, before)
		}
	}
}

// room looks whether the store has room for three more captures of all.
func (c *check) room(added int64) error {
	const captures, least = 3, 64 << 20
	space, err := c.Store.Root().Space()
	if err != nil {
		return err
	}
	if need := uint64(max(captures*added, least)); space.Bytes < need {
		c.find("", "no_space", remedy.Of("free space there, or delete snapshots (", remedy.Operation{Verb: remedy.DoPrune}, ")"),
			"the filesystem of the store has %d bytes free, and three more captures may need %d", space.Bytes, need)
	}
	if space.Inodes < 10_000 {
		c.find("", "no_space", remedy.Of("remove files there"), "the filesystem of the store has %d inodes free", space.Inodes)
	}
	return nil
}

// Ago is a length of time in words, as long ones are said.
func Ago(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}
