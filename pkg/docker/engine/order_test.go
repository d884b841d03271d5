package engine

import (
	"slices"
	"testing"

	"github.com/docker/docker/api/types/container"

	"github.com/tiny-forge/snap/pkg/compose"
	"github.com/tiny-forge/snap/pkg/runtime"
)

func TestStartsInTheOrderOfDependencies(t *testing.T) {
	made := func(service, depends string) *Container {
		return &Container{Container: runtime.Container{ID: service, Service: service}, Raw: container.InspectResponse{
			Config: &container.Config{Labels: map[string]string{compose.LabelDepends: depends}}}}
	}
	var got []string
	for _, c := range InOrder([]*Container{
		made("a", "c:service_healthy:false,x:service_started:true"), made("b", "a:service_started:false"),
		made("c", "d:service_started:false"), made("d", "c:service_started:false"), made("", ""),
	}) {
		got = append(got, c.Service)
	}
	if want := []string{"d", "c", "a", "b", ""}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
