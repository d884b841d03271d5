package disk

import (
	"slices"
	"strings"
)

// Room is how much an operation needs on a filesystem, and what is free there.
type Room struct {
	Path       string `json:"path"` // a directory of it
	NeedBytes  uint64 `json:"need_bytes"`
	FreeBytes  uint64 `json:"free_bytes"`
	NeedInodes uint64 `json:"need_inodes"`
	FreeInodes uint64 `json:"free_inodes"`
}

// Rooms adds up what an operation needs on each filesystem.
type Rooms map[FSID]*Room

// Add adds a need on the filesystem of d, and returns what that filesystem then needs.
func (r Rooms) Add(d *Dir, bytes, inodes uint64) (*Room, error) {
	id, err := d.Filesystem()
	if err != nil {
		return nil, err
	}
	if r[id] == nil {
		free, err := d.Space()
		if err != nil {
			return nil, err
		}
		r[id] = &Room{Path: d.path, FreeBytes: free.Bytes, FreeInodes: free.Inodes}
	}
	r[id].NeedBytes += bytes
	r[id].NeedInodes += inodes
	return r[id], nil
}

// List returns the filesystems, sorted by path.
func (r Rooms) List() []Room {
	list := []Room{}
	for _, room := range r {
		list = append(list, *room)
	}
	slices.SortFunc(list, func(a, b Room) int { return strings.Compare(a.Path, b.Path) })
	return list
}
