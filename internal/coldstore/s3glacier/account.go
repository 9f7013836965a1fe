package s3glacier

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/firn-backup/firn/internal/coldstore"
)

var (
	_ coldstore.Inspector    = (*Store)(nil)
	_ coldstore.VaultDeleter = (*Store)(nil)
	_ coldstore.VaultLister  = (*Account)(nil)
)

// Account is the buckets that an account has. Its methods may be called from several goroutines.
type Account struct{ s *Store }

// OpenAccount opens the account of s3://, or of a vault's URL. It sends nothing.
func OpenAccount(ctx context.Context, url string, o Options) (*Account, error) {
	l, err := parseURL(url, false)
	if err != nil {
		return nil, err
	}
	c, region, err := newClient(ctx, l, l.region, o, nil)
	if err != nil {
		return nil, err
	}
	s := &Store{l: l, o: o.withDefaults()}
	s.use(c, region)
	return &Account{s}, nil
}

// ListVaults lists the account's buckets: a vault may be in any of them.
func (a *Account) ListVaults(ctx context.Context, fn func(coldstore.Vault) error) error {
	in := &s3.ListBucketsInput{}
	for {
		out, err := a.s.c.ListBuckets(ctx, in)
		if err != nil {
			return a.s.fail(ctx, "s3:ListAllMyBuckets", "list buckets", err)
		}
		for _, b := range out.Buckets {
			v := coldstore.Vault{Name: text(b.Name), ID: partition(text(b.BucketRegion)) + text(b.Name), Created: moment(b.CreationDate)}
			if err := fn(v); err != nil {
				return err
			}
		}
		if text(out.ContinuationToken) == "" {
			return nil
		}
		if text(in.ContinuationToken) == text(out.ContinuationToken) {
			return fmt.Errorf("list buckets: %w", errSamePage)
		}
		in.ContinuationToken = out.ContinuationToken
	}
}

// errFull ends a listing at the first archive.
var errFull = errors.New("there are archives")

// DeleteVault gives up what unfinished uploads there are. The bucket is not Firn's to delete, and nothing else is left of an empty vault.
func (s *Store) DeleteVault(ctx context.Context) error {
	what := "delete the vault in " + s.l.where()
	_, err := s.List(ctx, func(coldstore.Archive) error { return errFull })
	if errors.Is(err, errFull) {
		return fmt.Errorf("%s: it holds archives: %w", what, coldstore.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return s.ListUploads(ctx, func(u coldstore.Upload) error { return s.AbortUpload(ctx, u.ID) })
}
