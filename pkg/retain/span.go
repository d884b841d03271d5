package retain

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Span is a length of time in years, months, weeks, days and hours, as 1y6m or 7d. By
// the calendar a month is as long as the months before are.
type Span struct{ years, months, days, hours int }

// ParseSpan reads a span: one or more numbers, each followed by y, m, w, d or h.
func ParseSpan(text string) (s Span, err error) {
	bad := fmt.Errorf("%q is not a time such as 7d, 4w, 6m or 1y6m", text)
	rest := text
	for rest != "" {
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if n == 0 || n == len(rest) || n > 6 {
			return Span{}, bad
		}
		count, _ := strconv.Atoi(rest[:n]) // at most six digits
		switch rest[n] {
		case 'y':
			s.years += count
		case 'm':
			s.months += count
		case 'w':
			s.days += 7 * count
		case 'd':
			s.days += count
		case 'h':
			s.hours += count
		default:
			return Span{}, bad
		}
		rest = rest[n+1:]
	}
	if s == (Span{}) {
		return Span{}, bad
	}
	return s, nil
}

// Before is the time that lies a span before t.
func (s Span) Before(t time.Time) time.Time {
	return t.AddDate(-s.years, -s.months, -s.days).Add(-time.Duration(s.hours) * time.Hour)
}

func (s Span) String() string {
	text := ""
	for _, part := range []struct {
		n    int
		unit string
	}{{s.years, "y"}, {s.months, "m"}, {s.days, "d"}, {s.hours, "h"}} {
		if part.n > 0 {
			text += strconv.Itoa(part.n) + part.unit
		}
	}
	return text
}

// Set implements [pflag.Value].
func (s *Span) Set(text string) (err error) {
	*s, err = ParseSpan(text)
	return err
}

// Type implements [pflag.Value].
func (s *Span) Type() string { return "time" }

// UnmarshalYAML implements [yaml.Unmarshaler].
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	if err := s.Set(n.Value); err != nil {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	return nil
}
