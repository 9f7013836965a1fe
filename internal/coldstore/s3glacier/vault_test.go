package s3glacier_test

import (
	"errors"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/s3glacier"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
	"github.com/firn-backup/firn/internal/mustrun"
	"github.com/firn-backup/firn/test/s3proxy"
	"github.com/firn-backup/firn/test/s3server"
)

// The servers that all tests share: each test has a bucket of its own.
var (
	moto, stopMoto       = s3server.MotoOnce()
	versity, stopVersity = s3server.VersityOnce()
)

func TestMain(m *testing.M) {
	code := m.Run()
	stopMoto()
	stopVersity()
	os.Exit(code)
}

func newClock() *storetest.Clock { return storetest.NewClock(time.Now().UTC().Truncate(time.Second)) }

// world is a vault in a bucket of its own, behind a proxy.
type world struct {
	*s3proxy.Proxy
	clock  *storetest.Clock
	server *s3server.Server
	url    string
}

// behind makes a vault in a new bucket of a server.
func behind(t testing.TB, start func() (*s3server.Server, error), o s3proxy.Options, params string) *world {
	t.Helper()
	s, err := start()
	if errors.Is(err, s3server.ErrMissing) {
		mustrun.Skip(t, err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := s.Bucket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w := &world{clock: newClock(), server: s}
	o.Upstream, o.Now = s.URL, w.clock.Now
	w.Proxy = s3proxy.New(o)
	h := httptest.NewServer(w.Proxy)
	t.Cleanup(h.Close)
	w.url = "s3://" + bucket + "/a/vault?region=" + s3server.Region + "&endpoint=" + url.QueryEscape(h.URL) + params
	return w
}

func (w *world) open(t testing.TB) coldstore.Store {
	t.Helper()
	s, err := s3glacier.OpenTest(t.Context(), w.url, s3glacier.Options{Now: w.clock.Now}, w.server.AccessKey, w.server.SecretKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (w *world) harness(t testing.TB) storetest.Harness {
	return storetest.Harness{Store: w.open(t), Reopen: w.open, Advance: w.clock.Advance}
}

// A server that knows classes, with a proxy for the rest of archived objects' rules: listings that tell how restores stand, and not.
func TestContract(t *testing.T) {
	for name, o := range map[string]s3proxy.Options{
		"DEEP_ARCHIVE": {}, "GLACIER": {NoRestoreStatus: true, CompleteOnce: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "DEEP_ARCHIVE" && os.Getenv("FIRN_SOAK") != "1" {
				t.Skip("FIRN_SOAK=1 runs it: moto is slow")
			}
			storetest.Run(t, func(t testing.TB) storetest.Harness {
				o.Classes = true
				return behind(t, moto, o, "&class="+name).harness(t)
			})
		})
	}
}

// A bucket that keeps old versions, and says that what was deleted is deleted.
func TestContractVersions(t *testing.T) {
	t.Parallel()
	if os.Getenv("FIRN_SOAK") != "1" {
		t.Skip("FIRN_SOAK=1 runs it")
	}
	storetest.Run(t, func(t testing.TB) storetest.Harness {
		w := behind(t, versity, s3proxy.Options{}, "&class=STANDARD")
		bucket := w.bucket()
		_, err := w.server.Client("").PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{
			Bucket: &bucket, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}})
		if err != nil {
			t.Fatal(err)
		}
		return w.harness(t)
	})
}

// A server that verifies signatures and checksums, and knows nothing of classes.
func TestContractVersity(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t testing.TB) storetest.Harness {
		return behind(t, versity, s3proxy.Options{}, "&class=STANDARD").harness(t)
	})
}
