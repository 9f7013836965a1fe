package plan

import (
	"encoding/csv"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/snapshot"
)

func date(t *testing.T, s string) time.Time {
	t.Helper()
	d, err := time.Parse("2006-01-02", s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func btrsend(t *testing.T) Policy {
	t.Helper()
	p, err := Preset("btrsend")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func records(t *testing.T, file string) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows[1:]
}

// answer is a decision as btrsend's protocol and database have it.
func answer(d Decision) (kind, base string, deleted []string) {
	kind = "none"
	if d.Due {
		kind, base = map[snapshot.Kind]string{snapshot.Full: "c", snapshot.Incremental: "i"}[d.Kind], d.Base
	}
	for _, e := range d.Expire {
		deleted = append(deleted, e.IDs...)
	}
	slices.Sort(deleted)
	return kind, base, deleted
}

// TestBtrsendOracle: three years, day by day, as the original program planned them.
func TestBtrsendOracle(t *testing.T) {
	t.Parallel()
	p := btrsend(t)
	var h []Snapshot
	n := uint64(0)
	rows := records(t, "testdata/btrsend-oracle.csv")
	if len(rows) != 1096 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		day := date(t, row[0])
		d := Decide(day, p, h, Rules{})
		kind, base, deleted := answer(d)
		if kind != row[1] || base != row[2] || strings.Join(deleted, " ") != row[4] {
			t.Errorf("%s: %s %q, deleting %q; want %s %q, deleting %q", row[0], kind, base, deleted, row[1], row[2], row[4])
		}
		for _, e := range d.Expire {
			if e.Early(day) {
				t.Errorf("%s: %s is deleted before its time", row[0], e.Chain)
			}
		}
		if d.Due {
			n++
			h = append(h, Snapshot{ID: row[0], N: n, At: day, Stored: day, Kind: d.Kind, Base: d.Base, Complete: true, MinDays: 90})
		}
		h = slices.DeleteFunc(h, func(s Snapshot) bool { return slices.Contains(deleted, s.ID) })
	}
}

// TestBtrsendVectors: single states. Where Firn deviates, because it never deletes a set's
// newest chain, the vector is named here with what Firn deletes.
func TestBtrsendVectors(t *testing.T) {
	t.Parallel()
	deviations := map[string]string{
		"V15": "", // the only chain
		"V19": "", // the only chain
		"V20": "", // the only chain, which the new snapshot goes on
		"V25": "2023-06-01",
		"V31": "", // two chains: one has the newest full, the other the newest snapshot
		"V32": "", // the only chain
	}
	seen := 0
	for _, row := range records(t, "testdata/btrsend-vectors.csv") {
		var h []Snapshot
		for i, w := range strings.Fields(row[2]) {
			at, base, _ := strings.Cut(w, "<")
			s := Snapshot{ID: at, N: uint64(i + 1), At: date(t, at), Kind: snapshot.Full, Complete: true}
			if base != "-" {
				s.Kind, s.Base = snapshot.Incremental, base
			}
			h = append(h, s)
		}
		kind, base, deleted := answer(Decide(date(t, row[3]), btrsend(t), h, Rules{}))
		want := row[7]
		if only, ok := deviations[row[0]]; ok {
			seen++
			if want == only {
				t.Errorf("%s is no deviation", row[0])
			}
			want = only
		}
		if kind != row[4] || base != row[5] || strings.Join(deleted, " ") != want {
			t.Errorf("%s (%s): %s %q, deleting %q; want %s %q, deleting %q", row[0], row[1], kind, base, deleted, row[4], row[5], want)
		}
	}
	if seen != len(deviations) {
		t.Errorf("%d deviations of %d", seen, len(deviations))
	}
}
