package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// UploadOptions say how to store. The zero value works for a file; a stream needs a Name.
type UploadOptions struct {
	Name        string // in the catalog; empty: the file's own
	Description string // in the vault; empty: Describe(Name)
	PartSize    int64  // bytes; 0: by the size
	Expect      int64  // bytes that a stream comes to; 0: by the name, where that is a key of git-annex, or by what it came to before
	Unnamed     bool   // no name and no description, whatever the file's is
	Transfer    transfer.Options
	// UploadID is an unfinished upload to go on with, whoever began it. Its parts must be of the same bytes; it
	// prescribes PartSize and Description, and stays if anything fails.
	UploadID string

	Read    func(bytes int64)      // bytes read of the file; may be nil
	Resumed func(parts, all int64) // an interrupted upload goes on, with so many bytes there; may be nil
	// Near is told once when a stream has come to four fifths of all bytes that an archive with such parts can have, and to more
	// than was expected; may be nil.
	Near func(come, most, partSize int64)
}

func (o *UploadOptions) describe(name string) error {
	if o.Unnamed {
		o.Name, o.Description = "", ""
		return nil
	}
	if o.Name == "" {
		o.Name = name
	}
	if o.Name == "" {
		return failure.Errorf(failure.Usage, "what comes from the standard input needs a name (--name)")
	}
	if o.Description == "" {
		o.Description = Describe(o.Name)
	}
	return CheckDescription(o.Description)
}

// File stores a file as one archive. An upload of the same file that was interrupted goes on, if the file is as it
// was and the parts that the vault has are its own; else it is given up and another begun. The archive is recorded in the catalog. failure.Usage: the file
// is empty, too large, or not a regular file.
func (v *Vault) File(ctx context.Context, path string, o UploadOptions) (coldstore.Archive, error) {
	var none coldstore.Archive
	if err := v.check(); err != nil {
		return none, err
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return none, err
	}
	var begun coldstore.Upload
	if o.UploadID != "" {
		if begun, err = v.begun(ctx, &o); err != nil {
			return none, err
		}
	}
	if err := o.describe(filepath.Base(path)); err != nil {
		return none, err
	}
	f, err := os.Open(path)
	if err != nil {
		return none, err
	}
	defer f.Close() // it was only read
	info, err := f.Stat()
	if err != nil {
		return none, err
	}
	size := info.Size()
	switch {
	case !info.Mode().IsRegular():
		return none, failure.Errorf(failure.Usage, "%s is not a regular file; - stores what comes from the standard input", path)
	case size == 0:
		return none, failure.Errorf(failure.Usage, "%s is empty, and an archive has one byte at least", path)
	}
	t := v.Store.Traits()
	if o.Transfer, err = options(o.Transfer, o.PartSize, size, t); err != nil {
		return none, fmt.Errorf("%s: %w", path, err)
	}
	if most := limit(o.Transfer.PartSize, t); size > most {
		whose := "--part-size"
		if o.UploadID != "" {
			whose = "those of the upload"
		}
		return none, failure.Errorf(failure.Usage, "%s has %s, and with parts of %s (%s) an archive can have %s",
			path, units.Size(size), units.ExactSize(o.Transfer.PartSize), whose, units.ExactSize(most))
	}
	j := catalog.FileUpload{
		Vault: v.URL, Path: path, Size: size, MTime: info.ModTime().UTC(), PartSize: o.Transfer.PartSize,
		Name: o.Name, Description: o.Description, Begun: v.Now(), UploadID: begun.ID,
	}
	if begun.ID != "" {
		return v.goOn(ctx, f, j, o)
	}
	return v.file(ctx, f, j, o)
}

func (v *Vault) file(ctx context.Context, f *os.File, j catalog.FileUpload, o UploadOptions) (coldstore.Archive, error) {
	old, a, err := v.interrupted(ctx, j, o)
	if err != nil || a.ID != "" {
		return a, err
	}
	if old != nil {
		a, err := v.send(ctx, f, *old, o)
		if !errors.Is(err, transfer.ErrOtherParts) && !errors.Is(err, coldstore.ErrNotFound) {
			return a, err
		}
		if err := v.giveUp(ctx, old.UploadID, o.Transfer); err != nil {
			return a, err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return a, err
		}
		o.Transfer.Continue, o.Transfer.Have = nil, nil
	}
	return v.send(ctx, f, j, o)
}

// interrupted looks for an upload of the same file to go on with, and gives up those that are of no use. a is set where
// the archive turns out to be stored.
func (v *Vault) interrupted(ctx context.Context, j catalog.FileUpload, o UploadOptions) (*catalog.FileUpload, coldstore.Archive, error) {
	var none coldstore.Archive
	list, err := v.Catalog.FileUploads(ctx, v.URL, j.Path)
	if err != nil {
		return nil, none, err
	}
	var use *catalog.FileUpload
	for i := len(list) - 1; i >= 0; i-- { // the newest first
		u := list[i]
		same := u.Size == j.Size && u.MTime.Equal(j.MTime) && u.Name == j.Name && u.Description == j.Description
		if !u.TreeHash.IsZero() {
			// All of it was sent, and the archive may be there, whatever the file is now.
			a, err := transfer.Settle(ctx, v.Store, transfer.Pending{UploadID: u.UploadID, Size: u.Size, TreeHash: u.TreeHash}, o.Transfer)
			switch {
			case errors.Is(err, coldstore.ErrNotFound):
				if err := v.Catalog.DropFileUpload(ctx, v.URL, u.UploadID); err != nil {
					return nil, none, err
				}
				continue
			case err != nil && !errors.Is(err, coldstore.ErrIntegrity) && !errors.Is(err, coldstore.ErrInvalid):
				return nil, none, err
			case err == nil:
				if a.Description == "" {
					a.Description = u.Description
				}
				if err := v.stored(ctx, u, a); err != nil {
					return nil, none, err
				}
				if same {
					return nil, a, nil
				}
				continue
			}
		}
		wanted := o.PartSize == 0 || o.PartSize == u.PartSize
		if !same || !wanted || use != nil {
			if err := v.giveUp(ctx, u.UploadID, o.Transfer); err != nil {
				return nil, none, err
			}
			continue
		}
		use = &u
	}
	return use, none, nil
}

// giveUp aborts an upload and forgets it.
func (v *Vault) giveUp(ctx context.Context, id string, o transfer.Options) error {
	err := transfer.Retry(ctx, o, func() error { return v.Store.AbortUpload(ctx, id) })
	if err != nil {
		return err // it names the upload
	}
	return v.Catalog.DropFileUpload(ctx, v.URL, id)
}

// send sends a file in one pass. j.UploadID is that of the upload to go on with; empty: begin one.
func (v *Vault) send(ctx context.Context, f *os.File, j catalog.FileUpload, o UploadOptions) (coldstore.Archive, error) {
	var none coldstore.Archive
	a := coldstore.NewArchive{Description: j.Description}
	t := o.Transfer
	t.PartSize = j.PartSize
	if t.Parallel == 0 && t.PartSize > manyParts {
		t.Parallel = 1
	}
	if j.UploadID != "" {
		transfer.Learn(v.Store, coldstore.Upload{ID: j.UploadID, PartSize: j.PartSize, NewArchive: a, Created: j.Begun})
		err := transfer.Retry(ctx, t, func() (err error) {
			t.Have, err = v.Store.ListParts(ctx, j.UploadID)
			return err
		})
		if err != nil {
			return none, err
		}
		t.Continue = &coldstore.Upload{ID: j.UploadID, PartSize: j.PartSize, NewArchive: a, Created: j.Begun}
		var there int64
		for _, p := range t.Have {
			there += p.Size
			if p.Offset+p.Size > j.Size {
				return none, transfer.ErrOtherParts
			}
		}
		if o.Resumed != nil {
			o.Resumed(there, j.Size)
		}
	}
	t.Begun = func(u coldstore.Upload) error {
		j.UploadID = u.ID
		return v.Catalog.PutFileUpload(ctx, j)
	}
	u := transfer.NewUpload(ctx, v.Store, a, t)
	n, err := j.Size, error(nil)
	large := false
	if t.PartSize > manyParts {
		large, err = u.SendFrom(f, j.Size, o.Read)
	}
	if !large {
		n, err = io.CopyBuffer(struct{ io.Writer }{u}, counting{io.LimitReader(f, j.Size), o.Read}, make([]byte, mib))
	}
	if err == nil {
		err = unchanged(f, j, n)
	}
	if err != nil {
		// What was sent stays, for the next run to go on from.
		u.Leave()
		return none, fmt.Errorf("%s: %w", j.Path, err)
	}
	stored, err := u.Complete(ctx, func(p transfer.Pending) error {
		j.TreeHash = p.TreeHash
		return v.Catalog.PutFileUpload(ctx, j)
	})
	if err != nil {
		u.Leave()
		return none, err
	}
	return stored, v.stored(ctx, j, stored)
}

// unchanged says whether a file is what it was when it was begun.
func unchanged(f *os.File, j catalog.FileUpload, n int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if n != j.Size || info.Size() != j.Size || !info.ModTime().UTC().Equal(j.MTime) {
		return failure.Errorf(failure.Partial, "the file changed while it was read; nothing was stored")
	}
	return nil
}

// stored records an archive and forgets its upload.
func (v *Vault) stored(ctx context.Context, j catalog.FileUpload, a coldstore.Archive) error {
	err := v.record(ctx, j.Name, a)
	if err != nil {
		return err
	}
	return v.Catalog.DropFileUpload(ctx, v.URL, j.UploadID)
}

func (v *Vault) record(ctx context.Context, name string, a coldstore.Archive) error {
	now := v.Now()
	if a.Created.IsZero() {
		a.Created = now
	}
	return v.Catalog.PutArchive(ctx, catalog.ArchiveRecord{Vault: v.URL, Archive: a, UploadedAt: now, Name: name})
}
