package adopt

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/failure"
)

// TestInventoryCSV: what Amazon Glacier makes of an inventory that is asked for as CSV, with its own way of quoting; and what was cut off.
func TestInventoryCSV(t *testing.T) {
	const hash = "042d840086c2f7f63a0527763513b9dd1e7e7a7a0c6f7a5d0e1ea0e9a7c4f3b2"
	text := inventoryHeader + "\r\n" +
		"a1,plain,2024-05-06T07:08:09.123Z,7," + hash + "\r\n" +
		`a2,"desc, \"quoted\"; \semi",2024-05-06T07:08:09Z,8,` + hash + "\n" +
		"a3,,2024-05-06T07:08:09Z,9," + hash + "\n"
	file := filepath.Join(t.TempDir(), "inventory.csv")
	read := func(text string) (Found, error) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		o := options()
		o.VaultURL = func(context.Context, Place) (string, error) { return "dir:v", nil }
		return tool(t, "glacier-cmd").Read(context.Background(), []string{file}, o)
	}
	f, err := read(text)
	if err != nil || len(f.Archives) != 3 {
		t.Fatalf("%+v, %v", f, err)
	}
	for i, want := range []string{"plain", `desc, "quoted"; \semi`, ""} {
		if a := f.Archives[i]; a.Description != want || a.Size != int64(7+i) || a.TreeHash.String() != hash || a.Created.Year() != 2024 {
			t.Errorf("%d: %+v", i, a)
		}
	}
	if _, err := read(text[:len(text)-30]); failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), "line 4: it is cut off") {
		t.Errorf("cut off: %v", err)
	}
	if _, err := read(`[{"Archive ID":"x","Size":12},`); failure.KindOf(err) != failure.Damaged || !strings.Contains(err.Error(), "it ends too early") {
		t.Errorf("JSON that was cut off: %v", err)
	}
}
