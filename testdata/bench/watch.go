package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// watch asks the app for its health every few milliseconds, as a client of it
// would, from when it is made until its end.
type watch struct {
	url    string
	client http.Client
	stop   chan struct{}
	done   sync.WaitGroup
	gone   chan struct{} // closed at the first silence

	mu      sync.Mutex
	last    time.Time // of all answers
	before  time.Time // the last answer before the first silence
	back    time.Time // the first answer after the last silence
	silence bool
}

const (
	askEvery = 4 * time.Millisecond
	// stable is how long there must be answers before the app counts as back;
	// that time is no part of the outage.
	stable = 200 * time.Millisecond
)

// newWatch returns when the app has answered once.
func newWatch(ctx context.Context, url string) (*watch, error) {
	w := &watch{
		url: url, stop: make(chan struct{}), gone: make(chan struct{}),
		// A connection of its own each time: one that is kept says nothing of the next.
		client: http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	w.done.Go(w.ask)
	return w, w.until(ctx, "answer", func() bool { return !w.last.IsZero() && !w.silence })
}

func (w *watch) ask() {
	for {
		select {
		case <-w.stop:
			return
		case <-time.After(askEvery):
		}
		w.saw(w.answers(), time.Now())
	}
}

// saw takes note of an answer, or of none.
func (w *watch) saw(answer bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case answer:
		if w.silence {
			w.back = now
		}
		w.last, w.silence = now, false
	case !w.last.IsZero() && !w.silence:
		if w.before.IsZero() {
			w.before = w.last
			close(w.gone)
		}
		w.silence = true
	}
}

func (w *watch) answers() bool {
	resp, err := w.client.Get(w.url)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return err == nil && resp.StatusCode == http.StatusOK
}

func (w *watch) until(ctx context.Context, what string, reached func() bool) error {
	for range 12_000 {
		w.mu.Lock()
		ok := reached()
		w.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not %s within a minute", w.url, what)
}

// end waits until the app, which has been away, is back, ends the watch, and
// returns how long there was no answer.
func (w *watch) end(ctx context.Context) (time.Duration, error) {
	err := w.until(ctx, "come back", func() bool { return !w.silence && !w.back.IsZero() && time.Since(w.back) > stable })
	close(w.stop)
	w.done.Wait()
	if err != nil {
		return 0, err
	}
	if w.before.IsZero() {
		return 0, errors.New(w.url + " was never away")
	}
	return w.back.Sub(w.before), nil
}
