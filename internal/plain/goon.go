package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
	"github.com/firn-backup/firn/treehash"
)

// begun finds an unfinished upload by its id, whoever began it, and sets what it prescribes: the size of parts and the
// description. failure.NotFound; failure.Usage where options say otherwise.
func (v *Vault) begun(ctx context.Context, o *UploadOptions) (coldstore.Upload, error) {
	var found coldstore.Upload
	err := v.Uploads(ctx, func(u coldstore.Upload, _ catalog.FileUpload) error {
		if u.ID == o.UploadID {
			found = u
		}
		return nil
	})
	switch {
	case err != nil:
		return found, err
	case found.ID == "":
		return found, failure.Errorf(failure.NotFound, "there is no unfinished upload %s", o.UploadID)
	case o.PartSize != 0 && o.PartSize != found.PartSize:
		return found, failure.Errorf(failure.Usage, "upload %s has parts of %s, not of %s", found.ID, units.ExactSize(found.PartSize), units.ExactSize(o.PartSize))
	case o.Description != "" && o.Description != found.Description:
		return found, failure.Errorf(failure.Usage, "upload %s was begun with the description %q, which stays", found.ID, found.Description)
	case found.PartSize <= 0:
		return found, failure.Errorf(failure.Failed, "the vault does not tell the size of the parts of upload %s", found.ID)
	}
	o.PartSize, o.Description = found.PartSize, found.Description
	return found, nil
}

// goOn goes on with the upload that UploadID names. Nothing is given up, whatever happens: it is not known who began it.
func (v *Vault) goOn(ctx context.Context, f *os.File, j catalog.FileUpload, o UploadOptions) (coldstore.Archive, error) {
	// All of them are compared before one is sent: a part of another file would spoil the upload.
	var parts []coldstore.Part
	err := transfer.Retry(ctx, o.Transfer, func() (err error) {
		parts, err = v.Store.ListParts(ctx, j.UploadID)
		return err
	})
	if err == nil {
		err = sameParts(ctx, f, parts)
	}
	var a coldstore.Archive
	if err == nil {
		a, err = v.send(ctx, f, j, o)
	}
	return a, notThese(err, j.UploadID, j.Path)
}

// sameParts compares what a vault has with a file. transfer.ErrOtherParts.
func sameParts(ctx context.Context, f io.ReaderAt, parts []coldstore.Part) error {
	buf := make([]byte, 4*treehash.LeafSize)
	for _, p := range parts {
		r := io.NewSectionReader(f, p.Offset, p.Size)
		var leaves []treehash.Hash
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := io.ReadFull(r, buf)
			if n > 0 {
				leaves = append(leaves, treehash.Leaves(buf[:n])...)
			}
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		if len(leaves) == 0 || treehash.Combine(leaves) != p.TreeHash {
			return transfer.ErrOtherParts
		}
	}
	return nil
}

func notThese(err error, upload, what string) error {
	if errors.Is(err, transfer.ErrOtherParts) {
		return failure.Wrap(failure.Failed, fmt.Errorf("upload %s holds other bytes than %s: it was left as it is", upload, what))
	}
	return err
}

// streamOn goes on with the upload that UploadID names, from a stream that brings the same bytes again.
func (v *Vault) streamOn(ctx context.Context, r io.Reader, begun coldstore.Upload, o UploadOptions) (coldstore.Archive, error) {
	var none coldstore.Archive
	t := o.Transfer
	err := transfer.Retry(ctx, t, func() (err error) {
		t.Have, err = v.Store.ListParts(ctx, begun.ID)
		return err
	})
	if err != nil {
		return none, err
	}
	t.Continue = &begun
	var there, end int64
	for _, p := range t.Have {
		there += p.Size
		end = max(end, p.Offset+p.Size)
	}
	if o.Resumed != nil {
		o.Resumed(there, max(o.Expect, end))
	}
	t.Parallel = 1 // nothing is sent before what came earlier was compared
	u := transfer.NewUpload(ctx, v.Store, coldstore.NewArchive{Description: o.Description}, t)
	most := limit(t.PartSize, v.Store.Traits())
	n, err := io.CopyBuffer(struct{ io.Writer }{u}, o.reading(r, most), make([]byte, mib))
	if err == nil && n == most {
		if k, _ := io.ReadFull(r, make([]byte, 1)); k > 0 {
			err = failure.Errorf(failure.Failed, "upload %s: the stream is longer than the %s that fit into this upload", o.Name, units.ExactSize(most))
		}
	}
	if err == nil && n < end {
		err = failure.Errorf(failure.Failed, "upload %s: the stream ended after %s, and the upload has %s already", o.Name, units.Size(n), units.Size(end))
	}
	if err == nil {
		var stored coldstore.Archive
		if stored, err = u.Complete(ctx, nil); err == nil {
			return stored, v.record(ctx, o.Name, stored)
		}
	}
	u.Leave()
	return none, notThese(err, begun.ID, "those that came")
}
