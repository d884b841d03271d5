package runtime

import (
	"strings"
	"unicode"
)

// Tail is the end of what a container or a command said, safe for a terminal.
func Tail(text string) string {
	const most = 1000
	var lines []string
	for line := range strings.Lines(Printable(text)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	text = strings.Join(lines, " | ")
	if r := []rune(text); len(r) > most {
		text = "…" + string(r[len(r)-most:])
	}
	return text
}

// Printable replaces what could steer a terminal.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		if r == '\t' {
			return ' '
		}
		return '�'
	}, strings.ToValidUTF8(text, "�"))
}
