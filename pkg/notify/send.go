package notify

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/tiny-forge/snap/pkg/crew"
)

// Patience is how long the services have to take a message.
const Patience = 10 * time.Second

// Message is what is sent.
type Message struct {
	Title, Text string
}

// Send sends a message through the service of each URL, of all at a time. It returns why
// it failed, "" where it did not, in the order of the URLs.
func Send(ctx context.Context, urls []string, m Message) []string {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	reasons := make([]string, len(urls))
	var all sync.WaitGroup
	for i, url := range urls {
		all.Go(func() { reasons[i] = Reason(sendOne(ctx, url, m)) })
	}
	all.Wait()
	return reasons
}

// sendOne returns when ctx ends, whatever the service does then.
func sendOne(ctx context.Context, url string, m Message) error {
	done := make(chan error, 1)
	go func() {
		done <- crew.Catch(func() error {
			// The router's own Send would run the service in a goroutine in which
			// nobody catches a panic.
			service, err := (&router.ServiceRouter{}).Locate(url)
			if err != nil {
				return errors.Join(errNoService, err)
			}
			params := types.Params{}
			params.SetTitle(m.Title)
			return service.Send(m.Text, &params)
		})
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
