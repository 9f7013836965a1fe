// Package sendstream knows the framing of the streams that zfs send and btrfs
// send write: enough to tell them apart, to say what snapshot a stream is of and
// what it builds on, and to see, while it passes, whether it is whole. It is
// pure and interprets no file. Memory is bounded by one record header.
//
// Sources of the facts: OpenZFS include/sys/zfs_ioctl.h (dmu_replay_record), btrfs-progs
// kernel-shared/send.h and the page "Send stream format" of its documentation.
package sendstream

import (
	"bytes"
	"errors"
	"fmt"
)

// Format says what a stream is. The values are those of the manifest's key "stream".
type Format string

const (
	ZFS   Format = "zfs"
	Btrfs Format = "btrfs"
	Raw   Format = "raw" // whatever a program wrote: nothing but its exit status tells whether it is whole
)

// HeadSize is how many bytes of a stream's beginning, if it has as many, Inspect wants to see.
const HeadSize = 8 << 10

// ErrCut says that a stream ends before its end marker.
var ErrCut = errors.New("the stream is cut: its end marker is missing")

// ErrMalformed says that a stream is not what its beginning says it is.
var ErrMalformed = errors.New("the stream is damaged")

// Info is what the beginning of a stream tells.
type Info struct {
	Format      Format
	Incremental bool
	ID          string // of the snapshot sent: a ZFS guid in decimal, a btrfs UUID; empty when not known
	BaseID      string // of the snapshot that an incremental builds on; empty when not known
}

// Detect tells the format by the first bytes of a stream. What is shorter than a magic
// number and the beginning of one counts as that format: it can only be a stream that is cut.
func Detect(head []byte) Format {
	switch {
	case len(head) > 0 && bytes.Equal(head[:min(len(head), len(btrfsMagic))], []byte(btrfsMagic)[:min(len(head), len(btrfsMagic))]):
		return Btrfs
	case zfsMagicAt(head) != nil:
		return ZFS
	}
	return Raw
}

// Inspect tells what a stream is by its head, its first HeadSize bytes or all
// that there are. The error is ErrCut or ErrMalformed.
func Inspect(head []byte) (Info, error) {
	switch f := Detect(head); f {
	case Btrfs:
		return inspectBtrfs(head)
	case ZFS:
		return inspectZFS(head)
	default:
		return Info{Format: f}, nil
	}
}

// A Checker is written a stream as it passes, and says at its end whether it is whole. The zero value is not
// usable; NewChecker makes one. It is for one goroutine.
type Checker struct {
	format Format
	err    error
	n      int64 // bytes so far

	buf  []byte // the header being gathered
	want int    // its length
	skip int64  // bytes of payload still to pass
	next func(c *Checker) error

	zfs   zfsState
	btrfs btrfsState
}

// NewChecker makes a Checker of streams of a format. Of Raw ones it counts the bytes only.
func NewChecker(f Format) *Checker {
	c := &Checker{format: f}
	switch f {
	case ZFS:
		c.expect(zfsRecord, (*Checker).zfsHeader)
	case Btrfs:
		c.expect(btrfsHeader, (*Checker).btrfsStart)
	}
	return c
}

// expect says that a header of so many bytes comes, and who takes it.
func (c *Checker) expect(n int, next func(*Checker) error) {
	c.buf, c.want, c.next = c.buf[:0], n, next
}

// Write looks at the next bytes. Its error is ErrMalformed; it stays.
func (c *Checker) Write(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n := len(p)
	c.n += int64(n)
	if c.format != ZFS && c.format != Btrfs {
		return n, nil
	}
	for len(p) > 0 {
		if c.skip > 0 {
			k := int(min(c.skip, int64(len(p))))
			if c.format == Btrfs {
				c.btrfs.sum(p[:k])
			}
			c.skip -= int64(k)
			p = p[k:]
			if c.skip == 0 && c.format == Btrfs {
				if c.err = c.btrfsEndOfCommand(); c.err != nil {
					return 0, c.err
				}
			}
			continue
		}
		k := min(c.want-len(c.buf), len(p))
		c.buf = append(c.buf, p[:k]...)
		p = p[k:]
		if len(c.buf) == c.want {
			if c.err = c.next(c); c.err != nil {
				return 0, c.err
			}
		}
	}
	return n, nil
}

// End says whether the stream may end here. ErrCut: it may not.
func (c *Checker) End() error {
	if c.err != nil {
		return c.err
	}
	ended := map[Format]bool{ZFS: c.zfs.ended, Btrfs: c.btrfs.ended, Raw: true}[c.format]
	if !ended || c.skip > 0 || len(c.buf) > 0 {
		return fmt.Errorf("%w (%s, after %d bytes)", ErrCut, c.format, c.n)
	}
	return nil
}

// Bytes is how many bytes were written.
func (c *Checker) Bytes() int64 { return c.n }

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
