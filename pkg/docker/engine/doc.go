// Package engine has the connection to the Docker engine, and the single steps from
// which pkg/docker brings a workload down and up: one container, one step.
//
// [Engine.Inspect] and [Engine.List] show containers as the engine has them. The other
// methods change one container, or wait for it. Each step tolerates that it is already
// done, by an earlier call that was cut short or by somebody else. So a caller that does
// not know how far it got takes all its steps again.
//
// A step does not know workloads: which containers there are, in which order they
// change, and what follows from an error is for the caller to say. [Refused] tells the
// two kinds of errors apart: after a refusal the state of the container is known, and
// after [runtime.ErrUnreachable] it is not.
//
// What snap knows of the engine's own habits is here too: what a crash looks like
// ([Engine.Inspect]), when the engine probes a container ([Engine.Calm],
// [Engine.WaitAll]), and what it forgets when a start fails ([Engine.Start]).
package engine
