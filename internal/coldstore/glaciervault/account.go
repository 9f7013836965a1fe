package glaciervault

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/glacier"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

var _ coldstore.AccountTeller = (*Account)(nil)

// ErrNoCredentials says that the SDK has found no credentials.
var ErrNoCredentials = awsconn.ErrNoCredentials

// Caller is a hash of the access key's id and of the endpoint that requests go to.
func (a *Account) Caller(ctx context.Context) (string, error) {
	o := a.c.Options()
	if o.Credentials == nil {
		return "", ErrNoCredentials
	}
	c, err := o.Credentials.Retrieve(ctx)
	if err != nil {
		return "", err
	}
	endpoint := ""
	if o.BaseEndpoint != nil {
		endpoint = *o.BaseEndpoint
	}
	sum := sha256.Sum256([]byte(c.AccessKeyID + "\x00" + endpoint))
	return hex.EncodeToString(sum[:16]), nil
}

// errOneIsEnough ends a list at its first vault.
var errOneIsEnough = errors.New("one is enough")

// AccountNumber reads the number in the ARN of a vault: of the named one, or of any.
func (a *Account) AccountNumber(ctx context.Context, vault string) (string, error) {
	if a.id != "-" {
		return a.id, nil
	}
	if vault != "" && awsconn.Matches(`^[A-Za-z0-9_.-]{1,255}$`, vault) && vault != "." && vault != ".." {
		out, err := a.c.DescribeVault(ctx, &glacier.DescribeVaultInput{AccountId: &a.id, VaultName: &vault})
		if err == nil {
			return numberIn(text(out.VaultARN))
		}
		if err = classify(ctx, err); !errors.Is(err, coldstore.ErrNotFound) {
			return "", fmt.Errorf("describe vault %s: %w", vault, err)
		}
	}
	arn := ""
	err := a.ListVaults(ctx, func(v coldstore.Vault) error {
		arn = v.ID
		return errOneIsEnough
	})
	switch {
	case errors.Is(err, errOneIsEnough):
		return numberIn(arn)
	case err != nil:
		return "", err
	}
	return "", fmt.Errorf("the account has no vault in this region: %w", coldstore.ErrNotFound)
}

// numberIn reads arn:aws:glacier:REGION:NUMBER:vaults/NAME.
func numberIn(arn string) (string, error) {
	if f := strings.Split(arn, ":"); len(f) >= 6 && awsconn.Matches(`^[0-9]{12}$`, f[4]) {
		return f[4], nil
	}
	return "", fmt.Errorf("the service tells of a vault %q, in which there is no account number", awsconn.OneLine(arn))
}
