package archive

import (
	"context"
	"runtime"
	"sync"

	"github.com/tiny-forge/snap/pkg/crew"
)

// pieces hands the pieces of a stream to a sink, several at a time, and keeps
// their order.
type pieces struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	sink   Sink
	jobs   chan *piece
	done   sync.WaitGroup
	list   []*piece
	free   sync.Pool
}

type piece struct {
	tar    []byte
	member Member
}

func newPieces(ctx context.Context, sink Sink, workers int) *pieces {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	p := &pieces{sink: sink, jobs: make(chan *piece, workers)}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	for range workers {
		p.done.Go(p.work)
	}
	return p
}

func (p *pieces) work() {
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

// buffer returns an empty buffer for the next piece.
func (p *pieces) buffer() []byte {
	if b, ok := p.free.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, pieceSize+2*block)
}

func (p *pieces) put(tar []byte) error {
	job := &piece{}
	if err := p.fill(job, tar); err != nil {
		return err
	}
	p.list = append(p.list, job)
	return nil
}

// reserve keeps n places in the list, which fill fills later.
func (p *pieces) reserve(n int) []*piece {
	for range n {
		p.list = append(p.list, &piece{})
	}
	return p.list[len(p.list)-n:]
}

func (p *pieces) fill(job *piece, tar []byte) error {
	job.tar = tar
	select {
	case p.jobs <- job:
		return nil
	case <-p.ctx.Done():
		crew.Raise(context.Cause(p.ctx))
		return context.Cause(p.ctx)
	}
}

// add puts members in their place that the sink has already.
func (p *pieces) add(members []Member) {
	for _, m := range members {
		p.list = append(p.list, &piece{member: m})
	}
}

// mark is a place in the list to which rewind returns: the pieces behind it
// are forgotten. That they may have been stored does no harm.
func (p *pieces) mark() int    { return len(p.list) }
func (p *pieces) rewind(n int) { p.list = p.list[:n] }

// finish waits for the sink and returns the members in order.
func (p *pieces) finish() ([]Member, error) {
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
