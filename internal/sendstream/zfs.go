package sendstream

import (
	"encoding/binary"
	"strconv"
)

// A stream of zfs send is a row of records of zfsRecord bytes, each with a payload behind it, in the byte order of the
// machine that sent it. A simple stream is BEGIN … END. A compound one (-R, -I, -p) is a BEGIN with a list of
// properties, END, simple streams, and one END more.
const (
	zfsRecord = 312
	zfsMagic  = 0x2F5bacbac

	zfsBegin, zfsObject, zfsFreeObjects, zfsWrite, zfsFree, zfsEnd = 0, 1, 2, 3, 4, 5
	zfsWriteByRef, zfsSpill, zfsWriteEmbedded, zfsObjectRange      = 6, 7, 8, 9
	zfsRedact                                                      = 10

	zfsCompound = 2 // header type, the low two bits of the version
)

// maxZFSPayload is far above any block (16 MiB at most) and any list of properties.
const maxZFSPayload = 1 << 30

type zfsState struct {
	order    binary.ByteOrder
	open     bool // between BEGIN and END
	compound bool
	ended    bool
}

// zfsMagicAt is the byte order of a stream that begins as one of zfs send; nil: it does not.
func zfsMagicAt(head []byte) binary.ByteOrder {
	if len(head) < 16 {
		return nil
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(head) == zfsBegin && order.Uint64(head[8:]) == zfsMagic {
			return order
		}
	}
	return nil
}

// inspectZFS reads the first BEGIN, and of a compound stream that of the first stream in it.
func inspectZFS(head []byte) (Info, error) {
	info := Info{Format: ZFS}
	order := zfsMagicAt(head)
	if len(head) < zfsRecord {
		return info, ErrCut
	}
	compound := order.Uint64(head[16:])&3 == zfsCompound
	begin := head
	if compound {
		// Behind the BEGIN's payload and its END.
		at := zfsRecord + int64(order.Uint32(head[4:])) + zfsRecord
		if int64(len(head)) < at+zfsRecord {
			// Too long a list to see what is behind it: the header itself names the base, if there is one.
			info.Incremental = order.Uint64(head[48:]) != 0
			return info, nil
		}
		begin = head[at:]
		if order.Uint32(begin) != zfsBegin {
			return info, malformed("a compound ZFS stream without a stream in it")
		}
	}
	if from := order.Uint64(begin[48:]); from != 0 {
		info.Incremental, info.BaseID = true, strconv.FormatUint(from, 10)
	}
	if !compound { // of a compound one only the last stream in it has what it brings
		info.ID = strconv.FormatUint(order.Uint64(begin[40:]), 10)
	}
	return info, nil
}

// zfsHeader takes a record.
func (c *Checker) zfsHeader() error {
	z, b := &c.zfs, c.buf
	if z.ended {
		return malformed("something follows the end of the ZFS stream")
	}
	if z.order == nil {
		if z.order = zfsMagicAt(b); z.order == nil {
			return malformed("it does not begin as a ZFS stream")
		}
		z.compound = z.order.Uint64(b[16:])&3 == zfsCompound
	}
	payload, err := c.zfsPayload()
	if err != nil {
		return err
	}
	if payload < 0 || payload > maxZFSPayload {
		return malformed("a ZFS record of %d bytes, at byte %d", payload, c.n)
	}
	c.skip = payload
	c.expect(zfsRecord, (*Checker).zfsHeader)
	return nil
}

// zfsPayload follows the record's type, and returns the length of what is behind it.
func (c *Checker) zfsPayload() (int64, error) {
	z, b := &c.zfs, c.buf
	kind := z.order.Uint32(b)
	switch {
	case kind == zfsBegin:
		if z.open || z.order.Uint64(b[8:]) != zfsMagic {
			return 0, malformed("a ZFS stream begins inside another")
		}
		z.open = true
		return int64(z.order.Uint32(b[4:])), nil
	case kind == zfsEnd && z.open:
		z.open = false
		z.ended = !z.compound
		return 0, nil
	case kind == zfsEnd: // of a compound stream as a whole
		z.ended = true
		return 0, nil
	case !z.open:
		return 0, malformed("a ZFS record outside of a stream, at byte %d", c.n)
	}
	switch kind {
	case zfsObject:
		bonus, raw := int64(z.order.Uint32(b[28:])), int64(z.order.Uint32(b[36:]))
		switch {
		case bonus == 0:
			return 0, nil
		case raw != 0:
			return raw, nil
		}
		return (bonus + 7) &^ 7, nil
	case zfsWrite:
		if b[50] != 0 {
			return int64(z.order.Uint64(b[96:])), nil
		}
		return int64(z.order.Uint64(b[32:])), nil
	case zfsSpill:
		if n := int64(z.order.Uint64(b[40:])); n != 0 {
			return n, nil
		}
		return int64(z.order.Uint64(b[16:])), nil
	case zfsWriteEmbedded:
		return (int64(z.order.Uint32(b[52:])) + 7) &^ 7, nil
	case zfsFreeObjects, zfsFree, zfsWriteByRef, zfsObjectRange, zfsRedact:
		return 0, nil
	}
	return 0, malformed("a ZFS record of unknown type %d, at byte %d", kind, c.n)
}
