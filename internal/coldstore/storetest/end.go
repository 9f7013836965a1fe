package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// endCases are those of CompleteUpload and AbortUpload.
func endCases() []testCase {
	return []testCase{
		{"NothingBeforeComplete", testNothingBefore},
		{"CompleteRefuses", testCompleteRefuses},
		{"CompleteShortMiddle", testShortMiddle},
		{"CompleteRepeated", testCompleteRepeated},
		{"CompleteAfterReopen", testCompleteAfterReopen},
		{"CompletedUploadIsGone", testCompletedIsGone},
		{"Abort", testAbort},
		{"AbortCompleted", testAbortCompleted},
	}
}

func testNothingBefore(t *testing.T, r *run) {
	if !r.traits.NamesKept {
		t.Skip("the id is not known before")
	}
	u := r.create(t, "set/a")
	PutParts(t, r.s, u, r.data)
	if r.has(t, "set/a") {
		t.Error("the archive exists before CompleteUpload")
	}
	_, err := r.s.RequestRetrieval(r.ctx, "set/a", coldstore.Range{}, coldstore.RetrievalOptions{})
	wantErr(t, "RequestRetrieval", err, coldstore.ErrNotFound, "set/a")
	wantErr(t, "Delete", r.s.Delete(r.ctx, "set/a"), coldstore.ErrNotFound, "set/a")
	if listed := r.list(t); len(listed) != 0 {
		t.Errorf("listed: %v", listed)
	}
}

func testCompleteRefuses(t *testing.T, r *run) {
	u := r.create(t, "a")
	size, hash := int64(len(r.data)), treehash.Sum(r.data)
	complete := func(what string, size int64, hash treehash.Hash, kind error) {
		t.Helper()
		_, err := r.s.CompleteUpload(r.ctx, u.ID, size, hash)
		wantErr(t, what, err, kind, u.ID)
	}
	complete("no parts", 0, treehash.Sum(nil), coldstore.ErrInvalid)
	complete("no parts, but a size", size, hash, coldstore.ErrInvalid)
	r.put(t, u, 0, r.data[:r.part])
	r.put(t, u, 3*r.part, r.data[3*r.part:])
	complete("a gap", size, hash, coldstore.ErrInvalid)
	complete("a part that is left over", r.part, treehash.Sum(r.data[:r.part]), coldstore.ErrInvalid)
	r.put(t, u, r.part, r.data[r.part:2*r.part])
	r.put(t, u, 2*r.part, r.data[2*r.part:3*r.part])
	complete("too long", size+1, hash, coldstore.ErrInvalid)
	complete("too short", size-1, hash, coldstore.ErrInvalid)
	complete("negative", -size, hash, coldstore.ErrInvalid)
	hash[31] ^= 1
	complete("wrong hash", size, hash, coldstore.ErrIntegrity)
	complete("no hash", size, treehash.Hash{}, coldstore.ErrIntegrity)
	hash[31] ^= 1
	// None of that has harmed the upload.
	parts, err := r.s.ListParts(r.ctx, u.ID)
	if err != nil || len(parts) != 4 {
		t.Fatalf("ListParts: %v, %v", parts, err)
	}
	a, err := r.s.CompleteUpload(r.ctx, u.ID, size, hash)
	if err != nil {
		t.Fatal(err)
	}
	r.checkArchive(t, a, "a", r.data)
	r.checkContent(t, a.ID, r.data)
}

func testShortMiddle(t *testing.T, r *run) {
	u := r.create(t, "a")
	r.put(t, u, 0, r.data[:r.part-1])
	r.put(t, u, r.part, r.data[r.part:][:10])
	wrong := append(append([]byte(nil), r.data[:r.part-1]...), r.data[r.part:][:10]...)
	for _, size := range []int64{r.part + 9, r.part + 10} {
		_, err := r.s.CompleteUpload(r.ctx, u.ID, size, treehash.Sum(wrong))
		wantErr(t, "short part in the middle", err, coldstore.ErrInvalid, u.ID)
	}
	r.put(t, u, 0, r.data[:r.part])
	a, err := r.s.CompleteUpload(r.ctx, u.ID, r.part+10, treehash.Sum(r.data[:r.part+10]))
	if err != nil {
		t.Fatal(err)
	}
	r.checkContent(t, a.ID, r.data[:r.part+10])
}

func testCompleteRepeated(t *testing.T, r *run) {
	u := r.create(t, "a")
	PutParts(t, r.s, u, r.data)
	size, hash := int64(len(r.data)), treehash.Sum(r.data)
	first, err := r.s.CompleteUpload(r.ctx, u.ID, size, hash)
	if err != nil {
		t.Fatal(err)
	}
	again := func(when string) {
		t.Helper()
		a, err := r.s.CompleteUpload(r.ctx, u.ID, size, hash)
		// Where listings lag, description and date may not be known any more.
		forgot := (r.traits.ListLag > 0 || r.traits.Terse) && (a.Description == "" || a.Description == first.Description) && (r.traits.Terse || !a.Created.Before(first.Created))
		if err != nil || a.ID != first.ID || a.Size != first.Size || a.TreeHash != first.TreeHash ||
			(a.Description != first.Description || !a.Created.Equal(first.Created)) && !forgot {
			t.Errorf("%s: %+v, %v; want %+v", when, a, err, first)
		}
	}
	again("at once")
	if r.Advance != nil {
		r.Advance(24*time.Hour - time.Minute)
		again("almost a day later")
	}
	if r.Reopen != nil {
		r.reopen(t)
		again("in another process")
	}
	if listed := r.list(t); len(listed) != 1 {
		t.Errorf("%d archives are there", len(listed))
	}
	if err := r.s.Delete(r.ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	_, err = r.s.CompleteUpload(r.ctx, u.ID, size, hash)
	wantErr(t, "after the archive was deleted", err, coldstore.ErrNotFound, u.ID)
	if listed := r.list(t); len(listed) != 0 {
		t.Errorf("the deleted archive is back: %v", listed)
	}
}

func testCompleteAfterReopen(t *testing.T, r *run) {
	u := r.create(t, "a")
	r.put(t, u, 0, r.data[:r.part])
	r.reopen(t)
	r.put(t, u, r.part, r.data[r.part:2*r.part])
	r.reopen(t)
	a, err := r.s.CompleteUpload(r.ctx, u.ID, 2*r.part, treehash.Sum(r.data[:2*r.part]))
	if err != nil {
		t.Fatal(err)
	}
	r.checkArchive(t, a, "a", r.data[:2*r.part])
	r.reopen(t)
	r.checkContent(t, a.ID, r.data[:2*r.part])
}

func testCompletedIsGone(t *testing.T, r *run) {
	u := r.create(t, "a")
	r.put(t, u, 0, r.data[:10])
	a, err := r.s.CompleteUpload(r.ctx, u.ID, 10, treehash.Sum(r.data[:10]))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = r.s.ListParts(r.ctx, u.ID)
		wantErr(t, "ListParts", err, coldstore.ErrNotFound, u.ID)
		for _, data := range [][]byte{r.data[:10], r.data[1:11]} {
			err = r.s.PutPart(r.ctx, u.ID, 0, data, treehash.Sum(data))
			wantErr(t, "PutPart", err, coldstore.ErrNotFound, u.ID)
		}
		if err := r.s.ListUploads(r.ctx, func(u coldstore.Upload) error {
			t.Errorf("it is listed: %+v", u)
			return nil
		}); err != nil {
			t.Error(err)
		}
		r.checkContent(t, a.ID, r.data[:10])
		if r.Reopen == nil {
			return
		}
		r.reopen(t)
	}
}

func testAbort(t *testing.T, r *run) {
	keep, drop := r.create(t, "keep"), r.create(t, "drop")
	r.put(t, keep, 0, r.data[:10])
	r.put(t, drop, 0, r.data[:10])
	for range 2 {
		if err := r.s.AbortUpload(r.ctx, drop.ID); err != nil {
			t.Errorf("AbortUpload: %v", err)
		}
	}
	_, err := r.s.CompleteUpload(r.ctx, drop.ID, 10, treehash.Sum(r.data[:10]))
	wantErr(t, "CompleteUpload", err, coldstore.ErrNotFound, drop.ID)
	var left []string
	if err := r.s.ListUploads(r.ctx, func(u coldstore.Upload) error {
		left = append(left, u.ID)
		return nil
	}); err != nil || len(left) != 1 || left[0] != keep.ID {
		t.Errorf("uploads left: %v, %v", left, err)
	}
	if _, err := r.s.CompleteUpload(r.ctx, keep.ID, 10, treehash.Sum(r.data[:10])); err != nil {
		t.Error(err)
	}
}

// Aborting a completed upload may be an error or not: in no case is the archive harmed.
func testAbortCompleted(t *testing.T, r *run) {
	u := r.create(t, "a")
	r.put(t, u, 0, r.data[:10])
	a, err := r.s.CompleteUpload(r.ctx, u.ID, 10, treehash.Sum(r.data[:10]))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.s.AbortUpload(r.ctx, u.ID); err != nil && !errors.Is(err, coldstore.ErrInvalid) && !errors.Is(err, coldstore.ErrNotFound) {
		t.Errorf("AbortUpload: %v", err)
	}
	if again, err := r.s.CompleteUpload(r.ctx, u.ID, 10, treehash.Sum(r.data[:10])); err != nil || again.ID != a.ID {
		t.Errorf("CompleteUpload again: %v, %v", again, err)
	}
	r.checkContent(t, a.ID, r.data[:10])
}
