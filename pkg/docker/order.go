package docker

import (
	"context"
	"slices"
	"strings"
	"time"
)

// composeDepends lists what a container of Compose waits for:
// "db:service_healthy:false,job:service_completed_successfully:false".
const composeDepends = "com.docker.compose.depends_on"

const whenHealthy = "service_healthy"

// patience bounds the wait for one dependency: bringing containers back waits
// for health only to start them in the order that the Compose file asks for.
const patience = 30 * time.Second

// dependencies returns the services that a container is started after, and
// under which condition.
func dependencies(b *box) map[string]string {
	out := map[string]string{}
	for _, item := range strings.Split(b.label(composeDepends), ",") {
		if service, rest, ok := strings.Cut(item, ":"); ok {
			condition, _, _ := strings.Cut(rest, ":")
			out[service] = condition
		}
	}
	return out
}

// inOrder sorts containers so that each comes after those it depends on. Those
// that depend on nothing, or on one another, keep their places.
func inOrder(boxes []*box) []*box {
	var out []*box
	visiting := map[string]bool{}
	var visit func(b *box)
	visit = func(b *box) {
		if visiting[b.ID] {
			return
		}
		visiting[b.ID] = true
		deps := dependencies(b)
		for _, other := range boxes {
			if _, ok := deps[other.Service]; ok && other.Service != "" {
				visit(other)
			}
		}
		out = append(out, b)
	}
	for _, b := range boxes {
		visit(b)
	}
	return out
}

// awaitDependencies waits until the containers that b wants healthy are so, or
// say that they are not. It gives up in silence: b is started in any case.
func (e *engine) awaitDependencies(ctx context.Context, b *box, boxes []*box) error {
	for service, condition := range dependencies(b) {
		i := slices.IndexFunc(boxes, func(o *box) bool { return o.Service == service })
		if condition != whenHealthy || i < 0 {
			continue
		}
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
			now, err := e.inspect(ctx, boxes[i].ID)
			if err != nil {
				return err
			}
			if now == nil || !now.active() || now.raw.State.Health == nil || now.raw.State.Health.Status != "starting" {
				break
			}
			if err := sleep(ctx, poll); err != nil {
				return err
			}
		}
	}
	return nil
}
