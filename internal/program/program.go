// Package program runs the programs that a user has named: hooks, notifiers, a
// mailer. It owns their lives (process group, time limit, what of their output is
// kept) and knows nothing of what they are for.
package program

import (
	"bytes"
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

// ErrTimeout says that a program was ended because its time was over.
var ErrTimeout = errors.New("took too long and was ended")

const (
	// grace is what a program has to end by itself after SIGTERM.
	grace = 10 * time.Second
	// lineLimit is how long a line of output is at most, in bytes; the rest of one is cut off.
	lineLimit = 4 << 10
)

// Options say what to run. Argv is needed; it is run as it is, without a shell.
type Options struct {
	Argv    []string
	Env     []string // NAME=VALUE, beside what this process has
	Stdin   io.Reader
	Timeout time.Duration     // 0: none
	Grace   time.Duration     // from SIGTERM to SIGKILL; 0: 10 s
	Line    func(line string) // is told each line of output, standard and error alike; nil: nobody
	Stdout  io.Writer         // gets the standard output as it is; nil: it goes to Line
}

// Run runs the program to its end. Failures name the program, never its
// arguments, which may be secrets. When ctx is done or the time is over, the program and all that it
// started in its process group are asked to end, and killed after Grace.
func Run(ctx context.Context, o Options) error {
	if len(o.Argv) == 0 || o.Argv[0] == "" {
		return errors.New("no program is named")
	}
	name := o.Argv[0]
	if o.Grace <= 0 {
		o.Grace = grace
	}
	limited := ctx
	if o.Timeout > 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeoutCause(ctx, o.Timeout, ErrTimeout)
		defer cancel()
	}
	cmd := exec.CommandContext(limited, name, o.Argv[1:]...)
	cmd.Env = append(os.Environ(), o.Env...)
	cmd.Stdin = o.Stdin
	out := &lines{tell: o.Line}
	cmd.Stdout, cmd.Stderr = out, out
	if o.Stdout != nil {
		cmd.Stdout = o.Stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = o.Grace
	err := cmd.Run()
	if cmd.Process != nil && limited.Err() != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // mostly there is nobody left
	}
	out.end()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay) && limited.Err() == nil:
		return nil // one that left others behind which hold its output has ended well all the same
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", name, context.Cause(ctx))
	case limited.Err() != nil:
		return fmt.Errorf("%s: %w (%s)", name, ErrTimeout, o.Timeout)
	case errors.As(err, new(*exec.ExitError)):
		return fmt.Errorf("%s: %w", name, err)
	}
	var cause *exec.Error
	if errors.As(err, &cause) {
		err = cause.Err
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("%s: cannot be run: %w", name, err)
}

// lines cuts output into lines.
type lines struct {
	mu   sync.Mutex
	tell func(string)
	part []byte
	cut  bool // the line's rest is left out
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		piece := p
		if i >= 0 {
			piece = p[:i]
		}
		if !l.cut {
			l.part = append(l.part, piece[:min(len(piece), lineLimit-len(l.part))]...)
			l.cut = len(l.part) == lineLimit
		}
		if i < 0 {
			break
		}
		l.flush()
		p = p[i+1:]
	}
	return n, nil
}

func (l *lines) flush() {
	if l.tell != nil {
		l.tell(strings.ToValidUTF8(string(bytes.TrimRight(l.part, "\r")), "�"))
	}
	l.part, l.cut = l.part[:0], false
}

// end tells of a last line without its newline.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.part) > 0 {
		l.flush()
	}
}
