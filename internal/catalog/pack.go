package catalog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/firn-backup/firn/internal/codec"
	"github.com/firn-backup/firn/internal/failure"
	"github.com/firn-backup/firn/internal/manifest"
	"github.com/firn-backup/firn/internal/snapshot"
	"github.com/firn-backup/firn/treehash"
)

// An entry is packed into four binary columns, so that a row costs few
// parameters and few bytes: stat is what a comparison needs, content the address in
// an order that bytewise comparison gives, grp the link group, and more what
// few entries have.

var errPacked = failure.Errorf(failure.Damaged, "packed column is damaged: move the catalog away and rebuild it from the vault with recover")

// pathKey is a path as the database orders it: with NUL, which no path has,
// for the slash, bytewise order is that of snapshot.ComparePaths.
func pathKey(path string) ([]byte, error) {
	if path == "" {
		return nil, failure.Errorf(failure.Damaged, "entry with an empty path")
	}
	key := []byte(path)
	if bytes.IndexByte(key, 0) >= 0 {
		return nil, failure.Errorf(failure.Damaged, "path %q has a NUL in it", path)
	}
	return slashToNul(key), nil
}

func slashToNul(key []byte) []byte {
	for i, c := range key {
		if c == '/' {
			key[i] = 0
		}
	}
	return key
}

// keyPath turns a key back into a path.
func keyPath(key []byte) string {
	path := bytes.Clone(key)
	for i, c := range path {
		if c == 0 {
			path[i] = '/'
		}
	}
	return string(path)
}

// After a key comes, as the very next one, the key with a NUL at its end; and
// all keys below it come before the key with a 1 at its end.
func nextKey(key []byte) []byte  { return append(bytes.Clone(key), 0) }
func belowEnd(key []byte) []byte { return append(bytes.Clone(key), 1) }

// packed is an entry as it is written.
type packed struct {
	key, stat, content, group, more []byte
}

func pack(e *snapshot.Entry, owner uint64) (packed, error) {
	key, err := pathKey(e.Path)
	if err != nil {
		return packed{}, err
	}
	p := packed{key: key, stat: packStat(nil, e, owner)}
	if !e.Content.IsZero() {
		if p.content, err = packContent(nil, &e.Content); err != nil {
			return packed{}, fmt.Errorf("%q: %w", e.Path, err)
		}
	}
	if e.LinkGroup != "" {
		p.group = []byte(e.LinkGroup)
	}
	p.more = packMore(nil, e)
	return p, nil
}

func (p *packed) size() int {
	return len(p.key) + len(p.stat) + len(p.content) + len(p.group) + len(p.more)
}

// packStat: type, mode, uid, gid, owner names, size, mtime, and last what is
// local: ctime, dev, ino.
func packStat(b []byte, e *snapshot.Entry, owner uint64) []byte {
	b = append(b, byte(e.Type))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.UID))
	b = binary.AppendUvarint(b, uint64(e.GID))
	b = binary.AppendUvarint(b, owner)
	b = binary.AppendVarint(b, e.Size)
	b = packTime(b, e.MTime)
	b = packTime(b, e.CTime)
	b = binary.AppendUvarint(b, e.Dev)
	return binary.AppendUvarint(b, e.Ino)
}

func packTime(b []byte, t snapshot.Time) []byte {
	b = binary.AppendVarint(b, t.Sec)
	return binary.AppendVarint(b, int64(t.Nsec))
}

// unpackStat fills in what packStat packs of e.
func unpackStat(b []byte, e *Row) (owner uint64, err error) {
	d := decoder{b: b}
	e.Type = snapshot.Type(d.byte())
	e.Mode = d.uint32()
	e.UID = d.uint32()
	e.GID = d.uint32()
	owner = d.uvarint()
	e.Size = d.varint()
	e.MTime = d.time()
	e.CTime = d.time()
	e.Dev = d.uvarint()
	e.Ino = d.uvarint()
	return owner, d.end()
}

// Flags of a packed content.
const contentSparse = 1

// packContent packs the address so that bytewise order is that of (N, Volume, Offset).
func packContent(b []byte, c *snapshot.Content) ([]byte, error) {
	if c.Volume < 0 || c.Offset < 0 || c.Stored < 0 {
		return nil, failure.Errorf(failure.Damaged, "content address (%d, %d, %d+%d)", c.N, c.Volume, c.Offset, c.Stored)
	}
	b = appendOrdered(b, c.N)
	b = appendOrdered(b, uint64(c.Volume))
	b = appendOrdered(b, uint64(c.Offset))
	var flags byte
	if c.Sparse {
		flags = contentSparse
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(c.Stored))
	return append(b, c.SHA256[:]...), nil
}

func unpackContent(b []byte, c *snapshot.Content) error {
	d := decoder{b: b}
	c.N = d.ordered()
	c.Volume = int(d.ordered())
	c.Offset = int64(d.ordered())
	flags := d.byte()
	if flags > contentSparse {
		return errPacked
	}
	c.Sparse = flags == contentSparse
	c.Stored = int64(d.uvarint())
	copy(c.SHA256[:], d.bytes(len(c.SHA256)))
	return d.end()
}

// appendOrdered appends a number so that bytewise order is that of numbers: its length, then
// its bytes, the highest first.
func appendOrdered(b []byte, n uint64) []byte {
	var be [8]byte
	binary.BigEndian.PutUint64(be[:], n)
	i := 0
	for i < 8 && be[i] == 0 {
		i++
	}
	return append(append(b, byte(8-i)), be[i:]...)
}

// Tags of the packed rest. A reader refuses what it does not know.
const (
	moreLink   = 1 // target
	moreDevice = 2 // major, minor
	moreTorn   = 3
	moreXattr  = 4 // length of the name, name, value; one each
)

func packMore(b []byte, e *snapshot.Entry) []byte {
	if e.Link != "" {
		b = appendTagged(b, moreLink, e.Link)
	}
	if e.Major != 0 || e.Minor != 0 {
		dev := binary.AppendUvarint(nil, uint64(e.Major))
		b = appendTagged(b, moreDevice, string(binary.AppendUvarint(dev, uint64(e.Minor))))
	}
	if e.Torn {
		b = appendTagged(b, moreTorn, "")
	}
	for _, x := range e.Xattrs {
		v := binary.AppendUvarint(nil, uint64(len(x.Name)))
		v = append(append(v, x.Name...), x.Value...)
		b = appendTagged(b, moreXattr, string(v))
	}
	return b
}

func appendTagged(b []byte, tag byte, value string) []byte {
	b = binary.AppendUvarint(append(b, tag), uint64(len(value)))
	return append(b, value...)
}

func unpackMore(b []byte, e *snapshot.Entry) error {
	d := decoder{b: b}
	for len(d.b) > 0 && !d.bad {
		tag := d.byte()
		v := decoder{b: d.bytes(int(min(d.uvarint(), math.MaxInt32)))}
		switch tag {
		case moreLink:
			e.Link = string(v.rest())
		case moreDevice:
			e.Major, e.Minor = v.uint32(), v.uint32()
		case moreTorn:
			e.Torn = true
		case moreXattr:
			name := v.bytes(int(min(v.uvarint(), math.MaxInt32)))
			e.Xattrs = append(e.Xattrs, snapshot.Xattr{Name: string(name), Value: string(v.rest())})
		default:
			return errPacked
		}
		if v.end() != nil {
			return errPacked
		}
	}
	return d.end()
}

// packFrames and packLeaves are the lists of a volume.
func packFrames(frames []codec.Frame) []byte {
	b := make([]byte, 0, 8*len(frames))
	for _, f := range frames {
		b = binary.AppendUvarint(b, uint64(f.Raw))
		b = binary.AppendUvarint(b, uint64(f.Packed))
	}
	return b
}

func unpackFrames(b []byte) ([]codec.Frame, error) {
	var frames []codec.Frame
	d := decoder{b: b}
	for len(d.b) > 0 && !d.bad {
		frames = append(frames, codec.Frame{Raw: int64(d.uvarint()), Packed: int64(d.uvarint())})
	}
	return frames, d.end()
}

func packLeaves(leaves []treehash.Hash) []byte {
	b := make([]byte, 0, len(leaves)*len(treehash.Hash{}))
	for i := range leaves {
		b = append(b, leaves[i][:]...)
	}
	return b
}

func unpackLeaves(b []byte) ([]treehash.Hash, error) {
	const size = len(treehash.Hash{})
	if len(b)%size != 0 {
		return nil, errPacked
	}
	var leaves []treehash.Hash
	for ; len(b) > 0; b = b[size:] {
		leaves = append(leaves, treehash.Hash(b[:size]))
	}
	return leaves, nil
}

func rawHash(v *manifest.Volume) []byte {
	if v.RawSHA256 == nil {
		return nil
	}
	return v.RawSHA256[:]
}

// decoder takes packed values off b; bad is set once they do not fit.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.b) {
		d.bad = true
		return nil
	}
	v := d.b[:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if v := d.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	d.bad = d.bad || v > math.MaxUint32
	return uint32(v)
}

func (d *decoder) time() snapshot.Time {
	return snapshot.Time{Sec: d.varint(), Nsec: int32(d.varint())}
}

func (d *decoder) ordered() uint64 {
	n := int(d.byte())
	d.bad = d.bad || n > 8
	var v uint64
	for _, c := range d.bytes(n) {
		v = v<<8 | uint64(c)
	}
	return v
}

func (d *decoder) rest() []byte {
	v := d.b
	d.b = nil
	return v
}

func (d *decoder) end() error {
	if d.bad || len(d.b) > 0 {
		return errPacked
	}
	return nil
}
