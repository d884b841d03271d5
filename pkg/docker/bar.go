package docker

import (
	"fmt"

	"github.com/tiny-forge/snap/pkg/docker/engine"
	"github.com/tiny-forge/snap/pkg/runtime"
)

// The labels by which those who replace a container that stops mark it.
const (
	labelTask      = "com.docker.swarm.task.id"
	labelTaskOf    = "com.docker.swarm.service.name"
	labelPod       = "io.kubernetes.pod.name"
	labelNamespace = "io.kubernetes.pod.namespace"
)

// manager says who replaces a container with these labels when it stops, and how to
// scale it down instead; "" for nobody.
func manager(labels map[string]string) (who, release string) {
	switch {
	case labels[labelTask] != "" || labels[labelTaskOf] != "":
		return "a task of the Swarm service " + labels[labelTaskOf], "docker service scale " + labels[labelTaskOf] + "=0"
	case labels[labelPod] != "":
		return fmt.Sprintf("of the Kubernetes pod %s/%s", labels[labelNamespace], labels[labelPod]),
			fmt.Sprintf("kubectl -n %[1]s scale --replicas=0 KIND/NAME, which `kubectl -n %[1]s describe pod %[2]s` shows as Controlled By",
				labels[labelNamespace], labels[labelPod])
	}
	return "", ""
}

// bar returns why snap may not stop a container, nil when it may.
func (r *Runtime) bar(c *engine.Container) *runtime.Refusal {
	who, release := manager(c.Raw.Config.Labels)
	made, workload := c.Label(engine.LabelConfig), c.Label(engine.LabelWorkload)
	switch {
	case who != "":
		return &runtime.Refusal{
			Code: runtime.Managed, Reason: fmt.Sprintf("container %s is %s, which replaces it when it stops", c.Name, who),
			Hint: release + ", and scale it up again afterwards",
		}
	case c.Raw.HostConfig.AutoRemove:
		return &runtime.Refusal{
			Code: runtime.AutoRemove, Reason: fmt.Sprintf("container %s was started with --rm: stopping it would remove it", c.Name),
			Hint: "stop it yourself (docker stop " + c.Name + "), or start it without --rm",
		}
	case !c.Also && workload == r.w.Name && made != "" && made != r.w.Config:
		return &runtime.Refusal{
			Code: runtime.OtherConfig, Reason: fmt.Sprintf("container %s of workload %s was made from another config, %s", c.Name, workload, made),
			Hint: "use --config " + made + ", give the workload another name here, or take the container over with --take-over",
		}
	}
	return nil
}

// refuseToStop refuses containers that would not come back after a stop. Whose they
// are has been decided before.
func refuseToStop(containers []*engine.Container) error {
	list := make(runtime.Containers, len(containers))
	for i, c := range containers {
		list[i] = c.Container
	}
	return list.Barred(true)
}
