package disk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/disk"
)

type document struct {
	disk.Seal
	Name  string            `json:"name"`
	Count int               `json:"count"`
	Map   map[string]string `json:"map,omitempty"`
}

const format = "snap-test"

func sealed(t *testing.T) []byte {
	t.Helper()
	data, err := disk.MarshalSealed(&document{Name: "a \"quoted\" näme", Count: 7, Map: map[string]string{"k": "v"}}, format, 3)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// reseal gives an altered document a correct checksum, as a forger can.
func reseal(data []byte) []byte {
	const prefix = `"checksum": "sha256:`
	data = bytes.Clone(data)
	at := bytes.Index(data, []byte(prefix)) + len(prefix)
	copy(data[at:], strings.Repeat("0", 64))
	sum := sha256.Sum256(data)
	hex.Encode(data[at:], sum[:])
	return data
}

func TestASealedDocumentComesBack(t *testing.T) {
	var doc document
	if err := disk.UnmarshalSealed(sealed(t), &doc, format, 3); err != nil {
		t.Fatal(err)
	}
	if doc.Name != "a \"quoted\" näme" || doc.Count != 7 || doc.Map["k"] != "v" || doc.Version != 3 {
		t.Errorf("it came back as %+v", doc)
	}
	if !bytes.Equal(reseal(sealed(t)), sealed(t)) {
		t.Error("the checksum is not the documented one")
	}
}

func TestDamageToAnyByteIsDetected(t *testing.T) {
	good := sealed(t)
	for at := range good {
		for _, c := range []byte{good[at] ^ 1, good[at] ^ 0x80, 0, '"', '9', ' '} {
			if c == good[at] {
				continue
			}
			bad := bytes.Clone(good)
			bad[at] = c
			if err := disk.UnmarshalSealed(bad, &document{}, format, 3); !errors.Is(err, disk.ErrDamaged) || errors.Is(err, disk.ErrTooNew) {
				t.Fatalf("byte %d from %q to %q: %v", at, good[at], c, err)
			}
		}
		for what, bad := range map[string][]byte{
			"cut":      good[:at],
			"lost":     append(bytes.Clone(good[:at]), good[at+1:]...),
			"inserted": append(append(bytes.Clone(good[:at]), ' '), good[at:]...),
		} {
			if err := disk.UnmarshalSealed(bad, &document{}, format, 3); !errors.Is(err, disk.ErrDamaged) {
				t.Fatalf("byte %d %s: %v", at, what, err)
			}
		}
	}
}

func TestNewerIsNotDamagedAndForgedIsNotNewer(t *testing.T) {
	replace := func(old, new string) []byte {
		data := bytes.Replace(sealed(t), []byte(old), []byte(new), 1)
		if bytes.Equal(data, sealed(t)) {
			t.Fatalf("%q is not in the document", old)
		}
		return reseal(data)
	}
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"the next version":            {replace(`"version": 3`, `"version": 4`), disk.ErrTooNew},
		"a newer one with new fields": {replace(`"version": 3,`, `"version": 99, "new": {},`), disk.ErrTooNew},
		"an unknown field":            {replace(`"count"`, `"evil": 1, "count"`), disk.ErrDamaged},
		"version 0":                   {replace(`"version": 3`, `"version": 0`), disk.ErrDamaged},
		"version -1":                  {replace(`"version": 3`, `"version": -1`), disk.ErrDamaged},
		"a version that is text":      {replace(`"version": 3`, `"version": "3"`), disk.ErrDamaged},
		"another format":              {replace(format, "snap-tset"), disk.ErrDamaged},
		"no format":                   {replace(`"format": "snap-test",`, ``), disk.ErrDamaged},
		"a count that is text":        {replace(`"count": 7`, `"count": "7"`), disk.ErrDamaged},
		"a count that overflows":      {replace(`"count": 7`, `"count": 77777777777777777777`), disk.ErrDamaged},
		"a second document":           {reseal(append(sealed(t), "{}\n"...)), disk.ErrDamaged},
		"garbage after it":            {reseal(append(sealed(t), 'x')), disk.ErrDamaged},
		"a NUL after it":              {reseal(append(sealed(t), 0)), disk.ErrDamaged},
		"an array":                    {reseal([]byte(`[{"checksum": "sha256:` + strings.Repeat("0", 64) + `"}]`)), disk.ErrDamaged},
		"nothing":                     {nil, disk.ErrDamaged},
		"zeros":                       {make([]byte, 4096), disk.ErrDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			err := disk.UnmarshalSealed(c.data, &document{}, format, 3)
			if !errors.Is(err, c.want) || errors.Is(err, disk.ErrDamaged) == errors.Is(err, disk.ErrTooNew) {
				t.Errorf("the error is %v, expected %v", err, c.want)
			}
		})
	}
	if err := disk.UnmarshalSealed(sealed(t), &document{}, format, 9); err != nil {
		t.Errorf("an older version: %v", err)
	}
}

func TestIDsAreValidAndNothingElseIs(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := disk.NewID(time.Now())
		if !disk.ValidID(id) {
			t.Fatalf("%q is not valid", id)
		}
		seen[id] = true
	}
	if len(seen) < 995 { // 24 random bits
		t.Errorf("1000 calls gave %d names", len(seen))
	}
	for _, s := range []string{
		"", "20261123T140501Z-3f9a2", "20261123T140501Z-3f9a2c0", "20261123T140501Z-3F9A2C", "../../etc/passwd", "20261123T140501Z-3f9a2c\n",
		"20261123T140501Z-3f9a2c/", "x20261123T140501Z-3f9a2c", "20261123t140501z-3f9a2c", "20261123T140501Z-../../", "２0261123T140501Z-3f9a2c",
	} {
		if disk.ValidID(s) {
			t.Errorf("%q is valid", s)
		}
	}
}

// Two readers of one document must not see two documents.
func TestAKeyHasOneSpellingAndIsThereOnce(t *testing.T) {
	type part struct {
		ID   string           `json:"id"`
		Time time.Time        `json:"time"`
		Sub  map[string]*part `json:"sub"`
		Skip string           `json:"-"`
	}
	type doc struct {
		disk.Seal
		Name  string   `json:"name"`
		Parts []*part  `json:"parts"`
		Raw   any      `json:"raw"`
		Words []string `json:"words"`
	}
	for text, ok := range map[string]bool{
		`"name": "a"`: true,
		`"name": "a\\", \"name\": b", "words": [`: false, // not JSON at all
		`"name": "a\\\"name\\\":", "words": ["x", "x", "{", "}"], "raw": {"A": 1, "a": [true, null, -1.5e3, {}]}`:   true,
		`"parts": [{"id": "a", "time": "2026-01-02T03:04:05Z"}, {"id": "a", "sub": {"X": {"id": "b"}, "x": null}}]`: true,
		`"name": "a", "name": "a"`:                                        false,
		`"Name": "a"`:                                                     false,
		`"name": "a", "NAME": "b"`:                                        false,
		`"Format": "snap-test"`:                                           false,
		`"n\u0061me": "a"`:                                                true,
		`"n\u0061me": "a", "name": "b"`:                                   false,
		`"n\u0041me": "a"`:                                                false,
		`"parts": [{"id": "a"}, {"id": "a", "id": "b"}]`:                  false,
		`"parts": [{"Id": "a"}]`:                                          false,
		`"parts": [{"sub": {"x": {"id": "b"}, "x": {}}}]`:                 false,
		`"parts": [{"sub": {"x": {"ID": "b"}}}]`:                          false,
		`"parts": [{"sub": {"x": {"sub": {"y": {"id": "", "id": ""}}}}}]`: false,
		`"raw": {"a": 1, "a": 2}`:                                         false,
		`"raw": [[{"a": {"b": 1, "b": 2}}]]`:                              false,
		`"Skip": "x"`:                                                     false,
	} {
		head := `{"format": "snap-test", "version": 1, "checksum": "sha256:` + strings.Repeat("0", 64) + `", `
		if err := disk.UnmarshalSealed(reseal([]byte(head+text+"}\n")), &doc{}, format, 1); (err == nil) != ok || err != nil && !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
