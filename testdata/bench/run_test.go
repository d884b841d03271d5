package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestAPipelineSaysWhoFailed(t *testing.T) {
	var out bytes.Buffer
	c, err := pipe(t.Context(), &out, cmd("printf", `b\na\n`), cmd("sort"))
	if err != nil || out.String() != "a\nb\n" {
		t.Fatalf("%q, %v", &out, err)
	}
	if c.seconds <= 0 || c.peak <= 0 {
		t.Errorf("it cost %+v", c)
	}
	_, err = pipe(t.Context(), &out, cmd("cat", "/no/such/file"), cmd("cat"))
	if err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("%v, want what the first one said", err)
	}
	if _, err := pipe(t.Context(), &out, cmd("cat", "/dev/null"), cmd("/no/such/program")); err == nil {
		t.Error("a program that is not there ran")
	}
	dir, err := output(t.Context(), cmd("sh", "-c", "pwd; echo $WHO").in("/").with("WHO=me"))
	if err != nil || dir != "/\nme" {
		t.Errorf("%q, %v", dir, err)
	}
}
