package volume

// A frame is not ended before a member while it holds less than a 16th of its
// size (256 KiB of 4 MiB), and a member of an 8th or more (512 KiB) gets a
// frame of its own: a file of 1 MiB that does not compress must not cost the reading of a
// whole frame, and small files share frames, which compress better.
const (
	maxSmallFill   = 256 << 10
	maxLargeMember = 512 << 10
)

// A cutter decides where frames and volumes end. It is pure arithmetic.
type cutter struct {
	size  int64 // of a volume; negative: no end
	frame int64
	small int64 // a frame with less is not ended at a boundary
	large int64 // a member with as much wants a frame of its own

	vol    int   // volume of the next byte, but see full
	raw    int64 // bytes in it
	fill   int64 // bytes in the frame
	member int64 // bytes since the last boundary
	total  int64 // bytes since the beginning
}

func newCutter(o Options) cutter {
	frame := int64(o.FrameSize)
	return cutter{
		size:  o.Size,
		frame: frame,
		small: min(maxSmallFill, frame/16),
		large: min(maxLargeMember, frame/8),
		vol:   o.First,
	}
}

// full says that the volume has no room for another byte. It is ended when that comes.
func (c *cutter) full() bool { return c.size > 0 && c.raw >= c.size }

// pos is where the next byte will lie.
func (c *cutter) pos() (vol int, off int64) {
	if c.full() {
		return c.vol + 1, 0
	}
	return c.vol, c.raw
}

// room is how many bytes fit before a frame or a volume must end.
func (c *cutter) room() int64 {
	n := c.frame - c.fill
	if c.size > 0 {
		n = min(n, c.size-c.raw)
	}
	return n
}

// add counts n bytes, at most room, and says whether the frame ends after them.
func (c *cutter) add(n int64) (endFrame bool) {
	c.raw += n
	c.fill += n
	c.member += n
	c.total += n
	if c.fill >= c.frame || c.full() {
		c.fill = 0
		return true
	}
	return false
}

// boundary says what ends before a member of next bytes. A volume's end is a
// frame's end too.
func (c *cutter) boundary(next int64) (endFrame, endVolume bool) {
	last := c.member
	c.member = 0
	switch {
	case next <= 0:
		return false, false
	case c.raw > 0 && c.endVolumeBefore(next):
		c.endVolume()
		return true, true
	case c.fill > 0 && c.fill >= c.small && (next > c.frame-c.fill || next >= c.large || last >= c.large):
		c.fill = 0
		return true, false
	}
	return false, false
}

func (c *cutter) endVolumeBefore(next int64) bool {
	if c.size <= 0 || next <= c.size-c.raw {
		return false
	}
	return c.raw >= c.size-c.size/8 || (c.raw >= c.size/2 && next <= c.size)
}

func (c *cutter) endVolume() {
	c.vol++
	c.raw = 0
	c.fill = 0
}
