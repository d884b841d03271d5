package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stage is an app with a volume that has been captured in every way.
type stage struct {
	*bench
	app     *app
	files   []file // what the volume was made of
	sid     string // snap's snapshot of it
	restic  job    // restic's
	archive string // tar's
}

// scene is a volume, what happens to it, and who brings it back.
type scene struct {
	name  string
	files []file
	// change makes the volume differ from its snapshot and returns the files that do.
	change func(dir string, files []file, round int) ([]file, error)
	takes  func(method) bool
	// hot touches every file again and again for as long as the app answers.
	hot    bool
	rounds int // 0: as many as usual, for those that a target is about
}

// The scenes whose names the targets and the picture go by.
const (
	sceneEmpty = "empty volume"
	sceneTenth = "a tenth of the bytes"
	sceneTen   = "ten times the bytes"
	sceneMany  = "many small files"
	sceneHot   = "everything hot"
)

func sceneMiB(mib int) string { return fmt.Sprintf("%d MiB", mib) }

func onlySnap(m method) bool  { return strings.HasPrefix(m.name, whoSnap) }
func byDefault(m method) bool { return m.name == whoSnap }

// scenes are the volumes of the downtime scenarios. A change is of one file in a
// hundred, all of it; in the pair of a tenth and ten times it is of the same
// number of bytes.
func (b *bench) scenes() []scene {
	rewrite := func(dir string, files []file, round int) ([]file, error) {
		changed, _, err := scatter(dir, files, round)
		return changed, err
	}
	everybody := func(method) bool { return true }
	// Not quite empty: restic takes no snapshot of nothing.
	list := []scene{{name: sceneEmpty, files: appFiles(1, 1<<10, seedApp), takes: everybody}}
	for _, mib := range b.plan.AppMiB {
		list = append(list, scene{name: sceneMiB(mib), files: appFiles(b.plan.AppFiles, int64(mib)<<20, seedApp), change: rewrite, takes: everybody})
		if mib < slices.Max(b.plan.AppMiB) { // a point of the picture, no target
			list[len(list)-1].rounds = 1
		}
	}
	if b.plan.Tiny { // enough to see that all of it works
		return append(list, scene{name: sceneHot, files: list[1].files, change: rewrite, takes: onlySnap, hot: true})
	}
	largest := int64(slices.Max(b.plan.AppMiB)) << 20
	each := largest / 10 / int64(b.plan.AppFiles)
	same := func(dir string, files []file, round int) ([]file, error) { return dab(dir, files, round, each) }
	list = append(list,
		scene{name: sceneTen, files: appFiles(b.plan.AppFiles, largest, seedApp), change: same, takes: byDefault, rounds: 3}, // of two, one that is odd would count for half
		scene{name: sceneHot, files: appFiles(b.plan.AppFiles, largest, seedApp), change: same, takes: onlySnap, hot: true, rounds: 1},
		scene{name: sceneTenth, files: appFiles(b.plan.AppFiles, largest/10, seedApp), change: same, takes: byDefault},
		scene{name: sceneMany, files: appFiles(b.plan.ManyFiles, int64(b.plan.ManyFiles)<<10, seedMany), takes: byDefault})
	return list
}

// downtime measures for how long an app is away while its data is brought back.
func (b *bench) downtime(ctx context.Context) error {
	if !b.engine {
		b.report.note("no Docker engine answers: the downtime scenarios were left out")
		b.say("no Docker engine answers: no downtime scenarios")
		return nil
	}
	var suffix [4]byte
	rand.Read(suffix[:])
	name := "snap-bench-" + hex.EncodeToString(suffix[:])
	dir := b.place.path("app")
	defer os.RemoveAll(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	a, err := b.newApp(ctx, name, filepath.Join(dir, "live"), filepath.Join(dir, "store"))
	if err != nil {
		return err
	}
	defer a.remove()
	var last *stage
	for _, sc := range b.scenes() {
		if last == nil || !slices.Equal(last.files, sc.files) {
			if last, err = b.newStage(ctx, a, dir, sc); err != nil {
				return fmt.Errorf("downtime: %s: %w", sc.name, err)
			}
		}
		if err := b.play(ctx, last, sc); err != nil {
			return err
		}
	}
	return nil
}

// newStage fills the volume and captures it in every way that the scene needs.
func (b *bench) newStage(ctx context.Context, a *app, dir string, sc scene) (*stage, error) {
	b.say("downtime: %s: making the volume", sc.name)
	s := &stage{bench: b, app: a, files: sc.files, restic: job{live: a.live, repo: filepath.Join(dir, "restic")}, archive: filepath.Join(dir, "tar.gz")}
	if err := errors.Join(removeAll(s.restic.repo), os.RemoveAll(s.archive), clearDir(a.live)); err != nil {
		return nil, err
	}
	if err := makeFiles(a.live, sc.files); err != nil {
		return nil, err
	}
	_, t, err := b.snapRun(ctx, a.config, "capture", a.name)
	if err != nil {
		return nil, err
	}
	s.sid = t.SID
	for _, m := range b.methods() {
		if !sc.takes(m) {
			continue
		}
		switch m.name {
		case whoResticInPlace:
			if err := a.restic.prepare(ctx, s.restic); err != nil {
				return nil, err
			}
			if _, err := a.restic.capture(ctx, s.restic); err != nil {
				return nil, err
			}
		case whoTarInPlace: // the archive is that of the two others as well
			if _, err := (&packer{compress: compressor()}).capture(ctx, job{live: a.live, repo: s.archive}); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// compressor is the quickest that makes a .tar.gz.
func compressor() command {
	if have("pigz") {
		return cmd("pigz", "-1")
	}
	return cmd("gzip", "-1")
}

// clearDir removes what is in a directory, which containers are bound to.
func clearDir(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	return err
}

// play lets the methods take turns at bringing the volume back.
func (b *bench) play(ctx context.Context, s *stage, sc scene) error {
	var turns []turn
	for _, m := range b.methods() {
		if !sc.takes(m) {
			continue
		}
		ranked := m.name == whoSnap || m.name == whoAfter && sc.name == sceneMiB(slices.Max(b.plan.AppMiB))
		turns = append(turns, turn{m.name, ranked, func(round int) error {
			return s.once(ctx, sc, m, round)
		}})
	}
	limits := b.limits()
	if sc.rounds > 0 {
		limits.least, limits.most, limits.within = sc.rounds, sc.rounds, time.Hour
	}
	return b.rounds(ctx, "downtime: "+sc.name, limits, nil, turns)
}

// once changes the volume, brings it back, and takes down how long the app was
// away by the word of who watched from outside, and by snap's own.
func (s *stage) once(ctx context.Context, sc scene, m method, round int) error {
	var changed []file
	if sc.change != nil {
		var err error
		if changed, err = sc.change(s.app.live, s.files, round); err != nil {
			return err
		}
	}
	if err := s.place.settle(s.app.live, s.restic.repo, s.archive); err != nil {
		return err
	}
	// What was just changed is hot for a second. An operator is not that quick.
	if !s.plan.Tiny {
		if err := pause(ctx, 1200*time.Millisecond); err != nil {
			return err
		}
	}
	size, err := measureTree(s.app.live)
	if err != nil {
		return err
	}
	if err := s.touchFor(ctx, size); err != nil {
		return err
	}
	w, err := newWatch(ctx, s.app.url)
	if err != nil {
		return err
	}
	hot, cool := context.WithCancel(ctx)
	defer cool()
	var heat <-chan error
	if sc.hot {
		heat = keepHot(hot, s.app.live, s.files, w.gone)
	}
	start := time.Now()
	word, phases, failed := m.bring(ctx, s)
	took := time.Since(start).Seconds()
	away, err := w.end(ctx)
	if cool(); heat != nil {
		err = errors.Join(err, <-heat)
	}
	if err := errors.Join(failed, err); err != nil {
		return err
	}
	if err := s.verify(changed); err != nil {
		return err
	}
	s.report.add(key{"downtime", sc.name, m.name, outage}, away.Seconds())
	s.report.add(key{"downtime", sc.name, m.name, seconds}, took)
	if onlySnap(m) {
		s.report.add(key{"downtime", sc.name, m.name, told}, word)
		s.report.add(key{"downtime", sc.name, m.name, inner}, m.inner(phases))
		for name, value := range phases {
			s.report.add(key{"downtime", sc.name, m.name, phaseOf + name}, value)
		}
	}
	s.say("downtime: %s, round %d: %s: away %.2f s (its own word: %.2f s), %.2f s in all", sc.name, round+1, m.name, away.Seconds(), word, took)
	return s.tidy()
}

// verify compares the files that had been changed with what they were.
func (s *stage) verify(changed []file) error {
	for _, f := range changed {
		content, err := os.ReadFile(filepath.Join(s.app.live, f.path))
		if err != nil {
			return err
		}
		if !bytes.Equal(content, f.content()) {
			return fmt.Errorf("%s is not what it was", f.path)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// keepHot sets the times of every file again and again, by path, so that it
// holds none open, until gone is closed.
func keepHot(ctx context.Context, dir string, files []file, gone <-chan struct{}) <-chan error {
	ended := make(chan error, 1)
	go func() {
		for {
			for _, f := range files {
				select {
				case <-gone:
					ended <- nil
					return
				case <-ctx.Done():
					ended <- errors.New("it never stopped")
					return
				default:
				}
				if err := touch(filepath.Join(dir, f.path)); err != nil {
					ended <- err
					return
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return ended
}

// touch sets the times of a file to now.
func touch(path string) error {
	return unix.UtimesNanoAt(unix.AT_FDCWD, path, nil, 0)
}
