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
	// lineLimit is how long a line of output is at most, in bytes; the rest of one is left out.
	lineLimit = 4 << 10
	// headLimit and tailLimit are how much of the beginning and of the end of what a program says is passed on, in bytes.
	headLimit, tailLimit = 32 << 10, 32 << 10
)

// Options say what to run. Argv is needed; it is run as it is, without a shell.
type Options struct {
	Argv    []string
	Env     []string // NAME=VALUE, beside what this process has
	Stdin   io.Reader
	Timeout time.Duration // 0: none
	Grace   time.Duration // from SIGTERM to SIGKILL; 0: 10 s
	// Line is told each line of output, standard and error alike; nil: nobody. Of one that talks without end it is told
	// the first 32 KiB as they come, and at the end how much was left out, and the last 32 KiB.
	Line   func(line string)
	Stdout io.Writer // gets the standard output as it is; nil: it goes to Line
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

// lines cuts output into lines, and passes on the first and the last ones.
type lines struct {
	mu    sync.Mutex
	tell  func(string)
	ended bool // who holds the output still may say what it wants

	part []byte
	cut  int64 // bytes of the line that are left out

	head      int      // bytes passed on as they came
	tail      []string // the last lines, to be passed on at the end
	tailBytes int
	lostLines int // those between
	lostBytes int64
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	if l.ended || l.tell == nil {
		return n, nil
	}
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		piece := p
		if i >= 0 {
			piece = p[:i]
		}
		fits := min(len(piece), lineLimit-len(l.part))
		l.part = append(l.part, piece[:fits]...)
		l.cut += int64(len(piece) - fits)
		if i < 0 {
			break
		}
		l.flush()
		p = p[i+1:]
	}
	return n, nil
}

// flush ends a line.
func (l *lines) flush() {
	line := strings.ToValidUTF8(string(bytes.TrimRight(l.part, "\r")), "�")
	if l.cut > 0 {
		line += fmt.Sprintf(" … (%d bytes more)", l.cut)
	}
	l.part, l.cut = l.part[:0], 0
	size := len(line) + 1
	if l.tail == nil && l.head+size <= headLimit {
		l.head += size
		l.tell(line)
		return
	}
	l.tail = append(l.tail, line)
	for l.tailBytes += size; l.tailBytes > tailLimit; l.tail = l.tail[1:] {
		first := len(l.tail[0]) + 1
		l.tailBytes -= first
		l.lostLines++
		l.lostBytes += int64(first)
	}
}

// end passes on what was held back, and a last line without its newline.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended = true; len(l.part) > 0 {
		l.flush()
	}
	if l.lostLines > 0 {
		l.tell(fmt.Sprintf("… (%d lines of %d bytes are left out)", l.lostLines, l.lostBytes))
	}
	for _, line := range l.tail {
		l.tell(line)
	}
	l.tail = nil
}
