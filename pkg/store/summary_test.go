package store_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/disk/disktest"
	"github.com/tiny-forge/snap/pkg/store"
)

// sumOf is the hash of a volume, as docs/formats.md has it.
func sumOf(members ...archive.Member) string {
	h := sha256.New()
	for _, m := range members {
		fmt.Fprintln(h, m.ID)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// summed is a manifest of version 5 of so many members.
func summed(n int) *store.Manifest {
	var list []archive.Member
	for i := range n {
		list = append(list, archive.Member{ID: archive.MemberID(fmt.Append(nil, i)), Tar: 8192, Stored: 300 + int64(i)%100})
	}
	m := manifest("blog", sid, list...)
	m.Volumes[0].Sum = sumOf(list...)
	return m
}

func sealedAs(t testing.TB, doc disk.Sealed, format string, version int) []byte {
	t.Helper()
	data, err := disk.MarshalSealed(doc, format, version)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// The hash of a volume shows every change to the list of its members, although the
// checksum of the manifest was made anew.
func TestAManifestOfVersion5IsWrittenAndReadAsEver(t *testing.T) {
	want := golden(t, "manifest.v5.json", sealedAs(t, summed(3), "snap-manifest", 5))
	m, err := loaded(t, want)
	if err != nil || len(m.Volumes[0].Members) != 3 {
		t.Fatalf("%+v: %v", m, err)
	}
	if err := disk.UnmarshalSealed(want, &store.Manifest{}, "snap-manifest", 4); !errors.Is(err, disk.ErrTooNew) || errors.Is(err, disk.ErrDamaged) {
		t.Errorf("to an older program it is: %v", err)
	}
	list := m.Volumes[0].Members
	for name, change := range map[string]func(v *store.Volume, version *int){
		"two members swapped":           func(v *store.Volume, _ *int) { v.Members[0], v.Members[1] = list[1], list[0] },
		"one member lost":               func(v *store.Volume, _ *int) { v.Members = list[:2] },
		"one member twice":              func(v *store.Volume, _ *int) { v.Members = append(v.Members, list[2]) },
		"another member":                func(v *store.Volume, _ *int) { v.Members[1].ID = archive.MemberID([]byte("another")) },
		"another sum":                   func(v *store.Volume, _ *int) { v.Sum = sumOf(list[0]) },
		"no sum":                        func(v *store.Volume, _ *int) { v.Sum = "" },
		"a sum in version 4":            func(_ *store.Volume, version *int) { *version = 4 },
		"another member, in other JSON": nil,
	} {
		forged, version := summed(3), 5
		if change != nil {
			change(&forged.Volumes[0], &version)
		}
		data := sealedAs(t, forged, "snap-manifest", version)
		if change == nil {
			data = reseal(bytes.Replace(data, []byte(`"members": [`+"\n"), []byte(`"members": [{"id": "`+list[0].ID+`", "tar": 1, "stored": 1},`), 1))
		}
		if _, err := loaded(t, data); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func goldenSummary(t testing.TB) []byte {
	t.Helper()
	m := summed(3)
	data := sealedAs(t, m, "snap-manifest", 5)
	sum := m.Summary()
	sum.Manifest.Bytes = int64(len(data))
	return sealedAs(t, sum, "snap-summary", 1)
}

// beside is a store with one snapshot, the golden manifest of version 5, and these files
// beside it. What is "" is taken away.
func beside(t testing.TB, files map[string]string) *store.Store {
	t.Helper()
	path := t.TempDir()
	at := map[string]string{"manifest.json": string(sealedAs(t, summed(3), "snap-manifest", 5)), "summary.json": string(goldenSummary(t))}
	for name, data := range files {
		at[name] = data
	}
	for name, data := range at {
		if data != "" {
			disktest.Write(t, path, map[string]string{"snapshots/blog/" + sid + "/" + name: data})
		}
	}
	return storeAt(t, path)
}

func TestASummaryOfVersion1IsWrittenAndReadAsEver(t *testing.T) {
	golden(t, "summary.v1.json", goldenSummary(t))
	s := beside(t, nil)
	got, err := s.Summary("blog", sid)
	if err != nil {
		t.Fatal(err)
	}
	files, size, stored := got.Totals()
	if v := got.Volumes[0]; files != 2 || size != 1000 || stored != 903 || v.Members != 3 || v.Tar != 3*8192 || v.Sum != summed(3).Volumes[0].Sum {
		t.Errorf("it is read as %+v", got)
	}
	m, err := s.Load("blog", sid)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.CheckSummary(m); err != nil {
		t.Error(err)
	}
}

// What Publish leaves is what the manifest says, and the summary is read.
func TestASummaryIsPublished(t *testing.T) {
	path := t.TempDir()
	s := storeAt(t, path)
	m := publish(t, s, "blog", sid, piece("a"))
	at := filepath.Join(path, "snapshots/blog", sid)
	if m.Version != 5 || m.Volumes[0].Sum != sumOf(m.Volumes[0].Members...) {
		t.Errorf("published was %+v", m)
	}
	if err := s.CheckSummary(m); err != nil {
		t.Error(err)
	}
	if st, err := os.Stat(at + "/summary.json"); err != nil || st.Mode() != 0o600 {
		t.Fatalf("%v: %v", st, err)
	}
	blind(t, at+"/manifest.json")
	if got, err := s.Summary("blog", sid); err != nil || got.Volumes[0].Members != 1 {
		t.Errorf("%+v: %v", got, err)
	}
}

// blind leaves of a manifest the head and the length.
func blind(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(data[:200], make([]byte, len(data)-200)...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A summary that cannot be used hides nothing and changes nothing: the manifest is read.
// One that is intact is believed only of the manifest beside it.
func TestAnUnusableSummaryIsPassedOver(t *testing.T) {
	good := string(goldenSummary(t))
	forge := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("a summary has no %s", old)
		}
		return string(reseal([]byte(strings.Replace(good, old, new, 1))))
	}
	for name, c := range map[string]struct {
		summary string
		healed  bool // by WriteSummary
	}{
		"none":                       {"", true},
		"empty":                      {" ", true},
		"cut":                        {good[:len(good)-2], true},
		"a flipped bit":              {strings.Replace(good, `"files": 2`, `"files": 3`, 1), true},
		"too long":                   {strings.Repeat(" ", 4<<20) + good, true},
		"too new":                    {forge(`"version": 1`, `"version": 2`), false},
		"another workload":           {forge(`"workload": "blog"`, `"workload": "shop"`), true},
		"another snapshot":           {forge(sid, sid[:21]+"9"), true},
		"another reason":             {forge(`"manual"`, `"none"`), true},
		"fewer than no files":        {forge(`"files": 2`, `"files": -2`), true},
		"more stored than can be":    {forge(`"stored": 903`, `"stored": 9000000000000000000`), true},
		"more members than bytes":    {forge(`"members": 3`, `"members": 24577`), true},
		"no members":                 {forge(`"members": 3`, `"members": 0`), true},
		"a list of members":          {forge(`"members": 3`, `"members": []`), true},
		"a hidden volume":            {forge(`"name": "content"`, `"name": ""`), true},
		"another manifest's":         {forge(`"bytes": 1`, `"bytes": 2`), false},
		"another manifest's, sealed": {forge(`"checksum": "sha256:`+sealOf(t), `"checksum": "sha256:`+strings.Repeat("0", 64)), false},
		"a newer manifest's":         {forge(`"version": 5`, `"version": 6`), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := beside(t, map[string]string{"summary.json": c.summary})
			m, err := s.Load("blog", sid)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Summary("blog", sid)
			if err != nil {
				t.Fatal(err)
			}
			same(t, got, m)
			if err := s.CheckSummary(m); (err != nil) != (c.summary != "") {
				t.Errorf("it is found to be: %v", err)
			}
			if _, err := s.LoadHonest("blog", sid); err != nil {
				t.Errorf("it is taken for a lie: %v", err)
			}
			if err := s.WriteSummary(got); err != nil {
				t.Fatal(err)
			}
			if err := s.CheckSummary(m); (err == nil) != c.healed {
				t.Errorf("after it was written anew: %v", err)
			}
		})
	}
}

func sealOf(t testing.TB) string {
	m := summed(3)
	sealedAs(t, m, "snap-manifest", 5)
	return strings.TrimPrefix(m.Checksum, "sha256:")
}

func same(t testing.TB, got *store.Summary, m *store.Manifest) {
	t.Helper()
	want := m.Summary()
	if !reflect.DeepEqual(got.Volumes, want.Volumes) || got.Workload != m.Workload || got.SID != m.SID || !got.Created.Equal(m.Created) ||
		got.Reason != m.Reason || got.Note != m.Note || !reflect.DeepEqual(got.Tags, m.Tags) || got.Quiesce != m.Quiesce {
		t.Errorf("the summary is %+v, the manifest says %+v", got, want)
	}
}

// Whatever a summary says, there is no snapshot without a manifest, and one whose head or
// length is damaged shows. For what is further on there is Intact.
func TestTheManifestStaysTheTruth(t *testing.T) {
	good := string(sealedAs(t, summed(3), "snap-manifest", 5))
	for name, c := range map[string]struct {
		manifest string
		err      error
	}{
		"none":        {"", fs.ErrNotExist},
		"empty":       {" ", disk.ErrDamaged},
		"cut":         {good[:len(good)-1], disk.ErrDamaged},
		"longer":      {good + "\n", disk.ErrDamaged},
		"other seal":  {strings.Replace(good, sealOf(t), strings.Repeat("0", 64), 1), disk.ErrDamaged},
		"another one": {string(reseal([]byte(strings.Replace(good, `"tar": 8192`, `"tar": 8191`, 1)))), nil},
		"too new":     {string(reseal([]byte(strings.Replace(good, `"version": 5`, `"version": 9`, 1)))), disk.ErrTooNew},
		"forged":      {string(reseal([]byte(strings.Replace(good, `"reason": "manual"`, `"reason": "secret"`, 1)))), disk.ErrDamaged},
	} {
		s := beside(t, map[string]string{"manifest.json": c.manifest})
		got, err := s.Summary("blog", sid)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
		n := 0
		for _, err := range s.Summaries("blog") {
			if n++; !errors.Is(err, c.err) {
				t.Errorf("%s, in a list: %v", name, err)
			}
		}
		if want := map[bool]int{true: 0, false: 1}[c.manifest == ""]; n != want {
			t.Errorf("%s: a list has %d", name, n)
		}
		if c.err == nil && (got.Volumes[0].Tar != 3*8192-1 || s.Intact(got) != nil) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	s := beside(t, map[string]string{"manifest.json": strings.Replace(good, `"tar": 8192`, `"tar": 8193`, 1)})
	got, err := s.Summary("blog", sid)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Intact(got); !errors.Is(err, disk.ErrDamaged) {
		t.Errorf("a flipped bit: %v", err)
	}
	if got, err = beside(t, nil).Summary("blog", sid); err != nil || s.Intact(got) == nil || beside(t, nil).Intact(got) != nil {
		t.Errorf("of an intact one: %v", err)
	}
}

// A summary whose seals are all true, and that says other things than the manifest, is
// found by whoever deletes and by whoever verifies.
func TestALyingSummaryIsFoundBeforeAnythingIsDeleted(t *testing.T) {
	for _, lie := range [][2]string{
		{`"created": "2026`, `"created": "2027`}, {`"reason": "manual"`, `"reason": "pre-restore"`}, {`"note": "a`, `"note": "b`},
		{`"files": 2`, `"files": 1`}, {`"stored": 903`, `"stored": 904`}, {`"quiesce": "pause",`, `"tags": ["keep"], "quiesce": "pause",`},
	} {
		s := beside(t, map[string]string{"summary.json": string(reseal([]byte(strings.Replace(string(goldenSummary(t)), lie[0], lie[1], 1))))})
		m, err := s.Load("blog", sid)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.CheckSummary(m); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s is found to be %v", lie[1], err)
		}
		if _, err := s.LoadHonest("blog", sid); !errors.Is(err, disk.ErrDamaged) {
			t.Errorf("%s is believed: %v", lie[1], err)
		}
		if _, err := s.Mark(t.Context(), func(string, string) bool { return false }); err == nil {
			t.Errorf("%s stops no deletion", lie[1])
		}
	}
}

const many = 300_000

// manyMembers is a store with a snapshot of 300,000 members, with a summary or without.
func manyMembers(t testing.TB, summary bool) (s *store.Store, size int64) {
	t.Helper()
	m := summed(many)
	data := sealedAs(t, m, "snap-manifest", 5)
	sum := m.Summary()
	sum.Manifest.Bytes = int64(len(data))
	files := map[string]string{"manifest.json": string(data), "summary.json": ""}
	if summary {
		files["summary.json"] = string(sealedAs(t, sum, "snap-summary", 1))
	}
	return beside(t, files), int64(len(data))
}

// cost is what a call reads, and what it allocates in all.
func cost(t testing.TB, call func()) (read, allocated int64) {
	t.Helper()
	count := func() (n int64) {
		data, err := os.ReadFile("/proc/self/io")
		if err == nil {
			_, err = fmt.Sscanf(string(data), "rchar: %d", &n)
		}
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	first := count()
	call()
	read = count() - first
	runtime.ReadMemStats(&after)
	return read, int64(after.TotalAlloc - before.TotalAlloc)
}

func TestAListReadsNoMembers(t *testing.T) {
	for _, beside := range []bool{true, false} {
		s, size := manyMembers(t, beside)
		read, allocated := cost(t, func() {
			for sum, err := range s.Summaries("blog") {
				if err != nil || sum.Volumes[0].Members != many {
					t.Errorf("%+v: %v", sum, err)
				}
			}
		})
		mostRead, mostAllocated := int64(16<<10), int64(256<<10)
		if !beside { // once, and of the members no more than one at a time
			mostRead, mostAllocated = size+16<<10, many*64+2<<20
		}
		t.Logf("of %d bytes %d were read and %d allocated", size, read, allocated)
		if read > mostRead || allocated > mostAllocated {
			t.Errorf("with a summary: %v: of %d bytes %d were read and %d allocated, and at most %d and %d are needed", beside, size, read, allocated, mostRead, mostAllocated)
		}
	}
}

// BenchmarkSummary prints what it takes to know a snapshot of 300,000 members.
func BenchmarkSummary(b *testing.B) {
	for name, beside := range map[string]bool{"summary": true, "manifest": false} {
		b.Run(name, func(b *testing.B) {
			s, _ := manyMembers(b, beside)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Summary("blog", sid); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("load", func(b *testing.B) {
		s, _ := manyMembers(b, true)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Load("blog", sid); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A summary in whose place something else lies is passed over; nothing is followed.
func TestWhatIsNotASummaryIsNotRead(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"a symlink":   func(path string) error { return os.Symlink("manifest.json", path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
		"a fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
	} {
		s := beside(t, map[string]string{"summary.json": ""})
		if err := make(filepath.Join(s.Root().Path(), "snapshots/blog", sid, "summary.json")); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Summary("blog", sid); err != nil || got.Volumes[0].Members != 3 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Members that are taken out line by line are those that a decoder of JSON finds, and
// where the lines are others, the decoder has the last word.
func TestMembersAreFoundHoweverTheyAreWritten(t *testing.T) {
	m := summed(3)
	two(m)
	for i := range m.Volumes {
		m.Volumes[i].Sum = ""
	}
	m.Volumes[1].Members = slices.Clone(m.Volumes[0].Members[:2])
	good := string(sealedAs(t, m, "snap-manifest", 1))
	begin, end := "      \"members\": [\n", "\n      ]\n"
	at := strings.LastIndex(good, begin)
	list := good[at : at+strings.Index(good[at:], end)+len(end)] // of the second volume
	member := list[len(begin) : len(begin)+strings.Index(list[len(begin):], "},\n")+3]
	put := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %q", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	oneLine := strings.NewReplacer("\n", "", "  ", "")
	valid := []string{
		"as snap does", "without indentation", "with tabs", "with CRLF", "in one line", "one list in one line", "with other spaces", "with an escape",
		"with blank lines", "in another order",
	}
	for name, text := range map[string]string{
		"as snap does":           good,
		"without indentation":    strings.ReplaceAll(good, "  ", ""),
		"with tabs":              strings.ReplaceAll(good, "  ", "\t"),
		"with CRLF":              strings.ReplaceAll(good, "\n", "\r\n"),
		"in one line":            oneLine.Replace(good),
		"one list in one line":   put(list, oneLine.Replace(list)+"\n"),
		"with other spaces":      put(`"tar": 8192`, `"tar" :8192`),
		"with an escape":         put(`"id": "5`, `"id": "\u0035`),
		"with a capital":         put(`"id": "5`, `"ID": "5`),
		"with a capital list":    put(begin, "      \"Members\": [\n"),
		"with blank lines":       put(member, "\n"+member+"\n"),
		"in another order":       put(`"tar": 8192,`+"\n          "+`"stored": 300`, `"stored": 300,`+"\n          "+`"tar": 8192`),
		"with a number's point":  put(`"tar": 8192`, `"tar": 8192.0`),
		"with a sign":            put(`"tar": 8192`, `"tar": +8192`),
		"with a leading zero":    put(`"tar": 8192`, `"tar": 08192`),
		"a key twice":            put(`"tar": 8192,`, `"tar": 1, "tar": 8192,`),
		"a key twice, in lines":  put(`"stored": 300`, `"tar": 8192`),
		"a key too many":         put(`"tar": 8192,`, `"tar": 8192,`+"\n"+`"size": 1,`),
		"a comma too few":        put(`"tar": 8192,`, `"tar": 8192`),
		"a comma too many":       put(`"stored": 300`, `"stored": 300,`),
		"a comma at the end":     put("        }\n      ]", "        },\n      ]"),
		"no comma between":       put("        },\n", "        }\n"),
		"a list twice":           put(list, strings.TrimSuffix(list, "\n")+",\n"+list),
		"two lists in another":   strings.Replace(put(list, "      \"depth\": 1\n"), begin, strings.TrimSuffix(list, "\n")+",\n"+begin, 1),
		"an empty list":          put(list, begin+"      ]\n"),
		"no list":                put(list, "      \"members\": []\n"),
		"a list's number":        put(list, "      \"members\": [{\"tar\": 1}]\n"),
		"a list where none is":   put("  \"images\": [\n", list+"  ,\"images\": [\n"),
		"a list in a string":     put(`"note": "`, `"note": "`+"\n"+list),
		"text after the end":     good + "{}\n",
		"without its last lines": good[:len(good)-4],
	} {
		data := reseal([]byte(text))
		got, err := loaded(t, data)
		whole := &store.Manifest{}
		wanted := disk.UnmarshalSealed(data, whole, "snap-manifest", 5)
		if err != nil {
			// It may have been decoded, and refused for what it says.
			if slices.Contains(valid, name) || !errors.Is(err, disk.ErrDamaged) {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		for i := range got.Volumes {
			for j := range got.Volumes[i].Members {
				got.Volumes[i].Members[j].Codec = 0 // not in the document
			}
		}
		if wanted != nil || !reflect.DeepEqual(got, whole) {
			t.Errorf("%s: it is read as %+v, and is %+v: %v", name, got, whole, wanted)
		}
	}
}
