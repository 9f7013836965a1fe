package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// Item is one version of one item of a set of single archives (kinds items and mirror).
type Item struct {
	SetID string
	Path  string // relative to the set's directory, bytes
	N     uint64 // of the run that stored it
	Until uint64 // of the run that replaced it or found it gone; 0: it is the current version

	Vault    string     // URL
	Archive  ArchiveRef // empty: it is an empty file, or in Snapshot
	Snapshot string     // id of the snapshot that an item in Firn's format is; empty: it is a single archive
	Stored   time.Time
	Deleted  time.Time // of its archive here; zero: it was not
	Listed   uint64    // number of the run whose index in the vault tells of it; 0: none does

	Plain     int64         // bytes before compression and encryption
	PlainHash treehash.Hash // tree hash of those
	// State is a hash of the metadata at which the item was found unchanged last. Zero: it is to be read again.
	State [32]byte

	ItemMore
}

// ItemMore is what of an item is not asked for by itself.
type ItemMore struct {
	Dir      bool   `json:"dir,omitempty"`  // a directory, as tar
	Self     bool   `json:"self,omitempty"` // the archive's description tells all that is needed to find it again
	Name     string `json:"-"`              // what its archive is called
	Desc     string `json:"desc,omitempty"` // the archive's description
	Compress string `json:"compress,omitempty"`
	Encrypt  string `json:"encrypt,omitempty"`

	Mode  uint32        `json:"mode,omitempty"`
	UID   uint32        `json:"uid,omitempty"`
	GID   uint32        `json:"gid,omitempty"`
	User  string        `json:"user,omitempty"`
	Group string        `json:"group,omitempty"`
	MTime snapshot.Time `json:"mtime"`
	// Bare says that nothing is known of the file but its name and time.
	Bare bool `json:"bare,omitempty"`
	// Dated says that not even a hash of the contents is known, as of what another program stored: it has changed if
	// something in it is younger than Stored.
	Dated bool `json:"dated,omitempty"`

	Files   int64  `json:"files,omitempty"`   // in a directory
	Bytes   int64  `json:"bytes,omitempty"`   // of those
	Shape   []byte `json:"shape,omitempty"`   // hash of names, types, sizes and permissions of what is in a directory
	Content []byte `json:"content,omitempty"` // hash of Shape and the contents
	Torn    bool   `json:"torn,omitempty"`    // something changed while it was read
	Mounted bool   `json:"mounted,omitempty"` // it lay on another file system than the set's directory
	Mount   string `json:"mount,omitempty"`   // the directory where that was mounted, relative to the set's; empty: not known
}

// Size is how many bytes it has before the codecs, as lists show it: of a directory, those of the files.
func (i *Item) Size() int64 {
	if i.Dir {
		return i.Bytes
	}
	return i.Plain
}

// moreJSON is ItemMore with its names as bytes.
type moreJSON struct {
	ItemMore
	NameBytes []byte `json:"name,omitempty"`
}

func packItem(m *ItemMore) ([]byte, error) { return json.Marshal(moreJSON{*m, []byte(m.Name)}) }

func unpackItem(b []byte) (ItemMore, error) {
	var m moreJSON
	err := json.Unmarshal(b, &m)
	m.Name = string(m.NameBytes)
	return m.ItemMore, err
}

// Size and tree hash of an archive that another program stored may be known by a listing only.
const itemColumns = `set_id, path, n, COALESCE(until, 0), vault, archive, snapshot,
	CASE WHEN size > 0 THEN size ELSE COALESCE((SELECT a.size FROM archives a WHERE a.vault = items.vault AND a.archive = items.archive), 0) END,
	CASE WHEN size > 0 THEN tree_hash ELSE COALESCE((SELECT a.tree_hash FROM archives a WHERE a.vault = items.vault AND a.archive = items.archive), tree_hash) END, stored, deleted, listed, plain, plain_hash, state, more`

func scanItem(s scanner) (Item, error) {
	var i Item
	var path, more []byte
	err := s.Scan(&i.SetID, &path, &i.N, &i.Until, &i.Vault, &i.Archive.Archive, &i.Snapshot, &i.Archive.Size, hashColumn{&i.Archive.TreeHash},
		timeColumn{&i.Stored}, timeColumn{&i.Deleted}, &i.Listed, &i.Plain, hashColumn{(*[32]byte)(&i.PlainHash)}, hashColumn{&i.State}, &more)
	if err != nil {
		return i, err
	}
	i.Path = keyPath(path)
	if i.ItemMore, err = unpackItem(more); err != nil {
		return i, failure.Wrap(failure.Damaged, fmt.Errorf("item %s: %w", i.Path, err))
	}
	return i, nil
}

// ItemStored records an item's version as stored, and as the current one: what was current until now ends with its
// run. The upload of that path is forgotten, and the archive is among the archives of its vault. It is durable; doing it again succeeds.
func (d *DB) ItemStored(ctx context.Context, i Item) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		if err := putItem(ctx, tx, &i); err != nil {
			return err
		}
		key, err := pathKey(i.Path)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM item_uploads WHERE set_id = $1 AND path = $2`, i.SetID, key)
		if err != nil || i.Archive.Archive == "" {
			return err
		}
		return putUploaded(ctx, tx, i.Vault, i.Archive, i.Name, i.Desc, i.Stored)
	})
	return d.fail("record item "+i.Path, err)
}

// PutItems records versions as they are, in one transaction; those of the same run are replaced.
func (d *DB) PutItems(ctx context.Context, list []Item) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		for k := range list {
			if err := putItem(ctx, tx, &list[k]); err != nil {
				return fmt.Errorf("%s: %w", list[k].Path, err)
			}
		}
		return nil
	})
	return d.fail("record items", err)
}

func putItem(ctx context.Context, tx *sql.Tx, i *Item) error {
	n, err := number(i.N)
	if err != nil {
		return err
	}
	if i.SetID == "" || i.Vault == "" || n == 0 {
		return failure.Errorf(failure.Usage, "an item needs a set, a vault and a run")
	}
	key, err := pathKey(i.Path)
	if err != nil {
		return err
	}
	stored, err := timeText(i.Stored)
	if err != nil {
		return err
	}
	deleted, err := timeText(i.Deleted)
	if err != nil {
		return err
	}
	more, err := packItem(&i.ItemMore)
	if err != nil {
		return err
	}
	var until any
	if i.Until != 0 {
		if until, err = number(i.Until); err != nil {
			return err
		}
	} else if _, err := tx.ExecContext(ctx, `UPDATE items SET until = $3 WHERE set_id = $1 AND path = $2 AND until IS NULL AND n <> $3`, i.SetID, key, n); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO items (set_id, path, n, until, vault, archive, snapshot, size, tree_hash, stored, deleted, listed, plain, plain_hash, state, more)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
		ON CONFLICT (set_id, path, n) DO UPDATE SET until = excluded.until, vault = excluded.vault, archive = excluded.archive,
		snapshot = excluded.snapshot, size = excluded.size, tree_hash = excluded.tree_hash, stored = excluded.stored, deleted = excluded.deleted,
		listed = excluded.listed, plain = excluded.plain, plain_hash = excluded.plain_hash, state = excluded.state, more = excluded.more`,
		i.SetID, key, n, until, blob(i.Vault), blob(i.Archive.Archive), i.Snapshot, i.Archive.Size, i.Archive.TreeHash[:], stored, deleted,
		int64(i.Listed), i.Plain, i.PlainHash[:], i.State[:], more)
	return err
}

// putUploaded records an archive that was uploaded, within a transaction.
func putUploaded(ctx context.Context, tx *sql.Tx, vault string, a ArchiveRef, name, desc string, at time.Time) error {
	r := ArchiveRecord{Vault: vault, Name: name, UploadedAt: at, Archive: coldstore.Archive{ID: a.Archive, Description: desc, Size: a.Size, TreeHash: a.TreeHash, Created: at}}
	created, seen, uploaded, deleted, err := archiveTimes(&r)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, insertArchive+`UPDATE SET name = excluded.name, description = excluded.description,
		size = excluded.size, tree_hash = excluded.tree_hash, uploaded = excluded.uploaded, deleted = excluded.deleted`,
		blob(vault), blob(r.ID), blob(name), blob(desc), r.Size, r.TreeHash[:], created, seen, uploaded, deleted)
	return err
}

// ItemQuery selects versions of items.
type ItemQuery struct {
	At    uint64   // those that were current after the run of that number; 0: now
	All   bool     // all versions, whatever At says
	Ended bool     // only those that are not current any more and whose archives are still there, whatever At says
	Under []string // these paths and all below them; empty: everything
}

// Items calls fn for versions of a set's items, by path and number. fn may use and change the catalog: what it changes
// may or may not be met later in the same call. It stops at fn's first error. Bounded memory for any number of items.
func (d *DB) Items(ctx context.Context, setID string, q ItemQuery, fn func(Item) error) error {
	ranges, err := spans(q.Under)
	if err != nil {
		return d.fail("read items", err)
	}
	at, err := number(q.At)
	if err != nil {
		return d.fail("read items", err)
	}
	where := `until IS NULL`
	switch {
	case q.Ended:
		where = `until IS NOT NULL AND deleted = ''`
	case q.All:
		where = `1 = 1`
	case at > 0:
		where = `n <= $6 AND (until IS NULL OR until > $6)`
	}
	for _, r := range ranges {
		key, n := r.lo, int64(0)
		for {
			args := []any{setID, key, n, r.hi, d.b.PageRows}
			if at > 0 && !q.Ended && !q.All {
				args = append(args, at)
			}
			var page []Item
			err := each(ctx, d.b.Read, func(s scanner) error {
				i, err := scanItem(s)
				page = append(page, i)
				return err
			}, `SELECT `+itemColumns+` FROM items WHERE set_id = $1 AND path >= $2 AND (path > $2 OR n > $3) AND ($4 IS NULL OR path < $4) AND `+where+
				` ORDER BY set_id, path, n LIMIT $5`, args...)
			if err != nil {
				return d.fail("read items", err)
			}
			for _, i := range page {
				if err := fn(i); err != nil {
					return err
				}
			}
			if len(page) < d.b.PageRows {
				break
			}
			last := page[len(page)-1]
			if key, err = pathKey(last.Path); err != nil {
				return d.fail("read items", err)
			}
			n = int64(last.N)
		}
	}
	return nil
}

// CurrentItem is the current version of an item. failure.NotFound: there is none.
func (d *DB) CurrentItem(ctx context.Context, setID, path string) (Item, error) {
	key, err := pathKey(path)
	if err != nil {
		return Item{}, d.fail("find item", err)
	}
	i, err := scanItem(d.b.Read.QueryRowContext(ctx, `SELECT `+itemColumns+` FROM items WHERE set_id = $1 AND path = $2 AND until IS NULL`, setID, key))
	return i, d.fail("find item", notFound(err, "item %s", path))
}

// ItemsSeen updates what is known of versions whose contents have not changed: State and ItemMore. It is not
// durable by itself: losing it costs reading them again.
func (d *DB) ItemsSeen(ctx context.Context, list []Item) error {
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		for k := range list {
			i := &list[k]
			key, err := pathKey(i.Path)
			if err != nil {
				return err
			}
			more, err := packItem(&i.ItemMore)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE items SET state = $4, more = $5 WHERE set_id = $1 AND path = $2 AND n = $3`,
				i.SetID, key, int64(i.N), i.State[:], more); err != nil {
				return err
			}
		}
		return nil
	})
	return d.fail("record items", err)
}

// ItemsGone ends the current versions of paths with run n: they are not there any more. It is durable.
func (d *DB) ItemsGone(ctx context.Context, setID string, n uint64, paths []string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		at, err := number(n)
		if err != nil {
			return err
		}
		for _, p := range paths {
			key, err := pathKey(p)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, `UPDATE items SET until = $3 WHERE set_id = $1 AND path = $2 AND until IS NULL`, setID, key, at); err != nil {
				return err
			}
		}
		return nil
	})
	return d.fail("record items as gone", err)
}

// ItemDeleted records that the archive of a version was deleted. It is durable.
func (d *DB) ItemDeleted(ctx context.Context, i Item, at time.Time) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		key, err := pathKey(i.Path)
		if err != nil {
			return err
		}
		text, err := timeText(at)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE items SET deleted = $4 WHERE set_id = $1 AND path = $2 AND n = $3`, i.SetID, key, int64(i.N), text); err != nil {
			return err
		}
		if i.Archive.Archive == "" {
			return nil
		}
		_, err = tx.ExecContext(ctx, insertArchive+`UPDATE SET deleted = excluded.deleted`,
			blob(i.Vault), blob(i.Archive.Archive), []byte{}, []byte{}, 0, make([]byte, 32), "", "", "", text)
		return err
	})
	return d.fail("record the archive of item "+i.Path+" as deleted", err)
}

// ItemArchives calls fn for every version whose archive is still in a vault, of the sets named, or of all
// where none is. It stops at fn's first error. fn may use the catalog.
func (d *DB) ItemArchives(ctx context.Context, vault string, sets []string, fn func(Item) error) error {
	all, err := d.Sets(ctx)
	if err != nil {
		return err
	}
	for _, s := range all {
		wanted := len(sets) == 0
		for _, id := range sets {
			wanted = wanted || id == s.ID
		}
		if !wanted {
			continue
		}
		err := d.Items(ctx, s.ID, ItemQuery{All: true}, func(i Item) error {
			if i.Vault != vault || i.Archive.Archive == "" || !i.Deleted.IsZero() {
				return nil
			}
			return fn(i)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func removeItems(ctx context.Context, tx *sql.Tx, setID string) error {
	for _, table := range []string{`items`, `item_uploads`, `item_runs`} {
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE set_id = $1`, setID); err != nil {
			return err
		}
	}
	return nil
}

// ItemsUntold is how many versions of a set's items no description and no index in the vault tells of.
func (d *DB) ItemsUntold(ctx context.Context, setID string) (int64, error) {
	var n int64
	err := d.b.Read.QueryRowContext(ctx, `SELECT COUNT(*) FROM items WHERE set_id = $1 AND listed = 0 AND snapshot = '' AND deleted = ''`, setID).Scan(&n)
	return n, d.fail("count items", err)
}

// ForgetItems forgets all versions of a set's items in a vault, and its runs there: their archives are no more. What is known of the
// archives themselves stays. It is durable.
func (d *DB) ForgetItems(ctx context.Context, setID, vault string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		for _, table := range []string{`items`, `item_runs`} {
			if _, err := tx.ExecContext(ctx, `DELETE FROM `+table+` WHERE set_id = $1 AND vault = $2`, setID, blob(vault)); err != nil {
				return err
			}
		}
		return nil
	})
	return d.fail("forget items of set "+setID, err)
}

// itemLost records that the archive of an item, or an index, is no more, whoever deleted it: a current version of which that is known
// is stored again, and what a lost index told of is told of by the next.
func itemLost(ctx context.Context, tx *sql.Tx, vault, archive, at string) error {
	_, err := tx.ExecContext(ctx, `UPDATE items SET deleted = $3 WHERE vault = $1 AND archive = $2 AND deleted = ''`, blob(vault), blob(archive), at)
	if err == nil {
		_, err = tx.ExecContext(ctx, `UPDATE item_runs SET listing = $3 WHERE vault = $1 AND listing = $2`, blob(vault), blob(archive), []byte{})
	}
	return err
}

// ItemsUnlisted records that the index of run n is no more: nothing in the vault tells of what it told of. It is durable.
func (d *DB) ItemsUnlisted(ctx context.Context, r ItemRun) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		r.IndexGone = true
		if err := putItemRun(ctx, tx, &r); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `UPDATE items SET listed = 0 WHERE set_id = $1 AND listed = $2 AND snapshot = ''`, r.SetID, int64(r.N))
		return err
	})
	return d.fail("record the index of set "+r.SetID+" as gone", err)
}
