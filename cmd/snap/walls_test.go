package main

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of the project each package may import.
var mayImport = map[string][]string{
	"cmd/snap":                {"cmd/snap/process", "pkg/archive", "pkg/catalog", "pkg/check", "pkg/crew", "pkg/diff", "pkg/disk", "pkg/docker", "pkg/docker/endpoint", "pkg/fault", "pkg/journal", "pkg/keep", "pkg/metrics", "pkg/near", "pkg/notify", "pkg/preflight", "pkg/prune", "pkg/remedy", "pkg/rename", "pkg/repair", "pkg/restore", "pkg/retain", "pkg/runtime", "pkg/snapshot", "pkg/state", "pkg/store", "pkg/swap", "pkg/verify", "pkg/workload"},
	"pkg/restore":             {"pkg/archive", "pkg/catalog", "pkg/disk", "pkg/fault", "pkg/hook", "pkg/intake", "pkg/journal", "pkg/keep", "pkg/preflight", "pkg/prune", "pkg/remedy", "pkg/repair", "pkg/retain", "pkg/runtime", "pkg/snapshot", "pkg/store", "pkg/swap", "pkg/verify", "pkg/workload"},
	"cmd/snap/process":        {"pkg/disk", "pkg/restore", "pkg/runtime"},
	"pkg/intake":              {"pkg/archive", "pkg/archive/foreign", "pkg/disk", "pkg/fault", "pkg/journal", "pkg/remedy", "pkg/snapshot", "pkg/swap", "pkg/workload"},
	"pkg/retain":              {},
	"pkg/notify":              {"pkg/crew", "pkg/remedy"},
	"pkg/metrics":             {"pkg/disk", "pkg/journal", "pkg/store"},
	"pkg/hook":                {"pkg/disk", "pkg/fault", "pkg/journal", "pkg/remedy", "pkg/runtime", "pkg/workload"},
	"pkg/prune":               {"pkg/catalog", "pkg/fault", "pkg/journal", "pkg/remedy", "pkg/retain", "pkg/store", "pkg/workload"},
	"pkg/check":               {"pkg/archive", "pkg/fault", "pkg/remedy", "pkg/restore", "pkg/store", "pkg/verify"},
	"pkg/verify":              {"pkg/archive", "pkg/crew", "pkg/disk", "pkg/keep", "pkg/store"},
	"pkg/preflight":           {"pkg/archive", "pkg/archive/part", "pkg/catalog", "pkg/diff", "pkg/disk", "pkg/fault", "pkg/journal", "pkg/remedy", "pkg/runtime", "pkg/snapshot", "pkg/store", "pkg/swap", "pkg/workload"},
	"pkg/catalog":             {"pkg/archive", "pkg/archive/part", "pkg/archive/tarstream", "pkg/disk", "pkg/fault", "pkg/journal", "pkg/keep", "pkg/near", "pkg/remedy", "pkg/snapshot", "pkg/store", "pkg/workload"},
	"pkg/diff":                {"pkg/archive", "pkg/archive/part", "pkg/archive/tarstream", "pkg/catalog", "pkg/disk", "pkg/fault", "pkg/remedy", "pkg/snapshot", "pkg/store", "pkg/swap", "pkg/workload"},
	"pkg/rename":              {"pkg/fault", "pkg/journal", "pkg/remedy", "pkg/store", "pkg/workload"},
	"pkg/keep":                {"pkg/disk", "pkg/runtime", "pkg/workload"},
	"pkg/repair":              {"pkg/archive", "pkg/catalog", "pkg/disk", "pkg/fault", "pkg/journal", "pkg/remedy", "pkg/snapshot", "pkg/store", "pkg/verify"},
	"pkg/fault":               {"pkg/archive", "pkg/disk", "pkg/journal", "pkg/remedy", "pkg/runtime", "pkg/snapshot", "pkg/store", "pkg/swap", "pkg/workload"},
	"pkg/swap":                {"pkg/disk", "pkg/journal", "pkg/remedy"},
	"pkg/snapshot":            {"pkg/archive", "pkg/disk", "pkg/store", "pkg/workload"},
	"pkg/docker":              {"pkg/compose", "pkg/docker/endpoint", "pkg/docker/engine", "pkg/docker/mounts", "pkg/runtime", "pkg/workload"},
	"pkg/docker/engine":       {"pkg/compose", "pkg/crew", "pkg/docker/mounts", "pkg/runtime"},
	"pkg/docker/endpoint":     {},
	"pkg/compose":             {"pkg/runtime", "pkg/workload"},
	"pkg/state":               {"pkg/disk", "pkg/journal", "pkg/store"},
	"pkg/store":               {"pkg/archive", "pkg/crew", "pkg/disk"},
	"pkg/archive":             {"pkg/archive/foreign", "pkg/archive/member", "pkg/archive/tarstream", "pkg/crew", "pkg/disk"},
	"pkg/archive/part":        {"pkg/archive", "pkg/archive/member", "pkg/archive/tarstream", "pkg/disk", "pkg/near"},
	"pkg/archive/foreign":     {"pkg/archive/member", "pkg/archive/tarstream"},
	"pkg/archive/tarstream":   {"pkg/archive/member"},
	"pkg/archive/member":      {"pkg/crew"},
	"pkg/journal":             {"pkg/disk", "pkg/runtime"},
	"pkg/runtime":             {"pkg/workload"},
	"pkg/workload":            {"pkg/disk", "pkg/near", "pkg/remedy", "pkg/retain"},
	"pkg/crew":                {},
	"pkg/near":                {},
	"pkg/remedy":              {},
	"pkg/disk":                {"pkg/remedy"},
	"pkg/disk/disktest":       {},
	"pkg/docker/mounts":       {"pkg/disk", "pkg/runtime", "pkg/workload"},
	"pkg/docker/dockertest":   {"pkg/disk"},
	"pkg/archive/archivetest": {"pkg/archive"},
}

// only says where calls may stand that can lose data, end the program or print:
// qualified name → packages or files.
var only = map[string][]string{
	"os.Rename":             {},
	"os.Remove":             {},
	"os.RemoveAll":          {},
	"os.Truncate":           {},
	"os.WriteFile":          {},
	"unix.Renameat":         {"pkg/disk/"},
	"unix.Renameat2":        {"pkg/disk/"},
	"unix.Rename":           {},
	"unix.Unlinkat":         {"pkg/disk/"},
	"unix.Unlink":           {},
	"unix.Rmdir":            {},
	"unix.Ftruncate":        {"pkg/archive/output.go", "pkg/archive/writers.go"},
	"unix.Mkdirat":          {"pkg/disk/", "pkg/archive/extract.go"},
	"unix.Symlinkat":        {"pkg/archive/extract.go"},
	"unix.Mknodat":          {"pkg/archive/extract.go"},
	"unix.Linkat":           {"pkg/archive/extract.go"},
	"os.Exit":               {"cmd/snap/main.go"},
	"log.Fatal":             {},
	"fmt.Print":             {},
	"fmt.Println":           {},
	"fmt.Printf":            {},
	"fmt.Fprintln":          {"cmd/snap/ui.go"},
	"syscall.Exec":          {},
	"exec.Command":          {"cmd/snap/deploy.go", "cmd/snap/watchdog.go", "pkg/compose/command.go"},
	"exec.CommandContext":   {"cmd/snap/tell.go", "pkg/compose/command.go", "pkg/hook/host.go"},
	"filepath.EvalSymlinks": {"pkg/compose/origin.go", "pkg/docker/", "pkg/journal/lock.go"},
}

const module = "github.com/tiny-forge/snap/"

func TestTheWallsHold(t *testing.T) {
	found := 0
	eachFile(t, func(path string, file *ast.File) {
		found++
		room := filepath.Dir(path)
		allowed, known := mayImport[room]
		if !known {
			t.Errorf("%s: a package that the design does not have", path)
		}
		for _, spec := range file.Imports {
			name, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module)
			if ours && !slices.Contains(allowed, name) {
				t.Errorf("%s imports %s, which %s may not know", path, name, room)
			}
			if strings.Contains(spec.Path.Value, "docker/docker") && room != "pkg/docker" && !strings.HasPrefix(room, "pkg/docker/") {
				t.Errorf("%s imports %s: Docker's types stay in pkg/docker", path, spec.Path.Value)
			}
		}
		if room == "pkg/disk/disktest" || room == "pkg/docker/dockertest" {
			return // they may do what tests do
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := call.X.(*ast.Ident); ok {
				checkCall(t, path, pkg.Name+"."+call.Sel.Name)
			}
			return true
		})
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name == "init" && f.Recv == nil {
				t.Errorf("%s has an init function", path)
			}
		}
	})
	if found < 50 {
		t.Fatalf("only %d files were looked at", found)
	}
}

func checkCall(t *testing.T, path, name string) {
	places, limited := only[name]
	if !limited || slices.ContainsFunc(places, func(p string) bool { return strings.HasPrefix(path, p) }) {
		return
	}
	t.Errorf("%s uses %s, which may stand only in %q", path, name, places)
}

// eachFile calls look for every file of the program, without its tests.
func eachFile(t *testing.T, look func(path string, file *ast.File)) {
	t.Helper()
	const top = "../.."
	for _, root := range []string{"cmd", "pkg"} {
		err := filepath.WalkDir(filepath.Join(top, root), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return filepath.SkipDir
			}
			if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(top, path)
			look(rel, file)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNoRoomIsTooLarge: what has more files or lines than fit in a head is two
// packages.
func TestNoRoomIsTooLarge(t *testing.T) {
	const mostFiles, mostLines = 20, 4000
	files, lines := map[string]int{}, map[string]int{}
	eachFile(t, func(path string, _ *ast.File) {
		text, err := os.ReadFile(filepath.Join("../..", path))
		if err != nil {
			t.Fatal(err)
		}
		room := filepath.Dir(path)
		files[room]++
		lines[room] += bytes.Count(text, []byte{'\n'})
	})
	for room := range files {
		if files[room] > mostFiles || lines[room] > mostLines {
			t.Errorf("%s has %d files and %d lines, and may have %d and %d", room, files[room], lines[room], mostFiles, mostLines)
		}
	}
}
