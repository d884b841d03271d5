package remedy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Quote quotes a path for a command that an operator pastes (sh(1), quoting with
// single quotes). Where the path has bytes that a terminal could obey, they are escaped as
// in bash(1), QUOTING, $'string'.
func Quote(path string) string {
	if printable(path) {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	var b strings.Builder
	for i, r := range path {
		switch n := utf8.RuneLen(r); {
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\'', r == '\\':
			b.WriteString(`\` + string(r))
		case r == utf8.RuneError && !strings.HasPrefix(path[i:], "\uFFFD"):
			fmt.Fprintf(&b, `\x%02x`, path[i])
		case !unicode.IsPrint(r):
			for _, c := range []byte(path[i : i+n]) {
				fmt.Fprintf(&b, `\x%02x`, c)
			}
		default:
			b.WriteRune(r)
		}
	}
	return "$'" + b.String() + "'"
}

// Shown is a name as it is shown: as it is, or quoted where it would not be clear, or not
// harmless.
func Shown(name string) string {
	if printable(name) && !strings.ContainsAny(name, `'\`) && strings.TrimSpace(name) == name {
		return name
	}
	return Quote(name)
}

// printable reports whether all of s is UTF-8 that a terminal shows and does not obey.
func printable(s string) bool {
	return utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}
