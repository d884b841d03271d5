package docker

import (
	"context"

	"github.com/docker/docker/api/types/filters"

	"github.com/tiny-forge/snap/pkg/runtime"
)

// dataApp is a workload without containers of its own. Those of also_stop are
// stopped for it and started again all the same.
type dataApp struct{ e *engine }

func (dataApp) filter(context.Context) (filters.Args, bool, error) {
	return filters.Args{}, false, nil
}

func (dataApp) check(context.Context, map[string]runtime.Pin, []*box) error { return nil }

func (a dataApp) redeploy(ctx context.Context, r runtime.Redeploy) error {
	return a.e.restoreAlso(ctx, r.Before)
}

func (a dataApp) resume(ctx context.Context, before []runtime.Container) error {
	return a.e.restoreAlso(ctx, before)
}

func (a dataApp) settle(ctx context.Context, before []runtime.Container) error {
	return a.e.restoreAlso(ctx, before)
}

// volumes returns none: the config lists them.
func (dataApp) volumes(context.Context) ([]runtime.Volume, []string, error) { return nil, nil, nil }

func (dataApp) upToDate(context.Context) (bool, error) { return true, nil }
