package archive

import (
	"fmt"
	"os"

	"github.com/tiny-forge/snap/pkg/archive/member"
	"github.com/tiny-forge/snap/pkg/archive/tarstream"
)

// maxClones is how many descriptors clones may take if the process may open enough.
// Further files are read at once.
const maxClones = 512

// clone is the content of a large file. It is read after the walk has ended.
type clone struct {
	f     *os.File
	e     tarstream.Entry
	parts []*member.Piece // its places in the stream
}

// cloned makes a clone of a large file, so that the file can be read later. It
// reports false if there can be no clone.
func (w *Writing) cloned(f *live, e *tarstream.Entry) (bool, error) {
	if w.opt.Clones == nil || len(w.clones) >= w.mostClones || e.Stored() == 0 {
		return false, nil
	}
	copied, err := w.opt.Clones.Clone(f.fd)
	if err != nil {
		// No reflinks, another filesystem, too many open files: the file is read
		// instead, and reading reports any other problem.
		w.opt.Clones = nil
		return false, nil
	}
	if err := w.flush(); err != nil {
		copied.Close()
		return false, err
	}
	parts := w.pieces.Reserve(int((e.Stored() + member.PieceSize - 1) / member.PieceSize))
	w.clones = append(w.clones, clone{copied, *e, parts})
	return true, nil
}

// readClones reads the clones and stores their content.
func (w *Writing) readClones() error {
	for _, c := range w.clones {
		next := 0
		torn, err := w.readLarge(c.f, &c.e, func(tar []byte) error {
			next++
			return w.pieces.Fill(c.parts[next-1], tar)
		})
		if err == nil && torn {
			err = fmt.Errorf("the clone of %q is shorter than the file was", c.e.Name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unclone forgets all clones after the first n.
func (w *Writing) unclone(n int) {
	for _, c := range w.clones[n:] {
		c.f.Close()
	}
	w.clones = w.clones[:n]
}
