// Package s3glacier keeps archives in a bucket of S3, in one of its classes
// of cold storage, and in servers that speak S3's language. It owns what S3
// wants: multipart uploads, conditional writes, checksums, RestoreObject and
// what its answers mean. It knows nothing of what is in archives, and
// sends each request once: retries are package transfer's.
//
// To upload, it needs neither to read nor to delete: what happened to a lost completion it finds out by listing.
package s3glacier

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
	"github.com/firn-backup/firn/internal/failure"
)

const (
	// The limits of the service, from its User Guide.
	mib        = 1 << 20
	minPart    = 8 << 20 // 5 MiB, and parts are powers of two of MiBs
	maxPart    = 4 << 30
	maxParts   = 10_000
	maxArchive = 5 << 40
	growEvery  = 1024     // 2 to the tenth: enough for the nine doublings from minPart to maxPart, after each of which parts pair up
	maxWhole   = 16 << 20 // what is sent with one PUT: no more than a part, so that a retry is cheap

	// A restored copy that has less than spareLife left is not used for new requests.
	spareLife = time.Hour
	// DefaultDays is how long a restored copy is kept where nothing asks for another time.
	DefaultDays = 7
)

// ErrNoBucket says that the bucket of a vault is not there. Firn makes none.
var ErrNoBucket = errors.New("no such bucket")

// Options say how to open a vault. The zero value works.
type Options struct {
	Now func() time.Time // nil: time.Now
	// Notice is told, in one line, what is being waited for when the service has been silent for a while; nil: nobody.
	// It is called from any goroutine.
	Notice func(text string)
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Store is one vault: a bucket, or what in it has a prefix.
type Store struct {
	c *s3.Client
	l location
	o Options

	// region is the bucket's, as far as it is known.
	region string
	// signed says that bodies are hashed for the signature: on connections that are not encrypted.
	signed bool

	uploads  awsconn.Memory[*upload]           // begun or learnt by this process
	finished awsconn.Memory[coldstore.Archive] // completed by this process, by upload
	status   statusCache
	lists    atomic.Int32             // whether listings tell of restores: restoresUnknown, …
	asking   [32]sync.Mutex           // by archive, so that two goroutines do not ask for one
	lost     awsconn.Memory[struct{}] // names of which a PUT's answer was lost
}

var (
	_ coldstore.Store         = (*Store)(nil)
	_ coldstore.PacedUploader = (*Store)(nil)
	_ coldstore.PartHasher    = (*Store)(nil)
	_ coldstore.PartSummer    = (*Store)(nil)
	_ coldstore.WholeUploader = (*Store)(nil)
	_ coldstore.UploadLearner = (*Store)(nil)
	_ coldstore.Stater        = (*Store)(nil)
	_ coldstore.Regioner      = (*Store)(nil)
	_ coldstore.ReadyTeller   = (*Store)(nil)
	_ coldstore.Retainer      = (*Store)(nil)
)

// Open opens a vault whose bucket exists; coldstore.ErrNotFound: it does not. It asks the
// service once, and once more where the URL names no region.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	return open(ctx, url, o, nil)
}

func open(ctx context.Context, url string, o Options, t *testSeam) (*Store, error) {
	l, err := parseURL(url, true)
	if err != nil {
		return nil, err
	}
	what := "open " + l.where()
	c, region, err := newClient(ctx, l, l.region, o, t)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	s := &Store{l: l, o: o.withDefaults()}
	s.use(c, region)
	there, err := s.knock(ctx)
	if err != nil && l.region == "" && there != "" && there != region {
		if c, region, err = newClient(ctx, l, there, o, t); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		s.use(c, region)
		there, err = s.knock(ctx)
	}
	if there != "" {
		s.region = there
	}
	if err != nil {
		var e *awsconn.Error
		if errors.As(err, &e) && e.Code == "NoSuchBucket" {
			err = &awsconn.Error{Text: noBucket(l, region), Code: e.Code, Kinds: []error{coldstore.ErrNotFound, ErrNoBucket}}
		}
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return s, nil
}

func (s *Store) use(c *s3.Client, region string) {
	s.c, s.region = c, region
	s.signed = needsHash(c, s.l)
}

func noBucket(l location, region string) string {
	if l.endpoint != "" {
		return fmt.Sprintf("there is no bucket %s at %s: make it, or correct the name", l.bucket, l.endpoint)
	}
	return fmt.Sprintf("there is no bucket %s: make it (aws s3 mb s3://%s --region %s), or correct the name", l.bucket, l.bucket, region)
}

// knock asks whether the bucket is there, by the least listing that there is: unlike a HEAD's, its refusal says why. It tells
// the bucket's region as far as the answer does.
func (s *Store) knock(ctx context.Context) (region string, err error) {
	one := int32(1)
	var head answerHeader
	_, err = s.c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{
		Bucket: &s.l.bucket, Prefix: optional(s.l.root()), MaxKeys: &one, RequestPayer: s.payer(),
	}, head.catch)
	if err == nil {
		return head.region(), nil
	}
	region = head.region()
	var api smithy.APIError
	if region == "" && errors.As(err, &api) && wrongRegion(api.ErrorCode()) {
		region = regionIn(api.ErrorMessage())
	}
	return region, s.classify(ctx, "s3:ListBucket", err)
}

// Create opens a vault of which only the bucket must exist: the service keeps nothing else of it. Buckets are made with
// other tools, for who makes one decides on more than Firn knows.
func Create(ctx context.Context, url string, o Options) (*Store, error) { return Open(ctx, url, o) }

// Traits are the rules of the class that data are in.
func (s *Store) Traits() coldstore.Traits {
	t := traitsOf(s.l.class)
	t.MinDays, t.LockDays = s.l.minDays(), s.l.lockDays
	if m := traitsOf(s.l.metaClass); t.Warm && !m.Warm {
		// Manifests are colder than data: who reads many of them must ask for all before it waits for one.
		t.Warm, t.Tiers, t.KeepDays = false, m.Tiers, m.KeepDays
	}
	return t
}

// Retaining is the vault with another lock than its URL says, or with one.
func (s *Store) Retaining(r coldstore.Retention) coldstore.Store {
	l := s.l
	l.lock, l.lockDays = types.ObjectLockModeGovernance, r.Days
	if r.Compliance {
		l.lock = types.ObjectLockModeCompliance
	}
	return &Store{c: s.c, l: l, o: s.o, region: s.region, signed: s.signed}
}

// growth is what of the Traits says how parts lie.
func growth() coldstore.Traits { return coldstore.Traits{GrowEvery: growEvery, MaxPart: maxPart} }

func traitsOf(class types.StorageClass) coldstore.Traits {
	t := coldstore.Traits{
		Scheme: Scheme, Granularity: 1, NamesKept: true, Terse: true, OneRetrieval: true, Upgrades: true,
		MinPart: minPart, MaxPart: maxPart, MaxParts: maxParts, MaxArchive: maxArchive, GrowEvery: growEvery,
	}
	switch class {
	case types.StorageClassDeepArchive:
		t.WholeOnly, t.MinDays, t.KeepDays = true, 180, DefaultDays
		t.Tiers = []coldstore.Tier{coldstore.Standard, coldstore.Bulk}
	case types.StorageClassGlacier:
		t.WholeOnly, t.MinDays, t.KeepDays = true, 90, DefaultDays
		t.Tiers = []coldstore.Tier{coldstore.Expedited, coldstore.Standard, coldstore.Bulk}
	case types.StorageClassIntelligentTiering:
		t.WholeOnly = true // what has moved to an archive tier
		t.Tiers = []coldstore.Tier{coldstore.Expedited, coldstore.Standard, coldstore.Bulk}
	case types.StorageClassGlacierIr:
		t.MinDays = 90
	case types.StorageClassStandardIa, types.StorageClassOnezoneIa:
		t.MinDays = 30
	default:
		t.Warm = true
	}
	return t
}

// Region is the one that the bucket is in; empty where nobody told.
func (s *Store) Region() string { return s.region }

func (s *Store) key(name string) *string {
	k := s.l.root() + name
	return &k
}

func (s *Store) payer() types.RequestPayer {
	if s.l.requesterPays {
		return types.RequestPayerRequester
	}
	return ""
}

func (s *Store) class(a coldstore.NewArchive) types.StorageClass {
	c := s.l.class
	if a.Meta {
		c = s.l.metaClass
	}
	if c == types.StorageClassStandard {
		return "" // which all servers know
	}
	return c
}

func checkNew(a coldstore.NewArchive) error {
	if len(a.Description) > 1024 {
		return fmt.Errorf("the description has %d characters, and 1,024 are allowed: %w", len(a.Description), coldstore.ErrInvalid)
	}
	for _, c := range []byte(a.Description) {
		if c < 0x20 || c > 0x7e {
			return fmt.Errorf("the description has characters that are not printable ASCII: %w", coldstore.ErrInvalid)
		}
	}
	if a.Name != "" && !validName(a.Name) {
		return failure.Errorf(failure.Failed, "the name cannot be one: %w", coldstore.ErrInvalid)
	}
	return nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// optional is nil for the empty text.
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func number[T int32 | int64](p *T) T {
	if p == nil {
		return 0
	}
	return *p
}

func yes(p *bool) bool { return p != nil && *p }

func moment(p *time.Time) time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.UTC()
}
