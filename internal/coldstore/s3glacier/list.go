package s3glacier

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/firn-backup/firn/internal/coldstore"
)

// object is what a listing tells of one.
type object struct {
	name     string
	size     int64
	etag     string
	class    types.ObjectStorageClass
	modified time.Time
	restore  restoring
}

// restoring is how the restoring of an archived object stands.
type restoring struct {
	told    bool // the answer says something of it
	running bool
	until   time.Time // of the restored copy; zero: there is none
}

// page asks for up to most objects whose names begin with prefix and come after a name.
func (s *Store) page(ctx context.Context, prefix, after, token string, most int32) ([]object, string, error) {
	root := s.l.root()
	in := &s3.ListObjectsV2Input{
		Bucket: &s.l.bucket, Prefix: optional(root + prefix), RequestPayer: s.payer(),
		ContinuationToken: optional(token), OptionalObjectAttributes: []types.OptionalObjectAttributes{types.OptionalObjectAttributesRestoreStatus},
	}
	if most > 0 {
		in.MaxKeys = &most
	}
	if after != "" && token == "" {
		in.StartAfter = optional(root + after)
	}
	out, err := s.c.ListObjectsV2(ctx, in)
	if err != nil {
		return nil, "", s.classify(ctx, "s3:ListBucket", err)
	}
	list := make([]object, 0, len(out.Contents))
	for _, c := range out.Contents {
		name, ours := strings.CutPrefix(text(c.Key), root)
		if !ours || !validName(name) {
			continue // another's, or the marker of a folder
		}
		o := object{name: name, size: number(c.Size), etag: text(c.ETag), class: c.StorageClass, modified: moment(c.LastModified)}
		if r := c.RestoreStatus; r != nil {
			o.restore = restoring{told: true, running: yes(r.IsRestoreInProgress), until: moment(r.RestoreExpiryDate)}
			s.lists.Store(listsTell)
		}
		list = append(list, o)
	}
	next := text(out.NextContinuationToken)
	if !yes(out.IsTruncated) {
		next = ""
	} else if next == "" || next == token {
		return nil, "", errSamePage
	}
	return list, next, nil
}

// find looks for one archive by a listing, which needs no permission to read it.
func (s *Store) find(ctx context.Context, name string) (object, error) {
	list, _, err := s.page(ctx, name, "", "", 1)
	if err != nil {
		return object{}, err
	}
	if len(list) == 0 || list[0].name != name { // what comes first has the name itself, or none has
		return object{}, fmt.Errorf("no archive has that name: %w", coldstore.ErrNotFound)
	}
	return list[0], nil
}

// List asks for all pages of the service's list. It is exact, and tells no descriptions.
func (s *Store) List(ctx context.Context, fn func(coldstore.Archive) error) (time.Time, error) {
	asOf := s.o.Now().UTC()
	token := ""
	for {
		list, next, err := s.page(ctx, "", "", token, 0)
		if err != nil {
			return time.Time{}, fmt.Errorf("list %s: %w", s.l.where(), err)
		}
		for _, o := range list {
			if err := fn(o.archive()); err != nil {
				return time.Time{}, err
			}
		}
		if next == "" {
			return asOf, nil
		}
		token = next
	}
}

func (o object) archive() coldstore.Archive {
	return coldstore.Archive{ID: o.name, Size: o.size, Created: o.modified}
}

// Stat tells of one archive by a listing of it alone.
func (s *Store) Stat(ctx context.Context, archive string) (coldstore.Archive, error) {
	what := "look for archive " + archive
	if err := ctx.Err(); err != nil {
		return coldstore.Archive{}, s.fail(ctx, "", what, err)
	}
	if !validName(archive) {
		return coldstore.Archive{}, fmt.Errorf("%s: no archive has such a name: %w", what, coldstore.ErrNotFound)
	}
	o, err := s.find(ctx, archive)
	if err != nil {
		return coldstore.Archive{}, fmt.Errorf("%s: %w", what, err)
	}
	return o.archive(), nil
}

// errHidden says that a deletion has put a marker over an archive, which lies there as before.
var errHidden = errors.New("the bucket keeps versions: it is hidden now and costs as before")

// Delete deletes an archive, in a versioned bucket with all its versions: a mere marker would hide it and go on costing.
// One that is hidden already is still there to be deleted.
func (s *Store) Delete(ctx context.Context, archive string) error {
	what := "delete archive " + archive
	if err := ctx.Err(); err != nil {
		return s.fail(ctx, "", what, err)
	}
	if !validName(archive) {
		return fmt.Errorf("%s: no archive has such a name: %w", what, coldstore.ErrNotFound)
	}
	_, missing := s.find(ctx, archive)
	if missing != nil && !errors.Is(missing, coldstore.ErrNotFound) {
		return fmt.Errorf("%s: %w", what, missing)
	}
	defer s.status.forget(archive)
	if err := s.deleteAll(ctx, archive, missing); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// deleteAll deletes all versions; missing is the error of having looked for the archive, nil where it was there.
func (s *Store) deleteAll(ctx context.Context, archive string, missing error) error {
	ids, told, err := s.versions(ctx, archive)
	switch {
	case err != nil:
		return err
	case missing != nil && told && len(ids) == 0:
		return missing
	}
	if len(ids) == 0 || len(ids) == 1 && ids[0] == "null" {
		// What was stored before there were versions, or nobody may know: a bucket without versions has it deleted so.
		// One that has come to keep them only hides it, and says so.
		err := s.deleteVersion(ctx, archive, "")
		if !errors.Is(err, errHidden) {
			if err == nil {
				return missing
			}
			return err
		}
		if told {
			ids, told, err = s.versions(ctx, archive)
			if err != nil {
				return err
			}
		}
		if !told {
			return fmt.Errorf("%w; allow s3:ListBucketVersions and s3:DeleteObjectVersion, and delete it again: %w", errHidden, coldstore.ErrUnsupported)
		}
	}
	for _, id := range ids {
		if err := s.deleteVersion(ctx, archive, id); err != nil {
			return err
		}
	}
	return nil
}

// deleteVersion deletes one; the empty one is what a bucket without versions has.
func (s *Store) deleteVersion(ctx context.Context, archive, version string) error {
	action := "s3:DeleteObject"
	if version != "" {
		action = "s3:DeleteObjectVersion"
	}
	out, err := s.c.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &s.l.bucket, Key: s.key(archive), VersionId: optional(version), RequestPayer: s.payer()})
	if err != nil {
		err = s.classify(ctx, action, err)
		if errors.Is(err, coldstore.ErrNotFound) {
			return nil
		}
		if codeOf(err) == "AccessDenied" {
			return s.maybeLocked(ctx, archive, version, err)
		}
		return err
	}
	if version == "" && yes(out.DeleteMarker) && text(out.VersionId) != "" && text(out.VersionId) != "null" {
		return errHidden
	}
	return nil
}

// maybeLocked finds out whether a lock is why a deletion was refused, as far as these credentials may look.
func (s *Store) maybeLocked(ctx context.Context, archive, version string, err error) error {
	h, herr := s.c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &s.l.bucket, Key: s.key(archive), VersionId: optional(version), RequestPayer: s.payer()})
	if herr == nil {
		if until := moment(h.ObjectLockRetainUntilDate); until.After(s.o.Now()) {
			return &coldstore.LockedError{Until: until, Err: err}
		}
		return err
	}
	if s.l.lock != "" {
		return fmt.Errorf("it may be locked (lock=%s, %d days from its upload on): %w", s.l.lock, s.l.lockDays, err)
	}
	return err
}

// versions are the ids of all versions of an archive, and then of the markers over them, the newest first; none where there
// is no version. told is false where the endpoint, or the policy, does not tell.
func (s *Store) versions(ctx context.Context, archive string) (ids []string, told bool, err error) {
	key := *s.key(archive)
	in := &s3.ListObjectVersionsInput{Bucket: &s.l.bucket, Prefix: &key, RequestPayer: s.payer()}
	var markers []string
	for {
		out, err := s.c.ListObjectVersions(ctx, in)
		if err != nil {
			err = s.classify(ctx, "s3:ListBucketVersions", err)
			if codeOf(err) == "AccessDenied" || errors.Is(err, coldstore.ErrUnsupported) {
				return nil, false, nil
			}
			return nil, false, err
		}
		beyond := false
		for _, v := range out.Versions {
			if text(v.Key) == key {
				ids = append(ids, text(v.VersionId))
			} else {
				beyond = true // keys come in order
			}
		}
		for _, v := range out.DeleteMarkers {
			if text(v.Key) == key {
				markers = append(markers, text(v.VersionId))
			}
		}
		if beyond || !yes(out.IsTruncated) || text(out.NextKeyMarker) == "" {
			break
		}
		if text(in.KeyMarker) == text(out.NextKeyMarker) && text(in.VersionIdMarker) == text(out.NextVersionIdMarker) {
			return nil, false, errSamePage
		}
		in.KeyMarker, in.VersionIdMarker = out.NextKeyMarker, out.NextVersionIdMarker
	}
	if len(ids) == 0 {
		return nil, true, nil
	}
	return append(ids, markers...), true, nil
}
