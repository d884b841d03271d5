package archive_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/archive/archivetest"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// capNetBind is cap_net_bind_service=ep as the kernel stores it
// (VFS_CAP_REVISION_2, include/uapi/linux/capability.h).
var capNetBind = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// powers makes files and attributes that grant privileges, and some that only look like
// it.
func powers(t *testing.T, dir string) {
	t.Helper()
	disktest.Write(t, dir, map[string]string{"setuid": "x", "setgid": "x", "capable": "x", "trusted": "x", "shared/": ""})
	for name, mode := range map[string]uint32{"setuid": 0o4755, "setgid": 0o2755, "shared": 0o2775} {
		if err := unix.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, attr := range map[string]string{"capable": "security.capability", "trusted": "trusted.power"} {
		if err := unix.Setxattr(filepath.Join(dir, name), attr, capNetBind, 0); err != nil {
			t.Fatal(err)
		}
	}
	// A label of the host, which a volume does not keep.
	if err := unix.Setxattr(filepath.Join(dir, "trusted"), "user.plain", []byte("kept"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestPrivilegesAreStrippedUnlessKept(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(map[bool]string{false: "stripped", true: "kept"}[keep], func(t *testing.T) {
			dir := disktest.Mount(t, "ext4", 64)
			live, staged := mkdir(t, dir+"/live"), mkdir(t, dir+"/staged")
			powers(t, live)
			m, result := capture(t, live, archive.WriteOptions{})
			r := archive.NewReader(context.Background(), m, result.Members)
			defer r.Close()
			opt := archivetest.Limits()
			opt.KeepPrivileges = keep
			if _, err := archive.Extract(context.Background(), r, open(t, staged), opt); err != nil {
				t.Fatal(err)
			}
			mode := func(name string) os.FileMode {
				info, err := os.Stat(filepath.Join(staged, name))
				if err != nil {
					t.Fatal(err)
				}
				return info.Mode()
			}
			attr := func(name, key string) []byte {
				buf := make([]byte, 100)
				n, err := unix.Lgetxattr(filepath.Join(staged, name), key, buf)
				if err != nil {
					return nil
				}
				return buf[:n]
			}
			if got := mode("setuid")&os.ModeSetuid != 0; got != keep {
				t.Errorf("setuid is there: %t", got)
			}
			if got := mode("setgid")&os.ModeSetgid != 0; got != keep {
				t.Errorf("setgid is there: %t", got)
			}
			if got := bytes.Equal(attr("capable", "security.capability"), capNetBind); got != keep {
				t.Errorf("the capability is there: %t", got)
			}
			if got := bytes.Equal(attr("trusted", "trusted.power"), capNetBind); got != keep {
				t.Errorf("the trusted attribute is there: %t", got)
			}
			// On a directory setgid is no power but how groups share files.
			if mode("shared")&os.ModeSetgid == 0 {
				t.Error("the directory lost its setgid bit")
			}
			if string(attr("trusted", "user.plain")) != "kept" {
				t.Error("the user's attribute is lost")
			}
			if mode("setuid").Perm() != 0o755 {
				t.Errorf("the setuid file has mode %v", mode("setuid"))
			}
		})
	}
}

// A forged header asks for privileges that no file ever had.
func TestAForgedSetuidRootShellIsStripped(t *testing.T) {
	f := &archivetest.Forge{}
	f.Root()
	f.Pax(archivetest.Record("SCHILY.xattr.security.capability", string(capNetBind)), archivetest.Record("SCHILY.xattr.trusted.x", "y"))
	f.Block(archivetest.Header{Name: "sh", Type: '0', Mode: "0006777\x00", Size: archivetest.Octal(3)})
	f.Content("sh\n")
	f.End()
	dir := t.TempDir()
	if _, err := extractTar(context.Background(), f.Bytes(), open(t, dir), archivetest.Limits()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir + "/sh")
	if err != nil || info.Mode() != 0o777 {
		t.Errorf("the file has mode %v: %v", info.Mode(), err)
	}
	if n, err := unix.Llistxattr(dir+"/sh", make([]byte, 1000)); n != 0 || err != nil {
		t.Errorf("the file has attributes: %d bytes of names, %v", n, err)
	}
}

// A pax keyword ends at the first "=". So GNU tar decodes %3D and %25 in the keyword of
// an attribute.
func TestAnAttributeWithAnEqualsSignInItsNameIsRestored(t *testing.T) {
	dir := disktest.Mount(t, "ext4", 64)
	live, staged, out := mkdir(t, dir+"/live"), mkdir(t, dir+"/staged"), mkdir(t, dir+"/out")
	disktest.Write(t, live, map[string]string{"f": "x"})
	for _, name := range []string{"user.a=b", "user.100%", "user.a%3Db", "user.=", "user.new\nline"} {
		if err := unix.Setxattr(live+"/f", name, []byte("v=1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	m, result := capture(t, live, archive.WriteOptions{})
	r := archive.NewReader(context.Background(), m, result.Members)
	defer r.Close()
	if _, err := archive.Extract(context.Background(), r, open(t, staged), archivetest.Limits()); err != nil {
		t.Fatal(err)
	}
	disktest.Same(t, "restored", disktest.Tree(t, live), disktest.Tree(t, staged))
	var gz bytes.Buffer
	for _, member := range result.Members {
		gz.Write(m.members[member.ID])
	}
	if _, err := archive.ExtractForeign(context.Background(), bytes.NewReader(gz.Bytes()), open(t, out), archivetest.Limits()); err != nil {
		t.Fatal(err)
	}
	disktest.Same(t, "imported", disktest.Tree(t, live), disktest.Tree(t, out))
	untar(t, &gz, mkdir(t, dir+"/tar"))
	disktest.Same(t, "unpacked by tar", disktest.Tree(t, live), disktest.Tree(t, dir+"/tar"))
}
