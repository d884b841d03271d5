// Package docker brings the containers of a workload down and up again, through
// the Docker Engine API, and for a Compose workload through the host's own docker
// compose command.
//
// [Open] makes the [Runtime] of a workload. It asks the engine for nothing, so it
// also works while no engine answers; [Runtime.Ping] tells whether one does. The
// interface in pkg/runtime says in which order to call the methods, and what each of
// them promises and leaves when it fails; only what is particular to Docker is told
// here. The single steps, such as to stop one container, are in pkg/docker/engine. A
// Runtime may be used by several goroutines, and several Runtimes at once.
//
// # A Compose workload
//
// What becomes of its containers goes one way: look observes the engine and the model
// that Compose makes of the files, decide says what becomes of each container, and the
// plan, its refusals and the redeploy all go by that decision. A container that Compose
// would leave as it is starts again; only the others are made anew, by Compose.
//
// # When it fails
//
// What an interrupted call has done is read back from the engine: the containers of
// an image workload have the labels snap.workload, snap.config, snap.config-hash and
// snap.image, those of a Compose workload have Compose's own. So every method may be cut short
// between any two requests, by an error or by a kill, and called again by another
// process: Redeploy goes on with what it finds, and Resume undoes it.
//
// An error that is [runtime.ErrUnreachable] leaves the state of the containers
// unknown. Work that undoes what a failed call has done goes on after the caller's
// context has ended.
//
// # Not promised
//
// Compose removes the old container before it starts the new one. A container that
// was made anew therefore goes back by being made anew once more, on the image that it
// had, from the files as they are now.
//
// The engine is assumed to be this host's, reached over a unix socket, and a
// container that it reports as stopped to write nothing any more.
package docker
