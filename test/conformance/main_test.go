package conformance

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/cli"
	"github.com/firn-backup/firn/internal/mustrun"
)

// TestMain lets the test's own program be firn, so that clients in other languages can start servers, and kill them.
func TestMain(m *testing.M) {
	if os.Getenv("CONFORMANCE_IS_GO") != "" {
		if err := drive(context.Background(), os.Args[1]); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n") // there is no one else to tell
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("CONFORMANCE_IS_FIRN") == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, LookupEnv: os.LookupEnv, Now: time.Now,
	}))
}

// python finds a Python that has a module; there may be several Pythons.
func python(t *testing.T, module string) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3", "/usr/local/bin/python3"} {
		if exec.CommandContext(t.Context(), name, "-c", "import "+module).Run() == nil {
			return name
		}
	}
	mustrun.Skip(t, "no Python with "+module)
	return ""
}

// suite runs one of the suites in other languages.
func suite(t *testing.T, module, file string, env ...string) {
	t.Helper()
	program := python(t, module)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-B", filepath.Join("clients", file))
	cmd.Env = append(os.Environ(), "FIRN="+self, "CONFORMANCE_IS_FIRN=1", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_CONFIG_FILE=/nonexistent", "AWS_SHARED_CREDENTIALS_FILE=/nonexistent", "TMPDIR="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("%s", &out)
}

func TestBoto3(t *testing.T) {
	t.Parallel()
	suite(t, "boto3", "boto3_suite.py")
}

// The same checks by the AWS command line and by the SDK for Go; what these cannot express is listed in clients/adapters.py.
func TestBoto3SuiteByAWSCLI(t *testing.T) {
	t.Parallel()
	suite(t, "awscli", "boto3_suite.py", "CONFORMANCE_CLIENT=awscli")
}

func TestBoto3SuiteByGo(t *testing.T) {
	t.Parallel()
	suite(t, "boto3", "boto3_suite.py", "CONFORMANCE_CLIENT=go")
}

func TestBoto3Resource(t *testing.T) {
	t.Parallel()
	suite(t, "boto3", "resource_suite.py")
}

func TestAWSCLI(t *testing.T) {
	t.Parallel()
	suite(t, "awscli", "awscli_suite.py")
}

func newLog(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }
