package docker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/volume"
	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/docker/mounts"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// project is a bench with a Compose file and no volumes in the config; more are
// further lines of the config.
func (b *bench) project(file string, more ...string) *Runtime {
	b.Helper()
	path := filepath.Join(b.dir, "compose.yaml")
	b.must(os.WriteFile(path, []byte("name: "+b.name+"\n"+strings.TrimLeft(file, "\n")), 0o600))
	return b.open(b.workload(append([]string{"compose: " + path}, more...)...))
}

// volume makes a volume in the engine that the bench removes.
func (b *bench) volume(name string, opt volume.CreateOptions) string {
	b.Helper()
	opt.Name = b.name + "_" + name
	_, err := b.api.VolumeCreate(b.Context(), opt)
	b.must(err)
	b.volumes = append(b.volumes, opt.Name)
	return opt.Name
}

// found shows mounts in a form that tests can compare: without the bench's name and
// folder.
func (b *bench) found(m *runtime.Mounts) (volumes, left []string) {
	b.Helper()
	plain := strings.NewReplacer(b.dir+"/", "", b.name, "NAME", m.Root, "ENGINE")
	for _, v := range m.Volumes {
		line := v.Name
		if v.Scope == workload.Named {
			line += " = " + v.Path()
			if v.Absent {
				line += " absent"
			}
		}
		volumes = append(volumes, plain.Replace(line))
	}
	for _, l := range m.Left {
		line := l.What + ": " + l.Why
		if l.Lost {
			line += ", lost"
		}
		left = append(left, plain.Replace(line))
	}
	return volumes, left
}

func (b *bench) finds(r *Runtime, wantVolumes, wantLeft []string) {
	b.Helper()
	m, err := r.Volumes(b.Context())
	b.must(err)
	volumes, left := b.found(m)
	if !slices.Equal(volumes, wantVolumes) {
		b.Errorf("volumes\n %s\nwant\n %s", strings.Join(volumes, "\n "), strings.Join(wantVolumes, "\n "))
	}
	if !slices.Equal(left, wantLeft) {
		b.Errorf("left out\n %s\nwant\n %s", strings.Join(left, "\n "), strings.Join(wantLeft, "\n "))
	}
}

func TestVolumesAreWhatTheServicesMountWritable(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	b.must(os.MkdirAll(filepath.Join(b.dir, "data", "in"), 0o755))
	b.must(os.MkdirAll(filepath.Join(b.dir, "device"), 0o755))
	b.must(os.Mkdir(filepath.Join(b.dir, "conf"), 0o755))
	b.must(os.WriteFile(filepath.Join(b.dir, "one.db"), nil, 0o644))
	b.must(os.WriteFile(filepath.Join(b.dir, "data", "two.db"), nil, 0o644))
	b.must(unix.Mkfifo(filepath.Join(b.dir, "pipe"), 0o600))
	shared := b.volume("shared", volume.CreateOptions{})
	b.volume("pg", volume.CreateOptions{})
	b.must(os.WriteFile(filepath.Join(b.dir, "compose.override.yaml"), []byte("services: {web: {volumes: ['./more:/more']}}"), 0o644))
	r := b.project(`
services:
  web:
    image: x
    volumes: [./data:/data, ./conf:/conf:ro, ./one.db:/one.db, ./data/two.db:/two.db, ./pipe:/pipe, ./new:/new, 'pg:/pg:ro', {type: volume, source: shared, target: /shared, volume: {subpath: a}}, 'shared:/all', 'mem:/mem', '/etc/snaptest:/etc/snaptest', 'bound:/bound',
      '/etc/localtime:/etc/localtime:ro', '/etc/passwd:/etc/passwd', '/usr/share:/share', '/var/run/docker.sock:/var/run/docker.sock', '/lib/modules:/lib/modules', 'left:/left']
  db:
    image: x
    volumes: ['./data:/again', './one.db:/twice', './data/in:/in', /cache, 'pg:/pg', 'fresh:/fresh', './left:/away']
    tmpfs: [/tmp]
volumes:
  pg:
  fresh:
  left:
  mem: {driver_opts: {type: tmpfs, device: tmpfs}}
  bound: {driver_opts: {type: none, o: bind, device: `+b.dir+`/device}}
  shared: {external: true, name: `+shared+`}
`, "exclude: [left, "+b.dir+"/left, nobody]")
	b.finds(r, []string{
		"data", "device", "more", "new", "one.db",
		"NAME_fresh = ENGINE/volumes/NAME_fresh/_data absent",
		"NAME_pg = ENGINE/volumes/NAME_pg/_data",
		"NAME_shared = ENGINE/volumes/NAME_shared/_data",
	}, []string{
		"/cache of service db: " + mounts.Anonymous + ", lost",
		"/etc/localtime: " + mounts.ReadOnly,
		"/etc/passwd: " + mounts.System,
		"/etc/snaptest: " + mounts.System + ", lost",
		"/lib/modules: " + mounts.System,
		"conf: " + mounts.ReadOnly,
		"left: " + mounts.Excluded,
		"pipe: " + mounts.Pipe,
		"/usr/share: " + mounts.System,
		"/var/run/docker.sock: " + mounts.Socket,
		"volume left: " + mounts.Excluded,
		"volume mem: " + mounts.Memory,
		"data/in: part of volume data",
		"data/two.db: part of volume data",
		"nobody: exclude in the config names it, and no service mounts it",
	})
}

func TestWhatAListLeavesOutIsLost(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	b.volume("pg", volume.CreateOptions{})
	b.must(os.Mkdir(filepath.Join(b.dir, "files"), 0o755))
	file := `
services:
  web: {image: x, volumes: [./files/in:/files, ./other:/other, 'pg:/pg', 'nfs:/nfs']}
volumes: {pg: {}, nfs: {driver_opts: {type: nfs, o: 'addr=1.2.3.4', device: ':/x'}}}
`
	r := b.project(file, "volumes: [{scope: absolute, source: "+b.dir+"/files}]")
	b.finds(r, []string{"files"}, []string{"volume nfs: " + mounts.Unlisted + ", lost", "other: " + mounts.Unlisted + ", lost", "volume pg: " + mounts.Unlisted + ", lost"})
	m, err := r.Volumes(t.Context())
	b.must(err)
	if lost := strings.Join(m.Warnings(), ""); !strings.Contains(lost, "volume nfs, "+b.dir+"/other, volume pg (not among") || strings.Count(lost, "not among") != 1 {
		t.Errorf("told as %q", lost)
	}
	r = b.project(file, "volumes: [{scope: project_named, source: pg, name: db}, {scope: absolute, source: "+b.dir+"/other}]", "project: "+b.name)
	b.finds(r, []string{"db = ENGINE/volumes/NAME_pg/_data", "other"}, []string{"volume nfs: " + mounts.Unlisted + ", lost", "files/in: " + mounts.Unlisted + ", lost"})
	if err := b.check(r, nil); errors.Is(err, errNotMounted) {
		t.Errorf("check: %v, and the services mount both volumes", err)
	}
	r = b.project(file, "volumes: [{scope: named, source: other}]")
	if err := b.check(r, nil); !errors.Is(err, errNotMounted) {
		t.Errorf("check: %v, want errNotMounted", err)
	}
}

// What no restore could exchange is refused, each volume in one sentence with the way
// out. The options of a mount may hold a password.
func TestAVolumeThatIsNoDirectoryOfThisHostIsRefused(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	b.volume("cifs", volume.CreateOptions{DriverOpts: map[string]string{"type": "cifs", "o": "username=u,password=secret", "device": "//host/share"}})
	file := `
services:
  web: {image: x, volumes: ['nfs:/nfs', 'cifs:/cifs', 'plug:/plug', 'disk:/disk']}
  two: {image: x, volumes: ['nfs:/nfs', 'cifs:/cifs']}
volumes:
  nfs: {driver_opts: {type: nfs, o: 'addr=1.2.3.4', device: ':/x'}}
  cifs: {external: true, name: ` + b.name + `_cifs}
  plug: {driver: rexray}
  disk: {driver_opts: {type: ext4, device: /dev/sdz1}}
`
	r := b.project(file)
	_, err := r.Volumes(t.Context())
	var unfit *runtime.Unsupported
	if !errors.As(err, &unfit) || !strings.Contains(unfit.Hint, "exclude: [cifs, disk, nfs, plug]") {
		t.Fatalf("got %v, want a refusal with exclude as the way out", err)
	}
	for _, want := range []string{"_nfs: it is a mount of type nfs", "_cifs: it is a mount of type cifs", "_plug: the plug-in rexray", "_disk: it is a mount of type ext4"} {
		if strings.Count(err.Error(), want) != 1 {
			t.Errorf("%q is not there once: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("a password is shown: %v", err)
	}
	r = b.project(file, "exclude: [nfs, cifs, plug, disk]")
	b.finds(r, nil, []string{"volume cifs: " + mounts.Excluded, "volume disk: " + mounts.Excluded, "volume nfs: " + mounts.Excluded, "volume plug: " + mounts.Excluded})
	_, err = b.open(b.workload("volumes: [{scope: named, source: " + b.name + "_cifs}]")).Volumes(t.Context())
	if !errors.As(err, &unfit) || !strings.Contains(unfit.Hint, "out of `volumes`") {
		t.Errorf("got %v, want a refusal", err)
	}
}

// An image may declare volumes, and a service may have those of another container:
// the Compose file names neither.
func TestMountsThatTheFileDoesNotNameAreLost(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one", "VOLUME [\"/own\", \"/covered\"]")
	file := `
services:
  web: {image: ` + ref + `, stop_signal: SIGKILL, volumes: ['pg:/covered'], volumes_from: ['db', 'container:` + b.name + `-other']}
  db: {image: ` + ref + `, stop_signal: SIGKILL, volumes: ['pg:/covered'], tmpfs: [/own]}
volumes: {pg: {}}
`
	disktest.Run(t, "docker", "run", "-d", "--name", b.name+"-other", "-v", b.dir+"/data:/theirs", "-v", b.name+"_theirs:/covered", "-v", "/own", ref)
	b.volumes = append(b.volumes, b.name+"_pg", b.name+"_theirs")
	r := b.project(file)
	b.finds(r, []string{"NAME_pg = ENGINE/volumes/NAME_pg/_data absent"}, []string{
		"/own of service web: " + mounts.Anonymous + ", lost",
	})
	b.must(r.Redeploy(t.Context(), b.held(), runtime.Redeploy{StopTimeout: time.Second}))
	b.finds(r, []string{"NAME_pg = ENGINE/volumes/NAME_pg/_data"}, []string{
		"/own of service web: " + mounts.Anonymous + ", lost", "/theirs of service web: " + mounts.Unknown + ", lost",
	})
	all, err := r.Containers(t.Context())
	b.must(err)
	m, err := r.Volumes(t.Context())
	b.must(err)
	for _, c := range all {
		if !slices.ContainsFunc(c.Mounts, func(o runtime.Mount) bool { return o.Source == m.Volumes[0].Path() && o.Writable }) {
			t.Errorf("%s mounts %+v, want the named volume", c.Name, c.Mounts)
		}
	}
}

// The image of an image workload may declare volumes that its config does not list. The
// container of the next deploy gets them, and no snapshot has them.
func TestAVolumeThatOnlyTheImageDeclaresIsLost(t *testing.T) {
	b := newBench(t)
	ref, _ := b.image("one", "VOLUME [\"/own\", \"/covered\", \"/memory\"]")
	r := b.open(b.workload("image: "+ref, "stop_signal: SIGKILL", "tmpfs: [/memory]", "volumes: [{scope: absolute, source: "+b.dir+"/data, target: /covered}]"))
	want := []string{"/own: " + mounts.Anonymous + ", lost"}
	b.finds(r, []string{"data"}, want)
	b.deployed(r, b.held())
	b.finds(r, []string{"data"}, want)
}

// `docker compose up` takes a volume that snap made for its own.
func TestComposeAdoptsAVolumeThatSnapMade(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, _ := b.image("one")
	r := b.project(`
services: {web: {image: ` + ref + `, stop_signal: SIGKILL, volumes: ['pg:/data', 'plain:/plain']}}
volumes: {pg: {labels: {shade: green}, driver: local}, plain: {}}
`)
	pg, plain := b.name+"_pg", b.name+"_plain"
	b.volumes = append(b.volumes, plain)
	b.must(r.MakeVolume(t.Context(), pg, "tx1"))
	made, err := b.api.VolumeInspect(t.Context(), pg)
	b.must(err)
	out := disktest.Run(t, "docker", "compose", "-f", filepath.Join(b.dir, "compose.yaml"), "up", "-d")
	if strings.Contains(out, "already exists") || strings.Contains(out, "match") {
		t.Errorf("compose says: %s", out)
	}
	theirs, err := b.api.VolumeInspect(t.Context(), plain)
	b.must(err)
	for label, value := range theirs.Labels {
		switch {
		case label == "com.docker.compose.config-hash": // see MakeVolume
		case label == composeVolume && made.Labels[label] == "pg":
		case made.Labels[label] != value:
			t.Errorf("label %s is %q, and Compose gives %q", label, made.Labels[label], value)
		}
	}
	if made.Labels["shade"] != "green" || made.Driver != theirs.Driver {
		t.Errorf("made as %+v", made)
	}
	if err := r.MakeVolume(t.Context(), pg, "tx2"); err == nil {
		t.Error("a volume that exists was made once more")
	}
	there := func(name string) bool {
		_, err := b.api.VolumeInspect(t.Context(), name)
		if err != nil && !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		return err == nil
	}
	b.must(r.UnmakeVolume(t.Context(), pg, "tx1")) // a container has it
	b.must(r.UnmakeVolume(t.Context(), plain, "tx1"))
	disktest.Run(t, "docker", "compose", "-f", filepath.Join(b.dir, "compose.yaml"), "down", "-t", "1")
	full := filepath.Join(made.Mountpoint, "file")
	b.must(os.WriteFile(full, nil, 0o600))
	b.must(r.UnmakeVolume(t.Context(), pg, "tx1")) // it holds something
	b.must(os.Remove(full))
	b.must(r.UnmakeVolume(t.Context(), pg, "tx2")) // another restore's
	if !there(pg) || !there(plain) {
		t.Fatal("a volume is gone that snap had to leave")
	}
	b.must(r.UnmakeVolume(t.Context(), pg, "tx1"))
	if there(pg) {
		t.Error("the empty volume is still there")
	}
	b.must(r.UnmakeVolume(t.Context(), pg, "tx1"))
}

// The engine puts the image's files into an empty volume when it makes a container. It
// shall do so when a workload is deployed, and not after a restore of a volume that was
// empty.
func TestAnEmptyVolumeStaysEmptyAfterARestore(t *testing.T) {
	b := newBench(t)
	ref, name := b.seeded(), b.name+"_own"
	b.volumes = append(b.volumes, name)
	r, held := b.open(b.workload("image: "+ref, "stop_signal: SIGKILL", "volumes: [{scope: named, source: "+name+", target: /data}]")), b.held()
	b.must(r.Redeploy(t.Context(), held, runtime.Redeploy{Pull: true}))
	v, err := b.api.VolumeInspect(t.Context(), name)
	b.must(err)
	seed := filepath.Join(v.Mountpoint, "seed")
	if _, err := os.Stat(seed); err != nil {
		t.Fatalf("the first deploy: %v", err)
	}
	before, err := r.Containers(t.Context())
	b.must(err)
	b.must(r.FenceAndStop(t.Context(), 0))
	b.must(os.Remove(seed))
	pins := runtime.Containers(before).Pins()
	b.must(r.Redeploy(t.Context(), held, runtime.Redeploy{Before: before, Pins: pins}))
	if now := b.only(r); now.ID == before[0].ID {
		t.Fatal("the container was not made anew")
	}
	if files, err := os.ReadDir(v.Mountpoint); err != nil || len(files) > 0 {
		t.Errorf("the volume holds %v, %v", files, err)
	}
	if up, err := r.UpToDate(t.Context()); err != nil || !up {
		t.Errorf("UpToDate %v, %v", up, err)
	}
}

// Compose makes containers as the file says, and that may let the engine fill an empty
// volume. A volume that was restored as empty stays so, with its owner, mode and time, also
// where an earlier call was cut short.
func TestComposeKeepsAnEmptyVolumeEmpty(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, bound := b.seeded(), filepath.Join(b.dir, "bound")
	b.must(os.Mkdir(bound, 0o755))
	file := func(release string) string {
		return b.file("compose.yaml", "name: "+b.name, "services:",
			"  web: {image: "+ref+", labels: {release: '"+release+"'}, stop_signal: SIGKILL, volumes: ['own:/data', './data:/bind']}",
			"  db: {image: "+ref+", labels: {release: '"+release+"'}, stop_signal: SIGKILL, volumes: ['bound:/data', 'full:/full']}",
			"volumes: {own: {}, full: {}, bound: {driver_opts: {type: none, o: bind, device: "+bound+"}}}")
	}
	path := file("1")
	b.volumes = append(b.volumes, b.name+"_own", b.name+"_full", b.name+"_bound")
	b.byHand(nil, "up", "-d")
	v, err := b.api.VolumeInspect(t.Context(), b.name+"_own")
	b.must(err)
	full, err := b.api.VolumeInspect(t.Context(), b.name+"_full")
	b.must(err)
	b.must(os.WriteFile(filepath.Join(full.Mountpoint, "file"), nil, 0o600))
	empty, at := []string{v.Mountpoint, bound}, time.Date(2020, 2, 2, 2, 2, 2, 2, time.UTC)
	for _, dir := range empty {
		if err := os.Remove(filepath.Join(dir, "seed")); err != nil {
			t.Fatalf("the engine has not filled it, so this test shows nothing: %v", err)
		}
		b.must(errors.Join(os.Chown(dir, 12, 34), os.Chmod(dir, 0o750), os.Chtimes(dir, at, at)))
	}
	stays := func(what string) {
		t.Helper()
		for _, dir := range empty {
			files, err := os.ReadDir(dir)
			info, statErr := os.Stat(dir)
			b.must(errors.Join(err, statErr))
			if uid := info.Sys().(*syscall.Stat_t).Uid; len(files) > 0 || uid != 12 || info.Mode().Perm() != 0o750 || !info.ModTime().Equal(at) {
				t.Errorf("%s: %s holds %v, and is %v of %d, from %v", what, dir, files, info.Mode(), uid, info.ModTime())
			}
		}
		b.nothingToDo("up", "-d")
	}
	file("2")
	r := b.open(b.workload("compose: " + path))
	fates, err := b.again(r, runtime.Want{})
	b.must(err)
	if fates["web-1"].Then != runtime.MadeAnew || fates["db-1"].Then != runtime.MadeAnew {
		t.Fatalf("the plan was %+v", fates)
	}
	stays("made anew")

	before, err := r.Containers(t.Context())
	b.must(err)
	b.byHand(nil, "rm", "-s", "-f")
	b.must(r.Resume(t.Context(), b.held(), before))
	stays("resumed")

	_, err = mounts.KeepEmpty([]runtime.Volume{{Volume: workload.Volume{Source: v.Mountpoint}}, {Volume: workload.Volume{Source: bound}}})
	b.must(err)
	file("3")
	_, err = b.again(b.open(b.workload("compose: "+path)), runtime.Want{})
	b.must(err)
	stays("after one that was cut short")
	if release, err := mounts.KeepEmpty([]runtime.Volume{{Volume: workload.Volume{Source: full.Mountpoint}}}); release != nil || err != nil {
		t.Errorf("a volume with a file in it is kept empty: %v", err)
	}
}

// seeded makes an image that has a file in /data.
func (b *bench) seeded() string {
	b.Helper()
	ref, _ := b.image("one")
	seed := filepath.Join(b.TempDir(), "seed")
	b.must(os.WriteFile(seed, []byte("seed"), 0o644))
	disktest.Run(b.T, "docker", "create", "--name", b.name+"-seed", ref)
	disktest.Run(b.T, "docker", "cp", seed, b.name+"-seed:/data/seed")
	root := disktest.Run(b.T, "docker", "export", b.name+"-seed")
	dockertest.Import(b.T, b.api, b.name+":seeded", []byte(root), `ENTRYPOINT ["/app"]`, "LABEL "+labelTest+"="+b.name)
	return b.name + ":seeded"
}
