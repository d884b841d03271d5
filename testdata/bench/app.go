package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// app is testdata/app in a container, the workload of the downtime scenarios.
// Its container, network and image have a name that is nobody else's.
type app struct {
	bench  *bench
	name   string
	live   string // the volume
	config string
	url    string
	restic restic
}

// newApp makes the image, for it is one file and needs no registry, and deploys
// the app with snap on a volume that is empty.
func (b *bench) newApp(ctx context.Context, name, live, store string) (_ *app, err error) {
	a := &app{bench: b, name: name, live: live, config: store + ".yaml"}
	defer func() {
		if err != nil {
			a.remove()
		}
	}()
	listen, err := freePort()
	if err != nil {
		return nil, err
	}
	a.url = "http://" + listen + "/healthz"
	if _, err := pipe(ctx, nil, cmd("tar", "--create", "--file=-", "--directory="+filepath.Dir(b.app), filepath.Base(b.app)),
		cmd("docker", "import", "--change", `ENTRYPOINT ["/app"]`, "-", a.image())); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(live, 0o755); err != nil {
		return nil, err
	}
	// Its health is asked for often, so that waiting for the next time is not
	// what is measured; the engine asks for the first time after one interval.
	text := snapConfig(store, filepath.Dir(live), false) + fmt.Sprintf(`  %s:
    image: %s
    ports: ["%s:8080"]
    restart: unless-stopped
    healthcheck: {test: ["CMD", "/app", "healthcheck"], interval: 500ms}
    volumes:
      - {scope: absolute, source: %s, target: /data}
`, name, a.image(), listen, live)
	if err := os.WriteFile(a.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	_, _, err = b.snapRun(ctx, a.config, "deploy", name)
	return a, err
}

func (a *app) image() string { return "snap-bench/" + a.name + ":latest" }

// remove removes all that the engine has of it.
func (a *app) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also after an interrupt
	defer cancel()
	ids, _ := output(ctx, cmd("docker", "ps", "--all", "--quiet", "--filter", "label=snap.workload="+a.name))
	for _, id := range strings.Fields(ids) {
		run(ctx, cmd("docker", "rm", "--force", id))
	}
	run(ctx, cmd("docker", "network", "rm", a.name+"_default"))
	run(ctx, cmd("docker", "image", "rm", a.image()))
}

// stop and start are what an operator types.
func (a *app) stop(ctx context.Context) error {
	_, err := run(ctx, cmd("docker", "stop", a.name))
	return err
}

func (a *app) start(ctx context.Context) error {
	_, err := run(ctx, cmd("docker", "start", a.name))
	return err
}

// freePort is an address of this host on which nothing listens.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
