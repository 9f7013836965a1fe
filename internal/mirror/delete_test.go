package mirror_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/items/itemstest"
)

// refusing is a vault that does not delete some archives.
type refusing struct {
	coldstore.Store
	why map[string]error
}

func (r refusing) Delete(ctx context.Context, archive string) error {
	if err := r.why[archive]; err != nil {
		return err
	}
	return r.Store.Delete(ctx, archive)
}

// current is the archive that is stored of a file.
func (w *world) current(path string) string {
	i, err := w.DB.CurrentItem(context.Background(), w.Set.ID, path)
	itemstest.Must(w.T, err)
	return i.Archive.Archive
}

// An archive that the vault refuses to delete does not keep the others.
func TestRefusedDeletions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, false)
	for k := range 20 {
		w.Write(fmt.Sprintf("bands/%02d", k), fmt.Sprint("band ", k))
	}
	_, err := w.run(w.Vault)
	must(t, err)
	changed := func(n int, how string) {
		for k := range n {
			w.Write(fmt.Sprintf("bands/%02d", k), fmt.Sprint(how, k))
		}
	}
	store := refusing{w.Vault, map[string]error{}}
	for k, why := range []error{coldstore.ErrInvalid, &coldstore.LockedError{Until: w.Clock.Add(time.Hour), Err: errors.New("denied")}, coldstore.ErrTemporary} {
		store.why[w.current(fmt.Sprintf("bands/%02d", k))] = fmt.Errorf("the vault says: %w", why)
	}
	changed(9, "newer")
	res, err := w.run(store)
	if failure.KindOf(err) != failure.Partial || res.Stored != 9 || res.Deleted != 6 || res.Bad != 2 {
		t.Fatalf("%v, %+v", err, res)
	}
	// They go when they may.
	if res, err = w.run(w.Vault); err != nil || res.Deleted != 3 {
		t.Fatalf("%v, %+v", err, res)
	}
	// A vault that does not answer any more is not asked for each.
	must(t, os.Remove(filepath.Join(w.Dir, "bands/19")))
	for k := range 9 {
		store.why[w.current(fmt.Sprintf("bands/%02d", k))] = coldstore.ErrTemporary
	}
	changed(9, "newest")
	if res, err = w.run(store); err == nil || failure.KindOf(err) == failure.Partial || res.Deleted != 0 || res.Bad != 4 {
		t.Fatalf("%v, %+v", err, res)
	}
	if res, err = w.run(w.Vault); err != nil || res.Deleted != 10 {
		t.Fatalf("%v, %+v", err, res)
	}
	w.Check()
}
