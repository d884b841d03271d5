package workload

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// Every key that the config takes is in docs/operating.md, as the first cell of
// a table.
func TestEveryKeyIsDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, config, _ := strings.Cut(string(text), "\n## Config\n")
	config, _, _ = strings.Cut(config, "\n## ")
	cells := map[string]bool{}
	for line := range strings.Lines(config) {
		if cell, ok := strings.CutPrefix(line, "| "); ok {
			cell, _, _ = strings.Cut(cell, " |")
			for _, key := range strings.Split(cell, ", ") {
				cells[strings.Trim(key, "`")] = true
			}
		}
	}
	for _, of := range []reflect.Type{reflect.TypeFor[file](), reflect.TypeFor[Config](), reflect.TypeFor[Workload](), reflect.TypeFor[Composition](), reflect.TypeFor[Container](), reflect.TypeFor[Volume](), reflect.TypeFor[Hooks](), reflect.TypeFor[Hook](), reflect.TypeFor[Notify](), reflect.TypeFor[Ping]()} {
		for i := range of.NumField() {
			key, _, _ := strings.Cut(of.Field(i).Tag.Get("yaml"), ",")
			if key != "" && key != "-" && !cells[key] {
				t.Errorf("%s of %s is in no table", key, of.Name())
			}
		}
	}
}
