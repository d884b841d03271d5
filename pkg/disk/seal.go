package disk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A sealed document is a small JSON object with its own checksum:
//
//	{
//	  "format": "snap-manifest",
//	  "version": 1,
//	  "checksum": "sha256:9f86d081884c7d65…",
//	  …
//	}
//
// The checksum is the SHA-256 of the whole file, computed with zeros in place of the
// checksum's own 64 hexadecimal digits.

// Seal is the head that every sealed document embeds.
type Seal struct {
	Format   string `json:"format"`
	Version  int    `json:"version"`
	Checksum string `json:"checksum"`
}

// Sealed is a document with a [Seal].
type Sealed interface{ seal() *Seal }

func (s *Seal) seal() *Seal { return s }

var (
	// ErrDamaged means that a document was truncated or altered, or that it never was
	// a document of this format.
	ErrDamaged = errors.New("damaged")
	// ErrTooNew means that a document is intact and of a version that this program
	// does not know.
	ErrTooNew = errors.New("written by a newer version of snap")
)

const sumPrefix = `"checksum": "sha256:`

var zeroSum = bytes.Repeat([]byte{'0'}, 2*sha256.Size)

// MarshalSealed sets the format, the version and the checksum of doc and encodes it.
func MarshalSealed(doc Sealed, format string, version int) ([]byte, error) {
	*doc.seal() = Seal{format, version, "sha256:" + string(zeroSum)}
	data, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", format, err)
	}
	data = append(data, '\n')
	sum := sha256.Sum256(data)
	at := bytes.Index(data, []byte(sumPrefix)) + len(sumPrefix)
	hex.Encode(data[at:], sum[:])
	doc.seal().Checksum = "sha256:" + hex.EncodeToString(sum[:])
	return data, nil
}

// UnmarshalSealed decodes data into doc. It first verifies the checksum, then the
// format and the version, then the fields; an unknown field is damage. The error
// wraps [ErrDamaged] or [ErrTooNew].
func UnmarshalSealed(data []byte, doc Sealed, format string, version int) error {
	if err := checkSum(data); err != nil {
		return err
	}
	var head Seal
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if head.Format != format {
		return fmt.Errorf("%w: the format is %q, expected %q", ErrDamaged, head.Format, format)
	}
	if head.Version > version {
		return fmt.Errorf("%w: version %d, and this program reads up to version %d", ErrTooNew, head.Version, version)
	}
	if head.Version < 1 {
		return fmt.Errorf("%w: version %d", ErrDamaged, head.Version)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(doc); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: data after the document", ErrDamaged)
	}
	return nil
}

func checkSum(data []byte) error {
	at := bytes.Index(data, []byte(sumPrefix))
	if at < 0 || at+len(sumPrefix)+len(zeroSum) > len(data) {
		return fmt.Errorf("%w: no checksum", ErrDamaged)
	}
	at += len(sumPrefix)
	h := sha256.New()
	h.Write(data[:at])
	h.Write(zeroSum)
	h.Write(data[at+len(zeroSum):])
	want, got := hex.EncodeToString(h.Sum(nil)), string(data[at:at+len(zeroSum)])
	if want != got {
		return fmt.Errorf("%w: the checksum is %s, and that of the content is %s", ErrDamaged, got, want)
	}
	return nil
}
