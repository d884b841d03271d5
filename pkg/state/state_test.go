package state_test

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/journal"
	"github.com/tiny-forge/snap/pkg/state"
	"github.com/tiny-forge/snap/pkg/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

func stateAt(t testing.TB, path string) *state.State {
	t.Helper()
	s, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// open opens the store as one command does, and closes all of it again. It
// returns the store's identity.
func open(t testing.TB, host, path string, create bool) (string, error) {
	t.Helper()
	s, err := state.Open(host)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := s.Store(path, create)
	if err != nil {
		return "", err
	}
	return st.ID(), st.Close()
}

// What version 1 wrote, every later version must read.
func TestStoresOfVersion1AreWrittenAndReadAsEver(t *testing.T) {
	list := &state.Stores{Stores: []state.Seen{{Path: "/var/lib/snap/store", ID: "20260102T030405Z-abcdef"}, {Path: "/mnt/backup/snap", ID: "20260102T030405Z-000001"}}}
	data, err := disk.MarshalSealed(list, "snap-stores", 1)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("testdata/stores.v1.json", data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/stores.v1.json")
	if err != nil || !bytes.Equal(data, want) {
		t.Errorf("it is written as\n%s\nexpected\n%s: %v", data, want, err)
	}
	host := t.TempDir()
	disktest.Write(t, host, map[string]string{"stores.json": string(want)})
	var missing *store.Missing
	if _, err := open(t, host, "/mnt/backup/snap", true); !errors.As(err, &missing) || missing.Path != "/mnt/backup/snap" {
		t.Errorf("a store that is listed and not there: %v", err)
	}
	if _, err := os.Lstat("/mnt/backup"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

func TestOnlyAPathThatWasNeverSeenGetsAStore(t *testing.T) {
	host, path := t.TempDir(), filepath.Join(t.TempDir(), "a/store")
	if _, err := open(t, host, path, false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a look where nothing is: %v", err)
	}
	if _, err := os.Lstat(filepath.Dir(path)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a look has made something: %v", err)
	}
	id, err := open(t, host, path, true)
	if err != nil || !disk.ValidID(id) {
		t.Fatalf("a new store is %q: %v", id, err)
	}
	for _, create := range []bool{false, true} {
		if again, err := open(t, host, path, create); err != nil || again != id {
			t.Errorf("opened again it is %q, was %q: %v", again, id, err)
		}
	}
}

// damage at the store's path → what is refused, and stays as it is.
func TestAStoreThatWasSeenIsNotReplaced(t *testing.T) {
	aside := func(t *testing.T, path string) {
		if err := os.Rename(path, path+".away"); err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(t *testing.T, path string){
		"nothing is there": aside,
		"an empty directory": func(t *testing.T, path string) {
			aside(t, path)
			disktest.Write(t, path, map[string]string{"lost+found/": ""})
		},
		"another store": func(t *testing.T, path string) { aside(t, path); _, _ = open(t, t.TempDir(), path, true) },
		"a store of before": func(t *testing.T, path string) {
			aside(t, path)
			disktest.Write(t, path, map[string]string{"members/": ""})
		},
		"its identity is taken away": func(t *testing.T, path string) { _ = os.Remove(path + "/store.json") },
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			host, parent := t.TempDir(), t.TempDir()
			path := filepath.Join(parent, "store")
			id, err := open(t, host, path, true)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, path)
			_ = unix.Chmod(path, 0o700)
			before := disktest.Tree(t, parent)
			for _, create := range []bool{true, false} {
				var missing *store.Missing
				if _, err := open(t, host, path, create); !errors.As(err, &missing) || missing.Path != path || !strings.Contains(missing.Hint(), "is its filesystem mounted?") {
					t.Errorf("create %v: the answer is %v", create, err)
				}
			}
			names := func(lines []string) (out []string) { // opening completes the folders of a store
				for _, line := range lines {
					if !strings.Contains(line, "snapshots") && !strings.Contains(line, `"store" `) {
						out = append(out, line)
					}
				}
				return out
			}
			disktest.Same(t, "what is there", names(before), names(disktest.Tree(t, parent)))
			if _, err := os.Lstat(path + ".away"); err == nil {
				_ = os.RemoveAll(path)
				if err := os.Rename(path+".away", path); err != nil {
					t.Fatal(err)
				}
				if again, err := open(t, host, path, false); err != nil || again != id {
					t.Errorf("with the store back it is %q: %v", again, err)
				}
			}
		})
	}
}

func TestAStoreOfAnEarlierVersionGetsAnIdentityAndIsRemembered(t *testing.T) {
	host, path := t.TempDir(), t.TempDir()
	disktest.Write(t, path, map[string]string{"members/": "", "snapshots/blog/": ""})
	if id, err := open(t, host, path, false); err != nil || id != "" {
		t.Errorf("a look has given it the identity %q: %v", id, err)
	}
	id, err := open(t, host, path, true)
	if err != nil || id == "" {
		t.Fatalf("its identity is %q: %v", id, err)
	}
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	var missing *store.Missing
	if _, err := open(t, host, path, true); !errors.As(err, &missing) {
		t.Errorf("taken away: %v", err)
	}
}

func TestTheDefaultStoreOfAnEarlierVersionIsNotOverlooked(t *testing.T) {
	host := t.TempDir()
	disktest.Write(t, host, map[string]string{"members/": "", "snapshots/blog/": "", "tx/": "", "lock/": ""})
	for _, create := range []bool{true, false} {
		var missing *store.Missing
		if _, err := open(t, host, host+"/store", create); !errors.As(err, &missing) || !strings.Contains(missing.Reason, "earlier version") {
			t.Errorf("create %v: the answer is %v", create, err)
		}
	}
	if id, err := open(t, host, host, true); err != nil || id == "" {
		t.Errorf("as store and state in one: %q, %v", id, err)
	}
	if id, err := open(t, host, t.TempDir()+"/store", true); err != nil || id == "" {
		t.Errorf("a store elsewhere: %q, %v", id, err)
	}
}

func TestTheListOfStoresIsNotBelievedWhenItIsDamaged(t *testing.T) {
	golden, err := os.ReadFile("testdata/stores.v1.json")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"empty": {nil, disk.ErrDamaged}, "cut": {golden[:50], disk.ErrDamaged}, "flipped": {bytes.Replace(golden, []byte("backup"), []byte("bbckup"), 1), disk.ErrDamaged},
	} {
		host, path := t.TempDir(), t.TempDir()+"/store"
		disktest.Write(t, host, map[string]string{"stores.json": string(c.data)})
		if _, err := open(t, host, path, true); !errors.Is(err, c.want) {
			t.Errorf("%s: the answer is %v", name, err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s: a store was made", name)
		}
	}
	for name, c := range map[string]struct {
		list    state.Stores
		version int
		want    error
	}{
		"newer":        {state.Stores{}, 2, disk.ErrTooNew},
		"a path twice": {state.Stores{Stores: []state.Seen{{Path: "/a", ID: "20260102T030405Z-abcdef"}, {Path: "/a", ID: "20260102T030405Z-abcde0"}}}, 1, disk.ErrDamaged},
		"no id":        {state.Stores{Stores: []state.Seen{{Path: "/a"}}}, 1, disk.ErrDamaged},
		"relative":     {state.Stores{Stores: []state.Seen{{Path: "a", ID: "20260102T030405Z-abcdef"}}}, 1, disk.ErrDamaged},
	} {
		data, err := disk.MarshalSealed(&c.list, "snap-stores", c.version)
		if err != nil {
			t.Fatal(err)
		}
		host := t.TempDir()
		disktest.Write(t, host, map[string]string{"stores.json": string(data)})
		if _, err := open(t, host, "/a", false); !errors.Is(err, c.want) {
			t.Errorf("%s: the answer is %v", name, err)
		}
	}
}

func TestAStateIsTheUsersAlone(t *testing.T) {
	disktest.NeedRoot(t)
	for want, make := range map[string]func(path string) error{
		"others may write it": func(path string) error {
			return errors.Join(os.WriteFile(path+"/x", nil, 0o600), unix.Chmod(path, 0o777))
		},
		"user 1000": func(path string) error { return os.Chown(path, 1000, 0) },
		"reboot":    func(path string) error { return unix.Mount("tmpfs", path, "tmpfs", 0, "") },
	} {
		path := t.TempDir()
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		var u *disk.Unusable
		if s, err := state.Open(path); !errors.As(err, &u) || u.What != "state" || !strings.Contains(u.Reason, want) || u.Hint == "" {
			t.Errorf("the answer is %v; expected one that says %q", err, want)
			_ = s
		}
		_ = unix.Unmount(path, 0)
	}
	path := t.TempDir() + "/a/b"
	stateAt(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("a new one has mode %v: %v", info.Mode(), err)
	}
}

// A transaction that an earlier version left in the store is of the journal, is
// ended where it lies, and its process would keep others out.
func TestATransactionInTheStoreIsAdopted(t *testing.T) {
	const tx = "20260102T030405Z-abcdef"
	host, path := t.TempDir(), t.TempDir()
	disktest.Write(t, path, map[string]string{"members/": "", "snapshots/": "", "lock/": "", "tx/.done-20260102T030405Z-000001/begin": "", "tx/stranger/": ""})
	records, err := filepath.Glob("../journal/testdata/*.v1.json")
	if err != nil || len(records) < 6 {
		t.Fatalf("the golden records are %q: %v", records, err)
	}
	for _, record := range records {
		name := strings.TrimSuffix(filepath.Base(record), ".v1.json")
		if name == "guarding" {
			continue // it is of no transaction that was reverted
		}
		data, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		disktest.Write(t, path, map[string]string{"tx/" + tx + "/" + name: string(data)})
	}
	s := stateAt(t, host)
	st, err := s.Store(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	j := s.Journal
	if ids, err := j.List(); err != nil || len(ids) != 1 || ids[0] != tx {
		t.Fatalf("the list is %v: %v", ids, err)
	}
	if strangers, err := j.Strangers(); err != nil || len(strangers) != 1 {
		t.Errorf("strangers are %v: %v", strangers, err)
	}
	old, err := j.Load(tx)
	if err != nil || old.Found() != "resolve" || old.Begin.Workload != "blog" {
		t.Fatalf("loaded as %+v: %v", old, err)
	}
	held, err := j.Lock("blog", "test")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := j.Begin(held, &journal.Begin{Kind: journal.Capture, SID: disk.NewID(time.Now())})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(host, "tx", fresh.ID, "begin")); err != nil {
		t.Errorf("a new transaction is not in the state: %v", err)
	}
	for _, tx := range []*journal.Tx{old, fresh} {
		if err := tx.End(); err != nil {
			t.Error(err)
		}
	}
	if err := j.Sweep(); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{host, path} {
		if names, err := filepath.Glob(dir + "/tx/*2026*"); err != nil || len(names) > 0 {
			t.Errorf("left are %q: %v", names, err)
		}
	}
	held.Release()
	lock, err := os.OpenFile(path+"/lock/blog.lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Lock("blog", "test"); !errors.Is(err, journal.ErrBusy) {
		t.Errorf("with a process of the earlier version: %v", err)
	}
}

// What is left of a list that was being written goes with the next command, unless somebody
// still writes it.
func TestAListThatWasCutLeavesNothing(t *testing.T) {
	host := t.TempDir()
	stateAt(t, host)
	root, err := disk.OpenRoot(host)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, name := range []string{"stores.json.tmp", "scrub.json.tmp", "damaged.json.tmp"} {
		for _, written := range []bool{true, false} {
			disktest.Write(t, host, map[string]string{name: "{"})
			if written {
				err = root.Flock(unix.LOCK_EX)
			} else {
				err = root.Flock(unix.LOCK_UN)
			}
			if err != nil {
				t.Fatal(err)
			}
			stateAt(t, host)
			if _, err := os.Stat(host + "/" + name); (err == nil) != written {
				t.Errorf("%s, while somebody writes it: %v: %v", name, written, err)
			}
		}
	}
}
