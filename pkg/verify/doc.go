// Package verify reads what a store holds and finds out what is damaged.
//
// [Run] looks at the manifests, at the indexes, and whether each member is there with
// the length that it was stored with. With data it reads members as well, all or a part
// of them, and compares each with the checksum that is its name. What is damaged it names
// by snapshot, volume and path. It changes nothing.
//
// The caller shares the store's lock, so that no member goes meanwhile. A capture may
// run at the same time: what it has not published does not count.
package verify
