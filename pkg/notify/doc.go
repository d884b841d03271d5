// Package notify tells the outside how an operation went: in a message through one of
// the services of shoutrrr ([Send]), and in a ping of a service that raises an alarm when
// it hears nothing ([Ping]).
//
// What is told is never worth the operation: whoever calls has its outcome already, both
// have a deadline, and an error is only a warning. URLs hold tokens, so no error here
// repeats a URL, or a text that somebody else made of one: [Reason] knows the kinds of
// failures, and says one of its own words. [Read] takes URLs from a file that nobody else
// may read.
//
// Not promised: that a message arrives. A service may take it and lose it; the alarm for
// that is the ping that does not come.
//
// The services are others' code: they may allocate what a server sends them, log what
// they are given, or panic. So the door runs Send in a process of its own.
package notify
