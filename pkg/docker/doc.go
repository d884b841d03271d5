// Package docker brings the containers of a workload down and up again,
// through the Docker Engine API, and for a Compose workload through the host's
// own docker compose command.
//
// [Open] makes the [Runtime] of a workload; it needs no engine that answers
// ([Runtime.Ping] asks for one). A Runtime is what pkg/restore calls a Runtime;
// what each method promises is said there, and here only what is particular to
// Docker.
//
// Nothing is kept in memory or on disk between calls. What an interrupted call
// has done is read back from the engine: the containers of an image workload
// carry the labels snap.workload, snap.config-hash and snap.image, those of a
// Compose workload Compose's own. So every method may be cut short between any
// two requests, and called again by another process.
//
// The engine is assumed to be this host's, reached over a unix socket, and a
// container that it reports as stopped to write nothing any more. The engine carries
// out a request whether or not the process that made it lives.
//
// Not promised: that Compose keeps a container which it replaces. It removes
// the old one before it starts the new one, so a Compose workload goes back by
// being made anew on the images it had.
package docker
