package catalogtest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
)

func testMadeVaults(t *testing.T, target Target) {
	d := openDB(t, target)
	a := catalog.MadeVault{Vault: "dir:/tm-2026-01", Template: "dir:/tm-{year}-{month}", Made: epoch()}
	b := catalog.MadeVault{Vault: "dir:/tm-2026-02", Template: a.Template, Made: epoch().Add(time.Hour)}
	d.ok(d.PutMadeVault(d.ctx, b))
	d.ok(d.PutMadeVault(d.ctx, a))
	a.Ended = epoch().Add(2 * time.Hour)
	d.ok(d.PutMadeVault(d.ctx, a))
	list, err := d.MadeVaults(d.ctx)
	d.ok(err)
	if diff := cmp.Diff([]catalog.MadeVault{a, b}, list); diff != "" {
		t.Error(diff)
	}
	d.ok(d.DropMadeVault(d.ctx, a.Vault))
	d.ok(d.DropMadeVault(d.ctx, a.Vault))
	if list, err = d.MadeVaults(d.ctx); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
	d.set("A")
	use := func(want bool) {
		t.Helper()
		s, err := d.Snapshots(d.ctx, "A")
		d.ok(err)
		vault := "dir:/unused"
		if len(s) > 0 {
			vault = s[0].Vault
		}
		if used, err := d.VaultInUse(d.ctx, vault); err != nil || used != want {
			t.Errorf("vault %q in use: %t, %v", vault, used, err)
		}
	}
	use(false)
	d.begin("A", "a1", 1, "")
	use(true)
}
