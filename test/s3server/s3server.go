// Package s3server starts S3 servers that others wrote, on loopback, for
// tests and benchmarks: moto, which knows storage classes and RestoreObject
// and checks no signatures, and versitygw, which checks signatures, checksums
// and conditional writes and knows nothing of classes. It knows nothing of
// Firn.
//
// A server is a process of its own, which ends when its starter does, however
// that ends.
package s3server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/firn-backup/firn/test/loopback"
)

// Region is where all servers say they are, and where buckets are made unless another is named.
const Region = "us-east-1"

// ErrMissing says that a server's program is not on this machine.
var ErrMissing = errors.New("not installed")

// A Server is one running server.
type Server struct {
	URL       string // http://ADDRESS:PORT, on loopback
	AccessKey string
	SecretKey string
	Root      string // of versitygw: the directory with a directory for each bucket; else empty

	cmd  *exec.Cmd
	stop io.Closer // its standard input, whose end ends it
	once sync.Once
}

// guard runs a command until its own standard input ends, which happens at the latest with the
// process that holds the other end, even one that was killed.
const guard = `exec 3<&0
"$@" 3<&- </dev/null & pid=$!
{ cat <&3 >/dev/null; kill -9 $pid; } 2>/dev/null &
exec 3<&-
wait $pid`

// waitFor is how long a server has to come up, on a machine that is busy.
const waitFor = 3 * time.Minute

// Moto starts moto's server, or returns ErrMissing. The restores of its buckets are ready at once; SetRestorePolls changes that.
func Moto(ctx context.Context) (*Server, error) {
	const find = "import sys\nfrom importlib.util import find_spec as f\nsys.exit(not (f('moto') and f('flask_cors')))"
	if exec.CommandContext(ctx, "python3", "-c", find).Run() != nil {
		return nil, fmt.Errorf("moto's server: %w", ErrMissing)
	}
	s := &Server{AccessKey: "AKIAIOSFODNN7EXAMPLE", SecretKey: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}
	// Port 0: it takes a free one and tells which.
	return s, s.start(ctx, regexp.MustCompile(`Running on (http://127\.0\.0\.1:\d+)`), nil, "python3", "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")
}

// Versity starts versitygw, or returns ErrMissing, on a directory, which is made where it is missing. Versions of objects, where a bucket
// wants them, are in another of the same name with .versions added.
func Versity(ctx context.Context, root string) (*Server, error) {
	program, err := exec.LookPath("versitygw")
	if err != nil {
		return nil, fmt.Errorf("versitygw: %w", ErrMissing)
	}
	for _, dir := range []string{root, root + ".versions"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	// It does not tell which port it got when it is asked for any: it has an address of its own instead.
	addr, err := freeAddress()
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + addr, AccessKey: "versity", SecretKey: "versity-secret", Root: root}
	env := []string{"ROOT_ACCESS_KEY=" + s.AccessKey, "ROOT_SECRET_KEY=" + s.SecretKey}
	return s, s.start(ctx, regexp.MustCompile(`IAM service`), env, program,
		"--quiet", "--port", addr, "--region", Region, "posix", "--versioning-dir", root+".versions", root)
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", loopback.Host()+":0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// start runs the server until it prints a line that fits; a group in it is the URL. It is up then, or
// will be in a moment.
func (s *Server) start(ctx context.Context, up *regexp.Regexp, env []string, args ...string) error {
	s.cmd = exec.Command("sh", append([]string{"-c", guard, "sh"}, args...)...)
	s.cmd.Env = append(os.Environ(), env...)
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return err
	}
	s.stop = stdin
	out, w, err := os.Pipe()
	if err != nil {
		return err
	}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		return err
	}
	w.Close()
	ctx, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	late := context.AfterFunc(ctx, s.Stop)
	defer late()
	said := bufio.NewReader(out)
	var all strings.Builder
	for {
		line, err := said.ReadString('\n')
		all.WriteString(line)
		if m := up.FindStringSubmatch(line); m != nil {
			if len(m) > 1 {
				s.URL = m[1]
			}
			break
		}
		if err != nil {
			s.Stop()
			return fmt.Errorf("%s did not start: %w\n%s", strings.Join(args, " "), errors.Join(ctx.Err(), err), all.String())
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, said) // ends with the server
		out.Close()
		cancel()
	}()
	if err := s.answers(ctx); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// answers waits until the server answers anything.
func (s *Server) answers(ctx context.Context) error {
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			return resp.Body.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s does not answer: %w", s.URL, err)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// Stop kills the server and waits for its end. It may be called often.
func (s *Server) Stop() {
	s.once.Do(func() {
		s.stop.Close()
		_ = s.cmd.Wait() // killed
	})
}

// SetRestorePolls has moto's restores be ready only after so many HEAD requests for an object. It holds
// for all buckets of the server.
func (s *Server) SetRestorePolls(ctx context.Context, n int) error {
	body := fmt.Sprintf(`{"model_name":"s3::keyrestore","transition":{"progression":"manual","times":%d}}`, n)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/moto-api/state-manager/set-transition", strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("set moto's transition: %s", resp.Status)
	}
	return nil
}

// Env are the variables with which any client that is made on AWS's SDKs uses the server and nothing else.
func (s *Server) Env() []string {
	return []string{
		"AWS_ENDPOINT_URL_S3=" + s.URL, "AWS_ACCESS_KEY_ID=" + s.AccessKey, "AWS_SECRET_ACCESS_KEY=" + s.SecretKey,
		"AWS_REGION=" + Region, "AWS_DEFAULT_REGION=" + Region, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
	}
}
