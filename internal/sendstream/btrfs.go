package sendstream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A stream of btrfs send is a header (magic number with a NUL, version) and commands: length, number, CRC-32C of the
// whole command with that field zero, all little-endian, then the attributes. Several
// subvolumes sent at once are several such streams, one behind the other.
const (
	btrfsMagic   = "btrfs-stream\x00"
	btrfsHeader  = len(btrfsMagic) + 4
	btrfsCommand = 10

	btrfsSubvol, btrfsSnapshot, btrfsEnd = 1, 2, 21
	btrfsUUID, btrfsCloneUUID            = 1, 20

	// Far above any version there is: what is higher is no version.
	maxBtrfsVersion = 99
)

type btrfsState struct {
	ended bool
	cmd   uint16
	want  uint32
	crc   uint32 // running, inverted as package crc32 has it
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli) // a constant in all but name

func (s *btrfsState) sum(p []byte) { s.crc = crc32.Update(s.crc, castagnoli, p) }

// inspectBtrfs reads the first command, which names the subvolume.
func inspectBtrfs(head []byte) (Info, error) {
	info := Info{Format: Btrfs}
	if len(head) < btrfsHeader+btrfsCommand {
		return info, ErrCut
	}
	cmd := head[btrfsHeader:]
	size := int64(binary.LittleEndian.Uint32(cmd))
	kind := binary.LittleEndian.Uint16(cmd[4:])
	if kind != btrfsSubvol && kind != btrfsSnapshot {
		return info, malformed("a btrfs stream that does not begin with a subvolume")
	}
	info.Incremental = kind == btrfsSnapshot
	cmd = cmd[btrfsCommand:]
	if int64(len(cmd)) < size {
		if len(head) < HeadSize {
			return info, ErrCut
		}
		return info, malformed("a btrfs command of %d bytes where a subvolume is named", size)
	}
	cmd = cmd[:size]
	for len(cmd) >= 4 {
		attr, n := binary.LittleEndian.Uint16(cmd), int(binary.LittleEndian.Uint16(cmd[2:]))
		if cmd = cmd[4:]; n > len(cmd) {
			return info, malformed("a btrfs attribute of %d bytes", n)
		}
		if n == 16 && attr == btrfsUUID {
			info.ID = uuid(cmd[:n])
		}
		if n == 16 && attr == btrfsCloneUUID {
			info.BaseID = uuid(cmd[:n])
		}
		cmd = cmd[n:]
	}
	return info, nil
}

// uuid writes a UUID as btrfs does.
func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// btrfsStart takes a stream's header.
func (c *Checker) btrfsStart() error {
	if string(c.buf[:len(btrfsMagic)]) != btrfsMagic {
		return malformed("it does not go on as a btrfs stream, at byte %d", c.n)
	}
	if v := binary.LittleEndian.Uint32(c.buf[len(btrfsMagic):]); v == 0 || v > maxBtrfsVersion {
		return malformed("a btrfs stream of version %d", v)
	}
	c.btrfs.ended = false
	c.expect(btrfsCommand, (*Checker).btrfsHead)
	return nil
}

// btrfsHead takes a command's header.
func (c *Checker) btrfsHead() error {
	s := &c.btrfs
	s.cmd, s.want = binary.LittleEndian.Uint16(c.buf[4:]), binary.LittleEndian.Uint32(c.buf[6:])
	s.crc = ^uint32(0)
	s.sum(c.buf[:6])
	s.sum([]byte{0, 0, 0, 0})
	if c.skip = int64(binary.LittleEndian.Uint32(c.buf)); c.skip > 0 {
		c.buf = c.buf[:0]
		return nil
	}
	return c.btrfsEndOfCommand()
}

// btrfsEndOfCommand is called when all of a command has passed.
func (c *Checker) btrfsEndOfCommand() error {
	s := &c.btrfs
	if ^s.crc != s.want {
		return malformed("a btrfs command with a wrong checksum, before byte %d", c.n)
	}
	if s.cmd == btrfsEnd {
		s.ended = true
		c.expect(btrfsHeader, (*Checker).btrfsStart)
		return nil
	}
	c.expect(btrfsCommand, (*Checker).btrfsHead)
	return nil
}
