package encrypt

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"github.com/firn-backup/firn/internal/codec"
)

// gpgCommand runs gpg as a program among others: no questions on its own
// terminal, English messages. Its agent asks through pinentry all the same.
func gpgCommand(program, home string, args ...string) *exec.Cmd {
	if program == "" {
		program = "gpg"
	}
	all := []string{"--batch", "--no-tty"}
	if home != "" {
		all = append(all, "--homedir", home)
	}
	cmd := exec.Command(program, append(all, args...)...)
	cmd.Env = append(cmd.Environ(), "LC_ALL=C")
	if os.Getenv("GPG_TTY") == "" {
		// A pinentry on the terminal must be told which, as stdin is a pipe.
		for _, fd := range []string{"/proc/self/fd/0", "/proc/self/fd/2"} {
			if tty, err := os.Readlink(fd); err == nil && (strings.HasPrefix(tty, "/dev/pts/") || strings.HasPrefix(tty, "/dev/tty")) {
				cmd.Env = append(cmd.Env, "GPG_TTY="+tty)
				break
			}
		}
	}
	return cmd
}

// gpgExport returns the public keys of a name, binary; none is not an error.
func gpgExport(program, home, name string) ([]byte, error) {
	if strings.Contains(name, "@") && !strings.ContainsAny(name, "<> =") {
		name = "<" + name + ">" // gpg would take a part of an address, too
	}
	cmd := gpgCommand(program, home, "--quiet", "--export", "--", name)
	var talk gpgTalk
	cmd.Stderr = &talk
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, fmt.Errorf("key %q is to be taken from gpg's keyring, but gpg is not installed", name)
	}
	if err != nil {
		return nil, fmt.Errorf("gpg --export %q: %w%s", name, err, talk.text())
	}
	return out, nil
}

// gpgDecryptor decrypts through the gpg program, which asks its agent.
type gpgDecryptor struct{ program, home string }

var _ codec.Decryptor = (*gpgDecryptor)(nil)

func newGPGDecryptor(k Keys) (*gpgDecryptor, error) {
	program := k.GPG
	if program == "" {
		program = "gpg"
	}
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, noKey(OpenPGP, fmt.Errorf("no private key file is given, and gpg is not installed: %w", err))
	}
	return &gpgDecryptor{path, k.GPGHome}, nil
}

func (d *gpgDecryptor) HeaderSize([]byte) (int, error) { return 0, nil }

func (d *gpgDecryptor) DecryptAt(io.ReaderAt, int64) (io.ReaderAt, int64, error) {
	return nil, 0, fmt.Errorf("openpgp: %w", codec.ErrNotSeekable)
}

// Decrypt pipes src through gpg. The reader is an io.Closer: it must be closed,
// or read to its end or an error, for the program to go away at once; otherwise it
// goes when the reader is collected. codec.ErrNoKey comes from the first Read.
func (d *gpgDecryptor) Decrypt(src io.Reader) (io.Reader, error) {
	p := &gpgProcess{src: &source{r: src}}
	p.cmd = gpgCommand(d.program, d.home, "--status-fd", "2", "--decrypt")
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("gpg: %w", err)
	}
	if p.out, err = p.cmd.StdoutPipe(); err != nil {
		return nil, fmt.Errorf("gpg: %w", err)
	}
	p.cmd.Stderr = &p.talk
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("gpg: %w", err)
	}
	p.fed = make(chan struct{})
	go func() {
		defer close(p.fed)
		// gpg leaves early when it cannot decrypt, and says so by itself.
		io.Copy(stdin, p.src)
		stdin.Close()
	}()
	r := &gpgReader{p: p}
	// The process must not outlive a reader that was dropped in the middle. It
	// holds no pointer to r, which can therefore be collected.
	r.cleanup = runtime.AddCleanup(r, func(p *gpgProcess) { go p.kill() }, p)
	return r, nil
}

type gpgProcess struct {
	cmd  *exec.Cmd
	src  *source
	out  io.Reader
	fed  chan struct{} // closed when src has been read
	talk gpgTalk
	once sync.Once
	err  error
}

type gpgReader struct {
	p       *gpgProcess
	cleanup runtime.Cleanup
	err     error
}

func (r *gpgReader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := r.p.out.Read(b)
	if err == nil {
		return n, nil
	}
	if err != io.EOF {
		r.p.kill()
		r.err = fmt.Errorf("gpg: %w", err)
	} else if r.err = r.p.finish(); r.err == nil {
		r.err = io.EOF
	}
	r.cleanup.Stop()
	return n, r.err
}

// Close ends the program if it still runs. It waits for a Read of src in
// progress to return.
func (r *gpgReader) Close() error {
	r.cleanup.Stop()
	if r.err == nil {
		r.p.kill()
		r.err = errors.New("gpg: read after close")
	}
	return nil
}

func (p *gpgProcess) kill() {
	p.cmd.Process.Kill()
	p.wait()
}

func (p *gpgProcess) wait() error {
	p.once.Do(func() {
		p.err = p.cmd.Wait() // closes stdin's pipe, so the feeder ends
		<-p.fed
	})
	return p.err
}

// finish is called at the end of the output. Success is exit status 0 and gpg's own
// word that something was decrypted: it copies a message that is not encrypted.
func (p *gpgProcess) finish() error {
	err := p.wait()
	switch {
	case p.src.err != nil:
		return fmt.Errorf("gpg: read: %w", p.src.err)
	case err == nil && p.talk.said("DECRYPTION_OKAY"):
		return nil
	case err == nil:
		return damaged("gpg", errors.New("the message is not encrypted"))
	case p.talk.said("DECRYPTION_INFO") || !p.talk.said("NO_SECKEY") && !p.talk.said("DECRYPTION_FAILED"):
		// It had the session key, or never came to need one.
		return damaged("gpg", fmt.Errorf("%w%s", err, p.talk.text()))
	}
	return noKey("gpg", fmt.Errorf("%w%s", err, p.talk.text()))
}

// gpgTalk takes what gpg says: status lines, of which the keyword is noted, and
// a bounded beginning of its messages.
type gpgTalk struct {
	mu       sync.Mutex
	line     []byte
	status   map[string]bool
	messages []string
	size     int
}

const (
	gpgStatusPrefix = "[GNUPG:] "
	gpgMaxLine      = 4 << 10
	gpgMaxMessages  = 2 << 10
)

func (t *gpgTalk) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			t.add(rest)
			break
		}
		t.add(rest[:i])
		t.endLine()
		rest = rest[i+1:]
	}
	return len(p), nil
}

func (t *gpgTalk) add(b []byte) {
	t.line = append(t.line, b[:min(len(b), gpgMaxLine-len(t.line))]...)
}

func (t *gpgTalk) endLine() {
	line := string(t.line)
	t.line = t.line[:0]
	if status, ok := strings.CutPrefix(line, gpgStatusPrefix); ok {
		keyword, _, _ := strings.Cut(status, " ")
		if t.status == nil {
			t.status = map[string]bool{}
		}
		if len(t.status) < 100 {
			t.status[keyword] = true
		}
		return
	}
	if line = strings.TrimSpace(line); line != "" && t.size+len(line) <= gpgMaxMessages {
		t.size += len(line)
		t.messages = append(t.messages, line)
	}
}

func (t *gpgTalk) said(keyword string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.status[keyword]
}

// text is ": " and gpg's messages on one line, or nothing.
func (t *gpgTalk) text() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.messages) == 0 {
		return ""
	}
	return ": " + strings.Join(t.messages, "; ")
}
