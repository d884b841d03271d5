// Command flip runs in a container and swaps what lies in a volume for what it
// aims at the host, and back, as fast as it can.
//
// On stdin come "start SCENE OUTSIDE" and "stop". It answers "ready" when what
// it swaps in is made, begins at "go", and answers "stop" with how often it
// swapped.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// names is how many names are swapped in turn.
const names = 12

func main() {
	lines := bufio.NewScanner(os.Stdin)
	next := func() (word, scene, outside string) {
		if !lines.Scan() {
			os.Exit(0)
		}
		_, _ = fmt.Sscan(lines.Text(), &word, &scene, &outside) // what is missing stays empty
		return word, scene, outside
	}
	for {
		word, scene, outside := next()
		if word != "start" {
			fatal(fmt.Errorf("%q", word))
		}
		pairs, err := prepare(scene, outside)
		if err != nil {
			fatal(err)
		}
		fmt.Println("ready")
		next()
		var over atomic.Bool
		swaps, done := 0, make(chan bool)
		go func() {
			defer close(done)
			for i := 0; !over.Load(); i++ {
				p := pairs[i%len(pairs)]
				swaps += swap(scene, outside, p) // in,
				swaps += swap(scene, outside, p) // and out again
			}
		}()
		next()
		over.Store(true)
		<-done
		fmt.Println(swaps)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "flip:", err)
	os.Exit(1)
}

// pair is a name in the volume and the name of what takes its place.
type pair struct{ live, decoy string }

// prepare makes the live names of a scene whole, and what is swapped in.
func prepare(scene, outside string) ([]pair, error) {
	if err := errors.Join(os.RemoveAll("/vol/away"), os.Mkdir("/vol/away", 0o755)); err != nil {
		return nil, err
	}
	if scene == "volume" {
		return []pair{{"/vol/top", "/vol/away/top"}}, os.Symlink(outside+"/top", "/vol/away/top")
	}
	var pairs []pair
	for i := range names {
		p := pair{fmt.Sprintf("/vol/top/live/%s%02d", scene, i), fmt.Sprintf("/vol/away/%02d", i)}
		if err := errors.Join(whole(scene, p.live), decoy(scene, outside, p.decoy)); err != nil {
			return nil, err
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// whole makes what an honest app would have at a name.
func whole(scene, live string) error {
	if err := os.RemoveAll(live); err != nil {
		return err
	}
	switch scene {
	case "dir", "rename", "stage":
		return errors.Join(os.MkdirAll(live+"/d", 0o755), write(live+"/secret"), write(live+"/d/secret"))
	case "parent":
		return errors.Join(os.MkdirAll(live+"/p/q", 0o755), write(live+"/p/q/secret"))
	}
	return write(live)
}

func write(path string) error { return os.WriteFile(path, []byte("harmless "+path), 0o644) }

// decoy makes what is swapped in.
func decoy(scene, outside, path string) error {
	switch scene {
	case "dir", "rename", "stage":
		return os.Symlink(outside, path)
	case "parent":
		return errors.Join(os.Mkdir(path, 0o755), os.Symlink(outside+"/p", path+"/p"))
	case "file":
		return os.Symlink(outside+"/secret", path)
	case "fifo":
		return unix.Mkfifo(path, 0o666)
	case "chardev":
		return unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5)))
	case "blockdev":
		return unix.Mknod(path, unix.S_IFBLK|0o666, int(unix.Mkdev(7, 200)))
	}
	return fmt.Errorf("no scene %q", scene)
}

// swap swaps once and counts what succeeded: a restore puts another tree in
// place meanwhile.
func swap(scene, outside string, p pair) int {
	switch scene {
	case "rename":
		away := p.decoy + ".away"
		if os.Rename(p.live, away) != nil {
			return 0
		}
		_ = os.Symlink(outside, p.live)
		_ = os.Remove(p.live)
		_ = os.Rename(away, p.live)
		return 2
	case "stage":
		return stages(p)
	case "parent": // the component above the one that stays a directory
		return exchange(p.live+"/p", p.decoy+"/p")
	}
	return exchange(p.live, p.decoy)
}

func exchange(a, b string) int {
	if unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE) != nil {
		return 0
	}
	return 1
}

// stages swaps names in whatever snap has beside the live directory, as it is
// made and as it is removed: the container's root is the host's.
func stages(p pair) int {
	count := 0
	entries, err := os.ReadDir("/vol/top")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fatal(err)
	}
	for _, e := range entries {
		if e.Name()[0] == '.' {
			count += exchange(filepath.Join("/vol/top", e.Name(), "0", filepath.Base(p.live)), p.decoy)
			count += exchange(filepath.Join("/vol/top", e.Name(), "0", filepath.Base(p.live), "d"), p.decoy)
		}
	}
	return count
}
