package app

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/glaciervault"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
)

// IsNoCredentials says whether err is the want of any credentials for a service.
func IsNoCredentials(err error) bool { return errors.Is(err, glaciervault.ErrNoCredentials) }

// RegionURL is that of an account's vaults in a region, and with a vault that vault's.
func RegionURL(region, vault string) string {
	u := url.URL{Scheme: glaciervault.Scheme, Host: region, Path: "/" + vault}
	return u.String()
}

// AccountURL is the URL of a vault in a region with the number of the account in it, under which the
// catalog knows it: the same name is another vault in another account, and an access key may be
// replaced. The service is asked for the number once for each key. coldstore.ErrNotFound: it has no vault
// to tell the number by.
func (a *App) AccountURL(ctx context.Context, region, vault string) (string, error) {
	number, err := a.AccountNumber(ctx, region, vault)
	if err != nil {
		return "", err
	}
	return WithAccount(region, vault, number)
}

// WithAccount is the URL of a vault of the account of that number. failure.Usage: it cannot be one.
func WithAccount(region, vault, number string) (string, error) {
	return canonicalURL(RegionURL(region, vault) + "?" + url.Values{"account": {number}}.Encode())
}

// AccountNumber is the number of the account of the credentials at hand, by what is remembered or by
// asking a service for a vault of it.
func (a *App) AccountNumber(ctx context.Context, region, vault string) (string, error) {
	acc, err := a.OpenAccount(ctx, RegionURL(region, ""))
	if err != nil {
		return "", err
	}
	t, ok := acc.(coldstore.AccountTeller)
	if !ok {
		return "", failure.Errorf(failure.Usage, "%s: there are no accounts", RegionURL(region, ""))
	}
	caller, err := t.Caller(ctx)
	if err != nil {
		return "", err
	}
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return "", err
	}
	number, err := db.Account(ctx, caller)
	if err != nil || number != "" {
		return number, err
	}
	err = transfer.Retry(ctx, opening(), func() error {
		number, err = t.AccountNumber(ctx, vault)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("find out the number of the account: %w", err)
	}
	return number, db.PutAccount(ctx, caller, number)
}

// ListsLate says whether a vault tells what it has only hours later, so that what it has is known from the catalog.
func ListsLate(url string) bool {
	k, err := kindOf(url)
	return err == nil && k.scheme == glaciervault.Scheme
}

// VaultsOf are the URLs of the vaults that nameOrURL stands for: of glacier://REGION, all that the account has
// there, by name; of all else, that vault.
func (a *App) VaultsOf(ctx context.Context, nameOrURL string) ([]string, error) {
	if !IsRegion(nameOrURL) {
		url, err := a.VaultURL(nameOrURL)
		return []string{url}, err
	}
	acc, err := a.OpenAccount(ctx, nameOrURL)
	if err != nil {
		return nil, err
	}
	l, ok := acc.(coldstore.VaultLister)
	if !ok {
		return nil, failure.Errorf(failure.Usage, "%s: vaults cannot be listed", nameOrURL)
	}
	var urls []string
	err = transfer.Retry(ctx, opening(), func() error {
		urls = urls[:0]
		return l.ListVaults(ctx, func(v coldstore.Vault) error {
			url, err := glaciervault.InRegion(nameOrURL, v.Name)
			urls = append(urls, url)
			return err
		})
	})
	return urls, err
}

// IsRegion says whether a URL is that of an account's vaults in a region.
func IsRegion(url string) bool { return glaciervault.IsRegion(url) }

// KnownVaults are the URLs of all vaults of which the catalog knows archives, in order; where a region is given, of those in
// it: glacier://REGION, with the parameters that they must have.
func (a *App) KnownVaults(ctx context.Context, region string) ([]string, error) {
	db, err := a.Catalog(ctx, true)
	if err != nil {
		return nil, err
	}
	urls, err := db.Vaults(ctx)
	if region != "" {
		urls = slices.DeleteFunc(urls, func(url string) bool { return !glaciervault.Within(region, url) })
	}
	return urls, err
}

// KnownVaultURL is VaultURL; of a vault of Amazon Glacier whose URL does not say which account it is in, it is the URL under which
// the catalog knows it where that is a single one, as after another program's state was adopted.
func (a *App) KnownVaultURL(ctx context.Context, nameOrURL string) (string, error) {
	url, err := a.VaultURL(nameOrURL)
	if err != nil || a.Config.Vaults[nameOrURL] != nil || !ListsLate(url) {
		return url, err
	}
	db, err := a.Catalog(ctx, false)
	if errors.Is(err, ErrNoCatalog) {
		return url, nil
	}
	if err != nil {
		return "", err
	}
	known, err := db.Vaults(ctx)
	if err != nil || slices.Contains(known, url) {
		return url, err
	}
	known = slices.DeleteFunc(known, func(k string) bool { return !glaciervault.Same(url, k) })
	if len(known) == 1 {
		return known[0], nil
	}
	return url, nil
}
