package storetest

import (
	"errors"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/treehash"
)

// listCases are those of List, ListUploads, Stat and Delete.
func listCases() []testCase {
	return []testCase{
		{"ListEmpty", testListEmpty},
		{"ListMany", testListMany},
		{"ListStops", testListStops},
		{"ListUploads", testListUploads},
		{"Stat", testStat},
		{"Delete", testDelete},
		{"DeleteThenAgain", testDeleteThenAgain},
	}
}

func testListEmpty(t *testing.T, r *run) {
	if got := r.list(t); len(got) != 0 {
		t.Errorf("an empty vault lists %v", got)
	}
}

func testListMany(t *testing.T, r *run) {
	const n = 25
	var latest time.Time
	want := map[string]bool{}
	for i := range n {
		a := r.upload(t, number(i), Bytes(1+i, uint64(i)))
		want[a.ID] = true
		latest = a.Created
	}
	for id, a := range r.list(t) {
		if !want[id] {
			t.Errorf("listed: %+v", a)
		}
		delete(want, id)
	}
	for id := range want {
		t.Errorf("not listed: %s", id)
	}
	asOf, err := r.s.List(r.ctx, func(coldstore.Archive) error { return nil })
	if err != nil || asOf.Before(latest) {
		t.Errorf("a listing with what was made at %v is of %v, %v", latest, asOf, err)
	}
}

func testListStops(t *testing.T, r *run) {
	for i := range 3 {
		r.upload(t, number(i), []byte{1})
		r.create(t, number(10+i))
	}
	errStop := errors.New("stop")
	calls := 0
	// Before the listing, for which the clock may be moved: uploads may not live that long.
	err := r.s.ListUploads(r.ctx, func(coldstore.Upload) error { calls++; return errStop })
	if !errors.Is(err, errStop) || calls != 1 {
		t.Errorf("ListUploads: %v after %d calls", err, calls)
	}
	r.list(t)
	calls = 0
	_, err = r.s.List(r.ctx, func(coldstore.Archive) error { calls++; return errStop })
	if err != errStop && !errors.Is(err, errStop) || calls != 1 {
		t.Errorf("List: %v after %d calls", err, calls)
	}
}

func testListUploads(t *testing.T, r *run) {
	want := map[string]coldstore.Upload{}
	for i, name := range []string{"set/a", "set/b", "", "set/a"} {
		size := r.part << (i % 2)
		u, err := r.s.CreateUpload(r.ctx, coldstore.NewArchive{Name: name, Description: "d/" + name}, size)
		if err != nil {
			t.Fatal(err)
		}
		if u.PartSize != size || u.Name != name && name != "" || u.Description != "d/"+name || u.Created.IsZero() {
			t.Errorf("CreateUpload: %+v", u)
		}
		want[u.ID] = u
	}
	for range 2 {
		got := map[string]bool{}
		if err := r.s.ListUploads(r.ctx, func(u coldstore.Upload) error {
			w, is := want[u.ID]
			if r.traits.Terse && u.PartSize == 0 && u.Description == "" && !u.Created.IsZero() {
				u.PartSize, u.Description, u.Created = w.PartSize, w.Description, w.Created
			}
			if !is || got[u.ID] || u.PartSize != w.PartSize || u.Description != w.Description || !u.Created.Equal(w.Created) {
				t.Errorf("listed %+v, want %+v", u, w)
			}
			if r.traits.NamesKept && w.Name != "" && u.Name != w.Name {
				t.Errorf("upload of %q is listed as %q", w.Name, u.Name)
			}
			got[u.ID] = true
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(got) != len(want) {
			t.Errorf("%d uploads listed, %d are there", len(got), len(want))
		}
		if r.Reopen == nil {
			return
		}
		r.reopen(t)
	}
}

func testStat(t *testing.T, r *run) {
	st, ok := r.s.(coldstore.Stater)
	if !ok {
		t.Skip("no Stater")
	}
	a := r.upload(t, "set/a", r.data)
	got, err := st.Stat(r.ctx, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	r.checkArchive(t, got, "set/a", r.data)
	if listed := r.list(t)[a.ID]; got.ID != listed.ID || got.Size != listed.Size || !got.Created.Equal(listed.Created) {
		t.Errorf("Stat %+v, List %+v", got, listed)
	}
	for _, id := range []string{"unknown", "set", "set/a/b", "set/b"} {
		_, err := st.Stat(r.ctx, id)
		wantErr(t, "Stat", err, coldstore.ErrNotFound, id)
	}
}

func testDelete(t *testing.T, r *run) {
	a, b := r.upload(t, "set/a", r.data[:10]), r.upload(t, "set/b", r.data[:20])
	if err := r.s.Delete(r.ctx, a.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.s.Delete(r.ctx, a.ID); err != nil || r.traits.ListLag == 0 { // one that cannot tell may succeed
			wantErr(t, "Delete again", err, coldstore.ErrNotFound, a.ID)
		}
		_, err := r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
		wantErr(t, "RequestRetrieval", err, coldstore.ErrNotFound, a.ID)
		if listed := r.list(t); len(listed) != 1 || listed[b.ID].Size != 20 {
			t.Errorf("listed: %v", listed)
		}
		r.checkContent(t, b.ID, r.data[:20])
		if r.Reopen == nil {
			break
		}
		r.reopen(t)
	}
	if r.traits.NamesKept {
		for _, id := range []string{"unknown", "set", "set/a/b"} {
			wantErr(t, "Delete", r.s.Delete(r.ctx, id), coldstore.ErrNotFound, id)
		}
	}
	for _, id := range []string{"../x", "/set/b", "set/../set/b", "", "\x00"} { // no names at all, whatever it is called
		if err := r.s.Delete(r.ctx, id); !errors.Is(err, coldstore.ErrNotFound) && !errors.Is(err, coldstore.ErrInvalid) {
			t.Errorf("Delete of %q: %v", id, err)
		}
	}
	r.checkContent(t, b.ID, r.data[:20])
}

// After its deletion a name is free again, and nothing of the old archive is left.
func testDeleteThenAgain(t *testing.T, r *run) {
	for i := range 3 {
		data := Bytes(100*(3-i), uint64(i))
		a := r.upload(t, "set/a", data)
		r.checkContent(t, a.ID, data)
		if listed := r.list(t); len(listed) != 1 || listed[a.ID].Size != int64(len(data)) {
			t.Errorf("listed: %v", listed)
		}
		if err := r.s.Delete(r.ctx, a.ID); err != nil {
			t.Fatal(err)
		}
		if r.has(t, a.ID) {
			t.Error("it is still there")
		}
		if hash := treehash.Sum(data); i == 2 && hash.IsZero() {
			t.Error("no hash")
		}
	}
}
