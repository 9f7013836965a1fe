// Package command is the source of what a program writes, or of what comes in
// through a pipe. Neither has points to build on: each snapshot is full. Whether
// it is whole, a program's exit status says; of a pipe only its own end does,
// and the stream's end marker where it has one.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/firn-backup/firn/internal/source"
	"github.com/firn-backup/firn/internal/source/process"
)

// Command is a program.
type Command struct{ argv []string }

var _ source.Stream = (*Command)(nil)

// New makes a source of a program and its arguments, which no shell sees.
func New(argv ...string) (*Command, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("no command")
	}
	return &Command{argv}, nil
}

// Traits says that it can be run again.
func (c *Command) Traits() source.StreamTraits { return source.StreamTraits{Again: true} }

// Make makes a point of now.
func (c *Command) Make(_ context.Context, at time.Time) (source.Point, error) {
	return source.Point{At: at}, nil
}

// Points has none.
func (c *Command) Points(context.Context) ([]source.Point, error) { return nil, nil }

// Open runs the program.
func (c *Command) Open(ctx context.Context, _ source.Point, base *source.Point) (io.ReadCloser, error) {
	if base != nil {
		return nil, fmt.Errorf("%s: a command's output builds on nothing", c.argv[0])
	}
	return process.Start(ctx, filepath.Base(c.argv[0]), c.argv...)
}

// Keep does nothing.
func (c *Command) Keep(context.Context, source.Point) error { return nil }

// Release does nothing.
func (c *Command) Release(context.Context, source.Point) error { return nil }

// Pipe is a stream that somebody else produces, and that can be read once.
type Pipe struct {
	name string
	r    io.Reader
	used bool
}

var _ source.Stream = (*Pipe)(nil)

// NewPipe makes a source of r; name is for errors.
func NewPipe(name string, r io.Reader) *Pipe { return &Pipe{name: name, r: r} }

// Traits says that it cannot be read again.
func (p *Pipe) Traits() source.StreamTraits { return source.StreamTraits{} }

// Make makes a point of now.
func (p *Pipe) Make(_ context.Context, at time.Time) (source.Point, error) {
	return source.Point{At: at}, nil
}

// Points has none.
func (p *Pipe) Points(context.Context) ([]source.Point, error) { return nil, nil }

// Open reads it; base says nothing: what the stream builds on is its own affair.
func (p *Pipe) Open(ctx context.Context, _ source.Point, _ *source.Point) (io.ReadCloser, error) {
	if p.used {
		return nil, fmt.Errorf("%s: it cannot be read again", p.name)
	}
	p.used = true
	return &pipeReader{p: p, ctx: ctx, ask: make(chan []byte), got: make(chan pipeRead, 1)}, nil
}

// Keep does nothing.
func (p *Pipe) Keep(context.Context, source.Point) error { return nil }

// Release does nothing.
func (p *Pipe) Release(context.Context, source.Point) error { return nil }

// pipeReader reads in a goroutine of its own, so that an interruption does not wait for whoever
// is at the other end.
type pipeReader struct {
	p     *Pipe
	ctx   context.Context
	start sync.Once
	ask   chan []byte
	got   chan pipeRead
	buf   []byte
	err   error
}

type pipeRead struct {
	n   int
	err error
}

func (r *pipeReader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	r.start.Do(func() {
		r.buf = make([]byte, 256<<10)
		go func() {
			for b := range r.ask {
				n, err := r.p.r.Read(b)
				r.got <- pipeRead{n, err}
			}
		}()
	})
	r.ask <- r.buf[:min(len(b), len(r.buf))]
	select {
	case got := <-r.got:
		copy(b, r.buf[:got.n])
		if got.err != nil {
			r.err = got.err
			if got.err != io.EOF {
				r.err = fmt.Errorf("read %s: %w", r.p.name, got.err)
			}
		}
		return got.n, r.err
	case <-r.ctx.Done(): // the buffer is the goroutine's for ever
		r.err = fmt.Errorf("read %s: %w", r.p.name, context.Cause(r.ctx))
		return 0, r.err
	}
}

// Close ends the reading. What is left in the pipe stays there.
func (r *pipeReader) Close() error {
	r.start.Do(func() {})
	close(r.ask)
	return nil
}
