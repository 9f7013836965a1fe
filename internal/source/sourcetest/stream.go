package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/firn-backup/firn/internal/sendstream"
	"github.com/firn-backup/firn/internal/source"
)

// StreamBench is a producer under test.
type StreamBench struct {
	Stream source.Stream
	// Change changes what there is to send.
	Change func(t testing.TB)
	// Foreign makes a point that is somebody else's, and says whether it is still there. Nil: there is no such thing.
	Foreign func(t testing.TB) (there func() bool)
	Failing source.Stream // whose producer fails after some bytes; nil: none
}

// StreamSuite tests every promise of source.Stream.
func StreamSuite(t *testing.T, open func(t testing.TB) StreamBench) {
	for name, test := range map[string]func(*testing.T, StreamBench){
		"Whole":   testWhole,
		"Points":  testPoints,
		"Broken":  testBroken,
		"Stopped": testStopped,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// at is the time that points of the suite are made at.
func at(n int) time.Time { return time.Date(2026, 11, 1+n, 2, 3, 4, 0, time.UTC) }

func makePoint(t testing.TB, s source.Stream, n int) source.Point {
	t.Helper()
	p, err := s.Make(t.Context(), at(n))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func readAll(t testing.TB, s source.Stream, p source.Point, base *source.Point) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), p, base)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	return b
}

// testWhole: what is sent is whole, and the same once more; an incremental names its base.
func testWhole(t *testing.T, b StreamBench) {
	s := b.Stream
	b.Change(t)
	first := makePoint(t, s, 0)
	x := readAll(t, s, first, nil)
	check(t, s, x, first, nil)
	if s.Traits().Again && s.Traits().Points && !bytes.Equal(x, readAll(t, s, first, nil)) {
		t.Error("sent once more it is another stream")
	}
	if !s.Traits().Points {
		return
	}
	if err := s.Keep(t.Context(), first); err != nil {
		t.Error(err)
	}
	b.Change(t)
	second := makePoint(t, s, 1)
	check(t, s, readAll(t, s, second, &first), second, &first)
}

func check(t testing.TB, s source.Stream, b []byte, p source.Point, base *source.Point) {
	t.Helper()
	info, err := sendstream.Inspect(b[:min(len(b), sendstream.HeadSize)])
	if err != nil {
		t.Fatal(err)
	}
	c := sendstream.NewChecker(info.Format)
	if _, err := c.Write(b); err != nil {
		t.Error(err)
	}
	if err := c.End(); err != nil {
		t.Error(err)
	}
	if f := s.Traits().Format; f != "" && info.Format != f {
		t.Errorf("it is %s and not %s", info.Format, f)
	}
	if info.ID != "" && info.ID != p.ID && p.ID != "" {
		t.Errorf("it is of %s and not of %s", info.ID, p.ID)
	}
	if info.Incremental != (base != nil) || base != nil && info.BaseID != base.ID {
		t.Errorf("%+v, and the base is %v", info, base)
	}
}

// testPoints: own points are listed, oldest first, and go when they are released; others' stay.
func testPoints(t *testing.T, b StreamBench) {
	s := b.Stream
	if !s.Traits().Points {
		if p, err := s.Points(t.Context()); err != nil || len(p) > 0 {
			t.Errorf("%v, %v", p, err)
		}
		return
	}
	b.Change(t)
	there := func() bool { return true }
	if b.Foreign != nil {
		there = b.Foreign(t)
	}
	var made []source.Point
	for n := range 3 {
		p := makePoint(t, s, n)
		if p.Name == "" || p.ID == "" || !p.Own || !p.At.Equal(at(n)) {
			t.Errorf("%+v", p)
		}
		made = append(made, p)
		if err := s.Keep(t.Context(), p); err != nil {
			t.Error(err)
		}
	}
	again := makePoint(t, s, 2) // the same second
	if again.Name == made[2].Name || again.ID == made[2].ID {
		t.Errorf("two points are one: %+v", again)
	}
	list := func() (ids []string) {
		t.Helper()
		points, err := s.Points(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range points {
			if p.Own && !p.BaseOnly {
				ids = append(ids, p.ID)
			}
		}
		return ids
	}
	if got := list(); len(got) != 4 || got[0] != made[0].ID || got[1] != made[1].ID {
		t.Errorf("%v", got)
	}
	for range 2 { // the second time it is not there any more
		if err := s.Release(t.Context(), made[0]); err != nil {
			t.Error(err)
		}
	}
	if got := list(); len(got) != 3 || slices.Contains(got, made[0].ID) {
		t.Errorf("after one was released: %v", got)
	}
	if _, err := openAndRead(t.Context(), s, made[0], nil); err == nil {
		t.Error("a point that is no more was sent")
	}
	if !there() {
		t.Error("somebody else's is gone")
	}
}

func openAndRead(ctx context.Context, s source.Stream, p source.Point, base *source.Point) ([]byte, error) {
	r, err := s.Open(ctx, p, base)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// testBroken: a producer that fails has no end.
func testBroken(t *testing.T, b StreamBench) {
	if b.Failing == nil {
		t.Skip("nothing that fails")
	}
	b.Change(t)
	p := makePoint(t, b.Failing, 0)
	if got, err := openAndRead(t.Context(), b.Failing, p, nil); err == nil {
		t.Errorf("it failed, and %d bytes came to an end", len(got))
	}
}

// testStopped: a reader that is closed early, or whose context ends, leaves nothing running and has no end.
func testStopped(t *testing.T, b StreamBench) {
	b.Change(t)
	p := makePoint(t, b.Stream, 0)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := b.Stream.Open(ctx, p, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 10)); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := io.ReadAll(r); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its context: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if !b.Stream.Traits().Again {
		return
	}
	if r, err = b.Stream.Open(t.Context(), p, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after Close: %v", err)
	}
}
