package volume

import (
	"testing"

	"pgregory.net/rapid"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

// feed runs members through a cutter and returns the frames of each volume.
func feed(o Options, members ...int64) (volumes [][]int64) {
	c := newCutter(o.withDefaults())
	var frames []int64
	endVolume := func() { volumes, frames = append(volumes, frames), nil }
	var frame int64
	endFrame := func() {
		if frame > 0 {
			frames, frame = append(frames, frame), 0
		}
	}
	for _, m := range members {
		f, v := c.boundary(m)
		if f {
			endFrame()
		}
		if v {
			c0 := c.vol
			endVolume()
			if c.vol != c0 || c.raw != 0 {
				panic("boundary did not move on")
			}
		}
		for m > 0 {
			if c.full() {
				c.endVolume()
				endVolume()
			}
			n := min(m, c.room())
			frame += n
			m -= n
			if c.add(n) {
				endFrame()
			}
		}
	}
	endFrame()
	endVolume()
	return volumes
}

func TestCutter(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		size    int64
		members []int64
		want    [][]int64
	}{
		{"small files share a frame", 0, []int64{kib, kib, kib}, [][]int64{{3 * kib}}},
		{"large files have their own", 0, []int64{mib, mib, mib}, [][]int64{{mib, mib, mib}}},
		{"small before a large one goes with it", 0, []int64{100 * kib, mib, kib}, [][]int64{{mib + 100*kib, kib}}},
		{"enough before a large one does not", 0, []int64{256 * kib, mib}, [][]int64{{256 * kib, mib}}},
		{"after a large one", 0, []int64{600 * kib, kib}, [][]int64{{600 * kib, kib}}},
		{"no room", 0, []int64{400 * kib, 400 * kib, 400 * kib, 400 * kib, 400 * kib, 400 * kib, 400 * kib, 400 * kib, 400 * kib, 400 * kib, 400 * kib},
			[][]int64{{4000 * kib, 400 * kib}}},
		{"forced", 0, []int64{10 * mib, kib}, [][]int64{{4 * mib, 4 * mib, 2 * mib, kib}}},
		{"volume near its end", 16 * mib, []int64{14 * mib, 3 * mib}, [][]int64{{4 * mib, 4 * mib, 4 * mib, 2 * mib}, {3 * mib}}},
		{"volume half full and the member fits in one", 16 * mib, []int64{8 * mib, 9 * mib}, [][]int64{{4 * mib, 4 * mib}, {4 * mib, 4 * mib, mib}}},
		{"volume half full and the member does not", 16 * mib, []int64{8 * mib, 17 * mib}, [][]int64{{4 * mib, 4 * mib, 4 * mib, 4 * mib}, {4 * mib, 4 * mib, mib}}},
		{"volume not half full", 16 * mib, []int64{7 * mib, 10 * mib}, [][]int64{{4 * mib, 3 * mib, 4 * mib, 4 * mib, mib}, {mib}}},
		{"exactly full is one volume", 16 * mib, []int64{16 * mib}, [][]int64{{4 * mib, 4 * mib, 4 * mib, 4 * mib}}},
		{"exactly full and more", 16 * mib, []int64{16 * mib, 1}, [][]int64{{4 * mib, 4 * mib, 4 * mib, 4 * mib}, {1}}},
		{"tiny volumes", 64 * kib, []int64{100 * kib}, [][]int64{{64 * kib}, {36 * kib}}},
		{"never", -1, []int64{1 << 32}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := feed(Options{Size: tc.size}, tc.members...)
			if tc.want == nil {
				if len(got) != 1 {
					t.Fatalf("%d volumes", len(got))
				}
				return
			}
			if !equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func equal(a, b [][]int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if len(a[i]) != len(b[i]) {
			return false
		}
		for k := range a[i] {
			if a[i][k] != b[i][k] {
				return false
			}
		}
	}
	return true
}

// Whatever comes: no byte is lost, nothing exceeds its size, and a cut
// volume is at least half full.
func TestCutterProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Size:      rapid.Int64Range(1, 64*mib).Draw(t, "size"),
			FrameSize: rapid.IntRange(1, 8*mib).Draw(t, "frame"),
		}
		o.FrameSize = max(o.FrameSize, int(o.Size/1000)) // bounds the work
		members := rapid.SliceOfN(rapid.Int64Range(0, 3*o.Size), 1, 20).Draw(t, "members")
		var want, got int64
		for _, m := range members {
			want += m
		}
		volumes := feed(o, members...)
		for i, v := range volumes {
			var raw int64
			for _, f := range v {
				if f <= 0 || f > int64(o.FrameSize) {
					t.Fatalf("frame of %d", f)
				}
				raw += f
			}
			if raw > o.Size || (i < len(volumes)-1 && raw < o.Size/2) {
				t.Fatalf("volume %d of %d has %d bytes", i, len(volumes), raw)
			}
			got += raw
		}
		if got != want {
			t.Fatalf("%d bytes of %d", got, want)
		}
	})
}
