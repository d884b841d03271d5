package situations

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/versions"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/docker/dockertest"
)

// TestMain lets three situations run at once, unless the command line says
// otherwise: most of their time they wait for the engine.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "3"); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	flag.Parse()
	os.Exit(m.Run())
}

// TestSituations plays the situations of cases.
func TestSituations(t *testing.T) {
	b := newBench(t)
	dirs, err := os.ReadDir("cases")
	if err != nil || len(dirs) == 0 {
		t.Fatalf("%d cases: %v", len(dirs), err)
	}
	for _, dir := range dirs {
		name := dir.Name()
		text, err := os.ReadFile(filepath.Join("cases", name, sheet))
		if err != nil {
			t.Fatal(err)
		}
		if m := api.FindSubmatch(text); m != nil && versions.LessThan(b.api, string(m[1])) {
			t.Logf("%s is not played: it needs API %s, and the engine has %s", name, m[1], b.api)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			play(t, b, name)
		})
	}
}

// bench is what all situations share.
type bench struct {
	snap      string // the program
	app       string // the name of its images
	api       string // the engine's version
	databases func() (string, error)
}

func newBench(t *testing.T) *bench {
	t.Helper()
	disktest.NeedRoot(t)
	engine := dockertest.Connect(t)
	dockertest.NeedCompose(t)
	version, err := engine.ServerVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{snap: filepath.Join(t.TempDir(), "snap"), app: "snap-situations-" + disk.NewID(time.Now())[17:], api: version.APIVersion}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", b.snap, "github.com/tiny-forge/snap/cmd/snap")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build snap: %v\n%s", err, out)
	}
	for tag, change := range map[string]string{"1": "ENV SCHEMA=1", "2": "ENV SCHEMA=2", "volume": "VOLUME /cache"} {
		name := b.app + ":" + tag
		dockertest.Import(t, engine, name, dockertest.RootFS(t, "app"), change, `ENTRYPOINT ["/app"]`, "LABEL serial="+name)
		t.Cleanup(func() { disktest.Run(t, "docker", "rmi", "-f", name) })
	}
	b.databases = sync.OnceValues(func() (string, error) {
		cmd := exec.Command("../databases/image.sh")
		cmd.Stderr = os.Stderr
		tag, err := cmd.Output()
		return strings.TrimSpace(string(tag)), err
	})
	return b
}

// play plays one situation from the first "up" to the end.
func play(t *testing.T, b *bench, name string) {
	h := newHost(t, b, name)
	s := h.situation
	h.sh(s.Up)
	h.fill(s.Data, "old")
	h.fill(s.Others, "old")
	h.sh(s.Before)

	captured := h.trees(s.Data)
	before, drifted := h.containers(), h.drift()
	sid := h.snap("capture", s.Capture, "capture", h.project)
	h.judge("after the capture", before, h.containers(), nil, untouched)
	h.clean()
	if s.Capture.Exit != 0 {
		h.same("data", captured, h.trees(s.Data))
		return
	}

	h.fill(s.Data, "new")
	h.fill(s.Others, "new")
	h.sh(s.Change)
	altered, others := h.trees(s.Data), h.trees(s.Others)
	before = h.containers()
	if len(s.Plan) > 0 {
		h.snap("plan", run{Args: s.Restore.Args, Says: s.Plan}, "restore", h.project, sid, "--plan")
		h.judge("after the plan", before, h.containers(), nil, untouched)
	}
	h.snap("restore", s.Restore, "restore", h.project, sid, "--confirm", sid)

	data, otherwise := captured, again
	switch s.Restore.Exit {
	case 1, 3, 4, 64:
		data, otherwise = altered, untouched
	case 5:
		data = altered
	}
	h.judge("after the restore", before, h.containers(), s.Containers, otherwise)
	h.same("data", data, h.trees(s.Data))
	h.same("what snap must leave alone", others, h.trees(s.Others))
	if s.Restore.Exit != 7 { // which says that something is pending
		h.clean()
	}
	h.sh(s.After)
	if s.Settled != skip {
		h.settled(s.Settled, drifted)
	}
}
