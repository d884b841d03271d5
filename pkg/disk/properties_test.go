package disk_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// What a directory can hand down, by filesystem, each as the commands that make it at
// $D and the command whose output shows it.
var alike = []struct{ fs, name, make, show string }{
	{"ext4", "no properties", `mkdir $D`, `lsattr -d $D`},
	{"ext4", "flags", `mkdir $D; chattr +A +D +d +S $D`, `lsattr -d $D`},
	{"ext4", "a label", `mkdir $D; setfattr -n security.selinux -v container_file_t $D`, `getfattr -n security.selinux --only-values --absolute-names $D`},
	{"xfs", "flags", `mkdir $D; chattr +A +d +S $D`, `lsattr -d $D`},
	{"xfs", "a project that is inherited", `mkdir $D; chattr -p 42 $D; chattr +P $D`, `lsattr -pd $D`},
	{"xfs", "a project that is not inherited", `mkdir $D; chattr -p 42 $D`, `lsattr -pd $D`},
	{"xfs", "a hint for the size of extents", `mkdir $D; xfs_io -c 'extsize 1m' -c 'cowextsize 64k' $D`, `xfs_io -c stat $D | grep size`},
	{"btrfs", "no copy on write", `mkdir $D; chattr +C $D`, `lsattr -d $D`},
	{"btrfs", "a way to compress", `mkdir $D; btrfs property set $D compression zstd`, `lsattr -d $D; btrfs property get $D compression`},
	{"btrfs", "no compression", `mkdir $D; chattr +m $D`, `lsattr -d $D`},
	{"btrfs", "a subvolume", `btrfs subvolume create $D`, `stat -c %i $D; btrfs subvolume show $D | grep -c Generation`},
	{"btrfs", "a subvolume without copy on write", `btrfs subvolume create $D; chattr +C $D`, `stat -c %i $D; lsattr -d $D`},
}

func inDir(t *testing.T, dir, script string) string {
	t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Env = append(os.Environ(), "D="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return strings.ReplaceAll(string(out), dir, "DIR")
}

func TestADirectoryIsMadeAlikeAndItsFilesInherit(t *testing.T) {
	mounts := map[string]string{}
	for _, name := range []string{"ext4", "xfs", "btrfs"} {
		mounts[name] = disktest.Mount(t, name, 512)
	}
	for i, c := range alike {
		t.Run(c.fs+", "+c.name, func(t *testing.T) {
			at := mounts[c.fs]
			root, err := disk.OpenRoot(at)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			like, made := fmt.Sprintf("like%d", i), fmt.Sprintf("made%d", i)
			inDir(t, at+"/"+like, c.make)
			d, err := root.Open(like)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			p, err := d.Properties()
			if err != nil {
				t.Fatal(err)
			}
			copied, err := root.MakeAlike(made, p)
			if err != nil {
				t.Fatal(err)
			}
			defer copied.Close()
			if want, got := inDir(t, at+"/"+like, c.show), inDir(t, at+"/"+made, c.show); got != want {
				t.Errorf("the copy has\n%s instead of\n%s", got, want)
			}
			for _, dir := range []string{like, made} {
				disktest.Write(t, filepath.Join(at, dir), map[string]string{"sub/file": "x"})
			}
			inside := `lsattr -pd $D/sub $D/sub/file || lsattr -d $D/sub $D/sub/file`
			if want, got := inDir(t, at+"/"+like, inside), inDir(t, at+"/"+made, inside); got != want {
				t.Errorf("what is made in the copy has\n%s instead of\n%s", got, want)
			}
			if err := root.RemoveTree(made); err != nil {
				t.Errorf("the copy cannot be removed: %v", err)
			}
		})
	}
}

// A directory with the properties of another is not made where its filesystem refuses
// them, and leaves nothing.
func TestPropertiesThatAreRefusedAreAnError(t *testing.T) {
	of := func(fs, make string) (string, disk.Properties) {
		at := disktest.Mount(t, fs, 512)
		inDir(t, at+"/d", make)
		d, err := disk.OpenRoot(at + "/d")
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		p, err := d.Properties()
		if err != nil {
			t.Fatal(err)
		}
		return at, p
	}
	ext4, _ := of("ext4", "mkdir $D")
	_, nocow := of("btrfs", "mkdir $D; chattr +C $D")
	_, project := of("xfs", "mkdir $D; chattr -p 42 $D")
	_, subvolume := of("btrfs", "btrfs subvolume create $D")
	root, err := disk.OpenRoot(ext4)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for name, p := range map[string]disk.Properties{"nocow": nocow, "project": project, "subvolume": subvolume} {
		made, err := root.MakeAlike(name, p)
		if err == nil {
			made.Close()
			t.Errorf("%s: ext4 has made a directory with %+v", name, p)
		}
		if there, err := root.Exists(name); err != nil || there {
			t.Errorf("%s: something is left: %v", name, err)
		}
	}
}

// The kernel refuses to exchange a directory of one project with another (EXDEV): the
// probe must find that out, although what it exchanges is not the live directory.
func TestTheProbeOfAnExchangeMindsProjects(t *testing.T) {
	at := disktest.Mount(t, "xfs", 512)
	inDir(t, at, `mkdir $D/admits $D/bound $D/bound/live $D/plain; chattr -p 7 $D/bound; chattr +P $D/bound; chattr -p 42 $D/bound/live`)
	open := func(name string) *disk.Dir {
		d, err := disk.OpenRoot(at + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	bound, live, plain := open("bound"), open("bound/live"), open("plain")
	project, err := live.Properties()
	if err != nil || project.Project != 42 {
		t.Fatalf("the properties are %+v: %v", project, err)
	}
	if err := bound.ProbeExchange(disk.Properties{}, project); !errors.Is(err, unix.EXDEV) {
		t.Errorf("a wrapper that admits only project 7 took a directory of project 42: %v", err)
	}
	if err := plain.ProbeExchange(disk.Properties{}, project); err != nil {
		t.Errorf("a wrapper without a project did not take a directory of project 42: %v", err)
	}
	if err := bound.AdmitAnyProject(); err != nil {
		t.Fatal(err)
	}
	if err := bound.ProbeExchange(disk.Properties{}, project); err != nil {
		t.Errorf("a wrapper that admits any project did not: %v", err)
	}
	names, err := bound.Names()
	if err != nil || len(names) != 1 {
		t.Errorf("the probe has left %v: %v", names, err)
	}
}
