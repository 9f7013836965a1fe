package glaciervault

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/glacier"
	"github.com/aws/aws-sdk-go-v2/service/glacier/types"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/awsconn"
)

// DescribeVault tells of the vault as of its last inventory.
func (s *Store) DescribeVault(ctx context.Context) (coldstore.Vault, error) {
	v, err := s.describe(ctx)
	if err != nil {
		return v, fail(ctx, "describe vault "+s.vault, err)
	}
	return v, nil
}

func (s *Store) describe(ctx context.Context) (coldstore.Vault, error) {
	out, err := s.c.DescribeVault(ctx, &glacier.DescribeVaultInput{AccountId: &s.id, VaultName: &s.vault})
	if err != nil {
		return coldstore.Vault{}, classify(ctx, err)
	}
	return vaultOf(&types.DescribeVaultOutput{
		VaultARN: out.VaultARN, VaultName: out.VaultName, CreationDate: out.CreationDate, LastInventoryDate: out.LastInventoryDate,
		NumberOfArchives: out.NumberOfArchives, SizeInBytes: out.SizeInBytes,
	}), nil
}

func vaultOf(d *types.DescribeVaultOutput) coldstore.Vault {
	v := coldstore.Vault{
		Name: text(d.VaultName), ID: text(d.VaultARN), Created: parseTime(d.CreationDate), Inventory: parseTime(d.LastInventoryDate),
	}
	if !v.Inventory.IsZero() {
		v.Archives, v.Bytes = d.NumberOfArchives, d.SizeInBytes
	}
	return v
}

// ListVaults lists the account's vaults in the region, by name.
func (a *Account) ListVaults(ctx context.Context, fn func(coldstore.Vault) error) error {
	in := &glacier.ListVaultsInput{AccountId: &a.id}
	for {
		out, err := a.c.ListVaults(ctx, in)
		if err != nil {
			return fail(ctx, "list vaults", err)
		}
		for i := range out.VaultList {
			if err := fn(vaultOf(&out.VaultList[i])); err != nil {
				return err
			}
		}
		if text(out.Marker) == "" {
			return nil
		}
		if in.Marker != nil && *in.Marker == *out.Marker {
			return fmt.Errorf("list vaults: %w", errSamePage)
		}
		in.Marker = out.Marker
	}
}

// DeleteVault deletes the vault. The service refuses until an inventory, made about once a day, has
// shown it empty and nothing was written since.
func (s *Store) DeleteVault(ctx context.Context) error {
	_, err := s.c.DeleteVault(ctx, &glacier.DeleteVaultInput{AccountId: &s.id, VaultName: &s.vault})
	return unlessGone(ctx, "delete vault "+s.vault, err)
}

// unlessGone is for what succeeds where there is nothing to take away.
func unlessGone(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if err = classify(ctx, err); errors.Is(err, coldstore.ErrNotFound) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Tags are the vault's.
func (s *Store) Tags(ctx context.Context) (map[string]string, error) {
	out, err := s.c.ListTagsForVault(ctx, &glacier.ListTagsForVaultInput{AccountId: &s.id, VaultName: &s.vault})
	if err != nil {
		return nil, fail(ctx, "list tags of vault "+s.vault, err)
	}
	if out.Tags == nil {
		return map[string]string{}, nil
	}
	return out.Tags, nil
}

// AddTags sets tags: 50 at most in all, with keys of 1 to 128 and values of up to 255 characters.
func (s *Store) AddTags(ctx context.Context, tags map[string]string) error {
	if len(tags) == 0 {
		return nil
	}
	_, err := s.c.AddTagsToVault(ctx, &glacier.AddTagsToVaultInput{AccountId: &s.id, VaultName: &s.vault, Tags: tags})
	if err != nil {
		return fail(ctx, "add tags to vault "+s.vault, err)
	}
	return nil
}

// RemoveTags removes tags by their keys.
func (s *Store) RemoveTags(ctx context.Context, names []string) error {
	if len(names) == 0 {
		return nil
	}
	_, err := s.c.RemoveTagsFromVault(ctx, &glacier.RemoveTagsFromVaultInput{AccountId: &s.id, VaultName: &s.vault, TagKeys: names})
	if err != nil {
		return fail(ctx, "remove tags of vault "+s.vault, err)
	}
	return nil
}

// AccessPolicy is the vault's, as it was set.
func (s *Store) AccessPolicy(ctx context.Context) (string, error) {
	what := "get the access policy of vault " + s.vault
	out, err := s.c.GetVaultAccessPolicy(ctx, &glacier.GetVaultAccessPolicyInput{AccountId: &s.id, VaultName: &s.vault})
	if err != nil {
		return "", fail(ctx, what, err)
	}
	if out.Policy == nil || text(out.Policy.Policy) == "" {
		return "", fmt.Errorf("%s: there is none: %w", what, coldstore.ErrNotFound)
	}
	return *out.Policy.Policy, nil
}

// SetAccessPolicy sets the vault's policy: JSON of up to 20 KB.
func (s *Store) SetAccessPolicy(ctx context.Context, policy string) error {
	_, err := s.c.SetVaultAccessPolicy(ctx, &glacier.SetVaultAccessPolicyInput{
		AccountId: &s.id, VaultName: &s.vault, Policy: &types.VaultAccessPolicy{Policy: &policy},
	})
	if err != nil {
		return fail(ctx, "set the access policy of vault "+s.vault, err)
	}
	return nil
}

// DeleteAccessPolicy takes the vault's policy away.
func (s *Store) DeleteAccessPolicy(ctx context.Context) error {
	_, err := s.c.DeleteVaultAccessPolicy(ctx, &glacier.DeleteVaultAccessPolicyInput{AccountId: &s.id, VaultName: &s.vault})
	return unlessGone(ctx, "delete the access policy of vault "+s.vault, err)
}

// VaultLock is the lock, in progress or for ever.
func (s *Store) VaultLock(ctx context.Context) (coldstore.VaultLock, error) {
	out, err := s.c.GetVaultLock(ctx, &glacier.GetVaultLockInput{AccountId: &s.id, VaultName: &s.vault})
	if err != nil {
		return coldstore.VaultLock{}, fail(ctx, "get the lock of vault "+s.vault, err)
	}
	return coldstore.VaultLock{
		Policy: text(out.Policy), State: coldstore.LockState(text(out.State)),
		Created: parseTime(out.CreationDate), Expires: parseTime(out.ExpirationDate),
	}, nil
}

// BeginVaultLock begins a lock. One that is in progress, or Locked, is refused.
func (s *Store) BeginVaultLock(ctx context.Context, policy string) (string, error) {
	out, err := s.c.InitiateVaultLock(ctx, &glacier.InitiateVaultLockInput{
		AccountId: &s.id, VaultName: &s.vault, Policy: &types.VaultLockPolicy{Policy: &policy},
	})
	if err != nil {
		return "", fail(ctx, "begin to lock vault "+s.vault, err)
	}
	return text(out.LockId), nil
}

// CompleteVaultLock makes the lock for ever.
func (s *Store) CompleteVaultLock(ctx context.Context, id string) error {
	what := "complete the lock of vault " + s.vault
	if !validID(id) {
		return fmt.Errorf("%s: %q is not the id of one: %w", what, awsconn.OneLine(id), coldstore.ErrInvalid)
	}
	_, err := s.c.CompleteVaultLock(ctx, &glacier.CompleteVaultLockInput{AccountId: &s.id, VaultName: &s.vault, LockId: &id})
	if err != nil {
		return fail(ctx, what, err)
	}
	return nil
}

// AbortVaultLock takes a lock in progress back.
func (s *Store) AbortVaultLock(ctx context.Context) error {
	_, err := s.c.AbortVaultLock(ctx, &glacier.AbortVaultLockInput{AccountId: &s.id, VaultName: &s.vault})
	return unlessGone(ctx, "take back the lock of vault "+s.vault, err)
}

// Notifications are the vault's.
func (s *Store) Notifications(ctx context.Context) (coldstore.Notifications, error) {
	what := "get the notifications of vault " + s.vault
	out, err := s.c.GetVaultNotifications(ctx, &glacier.GetVaultNotificationsInput{AccountId: &s.id, VaultName: &s.vault})
	if err != nil {
		return coldstore.Notifications{}, fail(ctx, what, err)
	}
	if out.VaultNotificationConfig == nil {
		return coldstore.Notifications{}, fmt.Errorf("%s: there are none: %w", what, coldstore.ErrNotFound)
	}
	return coldstore.Notifications{Topic: text(out.VaultNotificationConfig.SNSTopic), Events: out.VaultNotificationConfig.Events}, nil
}

// SetNotifications sets the vault's. Whether the topic may be written to, the service does not ask.
func (s *Store) SetNotifications(ctx context.Context, n coldstore.Notifications) error {
	_, err := s.c.SetVaultNotifications(ctx, &glacier.SetVaultNotificationsInput{
		AccountId: &s.id, VaultName: &s.vault,
		VaultNotificationConfig: &types.VaultNotificationConfig{SNSTopic: &n.Topic, Events: n.Events},
	})
	if err != nil {
		return fail(ctx, "set the notifications of vault "+s.vault, err)
	}
	return nil
}

// DeleteNotifications takes the vault's away.
func (s *Store) DeleteNotifications(ctx context.Context) error {
	_, err := s.c.DeleteVaultNotifications(ctx, &glacier.DeleteVaultNotificationsInput{AccountId: &s.id, VaultName: &s.vault})
	return unlessGone(ctx, "delete the notifications of vault "+s.vault, err)
}

// RetrievalPolicy is the account's in the region. Where none was set, it is None: no limit.
func (a *Account) RetrievalPolicy(ctx context.Context) (coldstore.RetrievalPolicy, error) {
	out, err := a.c.GetDataRetrievalPolicy(ctx, &glacier.GetDataRetrievalPolicyInput{AccountId: &a.id})
	if err != nil {
		return coldstore.RetrievalPolicy{}, fail(ctx, "get the data retrieval policy", err)
	}
	p := coldstore.RetrievalPolicy{Strategy: "None"}
	if out.Policy != nil && len(out.Policy.Rules) > 0 {
		rule := out.Policy.Rules[0]
		p.Strategy = text(rule.Strategy)
		if rule.BytesPerHour != nil {
			p.BytesPerHour = *rule.BytesPerHour
		}
	}
	return p, nil
}

// SetRetrievalPolicy sets the account's in the region. BytesPerHour goes with the strategy of that name only.
func (a *Account) SetRetrievalPolicy(ctx context.Context, p coldstore.RetrievalPolicy) error {
	rule := types.DataRetrievalRule{Strategy: &p.Strategy}
	if p.BytesPerHour != 0 {
		rule.BytesPerHour = &p.BytesPerHour
	}
	_, err := a.c.SetDataRetrievalPolicy(ctx, &glacier.SetDataRetrievalPolicyInput{
		AccountId: &a.id, Policy: &types.DataRetrievalPolicy{Rules: []types.DataRetrievalRule{rule}},
	})
	if err != nil {
		return fail(ctx, "set the data retrieval policy", err)
	}
	return nil
}

// Capacities are the units of provisioned capacity that the account has.
func (a *Account) Capacities(ctx context.Context) ([]coldstore.Capacity, error) {
	out, err := a.c.ListProvisionedCapacity(ctx, &glacier.ListProvisionedCapacityInput{AccountId: &a.id})
	if err != nil {
		return nil, fail(ctx, "list provisioned capacity", err)
	}
	var all []coldstore.Capacity
	for _, c := range out.ProvisionedCapacityList {
		all = append(all, coldstore.Capacity{ID: text(c.CapacityId), Begins: parseTime(c.StartDate), Expires: parseTime(c.ExpirationDate)})
	}
	return all, nil
}

// BuyCapacity buys a unit for a month.
func (a *Account) BuyCapacity(ctx context.Context) (string, error) {
	out, err := a.c.PurchaseProvisionedCapacity(ctx, &glacier.PurchaseProvisionedCapacityInput{AccountId: &a.id})
	if err != nil {
		return "", fail(ctx, "buy provisioned capacity", err)
	}
	return text(out.CapacityId), nil
}
