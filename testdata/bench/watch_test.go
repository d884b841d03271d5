package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

func TestAnOutageIsFromTheLastAnswerToTheFirstForGood(t *testing.T) {
	w := &watch{gone: make(chan struct{})}
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	for _, step := range []struct {
		ms     int
		answer bool
	}{{0, false}, {10, true}, {20, true}, {30, false}, {40, false}, {50, true}, {60, false}, {70, true}, {80, true}} {
		w.saw(step.answer, at(step.ms))
	}
	if !w.before.Equal(at(20)) || !w.back.Equal(at(70)) {
		t.Errorf("away from %v to %v, want from 20 ms to 70 ms", w.before.Sub(start), w.back.Sub(start))
	}
	select {
	case <-w.gone:
	default:
		t.Error("gone is still open")
	}
}

func TestAWatchSeesAServerGoAway(t *testing.T) {
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	w, err := newWatch(t.Context(), server.URL)
	if err != nil {
		t.Fatal(err)
	}
	const away = 300 * time.Millisecond
	down.Store(true)
	<-w.gone
	time.Sleep(away)
	down.Store(false)
	got, err := w.end(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got < away || got > away+2*time.Second {
		t.Errorf("away for %v, want %v and a little", got, away)
	}
}
