package archive_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// specials makes fifos and devices, among files.
func specials(t *testing.T, dir string) {
	t.Helper()
	disktest.Write(t, dir, map[string]string{"a": "1", "d/z": "2", "pipe.txt": "3"})
	for name, node := range map[string]struct {
		mode uint32
		dev  uint64
	}{
		"d/pipe": {unix.S_IFIFO | 0o640, 0}, "null": {unix.S_IFCHR | 0o666, unix.Mkdev(1, 3)},
		"disk": {unix.S_IFBLK | 0o660, unix.Mkdev(7, 200)}, "far": {unix.S_IFCHR | 0o600, unix.Mkdev(4095, 1<<20-1)},
	} {
		path := filepath.Join(dir, name)
		if err := errors.Join(unix.Mknod(path, node.mode, int(node.dev)), unix.Chmod(path, node.mode&0o7777), unix.Lchown(path, 12, 34)); err != nil {
			t.Fatal(err)
		}
	}
}

// numbers describes the devices below dir: disktest.Tree shows only their types.
func numbers(t *testing.T, dir string) string {
	return disktest.Run(t, "sh", "-c", "cd "+dir+" && stat -c '%n %F %t:%T' null disk far d/pipe")
}

func TestSpecialFilesThatAreKeptArriveByEveryWay(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 64)
	live := mkdir(t, dir+"/live")
	specials(t, live)
	m, result := capture(t, live, archive.WriteOptions{Special: archive.KeepSpecial})
	if result.Stats.Specials != 4 || len(result.Lost) > 0 {
		t.Errorf("captured %+v, lost %+v", result.Stats, result.Lost)
	}
	var cat bytes.Buffer
	for _, member := range result.Members {
		cat.Write(m.members[member.ID])
	}
	opt := archivetest.Limits()
	opt.Special = archive.KeepSpecial
	for name, unpack := range map[string]func(into string) error{
		"restored": func(into string) error {
			r := archive.NewReader(context.Background(), m, result.Members)
			defer r.Close()
			stats, err := archive.Extract(context.Background(), r, open(t, into), opt)
			if stats != result.Stats {
				t.Errorf("extracted %+v, captured %+v", stats, result.Stats)
			}
			return err
		},
		"imported": func(into string) error {
			_, err := archive.ExtractForeign(context.Background(), bytes.NewReader(cat.Bytes()), open(t, into), opt)
			return err
		},
		"unpacked by tar": func(into string) error {
			untar(t, bytes.NewBuffer(bytes.Clone(cat.Bytes())), into)
			return nil
		},
	} {
		into := mkdir(t, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")))
		if err := unpack(into); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		disktest.Same(t, name, disktest.Tree(t, live), disktest.Tree(t, into))
		if want, got := numbers(t, live), numbers(t, into); got != want {
			t.Errorf("%s:\n%s, expected\n%s", name, got, want)
		}
	}
}

// The archive cannot make a device: only the config can.
func TestSpecialFilesOfAnArchiveAreMadeOnlyIfTheConfigSaysSo(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 64)
	specials(t, mkdir(t, dir+"/live"))
	m, result := capture(t, dir+"/live", archive.WriteOptions{Special: archive.KeepSpecial})
	foreign := disktest.Run(t, "tar", "-C", dir+"/live", "-cf", "-", ".")
	for i, c := range []struct {
		special archive.Special
		refused bool
		lost    string
	}{{archive.RefuseSpecial, true, "[]"}, {archive.SkipSpecial, false, "[{special 4 [d/pipe disk far null]}]"}} {
		for name, extract := range map[string]func(into string, opt archive.ExtractOptions) error{
			"ours": func(into string, opt archive.ExtractOptions) error {
				r := archive.NewReader(context.Background(), m, result.Members)
				defer r.Close()
				_, err := archive.Extract(context.Background(), r, open(t, into), opt)
				return err
			},
			"foreign": func(into string, opt archive.ExtractOptions) error {
				_, err := archive.ExtractForeign(context.Background(), strings.NewReader(foreign), open(t, into), opt)
				return err
			},
		} {
			into := mkdir(t, fmt.Sprintf("%s/%s%d", dir, name, i))
			opt := archivetest.Limits()
			opt.Special, opt.Lost = c.special, &archive.Losses{}
			if err := extract(into, opt); errors.Is(err, archive.ErrRefused) != c.refused || !c.refused && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got := fmt.Sprint(opt.Lost.List())
			if name == "ours" && got != c.lost || !strings.HasPrefix(got, c.lost[:min(len(c.lost), 12)]) {
				t.Errorf("%s: lost are %s", name, got)
			}
			if found := disktest.Run(t, "find", into, "-type", "p", "-o", "-type", "c", "-o", "-type", "b"); found != "" {
				t.Errorf("%s: made were %s", name, found)
			}
		}
	}
}
