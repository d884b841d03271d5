// Package runtime is the interface to the containers of a workload, and its words:
// what a container is, who else uses a volume, how to bring a workload up, and what
// can keep it down.
//
// # How to call it
//
// pkg/docker implements [Runtime], and pkg/restore calls it.
//
// A capture calls [Runtime.Quiesce] and then the [Thaw] that it returned. A restore
// calls [Runtime.Plan] before it stops anything, [Runtime.FenceAndStop] before the
// exchange, then [Runtime.Redeploy] after its commit or [Runtime.Resume] to go back.
// [Runtime.Settle] accepts an app that came up but is not healthy. What the
// containers were before, the caller records from [Runtime.Containers].
//
// # What holds after a crash or an error
//
// A Runtime keeps nothing in memory between two calls but what a Thaw brings back,
// and Resume does the same from a record. FenceAndStop, Redeploy, Settle and Resume
// may be cut anywhere and called again, by another process. The engine carries out
// a request although its sender has died, so a container may still stop or start a
// moment after the crash.
//
// From FenceAndStop until Redeploy, Settle or Resume every container has the
// restart policy "no": no engine that starts and no reboot brings the app up.
//
// Each method says what holds after an error. [ErrUnreachable], [ErrImageMissing],
// [ErrPortTaken], [ErrCannotFence], [ErrCannotPause], [*Refusal], [*Unhealthy],
// [*Crashed] and [*Missing] tell the causes apart.
//
// # Not promised
//
// What Containers and Users return is a look at one moment: another tool may start
// a container right after it. Healthy is what the container's own health check
// says, at its deadline. The images are not kept: when somebody removes one, Plan says so, and
// Resume cannot make its container anew.
//
// pkg/journal records the words of this package, so the JSON names of [Container],
// [Policy], [Mount] and [Pin] belong to the format of the records.
package runtime
