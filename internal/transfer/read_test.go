package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/firn-backup/firn/internal/coldstore"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/treehash"
	"pgregory.net/rapid"
)

func archive(data []byte) (*memStore, *manifest.Volume) {
	m := newMemStore()
	m.archives["a"] = data
	return m, &manifest.Volume{
		N: 1, Archive: "a", Size: int64(len(data)), Leaves: treehash.Leaves(data),
		Header: bytes.Clone(data[:min(200, len(data))]), Tail: bytes.Clone(data[max(len(data)-17, 0):]),
	}
}

// Any reads at any places over any retrievals: right bytes, or an error where
// nothing was retrieved, and never more in memory than said.
func TestReaderAtProperty(t *testing.T) {
	t.Parallel()
	data := noise(2, 12*mib+12345)
	_, v := archive(data)
	rapid.Check(t, func(t *rapid.T) {
		m := newMemStore()
		m.archives["a"] = data
		var ps pauser
		have := make([]bool, 14)
		var rs []coldstore.Retrieval
		if rapid.IntRange(0, 3).Draw(t, "whole") == 0 {
			rs = append(rs, coldstore.Retrieval{Archive: "a"})
			for i := range have {
				have[i] = true
			}
		} else {
			for range rapid.IntRange(0, 3).Draw(t, "retrievals") {
				first := rapid.IntRange(0, 12).Draw(t, "first")
				last := rapid.IntRange(first, 12).Draw(t, "last")
				size := min(int64(last-first+1)*mib, v.Size-int64(first)*mib)
				rs = append(rs, coldstore.Retrieval{Archive: "a", Range: coldstore.Range{Offset: int64(first) * mib, Size: size}})
				for i := first; i <= last; i++ {
					have[i] = true
				}
			}
		}
		if rapid.Bool().Draw(t, "breaks") {
			m.cut = func(open int) int64 { return int64(open%3) * 300_000 }
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r := NewReaderAt(ctx, m, v, rs, Options{Sleep: ps.sleep}, func(d Damage) { t.Fatalf("damage %+v", d) })
		pos := int64(0)
		for range rapid.IntRange(1, 8).Draw(t, "reads") {
			size := rapid.SampledFrom([]int{1, 17, 4096, 65552, mib, 3 * mib}).Draw(t, "size")
			if rapid.Bool().Draw(t, "jump") {
				pos = rapid.Int64Range(0, v.Size+100).Draw(t, "pos")
			}
			p := make([]byte, size)
			n, err := r.ReadAt(p, pos)
			want := int64(0)
			for want < int64(size) && pos+want < v.Size {
				at := pos + want
				if at >= 200 && at < v.Size-17 && !have[at/mib] {
					break
				}
				next := (at/mib + 1) * mib
				for _, edge := range []int64{200, v.Size - 17, v.Size} {
					if at < edge {
						next = min(next, edge)
					}
				}
				want = min(next-pos, int64(size))
			}
			if int64(n) != want || (err == nil) != (n == size) || !bytes.Equal(p[:n], data[min(pos, v.Size):min(pos, v.Size)+int64(n)]) {
				t.Fatalf("ReadAt %d+%d: %d of %d, %v", pos, size, n, want, err)
			}
			if err != nil && (err == io.EOF) != (pos+want >= v.Size) {
				t.Fatalf("ReadAt %d+%d: %v", pos, size, err)
			}
			pos += int64(n)
			if pos >= v.Size {
				pos = 0
			}
		}
		if err := r.Close(); err != nil {
			t.Fatalf("%v", err)
		}
		if n := len(r.blocks) + len(r.spare); n > maxBlocks {
			t.Fatalf("%d blocks in memory", n)
		}
	})
}

func TestReaderAtNotRetrieved(t *testing.T) {
	t.Parallel()
	m, v := archive(noise(1, 5*mib))
	r := NewReaderAt(t.Context(), m, v, nil, Options{}, nil)
	p := make([]byte, 4096)
	n, err := r.ReadAt(p, 0)
	if n != 200 || err == nil || !strings.Contains(err.Error(), "not retrieved") {
		t.Fatal(n, err)
	}
	if n, err := r.ReadAt(p, v.Size-17); n != 17 || err != io.EOF {
		t.Fatal(n, err)
	}
	if _, err := r.ReadAt(p, -1); err == nil {
		t.Fatal("negative offset")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadAt(p, 0); err == nil {
		t.Fatal("ReadAt after Close")
	}
}

// A flipped bit is found wherever it is, read again, and reported once; the rest is served.
func TestReaderAtDamage(t *testing.T) {
	t.Parallel()
	data := noise(1, 9*mib+99)
	for _, tc := range []struct {
		name string
		at   int64
		once bool // only on the way, the first time
		want []Damage
	}{
		{"middle", 3*mib + 5, false, []Damage{{"a", 3 * mib, mib}}},
		{"on the way", 3*mib + 5, true, nil},
		{"header", 7, false, []Damage{{"a", 0, mib}}},
		{"tail", 9*mib + 98, false, []Damage{{"a", 9 * mib, 99}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			m, v := archive(data)
			hits := 0
			m.flip = func(_ int, off int64) bool {
				if off == tc.at {
					hits++
					return hits == 1 || !tc.once
				}
				return false
			}
			var got []Damage
			r := NewReaderAt(t.Context(), m, v, []coldstore.Retrieval{{Archive: "a"}}, Options{}, func(d Damage) { got = append(got, d) })
			defer r.Close()
			for range 2 { // more than fits in memory, so everything is read twice
				for off := int64(0); off < v.Size; off += 300_000 {
					p := make([]byte, min(300_000, v.Size-off))
					if _, err := r.ReadAt(p, off); err != nil {
						t.Fatal(err)
					}
					want := bytes.Clone(data[off : off+int64(len(p))])
					if i := tc.at - off; len(tc.want) > 0 && i >= 0 && i < int64(len(p)) && tc.at >= 200 && tc.at < v.Size-17 {
						want[i] ^= 1
					}
					if !bytes.Equal(p, want) {
						t.Fatalf("wrong bytes at %d", off)
					}
				}
			}
			if len(got) != len(tc.want) || (len(got) == 1 && got[0] != tc.want[0]) {
				t.Errorf("damage %v", got)
			}
		})
	}
}

// Sequential reading takes few requests, and a look into the middle of a whole archive little of it.
func TestReaderAtRequests(t *testing.T) {
	t.Parallel()
	data := noise(1, 40*mib)
	m, v := archive(data)
	r := NewReaderAt(t.Context(), m, v, []coldstore.Retrieval{{Archive: "a"}}, Options{}, nil)
	if _, err := io.Copy(io.Discard, io.NewSectionReader(r, 0, v.Size)); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if len(m.opens) > 8 || m.served > v.Size+4*mib {
		t.Errorf("%d requests, %d bytes", len(m.opens), m.served)
	}
	m, v = archive(data)
	r = NewReaderAt(t.Context(), m, v, []coldstore.Retrieval{{Archive: "a"}}, Options{}, nil)
	if _, err := r.ReadAt(make([]byte, 1000), 20*mib+5); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if len(m.opens) != 1 || m.opens[0] != (coldstore.Range{Offset: 20 * mib, Size: mib}) {
		t.Errorf("requests %v", m.opens)
	}
	// A range that was retrieved for this is one request.
	m, v = archive(data)
	rs := []coldstore.Retrieval{{Archive: "a", Range: coldstore.Range{Offset: 8 * mib, Size: 7 * mib}}}
	r = NewReaderAt(t.Context(), m, v, rs, Options{}, nil)
	if _, err := r.ReadAt(make([]byte, 7*mib), 8*mib); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if len(m.opens) != 1 || m.opens[0] != rs[0].Range {
		t.Errorf("requests %v", m.opens)
	}
}

func TestReaderAtConcurrent(t *testing.T) {
	t.Parallel()
	data := noise(1, 20*mib)
	m, v := archive(data)
	r := NewReaderAt(t.Context(), m, v, []coldstore.Retrieval{{Archive: "a"}}, Options{}, nil)
	defer r.Close()
	var wg sync.WaitGroup
	for k := range 6 {
		wg.Go(func() {
			p := make([]byte, 70_000)
			for i := range 60 {
				off := int64((i*(k+1)*333_333 + k*mib) % (20*mib - len(p)))
				if _, err := r.ReadAt(p, off); err != nil || !bytes.Equal(p, data[off:off+int64(len(p))]) {
					t.Errorf("at %d: %v", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// When the context ends, everything does; nobody needs to call Close.
func TestReaderAtCancel(t *testing.T) {
	t.Parallel()
	data := noise(1, 20*mib)
	synctest.Test(t, func(t *testing.T) {
		m, v := archive(data)
		ctx, cancel := context.WithCancel(t.Context())
		r := NewReaderAt(ctx, m, v, []coldstore.Retrieval{{Archive: "a", Range: coldstore.Range{Size: 15 * mib}}}, Options{}, nil)
		if _, err := r.ReadAt(make([]byte, 1000), 500); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m.served > 9*mib {
			t.Errorf("%d bytes read ahead", m.served)
		}
		cancel()
		synctest.Wait()
		if _, err := r.ReadAt(make([]byte, 1000), 14*mib); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

func TestReaderAtGivesUp(t *testing.T) {
	t.Parallel()
	m, v := archive(noise(1, 5*mib))
	m.before = func(_ context.Context, op string) error { return coldstore.ErrExpired }
	var ps pauser
	r := NewReaderAt(t.Context(), m, v, []coldstore.Retrieval{{Archive: "a"}}, Options{Sleep: ps.sleep}, nil)
	defer r.Close()
	if _, err := r.ReadAt(make([]byte, 10), mib); !errors.Is(err, coldstore.ErrExpired) || len(ps.pauses) > 0 {
		t.Fatal(err, ps.pauses)
	}
	m.before = func(_ context.Context, op string) error { return coldstore.ErrTemporary }
	if _, err := r.ReadAt(make([]byte, 10), mib); !errors.Is(err, coldstore.ErrTemporary) || len(ps.pauses) != 5 {
		t.Fatal(err, ps.pauses)
	}
	m.before = nil
	if _, err := r.ReadAt(make([]byte, 10), mib); err != nil {
		t.Fatal(err)
	}
}

func TestStream(t *testing.T) {
	t.Parallel()
	data := noise(3, 5*mib+77)
	sum := treehash.Sum(data)
	r := coldstore.Retrieval{Archive: "a"}
	var ps pauser
	o := Options{Sleep: ps.sleep}

	m, v := archive(data)
	m.cut = func(open int) int64 { return 1_100_000 } // five connections, each of which gets on
	one := o
	one.Retries = 1
	got, err := io.ReadAll(Stream(t.Context(), m, r, v.Size, sum, one))
	if err != nil || !bytes.Equal(got, data) || len(m.opens) != 5 {
		t.Fatal(len(got), err, len(m.opens))
	}
	m.cut = nil
	m.flip = func(_ int, off int64) bool { return off == 4*mib }
	got, err = io.ReadAll(Stream(t.Context(), m, r, v.Size, sum, o))
	if !errors.Is(err, coldstore.ErrIntegrity) || len(got) >= len(data) {
		t.Fatal(len(got), err)
	}
	if _, err = io.ReadFull(Stream(t.Context(), m, r, v.Size, sum, o), make([]byte, v.Size)); !errors.Is(err, coldstore.ErrIntegrity) {
		t.Fatalf("who reads no further than the last byte is not told: %v", err)
	}
	if _, err = io.ReadAll(Stream(t.Context(), m, r, v.Size, treehash.Hash{}, o)); err != nil {
		t.Fatal(err)
	}
	m.cut = func(open int) int64 { return 1 } // never gets on
	ps.pauses = nil
	if _, err = io.ReadAll(Stream(t.Context(), m, r, v.Size, sum, o)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	if len(ps.pauses) != DefaultRetries {
		t.Fatal(len(ps.pauses))
	}
	st := Stream(t.Context(), m, r, v.Size, sum, o)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := st.Read(make([]byte, 1)); err == nil {
		t.Fatal("Read after Close")
	}
}

// A store that refuses the end of a request, whose hash is wrong, costs nothing when it was so once, and else the block that is
// wrong and no other.
func TestReaderAtRefused(t *testing.T) {
	t.Parallel()
	data := noise(4, 6*mib+5)
	for _, broken := range []bool{false, true} {
		m, v := archive(data)
		bad := 0
		m.flip = func(open int, off int64) bool {
			if off == 5*mib+9 && (broken || bad == 0) { // once on the way, or whenever it is read
				bad++
				return true
			}
			return false
		}
		noDamage := func(d Damage) { t.Errorf("broken %t: %+v", broken, d) }
		r := NewReaderAt(t.Context(), refusing{m}, v, []coldstore.Retrieval{{Archive: "a"}}, Options{Sleep: new(pauser).sleep}, noDamage)
		got := make([]byte, len(data))
		n, err := r.ReadAt(got, 0)
		if broken {
			if !errors.Is(err, coldstore.ErrIntegrity) || n > 6*mib || !bytes.Equal(got[:n], data[:n]) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if n, err := r.ReadAt(got[:5*mib], 0); n != 5*mib || err != nil || !bytes.Equal(got[:n], data[:n]) {
				t.Errorf("before it: %d bytes, %v", n, err)
			}
			if n, err := r.ReadAt(got[:5], 6*mib); n != 5 || err != nil && err != io.EOF || !bytes.Equal(got[:n], data[6*mib:]) {
				t.Errorf("after it: %d bytes, %v", n, err)
			}
		} else if err != nil || n != len(data) || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A block that a store withholds because its hash is wrong is read in parts, of which there are no hashes: what is around the damage
// counts. Where nothing else tells of damage, nothing is handed out that the store knows to be wrong.
func TestReaderAtWithheld(t *testing.T) {
	t.Parallel()
	data := noise(5, 3*mib+500)
	for _, bad := range []int64{mib + 9, 3*mib + 200} {
		m, v := archive(data)
		m.flip = func(_ int, off int64) bool { return off == bad }
		want := bytes.Clone(data)
		var found []Damage
		r := NewReaderAt(t.Context(), withholding{m}, v, []coldstore.Retrieval{{Archive: "a"}}, Options{Sleep: new(pauser).sleep}, func(d Damage) { found = append(found, d) })
		got := make([]byte, len(data))
		if n, err := r.ReadAt(got, 0); n != len(got) || err != nil && err != io.EOF {
			t.Fatalf("%d bytes, %v", n, err)
		}
		if got[bad] == want[bad] {
			t.Error("the damage is not there")
		}
		if got[bad] = want[bad]; !bytes.Equal(got, want) {
			t.Error("what is around the damage is wrong")
		}
		start := bad / mib * mib
		if len(found) != 1 || found[0] != (Damage{Archive: "a", Offset: start, Size: min(mib, int64(len(data))-start)}) {
			t.Errorf("%+v", found)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}

		v.Leaves = nil
		r = NewReaderAt(t.Context(), withholding{m}, v, []coldstore.Retrieval{{Archive: "a"}}, Options{Sleep: new(pauser).sleep}, func(Damage) { t.Error("nobody can know where it is") })
		if _, err := r.ReadAt(got[:300], start+5); !errors.Is(err, coldstore.ErrIntegrity) {
			t.Errorf("without hashes: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// withholding is refusing where requests are of whole leaves.
type withholding struct{ *memStore }

func (s withholding) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	if end := off + size; off%mib == 0 && (end%mib == 0 || end == int64(len(s.archives["a"]))) {
		return refusing(s).OpenRetrieved(ctx, r, off, size)
	}
	return s.memStore.OpenRetrieved(ctx, r, off, size)
}

// refusing holds what comes of each request against the archive, and refuses the last bytes where it is not the same.
type refusing struct{ *memStore }

func (s refusing) OpenRetrieved(ctx context.Context, r coldstore.Retrieval, off, size int64) (io.ReadCloser, error) {
	rc, err := s.memStore.OpenRetrieved(ctx, r, off, size)
	return &refusingReader{ReadCloser: rc, want: s.archives["a"][off : off+size]}, err
}

type refusingReader struct {
	io.ReadCloser
	want []byte
	bad  bool
}

func (r *refusingReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.bad = r.bad || !bytes.Equal(p[:n], r.want[:n])
	if r.want = r.want[n:]; n > 0 && len(r.want) == 0 && r.bad {
		return 0, coldstore.ErrIntegrity
	}
	return n, err
}

var (
	_ io.ReaderAt     = (*ReaderAt)(nil)
	_ coldstore.Store = (*memStore)(nil)
	_ io.Writer       = (*Upload)(nil)
)
