package docker

import (
	"errors"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"

	"github.com/tiny-forge/snap/pkg/docker/dockertest"
	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// tagged says which image each reference means, so that a test sees when one moves.
func (b *bench) tagged(refs ...string) string {
	b.Helper()
	var out []string
	for _, ref := range refs {
		found, err := b.api.ImageInspect(b.Context(), ref)
		b.must(err)
		out = append(out, ref+" "+found.ID)
	}
	return strings.Join(out, "\n")
}

// The image that comes up: the one that runs, the one that the Compose file names by
// now, or the one that the snapshot was taken on; always under a name.
func TestComposeImagesOfARestore(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	one, first := b.image("1")
	two, second := b.image("2")
	file := func(ref string) string {
		return b.file("compose.yaml", "name: "+b.name, "services: {web: {image: "+ref+", volumes: ['./data:/data'], "+check+"}}")
	}
	path := file(one)
	b.byHand(nil, "up", "-d")
	taken := map[string]runtime.Pin{"web": {Image: one, ImageID: first}}
	upgraded := func() {
		t.Helper()
		file(two)
		b.byHand(nil, "up", "-d")
	}
	comes := func(what string, want runtime.Want, then runtime.Then, ref, id string) {
		t.Helper()
		fates, err := b.again(b.open(b.compose(path)), want)
		b.must(err)
		if f := fates["web-1"]; f.Then != then || f.Up.Image != ref || f.Up.ImageID != id {
			t.Errorf("%s: the plan says %s on %+v", what, f.Then, f.Up)
		}
		raw := b.look(b.name + "-web-1")
		if raw.Image != id || raw.Config.Image != ref || !raw.State.Running {
			t.Errorf("%s: it runs %s (%s), want %s (%s)", what, raw.Config.Image, raw.Image, ref, id)
		}
	}
	upgraded()
	comes("running", runtime.Want{Image: runtime.ImageRunning, Taken: taken}, runtime.StartsAgain, two, second)
	comes("snapshot", runtime.Want{Image: runtime.ImageSnapshot, Taken: taken}, runtime.MadeAnew, one, first)
	comes("snapshot, and again", runtime.Want{Image: runtime.ImageSnapshot, Taken: taken}, runtime.StartsAgain, one, first)
	// It was pinned under the Compose file's reference: it is not made anew for that.
	comes("running, pinned", runtime.Want{}, runtime.MadeAnew, two, second)
	upgraded()
	file(one)
	comes("the file was set back", runtime.Want{Taken: taken}, runtime.MadeAnew, one, first)
	comes("config", runtime.Want{Image: runtime.ImageConfig}, runtime.StartsAgain, one, first)

	file("snaptest-none:1")
	r := b.open(b.compose(path))
	before, err := r.Containers(t.Context())
	b.must(err)
	for _, want := range []runtime.Want{{}, {Image: runtime.ImageConfig}, {Image: runtime.ImageSnapshot, Taken: map[string]runtime.Pin{"web": {Image: "gone:1", ImageID: "sha256:" + strings.Repeat("0", 64)}}}} {
		want.Before = before
		if _, err := r.Plan(t.Context(), want); !errors.Is(err, runtime.ErrImageMissing) {
			t.Errorf("%+v: %v, want ErrImageMissing", want, err)
		}
	}
}

// The reference means another image by now, and the old image has no name left. It
// gets one, and no name of the operator's moves.
func TestAnImageWithoutANameIsShownUnderOne(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, first := b.image("latest")
	file := func(greeting string) string {
		return b.file("compose.yaml", "name: "+b.name, "services: {web: {image: '"+ref+"', environment: {GREETING: "+greeting+"}, volumes: ['./data:/data'], "+check+"}}")
	}
	path := file("hello")
	b.byHand(nil, "up", "-d")
	_, second := b.image("latest")
	tags := b.tagged(ref)
	r := b.open(b.compose(path))

	fates, err := b.again(r, runtime.Want{})
	b.must(err)
	if f := fates["web-1"]; f.Then != runtime.StartsAgain || f.Up.ImageID != first || b.look(b.name+"-web-1").Image != first {
		t.Errorf("the image was pulled, and not deployed: %s because %s on %+v", f.Then, f.Why, f.Up)
	}

	file("goodbye")
	named := func(what string, fates map[string]runtime.Fate) {
		t.Helper()
		raw := b.look(b.name + "-web-1")
		if f := fates["web-1"]; raw.Image != first || f.Up.Image != ref || strings.HasPrefix(raw.Config.Image, "sha256:") || !strings.HasPrefix(raw.Config.Image, b.name+":") {
			t.Errorf("%s: it is shown as %s (%s), and planned on %s", what, raw.Config.Image, raw.Image, f.Up.Image)
		}
		if now := b.tagged(ref); now != tags {
			t.Errorf("%s: a reference was moved:\n%s\nbefore\n%s", what, now, tags)
		}
		if c := b.only(b.open(b.compose(path))); c.Image != ref {
			t.Errorf("%s: snap shows it as %s", what, c.Image)
		}
	}
	fates, err = b.again(b.open(b.compose(path)), runtime.Want{})
	b.must(err)
	named("made anew", fates)
	made := b.look(b.name + "-web-1").ID
	fates, err = b.again(b.open(b.compose(path)), runtime.Want{})
	b.must(err)
	named("and again", fates)
	if b.look(b.name+"-web-1").ID != made || fates["web-1"].Then != runtime.StartsAgain {
		t.Error("a container that snap had pinned was made anew")
	}
	fates, err = b.again(b.open(b.compose(path)), runtime.Want{Image: runtime.ImageConfig})
	b.must(err)
	if fates["web-1"].Then == runtime.StartsAgain {
		t.Error("config: the container starts again as it was")
	}
	if raw := b.look(b.name + "-web-1"); raw.Image != second || raw.Config.Image != ref {
		t.Errorf("config: %s on %s", raw.Config.Image, raw.Image)
	}
}

// An image that is gone keeps nobody down whose container still exists.
func TestAContainerWhoseImageIsGoneStartsAgain(t *testing.T) {
	b := newBench(t)
	dockertest.NeedCompose(t)
	ref, id := b.image("one")
	path := b.file("compose.yaml", "name: "+b.name, "services: {web: {image: '"+ref+"', volumes: ['./data:/data'], "+check+"}}")
	b.byHand(nil, "up", "-d")
	r, held := b.open(b.compose(path)), b.held()
	before, err := r.Containers(t.Context())
	b.must(err)
	b.must(r.FenceAndStop(t.Context(), 0))
	b.forget(id)
	_, err = r.Plan(t.Context(), runtime.Want{Before: before})
	b.must(err)
	b.must(r.Redeploy(t.Context(), held, runtime.Redeploy{Before: before, Pins: runtime.Containers(before).Pins()}))
	if now := b.only(r); now.ID != before[0].ID || !now.Running {
		t.Errorf("%+v", now)
	}
}

func TestAnImageWorkloadWhoseImageIsGoneStartsAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, id := b.image("one")
	r, held := b.open(b.app(ref, "restart: always", healthy)), b.held()
	old := b.deployed(r, held)
	before := []runtime.Container{old}
	b.must(r.FenceAndStop(t.Context(), 0))
	b.forget(id)
	fates, plan := b.planned(r, runtime.Want{Before: before})
	if f := fates[b.name]; f.Then != runtime.StartsAgain {
		t.Errorf("the plan says %+v", f)
	}
	for range 2 {
		b.must(r.Redeploy(t.Context(), held, runtime.Redeploy{Before: before, Pins: plan.Pins}))
		if now := b.only(r); now.ID != old.ID || !now.Running || now.Policy != old.Policy || now.Name != old.Name {
			t.Errorf("%+v\nbefore %+v", now, old)
		}
	}
}

// forget removes an image that a stopped container was made from.
func (b *bench) forget(id string) {
	b.Helper()
	if _, err := b.api.ImageRemove(b.Context(), id, image.RemoveOptions{Force: true}); err != nil {
		b.Skipf("this engine keeps the image of a stopped container: %v", err)
	}
	if _, err := b.api.ImageInspect(b.Context(), id); err == nil {
		b.Skip("this engine keeps the image of a stopped container")
	}
}

// A container of another config is not taken over unless the operator says so.
func TestAnotherConfigsContainerIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ref, _ := b.image("one")
	theirs := b.app(ref, healthy)
	r := b.open(theirs)
	b.deployed(r, b.held())
	ours := b.app(ref, healthy)
	ours.Config = "/etc/other/snap.yaml"
	r = b.open(ours)
	before, err := r.Containers(t.Context())
	b.must(err)
	_, err = r.Plan(t.Context(), runtime.Want{Before: before})
	refusal, ok := errors.AsType[*runtime.Refusal](err)
	if !ok || refusal.Code != runtime.OtherConfig || !strings.Contains(refusal.Reason, theirs.Config) || !strings.Contains(refusal.Hint, "--take-over") {
		t.Errorf("got %v, want other_config", err)
	}
	if up, err := r.UpToDate(t.Context()); up || err != nil {
		t.Errorf("up to date: %v, %v", up, err)
	}
	fates, err := b.again(r, runtime.Want{TakeOver: true})
	b.must(err)
	now := b.only(r)
	if fates[b.name].Then != runtime.MadeAnew || now.Bar != nil || b.look(now.ID).Config.Labels[engine.LabelConfig] != ours.Config {
		t.Errorf("taken over as %+v", b.look(now.ID).Config.Labels)
	}
	// One from before there was the label belongs to any config.
	c, err := r.e.Inspect(t.Context(), now.ID)
	b.must(err)
	delete(c.Raw.Config.Labels, engine.LabelConfig)
	if bar := b.open(theirs).bar(c); bar != nil {
		t.Errorf("an old container: %v", bar)
	}
}
