package main

import (
	"database/sql"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite"

	"github.com/firn-backup/firn/internal/glacierserver"
	"github.com/firn-backup/firn/test/s3server"
)

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "glacier" { // a link to the copy that scripts run as firn
		main()
	}
	testscript.Main(withServers{m}, map[string]func(){"firn": main, "s3firn": s3firn})
}

// withServers are all tests, and the end of the servers that they started.
type withServers struct{ m *testing.M }

func (w withServers) Run() int {
	defer func() {
		stopMoto()
		stopVersity()
	}()
	return w.m.Run()
}

// TestScript runs every script of testdata/script against the real program,
// each with a home of its own. $HOME is $WORK/home. `exits N command…` demands
// an exit code; `glacier` starts a service that speaks Amazon Glacier's API; `sqlite FILE SCRIPT` runs
// SQL on a database, as other programs leave one; `sns` starts a server of SNS; `archives` touches a vault behind Firn's back. Some run once more on vaults in S3.
func TestScript(t *testing.T) {
	t.Parallel()
	testscript.Run(t, params())
}

func params() testscript.Params {
	return testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Condition: func(cond string) (bool, error) {
			if cond == "sns" {
				_, err := moto()
				if errors.Is(err, s3server.ErrMissing) && os.Getenv("FIRN_MUST_RUN") == "" {
					return false, nil
				}
				return true, err
			}
			return false, known(cond)
		},
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			for _, v := range [][2]string{
				{"HOME", home}, {"TZ", "UTC"}, {"LC_ALL", "C.UTF-8"}, {"FIRN_MUST_RUN", os.Getenv("FIRN_MUST_RUN")},
			} {
				e.Setenv(v[0], v[1])
			}
			// The program by its other name. In scripts it is run by exec, or exits: a bare glacier is the service.
			firn, err := exec.LookPath("firn")
			if err != nil {
				return err
			}
			bin := filepath.Join(e.WorkDir, ".bin")
			if err := errors.Join(os.MkdirAll(bin, 0o700), os.Symlink(firn, filepath.Join(bin, "glacier"))); err != nil {
				return err
			}
			e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
			return os.MkdirAll(home, 0o700)
		},
		Cmds:                map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits, "glacier": glacier, "sns": sns, "sqlite": sqlite, "archives": archives, "once": once},
		RequireExplicitExec: false,
		RequireUniqueNames:  true,
	}
}

// glacier starts the server of firn serve glacier in this process, on $WORK/service, and points the
// AWS SDK's environment at it. Its clock is in $WORK/clock, its jobs take 4 hours. Arguments are faults, as --inject has them.
func glacier(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("usage: glacier OP:WHAT:PROBABILITY:TIMES…")
	}
	var faults []glacierserver.Fault
	for _, text := range args {
		f, err := glacierserver.ParseFault(text)
		ts.Check(err)
		faults = append(faults, f)
	}
	clock := ts.MkAbs("clock")
	if _, err := os.Stat(clock); err != nil {
		ts.Fatalf("a script that uses glacier has a file clock, with a time in it: %v", err)
	}
	const delay = 4 * time.Hour
	s, err := glacierserver.New(glacierserver.Options{
		Root: ts.MkAbs("service"), Clock: &glacierserver.Clock{File: clock}, MaxVaults: glacierserver.DefaultMaxVaults,
		Account: glacierserver.DefaultAccount, Region: glacierserver.DefaultRegion, BodyTimeout: glacierserver.DefaultBodyTimeout, Faults: faults,
		Delays: glacierserver.Delays{Expedited: delay, Standard: delay, Bulk: delay, Inventory: delay},
	})
	ts.Check(err)
	h := httptest.NewServer(s)
	ts.Defer(func() {
		h.Close()
		_ = s.Close()
	})
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL_GLACIER": h.URL, "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
	} {
		ts.Setenv(k, v)
	}
}

// sns starts moto, for all scripts one, and points the AWS SDK's environment at its SNS. Scripts that share a region share topics.
func sns(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: sns")
	}
	server, err := moto()
	ts.Check(err)
	ts.Setenv("AWS_ENDPOINT_URL_SNS", server.URL)
}

// once looks whether the errors of the last command name what they concern once each: no name or id, and no
// phrase between colons, is in a line twice.
func once(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: once")
	}
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if !strings.HasPrefix(line, "firn: ") {
			continue
		}
		said := map[string]bool{}
		for _, phrase := range append(strings.Split(strings.TrimSpace(line), ": "), strings.Fields(line)...) {
			if phrase = strings.Trim(phrase, "\":,;"); len(phrase) < 12 {
				continue
			}
			if said[phrase] && strings.Count(line, phrase) > 1 {
				ts.Fatalf("%s is said twice: %s", phrase, line)
			}
			said[phrase] = true
		}
	}
}

// exits runs a command that must end with the given code: exits 64 firn frob.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGUMENT…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if want == 75 {
		ts.Setenv(envOnce, "1")
		defer ts.Setenv(envOnce, "")
	}
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e := (*exec.ExitError)(nil); errors.As(err, &e) {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// sqlite makes a database, or changes one, by a file of SQL.
func sqlite(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sqlite DATABASE SCRIPT")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = db.Exec(ts.ReadFile(args[1]))
	ts.Check(errors.Join(err, db.Close()))
}
