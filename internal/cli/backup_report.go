package cli

import (
	"fmt"
	"strings"

	"github.com/firn-backup/firn/internal/app"
	"github.com/firn-backup/firn/internal/backup"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/internal/units"
)

// backupSummary is a run's result in one line.
func backupSummary(set string, r backup.Result) string {
	if r.Snapshot.ID == "" || r.Snapshot.Header.IsStream() {
		return streamSummary(set, r)
	}
	t := r.Snapshot.Totals
	text := fmt.Sprintf("%s: %s snapshot %s, %s, %s: %s; stored %s", set, r.Snapshot.Kind, r.Snapshot.ID,
		entries(t.Entries), units.Size(t.Bytes), changesText(r.Counts), units.Size(r.Sent))
	if r.Resumed && len(r.Settled) > 0 {
		text += fmt.Sprintf(" (after an interrupted attempt, completed as snapshot %s, and what has changed since)", r.Settled[len(r.Settled)-1])
	} else if r.Resumed {
		text += " (an interrupted attempt, completed)"
	}
	if r.Problems > 0 {
		text += "; " + plural(r.Problems, "problem")
	}
	return text
}

func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return count(n) + " entries"
}

func changesText(c backup.Counts) string {
	var parts []string
	for _, x := range []struct {
		n    int64
		what string
	}{{c.New, "new"}, {c.Changed, "changed"}, {c.Metadata, "with other metadata"}, {c.Deleted, "deleted"}} {
		if x.n > 0 {
			parts = append(parts, count(x.n)+" "+x.what)
		}
	}
	if len(parts) == 0 {
		return "no changes"
	}
	return strings.Join(parts, ", ")
}

// drySummary is what a run would do.
func drySummary(t app.Target, r backup.Result, full bool) string {
	kind := "a full"
	if r.Snapshot.Kind == snapshot.Incremental {
		kind = "an incremental"
	}
	text := fmt.Sprintf("%s: would make %s snapshot of %s, %s: %s", t.Set.Name, kind,
		entries(r.Snapshot.Totals.Entries), units.Size(r.Snapshot.Totals.Bytes), changesText(r.Counts))
	if r.Resumed {
		text += ", going on with an interrupted attempt"
	}
	if full {
		return text + fmt.Sprintf("; it would send %s in %s", units.Size(r.Sent), plural(int64(r.Volumes), "volume"))
	}
	return text + fmt.Sprintf("; %s to be stored at most, before compression", units.Size(r.Counts.Bytes))
}

// jsonBackup is the data of a backup's summary. docs/reference/json.md.
type jsonBackup struct {
	Set       string   `json:"set"`
	SetID     string   `json:"setid"`
	Vault     string   `json:"vault"`
	Snapshot  string   `json:"snapshot,omitempty"`
	N         uint64   `json:"n"`
	Kind      string   `json:"kind"`
	Base      string   `json:"base,omitempty"`
	At        *string  `json:"at,omitempty"`
	Entries   int64    `json:"entries"`
	Bytes     int64    `json:"bytes"`
	New       int64    `json:"new"`
	Changed   int64    `json:"changed"`
	Metadata  int64    `json:"metadata"`
	Deleted   int64    `json:"deleted"`
	Unchanged int64    `json:"unchanged"`
	NewBytes  int64    `json:"new_bytes"` // logical bytes of new and changed files
	Volumes   int      `json:"volumes"`
	Sent      int64    `json:"sent"`
	Problems  int64    `json:"problems"`
	Resumed   bool     `json:"resumed"`
	Shrunk    bool     `json:"shrunk"`
	Settled   []string `json:"settled,omitempty"`
	Orphans   []string `json:"orphans,omitempty"`
}

func backupJSON(t app.Target, r backup.Result) jsonBackup {
	s, n := r.Snapshot, r.Counts
	return jsonBackup{
		Set: t.Set.Name, SetID: t.Set.ID, Vault: t.Set.Vault, Snapshot: s.ID, N: s.N, Kind: string(s.Kind), Base: s.Base,
		At: stampJSON(s.At), Entries: s.Totals.Entries, Bytes: s.Totals.Bytes,
		New: n.New, Changed: n.Changed, Metadata: n.Metadata, Deleted: n.Deleted, Unchanged: n.Unchanged, NewBytes: n.Bytes,
		Volumes: r.Volumes, Sent: r.Sent, Problems: r.Problems, Resumed: r.Resumed, Shrunk: r.Shrunk,
		Settled: r.Settled, Orphans: r.Orphans,
	}
}
