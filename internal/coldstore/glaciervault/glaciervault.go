// Package glaciervault keeps archives in vaults of Amazon Glacier, the API of
// 2012, and of services that speak it. It owns that API's rules: jobs and
// their tokens, inventories and their age, what an error code means. It knows
// nothing of what is in archives, and sends each request once: retries are
// package transfer's.
//
// Credentials are the AWS SDK's own affair (environment, profiles, SSO, roles); none is
// ever part of a URL, an error or a token.
package glaciervault

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/glacier"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

const (
	// The limits of the service, from its Developer Guide.
	mib        = 1 << 20
	maxPart    = 4 << 30
	maxParts   = 10_000
	maxArchive = maxParts * maxPart
	minDays    = 90

	// A listing shows what was there listLag ago: inventories are made about once
	// a day, the job that fetches one takes hours, and its output serves for DefaultMaxAge.
	listLag = 48 * time.Hour

	// DefaultMaxAge is how long ago a finished inventory job may have ended to be used again.
	DefaultMaxAge = 20 * time.Hour

	// The service keeps the output of a job for at least jobLife after it is done. One that has
	// less than spareLife of that left is not used for new requests.
	jobLife   = 24 * time.Hour
	spareLife = time.Hour
)

// Options say how to open a vault. The zero value works.
type Options struct {
	Now func() time.Time // nil: time.Now
	// Notice is told, in one line, what is being waited for when the service has been silent for a while; nil: nobody.
	// It is called from any goroutine.
	Notice func(text string)
	// MaxAge is how long ago a finished inventory job may have ended for List to
	// use it again. 0: DefaultMaxAge.
	MaxAge time.Duration
}

func (o Options) withDefaults() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxAge <= 0 {
		o.MaxAge = DefaultMaxAge
	}
	return o
}

// Account is one account's Amazon Glacier in one region: what belongs to no single vault.
// Its methods may be called from several goroutines.
type Account struct {
	c   *glacier.Client
	cfg aws.Config // for services beside the vaults'
	id  string     // its number, or "-" for that of the credentials
	o   Options
}

// OpenAccount opens what a URL of the form glacier://REGION names, or the
// account and region of a vault's URL. It sends nothing.
func OpenAccount(ctx context.Context, url string, o Options) (*Account, error) {
	l, err := parseURL(url, false)
	if err != nil {
		return nil, err
	}
	return openAccount(ctx, l, o.withDefaults(), nil)
}

// Store is one vault.
type Store struct {
	*Account
	vault string
	topic string

	uploads  awsconn.Memory[coldstore.Upload]  // begun by this process
	finished awsconn.Memory[coldstore.Archive] // completed by this process, by upload
	jobs     jobCache
	asking   [32]sync.Mutex // by archive, so that two goroutines do not begin two jobs for one
}

var (
	_ coldstore.Store              = (*Store)(nil)
	_ coldstore.PacedUploader      = (*Store)(nil)
	_ coldstore.SectionUploader    = (*Store)(nil)
	_ coldstore.VaultDescriber     = (*Store)(nil)
	_ coldstore.VaultDeleter       = (*Store)(nil)
	_ coldstore.LaggingLister      = (*Store)(nil)
	_ coldstore.Tagger             = (*Store)(nil)
	_ coldstore.AccessPolicyKeeper = (*Store)(nil)
	_ coldstore.VaultLocker        = (*Store)(nil)
	_ coldstore.Notifier           = (*Store)(nil)
	_ coldstore.JobLister          = (*Store)(nil)
	_ coldstore.VaultLister        = (*Account)(nil)
	_ coldstore.RetrievalLimiter   = (*Account)(nil)
	_ coldstore.CapacityBuyer      = (*Account)(nil)
)

// Open opens a vault that exists; coldstore.ErrNotFound: it does not. It asks the
// service once. Credentials that may not describe the vault are no hindrance.
func Open(ctx context.Context, url string, o Options) (*Store, error) {
	return open(ctx, url, o, nil)
}

func open(ctx context.Context, url string, o Options, t *testSeam) (*Store, error) {
	s, err := newStore(ctx, url, o, t)
	if err != nil {
		return nil, err
	}
	_, err = s.DescribeVault(ctx)
	var se *awsconn.Error
	if err != nil && !(errors.As(err, &se) && se.Code == "AccessDeniedException") {
		return nil, err
	}
	return s, nil
}

// Create makes a vault and opens it; coldstore.ErrExists: there is one.
func Create(ctx context.Context, url string, o Options) (*Store, error) {
	return create(ctx, url, o, nil)
}

func create(ctx context.Context, url string, o Options, t *testSeam) (*Store, error) {
	s, err := newStore(ctx, url, o, t)
	if err != nil {
		return nil, err
	}
	// The service answers a repeated creation as it does the first.
	_, err = s.DescribeVault(ctx)
	if err == nil {
		return nil, fmt.Errorf("create vault %s: %w", s.vault, coldstore.ErrExists)
	}
	if !errors.Is(err, coldstore.ErrNotFound) {
		return nil, err
	}
	_, err = s.c.CreateVault(ctx, &glacier.CreateVaultInput{AccountId: &s.id, VaultName: &s.vault})
	if err != nil {
		err = classify(ctx, err)
		// If the answer was lost, the vault may be there: repeated, this would say that it was before.
		var se *awsconn.Error
		if errors.As(err, &se) && se.Lost {
			if _, derr := s.describe(ctx); derr == nil {
				return s, nil
			}
		}
		return nil, fmt.Errorf("create vault %s: %w", s.vault, err)
	}
	return s, nil
}

func newStore(ctx context.Context, url string, o Options, t *testSeam) (*Store, error) {
	l, err := parseURL(url, true)
	if err != nil {
		return nil, err
	}
	a, err := openAccount(ctx, l, o.withDefaults(), t)
	if err != nil {
		return nil, err
	}
	return &Store{Account: a, vault: l.vault, topic: l.topic}, nil
}

// Traits are the rules of the service.
func (s *Store) Traits() coldstore.Traits {
	return coldstore.Traits{
		Scheme:      Scheme,
		Granularity: mib,
		Tiers:       []coldstore.Tier{coldstore.Expedited, coldstore.Standard, coldstore.Bulk},
		MinDays:     minDays,
		ListLag:     listLag,
		MinPart:     mib,
		MaxPart:     maxPart,
		MaxParts:    maxParts,
		MaxArchive:  maxArchive,
	}
}

// validID says whether a text can be the id of an archive, an upload or a job. What
// cannot is not sent: it would be another path.
func validID(id string) bool {
	if id == "" || len(id) > 300 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if !(c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// parseTime reads a time of the service; one that is absent is zero.
func parseTime(s *string) time.Time {
	if s == nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, *s)
	if err != nil {
		return time.Time{}
	}
	return t.UTC()
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
