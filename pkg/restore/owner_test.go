package restore

import (
	"context"
	"os"
	"syscall"
	"testing"

	"github.com/tiny-forge/snap/pkg/docker"
	"github.com/tiny-forge/snap/pkg/runtime"
	"github.com/tiny-forge/snap/pkg/workload"
)

// mapped is a runtime whose engine maps root in a container to somebody else.
type mapped struct{ runtime.Runtime }

func (mapped) Owner(context.Context) (uid, gid int, err error) { return 123456, 234567, nil }

// A directory that a deploy makes is that of the container's root; one that was there
// keeps its owner.
func TestADirectoryThatADeployMakesIsTheContainersRoots(t *testing.T) {
	w := newWorld(t, t.TempDir(), 2, appLines(image(t))...)
	w.must(os.Remove(w.volumes[1]))
	w.Cleanup(w.undeploy)
	e := w.engine()
	e.Runtime = func(_ context.Context, own *workload.Workload) (runtime.Runtime, error) {
		rt, err := docker.Open(own, docker.Options{})
		return mapped{rt}, err
	}
	_, err := e.Deploy(w.Context(), DeployRequest{Workload: w.name})
	w.must(err)
	for i, want := range [][2]uint32{{0, 0}, {123456, 234567}} {
		info, err := os.Stat(w.volumes[i])
		w.must(err)
		if owner := info.Sys().(*syscall.Stat_t); [2]uint32{owner.Uid, owner.Gid} != want {
			t.Errorf("volume %d is owned by %d:%d, expected %d:%d", i, owner.Uid, owner.Gid, want[0], want[1])
		}
	}
}
