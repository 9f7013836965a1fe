package glaciervault_test

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/storetest"
)

const denyDelete = `{"Version":"2012-10-17","Statement":[{"Sid":"keep","Principal":"*","Effect":"Deny","Action":"glacier:DeleteArchive",` +
	`"Resource":["arn:aws:glacier:eu-west-1:123456789012:vaults/photos"],"Condition":{"NumericLessThan":{"glacier:ArchiveAgeInDays":"365"}}}]}`

// A caller finds the abilities of a vault by asking for them.
func TestAbilities(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, _ := vault(t, c)
	var store coldstore.Store = s
	for what, ok := range map[string]bool{
		"tags":     is[coldstore.Tagger](store),
		"policy":   is[coldstore.AccessPolicyKeeper](store),
		"lock":     is[coldstore.VaultLocker](store),
		"notify":   is[coldstore.Notifier](store),
		"jobs":     is[coldstore.JobLister](store),
		"vaults":   is[coldstore.VaultLister](store),
		"limits":   is[coldstore.RetrievalLimiter](store),
		"capacity": is[coldstore.CapacityBuyer](store),
		"delete":   is[coldstore.VaultDeleter](store),
		"describe": is[coldstore.VaultDescriber](store),
		"lagging":  is[coldstore.LaggingLister](store),
	} {
		if !ok {
			t.Errorf("no %s", what)
		}
	}
	if is[coldstore.Stater](store) {
		t.Error("a vault cannot tell of one archive")
	}
}

func is[T any](s coldstore.Store) bool {
	_, ok := s.(T)
	return ok
}

func TestTags(t *testing.T) {
	t.Parallel()
	s, _ := vault(t, newClock())
	ctx := t.Context()
	want := map[string]string{"owner": "me", "empty": "", "an é": "= & ?"}
	if got, err := s.Tags(ctx); err != nil || got == nil || len(got) != 0 {
		t.Errorf("at first %v, %v", got, err)
	}
	for range 2 {
		if err := s.AddTags(ctx, want); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.AddTags(ctx, map[string]string{"more": "x"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.RemoveTags(ctx, []string{"more", "never"}); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Tags(ctx); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if err := s.AddTags(ctx, map[string]string{"aws:x": "y"}); !errors.Is(err, coldstore.ErrInvalid) || !strings.Contains(err.Error(), "photos") {
		t.Errorf("a forbidden tag: %v", err)
	}
}

func TestPoliciesAndNotifications(t *testing.T) {
	t.Parallel()
	s, _ := vault(t, newClock())
	ctx := t.Context()
	if _, err := s.AccessPolicy(ctx); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("no policy: %v", err)
	}
	if _, err := s.Notifications(ctx); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("no notifications: %v", err)
	}
	n := coldstore.Notifications{Topic: "arn:aws:sns:eu-west-1:123456789012:done", Events: []string{"ArchiveRetrievalCompleted", "InventoryRetrievalCompleted"}}
	if err := errors.Join(s.SetAccessPolicy(ctx, denyDelete), s.SetNotifications(ctx, n)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.AccessPolicy(ctx); err != nil || got != denyDelete {
		t.Errorf("%s, %v", got, err)
	}
	if got, err := s.Notifications(ctx); err != nil || got.Topic != n.Topic || len(got.Events) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	for range 2 {
		if err := errors.Join(s.DeleteAccessPolicy(ctx), s.DeleteNotifications(ctx)); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.AccessPolicy(ctx); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, _ := vault(t, c)
	ctx := t.Context()
	if _, err := s.VaultLock(ctx); !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("no lock: %v", err)
	}
	if err := s.AbortVaultLock(ctx); err != nil {
		t.Errorf("taking back none: %v", err)
	}
	id, err := s.BeginVaultLock(ctx, denyDelete)
	if err != nil || id == "" {
		t.Fatal(id, err)
	}
	l, err := s.VaultLock(ctx)
	if err != nil || l.State != coldstore.LockInProgress || l.Policy != denyDelete || !l.Created.Equal(c.Now()) || !l.Expires.Equal(c.Now().Add(24*time.Hour)) {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := s.BeginVaultLock(ctx, denyDelete); err == nil {
		t.Error("begun twice")
	}
	if err := s.CompleteVaultLock(ctx, "another"); err == nil {
		t.Error("completed with another id")
	}
	if err := s.AbortVaultLock(ctx); err != nil {
		t.Fatal(err)
	}
	if id, err = s.BeginVaultLock(ctx, denyDelete); err != nil {
		t.Fatal(err)
	}
	if err := s.CompleteVaultLock(ctx, id); err != nil {
		t.Fatal(err)
	}
	if l, err := s.VaultLock(ctx); err != nil || l.State != coldstore.Locked || !l.Expires.IsZero() {
		t.Errorf("%+v, %v", l, err)
	}
	if err := s.AbortVaultLock(ctx); err == nil {
		t.Error("a lock for ever was taken back")
	}
	a := storetest.Upload(t, s, coldstore.NewArchive{}, 1<<20, []byte("x"))
	if err := s.Delete(ctx, a.ID); err == nil || errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("deleted in spite of the lock: %v", err)
	}
	c.Advance(366 * 24 * time.Hour)
	if err := s.Delete(ctx, a.ID); err != nil {
		t.Errorf("after a year: %v", err)
	}
}

// What belongs to the account: the policy that refuses, and capacity that is bought.
func TestAccount(t *testing.T) {
	t.Parallel()
	c := newClock()
	s, _ := vault(t, c)
	ctx := t.Context()
	if p, err := s.RetrievalPolicy(ctx); err != nil || p.Strategy != "None" || p.BytesPerHour != 0 {
		t.Errorf("at first %+v, %v", p, err)
	}
	want := coldstore.RetrievalPolicy{Strategy: "BytesPerHour", BytesPerHour: 1 << 20}
	if err := s.SetRetrievalPolicy(ctx, want); err != nil {
		t.Fatal(err)
	}
	if p, err := s.RetrievalPolicy(ctx); err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	a := storetest.Upload(t, s, coldstore.NewArchive{}, 16<<20, storetest.Bytes(16<<20, 1))
	_, err := s.RequestRetrieval(ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err == nil || !strings.Contains(err.Error(), "data retrieval policy") || errors.Is(err, coldstore.ErrTemporary) {
		t.Errorf("more than the policy allows: %v", err)
	}
	if _, err := s.RequestRetrieval(ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{Tier: coldstore.Bulk}); err != nil {
		t.Errorf("Bulk: %v", err)
	}
	if all, err := s.Capacities(ctx); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
	id, err := s.BuyCapacity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.Capacities(ctx)
	if err != nil || len(all) != 1 || all[0].ID != id || !all[0].Expires.After(c.Now().Add(27*24*time.Hour)) {
		t.Errorf("%+v, %v", all, err)
	}
}
