// Package e2e proves snap from outside, on a real application: it builds the
// program, runs it as an operator would, and asks the application what it
// finds. Its tests carry the build tag e2e; "make e2e" runs them.
package e2e
