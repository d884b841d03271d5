package catalog

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/tiny-forge/snap/pkg/disk"
	"github.com/tiny-forge/snap/pkg/fault"
	"github.com/tiny-forge/snap/pkg/near"
	"github.com/tiny-forge/snap/pkg/remedy"
	"github.com/tiny-forge/snap/pkg/store"
)

// Latest is the word for the newest snapshot that no restore made.
const Latest = "latest"

// shortest is how much of an id there must be at least: the year.
const shortest = 4

// beginning is the form of the beginning of an id.
var beginning = regexp.MustCompile(`^[0-9]{1,8}(T[0-9]{0,6})?(Z(-[0-9a-f]{0,6})?)?$`)

// Find returns the id of the snapshot that a word means: an id, which need not exist; the
// beginning of exactly one; or [Latest]. For a snapshot that cannot be used its error is
// of kind.
//
// Right after a restore the newest snapshot holds what the restore replaced. Nobody means
// that one by "latest", so a snapshot that a restore made is none. While a newer manifest
// cannot be read, nobody knows whether it is the latest, and Find chooses no older one.
func Find(st *store.Store, kind fault.Kind, workload, word string) (string, error) {
	if disk.ValidID(word) {
		return word, nil
	}
	if word == Latest {
		return latest(st, kind, workload)
	}
	all, err := st.Published(workload)
	if err != nil {
		return "", fault.Classify(err)
	}
	var like []string
	for _, sid := range all {
		if len(word) >= shortest && strings.HasPrefix(sid, word) {
			like = append(like, sid)
		}
	}
	switch {
	case len(like) == 1:
		return like[0], nil
	case len(like) > 1:
		return "", fault.New(fault.Usage, "ambiguous_sid", remedy.Of("write more of the id (", remedy.List(workload), ")"),
			"%d snapshots of %s begin with %s: %s", len(like), workload, word, some(like))
	case beginning.MatchString(word) && len(word) < shortest:
		return "", fault.New(fault.Usage, "bad_sid", remedy.Of("write at least the year; ", remedy.List(workload)), "%q is too short for the beginning of an id", word)
	case beginning.MatchString(word):
		return "", fault.New(kind, "snapshot_not_found", meant(all, workload, word), "no snapshot of workload %s begins with %s", workload, word)
	}
	return "", fault.New(fault.Usage, "bad_sid", meant(all, workload, word), "%q is not the id of a snapshot", word)
}

func latest(st *store.Store, kind fault.Kind, workload string) (string, error) {
	others := 0
	for m, err := range st.All(workload) {
		if err != nil {
			e := unusable(kind, workload, err)
			return "", fault.New(e.Kind, e.Code, remedy.Of("name a snapshot by its id: ", remedy.List(workload)),
				"it cannot be told which snapshot of workload %s is the latest: %w", workload, err)
		}
		if m.Reason == store.Manual {
			return m.SID, nil
		}
		others++
	}
	if others == 0 {
		return "", fault.New(kind, "snapshot_not_found", remedy.Of(remedy.Capture(workload)), "workload %s has no snapshot", workload)
	}
	return "", fault.New(kind, "snapshot_not_found", remedy.Of("name one by its id: ", remedy.List(workload)),
		"workload %s has no snapshot but %d that restores made, and `latest` means none of those", workload, others)
}

// some lists ids, the newest first, not all of very many.
func some(sids []string) string {
	const most = 8
	var list []string
	for i := len(sids) - 1; i >= 0 && len(list) < most; i-- {
		list = append(list, sids[i])
	}
	text := strings.Join(list, ", ")
	if more := len(sids) - len(list); more > 0 {
		text += fmt.Sprintf(" and %d older ones", more)
	}
	return text
}

// meant asks whether one of the ids was meant: one that resembles the word, or ends with it.
func meant(sids []string, workload, word string) remedy.Remedy {
	question := near.Question(word, append([]string{Latest}, sids...))
	if question == "" && len(word) >= shortest {
		var like []string
		for _, sid := range sids {
			if strings.HasSuffix(sid, word) {
				like = append(like, sid)
			}
		}
		question = near.Ask(like)
	}
	if question == "" {
		return remedy.Of(remedy.List(workload))
	}
	return remedy.Of(question+" `", remedy.List(workload), "` shows all")
}
