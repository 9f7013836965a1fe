package sqlite

import (
	"context"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
)

func TestVersionIsTheNewestMigration(t *testing.T) {
	t.Parallel()
	list, err := fs.ReadDir(migrations, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	last := list[len(list)-1].Name()
	n, err := strconv.Atoi(strings.SplitN(last, "_", 2)[0])
	if err != nil || n != version || len(list) != version {
		t.Errorf("version is %d, the newest of %d migrations %s", version, len(list), last)
	}
	for i, m := range list {
		b, err := fs.ReadFile(migrations, "migrations/"+m.Name())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), "PRAGMA user_version = "+strconv.Itoa(i+1)+";") {
			t.Errorf("%s does not name itself", m.Name())
		}
	}
}

// TestMigrateAgain: migrating what is migrated changes nothing.
func TestMigrateAgain(t *testing.T) {
	t.Parallel()
	b, err := backend(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := catalog.New(b)
	defer d.Close()
	schema := func() string {
		var s string
		if err := b.Read.QueryRow(`SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_schema ORDER BY name)`).Scan(&s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := schema()
	if err := migrate(t.Context(), b.Write); err != nil {
		t.Fatal(err)
	}
	if before != schema() {
		t.Error("the tables changed")
	}
}

// TestWhatIsDurable: each step of the journal asks for its commit to be on the disk, and batches of entries
// do not. Here one of the two ways to commit does not work.
func TestWhatIsDurable(t *testing.T) {
	t.Parallel()
	b, err := backend(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := catalog.New(b)
	defer d.Close()
	b.NoFsync = "nonsense"
	onlyDurable := catalog.New(b)
	b.NoFsync, b.Fsync = "PRAGMA synchronous = NORMAL", "nonsense"
	onlyLazy := catalog.New(b)
	ctx := t.Context()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(onlyDurable.PutSet(ctx, catalog.Set{ID: "A", Name: "A"}))
	ok(onlyDurable.Begin(ctx, catalog.Snapshot{ID: "a1", SetID: "A", N: 1, Kind: snapshot.Full}))
	put := func(d *catalog.DB, path string) *catalog.EntryWriter {
		w, err := d.EntryWriter(ctx, "a1")
		ok(err)
		ok(w.Put(ctx, &snapshot.Entry{Path: path, Type: snapshot.File}))
		return w
	}
	ok(put(onlyLazy, "x").Flush(ctx))
	if put(onlyDurable, "y").Flush(ctx) == nil {
		t.Error("a batch of entries is fsynced")
	}
	p := catalog.Pending{Snap: "a1", Volume: manifest.Volume{N: 1}}
	if put(onlyLazy, "z").PutPending(ctx, p) == nil {
		t.Error("a pending upload is not fsynced")
	}
	ok(put(onlyDurable, "z").PutPending(ctx, p))
	for what, step := range map[string]func(*catalog.DB) error{
		"1 VolumeStored": func(d *catalog.DB) error { return d.VolumeStored(ctx, "a1", 1, "x") },
		"2 Rewind":       func(d *catalog.DB) error { return d.Rewind(ctx, "a1") },
		"3 FinishStored": func(d *catalog.DB) error {
			return d.FinishStored(ctx, "a1", manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{})
		},
		"4 PutRetrieval": func(d *catalog.DB) error { return d.PutRetrieval(ctx, catalog.SavedRetrieval{}) },
	} {
		if step(onlyLazy) == nil {
			t.Errorf("%s is not fsynced", what)
		}
	}
	ok(onlyDurable.VolumeStored(ctx, "a1", 1, "x"))
	ok(onlyDurable.Rewind(ctx, "a1"))
	ok(onlyDurable.FinishStored(ctx, "a1", manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{}))
}

// TestNothingIsLeft: what nobody sees any more is also gone from the tables, and what a killed
// process left to be swept is swept by the next attempt.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	b, err := backend(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := catalog.New(b)
	defer d.Close()
	ctx := t.Context()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := func(id string, n uint64, base string, stored bool) {
		t.Helper()
		s := catalog.Snapshot{ID: id, SetID: "A", N: n, Kind: snapshot.Full, Base: base}
		if base != "" {
			s.Kind = snapshot.Incremental
		}
		ok(d.Begin(ctx, s))
		w, err := d.EntryWriter(ctx, id)
		ok(err)
		for i := range 100 {
			ok(w.Put(ctx, &snapshot.Entry{Path: strconv.Itoa(i), Type: snapshot.File}))
		}
		ok(w.Problem(ctx, snapshot.Problem{Path: "x"}))
		ok(w.PutPending(ctx, catalog.Pending{Snap: id, Volume: manifest.Volume{N: 1}}))
		ok(d.VolumeStored(ctx, id, 1, "x"))
		ok(w.PutPending(ctx, catalog.Pending{Snap: id, Volume: manifest.Volume{N: 2}}))
		if stored {
			ok(d.FinishStored(ctx, id, manifest.Hash{}, catalog.ArchiveRef{}, catalog.Totals{}))
		}
	}
	empty := func(when string) {
		t.Helper()
		for _, table := range []string{"entries", "changes", "problems", "volumes", "pending", "garbage", "snapshots"} {
			var n int
			ok(b.Read.QueryRow(`SELECT COUNT(*) FROM ` + table).Scan(&n))
			if n != 0 {
				t.Errorf("after %s, %s has %d rows", when, table, n)
			}
		}
	}
	ok(d.PutSet(ctx, catalog.Set{ID: "A", Name: "A"}))
	begin("a1", 1, "", true)
	begin("a2", 2, "a1", false)
	_, err = d.Discard(ctx, "a2")
	ok(err)
	begin("a2", 2, "a1", true)
	ok(d.DropSnapshot(ctx, "a2"))
	ok(d.DropSnapshot(ctx, "a1"))
	empty("dropping")
	begin("a1", 1, "", false)
	_, err = d.Discard(ctx, "a1")
	ok(err)
	empty("discarding")
	begin("a1", 1, "", true)
	begin("a2", 2, "a1", false)
	ok(d.RemoveSet(ctx, "A"))
	empty("removing the set")

	_, err = b.Write.Exec(`INSERT INTO entries (chain, path, n, stat) VALUES (77, 'x', 1, 'y')`)
	ok(err)
	_, err = b.Write.Exec(`INSERT INTO garbage (chain) VALUES (77)`)
	ok(err)
	ok(d.PutSet(ctx, catalog.Set{ID: "A", Name: "A"}))
	ok(d.Begin(ctx, catalog.Snapshot{ID: "a9", SetID: "A", N: 9, Kind: snapshot.Full}))
	_, err = d.Discard(ctx, "a9")
	ok(err)
	empty("beginning")
}

// TestPlans: the queries over entries find their way by the keys, and only ByContent sorts.
func TestPlans(t *testing.T) {
	t.Parallel()
	b, err := backend(t.Context(), filepath.Join(t.TempDir(), "catalog.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := catalog.New(b)
	defer d.Close()
	const valid = `e.chain = 1 AND e.n <= 2 AND (e.until IS NULL OR e.until > 2)`
	for query, want := range map[string]string{
		`SELECT e.stat FROM entries e WHERE ` + valid + ` AND e.path >= 'a' AND e.path < 'b' ORDER BY e.path, e.n LIMIT 9`:                    `SEARCH e USING PRIMARY KEY (chain=? AND path>? AND path<?)`,
		`SELECT e.stat FROM entries e WHERE ` + valid + ` AND e.path >= 'a' AND e.path < 'b' ORDER BY e.path DESC, e.n DESC LIMIT 9`:          `SEARCH e USING PRIMARY KEY (chain=? AND path>? AND path<?)`,
		`SELECT e.stat FROM entries e WHERE e.chain = 1 AND e.n <= 2 AND (e.path, e.n) > ('a', 3) ORDER BY e.path, e.n LIMIT 9`:               `SEARCH e USING PRIMARY KEY (chain=? AND (path,n)>(?,?))`,
		`UPDATE entries SET until = 2 WHERE chain = 1 AND n < 2 AND until IS NULL AND path IN ('a', 'b')`:                                     `SEARCH entries USING PRIMARY KEY (chain=? AND path=? AND n<?)`,
		`SELECT e.stat FROM entries e WHERE +e.chain = 1 AND e.n = 2 AND e.grp = 'g' ORDER BY e.path LIMIT 1`:                                 `SEARCH e USING INDEX entries_links (grp=?)`,
		`DELETE FROM entries WHERE chain = 1 AND n = 2 AND path IN (SELECT path FROM changes WHERE snap = 3 AND path >= 'a')`:                 `SEARCH entries USING PRIMARY KEY (chain=? AND path=? AND n=?); LIST SUBQUERY 1; SEARCH changes USING PRIMARY KEY (snap=? AND path>?)`,
		`UPDATE entries SET until = NULL WHERE chain = 1 AND until = 2 AND path IN (SELECT path FROM changes WHERE snap = 3 AND path >= 'a')`: `SEARCH entries USING PRIMARY KEY (chain=? AND path=?); LIST SUBQUERY 1; SEARCH changes USING PRIMARY KEY (snap=? AND path>?)`,
		`SELECT e.stat FROM changes c CROSS JOIN entries e WHERE ` + valid + ` AND e.path >= c.path AND e.path < c.path`:                      `SCAN c; SEARCH e USING PRIMARY KEY (chain=? AND path>? AND path<?)`,
		`SELECT c.path, e.path FROM changes c LEFT JOIN entries e ON e.chain = 1 AND e.path = c.path AND e.n = 2
			WHERE c.snap = 3 AND c.path >= 'a' ORDER BY c.path LIMIT 9`: `SEARCH c USING PRIMARY KEY (snap=? AND path>?); SEARCH e USING PRIMARY KEY (chain=? AND path=? AND n=?) LEFT-JOIN`,
	} {
		if got := plan(t.Context(), t, b, query); got != want {
			t.Errorf("%s\n\tis done by %s\n\twant       %s", query, got, want)
		}
	}
}

func plan(ctx context.Context, t *testing.T, b catalog.Backend, query string) string {
	t.Helper()
	rows, err := b.Read.QueryContext(ctx, `EXPLAIN QUERY PLAN `+query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var steps []string
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	return strings.Join(steps, "; ")
}
