package notify

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// The ends of a ping's URL, as healthchecks.io and its kin know them.
const (
	Started = "start"
	Passed  = ""
	Failed  = "fail"
)

const (
	pingPatience = 3 * time.Second // of one try
	pingTries    = 2
)

// Status is an answer of HTTP that does not mean success.
type Status struct{ Code int }

func (s *Status) Error() string { return fmt.Sprintf("the answer is HTTP %d", s.Code) }

// Ping tells the service at an address that something has started, passed or failed, with
// a short text. It takes six seconds at most.
func Ping(ctx context.Context, address, what, text string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return errNoService
	}
	if what != Passed {
		u = u.JoinPath(what)
	}
	for range pingTries {
		if err = pingOnce(ctx, u.String(), text); err == nil {
			break
		}
	}
	return err
}

func pingOnce(ctx context.Context, address, text string) error {
	ctx, cancel := context.WithTimeout(ctx, pingPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(text))
	if err != nil {
		return errNoService
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	req.Header.Set("User-Agent", "snap")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return &Status{resp.StatusCode}
	}
	return nil
}
