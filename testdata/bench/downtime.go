package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// The rows of the table of downtimes, and what the ways to bring data back are
// called there. All but snap are what operators do by hand.
const (
	rowEmpty = "downtime, all but empty volume"
	rowAdded = "downtime added by the data, "
	rowMany  = rowAdded + "100,000 files of 1 KiB"

	whoAfter       = "snap, --guard after"
	whoResticPlace = "restic in place"
	whoTarPlace    = "tar in place"
	whoSwap        = "stop, extract, swap"
	whoAhead       = "extract, stop, swap"
)

// method is a way to bring a volume back to its snapshot while an app lives on
// it, in the commands that an operator would type. It ends when the app has been
// started again, which need not answer yet.
type method struct{ name, script string }

// A container binds a directory, not a path, so after a swap it sees the new one
// once it is started again.
const (
	stopApp  = `docker stop "$name"; `
	startApp = `docker start "$name"`
	extract  = `mkdir "$out"; tar xzf "$repo.tar.gz" -C "$out"; `
	exchange = `mv "$live" "$live.old"; mv "$out" "$live"; `
	bySnap   = `sid=$(<"$repo.sid"); "$snap" --config "$repo.yaml" restore "$name" "$sid" --confirm "$sid" `
	byRestic = `export RESTIC_REPOSITORY=$repo.restic; `
)

var methods = []method{
	{whoSnap, bySnap},
	{whoAfter, bySnap + "--guard after"},
	// Newer versions rewrite only what differs; older ones write everything again.
	{whoResticPlace, byRestic + `newer=; ! grep -q -e --overwrite <<<"$(restic restore --help)" || newer='--overwrite if-changed --delete'; ` +
		stopApp + `restic -q restore latest --target "$live" $newer; ` + startApp},
	{whoTarPlace, stopApp + `find "$live" -mindepth 1 -delete; tar xzf "$repo.tar.gz" -C "$live"; ` + startApp},
	{whoSwap, stopApp + extract + exchange + startApp},
	{whoAhead, extract + stopApp + exchange + startApp},
}

// scene is a volume of which one file in a hundred changes before each run. snap
// brings it back in every round, all others in the first alone.
type scene struct {
	row     string // of the table
	files   []file
	methods []method
}

func (b *bench) scenes() []scene {
	// Not quite empty: restic takes no snapshot of nothing.
	list := []scene{{rowEmpty, appFiles(1, 1<<10), methods}}
	for _, size := range b.appMiB {
		list = append(list, scene{fmt.Sprintf(rowAdded+"%d MiB", size), appFiles(2_000/b.shrink, int64(size)*mib), methods})
	}
	return append(list, scene{rowMany, appFiles(100_000/b.shrink, 100_000<<10/int64(b.shrink)), methods[:1]})
}

// downtime measures for how long an app is away while its data is brought back.
// The app is testdata/app in a container, deployed with snap on an empty volume;
// its image is one file and needs no registry. Its health is asked for often, so
// that the wait for the next time is not what is measured.
func (b *bench) downtime(ctx context.Context) (err error) {
	if !b.engine {
		b.note("no Docker engine answers: the downtime was left out")
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listen := l.Addr().String() // where nothing listens any more
	l.Close()
	os.Setenv("name", "snap-bench-"+strings.ToLower(rand.Text()[:8]))
	os.Setenv("listen", listen)
	live := filepath.Join(b.dir, "app/live")
	s := &stage{bench: b, url: "http://" + listen + "/healthz", job: job{live, filepath.Join(b.dir, "app/repo"), live + ".new"}}
	defer func() {
		// Also after an interrupt.
		_, rerr := run(s.script(context.Background(), `docker ps -aqf "label=snap.workload=$name" | xargs -r docker rm -f
			docker network rm "$name"_default || true; docker image rm "snap-bench/$name:latest" || true; rm -rf "$(dirname "$live")"`))
		err = errors.Join(err, rerr, os.Unsetenv("name"), os.Unsetenv("listen")) // what follows has no app
	}()
	if _, err := run(s.script(ctx, `mkdir -p "$live"; tar cf - -C "$(dirname "$app")" app | docker import --change 'ENTRYPOINT ["/app"]' - "snap-bench/$name:latest"`+"\n"+snapConfig+`
cat >>"$repo.yaml" <<END
  $name:
    image: snap-bench/$name:latest
    ports: ["$listen:8080"]
    restart: unless-stopped
    healthcheck: {test: ["CMD", "/app", "healthcheck"], interval: 500ms}
    volumes: [{scope: absolute, source: $live, target: /data}]
END
"$snap" --config "$repo.yaml" deploy "$name"`)); err != nil {
		return err
	}
	for _, sc := range b.scenes() {
		b.say("%s: making the volume", sc.row)
		if _, err := run(s.script(ctx, `rm -rf "$repo".[rt]*; find "$live" -mindepth 1 -delete`)); err != nil {
			return err
		}
		if err := makeFiles(live, sc.files); err != nil {
			return err
		}
		if _, err := run(s.script(ctx, snapCapture+`
			gzip=$(command -v pigz || echo gzip); tar cf - -C "$live" . | "$gzip" -1 >"$repo.tar.gz"
			! command -v restic || { `+byRestic+`restic -q init; cd "$live"; restic -q backup .; }`)); err != nil {
			return err
		}
		var turns []turn
		for _, m := range sc.methods {
			if m.name != whoResticPlace || have("restic") {
				turns = append(turns, turn{m.name, m.name == whoSnap, func(round int) error { return s.once(ctx, sc, m, round) }})
			}
		}
		if err := s.inRounds(ctx, sc.row, b.rounds, turns); err != nil {
			return err
		}
	}
	return nil
}

// stage is the app and its volume, which was captured in every way.
type stage struct {
	*bench
	url string
	job // of all methods: the archive of tar is beside the repository
}

// once changes the volume, brings it back, and reports how long a client of the
// app had no answer.
func (s *stage) once(ctx context.Context, sc scene, m method, round int) (err error) {
	var changed []file
	if sc.row != rowEmpty {
		if changed, _, err = rewrite(s.live, sc.files, round); err != nil {
			return err
		}
	}
	time.Sleep(notHot)
	if err := s.settle(ctx, int64(len(sc.files))*sc.files[0].bytes, filepath.Dir(s.live)); err != nil {
		return err
	}
	w := newWatch(ctx, s.url)
	time.Sleep(50 * time.Millisecond) // for its first answers
	_, err = run(s.script(ctx, m.script))
	away, werr := w.end(ctx)
	if err := errors.Join(err, werr); err != nil {
		return err
	}
	for _, f := range changed {
		if content, err := os.ReadFile(filepath.Join(s.live, f.path)); err != nil || !bytes.Equal(content, f.content()) {
			return fmt.Errorf("%s is not what it was: %v", f.path, err)
		}
	}
	s.say("%s, round %d: %s: away %.2f s", sc.row, round+1, m.name, away)
	if sc.row != rowEmpty { // the app's own stop and start is no part of it
		own, _ := median(s.report.values(rowEmpty, m.name))
		away -= own
	}
	s.report.add(sc.row, "s", m.name, away)
	// What an operator would remove in the end.
	return errors.Join(os.RemoveAll(s.live+".old"), os.RemoveAll(s.out))
}

// watch asks the app for its health every few milliseconds, as a client would,
// from when it is made until its end.
type watch struct {
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	seen []sample
}

// sample is whether there was an answer at a moment.
type sample struct {
	at     time.Time
	answer bool
}

func newWatch(ctx context.Context, url string) *watch {
	asking, stop := context.WithCancel(ctx)
	w := &watch{stop: stop}
	// A connection of its own each time: one that is kept says nothing of the next.
	client := http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	w.done.Go(func() {
		for ; asking.Err() == nil; time.Sleep(4 * time.Millisecond) {
			resp, err := client.Get(url)
			answer := err == nil && resp.StatusCode == http.StatusOK
			if err == nil {
				resp.Body.Close()
			}
			w.mu.Lock()
			w.seen = append(w.seen, sample{time.Now(), answer})
			w.mu.Unlock()
		}
	})
	return w
}

// end waits until the app, which has been away, has been back for a moment, and
// returns for how many seconds it was away.
func (w *watch) end(ctx context.Context) (float64, error) {
	defer w.done.Wait()
	defer w.stop()
	for begin := time.Now(); ctx.Err() == nil && time.Since(begin) < time.Minute; time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		before, back := outage(w.seen)
		w.mu.Unlock()
		if !back.IsZero() && time.Since(back) > 200*time.Millisecond {
			return back.Sub(before).Seconds(), nil
		}
	}
	return 0, errors.Join(ctx.Err(), errors.New("the app was never away, or did not come back within a minute"))
}

// outage is from the last answer before the first silence to the first answer
// after the last silence; back is zero as long as there is none.
func outage(seen []sample) (before, back time.Time) {
	silent := false
	for _, s := range seen {
		switch {
		case !s.answer:
			silent, back = !before.IsZero(), time.Time{}
		case !silent:
			before = s.at
		case back.IsZero():
			back = s.at
		}
	}
	return before, back
}
