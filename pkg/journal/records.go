package journal

import (
	"fmt"
	"slices"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// The formats of the records, and the newest version of each that this
// program writes and reads.
const (
	beginFormat    = "snap-tx-begin"
	readyFormat    = "snap-tx-ready"
	timesFormat    = "snap-tx-times"
	decisionFormat = "snap-tx-decision"
	resolveFormat  = "snap-tx-resolve"
	recordVersion  = 1
	// beginVersion, readyVersion and timesVersion are the newest of a begin, a ready and
	// a times. Each is written in the oldest version that has fields for it.
	beginVersion = 4
	readyVersion = 2
	timesVersion = 2
)

// Kind is what a transaction is for.
type Kind string

const (
	Restore Kind = "restore"
	Capture Kind = "capture"
	Import  Kind = "import"
	Deploy  Kind = "deploy"
	Probe   Kind = "probe" // a pre-flight that tries an exchange, or the tree of an import
)

// Begin is the first record: what the operation is about to do, and under which
// names it may leave something.
type Begin struct {
	disk.Seal
	Tx       string    `json:"tx"`
	Kind     Kind      `json:"kind"`
	Workload string    `json:"workload"`
	Created  time.Time `json:"created"`
	Snap     string    `json:"snap"` // the program's version

	// Config is the path of the config that has the workload, without symbolic links.
	// Several configs of a host may use one state. Version 4.
	Config string `json:"config,omitempty"`

	SID           string   `json:"sid,omitempty"`             // what a capture or an import makes, or a restore puts back
	PreRestoreSID string   `json:"pre_restore_sid,omitempty"` // what a restore makes first
	RevertSID     string   `json:"revert_sid,omitempty"`      // of the new data, when a committed restore is taken back
	Volumes       []Volume `json:"volumes,omitempty"`

	// Quiesce and Containers tell a recovery whom a capture or a deploy may
	// have paused or stopped. A restore records its containers as Ready.
	Quiesce    string              `json:"quiesce,omitempty"`
	Containers []runtime.Container `json:"containers,omitempty"`

	// Guard says when a restore makes the pre-restore snapshot: "" before the
	// exchange, GuardAfter after the commit, of the displaced trees. Version 2.
	Guard string `json:"guard,omitempty"`

	// What the operator asked of a restore; its recovery keeps to it.
	OnUnhealthy   string        `json:"on_unhealthy,omitempty"`
	HealthTimeout time.Duration `json:"health_timeout_ns,omitempty"`
	StopTimeout   time.Duration `json:"stop_timeout_ns,omitempty"`
}

// Paths are the directories that the operation touches, and those that its containers
// mount.
func (b *Begin) Paths() []string {
	list := b.Live()
	for _, c := range b.Containers {
		for _, m := range c.Mounts {
			list = append(list, m.Source)
		}
	}
	return list
}

// Live are the live directories that the operation names.
func (b *Begin) Live() (list []string) {
	for _, v := range b.Volumes {
		list = append(list, v.Root+"/"+v.Rel)
	}
	return list
}

// GuardAfter is the value of [Begin.Guard] that is recorded.
const GuardAfter = "after"

// Volume is where one volume's live directory or file is (Root/Rel), and its staged one
// (Entry inside the wrapper beside the live one).
type Volume struct {
	Name  string `json:"name"`
	Root  string `json:"root"`
	Rel   string `json:"rel"`
	Entry string `json:"entry"`
	// Created are the directories, below Root, that the restore makes, the live one
	// last. A roll-back removes them again while they are empty.
	Created []string `json:"created,omitempty"`
	// Anchor is the nearest directory above the live one that existed, below
	// Root. If another directory stands there now, a filesystem is not mounted,
	// and what the transaction left cannot be seen.
	Anchor       string      `json:"anchor,omitempty"`
	AnchorHandle disk.Handle `json:"anchor_handle,omitempty"`
	// Live is the handle of the live directory, if there is one and Guard is
	// GuardAfter. If the later records are lost, only this handle tells that the
	// wrapper holds the old data, which is not in any snapshot yet. Version 2.
	Live disk.Handle `json:"live,omitempty"`
	// EngineVolume is the name of the volume that the restore has the engine make,
	// because it does not exist. A roll-back has the engine remove it again while
	// it is empty. Version 3.
	EngineVolume string `json:"engine_volume,omitempty"`
	// File says that the volume is one file: what is live, staged and displaced is a
	// regular file, and the last of Created an empty one. In the wrapper it lies, under
	// its own name, in the directory Entry. Version 4.
	File bool `json:"file,omitempty"`
}

// Wrapper returns the name of the directory in which a transaction stages a tree.
func Wrapper(tx string) string { return ".snap-" + tx }

// Ready is the second record of a restore: everything is staged, verified and
// on disk.
type Ready struct {
	disk.Seal
	Tx         string                 `json:"tx"`
	Volumes    []ReadyVolume          `json:"volumes"`
	Containers []runtime.Container    `json:"containers,omitempty"`
	Pin        map[string]runtime.Pin `json:"pin,omitempty"` // service → image; "" for an image workload
}

// ReadyVolume are the handles of a volume's two directories or files, in the order of
// Begin's volumes.
type ReadyVolume struct {
	Live   disk.Handle `json:"live"`
	Staged disk.Handle `json:"staged"`
}

// Times are the modification times of the live directories themselves, before the
// first exchange. XFS changes them when it exchanges directories of two parents
// (xfs_cross_rename).
type Times struct {
	disk.Seal
	Tx   string `json:"tx"`
	Live []Time `json:"live"` // in the order of Begin's volumes

	// At is the time before the first exchange, by the clock that stamps files, and
	// Staged are the staged trees then. They tell whether a staged tree that was live is
	// still as it was staged. Version 2.
	At     *Time    `json:"at,omitempty"`
	Staged []Staged `json:"staged,omitempty"` // in the order of Begin's volumes
}

// Time is a modification time as the kernel keeps it.
type Time struct {
	Sec  int64 `json:"sec"`
	Nsec int64 `json:"nsec"`
}

// Staged is a staged tree before the exchange: the modification time of its root, and a
// checksum of what stat(2) showed of everything in it.
type Staged struct {
	Time
	Sum string `json:"sum"`
}

// Decision is the record that a transaction was committed, or reverted after
// that, or that nothing of it remains but to guard (see [Tx.Guard]).
type Decision struct {
	disk.Seal
	Tx       string `json:"tx"`
	Decision string `json:"decision"`
}

const (
	commit   = "commit"
	revert   = "revert"
	guarding = "guarding"
)

// decisions returns those that may have to be taken about a transaction.
func (b *Begin) decisions() []string {
	switch {
	case b.Kind != Restore:
		return nil
	case b.Guard == GuardAfter:
		return []string{commit, revert, guarding}
	}
	return []string{commit, revert}
}

func (b *Begin) version() int {
	switch {
	case b.Config != "", slices.ContainsFunc(b.Volumes, func(v Volume) bool { return v.File }):
		return beginVersion
	case anyCrashed(b.Containers) || slices.ContainsFunc(b.Volumes, func(v Volume) bool { return v.EngineVolume != "" }):
		return 3
	case b.Guard != "" || slices.ContainsFunc(b.Volumes, func(v Volume) bool { return v.Live != "" }):
		return 2
	}
	return recordVersion
}

func (r *Ready) version() int {
	if anyCrashed(r.Containers) {
		return readyVersion
	}
	return recordVersion
}

func (t *Times) version() int {
	if t.Staged != nil {
		return timesVersion
	}
	return recordVersion
}

func anyCrashed(list []runtime.Container) bool {
	return slices.ContainsFunc(list, func(c runtime.Container) bool { return c.Crashed })
}

// Resolution is the record of what the operator decided about a frozen restore:
// which directories of its ready record are to be live. It stands above the
// decisions.
type Resolution struct {
	disk.Seal
	Tx   string `json:"tx"`
	Keep string `json:"keep"`
	SID  string `json:"sid"` // the snapshot of what is not kept, made before that is deleted
}

// What an operator can decide.
const (
	KeepOld = "old"
	KeepNew = "new"
)

func (r *Resolution) validate(tx string) error {
	if r.Tx != tx || r.Keep != KeepOld && r.Keep != KeepNew || !disk.ValidID(r.SID) {
		return fmt.Errorf("%w: it says to keep %q of transaction %q, and %q as a snapshot", disk.ErrDamaged, r.Keep, r.Tx, r.SID)
	}
	return nil
}

func (d *Decision) validate(tx, decision string) error {
	if d.Tx != tx || d.Decision != decision {
		return fmt.Errorf("%w: it says %q of transaction %q", disk.ErrDamaged, d.Decision, d.Tx)
	}
	return nil
}

func (t *Times) validate(b *Begin) error {
	if t.Tx != b.Tx || len(t.Live) != len(b.Volumes) {
		return fmt.Errorf("%w: it is not of this transaction", disk.ErrDamaged)
	}
	if (t.At == nil) != (t.Staged == nil) || t.Staged != nil && len(t.Staged) != len(b.Volumes) {
		return fmt.Errorf("%w: it has %d staged trees, begin has %d volumes", disk.ErrDamaged, len(t.Staged), len(b.Volumes))
	}
	return nil
}

func (b *Begin) validate(tx string) error {
	if b.Tx != tx {
		return fmt.Errorf("%w: it names transaction %q", disk.ErrDamaged, b.Tx)
	}
	switch b.Kind {
	case Restore, Capture, Import, Deploy, Probe:
	default:
		return fmt.Errorf("%w: unknown kind %q", disk.ErrDamaged, b.Kind)
	}
	if b.Guard != "" && (b.Guard != GuardAfter || b.Kind != Restore) {
		return fmt.Errorf("%w: a %s cannot guard %q", disk.ErrDamaged, b.Kind, b.Guard)
	}
	for _, v := range b.Volumes {
		if v.Root == "" || v.Rel == "" || v.Entry == "" {
			return fmt.Errorf("%w: volume %q has no place", disk.ErrDamaged, v.Name)
		}
	}
	return nil
}

func (r *Ready) validate(b *Begin) error {
	if r.Tx != b.Tx {
		return fmt.Errorf("%w: it names transaction %q", disk.ErrDamaged, r.Tx)
	}
	if len(r.Volumes) != len(b.Volumes) {
		return fmt.Errorf("%w: it has %d volumes, begin has %d", disk.ErrDamaged, len(r.Volumes), len(b.Volumes))
	}
	for i, v := range r.Volumes {
		if v.Live == "" || v.Staged == "" || v.Live == v.Staged {
			return fmt.Errorf("%w: the handles of volume %d cannot be told apart", disk.ErrDamaged, i)
		}
	}
	return nil
}
