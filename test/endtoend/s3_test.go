package endtoend_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/internal/source/sourcetest"
	"github.com/firn-backup/firn/test/s3proxy"
	"github.com/firn-backup/firn/test/s3server"
)

var (
	moto, stopMoto       = s3server.MotoOnce()
	versity, stopVersity = s3server.VersityOnce()
)

// stopServers ends what the tests have started.
func stopServers() {
	stopMoto()
	stopVersity()
}

// cloud is a bucket behind a proxy, and a machine that uses it.
type cloud struct {
	*machine
	p      *s3proxy.Proxy
	server *s3server.Server
	url    string // of the proxy
	bucket string
	now    time.Time
}

func newCloud(t *testing.T, start func() (*s3server.Server, error), o s3proxy.Options) *cloud {
	t.Helper()
	s, err := start()
	if errors.Is(err, s3server.ErrMissing) {
		mustrun.Skip(t, err.Error())
	}
	must(t, err)
	c := &cloud{machine: newMachine(t, memory(t)), server: s}
	c.bucket, err = s.Bucket(t.Context())
	must(t, err)
	o.Upstream = s.URL
	c.p = s3proxy.New(o)
	h := httptest.NewServer(c.p)
	t.Cleanup(h.Close)
	c.url = h.URL
	c.env = append(s.Env(), "AWS_ENDPOINT_URL_S3="+h.URL)
	c.set(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC))
	return c
}

// set sets the clocks of machine and server.
func (c *cloud) set(at time.Time) {
	c.now, c.machine.now = at, at.Format(time.RFC3339)
	c.p.SetClock(at)
}

func (c *cloud) pass(d time.Duration) { c.set(c.now.Add(d)) }

func (c *cloud) vaultURL(params string) string { return "s3://" + c.bucket + "/nb" + params }

// data counts the calls of operations on archives, volumes and manifests alike, by key.
func (c *cloud) data(operations ...string) map[string]int {
	n := map[string]int{}
	for _, call := range c.p.Calls() {
		for _, op := range operations {
			if call.Operation == op && call.Key != "" {
				n[call.Key]++
			}
		}
	}
	return n
}

// policies are those that Firn proposes, by name.
func (c *cloud) policies(url string) map[string]*s3proxy.Policy {
	c.t.Helper()
	var shown struct {
		Inspection struct {
			Policies map[string]json.RawMessage `json:"policies"`
		} `json:"inspection"`
	}
	c.must("vault", "create", url)
	must(c.t, json.Unmarshal([]byte(c.must("vault", "show", url, "--json").stdout), &shown))
	all := map[string]*s3proxy.Policy{}
	for name, text := range shown.Inspection.Policies {
		policy, err := s3proxy.ParsePolicy(string(text))
		must(c.t, err)
		all[name] = policy
	}
	return all
}

// A machine that may only store, by the policy that Firn itself proposes: a full backup and incrementals, and nothing is ever read, looked at
// or deleted. The restore's policy then is enough to get all back: asked for, not ready, there.
func TestS3BackupOnly(t *testing.T) {
	t.Parallel()
	c := newCloud(t, moto, s3proxy.Options{Classes: true})
	for i := range 12 {
		noiseFile(t, c.path(fmt.Sprintf("src/d%d/f%02d", i%3, i)), byte(i), 1000+int64(i)*9000)
	}
	noiseFile(t, c.path("src/big"), 99, 9<<20)
	v := c.vaultURL("?class=DEEP_ARCHIVE")
	policies := c.policies(v)
	if policies["backup-only"] == nil || policies["restore"] == nil {
		t.Fatalf("policies: %v", policies)
	}
	c.p.Forget()
	c.p.SetPolicy(policies["backup-only"])
	c.must("backup", "src", "--vault", v, "--volume-size", "2MiB")
	for i := range 2 {
		c.pass(24 * time.Hour)
		noiseFile(t, c.path(fmt.Sprintf("src/new%d", i)), byte(50+i), 1<<20)
		must(t, os.Remove(c.path(fmt.Sprintf("src/d%d/f%02d", i, i))))
		if r := c.must("backup", "src"); !strings.Contains(r.stderr, "incremental") {
			t.Errorf("no incremental:\n%s", r.stderr)
		}
	}
	c.must("snapshots", "src")
	if got := c.data("GetObject", "HeadObject", "DeleteObject", "RestoreObject", "GetObjectAttributes", "CopyObject"); len(got) > 0 || c.p.Count("DeleteObjects") > 0 {
		t.Errorf("a machine that backs up did more than store: %v", got)
	}
	for _, call := range c.p.Calls() {
		if call.Status == 403 && call.Key != "" {
			t.Errorf("tried what it may not: %+v", call)
		}
	}
	if r := c.run("restore", "src", "--to", "back"); r.code != 1 || !strings.Contains(r.stderr, "denied: ") {
		t.Errorf("restore: exit %d, %s", r.code, r.stderr)
	}

	c.p.SetPolicy(policies["restore"])
	c.p.Forget()
	c.exits(75, "restore", "src", "--to", "back")
	asked := c.data("RestoreObject")
	c.pass(11 * time.Hour)
	c.exits(75, "restore", "src", "--to", "back")
	c.pass(2 * time.Hour)
	c.must("restore", "src", "--to", "back")
	sourcetest.Diff(t, c.path("src"), c.path("back", c.path("src")))
	if again := c.data("RestoreObject"); len(asked) < 5 || len(again) != len(asked) {
		t.Errorf("asked for %d archives, then for %d", len(asked), len(again))
	}
	for key, n := range c.data("RestoreObject") {
		if n != 1 {
			t.Errorf("%s asked for %d times", key, n)
		}
	}
}

// A restore of many archives is killed again and again while it asks for them: each is asked for once.
func TestS3RestoreKilled(t *testing.T) {
	t.Parallel()
	c := newCloud(t, moto, s3proxy.Options{Classes: true})
	noiseFile(t, c.path("src/big"), 7, 60*64<<10)
	v := c.vaultURL("?class=GLACIER")
	c.must("backup", "src", "--vault", v, "--volume-size", "64KiB", "--compress", "none")
	c.p.Forget()
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 3))
	t.Logf("seed: %d", os.Getpid())
	for kills := range 8 {
		cmd := c.command(t.Context(), "restore", "src", "--to", "back")
		var mu sync.Mutex
		left := 1 + r.IntN(6)
		before := r.IntN(2) == 0
		came := 0 // requests, also those that are dropped before anybody hears of them
		c.p.SetPlan(func(call s3proxy.Call) s3proxy.Fault {
			mu.Lock()
			defer mu.Unlock()
			if call.Operation == "RestoreObject" {
				came++
				if left--; left == 0 && cmd.Process != nil {
					_ = cmd.Process.Kill() // it may have ended
					if before {
						return s3proxy.DropBefore
					}
				}
			}
			return s3proxy.None
		})
		must(t, cmd.Start())
		_ = cmd.Wait() // killed
		mu.Lock()
		if came == 0 && kills == 0 {
			t.Fatalf("kill %d: nothing was asked for", kills)
		}
		mu.Unlock()
	}
	c.p.SetPlan(nil)
	c.exits(75, "restore", "src", "--to", "back")
	done := map[string]int{}
	for _, call := range c.p.Calls() {
		if call.Operation == "RestoreObject" && call.Status != 0 { // the server has heard of it
			if done[call.Key]++; done[call.Key] > 1 {
				t.Errorf("%s asked for %d times", path.Base(call.Key), done[call.Key])
			}
		}
	}
	if len(done) < 60 {
		t.Errorf("%d archives asked for", len(done))
	}
	c.pass(6 * time.Hour)
	c.must("restore", "src", "--to", "back")
	sourcetest.Diff(t, c.path("src"), c.path("back", c.path("src")))

	// Copies that have expired are asked for again, once.
	c.pass(10 * 24 * time.Hour)
	c.p.Forget()
	c.exits(75, "restore", "src", "--to", "again")
	c.exits(75, "restore", "src", "--to", "again")
	if n := c.p.Count("RestoreObject"); n != len(done) {
		t.Errorf("%d archives asked for after their copies expired, of %d", n, len(done))
	}
	c.pass(6 * time.Hour)
	c.must("restore", "src", "--to", "again")
}

// moto alone: its restores are ready when they have been looked at often enough.
func TestS3Polls(t *testing.T) {
	t.Parallel()
	start := func() (*s3server.Server, error) {
		s, err := s3server.Moto(t.Context())
		if err != nil {
			return nil, err
		}
		t.Cleanup(s.Stop)
		return s, s.SetRestorePolls(t.Context(), 3)
	}
	c := newCloud(t, start, s3proxy.Options{})
	noiseFile(t, c.path("src/a"), 1, 100_000)
	c.must("backup", "src", "--vault", c.vaultURL("?class=DEEP_ARCHIVE"))
	runs := 0
	for ; ; runs++ {
		if runs > 10 {
			t.Fatal("never ready")
		}
		r := c.run("restore", "src", "--to", "back")
		if r.code == 0 {
			break
		}
		if r.code != 75 {
			t.Fatalf("exit %d\n%s", r.code, r.stderr)
		}
		c.pass(time.Hour)
	}
	sourcetest.Diff(t, c.path("src"), c.path("back", c.path("src")))
	if n := c.p.Count("RestoreObject"); runs < 2 || n != 1 {
		t.Errorf("ready after %d runs and %d requests", runs, n)
	}
}

// Kills at random moments of a backup over a line that fails in every way: in the end there is one snapshot, whole.
func TestS3KillsAndFaults(t *testing.T) {
	t.Parallel()
	seed := uint64(os.Getpid())
	t.Logf("seed: %d", seed)
	c := newCloud(t, versity, s3proxy.Options{Late: 5 * time.Millisecond, Plan: s3proxy.Random(seed, 0.07, nil)})
	c.machine.now = "" // retries wait in real time
	r := rand.New(rand.NewPCG(seed, 9))
	for i := range 60 {
		noiseFile(t, c.path(fmt.Sprintf("src/d%d/f%03d", i%7, i)), byte(i), 1000+r.Int64N(60_000))
	}
	noiseFile(t, c.path("src/big"), 200, 18<<20)
	c.backup = []string{"backup", "src", "--vault", c.vaultURL("?class=STANDARD"), "--volume-size", "2MiB", "--json", "--compress", "none"}
	kills := 0
	for runs := 0; ; runs++ {
		if runs > 100 {
			t.Fatal("no end")
		}
		if kills < 12 && killAfter(t, c.machine, r.IntN(3), r) {
			kills++
			continue
		}
		if out := c.run(c.backup...); out.code == 0 {
			break
		}
	}
	c.p.SetPlan(nil)
	if n := strings.Count(c.must("snapshots", "src").stdout, "full"); n != 1 || kills < 5 {
		t.Errorf("%d full snapshots after %d kills:\n%s", n, kills, c.must("snapshots", "src").stdout)
	}
	c.must("verify", "--read")
	c.p.SetPlan(s3proxy.Random(seed, 0.05, []s3proxy.Fault{s3proxy.DropBefore, s3proxy.DropAfter, s3proxy.HalfAnswer, s3proxy.SlowDown, s3proxy.Internal}, "GetObject"))
	c.must("restore", "src", "--to", "back")
	sourcetest.Diff(t, c.path("src"), c.path("back", c.path("src")))
}

// The answer to every CompleteMultipartUpload, and to every PUT of a whole archive, is lost once; the machine may
// neither read nor look. What is there counts, and is there once.
func TestS3LostAnswers(t *testing.T) {
	t.Parallel()
	for _, f := range []s3proxy.Fault{s3proxy.DropAfter, s3proxy.InternalDone, s3proxy.HalfAnswer} {
		t.Run(f.String(), func(t *testing.T) {
			t.Parallel()
			c := newCloud(t, moto, s3proxy.Options{Classes: true, CompleteOnce: true})
			v := c.vaultURL("?class=DEEP_ARCHIVE")
			policies := c.policies(v)
			noiseFile(t, c.path("src/big"), 5, 19<<20)
			var mu sync.Mutex
			lost := map[string]bool{}
			c.p.SetPlan(func(call s3proxy.Call) s3proxy.Fault {
				mu.Lock()
				defer mu.Unlock()
				if op := call.Operation; (op == "CompleteMultipartUpload" || op == "PutObject") && !lost[call.Key] {
					lost[call.Key] = true
					return f
				}
				return s3proxy.None
			})
			c.p.SetPolicy(policies["backup-only"])
			c.must("backup", "src", "--vault", v, "--volume-size", "18MiB", "--compress", "none")
			c.p.SetPlan(nil)
			c.p.SetPolicy(nil)
			if len(lost) < 3 {
				t.Errorf("%d answers lost", len(lost))
			}
			if r := c.must("verify"); strings.Contains(r.stderr, "orphan") {
				t.Errorf("orphans:\n%s", r.stderr)
			}
		})
	}
}

// What is wrong on AWS's side is one line that names what to do, with the right exit code.
func TestS3Refusals(t *testing.T) {
	t.Parallel()
	c := newCloud(t, moto, s3proxy.Options{Classes: true, Region: s3server.Region})
	noiseFile(t, c.path("src/a"), 1, 1000)
	v := c.vaultURL("?class=DEEP_ARCHIVE")
	none, err := s3proxy.ParsePolicy(`{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:List*", "Resource": "*"}]}`)
	must(t, err)
	for name, w := range map[string]struct {
		vault string
		env   string
		code  int
		says  []string
	}{
		"region":    {c.vaultURL("?region=eu-west-1"), "", 1, []string{s3server.Region, "region=" + s3server.Region}},
		"bucket":    {"s3://no-such-bucket-here/x", "", 10, []string{"no-such-bucket-here", "make it"}},
		"token":     {v, "AWS_SESSION_TOKEN=EXPIRED", 1, []string{"expired", "renew"}},
		"denied":    {v, "", 1, []string{"s3:PutObject", c.bucket}},
		"class":     {c.vaultURL("?class=ICE"), "", 64, []string{"ICE"}},
		"unsigned":  {v, "AWS_ACCESS_KEY_ID=", 1, []string{"credentials"}},
		"lifecycle": {v, "", 1, []string{"lifecycle rule expire-all", "take it away", "--force"}},
	} {
		m := *c.machine
		if w.env != "" {
			m.env = append(append([]string{}, c.env...), w.env)
		}
		args := []string{"backup", "src", "--vault", w.vault}
		switch name {
		case "denied":
			c.p.SetPolicy(none)
		case "lifecycle":
			args = []string{"vault", "create", w.vault}
			_, err := c.server.Client("").PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
				Bucket: &c.bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{{
					ID: aws.String("expire-all"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")},
					Expiration: &types.LifecycleExpiration{Days: aws.Int32(30)}}}}})
			must(t, err)
		}
		r := m.run(args...)
		c.p.SetPolicy(nil)
		if r.code != w.code {
			t.Errorf("%s: exit %d, want %d\n%s", name, r.code, w.code, r.stderr)
		}
		for _, s := range w.says {
			if !strings.Contains(r.stderr+r.stdout, s) {
				t.Errorf("%s: nothing of %q:\n%s", name, s, r.stderr)
			}
		}
		if n := strings.Count(r.stderr, "firn: error:"); w.code != 0 && n != 1 {
			t.Errorf("%s: %d lines of error:\n%s", name, n, r.stderr)
		}
	}
}
