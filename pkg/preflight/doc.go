// Package preflight finds out, before anything changes, what a restore would do, what
// a capture would find, and what stands in their way.
//
// A [Host] is one workload on this host as the config, the store and the engine show
// it now. [Host.Restore] and [Host.Capture] run their checks in order and return a
// [Plan], or the refusal with which the operation would end. A capture makes those
// checks of a restore that depend on the config and on the host alone, for a snapshot
// that could not be restored is no use.
//
// The only thing written is a wrapper in which an exchange is tried on each filesystem.
// A transaction records it, so that a crash leaves nothing unnamed.
//
// A plan of a restore has a hash of what it rests on ([Plan.Hash]). A [Request] with the hash
// of a plan that was shown before is refused if that plan is no longer true.
//
// What was found may change the moment after. The restore looks again at what it relies
// on, with the same functions: [Host.Users], [Host.SamePlaces] and [Unheld].
package preflight
