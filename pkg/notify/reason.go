package notify

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/tiny-forge/snap/pkg/crew"
)

var errNoService = errors.New("the URL is not that of a service that is known")

// status is how errors name an answer of HTTP.
var status = regexp.MustCompile(`(?i)\bstatus(?: code)?[^0-9a-z]{1,3}([1-5][0-9]{2})\b`)

// Reason says why something could not be sent, without a word of the error itself: many
// errors repeat the URL. It is "" for nil.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	said := strings.ToLower(err.Error())
	has := func(words ...string) bool {
		for _, word := range words {
			if strings.Contains(said, word) {
				return true
			}
		}
		return false
	}
	var panicked *crew.Panic
	var answer *Status
	switch {
	case errors.Is(err, errNoService):
		return errNoService.Error()
	case errors.As(err, &panicked):
		return "the service crashed"
	case errors.As(err, &answer):
		return answer.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), has("timed out", "timeout", "deadline exceeded"):
		return "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED), has("connection refused"):
		return "connection refused"
	case has("no such host", "server misbehaving", "name resolution"):
		return "the host's name cannot be resolved"
	case has("unreachable"):
		return "the host or its network is unreachable"
	case has("x509", "certificate", "tls:", "https client"):
		return "the connection is not secure (certificate or TLS)"
	case has("connection reset", "eof", "broken pipe", "server closed", "connection broken"):
		return "the connection was cut"
	}
	if found := status.FindStringSubmatch(err.Error()); found != nil {
		return "the answer is HTTP " + found[1]
	}
	return "it failed (why is not shown, because it may hold the URL)"
}
