package journal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// goldenTx is the transaction of the golden files.
const goldenTx = "20260102T030405Z-abcdef"

// records are one of each kind, as they are written for goldenTx.
func records(t testing.TB) map[string][]byte {
	t.Helper()
	b, r, tm := begin(), ready(), times()
	b.Tx, b.Workload, b.Created = goldenTx, "blog", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	r.Tx, tm.Tx = goldenTx, goldenTx
	out := map[string][]byte{}
	for name, c := range map[string]struct {
		doc    disk.Sealed
		format string
	}{
		"begin": {b, "snap-tx-begin"}, "ready": {r, "snap-tx-ready"}, "times": {tm, "snap-tx-times"},
		"commit":  {&journal.Decision{Tx: goldenTx, Decision: "commit"}, "snap-tx-decision"},
		"revert":  {&journal.Decision{Tx: goldenTx, Decision: "revert"}, "snap-tx-decision"},
		"resolve": {&journal.Resolution{Tx: goldenTx, Keep: journal.KeepOld, SID: "20260101T000000Z-000004"}, "snap-tx-resolve"},
	} {
		data, err := disk.MarshalSealed(c.doc, c.format, 1)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = data
	}
	return out
}

// What version 1 wrote, every later version must read: these files never
// change, and a new version adds its own beside them.
func TestRecordsOfVersion1AreWrittenAndReadAsEver(t *testing.T) {
	store := t.TempDir()
	j := journalAt(t, store)
	for name, data := range records(t) {
		golden := filepath.Join("testdata", name+".v1.json")
		if *update {
			if err := os.WriteFile(golden, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("%s is written as\n%s\nexpected\n%s", name, data, want)
		}
		disktest.Write(t, store, map[string]string{"tx/" + goldenTx + "/" + name: string(want)})
	}
	tx, err := j.Load(goldenTx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	want := begin()
	want.Seal, want.Tx, want.Workload, want.Created = tx.Begin.Seal, goldenTx, "blog", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	if !reflect.DeepEqual(tx.Begin, want) {
		t.Errorf("begin is read as\n%+v\nexpected\n%+v", tx.Begin, want)
	}
	if !reflect.DeepEqual(tx.ReadyRecord.Volumes, ready().Volumes) || !reflect.DeepEqual(tx.ReadyRecord.Pin, ready().Pin) || !reflect.DeepEqual(tx.TimesRecord.Live, times().Live) {
		t.Errorf("ready and times are read as %+v, %+v", tx.ReadyRecord, tx.TimesRecord)
	}
	if !tx.Committed || !tx.Reverted || tx.Resolved != journal.KeepOld {
		t.Error("the decisions are not read")
	}
}

// A guarding decision is of a restore that was not reverted, so it is in no set
// of the others.
func TestGuardingOfVersion1IsWrittenAndReadAsEver(t *testing.T) {
	guarding, err := disk.MarshalSealed(&journal.Decision{Tx: goldenTx, Decision: "guarding"}, "snap-tx-decision", 1)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "guarding.v1.json", guarding)
	state := t.TempDir()
	for _, name := range []string{"begin.v2.json", "ready.v1.json", "times.v1.json", "commit.v1.json", "guarding.v1.json"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		record, _, _ := strings.Cut(name, ".")
		disktest.Write(t, state, map[string]string{"tx/" + goldenTx + "/" + record: string(data)})
	}
	disktest.Write(t, state, map[string]string{"tx/" + goldenTx + "/revert.tmp": string(records(t)["revert"])})
	tx, err := journalAt(t, state).Load(goldenTx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if !tx.Guarding || tx.Found() != "guarding" {
		t.Errorf("it is read as %s", tx.Found())
	}
}

// golden compares data with a file of testdata, or writes that anew.
func golden(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("%s is written as\n%s\nexpected\n%s: %v", name, data, want, err)
	}
}

// goldenBegin is the begin of a restore as the golden files have it.
func goldenBegin() *journal.Begin {
	b := begin()
	b.Tx, b.Workload, b.Created = goldenTx, "blog", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	return b
}

// begun records a begin, and returns it as it is read again.
func begun(t *testing.T, b *journal.Begin) *journal.Begin {
	t.Helper()
	j := journalAt(t, t.TempDir())
	held, err := j.Lock("blog", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	tx, err := j.Begin(held, b)
	if err != nil {
		t.Fatal(err)
	}
	tx.Close()
	again, err := j.Load(tx.ID)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	return again.Begin
}

// Version 4 of begin has the config, and a volume that is one file. One with either is of
// that version: an older program would take the file for something that is not snap's.
func TestABeginWithItsConfigOrAFileIsOfVersion4(t *testing.T) {
	b := goldenBegin()
	b.Config, b.Volumes[1].File = "/etc/snap/snap.yaml", true
	data, err := disk.MarshalSealed(b, "snap-tx-begin", 4)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "begin.v4.json", data)
	if err := disk.UnmarshalSealed(data, &journal.Begin{}, "snap-tx-begin", 3); !errors.Is(err, disk.ErrTooNew) {
		t.Errorf("to an older program it is: %v", err)
	}
	file := begin()
	file.Volumes[1].File = true
	if got := begun(t, file); got.Version != 4 || got.Config != "" || !got.Volumes[1].File || got.Volumes[0].File {
		t.Errorf("with a file it is read as %+v", got)
	}
	if got := begun(t, &journal.Begin{Kind: journal.Capture, Config: b.Config}); got.Version != 4 || got.Config != b.Config {
		t.Errorf("with a config it is read as %+v", got)
	}
}

// A restore that has the engine make a volume records it in a begin of version 3; an
// older program would leave the volume behind.
func TestABeginWithAVolumeOfTheEngineIsOfVersion3(t *testing.T) {
	b := goldenBegin()
	b.Volumes[0].EngineVolume = "blog_db"
	data, err := disk.MarshalSealed(b, "snap-tx-begin", 3)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "begin.v3.json", data)
	if got := begun(t, &journal.Begin{Kind: journal.Restore, Volumes: b.Volumes}); got.Version != 3 || got.Volumes[0].EngineVolume != "blog_db" {
		t.Errorf("it is read as %+v", got)
	}
}

// Programs read the log: fields are added at most.
func TestAnAuditLineIsWrittenAsEver(t *testing.T) {
	t.Setenv("SUDO_USER", "ann")
	state := t.TempDir()
	whole := journal.Audit{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Verb: "recover", Workload: "blog", SID: "20260101T000000Z-000001", Tx: goldenTx,
		Action: "rolled_back", Result: "cleanup", Error: "a \"quoted\" <line>\nand another", Seconds: 1.25,
	}
	bare := journal.Audit{Time: whole.Time, Verb: "capture", Workload: "blog", Result: "ok"}
	j := journalAt(t, state)
	if err := errors.Join(j.Record(whole), j.Record(bare)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(state + "/audit.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "audit.jsonl", data)
}

// Version 2 of begin has what a restore with guard after needs; one without is
// written as version 1.
func TestABeginOfVersion2IsWrittenAndReadAsEver(t *testing.T) {
	b := begin()
	b.Tx, b.Workload, b.Created = goldenTx, "blog", time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	b.Guard, b.Volumes[1].Live = journal.GuardAfter, "ext4-1.1.aa"
	data, err := disk.MarshalSealed(b, "snap-tx-begin", 2)
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "begin.v2.json")
	if *update {
		if err := os.WriteFile(golden, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("begin is written as\n%s\nexpected\n%s (%v)", data, want, err)
	}

	for guard, version := range map[string]int{"": 1, journal.GuardAfter: 2} {
		store := t.TempDir()
		j := journalAt(t, store)
		held, err := j.Lock("blog", "restore")
		if err != nil {
			t.Fatal(err)
		}
		tx, err := j.Begin(held, &journal.Begin{Kind: journal.Restore, Guard: guard})
		if err != nil {
			t.Fatal(err)
		}
		tx.Close()
		again, err := j.Load(tx.ID)
		if err != nil {
			t.Fatal(err)
		}
		if again.Begin.Version != version || again.Begin.Guard != guard || again.Guarding {
			t.Errorf("guard %q is read as %+v, expected version %d", guard, again.Begin, version)
		}
		again.Close()
		held.Release()
	}
}

// Version 2 of ready, and 3 of begin, have containers that had crashed; those without are
// written as before.
func TestReadyAndBeginWithAContainerThatHadCrashed(t *testing.T) {
	r := ready()
	r.Tx = goldenTx
	r.Containers[0].Running, r.Containers[0].Crashed = false, true
	data, err := disk.MarshalSealed(r, "snap-tx-ready", 2)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "ready.v2.json", data)

	for _, crashed := range []bool{false, true} {
		j := journalAt(t, t.TempDir())
		held, err := j.Lock("blog", "restore")
		if err != nil {
			t.Fatal(err)
		}
		list := []runtime.Container{{ID: "1", Crashed: crashed}}
		tx, err := j.Begin(held, &journal.Begin{Kind: journal.Restore, Containers: list})
		if err != nil {
			t.Fatal(err)
		}
		if err := tx.Ready(&journal.Ready{Containers: list}); err != nil {
			t.Fatal(err)
		}
		tx.Close()
		again, err := j.Load(tx.ID)
		if err != nil {
			t.Fatal(err)
		}
		begin, ready := 1, 1
		if crashed {
			begin, ready = 3, 2
		}
		if again.Begin.Version != begin || again.ReadyRecord.Version != ready || again.ReadyRecord.Containers[0].Crashed != crashed {
			t.Errorf("crashed %t is read as %+v, %+v; expected versions %d and %d", crashed, again.Begin, again.ReadyRecord, begin, ready)
		}
		again.Close()
		held.Release()
	}
}

// Version 2 of times has what tells whether a staged tree is still as it was staged. One
// without is read as before; one that has it in part is damaged.
func TestTimesWithTheStagedTrees(t *testing.T) {
	whole := times()
	whole.Tx, whole.At = goldenTx, &journal.Time{Sec: 5, Nsec: 6}
	whole.Staged = []journal.Staged{{Time: journal.Time{Sec: 7, Nsec: 8}, Sum: "aa"}, {Sum: "bb"}}
	data, err := disk.MarshalSealed(whole, "snap-tx-times", 2)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "times.v2.json", data)

	part := map[string]func(r *journal.Times){
		"whole": func(*journal.Times) {}, "none": func(r *journal.Times) { r.At, r.Staged = nil, nil },
		"no time": func(r *journal.Times) { r.At = nil }, "no trees": func(r *journal.Times) { r.Staged = nil },
		"a tree too few": func(r *journal.Times) { r.Staged = r.Staged[:1] },
	}
	for name, spoil := range part {
		j := journalAt(t, t.TempDir())
		held, err := j.Lock("blog", "restore")
		if err != nil {
			t.Fatal(err)
		}
		tx, err := j.Begin(held, begin())
		if err != nil {
			t.Fatal(err)
		}
		r := *whole
		spoil(&r)
		if err := errors.Join(tx.Ready(ready()), tx.Times(&r), tx.Close()); err != nil {
			t.Fatal(err)
		}
		held.Release()
		again, err := j.Load(tx.ID)
		switch version := map[string]int{"whole": 2, "none": 1}[name]; {
		case version == 0 && !errors.Is(err, disk.ErrDamaged):
			t.Errorf("%s: it is read as %+v, %v", name, again, err)
		case version == 0:
		case err != nil || again.TimesRecord.Version != version || !reflect.DeepEqual(again.TimesRecord.Staged, r.Staged):
			t.Errorf("%s: it is read as %+v, %v", name, again, err)
		}
	}
}

func TestAGuardingTransactionIsFoundSo(t *testing.T) {
	store := t.TempDir()
	j := journalAt(t, store)
	held, err := j.Lock("blog", "restore")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	b := begin()
	b.Guard = journal.GuardAfter
	tx, err := j.Begin(held, b)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Close()
	if err := errors.Join(tx.Ready(ready()), tx.Times(times()), tx.Commit(), tx.Guard()); err != nil {
		t.Fatal(err)
	}
	again, err := j.Load(tx.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if !again.Committed || !again.Guarding || again.Found() != "guarding" {
		t.Errorf("found as %s: %+v", again.Found(), again)
	}
}

func reseal(data []byte) []byte {
	const prefix = `"checksum": "sha256:`
	data = bytes.Clone(data)
	at := bytes.Index(data, []byte(prefix)) + len(prefix)
	copy(data[at:], strings.Repeat("0", 64))
	sum := sha256.Sum256(data)
	hex.Encode(data[at:], sum[:])
	return data
}

// damage → what Load says. Whatever it is, it is no transaction that stands at
// an earlier step: a recovery would then move data the wrong way.
func TestDamageToTheRecordsIsNeverTakenForAnEarlierStep(t *testing.T) {
	forged := func(name, old, new string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			data := records(t)[name]
			if !bytes.Contains(data, []byte(old)) {
				t.Fatalf("%q is not in %s", old, name)
			}
			disktest.Write(t, dir, map[string]string{name: string(reseal(bytes.Replace(data, []byte(old), []byte(new), 1)))})
		}
	}
	remove := func(names ...string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	decision := func(word string) []byte {
		data, err := disk.MarshalSealed(&journal.Decision{Tx: goldenTx, Decision: word}, "snap-tx-decision", 1)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	// waiting leaves a decision under the name that it has before it is taken.
	waiting := func(name string, damage func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			damage(t, dir)
			text := string(records(t)[name])
			if text == "" {
				text = string(decision(name))
			}
			disktest.Write(t, dir, map[string]string{name + ".tmp": text})
		}
	}
	instead := func(name string, make func(path string) error) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			remove(name)(t, dir)
			if err := make(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	forgedAs := func(name, word string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			disktest.Write(t, dir, map[string]string{name: string(decision(word))})
		}
	}
	decided := func(name string) func(*testing.T, string) { return forgedAs(name, name) }
	// guardedAfter makes it a restore with guard after, and then does the damage.
	guardedAfter := func(damage ...func(*testing.T, string)) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			b := begin()
			b.Tx, b.Workload, b.Guard = goldenTx, "blog", journal.GuardAfter
			data, err := disk.MarshalSealed(b, "snap-tx-begin", 2)
			if err != nil {
				t.Fatal(err)
			}
			disktest.Write(t, dir, map[string]string{"begin": string(data)})
			for _, do := range damage {
				do(t, dir)
			}
		}
	}
	mkdir := func(path string) error { return os.Mkdir(path, 0o700) }
	fifo := func(path string) error { return unix.Mkfifo(path, 0o600) }
	link := func(path string) error { return os.Symlink("begin", path) }
	dangling := func(path string) error { return os.Symlink("gone", path) }
	type damage struct {
		name string
		do   func(t *testing.T, dir string)
		want error // nil for any error but the absence of the transaction
	}
	list := []damage{
		{"begin is missing", remove("begin"), disk.ErrDamaged},
		{"all is missing", remove("begin", "ready", "times", "commit", "revert", "resolve"), disk.ErrDamaged},
		{"commit without ready", waiting("revert", remove("ready", "times", "revert", "resolve")), disk.ErrDamaged},
		{"commit without times", remove("times"), disk.ErrDamaged},
		{"times without ready", waiting("commit", waiting("revert", remove("ready", "commit", "revert", "resolve"))), disk.ErrDamaged},
		{"resolve without ready", waiting("commit", waiting("revert", remove("ready", "times", "commit", "revert"))), disk.ErrDamaged},
		{"revert without commit", waiting("commit", remove("commit")), disk.ErrDamaged},
		{"commit is gone under both names", waiting("revert", remove("commit", "revert", "resolve")), disk.ErrDamaged},
		{"revert is gone under both names", remove("revert"), disk.ErrDamaged},
		{"commit is there under both names", waiting("commit", remove()), disk.ErrDamaged},
		{"revert is there under both names", waiting("revert", remove()), disk.ErrDamaged},
		{"resolve names no snapshot", forged("resolve", `"sid": "20260101T000000Z-000004"`, `"sid": ""`), disk.ErrDamaged},
		{"resolve says neither", forged("resolve", `"keep": "old"`, `"keep": "both"`), disk.ErrDamaged},
		{"commit says revert", forged("commit", `"decision": "commit"`, `"decision": "revert"`), disk.ErrDamaged},
		{"revert says commit", forged("revert", `"decision": "revert"`, `"decision": "commit"`), disk.ErrDamaged},
		{"it guards as nobody does", forged("begin", `"kind": "restore",`, `"guard": "before", "kind": "restore",`), disk.ErrDamaged},
		{"a capture that guards", forged("begin", `"kind": "restore",`, `"guard": "after", "kind": "capture",`), disk.ErrDamaged},
		{"guarding is gone under both names", guardedAfter(remove("revert"), waiting("revert", remove())), disk.ErrDamaged},
		{"guarding is there under both names", guardedAfter(remove("revert"), waiting("revert", remove()), waiting("guarding", decided("guarding"))), disk.ErrDamaged},
		{"guarding with revert", guardedAfter(decided("guarding")), disk.ErrDamaged},
		{"guarding without commit", guardedAfter(remove("revert", "commit"), waiting("revert", remove()), waiting("commit", remove()), decided("guarding")), disk.ErrDamaged},
		{"guarding says commit", guardedAfter(remove("revert"), waiting("revert", remove()), decided("guarding"), forgedAs("guarding", "commit")), disk.ErrDamaged},
		{"an unknown kind", forged("begin", `"kind": "restore"`, `"kind": "delete"`), disk.ErrDamaged},
		{"a volume without a root", forged("begin", `"root": "/srv/apps"`, `"root": ""`), disk.ErrDamaged},
		{"a volume without a place", forged("begin", `"rel": "b"`, `"rel": ""`), disk.ErrDamaged},
		{"handles that are the same", forged("ready", "ext4-1.1.bb", "ext4-1.1.aa"), disk.ErrDamaged},
		{"no handle", forged("ready", "ext4-1.1.bb", ""), disk.ErrDamaged},
		{"fewer volumes than begin has", forged("ready", `{
      "live": "ext4-1.1.aa",
      "staged": "ext4-1.1.bb"
    },`, ``), disk.ErrDamaged},
		{"fewer times than begin has volumes", forged("times", `{
      "sec": 1,
      "nsec": 2
    },`, ``), disk.ErrDamaged},
		{"begin of a capture in a ready", func(t *testing.T, dir string) {
			disktest.Write(t, dir, map[string]string{"ready": string(records(t)["begin"])})
		}, disk.ErrDamaged},
	}
	for name := range records(t) {
		list = append(list,
			damage{name + " is empty", func(t *testing.T, dir string) { disktest.Write(t, dir, map[string]string{name: ""}) }, disk.ErrDamaged},
			damage{name + " is cut", func(t *testing.T, dir string) {
				disktest.Write(t, dir, map[string]string{name: string(records(t)[name][:100])})
			}, disk.ErrDamaged},
			damage{name + " is zeros", func(t *testing.T, dir string) {
				disktest.Write(t, dir, map[string]string{name: string(make([]byte, len(records(t)[name])))})
			}, disk.ErrDamaged},
			damage{name + " has a flipped bit", func(t *testing.T, dir string) {
				data := bytes.Clone(records(t)[name])
				data[len(data)-10] ^= 1
				disktest.Write(t, dir, map[string]string{name: string(data)})
			}, disk.ErrDamaged},
			damage{name + " is newer", forged(name, `"version": 1`, `"version": 5`), disk.ErrTooNew},
			damage{name + " is of another transaction", forged(name, goldenTx, "20260102T030405Z-000000"), disk.ErrDamaged},
			damage{name + " has an unknown field", forged(name, `"tx":`, `"new": 1, "tx":`), disk.ErrDamaged},
			damage{name + " is a directory", instead(name, mkdir), nil},
			damage{name + " is a fifo", instead(name, fifo), nil},
			damage{name + " is a symlink", instead(name, link), nil},
			damage{name + " is a symlink to nothing", instead(name, dangling), nil},
			damage{name + " is too large", func(t *testing.T, dir string) {
				if err := os.Truncate(filepath.Join(dir, name), 17<<20); err != nil {
					t.Fatal(err)
				}
			}, nil},
		)
	}
	memory := disktest.Tmpfs(t) // Load syncs what it reads
	for i, d := range list {
		t.Run(d.name, func(t *testing.T) {
			store := filepath.Join(memory, fmt.Sprint(i))
			disktest.Write(t, store, map[string]string{"tx/": ""})
			j := journalAt(t, store)
			for name, data := range records(t) {
				disktest.Write(t, store, map[string]string{"tx/" + goldenTx + "/" + name: string(data)})
			}
			dir := filepath.Join(store, "tx", goldenTx)
			d.do(t, dir)
			before := disktest.Tree(t, store)
			tx, err := j.Load(goldenTx)
			if err == nil {
				t.Fatalf("loaded as %s", tx.Found())
			}
			if d.want != nil && !errors.Is(err, d.want) || errors.Is(err, disk.ErrDamaged) && errors.Is(err, disk.ErrTooNew) || errors.Is(err, os.ErrNotExist) {
				t.Errorf("the answer is %v, expected %v", err, d.want)
			}
			disktest.Same(t, "the records", before, disktest.Tree(t, store))
		})
	}
}

// A failing read is no absence: each system call of Load that fails makes Load
// fail, and none makes it find less.
func TestALoadThatCannotReadDoesNotFindLess(t *testing.T) {
	store := t.TempDir()
	tx := transaction(t, store, "ready times commit")
	failed := 0
	for call, most := range map[string]int{"openat2": 14, "fsync": 9, "read": 14} {
		for n := 1; n <= most; n++ {
			out, err := traced(t, call, n, another(store, "load", tx.ID))
			if err == nil && !strings.Contains(out, "commit") {
				t.Fatalf("%s %d failed, and the transaction was found as %q", call, n, out)
			}
			if err != nil {
				failed++
			}
		}
	}
	if failed < 10 {
		t.Errorf("only %d loads failed: the test shows nothing", failed)
	}
}

func TestTheAuditLogIsAppendedLineByLine(t *testing.T) {
	dir := t.TempDir()
	j := journalAt(t, dir)
	for i := range 3 {
		if err := j.Record(journal.Audit{Verb: "capture", Workload: fmt.Sprint("w", i), Result: "a\nb", Error: "\x1b[2J"}); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(dir + "/audit.jsonl")
	if err != nil || strings.Count(string(data), "\n") != 3 || strings.Contains(string(data), "\x1b") {
		t.Errorf("the log is %q: %v", data, err)
	}
	if err := os.Remove(dir + "/audit.jsonl"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", dir+"/audit.jsonl"); err != nil {
		t.Fatal(err)
	}
	if err := j.Record(journal.Audit{}); err == nil {
		t.Error("the log was written through a symlink")
	}
}
