package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A fuzz target without seeds passes plain `go test` whatever the code does.
// Each must add one in any case: in a statement of its own, not in a loop over
// what may be nothing, or through a function of its package that does.
func TestEveryFuzzTargetHasSeeds(t *testing.T) {
	files, err := filepath.Glob("../../pkg/*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob("../../pkg/*/*/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, deeper...)
	packages := map[string]map[string]*ast.FuncDecl{}
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Base(filepath.Dir(path))
		if packages[dir] == nil {
			packages[dir] = map[string]*ast.FuncDecl{}
		}
		for _, decl := range file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil {
				packages[dir][fn.Name.Name] = fn
			}
		}
	}
	var found []string
	for dir, functions := range packages {
		for name, fn := range functions {
			if !strings.HasPrefix(name, "Fuzz") {
				continue
			}
			found = append(found, dir+"."+name)
			if !seeded(functions, fn, 0) {
				t.Errorf("%s.%s adds no seed in any case", dir, name)
			}
		}
	}
	for _, wanted := range []string{
		"archive.FuzzExtract", "archive.FuzzExtractForeign", "member.FuzzFlate", "tarstream.FuzzHeader", "archive.FuzzInflate", "archive.FuzzInflateZstd", "store.FuzzManifest", "store.FuzzIndexLine",
		"journal.FuzzBegin", "journal.FuzzReady", "journal.FuzzTimes", "journal.FuzzCommit", "journal.FuzzRevert", "journal.FuzzRuns", "state.FuzzStores", "state.FuzzScrubs", "state.FuzzDamages", "workload.FuzzLoad", "keep.FuzzRead", "store.FuzzWas",
	} {
		if !slices.Contains(found, wanted) {
			t.Errorf("%s is missing; there are %q", wanted, found)
		}
	}
}

// seeded reports whether one of fn's own statements is f.Add, or a call that is
// given f of a function of which that is true.
func seeded(functions map[string]*ast.FuncDecl, fn *ast.FuncDecl, depth int) bool {
	if fn == nil || fn.Body == nil || depth > 3 {
		return false
	}
	for _, statement := range fn.Body.List {
		expr, ok := statement.(*ast.ExprStmt)
		if !ok {
			continue
		}
		call, ok := expr.X.(*ast.CallExpr)
		if !ok {
			continue
		}
		switch callee := call.Fun.(type) {
		case *ast.SelectorExpr:
			if x, ok := callee.X.(*ast.Ident); ok && x.Name == "f" && callee.Sel.Name == "Add" {
				return true
			}
		case *ast.Ident:
			given := len(call.Args) > 0
			if given {
				x, ok := call.Args[0].(*ast.Ident)
				given = ok && x.Name == "f"
			}
			if given && seeded(functions, functions[callee.Name], depth+1) {
				return true
			}
		}
	}
	return false
}
