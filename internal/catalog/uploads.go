package catalog

import (
	"context"
	"database/sql"
	"time"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/treehash"
)

// FileUpload is an upload of a single file that was begun here and is not known to have ended.
type FileUpload struct {
	Vault    string // URL, as in the catalog
	UploadID string
	Path     string // of the file, absolute
	Size     int64  // of the file, bytes
	MTime    time.Time
	PartSize int64 // bytes

	Name        string
	Description string
	Begun       time.Time
	// TreeHash is set when all parts are there, before the upload is completed: the archive
	// may exist then. Zero: it does not.
	TreeHash treehash.Hash
}

// PutFileUpload records an upload, or what has changed of it, by vault and id. It is durable.
func (d *DB) PutFileUpload(ctx context.Context, u FileUpload) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		if u.Vault == "" || u.UploadID == "" || u.Path == "" {
			return failure.Errorf(failure.Usage, "an upload needs a vault, an id and a path")
		}
		mtime, err := timeText(u.MTime)
		if err != nil {
			return err
		}
		begun, err := timeText(u.Begun)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO file_uploads
			(vault, upload, path, size, mtime, part_size, name, description, begun, tree_hash)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
			ON CONFLICT (vault, upload) DO UPDATE SET path = excluded.path, size = excluded.size, mtime = excluded.mtime,
			part_size = excluded.part_size, name = excluded.name, description = excluded.description, begun = excluded.begun,
			tree_hash = excluded.tree_hash`,
			blob(u.Vault), blob(u.UploadID), blob(u.Path), u.Size, mtime, u.PartSize, blob(u.Name), blob(u.Description), begun, u.TreeHash[:])
		return err
	})
	return d.fail("record upload of "+u.Path, err)
}

// FileUploads lists the uploads of a file, or all of a vault's when path is empty, the oldest first.
func (d *DB) FileUploads(ctx context.Context, vault, path string) ([]FileUpload, error) {
	query := `SELECT vault, upload, path, size, mtime, part_size, name, description, begun, tree_hash FROM file_uploads WHERE vault = $1`
	args := []any{blob(vault)}
	if path != "" {
		query += ` AND path = $2`
		args = append(args, blob(path))
	}
	var list []FileUpload
	err := each(ctx, d.b.Read, func(s scanner) error {
		var u FileUpload
		err := s.Scan(&u.Vault, &u.UploadID, &u.Path, &u.Size, timeColumn{&u.MTime}, &u.PartSize, &u.Name, &u.Description,
			timeColumn{&u.Begun}, hashColumn{(*[32]byte)(&u.TreeHash)})
		list = append(list, u)
		return err
	}, query+` ORDER BY begun, upload`, args...)
	if err != nil {
		return nil, d.fail("list uploads", err)
	}
	return list, nil
}

// DropFileUpload forgets an upload. Forgetting what is not there succeeds.
func (d *DB) DropFileUpload(ctx context.Context, vault, upload string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM file_uploads WHERE vault = $1 AND upload = $2`, blob(vault), blob(upload))
		return err
	})
	return d.fail("forget upload "+upload, err)
}
