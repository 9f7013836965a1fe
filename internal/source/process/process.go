// Package process runs programs for producers and receivers of streams: for a
// short answer, as the source of a stream, as the sink of one. It owns that a
// program that fails, or is killed, is an error wherever its bytes have got to,
// and that none is left running. It knows nothing of what they do.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// maxAnswer is how many bytes of standard output Run keeps at most: lists of many thousand snapshots.
const maxAnswer = 64 << 20

// maxTalk is how many bytes of the end of standard error are kept.
const maxTalk = 4 << 10

// patience is how long a program that is told to end may take before it is killed.
const patience = 10 * time.Second

// tail keeps the end of what is written.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - maxTalk; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// last is the last lines, on one.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(strings.ToValidUTF8(string(t.buf), "?")), "\n")
	if len(lines) > 3 {
		lines = lines[len(lines)-3:]
	}
	return strings.Join(lines, "; ")
}

// command prepares argv: in a process group of its own, so that what a script starts ends with it.
func command(ctx context.Context, argv []string, plain bool) (*exec.Cmd, *tail) {
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	talk := &tail{}
	c.Stderr = talk
	if plain { // its messages and dates are read
		c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	}
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	c.WaitDelay = patience // for whoever else holds its pipes
	return c, talk
}

// explain makes one error of how a program ended, and what it said. name is what it is called: never its
// arguments, which may hold secrets.
func explain(ctx context.Context, name string, err error, talk *tail) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	if said := talk.last(); said != "" {
		return fmt.Errorf("%s: %w: %s", name, err, said)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// Run runs a program that answers briefly, and returns its standard output. name is for errors.
func Run(ctx context.Context, name string, argv ...string) (string, error) {
	c, talk := command(ctx, argv, true)
	var out strings.Builder
	c.Stdout = &limited{w: &out, left: maxAnswer}
	err := c.Run()
	return out.String(), explain(ctx, name, err, talk)
}

type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("its answer is too long")
	}
	return l.w.Write(p)
}

// Reader is the standard output of a running program.
type Reader struct {
	ctx  context.Context
	stop context.CancelFunc
	name string
	cmd  *exec.Cmd
	talk *tail
	out  *os.File
	end  error // what Read returns from now on; nil: it runs
}

// Start starts a program whose standard output is a stream; name is for errors. Its standard input is empty.
func Start(ctx context.Context, name string, argv ...string) (*Reader, error) {
	own, stop := context.WithCancel(ctx)
	c, talk := command(own, argv, false)
	r, w, err := os.Pipe()
	if err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	c.Stdout = w
	err = c.Start()
	w.Close()
	if err != nil {
		stop()
		r.Close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// Whoever inherited the pipe may hold it open after the program is gone.
	context.AfterFunc(own, func() { _ = r.SetReadDeadline(time.Now()) })
	return &Reader{ctx: ctx, stop: stop, name: name, cmd: c, talk: talk, out: r}, nil
}

// Read returns io.EOF only when the program has ended with status 0.
func (r *Reader) Read(p []byte) (int, error) {
	if r.end != nil {
		return 0, r.end
	}
	n, err := r.out.Read(p)
	if err == nil {
		return n, nil
	}
	if !errors.Is(err, io.EOF) { // the context is over, or something is very wrong
		r.stop()
	}
	werr := r.cmd.Wait()
	switch {
	case werr != nil || r.ctx.Err() != nil:
		r.end = explain(r.ctx, r.name, errors.Join(werr), r.talk)
		if r.end == nil {
			r.end = fmt.Errorf("%s: %w", r.name, context.Cause(r.ctx))
		}
	case errors.Is(err, io.EOF):
		r.end = io.EOF
	default:
		r.end = fmt.Errorf("%s: %w", r.name, err)
	}
	return n, r.end
}

// Close ends the program if it runs, and waits for it.
func (r *Reader) Close() error {
	r.stop()
	if r.end == nil {
		_ = r.cmd.Wait() // it was killed: its status says nothing
		r.end = os.ErrClosed
	}
	return r.out.Close()
}

// Feed runs a program with the bytes of in as its standard input. When in fails, the program is killed
// without seeing an end, and the error is in's. name is for errors.
func Feed(ctx context.Context, in io.Reader, name string, argv ...string) error {
	own, stop := context.WithCancel(ctx)
	defer stop()
	c, talk := command(own, argv, true)
	c.Stdout = talk
	w, err := c.StdinPipe()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	src := &errReader{r: in}
	_, werr := io.Copy(struct{ io.Writer }{w}, src)
	if src.err != nil {
		stop()
		_ = c.Wait() // it was killed
		return src.err
	}
	w.Close()
	if err := explain(ctx, name, c.Wait(), talk); err != nil {
		return err
	}
	if werr != nil {
		return fmt.Errorf("%s: it ended before it had read everything: %w", name, werr)
	}
	return nil
}

// errReader remembers the error of what it reads, io.EOF apart.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

// Usage runs a program without arguments and returns all that it says; its status does not matter.
func Usage(ctx context.Context, prog string) (string, error) {
	c, _ := command(ctx, []string{prog}, true)
	var out strings.Builder
	c.Stdout = &limited{w: &out, left: maxAnswer}
	c.Stderr = c.Stdout
	err := c.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return "", fmt.Errorf("%s: %w", prog, err)
	}
	return out.String(), nil
}
