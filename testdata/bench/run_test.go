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

func TestTouchedMemoryIsNobodysPeak(t *testing.T) {
	const mib = 256
	if err := touchMemory(t.Context(), mib); err != nil {
		t.Fatal(err)
	}
	c, err := run(t.Context(), cmd("true"))
	if err != nil || c.peak <= 0 || c.peak >= mib {
		t.Errorf("a program's peak: %.0f MiB, %v, want less than the %d that were touched before", c.peak, err, mib)
	}
	if err := touchMemory(t.Context(), 0); err != nil {
		t.Errorf("nothing to touch: %v", err)
	}
}
