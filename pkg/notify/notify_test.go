package notify_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tiny-forge/snap/pkg/notify"
)

const token = "t0ken"

// server answers with a status, and remembers the requests.
func server(t *testing.T, status int) (address string, heard func() []string) {
	t.Helper()
	var requests atomic.Value
	requests.Store([]string(nil))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests.Store(append(requests.Load().([]string), r.Method+" "+r.URL.String()+" "+string(body)))
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string { return requests.Load().([]string) }
}

func TestAPingSaysWhatHasHappened(t *testing.T) {
	address, heard := server(t, http.StatusOK)
	for _, what := range []string{notify.Started, notify.Passed, notify.Failed} {
		for _, end := range []string{"/id", "/id/", "/id?rid=1"} {
			if err := notify.Ping(t.Context(), address+end, what, "text"); err != nil {
				t.Error(err)
			}
		}
	}
	want := []string{
		"POST /id/start text", "POST /id/start text", "POST /id/start?rid=1 text",
		"POST /id text", "POST /id/ text", "POST /id?rid=1 text",
		"POST /id/fail text", "POST /id/fail text", "POST /id/fail?rid=1 text",
	}
	if got := heard(); !slices.Equal(got, want) {
		t.Errorf("the service heard %q", got)
	}
}

// Whatever goes wrong, the reason does not repeat the URL, and it comes in time.
func TestAFailureNeverShowsTheURL(t *testing.T) {
	refused, asked := server(t, http.StatusForbidden)
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	cuts, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer cuts.Close()
	go func() {
		for {
			c, err := cuts.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	plain := strings.TrimPrefix(refused, "http://")
	for address, want := range map[string]string{
		refused + "/" + token:                          "the answer is HTTP 403",
		"http://127.0.0.1:1/" + token:                  "connection refused",
		"http://" + deaf.Addr().String() + "/" + token: "no answer in time",
		"http://" + cuts.Addr().String() + "/" + token: "the connection was cut",
		"https://" + plain + "/" + token:               "the connection is not secure (certificate or TLS)",
		"http://" + token + ".invalid/":                "the host's name cannot be resolved",
		"ftp://" + token:                               "the URL is not that of a service that is known",
		":" + token:                                    "the URL is not that of a service that is known",
	} {
		begun := time.Now()
		got := notify.Reason(notify.Ping(t.Context(), address, notify.Passed, ""))
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("%s took %v", want, took)
		}
		if got != want && !(strings.Contains(address, ".invalid") && got != "" && !strings.Contains(got, token)) { // how names are resolved is the host's
			t.Errorf("%s: %q, expected %q", address, got, want)
		}
		service := "generic+" + address
		if strings.HasPrefix(address, "https") || !strings.HasPrefix(address, "http") {
			continue
		}
		if got := notify.Send(t.Context(), []string{service}, notify.Message{Text: "text"})[0]; got == "" || strings.Contains(got, token) {
			t.Errorf("a message through %s: %q", address, got)
		}
	}
	if len(asked()) == 0 {
		t.Error("nothing was sent")
	}
}

func TestAReasonIsOneOfSnapsOwnWords(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fmt.Errorf("Post %q: %w", token, syscall.ECONNREFUSED), "connection refused"},
		{errors.New("response status code: 401 Unauthorized"), "the answer is HTTP 401"},
		{errors.New("https://x/status/12345/" + token), "it failed (why is not shown, because it may hold the URL)"},
		{fmt.Errorf("%w", context.DeadlineExceeded), "no answer in time"},
		{&notify.Status{Code: 500}, "the answer is HTTP 500"},
	} {
		if got := notify.Reason(c.err); got != c.want {
			t.Errorf("%v: %q", c.err, got)
		}
	}
}

func TestAMessageReachesAllAndEachFailureIsSaid(t *testing.T) {
	good, heard := server(t, http.StatusOK)
	bad, _ := server(t, http.StatusBadGateway)
	urls := []string{
		"generic://" + strings.TrimPrefix(bad, "http://") + "/" + token + "?disabletls=yes",
		"generic://" + strings.TrimPrefix(good, "http://") + "/hook?disabletls=yes",
		"nosuchservice://" + token, "telegram://" + token, "%zz" + token,
	}
	got := notify.Send(t.Context(), urls, notify.Message{Title: "title", Text: "two\nlines"})
	if got[0] != "the answer is HTTP 502" || got[1] != "" || strings.Contains(strings.Join(got, ""), token) || slices.Contains(got[2:], "") {
		t.Errorf("got %q", got)
	}
	if said := heard(); len(said) != 1 || !strings.HasSuffix(said[0], "two\nlines") {
		t.Errorf("it heard %q", said)
	}
}

func TestAFileWithSecretsIsReadByNobodyElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secret")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("# where\n\n  https://x/"+token+"  \nhttps://y\r\n", 0o400)
	if got, err := notify.Read(path); err != nil || !slices.Equal(got, []string{"https://x/" + token, "https://y"}) {
		t.Errorf("got %q, %v", got, err)
	}
	refused := func(what string) {
		t.Helper()
		if got, err := notify.Read(path); err == nil || strings.Contains(err.Error(), token) {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o602, 0o610, 0o644} {
		write("https://x/"+token, mode)
		refused(mode.String())
	}
	write("# nothing\n", 0o600)
	refused("no URL")
	write(strings.Repeat(token, 100_000), 0o600)
	refused("too long")
	if os.Geteuid() == 0 {
		write(token, 0o600)
		if err := os.Chown(path, 1234, 1234); err != nil {
			t.Fatal(err)
		}
		refused("somebody else's")
	}
	path = filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a fifo")
	path = dir
	refused("a directory")
	path = filepath.Join(dir, "none")
	refused("nothing")
}
