package catalogtest

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

func testFileUploads(t *testing.T, target Target) {
	d := openDB(t, target)
	u := catalog.FileUpload{
		Vault: "dir:/v", UploadID: "u1", Path: "/home/me/f\xff.iso", Size: 1 << 40, MTime: epoch(), PartSize: 128 << 20,
		Name: "f\xff.iso", Description: "f", Begun: epoch().Add(time.Hour),
	}
	other := u
	other.UploadID, other.Path, other.Begun = "u0", "/other", epoch()
	elsewhere := u
	elsewhere.Vault = "dir:/w"
	for _, x := range []catalog.FileUpload{u, other, elsewhere} {
		d.ok(d.PutFileUpload(d.ctx, x))
	}
	list := func(path string, want ...catalog.FileUpload) {
		t.Helper()
		got, err := d.FileUploads(d.ctx, u.Vault, path)
		d.ok(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("uploads of %q: %s", path, diff)
		}
	}
	list(u.Path, u)
	list("", other, u)
	list("/nothing")
	u.TreeHash = treehash.Sum([]byte("x"))
	d.ok(d.PutFileUpload(d.ctx, u))
	list(u.Path, u)
	d.ok(d.DropFileUpload(d.ctx, u.Vault, u.UploadID))
	d.ok(d.DropFileUpload(d.ctx, u.Vault, u.UploadID))
	list("", other)
	d.kind(failure.Usage, d.PutFileUpload(d.ctx, catalog.FileUpload{Vault: "v", Path: "/p"}))
}
