package storetest

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"github.com/firn-backup/firn/internal/coldstore"
)

// retrievalCases are those of RequestRetrieval, CheckRetrieval and OpenRetrieved.
func retrievalCases() []testCase {
	return []testCase{
		{"RetrieveWhole", testRetrieveWhole},
		{"RetrieveRanges", testRetrieveRanges},
		{"RequestRefuses", testRequestRefuses},
		{"OpenRefuses", testOpenRefuses},
		{"OpenTwice", testOpenTwice},
		{"Warm", testWarm},
		{"NotReady", testNotReady},
		{"Expired", testExpired},
		{"RequestRepeated", testRequestRepeated},
		{"Token", testToken},
	}
}

func testRetrieveWhole(t *testing.T, r *run) {
	a := r.upload(t, "a", r.data)
	got := r.ready(t, a.ID, coldstore.Range{})
	if got.Archive != a.ID || !got.Range.IsWhole() && got.Range != (coldstore.Range{Size: a.Size}) {
		t.Errorf("retrieval: %+v", got)
	}
	n := int64(len(r.data))
	for _, c := range [][2]int64{{0, n}, {0, 1}, {n - 1, 1}, {1, n - 2}, {r.part - 1, 2}, {r.part, r.part}, {12345, 777}} {
		if !bytes.Equal(r.read(t, got, c[0], c[1]), r.data[c[0]:c[0]+c[1]]) {
			t.Errorf("%d bytes at %d are wrong", c[1], c[0])
		}
	}
	rc, err := r.s.OpenRetrieved(r.ctx, got, r.part/2, r.part)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if err := iotest.TestReader(rc, r.data[r.part/2:][:r.part]); err != nil {
		t.Errorf("as a reader: %v", err)
	}
}

func testRetrieveRanges(t *testing.T, r *run) {
	g := r.traits.Granularity
	if r.traits.WholeOnly {
		t.Skip("whole archives only")
	}
	a := r.upload(t, "a", r.data)
	n := int64(len(r.data))
	last := n / g * g
	for _, rg := range []coldstore.Range{
		{Offset: 0, Size: g}, {Offset: g, Size: g}, {Offset: last, Size: n - last}, {Offset: g, Size: n - g}, {Offset: 0, Size: n},
	} {
		if rg.Size == 0 || rg.Offset+rg.Size > n {
			continue
		}
		got := r.ready(t, a.ID, rg)
		// It may make more readable than was asked for.
		if have := got.Range; !have.IsWhole() && (have.Offset > rg.Offset || have.Offset+have.Size < rg.Offset+rg.Size) {
			t.Errorf("asked for %v, got %v", rg, have)
		}
		if !bytes.Equal(r.read(t, got, rg.Offset, rg.Size), r.data[rg.Offset:rg.Offset+rg.Size]) {
			t.Errorf("range %v is wrong", rg)
		}
		if mid := rg.Offset + rg.Size/2; !bytes.Equal(r.read(t, got, mid, 1), r.data[mid:mid+1]) {
			t.Errorf("the middle of range %v is wrong", rg)
		}
	}
}

func testRequestRefuses(t *testing.T, r *run) {
	a := r.upload(t, "a", r.data)
	n, g := a.Size, r.traits.Granularity
	_, err := r.s.RequestRetrieval(r.ctx, "unknown", coldstore.Range{}, coldstore.RetrievalOptions{})
	wantErr(t, "an unknown archive", err, coldstore.ErrNotFound, "unknown")
	bad := []coldstore.Range{
		{Offset: -g, Size: g}, {Offset: 0, Size: -1}, {Offset: g}, {Offset: 0, Size: n + 1}, {Offset: (n/g + 1) * g, Size: g},
		{Offset: g, Size: n}, {Offset: g, Size: 1<<63 - 1},
	}
	if g > 1 {
		bad = append(bad, []coldstore.Range{{Offset: 1, Size: g}, {Offset: 0, Size: g - 1}, {Offset: g, Size: g + 1}, {Offset: 1, Size: n - 1}}...)
	}
	if r.traits.WholeOnly {
		bad = bad[:5]
	}
	for _, rg := range bad {
		_, err := r.s.RequestRetrieval(r.ctx, a.ID, rg, coldstore.RetrievalOptions{})
		wantErr(t, "a bad range", err, coldstore.ErrInvalid, a.ID)
	}
	_, err = r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{Tier: "Yesterday"})
	wantErr(t, "an unknown tier", err, coldstore.ErrInvalid, a.ID)
	_, err = r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{Days: -1})
	wantErr(t, "negative days", err, coldstore.ErrInvalid, a.ID)
	for _, tier := range r.traits.Tiers {
		if _, err := r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{Tier: tier}); err != nil {
			t.Errorf("tier %s: %v", tier, err)
		}
	}
}

func testOpenRefuses(t *testing.T, r *run) {
	a, b := r.upload(t, "a", r.data), r.upload(t, "b", r.data)
	whole := r.ready(t, a.ID, coldstore.Range{})
	n := a.Size
	for _, c := range [][2]int64{{-1, 1}, {0, 0}, {0, -1}, {0, n + 1}, {n, 1}, {n - 1, 2}, {1, n}, {1, 1<<63 - 1}} {
		_, err := r.s.OpenRetrieved(r.ctx, whole, c[0], c[1])
		wantErr(t, "outside the archive", err, coldstore.ErrInvalid, a.ID)
	}
	if r.traits.WholeOnly {
		return
	}
	g := r.traits.Granularity
	// Of another archive, so that the whole one is not what is answered with.
	part := r.ready(t, b.ID, coldstore.Range{Offset: g, Size: g})
	if part.Range != (coldstore.Range{Offset: g, Size: g}) {
		return
	}
	for _, c := range [][2]int64{{0, 1}, {g - 1, 1}, {g - 1, 2}, {2 * g, 1}, {2*g - 1, 2}, {0, 3 * g}} {
		_, err := r.s.OpenRetrieved(r.ctx, part, c[0], c[1])
		wantErr(t, "outside the range", err, coldstore.ErrInvalid, b.ID)
	}
	// Nor can a range be stretched by who asks.
	part.Range = coldstore.Range{}
	_, err := r.s.OpenRetrieved(r.ctx, part, 0, 1)
	wantErr(t, "outside the range that the token has", err, coldstore.ErrInvalid, b.ID)
}

func testOpenTwice(t *testing.T, r *run) {
	a := r.upload(t, "a", r.data)
	got := r.ready(t, a.ID, coldstore.Range{})
	first, err := r.s.OpenRetrieved(r.ctx, got, 0, a.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	half := make([]byte, len(r.data)/2)
	if _, err := io.ReadFull(first, half); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(r.read(t, got, 0, a.Size), r.data) {
		t.Error("a second reader reads something else")
	}
	rest, err := io.ReadAll(first)
	if err != nil || !bytes.Equal(append(half, rest...), r.data) {
		t.Errorf("the first reader was disturbed: %v", err)
	}
}

func testWarm(t *testing.T, r *run) {
	a := r.upload(t, "a", r.data[:10])
	got, err := r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.traits.Warm && !got.Ready {
		t.Error("a warm store is not ready at once")
	}
}

func testNotReady(t *testing.T, r *run) {
	if r.traits.Warm {
		t.Skip("a warm store")
	}
	a := r.upload(t, "a", r.data)
	got, err := r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Ready {
		t.Skip("it is ready at once")
	}
	if got.Token == "" || got.Requested.IsZero() {
		t.Fatalf("asked for just now: %+v", got)
	}
	if _, err := r.s.OpenRetrieved(r.ctx, got, 0, 1); err == nil {
		t.Error("read before it was ready")
	} else {
		wantErr(t, "OpenRetrieved", err, coldstore.ErrNotReady, a.ID)
	}
	checked, err := r.s.CheckRetrieval(r.ctx, got.Token)
	if err != nil || checked.Ready || checked.Archive != a.ID || !checked.Requested.Equal(got.Requested) {
		t.Errorf("CheckRetrieval: %+v, %v", checked, err)
	}
	if r.Reopen != nil {
		r.reopen(t)
	}
	got = r.await(t, got)
	if !bytes.Equal(r.read(t, got, 0, a.Size), r.data) {
		t.Error("wrong bytes")
	}
}

func testExpired(t *testing.T, r *run) {
	if r.traits.Warm || r.Advance == nil {
		t.Skip("nothing expires, or the clock cannot be moved")
	}
	a := r.upload(t, "a", r.data[:100])
	got := r.ready(t, a.ID, coldstore.Range{})
	if got.Expires.IsZero() {
		t.Skip("this one never expires")
	}
	hours := 0
	for ; hours < 24*40; hours++ {
		if _, err := r.s.CheckRetrieval(r.ctx, got.Token); err != nil {
			wantErr(t, "CheckRetrieval", err, coldstore.ErrExpired, got.Token)
			break
		}
		r.read(t, got, 0, 100)
		r.Advance(time.Hour)
	}
	if hours < 1 || hours == 24*40 {
		t.Errorf("expired after %d hours", hours)
	}
	_, err := r.s.OpenRetrieved(r.ctx, got, 0, 1)
	wantErr(t, "OpenRetrieved", err, coldstore.ErrExpired, a.ID)
	anew := r.ready(t, a.ID, coldstore.Range{})
	if anew.Token == got.Token {
		t.Error("asked anew, the expired retrieval is the answer")
	}
	if !bytes.Equal(r.read(t, anew, 0, 100), r.data[:100]) {
		t.Error("wrong bytes")
	}
}

func testRequestRepeated(t *testing.T, r *run) {
	a := r.upload(t, "a", r.data)
	first, err := r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Reopen != nil {
		r.reopen(t)
	}
	again, err := r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if again.Token != first.Token && !r.traits.OneRetrieval {
		t.Errorf("a retrieval is running, and another was begun: %+v, %+v", first, again)
	}
	r.await(t, first)
	again, err = r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{}, coldstore.RetrievalOptions{})
	if err != nil || !again.Ready {
		t.Errorf("a retrieval is ready, and the answer is %+v, %v", again, err)
	}
	if r.traits.WholeOnly {
		return
	}
	part, err := r.s.RequestRetrieval(r.ctx, a.ID, coldstore.Range{Size: r.traits.Granularity}, coldstore.RetrievalOptions{})
	if err != nil || !part.Ready {
		t.Errorf("the whole is readable, but its begin is not: %+v, %v", part, err)
	}
}

func testToken(t *testing.T, r *run) {
	a := r.upload(t, "set/a", r.data)
	got := r.ready(t, a.ID, coldstore.Range{})
	if r.Reopen != nil {
		r.reopen(t)
	}
	checked, err := r.s.CheckRetrieval(r.ctx, got.Token)
	if err != nil || !checked.Ready || checked.Archive != a.ID || checked.Token != got.Token {
		t.Fatalf("by its token: %+v, %v", checked, err)
	}
	if !bytes.Equal(r.read(t, checked, 0, a.Size), r.data) {
		t.Error("wrong bytes")
	}
	for _, bad := range []string{"", "unknown", "../../etc/passwd", "warm:0:0:../../x", got.Token + "x/../.."} {
		if _, err := r.s.CheckRetrieval(r.ctx, bad); err == nil {
			t.Errorf("token %q is known", bad)
		} else {
			wantErr(t, "token", err, coldstore.ErrExpired, bad)
		}
		_, err := r.s.OpenRetrieved(r.ctx, coldstore.Retrieval{Token: bad, Archive: a.ID, Ready: true}, 0, 1)
		wantErr(t, "token", err, coldstore.ErrExpired, a.ID)
	}
}
