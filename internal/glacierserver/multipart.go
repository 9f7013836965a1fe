package glacierserver

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/coldstore/localdir"
)

// uploadLife is how long an upload lives to which nothing is added, and for how long the completion of one
// can be repeated.
const uploadLife = 24 * time.Hour

func (q *request) initiateUpload() error {
	description, err := q.description()
	if err != nil {
		return err
	}
	const rule = "Invalid part size: %s. Part size must not be null, must be a power of two and be between 1048576 and 4294967296 bytes."
	text := q.r.Header.Get("X-Amz-Part-Size")
	if text == "" {
		return missing(rule, "null")
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < minPart || size > maxPart || size&(size-1) != 0 {
		return invalid(rule, text)
	}
	u, err := q.v.store.CreateUpload(q.r.Context(), coldstore.NewArchive{Description: description}, size)
	if err != nil {
		return cold(err)
	}
	id := wireID(q.v.store.VaultID(), uploadID, u.ID)
	q.header("Location", q.location("/multipart-uploads/"+id))
	q.header("x-amz-multipart-upload-id", id)
	return q.empty(http.StatusCreated)
}

// expired says whether an upload has been idle for too long.
func expired(u localdir.UploadState, now time.Time) bool {
	return now.Sub(u.LastUsed) >= uploadLife
}

// endUploads ends those that nobody may go on with any more. Uploads that other programs make in the
// vault are theirs.
func (v *vault) endUploads(ctx context.Context, now time.Time) error {
	return v.store.EndUploads(ctx, func(u localdir.UploadState) bool {
		return expired(u, now) && (!u.Open || u.Name == "" || isSingle(u.Upload))
	})
}

// upload finds the upload of the request, which must be open, and a client's own.
func (q *request) upload() (localdir.UploadState, error) {
	u, err := q.knownUpload()
	if err == nil && (!u.Open || expired(u, q.now)) {
		err = coldstore.ErrNotFound
	}
	if errors.Is(err, coldstore.ErrNotFound) {
		return u, notFound("The upload ID was not found: %s", q.arg)
	}
	return u, err
}

// knownUpload finds it even if it is over. ErrNotFound: there is no trace of it.
func (q *request) knownUpload() (localdir.UploadState, error) {
	name, _, err := parseID(q.v.store.VaultID(), uploadID, q.arg)
	if err != nil {
		return localdir.UploadState{}, notFound("The upload ID was not found: %s", q.arg)
	}
	u, err := q.v.store.StatUpload(q.r.Context(), name)
	if err == nil && u.Name != "" {
		err = coldstore.ErrNotFound
	}
	return u, err
}

func (q *request) uploadPart() error {
	hash, err := q.storePart()
	if err != nil {
		return err
	}
	q.header("x-amz-sha256-tree-hash", hash)
	return q.empty(http.StatusNoContent)
}

func (q *request) storePart() (hash string, err error) {
	u, err := q.upload()
	if err != nil {
		return "", err
	}
	data, size, want, err := q.data()
	if err != nil {
		return "", err
	}
	first, err := q.partRange(u.PartSize, size)
	if err != nil {
		return "", err
	}
	ctx := context.WithoutCancel(q.r.Context())
	err = q.v.store.PutPartFrom(ctx, u.ID, first, data, size, want)
	if errors.Is(err, coldstore.ErrNotFound) {
		return "", notFound("The upload ID was not found: %s", q.arg)
	}
	return want.String(), mismatch(err)
}

// partRange is where a part begins, as its Content-Range says.
func (q *request) partRange(partSize, size int64) (int64, error) {
	text := q.r.Header.Get("Content-Range")
	if text == "" {
		return 0, missing("Required parameter missing: Content-Range")
	}
	m := regexp.MustCompile(`^bytes[ =]([0-9]+)-([0-9]+)/(\*|[0-9]+)$`).FindStringSubmatch(text)
	if m == nil {
		return 0, invalid("Invalid Content-Range: %s", text)
	}
	first, err1 := strconv.ParseInt(m[1], 10, 64)
	last, err2 := strconv.ParseInt(m[2], 10, 64)
	switch {
	case err1 != nil || err2 != nil || last < first:
		return 0, invalid("Invalid Content-Range: %s", text)
	case last-first+1 != size:
		return 0, invalid("Content-Range: %s is incompatible with Content-Length: %d", text, size)
	case first%partSize != 0 || size > partSize:
		return 0, invalid("Invalid Content-Range: %s", text)
	}
	return first, nil
}

func (q *request) completeUpload() error {
	hash, err := q.treeHash()
	if err != nil {
		return err
	}
	text := q.r.Header.Get("X-Amz-Archive-Size")
	if text == "" {
		return missing("Required parameter missing: x-amz-archive-size")
	}
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 1 {
		return invalid("Invalid x-amz-archive-size: %s", text)
	}
	u, err := q.knownUpload()
	if errors.Is(err, coldstore.ErrNotFound) || err == nil && expired(u, q.now) {
		return notFound("The upload ID was not found: %s", q.arg)
	}
	if err != nil {
		return err
	}
	if err := q.v.touch(); err != nil {
		return err
	}
	a, err := q.v.complete(context.WithoutCancel(q.r.Context()), u.ID, size, hash)
	if errors.Is(err, coldstore.ErrNotFound) {
		return notFound("The upload ID was not found: %s", q.arg)
	}
	if errors.Is(err, coldstore.ErrIntegrity) {
		return invalid("Invalid x-amz-sha256-tree-hash: %s", hash)
	}
	if err != nil {
		return cold(err)
	}
	return q.stored(a)
}

func (q *request) abortUpload() error {
	u, err := q.knownUpload()
	switch {
	case errors.Is(err, coldstore.ErrNotFound):
		return q.empty(http.StatusNoContent) // aborted before
	case err != nil:
		return err
	case !u.Open:
		return notFound("The upload ID was not found: %s", q.arg) // completed
	}
	if err := q.v.store.AbortUpload(context.WithoutCancel(q.r.Context()), u.ID); err != nil {
		return cold(err)
	}
	return q.empty(http.StatusNoContent)
}

func (q *request) listParts() error {
	limit, err := q.limit(50)
	if err != nil {
		return err
	}
	u, err := q.upload()
	if err != nil {
		return err
	}
	from := int64(0)
	if marker := q.r.URL.Query().Get("marker"); marker != "" {
		if from, err = strconv.ParseInt(marker, 10, 64); err != nil || from < 0 {
			return invalid("Invalid marker: %s", marker)
		}
	}
	parts, err := q.v.store.OpenParts(q.r.Context(), u.ID)
	if err != nil {
		return cold(err)
	}
	type part struct {
		RangeInBytes   string
		SHA256TreeHash string
	}
	out := struct {
		MultipartUploadId  string
		VaultARN           string
		ArchiveDescription *string
		PartSizeInBytes    int64
		CreationDate       string
		Parts              []part
		Marker             *string
	}{
		MultipartUploadId: q.arg, VaultARN: q.arn(q.vaultName), ArchiveDescription: orNull(u.Description),
		PartSizeInBytes: u.PartSize, CreationDate: stamp(u.Created), Parts: []part{},
	}
	at, _ := slices.BinarySearchFunc(parts, from, func(p coldstore.Part, off int64) int { return cmp.Compare(p.Offset, off) })
	for _, p := range parts[at:] {
		if len(out.Parts) == limit {
			out.Marker = orNull(strconv.FormatInt(p.Offset, 10))
			break
		}
		out.Parts = append(out.Parts, part{
			strconv.FormatInt(p.Offset, 10) + "-" + strconv.FormatInt(p.Offset+p.Size-1, 10), p.TreeHash.String(),
		})
	}
	q.json(http.StatusOK, out)
	return nil
}

func (q *request) listUploads() error {
	limit, err := q.limit(50)
	if err != nil {
		return err
	}
	from := ""
	vaultID := q.v.store.VaultID()
	if marker := q.r.URL.Query().Get("marker"); marker != "" {
		if from, _, err = parseID(vaultID, uploadID, marker); err != nil {
			return invalid("Invalid marker: %s", marker)
		}
	}
	var open []coldstore.Upload
	if err := q.v.store.ListUploads(q.r.Context(), func(u coldstore.Upload) error {
		if u.Name == "" && u.ID >= from {
			open = append(open, u)
		}
		return nil
	}); err != nil {
		return cold(err)
	}
	slices.SortFunc(open, func(a, b coldstore.Upload) int { return cmp.Compare(a.ID, b.ID) })
	type upload struct {
		MultipartUploadId  string
		VaultARN           string
		ArchiveDescription *string
		PartSizeInBytes    int64
		CreationDate       string
	}
	out := struct {
		UploadsList []upload
		Marker      *string
	}{UploadsList: []upload{}}
	for _, u := range open {
		if state, err := q.v.store.StatUpload(q.r.Context(), u.ID); err != nil || !state.Open || expired(state, q.now) {
			if err != nil && !errors.Is(err, coldstore.ErrNotFound) {
				return cold(err)
			}
			continue
		}
		id := wireID(vaultID, uploadID, u.ID)
		if len(out.UploadsList) == limit {
			out.Marker = &id
			break
		}
		out.UploadsList = append(out.UploadsList, upload{
			id, q.arn(q.vaultName), orNull(u.Description), u.PartSize, stamp(u.Created),
		})
	}
	q.json(http.StatusOK, out)
	return nil
}

// orNull is null for an empty string.
func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
