package adopted_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/adopted"
	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/snapshot"
)

func row(id, date, parent string) adopted.Row {
	return adopted.Row{Archive: coldstore.Archive{ID: id, Size: 1}, Date: date, Parent: parent}
}

// Golden ids: what was stored builds on them, so that no later version may make others.
func TestIDs(t *testing.T) {
	t.Parallel()
	set := catalog.Set{ID: "01JD9ZK3V7Q4W8X2M5N6P7R8S9", Name: "home", Vault: "dir:/v"}
	list, err := adopted.Chain(set, time.UTC, []adopted.Row{row("b", "2023-01-07", "2023-01-01"), row("a", "2023-01-01", "")})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, x := range list {
		got += fmt.Sprintf("%s %s %q %x %s\n", x.ID, x.Kind, x.Base, x.ManifestHash[:4], x.At.Format(time.RFC3339))
	}
	const want = `01GNNA1J00E2RN38VVWVPNYQEG full "" fe99f3b4 2023-01-01T00:00:00Z
01GP4RDW0058TWW2GNPWMRPAZ6 incremental "01GNNA1J00E2RN38VVWVPNYQEG" 71b0bdb6 2023-01-07T00:00:00Z
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// Whatever a database says, each row is one snapshot, each comes after what it builds on, ids differ, and the order of rows does not matter.
func TestChain(t *testing.T) {
	t.Parallel()
	set := catalog.Set{ID: "01JD9ZK3V7Q4W8X2M5N6P7R8S9", Name: "home", Vault: "dir:/v"}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 20).Draw(t, "n")
		var rows []adopted.Row
		dates := map[string]bool{}
		for i := range n {
			date := fmt.Sprintf("2023-01-%02d", rapid.IntRange(1, 8).Draw(t, "date"))
			parent := ""
			if d := rapid.IntRange(0, 8).Draw(t, "parent"); d > 0 {
				parent = fmt.Sprintf("2023-01-%02d", d)
			}
			dates[date] = true
			rows = append(rows, row(fmt.Sprint("a", i), date, parent))
		}
		list, err := adopted.Chain(set, time.UTC, rows)
		if err != nil {
			t.Fatal(err)
		}
		other, err := adopted.Chain(set, time.FixedZone("x", 3600), rapid.Permutation(rows).Draw(t, "order"))
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != n || len(other) != n {
			t.Fatalf("%d rows became %d and %d snapshots", n, len(list), len(other))
		}
		seen := map[string]bool{}
		ids := map[string]bool{}
		for _, x := range list {
			ids[x.ID] = true
		}
		for i, x := range list {
			y := other[i]
			if x.ID != y.ID || x.Base != y.Base || x.ManifestHash != y.ManifestHash {
				t.Fatalf("another order made another snapshot: %s on %s, %s on %s", x.ID, x.Base, y.ID, y.Base)
			}
			if seen[x.ID] || !snapshot.ValidID(x.ID) {
				t.Fatalf("id %s", x.ID)
			}
			if x.Base != "" && ids[x.Base] && !seen[x.Base] {
				t.Fatalf("%s comes before its base", x.ID)
			}
			if (x.Kind == snapshot.Full) != (x.Base == "") {
				t.Fatalf("%s is %s on %q", x.ID, x.Kind, x.Base)
			}
			seen[x.ID] = true
		}
	})
}

func TestBadDate(t *testing.T) {
	t.Parallel()
	for _, r := range []adopted.Row{row("a", "2023-02-31", ""), row("a", "", ""), row("a", "2023-01-01", "x"), row("", "2023-01-01", "")} {
		if _, err := adopted.Chain(catalog.Set{ID: "s"}, time.UTC, []adopted.Row{r}); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}
