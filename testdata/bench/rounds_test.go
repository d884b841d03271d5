package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestEverybodyTakesTurns(t *testing.T) {
	var order []string
	take := func(who string, ranked bool) turn {
		return turn{who, ranked, func(round int) error {
			order = append(order, fmt.Sprintf("%d%s", round, who))
			if who == "p" && round == 1 {
				return errors.New("no more")
			}
			return nil
		}}
	}
	b := &bench{report: &report{}, log: io.Discard, began: time.Now()}
	turns := []turn{take(whoSnap, true), take("p", true), take("q", false)}
	if err := b.rounds(t.Context(), "test", limits{2, 4, time.Hour}, nil, turns); err != nil {
		t.Fatal(err)
	}
	// p fails in round 1; q, about which there is no target, takes part in one
	// round.
	const want = "0snap 0p 0q 1p 1snap 2snap 3snap"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("turns: %s, want %s", got, want)
	}
	if len(b.report.Notes) != 1 || !strings.Contains(b.report.Notes[0], "no more") {
		t.Errorf("notes: %q, want that p failed", b.report.Notes)
	}

	order = nil
	if err := b.rounds(t.Context(), "test", limits{2, 4, 0}, nil, turns[:1]); err != nil || len(order) != 2 {
		t.Errorf("without time: %q, %v, want the least number of rounds", order, err)
	}
	b.plan.Due = map[string]time.Duration{"pg": time.Minute}
	order, b.began, b.part = nil, time.Now().Add(-time.Hour), "scale"
	if err := b.rounds(t.Context(), "test", limits{3, 5, 0}, nil, turns[:1]); err != nil || len(order) != 3 {
		t.Errorf("a part that is never late: %q, %v, want three rounds", order, err)
	}
	order, b.part = nil, "pg"
	if err := b.rounds(t.Context(), "test", limits{3, 5, 0}, nil, turns[:1]); err != nil || len(order) != 2 {
		t.Errorf("a part that is late: %q, %v, want two rounds", order, err)
	}
	fails := turn{whoSnap, true, func(int) error { return errors.New("broken") }}
	if err := b.rounds(t.Context(), "test", limits{2, 4, 0}, nil, []turn{fails}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("snap failed, and the error is %v", err)
	}
}
