package disk

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"reflect"
	"strings"
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
// format and the version, then the fields; a key that is
// unknown, there twice, or in other letters ("SID") is damage. The error
// wraps [ErrDamaged] or [ErrTooNew].
func UnmarshalSealed(data []byte, doc Sealed, format string, version int) error {
	if err := checkSum(data); err != nil {
		return err
	}
	return UnmarshalUnsealed(data, doc, format, version)
}

// UnmarshalUnsealed is UnmarshalSealed for data whose checksum the caller verifies
// ([SealedReader]).
func UnmarshalUnsealed(data []byte, doc Sealed, format string, version int) error {
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
	k := keys{data: data, fields: map[reflect.Type]map[string]reflect.Type{}}
	if err := k.value(reflect.TypeOf(doc)); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}

// keys walks over JSON that is well-formed. It finds the keys of which encoding/json
// makes something that other readers do not: of two that are equal it takes the last,
// and it takes "SID" for "sid".
type keys struct {
	data   []byte
	at     int
	fields map[reflect.Type]map[string]reflect.Type
}

// value walks over a value that was decoded into a t; nil where it decodes itself.
func (k *keys) value(t reflect.Type) error {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch k.next() {
	case '{':
		return k.object(t)
	case '[':
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			t = t.Elem()
		} else {
			t = nil
		}
		for k.at++; k.next() != ']'; {
			if err := k.value(t); err != nil {
				return err
			}
		}
		k.at++
	case '"':
		k.text()
	default:
		for !bytes.ContainsRune([]byte(",]} \t\r\n"), rune(k.data[k.at])) {
			if k.at++; k.at == len(k.data) {
				break
			}
		}
	}
	return nil
}

func (k *keys) object(t reflect.Type) error {
	names := k.namesOf(t)
	seen := map[string]bool{}
	for k.at++; k.next() != '}'; {
		key := k.text()
		if strings.Contains(key, `\`) {
			if err := json.Unmarshal([]byte(`"`+key+`"`), &key); err != nil {
				return err
			}
		}
		if seen[key] {
			return fmt.Errorf("the key %q is there twice", key)
		}
		seen[key] = true
		var of reflect.Type
		if t != nil && t.Kind() == reflect.Map {
			of = t.Elem()
		}
		if names != nil {
			var known bool
			if of, known = names[key]; !known {
				return fmt.Errorf("unknown key %q", key)
			}
		}
		if err := k.value(of); err != nil {
			return err
		}
	}
	k.at++
	return nil
}

// namesOf returns the keys of a struct and what each is decoded into, and nil for any
// other type.
func (k *keys) namesOf(t reflect.Type) map[string]reflect.Type {
	if t == nil || t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return nil
	}
	if k.fields[t] == nil {
		k.fields[t] = map[string]reflect.Type{}
		for _, f := range reflect.VisibleFields(t) {
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "-" && !f.Anonymous {
				k.fields[t][cmp.Or(name, f.Name)] = f.Type
			}
		}
	}
	return k.fields[t]
}

// next moves to the next byte that says something.
func (k *keys) next() byte {
	for bytes.ContainsRune([]byte(" \t\r\n,:"), rune(k.data[k.at])) {
		k.at++
	}
	return k.data[k.at]
}

// text moves over a string and returns what is between its quotes.
func (k *keys) text() string {
	start := k.at + 1
	for k.at++; k.data[k.at] != '"'; k.at++ {
		if k.data[k.at] == '\\' {
			k.at++
		}
	}
	k.at++
	return string(k.data[start : k.at-1])
}

// sumIn returns where in data the digits of the checksum are.
func sumIn(data []byte) (at int, err error) {
	at = bytes.Index(data, []byte(sumPrefix))
	if at < 0 || at+len(sumPrefix)+len(zeroSum) > len(data) {
		return 0, fmt.Errorf("%w: no checksum", ErrDamaged)
	}
	return at + len(sumPrefix), nil
}

func checkSum(data []byte) error {
	at, err := sumIn(data)
	if err != nil {
		return err
	}
	r := &SealedReader{sum: sha256.New(), want: string(data[at : at+len(zeroSum)])}
	r.sum.Write(data[:at])
	r.sum.Write(zeroSum)
	r.sum.Write(data[at+len(zeroSum):])
	return r.compare()
}

// SealedReader reads a sealed document that is too long to be held in memory.
type SealedReader struct {
	from io.Reader
	sum  hash.Hash
	want string
}

// NewSealedReader begins to read a document, whose checksum is to be in its first 4096
// bytes. Else the error wraps [ErrDamaged].
func NewSealedReader(from io.Reader) (*SealedReader, error) {
	head := make([]byte, 4096)
	n, err := io.ReadFull(from, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	head = head[:n]
	at, err := sumIn(head)
	if err != nil {
		return nil, err
	}
	r := &SealedReader{sum: sha256.New(), want: string(head[at : at+len(zeroSum)])}
	r.from = io.MultiReader(bytes.NewReader(bytes.Clone(head)), io.TeeReader(from, r.sum))
	copy(head[at:], zeroSum)
	r.sum.Write(head)
	return r, nil
}

// Read implements [io.Reader]. What it gives is not verified before Verify.
func (r *SealedReader) Read(p []byte) (int, error) { return r.from.Read(p) }

// Checksum is the checksum that the document has of itself, as in [Seal].
func (r *SealedReader) Checksum() string { return "sha256:" + r.want }

// Verify reads the document to its end and compares its checksum. The error wraps
// [ErrDamaged] where it is another one.
func (r *SealedReader) Verify() error {
	if _, err := io.Copy(io.Discard, r.from); err != nil {
		return err
	}
	return r.compare()
}

func (r *SealedReader) compare() error {
	if got := hex.EncodeToString(r.sum.Sum(nil)); got != r.want {
		return fmt.Errorf("%w: the checksum is %s, and that of the content is %s", ErrDamaged, r.want, got)
	}
	return nil
}
