package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tiny-forge/snap/pkg/disk/disktest"
)

// TestARemovedBackingFileIsLookedUpAgain removes the backing file of a loop device,
// which is outside the volume, while the device is looked at. Everybody does that
// who unmounts an image and deletes it.
func TestARemovedBackingFileIsLookedUpAgain(t *testing.T) {
	disktest.NeedRoot(t)
	disktest.Need(t, "losetup")
	root := t.TempDir()
	disktest.Write(t, root, map[string]string{"vol/": "", "other/": ""})
	volume, err := OpenRoot(root + "/vol")
	if err != nil {
		t.Fatal(err)
	}
	defer volume.Close()
	s, err := newScan([]*Dir{volume})
	if err != nil {
		t.Fatal(err)
	}
	image := root + "/other/disk"
	for n := range 20 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			disktest.Write(t, root, map[string]string{"other/disk": strings.Repeat("x", 1<<20)})
			device := disktest.Attach(t, nil, image)
			begun, removed := make(chan struct{}, 1), make(chan error, 1)
			go func() {
				<-begun
				removed <- os.Remove(image)
			}()
			for path := image; path == image; {
				select {
				case begun <- struct{}{}:
				default:
				}
				var how string
				if path, how = s.attached("/sys/block/" + filepath.Base(device)); how != "" {
					t.Errorf("%s has %s %s", device, path, how)
				}
			}
			if err := <-removed; err != nil {
				t.Error(err)
			}
		})
	}
}
