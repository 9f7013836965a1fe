package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

// ItemUpload is an upload of an item under way.
type ItemUpload struct {
	Item     Item // what is recorded once it is stored; Path is empty for a run's index
	UploadID string
	Name     string // of the archive, where names are kept
	PartSize int64
	Begun    time.Time
	// Size and TreeHash are set when all parts are there, before the upload is completed: the archive may exist then.
	Size     int64
	TreeHash treehash.Hash
	// Of an index: the run as it is to be recorded, and its number and id.
	Run   *ItemRun
	RunN  uint64
	RunID string
}

type itemUploadJSON struct {
	ItemUpload
	ArchiveName []byte `json:",omitempty"`
	ItemPath    []byte `json:",omitempty"`
	ItemName    []byte `json:",omitempty"`
	ItemVault   []byte `json:",omitempty"`
}

// PutItemUpload records an upload, or what has changed of it, by set and path. It is durable.
func (d *DB) PutItemUpload(ctx context.Context, u ItemUpload) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		text, err := json.Marshal(itemUploadJSON{u, []byte(u.Name), []byte(u.Item.Path), []byte(u.Item.Name), []byte(u.Item.Vault)})
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO item_uploads (set_id, path, item) VALUES ($1, $2, $3)
			ON CONFLICT (set_id, path) DO UPDATE SET item = excluded.item`, u.Item.SetID, slashToNul([]byte(u.Item.Path)), text)
		return err
	})
	return d.fail("record upload of item "+u.Item.Path, err)
}

// ItemUploads lists a set's uploads under way, by path.
func (d *DB) ItemUploads(ctx context.Context, setID string) ([]ItemUpload, error) {
	var list []ItemUpload
	err := each(ctx, d.b.Read, func(s scanner) error {
		var text []byte
		if err := s.Scan(&text); err != nil {
			return err
		}
		var u itemUploadJSON
		if err := json.Unmarshal(text, &u); err != nil {
			return failure.Wrap(failure.Damaged, err)
		}
		u.Name, u.Item.Path, u.Item.Name, u.Item.Vault = string(u.ArchiveName), string(u.ItemPath), string(u.ItemName), string(u.ItemVault)
		list = append(list, u.ItemUpload)
		return nil
	}, `SELECT item FROM item_uploads WHERE set_id = $1 ORDER BY path`, setID)
	return list, d.fail("list uploads of items", err)
}

// DropItemUpload forgets an upload. Forgetting what is not there succeeds.
func (d *DB) DropItemUpload(ctx context.Context, setID, path string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM item_uploads WHERE set_id = $1 AND path = $2`, setID, slashToNul([]byte(path)))
		return err
	})
	return d.fail("forget upload of item "+path, err)
}

// ItemRun is a run of a set of single archives that changed something.
type ItemRun struct {
	SetID string `json:"-"`
	N     uint64 `json:"-"`
	ID    string `json:"-"`
	Vault string `json:"-"`
	At    time.Time

	Items   int64 // current after it
	Bytes   int64 // of those, before the codecs
	New     int64 // versions stored
	Gone    int64
	Sent    int64 // bytes stored
	Problem int64

	// Of the archive that tells of the run's items where their own descriptions do not; empty: there is none.
	Index     ArchiveRef
	IndexName string
	IndexFrom uint64 // it tells of all that the runs from this one on did; 0: of all that is there
	IndexGone bool   // it was deleted, a later one telling the same
}

// PutItemRun records a run, or what has changed of it, by set and number. It is durable.
func (d *DB) PutItemRun(ctx context.Context, r ItemRun) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error { return putItemRun(ctx, tx, &r) })
	return d.fail(fmt.Sprintf("record run %d of set %s", r.N, r.SetID), err)
}

func putItemRun(ctx context.Context, tx *sql.Tx, r *ItemRun) error {
	n, err := number(r.N)
	if err != nil {
		return err
	}
	if r.SetID == "" || n == 0 || r.ID == "" {
		return failure.Errorf(failure.Usage, "a run needs a set, a number and an id")
	}
	at, err := timeText(r.At)
	if err != nil {
		return err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	index := r.Index.Archive
	if r.IndexGone {
		index = ""
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO item_runs (set_id, n, id, vault, at, listing, run) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (set_id, n) DO UPDATE SET id = excluded.id, vault = excluded.vault, at = excluded.at, listing = excluded.listing, run = excluded.run`,
		r.SetID, n, r.ID, blob(r.Vault), at, blob(index), text)
	return err
}

// ItemsListed records a run's index as stored: the versions of its runs are told of by it. It is durable.
func (d *DB) ItemsListed(ctx context.Context, r ItemRun, desc string, at time.Time) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		if err := putItemRun(ctx, tx, &r); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `UPDATE items SET listed = $3 WHERE set_id = $1 AND n <= $3 AND (n >= $2 OR listed = 0)`, r.SetID, int64(r.IndexFrom), int64(r.N)); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM item_uploads WHERE set_id = $1 AND path = $2`, r.SetID, []byte{}); err != nil {
			return err
		}
		return putUploaded(ctx, tx, r.Vault, r.Index, "", desc, at)
	})
	return d.fail("record the index of set "+r.SetID, err)
}

// ItemRuns lists the runs of a set by number.
func (d *DB) ItemRuns(ctx context.Context, setID string) ([]ItemRun, error) {
	var list []ItemRun
	err := each(ctx, d.b.Read, func(s scanner) error {
		var r, more ItemRun
		var text []byte
		if err := s.Scan(&r.SetID, &r.N, &r.ID, &r.Vault, timeColumn{&r.At}, &text); err != nil {
			return err
		}
		if err := json.Unmarshal(text, &more); err != nil {
			return failure.Wrap(failure.Damaged, err)
		}
		more.SetID, more.N, more.ID, more.Vault, more.At = r.SetID, r.N, r.ID, r.Vault, r.At
		list = append(list, more)
		return nil
	}, `SELECT set_id, n, id, vault, at, run FROM item_runs WHERE set_id = $1 ORDER BY n`, setID)
	return list, d.fail("list runs of items", err)
}

// ItemRunByID finds a run by its id. failure.NotFound.
func (d *DB) ItemRunByID(ctx context.Context, id string) (ItemRun, error) {
	var set string
	err := d.b.Read.QueryRowContext(ctx, `SELECT set_id FROM item_runs WHERE id = $1`, id).Scan(&set)
	if errors.Is(err, sql.ErrNoRows) {
		return ItemRun{}, failure.Errorf(failure.NotFound, "catalog: no run %s", id)
	}
	if err != nil {
		return ItemRun{}, d.fail("find run "+id, err)
	}
	list, err := d.ItemRuns(ctx, set)
	for _, r := range list {
		if r.ID == id {
			return r, nil
		}
	}
	return ItemRun{}, err
}

// removeItems forgets a set's items within a transaction.
