// Package compose is the host's docker compose command, and what Compose says: of a
// project's model, and in the labels of its containers. It knows no engine.
package compose
