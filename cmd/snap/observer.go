package main

import "github.com/tiny-forge/snap/pkg/restore"

// Phase implements [restore.Observer].
func (a *app) Phase(p restore.Phase) { a.pacer.Follow(p) }

// Progress implements [restore.Observer].
func (a *app) Progress(string, int64, int64) {}

// Line implements [restore.Observer].
func (a *app) Line(text string) { a.progress("%s", text) }
