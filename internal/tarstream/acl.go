package tarstream

import (
	"encoding/binary"
	"strconv"
)

// The tags of a POSIX ACL's entries in the kernel's form
// (linux/posix_acl_xattr.h, linux/posix_acl.h).
const (
	aclUserObj  = 0x01
	aclUser     = 0x02
	aclGroupObj = 0x04
	aclGroup    = 0x08
	aclMask     = 0x10
	aclOther    = 0x20
)

// aclText turns a POSIX ACL from the binary form of the extended attribute (a
// version, 2, and entries of tag, permissions and id, little-endian) into text
// as SCHILY.acl.* has it, with numeric ids, a line an entry. It refuses what it
// does not understand: the attribute itself still tells.
func aclText(b string) (string, bool) {
	if len(b) < 4 || (len(b)-4)%8 != 0 || binary.LittleEndian.Uint32([]byte(b[:4])) != 2 {
		return "", false
	}
	var text []byte
	for b = b[4:]; len(b) > 0; b = b[8:] {
		entry := []byte(b[:8])
		tag := binary.LittleEndian.Uint16(entry)
		perm := binary.LittleEndian.Uint16(entry[2:])
		id := uint64(binary.LittleEndian.Uint32(entry[4:]))
		switch tag {
		case aclUserObj:
			text = append(text, "user::"...)
		case aclUser:
			text = append(strconv.AppendUint(append(text, "user:"...), id, 10), ':')
		case aclGroupObj:
			text = append(text, "group::"...)
		case aclGroup:
			text = append(strconv.AppendUint(append(text, "group:"...), id, 10), ':')
		case aclMask:
			text = append(text, "mask::"...)
		case aclOther:
			text = append(text, "other::"...)
		default:
			return "", false
		}
		for i, letter := range "rwx" {
			if perm&(4>>i) == 0 {
				letter = '-'
			}
			text = append(text, byte(letter))
		}
		text = append(text, '\n')
	}
	return string(text), true
}
