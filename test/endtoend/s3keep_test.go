package endtoend_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/test/s3proxy"
)

// locked makes a bucket with Object Lock the cloud's.
func (c *cloud) locked(t *testing.T) *s3.Client {
	t.Helper()
	c.bucket += "-lock"
	api := c.server.Client("")
	_, err := api.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &c.bucket, ObjectLockEnabledForBucket: aws.Bool(true)})
	must(t, err)
	return api
}

// A set's own lock is put on all that it stores, another set's on that of the other, and pruning waits for it, whatever it may
// pay; of a lock that the config file no longer tells it learns from the vault, and loses nothing of the list.
func TestS3LockOfSets(t *testing.T) {
	t.Parallel()
	c := newCloud(t, moto, s3proxy.Options{Classes: true})
	api := c.locked(t)
	c.set(time.Now().UTC().Truncate(time.Second)) // the server's locks are by the real clock
	begun := c.now
	noiseFile(t, c.path("src/a"), 1, 100_000)
	config := func(lock string) {
		c.config("[vault.v]\nurl = \"" + c.vaultURL("?class=DEEP_ARCHIVE") + "\"\n" +
			"[set.long]\npaths = [\"" + c.path("src") + "\"]\nvault = \"v\"\nexpire = \"30d\"\nprune = false\n" + lock +
			"[set.free]\npaths = [\"" + c.path("src") + "\"]\nvault = \"v\"\n" +
			"[set.firm]\npaths = [\"" + c.path("src") + "\"]\nvault = \"v\"\nobject-lock = \"10d\"\nobject-lock-mode = \"compliance\"\n")
	}
	config("object-lock = \"200d\"\n")
	c.must("backup", "long", "free", "firm")
	c.must("backup", "--full", "long")

	objects, err := api.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &c.bucket})
	must(t, err)
	seen := map[string]int{}
	for _, o := range objects.Contents {
		h, err := api.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &c.bucket, Key: o.Key})
		must(t, err)
		set, _, _ := strings.Cut(strings.TrimPrefix(*o.Key, "nb/"), "-")
		seen[set]++
		days, mode := map[string]int{"long": 200, "firm": 10}[set], map[string]types.ObjectLockMode{"long": "GOVERNANCE", "firm": "COMPLIANCE"}[set]
		got := 0
		if h.ObjectLockRetainUntilDate != nil {
			got = int(h.ObjectLockRetainUntilDate.Sub(begun).Hours()/24 + 0.5)
		}
		if got != days || h.ObjectLockMode != mode {
			t.Errorf("%s is locked %q for %d days, want %q for %d", *o.Key, h.ObjectLockMode, got, mode, days)
		}
	}
	if seen["long"] != 4 || seen["free"] != 2 || seen["firm"] != 2 {
		t.Errorf("%v", seen)
	}

	c.pass(190 * 24 * time.Hour) // the minimum storage duration is over
	for _, args := range [][]string{{"prune", "long"}, {"prune", "long", "--allow-early-delete"}} {
		if r := c.must(args...); !strings.Contains(r.stdout+r.stderr, "it is locked until") || !strings.Contains(r.stdout+r.stderr, "1 chain must wait") {
			t.Errorf("%v: %s%s", args, r.stdout, r.stderr)
		}
	}
	if n := c.p.Count("DeleteObject"); n != 0 {
		t.Errorf("%d deletions were tried", n)
	}
	config("")
	for range 2 { // what is left stays on the list
		if r := c.must("prune", "long"); !strings.Contains(r.stdout+r.stderr, "2 archives that nothing needs any more must wait") {
			t.Errorf("%s%s", r.stdout, r.stderr)
		}
	}
	c.set(begun) // when the server, too, holds all locks
	c.exits(75, "vault", "empty", "v", "--yes", "--force", "--allow-early-delete")
}

// Emptying a vault names what it costs before it deletes anything.
func TestS3EmptyNamesFee(t *testing.T) {
	t.Parallel()
	c := newCloud(t, moto, s3proxy.Options{Classes: true})
	noiseFile(t, c.path("src/a"), 1, 1000)
	v := c.vaultURL("?class=DEEP_ARCHIVE&region=us-east-1")
	c.must("backup", "src", "--vault", v)
	r := c.must("vault", "empty", v, "--yes", "--force", "--allow-early-delete")
	if !strings.Contains(r.stderr, "deleting 2 archives") || !strings.Contains(r.stderr, "before the minimum storage duration of 180 days is over costs $0.0001") {
		t.Errorf("%s", r.stderr)
	}
}

// Where manifests are in a class that takes hours, a recovery asks for all of them at once, whatever the class of data.
func TestS3ColdManifests(t *testing.T) {
	t.Parallel()
	for _, class := range []string{"STANDARD", "DEEP_ARCHIVE"} {
		c := newCloud(t, moto, s3proxy.Options{Classes: true})
		noiseFile(t, c.path("src/a"), 1, 1000)
		v := c.vaultURL("?class=" + class + "&manifest-class=DEEP_ARCHIVE")
		for range 3 {
			c.must("backup", "src", "--full", "--vault", v)
		}
		must(t, os.RemoveAll(c.path(".local/state/firn")))
		c.exits(75, "recover", v)
		if n := c.p.Count("RestoreObject"); n != 3 {
			t.Errorf("%s: %d restores were asked for at first, of 3 manifests", class, n)
		}
		c.pass(13 * time.Hour)
		c.must("recover", v)
		if r := c.must("snapshots"); strings.Count(r.stdout, "full") != 3 {
			t.Errorf("%s: %s", class, r.stdout)
		}
	}
}
