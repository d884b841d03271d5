// Package e2e tests snap from outside, on a real application. It builds the program,
// runs it as an operator would, and asks the application for its data. The tests
// have the build tag e2e; "make e2e" runs them.
package e2e
