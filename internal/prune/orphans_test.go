package prune_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/faultstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/prune"
	"github.com/firn-backup/firn/internal/restore/restoretest"
	"github.com/firn-backup/firn/treehash"
)

func (s *site) describe(snap string, n int, part, host string) string {
	return fmt.Sprintf("firn/1 set=tree setid=%s host=%s snap=%s n=%d kind=full part=%s codec=zstd,age", s.w.Set.ID, host, snap, n, part)
}

// put stores an archive that says it is a part of a snapshot.
func (s *site) put(snap string, n int, part, host string) string {
	s.t.Helper()
	ctx := context.Background()
	id := fmt.Sprintf("copies/%s-%d-%s-%s", snap, n, part, host)
	up, err := s.v.CreateUpload(ctx, coldstore.NewArchive{Name: id, Description: s.describe(snap, n, part, host)}, 1<<20)
	must(s.t, err)
	hash := treehash.Sum([]byte(id))
	must(s.t, s.v.PutPart(ctx, up.ID, 0, []byte(id), hash))
	_, err = s.v.CompleteUpload(ctx, up.ID, int64(len(id)), hash)
	must(s.t, err)
	return id
}

// A listing shows what nothing names; what another host or a newer snapshot may need stays.
func TestOrphans(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	snaps := s.snapshots()
	const old = "01K00000000000000000000000"
	orphans := []string{s.put(snaps[0].ID, 1, "manifest", "here"), s.put(snaps[4].ID, 5, "1", "here"), s.put(old, 2, "1", "here")}
	stay := []string{s.put(old, 2, "1", "there"), s.put(old, 9, "1", "here")}
	s.now = s.now.Add(400 * day)
	res := s.prune()
	all := s.archives()
	for _, id := range orphans {
		if all[id] {
			t.Errorf("%s is still there", id)
		}
	}
	for _, id := range stay {
		if !all[id] {
			t.Errorf("%s is gone", id)
		}
	}
	if res.Orphans != len(orphans) {
		t.Errorf("%d orphans", res.Orphans)
	}
	// A manifest that the catalog does not know: it may be the catalog that lags.
	unknown := s.put("01K00000000000000000000001", 4, "manifest", "here")
	again := s.put(old, 2, "2", "here")
	s.prune()
	if all := s.archives(); !all[unknown] || !all[again] {
		t.Error("what the catalog does not know was deleted")
	}
}

// What an abandoned attempt stored is deleted.
func TestAbandoned(t *testing.T) {
	t.Parallel()
	s := origin(t, 1)
	s.w.Write("more", restoretest.Noise(99, 900_000))
	dead := faultstore.New(faultstore.Fault{Mode: faultstore.DeadFrom, Method: "CreateUpload", Call: 2})
	o := s.w.BackupOptions(s.w.Set)
	o.Store = dead.Wrap(s.v)
	if _, err := backup.Run(context.Background(), o); err == nil {
		t.Fatal("no fault")
	}
	s.w.Backup(func(o *backup.Options) { o.Params = "others" })
	po := s.options(s.w.Set)
	po.Tidy = false
	res, err := prune.Run(context.Background(), po)
	must(t, err)
	if res.Archives == 0 {
		t.Errorf("%+v", res)
	}
	s.done(2)
}

// Nothing goes while the newest chain is not whole in the vault.
func TestNewestChainLost(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	ctx := context.Background()
	snaps := s.snapshots()
	before := len(s.archives())
	must(t, s.v.Delete(ctx, snaps[4].ManifestPart.Archive))
	_, err := prune.Run(ctx, s.options(s.w.Set))
	if failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), snaps[4].ID) {
		t.Error(err)
	}
	if n := len(s.archives()); n != before-1 {
		t.Errorf("%d archives of %d", n, before)
	}
}

// A vault whose listing lags is pruned by what the catalog knows; copies that its last listing showed go with their snapshots.
func TestLaggingListing(t *testing.T) {
	t.Parallel()
	s := origin(t, 5)
	ctx := context.Background()
	snaps := s.snapshots()
	id := s.put(snaps[0].ID, 1, "manifest", "here")
	must(t, s.db.PutArchive(ctx, catalog.ArchiveRecord{Vault: s.w.URL, SeenAsOf: s.now, Archive: coldstore.Archive{
		ID: id, Created: s.now, Description: s.describe(snaps[0].ID, 1, "manifest", "here")}}))
	o := s.options(s.w.Set)
	o.Open = func(context.Context, string) (prune.Store, error) { return young{s.v, 0, day}, nil }
	res, err := prune.Run(ctx, o)
	must(t, err)
	if len(res.Chains) != 1 || !slices.Contains(res.Unlisted, s.w.URL) {
		t.Errorf("%+v", res)
	}
	s.done(3)
	r, err := s.db.ArchiveByID(ctx, s.w.URL, snaps[0].ManifestPart.Archive)
	must(t, err)
	if r.DeletedAt.IsZero() {
		t.Error("the deletion is not recorded")
	}
}
