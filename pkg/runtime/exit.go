package runtime

// Exit is what an engine knows of a container that does not run.
type Exit struct {
	Policy     Policy // its restart policy
	Code       int    // of its last process
	StopSignal int    // the signal with which the engine asks the container to end
	Restarts   int    // how often the engine has started it again
	Restarting bool   // the engine is about to start it again
	OOM        bool   // the kernel killed it for want of memory
	Failed     bool   // its last start failed
}

// Crashed reports whether the container ended although nobody asked for that. No engine
// says which containers somebody has stopped, so it is concluded:
//
//   - The engine starts a container with the policy always or unless-stopped again,
//     whatever its exit code. If it does not run and is not about to, it was stopped on
//     purpose, or the engine could not start it.
//   - With on-failure the engine gives up after so many restarts. Before that, a failed
//     container that does not run was stopped on purpose.
//   - Without a policy the exit code decides: 0 is the end of the work; 137, 143 and that
//     of the container's own stop signal are what a stop leaves. Whoever stops a program
//     that answers the signal with another code, such as 1, leaves what a crash leaves,
//     and snap starts it.
func (x Exit) Crashed() bool {
	switch {
	case x.Restarting || x.Failed:
		return true
	case x.Policy.Name == "always" || x.Policy.Name == "unless-stopped":
		return false
	case x.Policy.Name == "on-failure":
		return x.Code != 0 && x.Policy.Retries > 0 && x.Restarts >= x.Policy.Retries
	case x.OOM:
		return true
	}
	const killed, terminated = 128 + 9, 128 + 15
	return x.Code != 0 && x.Code != killed && x.Code != terminated && x.Code != 128+x.StopSignal
}
