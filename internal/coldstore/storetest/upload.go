package storetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// uploadCases are those of CreateUpload, PutPart and ListParts.
func uploadCases() []testCase {
	return []testCase{
		{"Traits", testTraits},
		{"RoundTrip", testRoundTrip},
		{"CreateUploadRefuses", testCreateRefuses},
		{"Description", testDescription},
		{"Names", testNames},
		{"NoName", testNoName},
		{"PutPartRefuses", testPutPartRefuses},
		{"PutPartWrongHash", testPutPartWrongHash},
		{"PutPartAnyOrder", testAnyOrder},
		{"PutPartRepeated", testPutPartRepeated},
		{"PutPartOtherData", testPutPartOtherData},
		{"PutPartKeepsNothing", testPutPartKeepsNothing},
		{"PutPartSection", testSections},
		{"ListParts", testListParts},
		{"UnknownUpload", testUnknownUpload},
		{"Canceled", testCanceled},
		{"Concurrent", testConcurrent},
	}
}

func testTraits(t *testing.T, r *run) {
	tr := r.traits
	if tr.Scheme == "" || tr.Granularity < 1 || tr.MinPart < 1 || tr.MaxPart < tr.MinPart || tr.MaxParts < 1 || tr.MaxArchive < tr.MaxPart {
		t.Errorf("senseless: %+v", tr)
	}
	if tr.MaxArchive > int64(tr.MaxParts)*tr.MaxPart {
		t.Errorf("MaxArchive %d does not fit in %d parts", tr.MaxArchive, tr.MaxParts)
	}
	r.reopen(t)
	again := r.s.Traits()
	if tr.Scheme != again.Scheme || tr.Granularity != again.Granularity || tr.Warm != again.Warm ||
		tr.WholeOnly != again.WholeOnly || tr.NamesKept != again.NamesKept || tr.MaxArchive != again.MaxArchive {
		t.Errorf("not constant: %+v, then %+v", tr, again)
	}
}

func testRoundTrip(t *testing.T, r *run) {
	stored := map[string][]byte{}
	for name, size := range map[string]int64{
		"one": 1, "a-part": r.part, "part-and-a-byte": r.part + 1, "parts": 2 * r.part, "set/deep/parts-and-a-half": 2*r.part + r.part/2,
	} {
		data := r.data[r.part/3:][:size]
		a := r.upload(t, name, data)
		r.checkArchive(t, a, name, data)
		if a.TreeHash != treehash.Sum(data) {
			t.Errorf("%s: completed with tree hash %s", name, a.TreeHash)
		}
		stored[a.ID] = data
		r.checkContent(t, a.ID, data)
	}
	if r.Reopen != nil {
		r.reopen(t)
	}
	listed := r.list(t)
	for id, data := range stored {
		a, is := listed[id]
		if !is {
			t.Errorf("archive %s is not listed", id)
			continue
		}
		name := strings.TrimPrefix(a.Description, "storetest/")
		if r.traits.Terse {
			name = id
		}
		r.checkArchive(t, a, name, data)
		r.checkContent(t, id, data)
	}
	if len(listed) != len(stored) {
		t.Errorf("%d archives listed, %d stored", len(listed), len(stored))
	}
}

func testCreateRefuses(t *testing.T, r *run) {
	for _, size := range []int64{0, -1, 1, r.traits.MinPart - 1, r.part + 1, r.part + treehash.LeafSize/2, 3 * r.part, 2 * r.traits.MaxPart, -r.part, 1 << 62} {
		if size&(size-1) == 0 && size >= r.traits.MinPart && size <= r.traits.MaxPart {
			continue
		}
		_, err := r.s.CreateUpload(r.ctx, coldstore.NewArchive{Name: "sized"}, size)
		wantErr(t, "part size", err, coldstore.ErrInvalid, "sized")
	}
	for _, d := range []string{strings.Repeat("x", 1025), "two\nlines", "tab\t", "nul\x00", "del\x7f", "é", "\xff"} {
		_, err := r.s.CreateUpload(r.ctx, coldstore.NewArchive{Name: "described", Description: d}, r.part)
		wantErr(t, "description", err, coldstore.ErrInvalid, "described")
	}
	if err := r.s.ListUploads(r.ctx, func(u coldstore.Upload) error {
		t.Errorf("a refused upload is there: %+v", u)
		return nil
	}); err != nil {
		t.Errorf("ListUploads: %v", err)
	}
}

func testDescription(t *testing.T, r *run) {
	var printable strings.Builder
	for c := byte(0x21); c <= 0x7e; c++ {
		printable.WriteByte(c)
	}
	for i, d := range []string{"", printable.String(), strings.Repeat(`"\, `, 256)[:1023] + "x"} {
		a := Upload(t, r.s, coldstore.NewArchive{Name: number(i), Description: d}, r.part, []byte{1})
		if a.Description != d {
			t.Errorf("description %q became %q", d, a.Description)
		}
		if got := r.list(t)[a.ID].Description; got != d && !r.traits.Terse {
			t.Errorf("description %q is listed as %q", d, got)
		}
	}
}

func testNames(t *testing.T, r *run) {
	if !r.traits.NamesKept {
		t.Skip("names are not kept")
	}
	for _, bad := range []string{
		"..", ".", "a/..", "../a", "a/../b", "a/./b", "/a", "a/", "a//b", "/", "a b", "a\x00", "a\nb", `a\b`, "é", "a~", "a%20b", "a:b", "a*",
		strings.Repeat("a/", 450) + "a", strings.Repeat("x", 901),
	} {
		_, err := r.s.CreateUpload(r.ctx, coldstore.NewArchive{Name: bad}, r.part)
		wantErr(t, "name "+bad, err, coldstore.ErrInvalid, "")
	}
	for i, good := range []string{
		"-", "...", ".hidden", "-a/-b", "a.json", "b/c.json", "LABEL-01ARZ3NDEKTSV4RRFFQ69G5FAV/x/000003-01ARZ3.tar.zst.age", "k=v_w",
		strings.Repeat("long-element/", 69) + "end", strings.Repeat("x", 240),
	} {
		data := Bytes(10+i, uint64(i))
		if a := r.upload(t, good, data); a.ID != good {
			t.Errorf("name %q became %q", good, a.ID)
		}
		r.checkContent(t, good, data)
	}
	// An id that exists is refused, at the latest when it would come to be twice, and nothing is overwritten.
	first, other := Bytes(100, 1), Bytes(100, 2)
	ua, ub := r.create(t, "twice"), r.create(t, "twice")
	r.put(t, ua, 0, first)
	r.put(t, ub, 0, other)
	if _, err := r.s.CompleteUpload(r.ctx, ua.ID, 100, treehash.Sum(first)); err != nil {
		t.Fatal(err)
	}
	_, err := r.s.CompleteUpload(r.ctx, ub.ID, 100, treehash.Sum(other))
	wantErr(t, "second completion", err, coldstore.ErrExists, "twice")
	u, err := r.s.CreateUpload(r.ctx, coldstore.NewArchive{Name: "twice"}, r.part)
	if err == nil {
		r.put(t, u, 0, other)
		_, err = r.s.CompleteUpload(r.ctx, u.ID, 100, treehash.Sum(other))
	}
	wantErr(t, "third upload", err, coldstore.ErrExists, "twice")
	r.checkContent(t, "twice", first)
	if _, err := r.s.CompleteUpload(r.ctx, ua.ID, 100, treehash.Sum(first)); err != nil {
		t.Errorf("repeating the first completion: %v", err)
	}
}

func testNoName(t *testing.T, r *run) {
	data := Bytes(50, 1)
	a, b := r.upload(t, "", data), r.upload(t, "", data)
	if a.ID == "" || a.ID == b.ID {
		t.Errorf("ids made are %q and %q", a.ID, b.ID)
	}
	listed := r.list(t)
	for _, id := range []string{a.ID, b.ID} {
		r.checkArchive(t, listed[id], "", data)
		r.checkContent(t, id, data)
	}
}

func testPutPartRefuses(t *testing.T, r *run) {
	u := r.create(t, "a")
	beyond, _ := r.traits.PartAt(r.part, r.traits.MaxParts)
	for what, c := range map[string]struct {
		off  int64
		data []byte
	}{
		"empty":            {0, nil},
		"too long":         {0, r.data[:r.part+1]},
		"misaligned":       {1, r.data[:1]},
		"half a part on":   {r.part / 2, r.data[:r.part/2]},
		"negative":         {-r.part, r.data[:r.part]},
		"beyond the parts": {beyond, r.data[:1]},
	} {
		err := r.s.PutPart(r.ctx, u.ID, c.off, c.data, treehash.Sum(c.data))
		wantErr(t, what, err, coldstore.ErrInvalid, u.ID)
	}
	if parts, err := r.s.ListParts(r.ctx, u.ID); err != nil || len(parts) != 0 {
		t.Errorf("refused parts are there: %v, %v", parts, err)
	}
}

func testPutPartWrongHash(t *testing.T, r *run) {
	u := r.create(t, "a")
	data := append([]byte(nil), r.data[:r.part]...)
	hash := treehash.Sum(data)
	data[len(data)/2] ^= 1
	wantErr(t, "a flipped bit", r.s.PutPart(r.ctx, u.ID, 0, data, hash), coldstore.ErrIntegrity, u.ID)
	wantErr(t, "no hash", r.s.PutPart(r.ctx, u.ID, 0, data, treehash.Hash{}), coldstore.ErrIntegrity, u.ID)
	wantErr(t, "a shorter part", r.s.PutPart(r.ctx, u.ID, 0, r.data[:r.part-1], hash), coldstore.ErrIntegrity, u.ID)
	if parts, err := r.s.ListParts(r.ctx, u.ID); err != nil || len(parts) != 0 {
		t.Errorf("a refused part is there: %v, %v", parts, err)
	}
	// A good part is not harmed by a bad one put over it.
	r.put(t, u, 0, r.data[:r.part])
	wantErr(t, "over a good part", r.s.PutPart(r.ctx, u.ID, 0, data, hash), coldstore.ErrIntegrity, u.ID)
	a, err := r.s.CompleteUpload(r.ctx, u.ID, r.part, hash)
	if err != nil {
		t.Fatal(err)
	}
	r.checkContent(t, a.ID, r.data[:r.part])
}

func testAnyOrder(t *testing.T, r *run) {
	u := r.create(t, "a")
	r.put(t, u, 3*r.part, r.data[3*r.part:])
	var wg sync.WaitGroup
	for _, i := range []int64{2, 0, 1} {
		wg.Go(func() {
			p := r.data[i*r.part : (i+1)*r.part]
			if err := r.s.PutPart(r.ctx, u.ID, i*r.part, p, treehash.Sum(p)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	a, err := r.s.CompleteUpload(r.ctx, u.ID, int64(len(r.data)), treehash.Sum(r.data))
	if err != nil {
		t.Fatal(err)
	}
	r.checkContent(t, a.ID, r.data)
}

func testPutPartRepeated(t *testing.T, r *run) {
	u := r.create(t, "a")
	for range 3 {
		PutParts(t, r.s, u, r.data[:r.part+7])
	}
	if r.Reopen != nil {
		r.reopen(t)
		PutParts(t, r.s, u, r.data[:r.part+7])
	}
	if parts, err := r.s.ListParts(r.ctx, u.ID); err != nil || len(parts) != 2 {
		t.Errorf("ListParts: %v, %v", parts, err)
	}
	a, err := r.s.CompleteUpload(r.ctx, u.ID, r.part+7, treehash.Sum(r.data[:r.part+7]))
	if err != nil {
		t.Fatal(err)
	}
	r.checkContent(t, a.ID, r.data[:r.part+7])
}

func testPutPartOtherData(t *testing.T, r *run) {
	u := r.create(t, "a")
	first, last := r.data[:r.part], r.data[r.part:][:r.part/2]
	r.put(t, u, r.part, r.data[:r.part]) // other bytes, and more of them than the last part has in the end
	r.put(t, u, 0, r.data[r.part:][:r.part])
	r.put(t, u, 0, r.data[:5])
	if r.Reopen != nil {
		r.reopen(t)
	}
	r.put(t, u, r.part, last)
	r.put(t, u, 0, first)
	want := append(append([]byte(nil), first...), last...)
	a, err := r.s.CompleteUpload(r.ctx, u.ID, int64(len(want)), treehash.Sum(want))
	if err != nil {
		t.Fatal(err)
	}
	r.checkArchive(t, a, "a", want)
	r.checkArchive(t, r.list(t)[a.ID], "a", want)
	r.checkContent(t, a.ID, want)
}

func testPutPartKeepsNothing(t *testing.T, r *run) {
	u := r.create(t, "a")
	buffer := append([]byte(nil), r.data[:r.part]...)
	r.put(t, u, 0, buffer)
	clear(buffer)
	a, err := r.s.CompleteUpload(r.ctx, u.ID, r.part, treehash.Sum(r.data[:r.part]))
	if err != nil {
		t.Fatal(err)
	}
	r.checkContent(t, a.ID, r.data[:r.part])
}

func testListParts(t *testing.T, r *run) {
	u := r.create(t, "a")
	anew := false
	check := func(offs ...int64) {
		t.Helper()
		parts, err := r.s.ListParts(r.ctx, u.ID)
		if err != nil || len(parts) != len(offs) {
			t.Fatalf("ListParts: %v, %v; want %v", parts, err, offs)
		}
		for i, off := range offs {
			p := r.data[off:min(off+r.part, int64(len(r.data)))]
			want := coldstore.Part{Offset: off, Size: int64(len(p)), TreeHash: treehash.Sum(p)}
			if r.traits.Terse && anew && parts[i].TreeHash.IsZero() {
				want.TreeHash = treehash.Hash{}
			}
			want.Sum = parts[i].Sum
			if sum, ok := r.s.(coldstore.PartSummer); parts[i].Sum != "" && (!ok || sum.SumPart(p) != parts[i].Sum) {
				t.Errorf("part %d has sum %q", i, parts[i].Sum)
			}
			if parts[i] != want {
				t.Errorf("part %d is %+v, want %+v", i, parts[i], want)
			}
		}
	}
	check()
	r.put(t, u, 3*r.part, r.data[3*r.part:])
	r.put(t, u, r.part, r.data[r.part:2*r.part])
	check(r.part, 3*r.part)
	if r.Reopen != nil {
		r.reopen(t)
		anew = true
		check(r.part, 3*r.part)
	}
	r.put(t, u, 0, r.data[:r.part])
	check(0, r.part, 3*r.part)
}

func testUnknownUpload(t *testing.T, r *run) {
	gone := r.create(t, "gone")
	if err := r.s.AbortUpload(r.ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	data := []byte("x")
	for _, id := range []string{gone.ID, "unknown", "../../etc", ""} {
		wantErr(t, "PutPart", r.s.PutPart(r.ctx, id, 0, data, treehash.Sum(data)), coldstore.ErrNotFound, id)
		_, err := r.s.ListParts(r.ctx, id)
		wantErr(t, "ListParts", err, coldstore.ErrNotFound, id)
		_, err = r.s.CompleteUpload(r.ctx, id, 1, treehash.Sum(data))
		wantErr(t, "CompleteUpload", err, coldstore.ErrNotFound, id)
		if err := r.s.AbortUpload(r.ctx, id); err != nil {
			t.Errorf("AbortUpload of what is not there: %v", err)
		}
	}
}

func testCanceled(t *testing.T, r *run) {
	a := r.upload(t, "there", r.data[:10])
	got := r.ready(t, a.ID, coldstore.Range{})
	u := r.create(t, "begun")
	r.put(t, u, 0, r.data[:10])
	ctx, cancel := context.WithCancel(r.ctx)
	cancel()
	hash := treehash.Sum(r.data[:10])
	_, create := r.s.CreateUpload(ctx, coldstore.NewArchive{Name: "b"}, r.part)
	_, parts := r.s.ListParts(ctx, u.ID)
	_, complete := r.s.CompleteUpload(ctx, u.ID, 10, hash)
	_, list := r.s.List(ctx, func(coldstore.Archive) error { return nil })
	_, request := r.s.RequestRetrieval(ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	_, check := r.s.CheckRetrieval(ctx, got.Token)
	_, open := r.s.OpenRetrieved(ctx, got, 0, 10)
	for what, err := range map[string]error{
		"CreateUpload": create, "ListParts": parts, "CompleteUpload": complete, "List": list,
		"RequestRetrieval": request, "CheckRetrieval": check, "OpenRetrieved": open,
		"PutPart":     r.s.PutPart(ctx, u.ID, 0, r.data[:10], hash),
		"AbortUpload": r.s.AbortUpload(ctx, u.ID),
		"ListUploads": r.s.ListUploads(ctx, func(coldstore.Upload) error { return nil }),
		"Delete":      r.s.Delete(ctx, a.ID),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: %v", what, err)
		}
	}
	if _, err := r.s.CompleteUpload(r.ctx, u.ID, 10, hash); err != nil {
		t.Errorf("after all that: %v", err)
	}
	r.checkContent(t, a.ID, r.data[:10])
}

// again does what a store leaves to its caller: a service that is asked by many at once may say that something
// went wrong with it (coldstore.ErrTemporary), and may be asked again.
func again(do func() error) error {
	err := do()
	for tries := 1; tries < 5 && errors.Is(err, coldstore.ErrTemporary); tries++ {
		err = do()
	}
	return err
}

func testConcurrent(t *testing.T, r *run) {
	var wg sync.WaitGroup
	var ids sync.Map
	for i := range 6 {
		wg.Go(func() {
			data := Bytes(int(r.part)+i, uint64(i))
			a := Upload(t, r.s, coldstore.NewArchive{Name: number(i)}, r.part, data)
			ids.Store(a.ID, treehash.Sum(data))
			if i%3 == 0 {
				if err := again(func() error { return r.s.Delete(r.ctx, a.ID) }); err != nil {
					t.Error(err)
				}
				ids.Delete(a.ID)
			}
			if err := again(func() error { return r.s.ListUploads(r.ctx, func(coldstore.Upload) error { return nil }) }); err != nil {
				t.Error(err)
			}
			err := again(func() error {
				_, err := r.s.List(r.ctx, func(coldstore.Archive) error { return nil })
				return err
			})
			if err != nil && !errors.Is(err, coldstore.ErrNotReady) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	listed := r.list(t)
	ids.Range(func(id, hash any) bool {
		a, is := listed[id.(string)]
		if !is || !a.TreeHash.IsZero() && a.TreeHash != hash.(treehash.Hash) {
			t.Errorf("archive %s: %+v", id, a)
		}
		delete(listed, id.(string))
		return true
	})
	for id := range listed {
		t.Errorf("archive %s should not be there", id)
	}
}
