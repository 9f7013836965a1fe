package catalog

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
)

// Checkpoint says how far an attempt's stream got at the end of a volume.
type Checkpoint struct {
	Volume int // all volumes up to this one are stored
	// Path is the last path all of whose stream lies in those volumes, or, when InFile, the
	// file in the middle of which the volume ends.
	Path    string
	Started bool   // false: no path is complete yet
	InFile  bool   // the volume ends inside Path's member
	State   []byte // what the source needs to go on inside Path; opaque here
}

// Pending is an upload about to be completed (the write-ahead of design "stores").
type Pending struct {
	Snap     string
	Volume   manifest.Volume // N 0: the manifest itself
	UploadID string
	Name     string
	Check    Checkpoint    // becomes the attempt's checkpoint when the volume is stored
	Hash     manifest.Hash // for the manifest
	Totals   Totals        // for the manifest
}

// Columns of a volume, as tables volumes and pending both have them; archive and leaves apart.
const volumeColumns = `size, tree_hash, raw, raw_sha256, frames, header, tail`

func volumeArgs(v *manifest.Volume) []any {
	return []any{v.Size, v.TreeHash[:], v.Raw, rawHash(v), packFrames(v.Frames), v.Header, v.Tail}
}

// knownColumns are volumeColumns of stored volumes: of what another program stored, of which the stream's size is not known, size and tree hash
// may be known from a listing only.
const knownColumns = `CASE WHEN raw > 0 OR size > 0 THEN size ELSE COALESCE((SELECT a.size ` + adoptedArchive + `), 0) END,
	CASE WHEN raw > 0 THEN tree_hash ELSE COALESCE((SELECT a.tree_hash ` + adoptedArchive + `), tree_hash) END, raw, raw_sha256, frames, header, tail`

const adoptedArchive = `FROM archives a JOIN snapshots s ON s.vault = a.vault WHERE s.num = volumes.snap AND s.adopted <> '' AND a.archive = volumes.archive`

// volumeScan scans n, archive, volumeColumns and, when leaves is asked for, leaves.
type volumeScan struct {
	v                               manifest.Volume
	tree, sha, frames, head, leaves []byte
	tail                            []byte
}

func (s *volumeScan) dest() []any {
	return []any{&s.v.N, &s.v.Archive, &s.v.Size, &s.tree, &s.v.Raw, &s.sha, &s.frames, &s.head, &s.tail}
}

func (s *volumeScan) volume() (manifest.Volume, error) {
	v := s.v
	v.Header, v.Tail = s.head, s.tail
	damaged := func(what string) (manifest.Volume, error) {
		return v, failure.Errorf(failure.Damaged, "volume %d: %s is damaged", v.N, what)
	}
	if len(s.tree) != len(v.TreeHash) {
		return damaged("tree hash")
	}
	copy(v.TreeHash[:], s.tree)
	if s.sha != nil {
		if len(s.sha) != 32 {
			return damaged("hash")
		}
		v.RawSHA256 = (*[32]byte)(s.sha)
	}
	var err error
	if v.Frames, err = unpackFrames(s.frames); err != nil {
		return damaged("list of frames")
	}
	if v.Leaves, err = unpackLeaves(s.leaves); err != nil {
		return damaged("list of leaves")
	}
	return v, nil
}

// putPending writes p down within a transaction.
func putPending(ctx context.Context, tx *sql.Tx, snap int64, p *Pending) error {
	check, err := checkpointJSON(p.Check)
	if err != nil {
		return err
	}
	totals, err := json.Marshal(p.Totals)
	if err != nil {
		return err
	}
	if p.Volume.N < 0 {
		return failure.Errorf(failure.Damaged, "volume %d", p.Volume.N)
	}
	args := append([]any{snap, p.Volume.N, blob(p.UploadID), blob(p.Name), blob(p.Volume.Archive)}, volumeArgs(&p.Volume)...)
	args = append(args, packLeaves(p.Volume.Leaves), check, p.Hash[:], totals)
	if _, err := tx.ExecContext(ctx, `DELETE FROM pending WHERE snap = $1 AND n = $2`, snap, p.Volume.N); err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO pending (snap, n, upload, name, archive, `+volumeColumns+`, leaves, checkpoint, hash, totals)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`, args...)
	return err
}

// VolumeStored turns a pending volume into a stored one under its archive id, and sets the checkpoint.
// It is durable. Doing it again succeeds. FinishStored is what does it for the manifest.
func (d *DB) VolumeStored(ctx context.Context, snap string, n int, archive string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		v, err := d.attempt(ctx, tx, snap)
		if err != nil {
			return err
		}
		if n < 1 {
			return errors.New("not a volume: the manifest is finished by FinishStored")
		}
		var pending int
		err = tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM pending WHERE snap = $1 AND n = $2`, v.num, n).Scan(&pending)
		if err != nil {
			return err
		}
		if pending == 0 {
			var was string
			err := tx.QueryRowContext(ctx, `SELECT archive FROM volumes WHERE snap = $1 AND n = $2`, v.num, n).Scan(&was)
			if err == nil && was != archive {
				err = fmt.Errorf("it is stored already, as archive %s", was)
			}
			return notFound(err, "pending volume %d of %s", n, snap)
		}
		for _, stmt := range []string{
			`DELETE FROM volumes WHERE snap = $1 AND n = $2`,
			`INSERT INTO volumes (snap, n, archive, ` + volumeColumns + `, leaves, checkpoint)
				SELECT snap, n, archive, ` + volumeColumns + `, leaves, checkpoint FROM pending WHERE snap = $1 AND n = $2`,
			`DELETE FROM pending WHERE snap = $1 AND n = $2`,
		} {
			if _, err := tx.ExecContext(ctx, stmt, v.num, n); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, `UPDATE volumes SET archive = $3 WHERE snap = $1 AND n = $2`, v.num, n, blob(archive))
		return err
	})
	return d.fail(fmt.Sprintf("record volume %d of %s as stored", n, snap), err)
}

// DropPending forgets a pending upload that never happened. Forgetting what is not there succeeds.
func (d *DB) DropPending(ctx context.Context, snap string, n int) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		v, err := d.view(ctx, tx, snap)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM pending WHERE snap = $1 AND n = $2`, v.num, n)
		return err
	})
	return d.fail(fmt.Sprintf("forget pending volume %d of %s", n, snap), err)
}

// PendingOf lists an attempt's pending uploads, with leaves, by volume number: the
// manifest, which is number 0, first.
func (d *DB) PendingOf(ctx context.Context, snap string) ([]Pending, error) {
	var list []Pending
	err := each(ctx, d.b.Read, func(r scanner) error {
		p := Pending{Snap: snap}
		var s volumeScan
		var check, totals []byte
		dest := append(s.dest(), &s.leaves, &p.UploadID, &p.Name, &check, hashColumn{(*[32]byte)(&p.Hash)}, &totals)
		if err := r.Scan(dest...); err != nil {
			return err
		}
		var err error
		if p.Volume, err = s.volume(); err != nil {
			return err
		}
		if p.Check, err = parseCheckpoint(check, p.Volume.N); err != nil {
			return err
		}
		list = append(list, p)
		return json.Unmarshal(totals, &list[len(list)-1].Totals)
	}, `SELECT n, archive, `+volumeColumns+`, leaves, upload, name, checkpoint, hash, totals
		FROM pending WHERE snap = (SELECT num FROM snapshots WHERE id = $1) ORDER BY n`, snap)
	if err != nil {
		return nil, d.fail("list pending uploads of "+snap, err)
	}
	return list, nil
}

// CheckpointOf returns an attempt's checkpoint: that of the last volume before which
// none is missing; the zero one when no volume is stored.
func (d *DB) CheckpointOf(ctx context.Context, snap string) (Checkpoint, error) {
	v, err := d.view(ctx, d.b.Read, snap)
	var c Checkpoint
	if err == nil {
		c, err = checkpointOf(ctx, d.b.Read, v.num)
	}
	return c, d.fail("find checkpoint of "+snap, err)
}

func checkpointOf(ctx context.Context, q querier, snap int64) (Checkpoint, error) {
	var packed []byte
	volume := 0
	whole := true
	err := each(ctx, q, func(r scanner) error {
		var n int
		var check []byte
		if err := r.Scan(&n, &check); err != nil {
			return err
		}
		// Volumes finish in any order. One stored beyond a gap is not reached by the checkpoint.
		if whole = whole && n == volume+1 && check != nil; whole {
			volume, packed = n, check
		}
		return nil
	}, `SELECT n, checkpoint FROM volumes WHERE snap = $1 ORDER BY n`, snap)
	if err != nil || volume == 0 {
		return Checkpoint{}, err
	}
	return parseCheckpoint(packed, volume)
}

// Rewind throws away what the attempt recorded of entries, deletions and problems after its checkpoint,
// and of volumes, pending ones too: settle those first. With InFile, the checkpoint's own path is
// after it. What Refresh wrote stays, for it is true of the file whatever becomes of the attempt.
func (d *DB) Rewind(ctx context.Context, snap string) error {
	err := d.change(ctx, durable, func(tx *sql.Tx) error {
		v, err := d.attempt(ctx, tx, snap)
		if err != nil {
			return err
		}
		c, err := checkpointOf(ctx, tx, v.num)
		if err != nil {
			return err
		}
		from := []byte{}
		if c.Started || c.InFile {
			if from, err = pathKey(c.Path); err != nil {
				return fmt.Errorf("checkpoint: %w", err)
			}
			if !c.InFile {
				from = nextKey(from)
			}
		}
		if err := undo(ctx, tx, v, from); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM problems WHERE snap = $1 AND path >= $2`, v.num, from); err != nil {
			return err
		}
		for _, stmt := range []string{
			`DELETE FROM pending WHERE snap = $1 AND (n > $2 OR n = 0)`,
			`DELETE FROM volumes WHERE snap = $1 AND n > $2`,
		} {
			if _, err := tx.ExecContext(ctx, stmt, v.num, c.Volume); err != nil {
				return err
			}
		}
		return nil
	})
	return d.fail("rewind attempt "+snap, err)
}

// Volumes of a snapshot, by number, without Leaves; Volume has them.
func (d *DB) Volumes(ctx context.Context, snap string) ([]manifest.Volume, error) {
	v, err := d.view(ctx, d.b.Read, snap)
	var vols []manifest.Volume
	if err == nil {
		vols, err = volumesOf(ctx, d.b.Read, v.num)
	}
	return vols, d.fail("list volumes of "+snap, err)
}

func volumesOf(ctx context.Context, q querier, snap int64) ([]manifest.Volume, error) {
	var vols []manifest.Volume
	err := each(ctx, q, func(r scanner) error {
		var s volumeScan
		if err := r.Scan(s.dest()...); err != nil {
			return err
		}
		v, err := s.volume()
		vols = append(vols, v)
		return err
	}, `SELECT n, archive, `+knownColumns+` FROM volumes WHERE snap = $1 ORDER BY n`, snap)
	return vols, err
}

// Volume returns one volume of a snapshot, with Leaves.
func (d *DB) Volume(ctx context.Context, snap string, n int) (manifest.Volume, error) {
	v, err := d.view(ctx, d.b.Read, snap)
	if err != nil {
		return manifest.Volume{}, d.fail("find volume", err)
	}
	var s volumeScan
	err = d.b.Read.QueryRowContext(ctx, `SELECT n, archive, `+knownColumns+`, leaves FROM volumes WHERE snap = $1 AND n = $2`,
		v.num, n).Scan(append(s.dest(), &s.leaves)...)
	if err != nil {
		return manifest.Volume{}, d.fail("find volume", notFound(err, "volume %d of %s", n, snap))
	}
	vol, err := s.volume()
	return vol, d.fail("read volume", err)
}

// PutVolume records a stored volume as a manifest tells of it (recover). It sets no checkpoint.
func (d *DB) PutVolume(ctx context.Context, snap string, vol *manifest.Volume) error {
	err := d.change(ctx, lazy, func(tx *sql.Tx) error {
		v, err := d.view(ctx, tx, snap)
		if err != nil {
			return err
		}
		if vol.N < 1 {
			return failure.Errorf(failure.Damaged, "volume %d", vol.N)
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM volumes WHERE snap = $1 AND n = $2`, v.num, vol.N); err != nil {
			return err
		}
		args := append([]any{v.num, vol.N, blob(vol.Archive)}, volumeArgs(vol)...)
		_, err = tx.ExecContext(ctx, `INSERT INTO volumes (snap, n, archive, `+volumeColumns+`, leaves)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`, append(args, packLeaves(vol.Leaves))...)
		return err
	})
	return d.fail(fmt.Sprintf("record volume %d of %s", vol.N, snap), err)
}
