package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tiny-forge/snap/pkg/archive"
	"github.com/tiny-forge/snap/pkg/disk"
)

// directory is the [Members] in a directory of this host: <ab>/<id>.gz or .zst,
// where ab are the first two digits of the id.
type directory struct {
	root *disk.Dir

	mu  sync.Mutex
	fan map[string]*disk.Dir // the folders that are open, by their names
}

func openDirectory(store *disk.Dir) (*directory, error) {
	root, err := store.Ensure("members", 0o700)
	if err != nil {
		return nil, err
	}
	return &directory{root: root, fan: map[string]*disk.Dir{}}, nil
}

func (d *directory) Close() error {
	errs := []error{d.root.Close()}
	for _, shard := range d.fan {
		errs = append(errs, shard.Close())
	}
	return errors.Join(errs...)
}

func memberFile(m archive.Member) string { return m.ID + m.Codec.Ext() }

// shard returns the folder of a member. With create it is made where it is
// missing; without, the error then wraps fs.ErrNotExist.
func (d *directory) shard(id string, create bool) (*disk.Dir, error) {
	if !archive.ValidMemberID(id) {
		return nil, fmt.Errorf("%w: %q is not the id of a member", disk.ErrDamaged, id)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	name := id[:2]
	if shard := d.fan[name]; shard != nil {
		return shard, nil
	}
	var shard *disk.Dir
	var err error
	if create {
		shard, err = d.root.EnsureUnsynced(name, 0o700) // Put syncs it all
	} else {
		shard, err = d.root.OpenSameMount(name)
	}
	if err != nil {
		return nil, err
	}
	d.fan[name] = shard
	return shard, nil
}

// Stat implements [Members].
func (d *directory) Stat(_ context.Context, list []archive.Member) ([]int64, error) {
	sizes := make([]int64, len(list))
	for i, m := range list {
		shard, err := d.shard(m.ID, false)
		if err == nil {
			sizes[i], err = size(shard, m)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, damaged(err)
		}
	}
	return sizes, nil
}

func size(shard *disk.Dir, m archive.Member) (int64, error) {
	st, err := shard.Lstat(memberFile(m))
	if err != nil {
		return 0, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return 0, fmt.Errorf("%w: member %s is not a regular file", disk.ErrDamaged, m.ID)
	}
	return st.Size, nil
}

// Get implements [Members].
func (d *directory) Get(_ context.Context, m archive.Member, buf []byte) ([]byte, error) {
	shard, err := d.shard(m.ID, false)
	if err != nil {
		return nil, damaged(err)
	}
	data, err := shard.ReadFileInto(memberFile(m), maxStored, buf)
	return data, damaged(err)
}

// damaged marks the error of something that stands where no Put has put it.
func damaged(err error) error {
	if altered(err) && !errors.Is(err, disk.ErrDamaged) {
		return fmt.Errorf("%w: %w", disk.ErrDamaged, err)
	}
	return err
}

// Put implements [Members]. It takes the staged files themselves, which are to be
// on its filesystem. It does not end with its context: renames are quick.
func (d *directory) Put(_ context.Context, list iter.Seq[Staged]) error {
	for m := range list {
		shard, err := d.shard(m.ID, true)
		if err != nil {
			return err
		}
		if err := m.Dir.Rename(m.Name, shard, memberFile(m.Member)); err != nil {
			return err
		}
	}
	return d.root.SyncFS()
}

// List implements [Members].
func (d *directory) List(ctx context.Context) iter.Seq2[archive.Member, error] {
	return func(yield func(archive.Member, error) bool) {
		shards, err := d.root.Names()
		if err != nil {
			yield(archive.Member{}, err)
			return
		}
		for _, name := range shards {
			if ctx.Err() != nil {
				yield(archive.Member{}, context.Cause(ctx))
				return
			}
			if !d.listShard(name, yield) {
				return
			}
		}
	}
}

// listShard gives the members of a folder, and reports whether to go on.
func (d *directory) listShard(name string, yield func(archive.Member, error) bool) bool {
	shard, err := d.root.OpenSameMount(name)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist) || altered(err) || yield(archive.Member{}, err)
	}
	defer shard.Close()
	files, err := shard.Names()
	if err != nil {
		return yield(archive.Member{}, err)
	}
	for _, file := range files {
		m, ok := memberOf(file)
		if !ok || m.ID[:2] != name {
			continue
		}
		m.Stored, err = size(shard, m)
		switch {
		case err == nil:
			if !yield(m, nil) {
				return false
			}
		case errors.Is(err, fs.ErrNotExist), altered(err):
		default:
			return yield(archive.Member{}, err)
		}
	}
	return true
}

// memberOf returns the member that a file is named after.
func memberOf(file string) (archive.Member, bool) {
	for _, codec := range []archive.Codec{archive.Gzip, archive.Zstd} {
		if id, ok := strings.CutSuffix(file, codec.Ext()); ok && archive.ValidMemberID(id) {
			return archive.Member{ID: id, Codec: codec}, true
		}
	}
	return archive.Member{}, false
}

// Remove implements [Members].
func (d *directory) Remove(ctx context.Context, list []archive.Member) error {
	for _, m := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		shard, err := d.shard(m.ID, false)
		if err == nil {
			err = shard.Remove(memberFile(m))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return d.root.SyncFS()
}
