package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/test/s3proxy"
	"github.com/firn-backup/firn/test/s3server"
)

// The scripts that hold for any kind of vault. What is true of directories only stands behind [!s3] in them.
func anyVault() []string {
	return []string{"archive", "backup", "diff", "emptied", "empty", "find", "key", "log", "ls", "other_key",
		"lost_items", "recover", "restore", "sets", "snapshots", "vault_sync", "verify"}
}

var (
	moto, stopMoto       = s3server.MotoOnce()
	versity, stopVersity = s3server.VersityOnce()
)

// What a script's firn needs to know of the server.
const (
	envProgram = "S3TEST_FIRN"   // the real program
	envClass   = "S3TEST_CLASS"  // of vaults
	envOnce    = "S3TEST_ONCE"   // a retrieval that is not ready is the answer, and no time passes
	envSuffix  = "S3TEST_SUFFIX" // of all buckets of the script
)

// TestScriptS3 runs the same scripts once more where every vault is one of S3: a bucket that is read at once, on a server that
// verifies signatures, and one in which everything but manifests takes two days.
// A dir:NAME in a script stands for a bucket there; see s3firn.
func TestScriptS3(t *testing.T) {
	t.Parallel()
	var files []string
	for _, name := range anyVault() {
		files = append(files, filepath.Join("testdata", "script", name+".txtar"))
	}
	for name, c := range map[string]struct {
		start   func() (*s3server.Server, error)
		options s3proxy.Options
		class   string
	}{
		"warm": {versity, s3proxy.Options{}, "STANDARD"},
		"cold": {moto, s3proxy.Options{Classes: true}, "DEEP_ARCHIVE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, err := c.start()
			if errors.Is(err, s3server.ErrMissing) {
				mustrun.Skip(t, err.Error())
			}
			if err != nil {
				t.Fatal(err)
			}
			p := params()
			p.Dir, p.Files = "", files
			if c.options.Classes {
				p.Files = append(slices.Clone(files), filepath.Join("testdata", "script", "waiting.txtar"))
			}
			p.Condition = func(cond string) (bool, error) {
				return cond == "s3", known(cond)
			}
			setup := p.Setup
			p.Setup = func(e *testscript.Env) error {
				o := c.options
				o.Upstream = server.URL
				h := httptest.NewServer(s3proxy.New(o))
				e.Defer(h.Close)
				return errors.Join(setup(e), s3env(e, server, h.URL, c.class))
			}
			testscript.Run(t, p)
		})
	}
}

func known(cond string) error {
	if cond != "s3" {
		return fmt.Errorf("unknown condition %q", cond)
	}
	return nil
}

// s3env has a script's firn find the server.
func s3env(e *testscript.Env, server *s3server.Server, endpoint, class string) error {
	program, err := exec.LookPath("firn")
	if err != nil {
		return err
	}
	bin := filepath.Join(e.WorkDir, ".bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(bin, "firn"), []byte("#!/bin/sh\nexec s3firn \"$@\"\n"), 0o755); err != nil {
		return err
	}
	for _, v := range server.Env() {
		name, value, _ := strings.Cut(v, "=")
		e.Setenv(name, value)
	}
	e.Setenv("AWS_ENDPOINT_URL_S3", endpoint)
	e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
	e.Setenv(envProgram, program)
	e.Setenv(envClass, class)
	e.Setenv(envSuffix, strings.ToLower(filepath.Base(filepath.Dir(e.WorkDir)))+"-"+filepath.Base(e.WorkDir))
	return makeBucket(e.Getenv, "default")
}

// client is AWS's own, as an environment has it.
func client(getenv func(string) string) *s3.Client {
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(getenv("AWS_ENDPOINT_URL_S3")), Region: s3server.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"), ""),
	})
}

// bucketOf is the bucket that stands for a vault in a directory.
func bucketOf(getenv func(string) string, dir string) string {
	name := path.Base(dir)
	if name == "vault" { // the default one's place
		name = "default"
	}
	suffix := getenv(envSuffix)
	clean := func(s string) string {
		return strings.Trim(strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
				return r
			}
			return '-'
		}, s), "-")
	}
	return clean(name) + "-" + clean(suffix[max(0, len(suffix)-40):])
}

func makeBucket(getenv func(string) string, dir string) error {
	b := bucketOf(getenv, dir)
	_, err := client(getenv).CreateBucket(context.Background(), &s3.CreateBucketInput{Bucket: &b})
	return err
}

// s3firn is the firn of scripts on S3. dir:NAME in an argument becomes the vault of that name in S3, made where it is to
// be created; what would go into the default vault goes into one there. Where something is
// retrieved and not ready, two days pass and the command is run again, as a user would.
func s3firn() {
	code, err := runS3firn(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "s3firn:", err)
		code = 125
	}
	os.Exit(code)
}

func runS3firn(args []string) (int, error) {
	vault := func(dir string) string { return "s3://" + bucketOf(os.Getenv, dir) + "/v?class=" + os.Getenv(envClass) }
	words := 0
	for i, a := range args {
		if dir, ok := strings.CutPrefix(a, "dir:"); ok {
			dir, delay, _ := strings.Cut(dir, "?")
			if delay != "" && !strings.HasPrefix(delay, "delay=") {
				continue // something else is tried
			}
			if slices.Equal(args[:min(2, len(args))], []string{"vault", "create"}) {
				if err := makeBucket(os.Getenv, dir); err != nil {
					return 0, err
				}
			}
			args[i] = vault(dir)
		}
		if !strings.HasPrefix(a, "-") {
			words++
		}
	}
	if words == 1 && args[0] == "recover" {
		args = append(args, vault("default"))
	}
	if err := defaultVault(args, vault("default")); err != nil {
		return 0, err
	}
	if now := os.Getenv("FIRN_NOW"); now != "" {
		if err := control("clock?at=" + url.QueryEscape(now)); err != nil {
			return 0, err
		}
	}
	program := os.Getenv(envProgram)
	if slices.Contains(args, "--wait") { // it has signals to catch
		return 0, syscall.Exec(program, append([]string{"firn"}, args...), os.Environ())
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 0, err
	}
	for try := 0; ; try++ {
		var out, errs bytes.Buffer
		cmd := exec.Command(program, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			return 0, err
		}
		code := cmd.ProcessState.ExitCode()
		if code != 75 || os.Getenv(envOnce) != "" || try == 3 {
			_, err1 := out.WriteTo(os.Stdout)
			_, err2 := errs.WriteTo(os.Stderr)
			return code, errors.Join(err1, err2)
		}
		if err := control("advance?by=49h"); err != nil {
			return 0, err
		}
	}
}

// defaultVault has backups go to a vault, but for those of sets that were given another one before.
func defaultVault(args []string, vault string) error {
	if args[0] != "backup" {
		return nil
	}
	file := filepath.Join(filepath.SplitList(os.Getenv("PATH"))[0], "placed")
	placed, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	last := "\n" + path.Base(args[len(args)-1]) + "\n"
	if slices.Contains(args, "--vault") {
		return os.WriteFile(file, append(placed, last...), 0o644)
	}
	if strings.Contains(string(placed), last) {
		return nil
	}
	return os.Setenv("FIRN_VAULT", vault)
}

// control tells the proxy.
func control(command string) error {
	resp, err := http.Post(os.Getenv("AWS_ENDPOINT_URL_S3")+"/-/"+command, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", command, resp.Status)
	}
	return nil
}

// archives does what scripts do to a vault behind Firn's back, whatever kind it is: archives get DIR copies all of the default
// vault's; archives lose PATTERN removes those whose name ends so; archives damage PATTERN changes a
// byte of the newest; archives away and archives back take the vault away and bring it back. -vault NAME: of another vault.
func archives(ts *testscript.TestScript, neg bool, args []string) {
	name := ""
	if len(args) > 1 && args[0] == "-vault" {
		name, args = args[1], args[2:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: archives [-vault NAME] get DIR | lose PATTERN | damage PATTERN | away | back")
	}
	argument := ""
	if len(args) > 1 {
		argument = args[1]
	}
	if ts.Getenv(envClass) == "" {
		root := ts.MkAbs(name)
		if name == "" {
			root = ts.MkAbs("home/.local/share/firn/vault")
		}
		ts.Check(dirArchives(root, args[0], argument, ts.MkAbs(argument)))
		return
	}
	if name == "" {
		name = "default"
	}
	ts.Check(s3Archives(ts.Getenv, bucketOf(ts.Getenv, name), args[0], argument, ts.MkAbs(argument)))
}

func fits(pattern, name string) bool {
	ok, err := path.Match(pattern, path.Base(name))
	return err == nil && ok
}

func dirArchives(root, verb, pattern, into string) error {
	switch verb {
	case "away":
		return os.Rename(root, root+".away")
	case "back":
		return os.Rename(root+".away", root)
	}
	var found []string
	err := filepath.WalkDir(filepath.Join(root, "archives"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (verb == "get" || fits(pattern, p)) {
			found = append(found, p)
		}
		return err
	})
	if err != nil || len(found) == 0 {
		return fmt.Errorf("no such archives: %w", err)
	}
	switch verb {
	case "get":
		return os.CopyFS(into, os.DirFS(filepath.Join(root, "archives")))
	case "lose":
		for _, p := range found {
			rel, err := filepath.Rel(filepath.Join(root, "archives"), p)
			if err := errors.Join(err, os.Remove(p), os.RemoveAll(filepath.Join(root, "meta", rel)), os.RemoveAll(filepath.Join(root, "meta", rel+".json"))); err != nil {
				return err
			}
		}
		return nil
	case "damage":
		p := slices.Max(found)
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return errors.Join(os.Chmod(p, 0o644), os.WriteFile(p, b, 0o644))
	}
	return fmt.Errorf("archives %s: no such thing", verb)
}

func s3Archives(getenv func(string) string, bucket, verb, pattern, into string) error {
	ctx, c := context.Background(), client(getenv)
	if verb == "away" || verb == "back" {
		_ = os.Setenv("AWS_ENDPOINT_URL_S3", getenv("AWS_ENDPOINT_URL_S3"))
		return control(verb + "?bucket=" + bucket)
	}
	l, err := c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &bucket})
	if err != nil {
		return err
	}
	var found []types.Object
	for _, o := range l.Contents {
		if verb == "get" || fits(pattern, *o.Key) {
			found = append(found, o)
		}
	}
	if len(found) == 0 {
		return errors.New("no such archives")
	}
	if verb == "damage" {
		found = found[len(found)-1:] // of names with times, the newest
	}
	for _, o := range found {
		if verb == "lose" {
			if _, err := c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &bucket, Key: o.Key}); err != nil {
				return err
			}
			continue
		}
		if o.StorageClass == types.ObjectStorageClassDeepArchive {
			_, _ = c.RestoreObject(ctx, &s3.RestoreObjectInput{Bucket: &bucket, Key: o.Key, RestoreRequest: &types.RestoreRequest{Days: aws.Int32(7)}}) // may be restored
			resp, err := http.Post(getenv("AWS_ENDPOINT_URL_S3")+"/-/advance?by=49h", "", nil)
			if err != nil {
				return err
			}
			resp.Body.Close()
		}
		got, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: o.Key})
		if err != nil {
			return err
		}
		b, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil {
			return err
		}
		if verb == "damage" {
			b[len(b)/2] ^= 1
			_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: o.Key, Body: bytes.NewReader(b), Metadata: got.Metadata, StorageClass: got.StorageClass})
		} else {
			to := filepath.Join(into, strings.TrimPrefix(*o.Key, "v/"))
			err = errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, 0o644))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
