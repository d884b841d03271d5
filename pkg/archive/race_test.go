package archive_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

const canary = "CANARY-of-the-host-that-no-volume-may-carry"

// scanner is a sink that stores nothing and searches for the canary.
type scanner struct{ found atomic.Int64 }

func (s *scanner) Put(tar []byte) (archive.Member, error) {
	if bytes.Contains(tar, []byte(canary)) {
		s.found.Add(1)
	}
	return archive.Member{ID: strings.Repeat("0", 64), Tar: int64(len(tar)), Stored: 1}, nil
}

// while runs attack again and again until the returned function is called. That function
// returns how many times attack ran.
func while(attack func()) (stop func() int64) {
	var over atomic.Bool
	var rounds atomic.Int64
	var done sync.WaitGroup
	done.Go(func() {
		for !over.Load() {
			attack()
			rounds.Add(1)
		}
	})
	return func() int64 {
		over.Store(true)
		done.Wait()
		return rounds.Load()
	}
}

// While root walks a volume, the container that owns it can exchange any two names in it
// thousands of times a second.
func TestNothingFromOutsideIsCapturedWhateverIsSwappedDuringTheWalk(t *testing.T) {
	disktest.NeedRoot(t)
	rounds := 300
	if os.Getenv("SNAP_CRASH") == "all" { // together with a container's: see cmd/snap
		rounds = 1500
	}
	dir := t.TempDir()
	outside := mkdir(t, dir+"/outside")
	disktest.Write(t, outside, map[string]string{"passwd": canary, "d/passwd": canary, "name-" + canary: ""})
	for name, decoy := range map[string]func(path string) error{
		"dir by a symlink to a directory outside":  func(path string) error { return os.Symlink(outside+"/", path) },
		"dir by a symlink up and out":              func(path string) error { return os.Symlink("../out", path) },
		"passwd by a symlink to a file outside":    func(path string) error { return os.Symlink(outside+"/passwd", path) },
		"passwd by a magic link of the capturer":   func(path string) error { return os.Symlink("/proc/self/environ", path) },
		"passwd by a fifo, which blocks":           func(path string) error { return unix.Mkfifo(path, 0o600) },
		"passwd by /dev/zero, which never ends":    func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 5))) },
		"passwd by a directory with names to find": func(path string) error { return os.MkdirAll(path+"/passwd/secret", 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SNAP_TEST_CANARY", canary)
			box := t.TempDir()
			if err := os.Symlink(outside, box+"/out"); err != nil {
				t.Fatal(err)
			}
			live := mkdir(t, box+"/live")
			disktest.Write(t, live, map[string]string{"dir/passwd": "harmless", "dir/d/passwd": "harmless", "passwd": "harmless", "z": "z"})
			what, _, _ := strings.Cut(name, " ")
			if err := decoy(live + "/zz-decoy"); err != nil {
				t.Fatal(err)
			}
			root := open(t, live)
			stop := while(func() {
				_ = unix.Renameat2(root.FD(), what, root.FD(), "zz-decoy", unix.RENAME_EXCHANGE)
			})
			sink := &scanner{}
			kinds := map[string]int{}
			hang := time.AfterFunc(time.Minute, func() { panic("a capture hangs: " + name) })
			defer hang.Stop()
			for range rounds {
				_, err := archive.Write(context.Background(), root, sink, archive.WriteOptions{})
				var bad *archive.Unrestorable
				switch {
				case err == nil:
					kinds["captured"]++
				case errors.As(err, &bad):
					kinds["refused"]++
				case errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP):
					kinds["caught in between"]++
				default:
					t.Fatalf("the capture failed with %v", err)
				}
			}
			exchanges := stop()
			if n := sink.found.Load(); n > 0 {
				t.Errorf("%d members hold what lies outside", n)
			}
			t.Logf("%v in %d exchanges", kinds, exchanges)
		})
	}
}

// Whatever happens to a file while it is read, the stream can be extracted, and the
// capture reports that the file has no single state.
func TestAFileThatChangesWhileItIsReadIsReportedAndTheStreamStaysWhole(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 3<<16) // 3 MiB
	for name, attack := range map[string]func(f *os.File, i int64) error{
		"rewritten": func(f *os.File, i int64) error { _, err := f.WriteAt([]byte{byte(i)}, i*4099%3000000); return err },
		"growing and shrinking": func(f *os.File, i int64) error {
			if err := f.Truncate(i * 7919 % int64(len(big))); err != nil {
				return err
			}
			_, err := f.WriteAt(big[:5000], i*104729%int64(len(big)))
			return err
		},
		"punched": func(f *os.File, i int64) error {
			_ = f.Truncate(int64(len(big)) + i%8192)
			return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, i*4096%int64(len(big)), 4096)
		},
		"small and large in turn": func(f *os.File, i int64) error { return f.Truncate([]int64{10, 256 << 10, 256<<10 + 1, 2 << 20}[i%4]) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			live := mkdir(t, dir+"/live")
			disktest.Write(t, live, map[string]string{"a": "before", "hot": string(big), "z": "behind"})
			f, err := os.OpenFile(filepath.Join(live, "hot"), os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			var i int64
			stop := while(func() {
				if err := attack(f, i); err != nil {
					t.Error(err)
				}
				i++
				time.Sleep(200 * time.Microsecond)
			})
			defer stop()
			changed := int64(0)
			for n := range 10 {
				var lines []string
				m, result := capture(t, live, archive.WriteOptions{Index: func(l *archive.Line) error { lines = append(lines, l.Name); return nil }})
				staged := extract(t, m, result, filepath.Join(dir, "staged"))
				for name, want := range map[string]string{"a": "before", "z": "behind"} {
					if got, err := os.ReadFile(filepath.Join(staged, name)); string(got) != want {
						t.Fatalf("capture %d: %s is %q: %v", n, name, got, err)
					}
				}
				if strings.Join(lines, " ") != ". a hot z" || result.Stats.Files != 3 {
					t.Fatalf("capture %d: the index has %q, the counts are %+v", n, lines, result.Stats)
				}
				if changed += result.ChangedCount; result.ChangedCount > 0 && (len(result.Changed) != 1 || result.Changed[0] != "hot") {
					t.Fatalf("changed are %q", result.Changed)
				}
				if err := os.RemoveAll(staged); err != nil {
					t.Fatal(err)
				}
			}
			if changed == 0 && name == "rewritten" { // the others may be still for the moment it takes
				t.Error("no capture said that the file changed")
			}
		})
	}
}

func TestAnUnchangedFileIsNotReportedAsChanged(t *testing.T) {
	dir := t.TempDir()
	disktest.Write(t, dir, map[string]string{"a": "x", "large": strings.Repeat("x", 2<<20)})
	if _, result := capture(t, dir, archive.WriteOptions{}); result.ChangedCount != 0 || result.Changed != nil {
		t.Errorf("changed are %q", result.Changed)
	}
}
