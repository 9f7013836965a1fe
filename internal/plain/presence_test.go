package plain_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/plain"
)

func hours(h int) time.Time {
	if h == 0 {
		return time.Time{}
	}
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(h) * time.Hour)
}

// rec is a record: uploaded, seen, deleted, in hours; 0: never.
func rec(uploaded, seen, deleted int) catalog.ArchiveRecord {
	r := catalog.ArchiveRecord{UploadedAt: hours(uploaded), SeenAsOf: hours(seen), DeletedAt: hours(deleted)}
	r.Created = r.UploadedAt
	return r
}

func TestPresence(t *testing.T) {
	t.Parallel()
	type list = []catalog.ArchiveRecord
	const now, age = 1000, 60
	for _, c := range []struct {
		what    string
		records list
		asOf    int // of the listing
		through int
		want    plain.Presence
	}{
		{"nothing is known", nil, 0, 0, plain.Unknown},
		{"a young listing", nil, 950, 950, plain.Absent},
		{"an old listing", nil, 930, 930, plain.Unknown},
		{"an old listing of a vault that has not changed", nil, 100, 952, plain.Absent},
		{"uploaded just now", list{rec(990, 0, 0)}, 0, 0, plain.Present},
		{"uploaded after the listing", list{rec(990, 0, 0)}, 980, 980, plain.Present},
		{"uploaded before the listing, which may lag", list{rec(930, 0, 0)}, 990, 990, plain.Unknown},
		{"uploaded long before a listing that has it not", list{rec(100, 0, 0)}, 990, 990, plain.Absent},
		{"listed", list{rec(0, 980, 0)}, 980, 980, plain.Present},
		{"listed long ago", list{rec(0, 300, 0)}, 300, 300, plain.Unknown},
		{"listed long ago, and nothing has changed", list{rec(100, 300, 0)}, 300, 952, plain.Present},
		{"in an earlier listing, not in the last", list{rec(100, 300, 0)}, 990, 990, plain.Absent},
		{"in an earlier listing, not in the last, which is old", list{rec(100, 300, 0)}, 800, 800, plain.Unknown},
		{"deleted just now", list{rec(100, 300, 999)}, 300, 300, plain.Absent},
		{"deleted long ago", list{rec(100, 300, 400)}, 300, 300, plain.Unknown},
		{"one deleted, another there", list{rec(100, 300, 999), rec(990, 0, 0)}, 300, 300, plain.Present},
		{"one deleted, another not known any more", list{rec(100, 300, 999), rec(100, 300, 0)}, 300, 300, plain.Unknown},
	} {
		k := plain.Knowledge{Records: c.records, Listing: catalog.VaultListing{AsOf: hours(c.asOf), Taken: hours(c.asOf)},
			Through: hours(c.through), Now: hours(now), MaxAge: age * time.Hour}
		if got, _ := k.Judge(); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
		k.MaxAge = 0
		if got, _ := k.Judge(); got != plain.Unknown {
			t.Errorf("%s: %d with nothing young enough", c.what, got)
		}
	}
}

// Absence is never told of what was uploaded here in the last three days and not deleted, nor where nothing young says it.
func TestPresenceProperty(t *testing.T) {
	t.Parallel()
	h := rapid.IntRange(0, 400)
	rapid.Check(t, func(t *rapid.T) {
		var records []catalog.ArchiveRecord
		now := rapid.IntRange(300, 500).Draw(t, "now")
		asOf := h.Draw(t, "as of")
		young := false
		deleted := 0
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			up, seen, del := min(h.Draw(t, "up"), now), min(h.Draw(t, "seen"), asOf), 0
			if rapid.Bool().Draw(t, "is deleted") {
				del = min(h.Draw(t, "deleted"), now)
			}
			records = append(records, rec(up, seen, del))
			young = young || del == 0 && up > now-72 && seen == 0
			deleted = max(deleted, del)
		}
		k := plain.Knowledge{Records: records, Listing: catalog.VaultListing{AsOf: hours(asOf), Taken: hours(min(now, asOf))},
			Through: hours(asOf), Now: hours(now), MaxAge: 60 * time.Hour}
		is, _ := k.Judge()
		if is == plain.Absent && young {
			t.Fatalf("uploaded a moment ago, and absent: %+v", k)
		}
		if is == plain.Absent && (asOf == 0 || asOf < now-60) && (deleted == 0 || deleted < now-60) {
			t.Fatalf("absent, and nobody says so: %+v", k)
		}
	})
}
