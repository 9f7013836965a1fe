package plain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/firn-backup/firn/internal/catalog"
	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/transfer"
	"github.com/firn-backup/firn/internal/units"
)

// streamPath stands for the file of an upload from a stream: no file has such a path.
func streamPath(name string) string { return "stdin:" + name }

// Stream stores what r has as one archive. It cannot go on after an interruption, but what an interrupted one of the same name
// has left is settled first: parts are given up, and an archive whose completion was not answered is
// found; if r then turns out to have the same bytes it is not stored twice. failure.Failed as soon as
// it is certain that more comes than the parts can hold; the parts are given up then.
func (v *Vault) Stream(ctx context.Context, r io.Reader, o UploadOptions) (coldstore.Archive, error) {
	var none coldstore.Archive
	if err := v.check(); err != nil {
		return none, err
	}
	var begun coldstore.Upload
	if o.UploadID != "" {
		var err error
		if begun, err = v.begun(ctx, &o); err != nil {
			return none, err
		}
	}
	if err := o.describe(""); err != nil {
		return none, err
	}
	if o.Expect == 0 {
		if n, ok := AnnexSize(o.Name); ok {
			o.Expect = n
		}
	}
	t := v.Store.Traits()
	var err error
	if o.PartSize == 0 && o.Expect == 0 && t.GrowEvery == 0 {
		if o.Expect, err = v.likeBefore(ctx, o.Name, t); err != nil {
			return none, err
		}
		if o.Expect == 0 {
			o.PartSize = StreamPart
		}
	}
	if o.Transfer, err = options(o.Transfer, o.PartSize, o.Expect, t); err != nil {
		return none, err
	}
	if most := limit(o.Transfer.PartSize, t); o.Expect > most {
		return none, failure.Wrap(failure.Usage, tooMuch(o, t.MaxPart, most, units.Size(o.Expect)+" are expected, more"))
	}
	if begun.ID != "" {
		return v.streamOn(ctx, r, begun, o)
	}
	before, err := v.Settle(ctx, o.Name, o.Transfer)
	if err != nil {
		return none, err
	}
	return v.stream(ctx, r, o, before)
}

// likeBefore is what a stream may come to that had so many bytes before that a quarter more does not fit into parts of
// StreamPart; else 0. Parts of Amazon Glacier cannot grow along the way, and it would be refused after days.
func (v *Vault) likeBefore(ctx context.Context, name string, t coldstore.Traits) (int64, error) {
	if t.MaxParts == 0 {
		return 0, nil
	}
	most := int64(0)
	err := v.Catalog.FindArchives(ctx, v.URL, func(r catalog.ArchiveRecord) bool { return Called(r, name) }, func(r catalog.ArchiveRecord) error {
		most = max(most, r.Size)
		return nil
	})
	if most += most / 4; err != nil || most <= limit(StreamPart, t) {
		return 0, err
	}
	if t.MaxPart > 0 { // what is larger than all that fits may do so this time
		most = min(most, limit(t.MaxPart, t))
	}
	return most, nil
}

// reading is a stream whose bytes are told of, and that it comes near to all that fits.
func (o *UploadOptions) reading(r io.Reader, most int64) io.Reader {
	come, warnAt := int64(0), max(most/5*4, o.Expect+1)
	return counting{io.LimitReader(naming{r, o.Name}, most), func(n int64) {
		if before := come; o.Near != nil && before < warnAt && before+n >= warnAt {
			o.Near(before+n, most, o.Transfer.PartSize)
		}
		if come += n; o.Read != nil {
			o.Read(n)
		}
	}}
}

func tooMuch(o UploadOptions, maxPart, most int64, what string) error {
	hint := "; give a larger --expected-size or --part-size"
	if maxPart > 0 && o.Transfer.PartSize >= maxPart {
		hint = ", the largest there are: cut it into several"
	}
	return failure.Errorf(failure.Failed, "%s: %s than the %s that fit into an archive with parts of %s%s",
		o.Name, what, units.ExactSize(most), units.ExactSize(o.Transfer.PartSize), hint)
}

// errSameAgain says that what was sent is an archive already.
var errSameAgain = errors.New("this archive is stored already")

// stream sends a stream. before are archives of that name that interrupted uploads turned out to have made.
func (v *Vault) stream(ctx context.Context, r io.Reader, o UploadOptions, before []coldstore.Archive) (coldstore.Archive, error) {
	var none, same coldstore.Archive
	j := catalog.FileUpload{Vault: v.URL, Path: streamPath(o.Name), PartSize: o.Transfer.PartSize, Name: o.Name, Description: o.Description, Begun: v.Now()}
	t := o.Transfer
	t.Begun = func(u coldstore.Upload) error {
		j.UploadID = u.ID
		return v.Catalog.PutFileUpload(ctx, j)
	}
	u := transfer.NewUpload(ctx, v.Store, coldstore.NewArchive{Description: o.Description}, t)
	giveUp := func() {
		// The parts of a failure cost storage, even when the run was interrupted.
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		defer cancel()
		if u.Abort(c) == nil && j.UploadID != "" { // else it is given up by the next upload of that name
			_ = v.Catalog.DropFileUpload(c, v.URL, j.UploadID)
		}
	}
	n, err := v.copyStream(ctx, u, r, o)
	if err != nil {
		giveUp()
		return none, err
	}
	stored, err := u.Complete(ctx, func(p transfer.Pending) error {
		for _, a := range before {
			if a.Size == p.Size && a.TreeHash == p.TreeHash {
				same = a
				return errSameAgain
			}
		}
		j.Size, j.TreeHash = n, p.TreeHash
		return v.Catalog.PutFileUpload(ctx, j)
	})
	switch {
	case errors.Is(err, errSameAgain):
		giveUp()
		return same, nil
	case err != nil && j.TreeHash.IsZero(), errors.Is(err, coldstore.ErrIntegrity), errors.Is(err, coldstore.ErrInvalid):
		giveUp()
		return none, err
	case err != nil: // it may be stored: the next upload of that name finds out
		u.Leave()
		return none, err
	}
	return stored, v.stored(ctx, j, stored)
}

// copyStream sends all of r.
func (v *Vault) copyStream(ctx context.Context, u io.Writer, r io.Reader, o UploadOptions) (int64, error) {
	most := limit(o.Transfer.PartSize, v.Store.Traits())
	n, err := io.CopyBuffer(struct{ io.Writer }{u}, o.reading(r, most), make([]byte, mib))
	if err != nil {
		return n, err // of what is read or of what is stored, with its name
	}
	if n == most {
		if k, err := io.ReadFull(r, make([]byte, 1)); k > 0 {
			return n, tooMuch(o, v.Store.Traits().MaxPart, most, "the stream is longer")
		} else if !errors.Is(err, io.EOF) {
			return n, fmt.Errorf("upload %s: %w", o.Name, err)
		}
	}
	if n == 0 {
		return n, failure.Errorf(failure.Usage, "%s: nothing came, and an archive has one byte at least", o.Name)
	}
	return n, nil
}

// Settle finds out what became of uploads from streams of that name that were interrupted: parts are given up, and archives
// whose completion was not answered recorded and returned, the oldest first. The caller sees to it that nobody uploads that name now.
func (v *Vault) Settle(ctx context.Context, name string, o transfer.Options) ([]coldstore.Archive, error) {
	if err := v.check(); err != nil {
		return nil, err
	}
	list, err := v.Catalog.FileUploads(ctx, v.URL, streamPath(name))
	var all []coldstore.Archive
	for _, u := range list {
		if u.TreeHash.IsZero() {
			if err := v.giveUp(ctx, u.UploadID, o); err != nil {
				return nil, err
			}
			continue
		}
		a, err := transfer.Settle(ctx, v.Store, transfer.Pending{UploadID: u.UploadID, Size: u.Size, TreeHash: u.TreeHash}, o)
		switch {
		case errors.Is(err, coldstore.ErrNotFound):
			err = v.Catalog.DropFileUpload(ctx, v.URL, u.UploadID)
		case errors.Is(err, coldstore.ErrIntegrity), errors.Is(err, coldstore.ErrInvalid):
			err = v.giveUp(ctx, u.UploadID, o)
		case err == nil:
			if a.Description == "" {
				a.Description = u.Description
			}
			all = append(all, a)
			err = v.stored(ctx, u, a)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, err
}

// Interruptible lets a read that never comes back be given up.
func Interruptible(ctx context.Context, r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	context.AfterFunc(ctx, func() { pw.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{pw}, struct{ io.Reader }{r}, make([]byte, mib))
		pw.CloseWithError(err)
	}()
	return pr
}

// counting tells of what is read.
type counting struct {
	r  io.Reader
	fn func(int64)
}

// naming says in its errors what was to be stored.
type naming struct {
	r    io.Reader
	name string
}

func (r naming) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("upload %s: %w", r.name, err)
	}
	return n, err
}

func (c counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 && c.fn != nil {
		c.fn(int64(n))
	}
	return n, err
}
