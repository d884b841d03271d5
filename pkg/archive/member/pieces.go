package member

import (
	"context"
	"runtime"
	"sync"

	"github.com/tiny-forge/snap/pkg/crew"
)

// Sink stores the pieces of a volume.
type Sink interface {
	// Put stores a piece and returns its member. It is called from several
	// goroutines at a time, and may keep tar only until it returns. After an error
	// no further piece is put.
	Put(tar []byte) (Member, error)
}

// PieceSize is the size of a piece of a large file. No piece of a capture is much
// larger.
const PieceSize = 1 << 20

// endSize is how much longer than PieceSize a piece may be: it may have padding, or
// the end of the stream.
const endSize = 1024

// Pieces hands the pieces of a stream to a sink, several at a time, and keeps
// their order.
type Pieces struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	sink   Sink
	jobs   chan *Piece
	done   sync.WaitGroup
	list   []*Piece
	free   sync.Pool
}

// Piece is one place in the order of the stream, and the piece that belongs there.
type Piece struct {
	tar    []byte
	member Member
}

// NewPieces returns pieces that one worker per core puts into sink. Call Finish or
// Abandon when done.
func NewPieces(ctx context.Context, sink Sink) *Pieces {
	workers := runtime.GOMAXPROCS(0)
	p := &Pieces{sink: sink, jobs: make(chan *Piece, workers)}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for range workers {
		p.done.Go(p.work)
	}
	return p
}

func (p *Pieces) work() {
	for job := range p.jobs {
		if p.ctx.Err() != nil {
			continue
		}
		if err := crew.Catch(func() (err error) {
			job.member, err = p.sink.Put(job.tar)
			return err
		}); err != nil {
			p.cancel(err)
		}
		buf := job.tar
		p.free.Put(&buf)
		job.tar = nil
	}
}

// Buffer returns an empty buffer for the next piece.
func (p *Pieces) Buffer() []byte {
	if b, ok := p.free.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, PieceSize+endSize)
}

// Put appends a piece. It must come from Buffer, and belongs to p from now on.
func (p *Pieces) Put(tar []byte) error {
	return p.Fill(p.Reserve(1)[0], tar)
}

// Reserve appends n places, which Fill fills later.
func (p *Pieces) Reserve(n int) []*Piece {
	for range n {
		p.list = append(p.list, &Piece{})
	}
	return p.list[len(p.list)-n:]
}

// Fill is Put for a place that Reserve returned.
func (p *Pieces) Fill(job *Piece, tar []byte) error {
	job.tar = tar
	select {
	case p.jobs <- job:
		return nil
	case <-p.ctx.Done():
		crew.Raise(context.Cause(p.ctx))
		return context.Cause(p.ctx)
	}
}

// Add appends members that the sink already has.
func (p *Pieces) Add(members []Member) {
	for _, m := range members {
		p.list = append(p.list, &Piece{member: m})
	}
}

// Mark returns how many places there are.
func (p *Pieces) Mark() int { return len(p.list) }

// Rewind forgets all places after the first n. The sink may have stored their
// pieces, which does no harm.
func (p *Pieces) Rewind(n int) { p.list = p.list[:n] }

// Finish waits for the sink and returns the members in order.
func (p *Pieces) Finish() ([]Member, error) {
	close(p.jobs)
	p.done.Wait()
	err := context.Cause(p.ctx)
	p.cancel(nil)
	crew.Raise(err)
	if err != nil {
		return nil, err
	}
	members := make([]Member, len(p.list))
	for i, job := range p.list {
		members[i] = job.member
	}
	return members, nil
}

// Abandon stops the workers and waits for them. It takes the place of Finish.
func (p *Pieces) Abandon(cause error) {
	p.cancel(cause)
	_, _ = p.Finish()
}
