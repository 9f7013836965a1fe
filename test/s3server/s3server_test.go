package s3server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/test/s3server"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running is a started server, which ends with the test.
func running(t *testing.T, s *s3server.Server, err error) *s3server.Server {
	t.Helper()
	if errors.Is(err, s3server.ErrMissing) {
		mustrun.Skip(t, err.Error())
	}
	must(t, err)
	t.Cleanup(s.Stop)
	return s
}

func code(err error) string {
	if e := smithy.APIError(nil); errors.As(err, &e) {
		return e.ErrorCode()
	}
	return ""
}

// Both servers keep what they are given; they end when they are told.
func TestServers(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func() (*s3server.Server, error){
		"moto": func() (*s3server.Server, error) { return s3server.Moto(t.Context()) },
		"versitygw": func() (*s3server.Server, error) {
			return s3server.Versity(t.Context(), filepath.Join(t.TempDir(), "root"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := start()
			s = running(t, s, err)
			b, err := s.Bucket(t.Context())
			must(t, err)
			c := s.Client("")
			put := &s3.PutObjectInput{Bucket: &b, Key: aws.String("a/b"), Body: strings.NewReader("hello"), IfNoneMatch: aws.String("*")}
			_, err = c.PutObject(t.Context(), put)
			must(t, err)
			put.Body = strings.NewReader("other")
			if _, err = c.PutObject(t.Context(), put); code(err) != "PreconditionFailed" {
				t.Errorf("a second time: %v", err)
			}
			got, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: aws.String("a/b"), Range: aws.String("bytes=1-3")})
			must(t, err)
			if body, err := io.ReadAll(got.Body); err != nil || string(body) != "ell" {
				t.Errorf("%q, %v", body, err)
			}
			s.Stop()
			if resp, err := http.Get(s.URL); err == nil {
				resp.Body.Close()
				t.Error("it still answers")
			}
		})
	}
}

// versitygw refuses what another key signed; moto's restores take as many polls as told.
func TestWhatTheyAreFor(t *testing.T) {
	t.Parallel()
	v, err := s3server.Versity(t.Context(), filepath.Join(t.TempDir(), "root"))
	v = running(t, v, err)
	v.SecretKey = "another"
	if _, err := v.Bucket(t.Context()); code(err) != "SignatureDoesNotMatch" {
		t.Errorf("with another key: %v", err)
	}

	m, err := s3server.Moto(t.Context())
	m = running(t, m, err)
	must(t, m.SetRestorePolls(t.Context(), 1))
	b, err := m.Bucket(t.Context())
	must(t, err)
	c, key := m.Client(""), aws.String("cold")
	_, err = c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: &b, Key: key, Body: strings.NewReader("x"), StorageClass: types.StorageClassDeepArchive})
	must(t, err)
	get := func() string {
		o, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: &b, Key: key})
		if err == nil {
			o.Body.Close()
		}
		return code(err)
	}
	head := func() string {
		o, err := c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &b, Key: key})
		must(t, err)
		return aws.ToString(o.Restore)
	}
	if got := get(); got != "InvalidObjectState" {
		t.Errorf("before: %q", got)
	}
	_, err = c.RestoreObject(t.Context(), &s3.RestoreObjectInput{Bucket: &b, Key: key, RestoreRequest: &types.RestoreRequest{Days: aws.Int32(1)}})
	must(t, err)
	polls := 0
	for ; strings.Contains(head(), "true"); polls++ {
		if polls > 10 {
			t.Fatal("never ready")
		}
	}
	if got := get(); polls == 0 || got != "" {
		t.Errorf("after %d polls: %q", polls, got)
	}
}

// A server does not outlive whoever started it, even if that was killed.
func TestEndsWithStarter(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"versitygw", "sh"} {
		mustrun.Tool(t, p)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s, err := s3server.Versity(ctx, filepath.Join(t.TempDir(), "root"))
	s = running(t, s, err)
	cancel() // what started it is not what keeps it
	if _, err := s.Bucket(t.Context()); err != nil {
		t.Error(err)
	}
	address := strings.TrimPrefix(s.URL, "http://")
	s.Stop()
	out, _ := exec.Command("sh", "-c", "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o '[v]ersitygw --quiet --port "+address+" '").Output()
	if len(out) > 0 {
		t.Errorf("still there: %s", out)
	}
}
