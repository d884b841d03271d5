package main

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/tiny-forge/snap/pkg/remedy"
)

// asked is the snapshot that a restore or an undo was asked for, and the flags that say how.
// A hint to do the same again has them: without --volume it would replace other data too.
type asked struct {
	sid   string
	flags []string
}

// given returns the flags that say how a restore goes, as they were given.
func given(flags *pflag.FlagSet) (words []string) {
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "confirm", "plan", "plan-hash", "json", "quiet", "config", "context", "host":
			return
		}
		values := []string{f.Value.String()}
		if list, is := f.Value.(pflag.SliceValue); is {
			values = list.GetSlice()
		}
		for _, value := range values {
			if f.Value.Type() == "bool" {
				words = append(words, "--"+f.Name+"="+value)
			} else {
				words = append(words, "--"+f.Name, value)
			}
		}
	})
	return words
}

// spell returns the command line for an operation that a remedy names: with the
// name that snap was called by, and with --config where that was given, so that it
// can be pasted as it is.
func (u *ui) spell(op remedy.Operation) string {
	verb, more := string(op.Verb), []string{}
	switch op.Verb {
	case remedy.DoRecoverOffline:
		verb, more = "recover", []string{"--offline"}
	case remedy.DoResolve:
		verb, more = "recover", []string{"--resolve", "keep-" + op.Keep}
		if op.Confirmed {
			more = append(more, "--confirm", op.ID)
		}
		op.ID = ""
	case remedy.DoPlan:
		verb, more = "restore", []string{"--plan"}
	case remedy.DoUndo:
		if op.Confirmed {
			more, op.ID = []string{"--confirm", op.ID}, ""
		}
	case remedy.DoConfigFrom:
		verb, more = "restore", []string{"--config-from", op.ID}
		if op.ID = ""; op.To != "" {
			more = append(more, "--to", op.To)
		}
	case remedy.DoRepair:
		verb, more = "verify", []string{"--repair"}
	case remedy.DoRestore:
		if op.Confirmed {
			more = []string{"--confirm", op.ID}
		}
		if op.To != "" {
			more = []string{"--to", op.To}
		}
	}
	if op.ID != "" && op.ID == u.asked.sid || op.Verb == remedy.DoUndo && op.Confirmed {
		switch {
		case op.Verb == remedy.DoPlan, op.Verb == remedy.DoUndo, op.Verb == remedy.DoRestore && op.Confirmed:
			more = append(more, u.asked.flags...)
		}
	}
	more = append(more, op.Part)
	words := []string{u.called, verb}
	for _, word := range append([]string{op.Workload, op.ID}, more...) {
		if word != "" {
			words = append(words, word)
		}
	}
	if u.configGiven != "" {
		words = append(words, "--config", u.configGiven)
	}
	words = append(words, u.engineWords()...)
	for i, word := range words {
		words[i] = pasteable(word)
	}
	return strings.Join(words, " ")
}

// engineWords are the flags with which the engine was chosen.
func (u *ui) engineWords() (words []string) {
	if u.choice.Context != "" {
		words = append(words, "--context", u.choice.Context)
	}
	if u.choice.Host != "" {
		words = append(words, "--host", u.choice.Host)
	}
	return words
}

// pasteable quotes a word where a shell would take it apart.
func pasteable(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./,:=@%+", r)
	}
	if strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return remedy.Quote(word)
}

// texts are remedies in words.
func (u *ui) texts(list []remedy.Remedy) []string {
	out := []string{}
	for _, r := range list {
		out = append(out, r.Text(u.spell))
	}
	return out
}
