package disk

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
	"time"
)

// NewID returns a new name: the UTC time to the second and six random hexadecimal
// digits, "20261123T140501Z-3f9a2c". Such names tell what snapshots and transactions
// leave beside the data from everything else.
func NewID(now time.Time) string {
	var b [3]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return now.UTC().Format("20060102T150405Z") + "-" + hex.EncodeToString(b[:])
}

var idForm = regexp.MustCompile(`^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$`)

// ValidID reports whether s has the form of NewID. Callers check it before s
// becomes part of a path.
func ValidID(s string) bool { return idForm.MatchString(s) }
